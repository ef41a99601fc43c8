//! The keeper itself: `hermes-sup keeper INSTANCE`, one single-threaded process that is its tree's parent, reaper and end.
//!
//! Being a child subreaper, every orphan of the tree becomes its child; so `ECHILD` from its own wait is the proof
//! that nothing is left, whatever the tree did. It says what happened over descriptor 3. When the supervisor is gone
//! it keeps the tree running and listens for a successor.
//!
//! As the first process of a PID namespace (the rung `pidns`) it does the same. There its own end ends the tree, and nobody
//! in the tree can signal it.
//!
//! It stays small: plain descriptors and one poll, no crates beyond rustix in its path, nothing kept but numbers.

use super::hook::Hook;
use super::plan_of_self;
use super::wire::{self, Heard, HookEnd, KeeperMsg, Start, SupervisorMsg};
use crate::containment::cgroup::private;
use crate::containment::processes::walk;
use crate::sys::pidfd::Pidfd;
use crate::sys::spawn::clone::{self, Progress, Report};
use crate::sys::spawn::fork_server::Errand;
use crate::sys::spawn::plan::ChildPlan;
use crate::sys::spawn::vfork_stack::{self, Lent};
use crate::sys::{mount, peer, posture};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::WaitOptions;
use std::collections::{HashSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

/// The subcommand, which is no business of a user's.
pub const ARGUMENT: &str = "keeper";

/// The descriptor at which the supervisor put our end of the socket.
pub(in crate::containment) const SOCKET: i32 = 3;

/// The second argument of a probe's main process: leaves a daemon behind and exits.
pub(in crate::containment) const REHEARSE: &str = "--rehearse";

/// The second argument of the helper that mounts cgroup2 for its supervisor.
pub(in crate::containment) const MOUNT: &str = "--mount";

/// The same, of a child that must not be able to signal its parent.
pub(in crate::containment) const TRY_PARENT: &str = "--try-parent";

/// The second argument of that daemon.
const LINGER: &str = "--linger";

/// `hermes-sup keeper [ROLE]`: runs until its tree is empty.
pub fn main(role: Option<&str>) -> ExitCode {
    let played = match role {
        Some(REHEARSE) => rehearse(),
        Some(TRY_PARENT) => try_parent(),
        Some(LINGER) => linger(),
        Some(MOUNT) => private::helper(),
        // The instance's id, which is only there to be seen.
        Some(_) | None => posture::inherited(SOCKET).and_then(Keeper::begin).and_then(Keeper::run),
    };
    exit_code(played)
}

/// A keeper that was forked, not executed, with its end of the socket and what it needs for its main process.
pub fn serve(errand: Errand) -> ExitCode {
    exit_code(given(errand).and_then(Keeper::run))
}

fn given(mut errand: Errand) -> io::Result<Keeper> {
    let mut fds = std::mem::take(&mut errand.fds).into_iter();
    let mut keeper = Keeper::begin(fds.next().ok_or(io::ErrorKind::InvalidData)?)?;
    keeper.given = Some(Start::decode(errand.words(), fds));
    Ok(keeper)
}

fn exit_code(played: io::Result<()>) -> ExitCode {
    match played {
        Ok(()) => ExitCode::SUCCESS,
        // Nobody listens to a keeper's stderr; its death is what the supervisor sees.
        Err(_) => ExitCode::FAILURE,
    }
}

struct Keeper {
    own: i32,
    signals: OwnedFd,
    link: Link,
    /// What a fork has for its main process, until it is told to start.
    given: Option<io::Result<Start>>,
    /// Known once the start order came: where to listen, and as what.
    address: Option<(OwnedFd, String)>,
    main: Option<Main>,
    /// Set by the order to end the tree: how long to wait before the next sweep.
    killing: Option<u32>,
    freeze: Option<Freeze>,
    hook: Option<Hook>,
    /// What the socket did not take: it is full, or the kernel has no memory for it.
    unsent: VecDeque<(KeeperMsg, Option<Pidfd>)>,
    done: bool,
}

/// The tree stands still, or is about to.
#[derive(Default)]
struct Freeze {
    /// Processes that were stopped before by another process, and stay so.
    of_itself: HashSet<i32>,
    ours: HashSet<i32>,
    /// All of it stands still, and that was said.
    complete: bool,
}

enum Link {
    Connected(OwnedFd),
    Listening(OwnedFd),
    /// Not even listening is possible: the tree is kept, and a successor finds us by other means.
    Alone,
}

struct Main {
    pid: i32,
    pidfd: Option<Pidfd>,
    /// While the exec is still open, with what is lent for it.
    report: Option<(Report, Lent)>,
    /// What to say once nothing is left, instead of the usual.
    failure: Option<KeeperMsg>,
    /// Its wait status, once it was reaped.
    status: Option<i32>,
}

impl Keeper {
    fn begin(socket: OwnedFd) -> io::Result<Self> {
        let signals =
            match posture::block_signals().and_then(|fd| posture::guard(c"hermes-keeper").map(|()| fd)) {
                Ok(signals) => signals,
                Err(error) => {
                    let errno = error.raw_os_error().unwrap_or(libc::EPROTO);
                    wire::send_report(socket.as_fd(), KeeperMsg::NotMade { errno }, None)?;
                    return Err(error);
                }
            };
        let link = Link::Connected(socket);
        let own = rustix::process::getpid().as_raw_nonzero().get();
        if own == 1
            && let Err(error) = mount::own_proc()
            && let Link::Connected(socket) = &link
        {
            let errno = error.raw_os_error().unwrap_or(libc::EPERM);
            wire::send_report(socket.as_fd(), KeeperMsg::NoProc { errno }, None)?;
            return Err(error);
        }
        Ok(Self {
            own,
            signals,
            link,
            given: None,
            address: None,
            main: None,
            killing: None,
            freeze: None,
            hook: None,
            unsent: VecDeque::new(),
            done: false,
        })
    }

    fn run(mut self) -> io::Result<()> {
        while !self.done || !self.unsent.is_empty() {
            self.wait()?;
            self.send_unsent();
            self.hear();
            self.look_at_report();
            self.reap();
            // At each wake-up: a service whose orphans end all the time leaves no quiet moment.
            self.hook.iter_mut().for_each(Hook::step);
        }
        self.unlisten();
        Ok(())
    }

    /// Takes the socket away at which a successor was waited for.
    fn unlisten(&self) {
        if let (Link::Listening(_), Some((dir, name))) = (&self.link, &self.address) {
            let _ = rustix::fs::unlinkat(dir, name, rustix::fs::AtFlags::empty());
        }
    }

    /// Sleeps until something can have changed; in the middle of a kill also for a bounded time, then sweeps again.
    fn wait(&mut self) -> io::Result<()> {
        let link = match &self.link {
            Link::Connected(fd) | Link::Listening(fd) => Some(fd),
            Link::Alone => None,
        };
        let report = self.main.as_ref().and_then(|main| main.report.as_ref());
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        fds.extend(link.map(|fd| PollFd::new(fd, PollFlags::IN)));
        // No interest: a hang-up is always reported, and that is the exec.
        fds.extend(report.map(|(report, _)| PollFd::new(report, PollFlags::empty())));
        let freezing = self.freeze.as_ref().is_some_and(|freeze| !freeze.complete);
        let sweeps = self.killing.or(freezing.then_some(FIRST_WAIT));
        let sends = (!self.unsent.is_empty()).then_some(FIRST_WAIT);
        let steps = self.hook.as_ref().and_then(Hook::wait);
        let timeout = [sweeps, sends, steps].into_iter().flatten().min().map(|millis| Timespec {
            tv_sec: i64::from(millis / 1000),
            tv_nsec: i64::from(millis % 1000) * 1_000_000,
        });
        let ready = match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(ready) => ready,
            // Without memory for a moment it looks again at once: its end would be that of the tree.
            Err(rustix::io::Errno::INTR | rustix::io::Errno::NOMEM) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let mut record = [0u8; 512];
        while rustix::io::read(&self.signals, &mut record).is_ok_and(|n| n > 0) {}
        if ready == 0 && sweeps.is_some() {
            self.sweep();
        }
        Ok(())
    }

    fn hear(&mut self) {
        loop {
            match &self.link {
                Link::Connected(socket) => match wire::hear_supervisor(socket.as_fd()) {
                    Heard::Message(order, fds) => self.obey(order, fds),
                    Heard::Nothing => return,
                    Heard::End => self.listen(),
                },
                Link::Listening(listener) => match accept(listener) {
                    Some(socket) => {
                        self.unlisten();
                        self.link = Link::Connected(socket);
                    }
                    None => return,
                },
                Link::Alone => return,
            }
        }
    }

    fn obey(&mut self, order: SupervisorMsg, fds: Vec<OwnedFd>) {
        match order {
            SupervisorMsg::Start if self.main.is_none() => self.start(fds),
            // There is only one main process.
            SupervisorMsg::Start => {}
            SupervisorMsg::Kill => {
                self.freeze = None;
                self.killing = Some(FIRST_WAIT);
                self.end_tree();
            }
            SupervisorMsg::Signal(signal) => walk::signal(self.own, walk::children(self.own), signal),
            SupervisorMsg::Freeze if self.killing.is_some() => {}
            SupervisorMsg::Freeze => {
                self.freeze.get_or_insert_default().complete = false;
                self.freeze();
            }
            SupervisorMsg::Thaw => self.thaw(),
            SupervisorMsg::Report => self.report(),
            SupervisorMsg::Hook => self.run_hook(fds),
            SupervisorMsg::EndHook => self.hook.iter_mut().for_each(Hook::end),
        }
    }

    fn start(&mut self, fds: Vec<OwnedFd>) {
        let start = self.given.take().unwrap_or_else(|| wire::read_start(fds));
        let made = start.and_then(|Start { name, dir, plan }| {
            self.address = Some((dir, name));
            make(plan)
        });
        match made {
            Ok(main) => self.main = Some(main),
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EPROTO);
                self.say(KeeperMsg::NotMade { errno });
                self.done = true;
            }
        }
    }

    fn run_hook(&mut self, fds: Vec<OwnedFd>) {
        let busy = || io::Error::from_raw_os_error(libc::EBUSY);
        let free = if self.hook.is_some() { Err(busy()) } else { Ok(()) };
        match free.and_then(|()| wire::read_hook(fds)).and_then(|mut plan| Hook::make(&mut plan)) {
            Ok(hook) => {
                self.hook = Some(hook);
                // It stands still with the others.
                if let Some(freeze) = &mut self.freeze {
                    freeze.complete = false;
                    self.freeze();
                }
            }
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EPROTO);
                self.say(KeeperMsg::Hook(HookEnd::NotMade { errno }));
            }
        }
    }

    /// For a successor of the supervisor that made us.
    fn report(&mut self) {
        let Some(main) = self.main.as_ref().filter(|main| main.report.is_none() && main.failure.is_none())
        else {
            // It does not run, and what becomes of it will be said.
            return;
        };
        match main.status {
            Some(status) => self.say(KeeperMsg::MainExited { status }),
            // Ours and not reaped, so the number is its own.
            None => self.send(spawned(main.pid), Pidfd::open(main.pid).ok()),
        }
        if self.freeze.as_ref().is_some_and(|freeze| freeze.complete) {
            self.say(KeeperMsg::Frozen);
        }
    }

    fn look_at_report(&mut self) {
        let Some(main) = &mut self.main else { return };
        let Some((report, _)) = &mut main.report else { return };
        let message = match report.read() {
            Progress::Pending => return,
            Progress::Executed => spawned(main.pid),
            Progress::Failed(failure) => {
                main.failure = Some(KeeperMsg::Failed { step: failure.step as u8, errno: failure.errno });
                main.report = None;
                return;
            }
            Progress::Killed => {
                main.failure = Some(KeeperMsg::NotMade { errno: 0 });
                main.report = None;
                return;
            }
        };
        main.report = None;
        let pidfd = main.pidfd.take();
        self.send(message, pidfd);
    }

    /// Reaps all there is. `ECHILD` ends the keeper, once it has had a child at all.
    fn reap(&mut self) {
        if self.done {
            return;
        }
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => self.reaped(pid.as_raw_nonzero().get(), status.as_raw()),
                Ok(None) => return,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => break,
            }
        }
        let Some(main) = &self.main else {
            // Never started, and the supervisor that could order a start is gone.
            self.done |= !matches!(self.link, Link::Connected(_));
            return;
        };
        let last = main.failure.unwrap_or(KeeperMsg::Empty);
        self.say(last);
        self.done = true;
    }

    fn reaped(&mut self, pid: i32, status: i32) {
        if let Some(hook) = self.hook.take_if(|hook| hook.pid == pid) {
            return hook.ended(status).into_iter().for_each(|end| self.say(KeeperMsg::Hook(end)));
        }
        if self.main.as_ref().is_none_or(|main| main.pid != pid) {
            return;
        }
        // The exec's outcome comes first, whichever wake brought us here.
        self.look_at_report();
        if let Some(main) = self.main.as_mut().filter(|main| main.failure.is_none()) {
            main.status = Some(status);
            self.say(KeeperMsg::MainExited { status });
        }
    }

    fn sweep(&mut self) {
        if let Some(millis) = &mut self.killing {
            *millis = (*millis * 2).min(LONGEST_WAIT);
            self.end_tree();
        } else {
            self.freeze();
        }
    }

    /// One look at a tree that is to stand still.
    fn freeze(&mut self) {
        let Some(mut freeze) = self.freeze.take() else { return };
        let own = self.own;
        let mut roots = || {
            self.reap();
            walk::children(own)
        };
        freeze.complete = walk::stop(own, &mut roots, &mut freeze.ours, &mut freeze.of_itself);
        if freeze.complete {
            self.say(KeeperMsg::Frozen);
        }
        self.freeze = Some(freeze);
    }

    fn thaw(&mut self) {
        if let Some(freeze) = self.freeze.take() {
            walk::go_on(self.own, walk::children(self.own), &freeze.of_itself);
        }
        self.say(KeeperMsg::Thawed);
    }

    /// Reaps between the looks: what hops by fork and exit leaves dead parents faster than they could be passed over.
    fn end_tree(&mut self) {
        let own = self.own;
        walk::end(own, &mut || {
            self.reap();
            walk::children(own)
        });
    }

    fn say(&mut self, message: KeeperMsg) {
        self.send(message, None);
    }

    fn send(&mut self, message: KeeperMsg, pidfd: Option<Pidfd>) {
        self.unsent.push_back((message, pidfd));
        self.send_unsent();
    }

    /// In order: what is lost here is waited for by the supervisor for ever. One that is gone is noticed where orders are read,
    /// and its successor asks.
    fn send_unsent(&mut self) {
        while let Some((message, pidfd)) = self.unsent.front() {
            let Link::Connected(socket) = &self.link else {
                self.unsent.clear();
                return;
            };
            match wire::send_report(socket.as_fd(), *message, pidfd.as_ref().map(AsFd::as_fd)) {
                Err(error) if will_pass(&error) => return,
                Ok(()) | Err(_) => drop(self.unsent.pop_front()),
            }
        }
    }

    /// The supervisor is gone: the tree stays, and a successor may come. The socket is made under a path relative to
    /// the directory, for a full one may be longer than an address takes (unix(7)).
    fn listen(&mut self) {
        self.link = Link::Alone;
        self.hook.iter_mut().for_each(Hook::forget);
        let Some((dir, name)) = &self.address else {
            // No order to start ever came, so there is nothing to keep.
            self.done = true;
            return;
        };
        let listen = || -> io::Result<OwnedFd> {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
            rustix::process::fchdir(dir)?;
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
            let _ = rustix::fs::unlinkat(dir, name, rustix::fs::AtFlags::empty());
            rustix::net::bind(&socket, &SocketAddrUnix::new(name.as_str())?)?;
            rustix::net::listen(&socket, 4)?;
            Ok(socket)
        };
        if let Ok(socket) = listen() {
            self.link = Link::Listening(socket);
        }
    }
}

