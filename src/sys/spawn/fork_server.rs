//! A small process that makes the supervisor's children for it.
//!
//! A fork copies the page tables and the descriptor table of who forks, and every page that is written to before the
//! child's exec once more. In a supervisor of thousands of services that is milliseconds a start, and more the more services
//! there are. The fork server has one thread, half a megabyte and a handful of descriptors whatever it serves, and what it
//! makes becomes the child of the supervisor (`CLONE_PARENT`), which reaps it and holds its pidfd as if it had made it.
//!
//! Most children share its memory until their exec (`vfork_stack.rs`), which is what makes a start cheap: of all processes of ours it
//! alone may be killed with one of them.
//!
//! It can also fork itself for a process that goes on in our own program, a keeper: without an exec that shares nearly all of
//! its memory with the server, the words that it is to go on with included.
//!
//! One order at a time: the supervisor sends a plan in its byte form and waits for the pid, as it would wait in its own
//! clone(2). A server that has been killed or stopped is given up after [`PATIENCE`]; a child of which nobody was
//! told is not told to go either, and exits before its exec. It ends with the supervisor that has its other end.

use super::child;
use super::clone::{self, Child, Ends, Join, Parent};
use super::plan::{ChildPlan, Pass};
use super::shield::Shields;
use super::vfork_stack::VforkStacks;
use crate::core::signal::Signal;
use crate::sys::packet::{self, Packet};
use crate::sys::pidfd::Pidfd;
use crate::sys::posture;
use rustix::fs::{Mode, OFlags};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;
use std::time::Duration;

/// The subcommand, which is no business of a user's.
pub const ARGUMENT: &str = "fork-server";

/// The descriptor at which the supervisor puts the server's end of the socket.
const SOCKET: i32 = 3;

/// Longer than any machine takes that is not about to be lost for other reasons.
const PATIENCE: Duration = Duration::from_secs(1);

/// First byte of an order: what is to be made, and how it comes into its cgroup.
const PLAIN: u8 = 0;
const BORN: u8 = 1;
const MOVES: u8 = 2;
const ITSELF: u8 = 3;

/// The largest order, in bytes: what a socket takes with the kernel's default of `net.core.wmem_default`.
const MOST: usize = 128 << 10;

/// The supervisor's side.
#[derive(Debug)]
pub struct ForkServer {
    socket: OwnedFd,
    process: Child,
    /// Capabilities of our bounding set that its children cannot have.
    lacks: u64,
    /// The last order. Its room is kept: musl would take it from the kernel for each start.
    order: Vec<u8>,
}

/// Why there is no child.
#[derive(Debug)]
pub enum Refused {
    /// clone(2) says so.
    Clone(io::Error),
    /// An order of this size, with inherited streams, or for more capabilities than it has, is not for it.
    Unfit,
    /// It does not answer as it should, and has been killed.
    Broken(io::Error),
}

impl ForkServer {
    /// Starts it; whether it works is seen at the first order. `instance` is only there to be seen.
    ///
    /// # Errors
    /// Those of socketpair(2), open(2) and clone(2).
    pub fn start(instance: &str) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let (socket, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
        let null = || rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
        let none: [(&str, &str); 0] = [];
        let argv = ["hermes-sup", ARGUMENT, instance];
        let mut plan =
            ChildPlan::new(&argv, none, None, [null()?, null()?, null()?]).map_err(io::Error::other)?;
        plan.set_program(c"/proc/self/exe".to_owned());
        plan.pass = Some(Pass { fd: theirs, number: SOCKET });
        let lacks = if clone::may_drop_bounding() { clone::own_bounding() } else { 0 };
        Ok(Self { socket, process: clone::spawn(&mut plan, None)?, lacks, order: Vec::new() })
    }

    /// A child of the caller's, whose end is the caller's to see.
    pub fn pid(&self) -> i32 {
        self.process.pid
    }

    /// As [`clone::spawn`].
    ///
    /// # Errors
    /// [`Refused`]; there is no child that would ever execute anything then.
    pub fn spawn(&mut self, plan: &ChildPlan, join: Option<Join<'_>>) -> Result<Child, Refused> {
        let streams = plan.descriptors().ok_or(Refused::Unfit)?;
        self.order.clear();
        plan.encode_into(&mut self.order);
        let (kind, directory) = match join {
            None => (PLAIN, None),
            Some(Join::Born(directory)) => (BORN, Some(directory)),
            Some(Join::Moves(procs)) => (MOVES, Some(procs)),
        };
        if self.order.len() >= MOST || self.lacks_for(plan) {
            return Err(Refused::Unfit);
        }
        let (talk, ends) = clone::talk(plan).map_err(Refused::Clone)?;
        let mut fds = vec![ends.report.as_fd()];
        fds.extend(ends.go.as_ref().map(AsFd::as_fd));
        fds.extend(directory);
        fds.extend(streams);
        let pid = self.ask(&[IoSlice::new(&[kind]), IoSlice::new(&self.order)], &fds)?;
        // Not reaped before we are back in the loop, so the number is its own.
        let pidfd = Pidfd::open(pid).map_err(Refused::Clone)?;
        let (child, go) = talk.with(pid, pidfd);
        go.give();
        Ok(child)
    }

