//! What supervisor and keeper say to each other: one packet a message (SOCK_SEQPACKET keeps them apart), one version.
//!
//! Both sides are the same binary, except across an upgrade; a packet of another version is refused. A keeper that is a fork has the
//! plan of its main process from its birth. Other plans may be larger than a socket takes at once, so they travel as a memory file, and
//! nobody ever blocks.

use crate::core::signal::Signal;
pub use crate::sys::packet::pair;
use crate::sys::packet::{self, Packet};
use crate::sys::spawn::plan::ChildPlan;
use rustix::fs::MemfdFlags;
use std::fs::File;
use std::io::{self, IoSlice, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const VERSION: u8 = 3;

/// More than execve(2) takes for arguments and environment together on any machine.
const MOST_PLAN: u64 = 16 << 20;

/// Supervisor to keeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SupervisorMsg {
    /// Make the main process. Comes with five or six descriptors, see [`send_start`]; with none for a keeper that has its [`Start`].
    Start,
    /// End the tree; answered by [`KeeperMsg::Empty`].
    Kill,
    /// Signal every process of the tree, once.
    Signal(Signal),
    /// Stop every process of the tree where it is; answered by [`KeeperMsg::Frozen`] when all stand still.
    Freeze,
    /// Let all of them go on; answered by [`KeeperMsg::Thawed`].
    Thaw,
    /// Report how the main process is, as if it had just happened: [`KeeperMsg::Spawned`], or [`KeeperMsg::MainExited`]; then
    /// [`KeeperMsg::Frozen`] if that is so.
    Report,
    /// Run a program beside the main process. Comes with four or five descriptors: see [`send_hook`]. Answered by
    /// [`KeeperMsg::Hook`].
    Hook,
    /// End that program, with all that it has started.
    EndHook,
}

/// Keeper to supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeeperMsg {
    /// Exec succeeded. Comes with the pidfd. `takes_hooks`: it knows [`SupervisorMsg::Hook`], as a keeper of an earlier version
    /// does not.
    Spawned { pid: i32, takes_hooks: bool },
    /// It could not be made at all, or was killed on its way (errno 0). Nothing of it is left.
    NotMade { errno: i32 },
    /// A step failed; nothing of it is left.
    Failed { step: u8, errno: i32 },
    /// The main process ended with this wait status.
    MainExited { status: i32 },
    /// `ECHILD`: nothing is left. The keeper ends.
    Empty,
    /// Every process of the tree stands still.
    Frozen,
    /// None is kept from running any more.
    Thawed,
    /// It is the first of its PID namespace and cannot mount a /proc for it. The keeper ends.
    NoProc { errno: i32 },
    /// What became of a hook.
    Hook(HookEnd),
}

/// How a hook ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookEnd {
    /// With this wait status.
    Exited { status: i32 },
    /// A step failed.
    Failed { step: u8, errno: i32 },
    /// It could not be made at all; `EBUSY`: an earlier one is still there.
    NotMade { errno: i32 },
}