/// What a probe's tree does: a child in a session of its own, without its parent.
fn rehearse() -> io::Result<()> {
    let mut plan = plan_of_self(&[LINGER])?;
    let mut child = clone::spawn(&mut plan, None)?;
    let mut fds = [PollFd::new(&child.report, PollFlags::empty())];
    rustix::event::poll(&mut fds, None)?;
    match child.report.read() {
        Progress::Executed => Ok(()),
        Progress::Pending | Progress::Failed(_) | Progress::Killed => Err(io::ErrorKind::Other.into()),
    }
}

/// Fails if its parent, which is of the same uid, could be signalled.
fn try_parent() -> io::Result<()> {
    let parent = rustix::process::getppid().ok_or(io::ErrorKind::NotFound)?;
    match rustix::process::test_kill_process(parent) {
        Err(rustix::io::Errno::PERM) => Ok(()),
        Ok(()) | Err(_) => Err(io::ErrorKind::Other.into()),
    }
}

/// Ends by itself, should nobody end it.
fn linger() -> io::Result<()> {
    let _signals = posture::block_signals()?;
    rustix::event::poll(&mut [], Some(&Timespec { tv_sec: 30, tv_nsec: 0 }))?;
    Ok(())
}

/// Milliseconds from a sweep to the next: a tree that is dying anyway is left alone meanwhile.
const FIRST_WAIT: u32 = 10;
const LONGEST_WAIT: u32 = 500;

fn spawned(pid: i32) -> KeeperMsg {
    KeeperMsg::Spawned { pid, takes_hooks: true }
}

fn make(plan: ChildPlan) -> io::Result<Main> {
    let (child, lent) = vfork_stack::spawn(plan)?;
    Ok(Main {
        pid: child.pid,
        pidfd: Some(child.pidfd),
        report: Some((child.report, lent)),
        failure: None,
        status: None,
    })
}

/// The socket takes the packet later.
fn will_pass(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM | libc::EINTR))
}

/// A successor: root, or our own uid. Anybody else is hung up on.
fn accept(listener: &OwnedFd) -> Option<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    loop {
        let socket = match rustix::net::accept_with(listener, flags) {
            Ok(socket) => socket,
            Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => continue,
            Err(_) => return None,
        };
        let own = rustix::process::geteuid().as_raw();
        if peer::credentials(&socket).is_ok_and(|peer| peer.uid == own || peer.uid == 0) {
            return Some(socket);
        }
    }
}