    /// Makes a process that goes on as what [`main`] was given, with what `say` writes and `fds`, in a session of its own; it is to
    /// make a child by `plan` itself.
    ///
    /// # Errors
    /// As [`Self::spawn`].
    pub fn fork(
        &mut self,
        plan: &ChildPlan,
        say: impl FnOnce(&mut Vec<u8>),
        fds: &[BorrowedFd<'_>],
    ) -> Result<i32, Refused> {
        self.order.clear();
        say(&mut self.order);
        if self.order.len() >= MOST || self.lacks_for(plan) {
            return Err(Refused::Unfit);
        }
        self.ask(&[IoSlice::new(&[ITSELF]), IoSlice::new(&self.order)], fds)
    }

    fn lacks_for(&self, plan: &ChildPlan) -> bool {
        plan.capabilities.map_or(u64::MAX, |masks| masks.bounding) & self.lacks != 0
    }

    fn ask(&self, order: &[IoSlice<'_>], fds: &[BorrowedFd<'_>]) -> Result<i32, Refused> {
        let broken = |error| {
            let _ = self.process.pidfd.send(Signal::KILL);
            Refused::Broken(error)
        };
        packet::send(self.socket.as_fd(), order, fds).map_err(broken)?;
        let mut answer = [0u8; 4];
        match packet::receive(self.socket.as_fd(), &mut answer) {
            Packet::Whole(4, _) => match i32::from_le_bytes(answer) {
                pid if pid > 0 => Ok(pid),
                errno => Err(Refused::Clone(io::Error::from_raw_os_error(-errno))),
            },
            Packet::Whole(..) => Err(broken(io::ErrorKind::InvalidData.into())),
            Packet::Nothing => Err(broken(io::ErrorKind::TimedOut.into())),
            Packet::End => Err(broken(io::ErrorKind::BrokenPipe.into())),
        }
    }
}

/// What a fork of the server is to go on with.
#[derive(Debug)]
pub struct Errand {
    /// The order as it came.
    order: Vec<u8>,
    pub fds: Vec<OwnedFd>,
}

impl Errand {
    /// What the supervisor has said.
    pub fn words(&self) -> &[u8] {
        self.order.get(1..).unwrap_or_default()
    }
}

/// `hermes-sup fork-server INSTANCE`: serves until the supervisor is gone. A process that it forks itself for goes on as `fork`.
pub fn main(fork: fn(Errand) -> ExitCode) -> ExitCode {
    match serve() {
        Ok(Some(errand)) => fork(errand),
        Ok(None) => ExitCode::SUCCESS,
        // Nobody listens to its stderr; its end is what the supervisor sees.
        Err(_) => ExitCode::FAILURE,
    }
}

/// Returns what a fork of this process has to go on with.
fn serve() -> io::Result<Option<Errand>> {
    let _signals = posture::block_signals()?;
    posture::guard(c"hermes-fork-srv")?;
    // What nearly every child would have to do itself, a capability and a signal at a time, and every keeper would have to ask.
    clone::drop_own_bounding();
    clone::own_bounding();
    child::reset_dispositions();
    let socket = posture::take_over(SOCKET)?;
    let mut bytes = vec![0; MOST];
    let mut shields = Shields::default();
    let stacks = VforkStacks::open();
    loop {
        let (length, fds) = match packet::receive(socket.as_fd(), &mut bytes) {
            Packet::Whole(length, fds) => (length, fds),
            // The socket blocks, so there is always something.
            Packet::Nothing | Packet::End => return Ok(None),
        };
        let answer = match make(bytes.get(..length).unwrap_or_default(), fds, &mut shields, stacks) {
            Ok(Made::Child(pid)) => pid,
            Ok(Made::Itself(fds)) => {
                bytes.truncate(length);
                return Ok(Some(Errand { order: bytes, fds }));
            }
            Err(Failed::Order(error)) => -error.raw_os_error().unwrap_or(libc::EPROTO),
            Err(Failed::Server(error)) => return Err(error),
        };
        packet::send(socket.as_fd(), &[IoSlice::new(&answer.to_le_bytes())], &[])?;
    }
}

enum Made {
    Child(i32),
    /// This is the child, with these.
    Itself(Vec<OwnedFd>),
}

enum Failed {
    Order(io::Error),
    /// The server must not go on.
    Server(io::Error),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Order(error)
    }
}

fn make(
    order: &[u8],
    fds: Vec<OwnedFd>,
    shields: &mut Shields,
    stacks: &mut VforkStacks,
) -> Result<Made, Failed> {
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    let (kind, plan) = order.split_first().ok_or_else(malformed)?;
    if *kind == ITSELF {
        shields.enter(&[]).map_err(Failed::Server)?;
        return Ok(match clone::fork_beside()? {
            Some(pid) => Made::Child(pid),
            None => {
                // It must not go on as a second server.
                rustix::process::setsid().map_err(|errno| Failed::Server(errno.into()))?;
                Made::Itself(fds)
            }
        });
    }
    let mut fds = fds.into_iter();
    let mut next = || fds.next().ok_or_else(malformed);
    let ends = Ends { report: next()?, go: Some(next()?) };
    let directory = if *kind == PLAIN { None } else { Some(next()?) };
    let join = directory.as_ref().map(|directory| match *kind {
        BORN => Join::Born(directory.as_fd()),
        _ => Join::Moves(directory.as_fd()),
    });
    let mut plan = ChildPlan::decode(plan, fds.collect())?;
    if shields.enter(&plan.read_only).map_err(Failed::Server)? {
        // The child is born there.
        plan.read_only.clear();
    }
    let stack = if *kind == BORN { stacks.free(&plan) } else { None };
    let pid = match (join, stack) {
        (Some(Join::Born(directory)), Some(stack)) => stack.clone_into(plan, directory, &ends)?,
        _ => clone::clone(&mut plan, join, &ends, Parent::Ours, 0)?,
    };
    Ok(Made::Child(pid))
}