impl SupervisorMsg {
    fn encode(self) -> [u8; 3] {
        match self {
            Self::Start => [VERSION, 1, 0],
            Self::Kill => [VERSION, 2, 0],
            Self::Signal(signal) => [VERSION, 3, signal.number() as u8],
            Self::Freeze => [VERSION, 4, 0],
            Self::Thaw => [VERSION, 5, 0],
            Self::Report => [VERSION, 6, 0],
            Self::Hook => [VERSION, 7, 0],
            Self::EndHook => [VERSION, 8, 0],
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        match *bytes {
            [VERSION, 1, _] => Some(Self::Start),
            [VERSION, 2, _] => Some(Self::Kill),
            [VERSION, 4, _] => Some(Self::Freeze),
            [VERSION, 5, _] => Some(Self::Thaw),
            [VERSION, 6, _] => Some(Self::Report),
            [VERSION, 7, _] => Some(Self::Hook),
            [VERSION, 8, _] => Some(Self::EndHook),
            [VERSION, 3, number] => Signal::from_number(i32::from(number)).map(Self::Signal),
            _ => None,
        }
    }
}

impl KeeperMsg {
    fn encode(self) -> [u8; 7] {
        let (kind, step, number) = match self {
            Self::Spawned { pid, takes_hooks } => (1, u8::from(takes_hooks), pid),
            Self::NotMade { errno } => (2, 0, errno),
            Self::Failed { step, errno } => (3, step, errno),
            Self::MainExited { status } => (4, 0, status),
            Self::Empty => (5, 0, 0),
            Self::Frozen => (6, 0, 0),
            Self::Thawed => (7, 0, 0),
            Self::NoProc { errno } => (8, 0, errno),
            Self::Hook(HookEnd::Exited { status }) => (9, 0, status),
            Self::Hook(HookEnd::Failed { step, errno }) => (10, step, errno),
            Self::Hook(HookEnd::NotMade { errno }) => (11, 0, errno),
        };
        let [a, b, c, d] = number.to_le_bytes();
        [VERSION, kind, step, a, b, c, d]
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let &[VERSION, kind, step, a, b, c, d] = bytes else { return None };
        let number = i32::from_le_bytes([a, b, c, d]);
        match kind {
            1 => Some(Self::Spawned { pid: number, takes_hooks: step != 0 }),
            2 => Some(Self::NotMade { errno: number }),
            3 => Some(Self::Failed { step, errno: number }),
            4 => Some(Self::MainExited { status: number }),
            5 => Some(Self::Empty),
            6 => Some(Self::Frozen),
            7 => Some(Self::Thawed),
            8 => Some(Self::NoProc { errno: number }),
            9 => Some(Self::Hook(HookEnd::Exited { status: number })),
            10 => Some(Self::Hook(HookEnd::Failed { step, errno: number })),
            11 => Some(Self::Hook(HookEnd::NotMade { errno: number })),
            _ => None,
        }
    }
}

/// Sends the order to make the main process: the plan, the directory in which the keeper is to listen as `name` should
/// we be gone, and the plan's own descriptors.
///
/// # Errors
/// `InvalidInput` for a plan with inherited streams; otherwise those of memfd_create(2) and sendmsg(2).
pub fn send_start(
    socket: BorrowedFd<'_>,
    name: &str,
    plan: &ChildPlan,
    dir: BorrowedFd<'_>,
) -> io::Result<()> {
    send_plan(socket, SupervisorMsg::Start, name, plan, Some(dir))
}

/// Sends the order to run a hook: its plan, and that one's own descriptors.
///
/// # Errors
/// As [`send_start`].
pub fn send_hook(socket: BorrowedFd<'_>, plan: &ChildPlan) -> io::Result<()> {
    send_plan(socket, SupervisorMsg::Hook, "", plan, None)
}

fn send_plan(
    socket: BorrowedFd<'_>,
    order: SupervisorMsg,
    name: &str,
    plan: &ChildPlan,
    dir: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut memory = File::from(rustix::fs::memfd_create("plan", MemfdFlags::CLOEXEC)?);
    let mut bytes = Vec::new();
    encode_plan(name, plan, &mut bytes);
    memory.write_all(&bytes)?;
    let mut fds = vec![memory.as_fd()];
    fds.extend(descriptors(plan, dir)?);
    send(socket, &order.encode(), &fds)
}

/// A plan in bytes, for a keeper that is to listen as `name`. [`descriptors`] go with it.
pub fn encode_plan(name: &str, plan: &ChildPlan, out: &mut Vec<u8>) {
    // No socket takes a longer one (unix(7)).
    let (length, name) = u8::try_from(name.len()).map_or((0, ""), |length| (length, name));
    out.push(length);
    out.extend_from_slice(name.as_bytes());
    plan.encode_into(out);
}

/// The directory to listen in, and what the plan has open.
///
/// # Errors
/// `InvalidInput` for a plan with inherited streams.
pub fn descriptors<'a>(plan: &'a ChildPlan, dir: Option<BorrowedFd<'a>>) -> io::Result<Vec<BorrowedFd<'a>>> {
    let of_plan = plan.descriptors().ok_or(io::ErrorKind::InvalidInput)?;
    Ok(dir.into_iter().chain(of_plan).collect())
}

/// All that a keeper needs for its main process.
#[derive(Debug)]
pub struct Start {
    /// What it is to listen as, and where, should we be gone.
    pub name: String,
    pub dir: OwnedFd,
    pub plan: ChildPlan,
}

impl Start {
    /// What [`encode_plan`] made, with what came beside it.
    ///
    /// # Errors
    /// As [`ChildPlan::decode`].
    pub fn decode(bytes: &[u8], fds: impl IntoIterator<Item = OwnedFd>) -> io::Result<Self> {
        let mut fds = fds.into_iter();
        let dir = fds.next().ok_or(io::ErrorKind::InvalidData)?;
        let (name, plan) = decode_plan(bytes, fds.collect())?;
        Ok(Self { name, dir, plan })
    }
}

/// What [`send_start`] sent, read back.
pub fn read_start(fds: Vec<OwnedFd>) -> io::Result<Start> {
    let mut fds = fds.into_iter();
    let memory = fds.next().ok_or(io::ErrorKind::InvalidData)?;
    Start::decode(&read_memory(memory)?, fds)
}

/// What [`send_hook`] sent, read back.
pub fn read_hook(fds: Vec<OwnedFd>) -> io::Result<ChildPlan> {
    let mut fds = fds.into_iter();
    let memory = fds.next().ok_or(io::ErrorKind::InvalidData)?;
    Ok(decode_plan(&read_memory(memory)?, fds.collect())?.1)
}

fn read_memory(memory: OwnedFd) -> io::Result<Vec<u8>> {
    let mut memory = File::from(memory);
    memory.rewind()?;
    if memory.metadata()?.len() > MOST_PLAN {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = Vec::new();
    memory.take(MOST_PLAN).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn decode_plan(bytes: &[u8], descriptors: Vec<OwnedFd>) -> io::Result<(String, ChildPlan)> {
    let (length, rest) = bytes.split_first().ok_or(io::ErrorKind::InvalidData)?;
    let (name, plan) = rest.split_at_checked(usize::from(*length)).ok_or(io::ErrorKind::InvalidData)?;
    let name = String::from_utf8(name.to_owned()).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok((name, ChildPlan::decode(plan, descriptors)?))
}

pub fn send_order(socket: BorrowedFd<'_>, order: SupervisorMsg) -> io::Result<()> {
    send(socket, &order.encode(), &[])
}

pub fn send_report(
    socket: BorrowedFd<'_>,
    message: KeeperMsg,
    pidfd: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let fds: Vec<BorrowedFd<'_>> = pidfd.into_iter().collect();
    send(socket, &message.encode(), &fds)
}

/// One packet.
#[derive(Debug)]
pub enum Heard<T> {
    Message(T, Vec<OwnedFd>),
    /// Nothing now.
    Nothing,
    /// The other side is gone, or speaks another language.
    End,
}

pub fn hear_supervisor(socket: BorrowedFd<'_>) -> Heard<SupervisorMsg> {
    hear(socket, SupervisorMsg::decode)
}

pub fn hear_keeper(socket: BorrowedFd<'_>) -> Heard<KeeperMsg> {
    hear(socket, KeeperMsg::decode)
}

/// One packet with descriptors.
///
/// # Errors
/// As [`packet::send`].
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    packet::send(socket, &[IoSlice::new(bytes)], fds)
}

/// The next packet, as `decode` understands it.
pub fn hear<T>(socket: BorrowedFd<'_>, decode: fn(&[u8]) -> Option<T>) -> Heard<T> {
    let mut bytes = [0u8; 16];
    match packet::receive(socket, &mut bytes) {
        Packet::Nothing => Heard::Nothing,
        Packet::End => Heard::End,
        Packet::Whole(length, fds) => match bytes.get(..length).and_then(decode) {
            Some(message) => Heard::Message(message, fds),
            None => Heard::End,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_what_is_heard_and_then_the_end() {
        let (ours, theirs) = pair().unwrap();
        for order in [
            SupervisorMsg::Kill,
            SupervisorMsg::Signal(Signal::TERM),
            SupervisorMsg::Freeze,
            SupervisorMsg::Thaw,
            SupervisorMsg::Report,
            SupervisorMsg::EndHook,
        ] {
            send_order(ours.as_fd(), order).unwrap();
            let Heard::Message(heard, fds) = hear_supervisor(theirs.as_fd()) else { panic!("nothing came") };
            assert_eq!((heard, fds.len()), (order, 0));
        }
        let messages = [
            KeeperMsg::Spawned { pid: 77, takes_hooks: true },
            KeeperMsg::NotMade { errno: 11 },
            KeeperMsg::Failed { step: 13, errno: 2 },
            KeeperMsg::MainExited { status: -1 },
            KeeperMsg::Empty,
            KeeperMsg::Frozen,
            KeeperMsg::Thawed,
            KeeperMsg::NoProc { errno: 1 },
            KeeperMsg::Hook(HookEnd::Exited { status: 256 }),
            KeeperMsg::Hook(HookEnd::Failed { step: 13, errno: 2 }),
            KeeperMsg::Hook(HookEnd::NotMade { errno: 16 }),
        ];
        for message in messages {
            send_report(theirs.as_fd(), message, Some(ours.as_fd())).unwrap();
            let Heard::Message(heard, fds) = hear_keeper(ours.as_fd()) else { panic!("nothing came") };
            assert_eq!((heard, fds.len()), (message, 1));
        }
        assert!(matches!(hear_keeper(ours.as_fd()), Heard::Nothing));
        drop(theirs);
        assert!(matches!(hear_keeper(ours.as_fd()), Heard::End));
    }

    #[test]
    fn a_plan_larger_than_a_socket_buffer_arrives_whole() {
        let (ours, theirs) = pair().unwrap();
        let null = || -> OwnedFd { File::open("/dev/null").unwrap().into() };
        let long = "x".repeat(1 << 20);
        let env = [("LONG", long.as_str())];
        let plan = ChildPlan::new(&["/bin/true"], env, None, [null(), null(), null()]).unwrap();
        send_start(ours.as_fd(), "coder.7", &plan, null().as_fd()).unwrap();
        let Heard::Message(SupervisorMsg::Start, fds) = hear_supervisor(theirs.as_fd()) else {
            panic!("nothing came")
        };
        let back = read_start(fds).unwrap();
        assert_eq!((back.name.as_str(), back.plan.encode()), ("coder.7", plan.encode()));
        send_hook(ours.as_fd(), &plan).unwrap();
        let Heard::Message(SupervisorMsg::Hook, fds) = hear_supervisor(theirs.as_fd()) else {
            panic!("nothing came")
        };
        assert_eq!(read_hook(fds).unwrap().encode(), plan.encode());
    }

    /// It is understood both ways: neither a service nor its adoption is to end with an upgrade.
    #[test]
    fn a_keeper_of_an_earlier_version_takes_no_hooks() {
        let earlier = [VERSION, 1, 0, 77, 0, 0, 0];
        let spawned = KeeperMsg::Spawned { pid: 77, takes_hooks: false };
        assert_eq!((KeeperMsg::decode(&earlier), spawned.encode()), (Some(spawned), earlier));
    }

    #[test]
    fn another_version_is_the_end_of_the_talk() {
        let (ours, theirs) = pair().unwrap();
        send(ours.as_fd(), &[VERSION + 1, 2, 0], &[]).unwrap();
        assert!(matches!(hear_supervisor(theirs.as_fd()), Heard::End));
    }
}
