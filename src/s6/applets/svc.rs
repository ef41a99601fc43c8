//! `s6-svc`: commands to services, and, unlike in s6, what became of them.
//!
//! Without `-w` the answer is waited for, but not for long: callers give up after five seconds. What is not known by
//! then is judged by the want, which is on disk before anything is done: if it is as asked, the supervisor is at it.
//!
//! `-t` on a gateway's slot is how the image restarts one, so there it is a restart: a gateway that is down starts.

use super::applet::{Call, SYSTEM};
use super::ask::{self, Problem};
use super::options::{self, Options, UsageError};
use super::svwait::{self, Goal};
use super::target::Slot;
use super::wait;
use crate::control::client::Search;
use crate::control::protocol::{Request, SignalName, State, Want};
use crate::core::signal::Signal;
use crate::sys::beneath::Beneath;
use crate::sys::pidfd::Pidfd;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::OFlags;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

const USAGE: &str =
    "s6-svc [-wu|-wU|-wd|-wD|-wr|-wR] [-T MS] [-s SIGNAL] [-abqhkti12pcyrPCKouUdDx] SERVICEDIR...";

/// How long the result is waited for when nobody asked to wait.
const UNASKED: Duration = Duration::from_secs(3);
/// And how long the want that decides in its place.
const JUDGED: Duration = Duration::from_secs(1);

/// The signals that s6-svc can send, by their letters.
const SIGNALS: [(char, i32); 12] = [
    ('a', 14),
    ('b', 6),
    ('q', 3),
    ('h', 1),
    ('k', 9),
    ('t', 15),
    ('i', 2),
    ('1', 10),
    ('2', 12),
    ('p', 19),
    ('c', 18),
    ('y', 28),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Start,
    Stop,
    Once,
    Restart,
    /// To the main process, or to everything that belongs to the service.
    Signal {
        signal: Signal,
        tree: bool,
    },
    /// The file `down` in the slot is to be there, or not.
    DownFile(bool),
}

/// What was typed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Order {
    commands: Vec<Command>,
    wait: Option<Goal>,
    /// `None`: for ever.
    timeout: Option<Duration>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum OrderError {
    #[error(transparent)]
    Option(#[from] UsageError),
    #[error("'{}' is no signal that can be sent", .0.escape_debug())]
    Signal(String),
}

pub fn main(call: &mut Call<'_>) -> u8 {
    let words = call.words;
    let mut options = Options::new("s:abqhkti12pcyrlPCKoduDUxOQT:w:", words);
    let order = match Order::read(&mut options) {
        Ok(order) => order,
        Err(error) => return call.usage(error, USAGE),
    };
    if options.rest().is_empty() {
        return call.usage("no service directory is named", USAGE);
    }
    let search = call.search();
    let until = match order.wait {
        Some(_) => order.timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
        None => Some(Instant::now() + UNASKED),
    };
    let mut code = 0;
    for dir in options.rest() {
        let dir = Path::new(dir);
        let done = Slot::of(dir, call.env)
            .map_err(Problem::from)
            .and_then(|slot| order.carry_out(&search, &slot, dir, until));
        if let Err(problem) = done {
            // As in s6: the last directory that fails decides.
            code = match (&problem, order.wait) {
                (Problem::Late, None) => SYSTEM,
                _ => problem.code(),
            };
            call.fatal(code, &format!("unable to control {}: {}", dir.display(), problem.text()));
        }
    }
    code
}

impl Order {
    fn read(options: &mut Options<'_>) -> Result<Self, OrderError> {
        let mut order = Self::default();
        for option in options {
            let (letter, value) = option?;
            match letter {
                's' => {
                    let text = value.map(|value| value.to_string_lossy()).unwrap_or_default();
                    let signal = Signal::parse(&text)
                        .filter(|signal| SIGNALS.iter().any(|(_, number)| *number == signal.number()))
                        .ok_or_else(|| OrderError::Signal(text.into_owned()))?;
                    order.commands.push(Command::Signal { signal, tree: false });
                }
                'w' => {
                    let goal = value.and_then(|value| value.to_str()).and_then(Goal::named);
                    let what = "one of u, U, d, D, r, R";
                    order.wait = Some(goal.ok_or(UsageError::Needs { letter, what })?);
                }
                'T' => {
                    let millis = options::number::<u32>(letter, value)?;
                    order.timeout = (millis > 0).then(|| Duration::from_millis(millis.into()));
                }
                _ => order.commands.extend(command(letter)?),
            }
        }
        Ok(order)
    }

    /// One slot's part of it.
    fn carry_out(
        &self,
        search: &Search,
        slot: &Slot,
        dir: &Path,
        until: Option<Instant>,
    ) -> Result<(), Problem> {
        if slot.is_virtual() {
            return ask::anybody(search);
        }
        // The life that has to be over for `-wr`, held before anything is done to it.
        let earlier = match self.wait {
            Some(Goal::Restarted { .. }) => Earlier::of(search, slot)?,
            _ => Earlier::default(),
        };
        let mut restarted = false;
        // A command that fails does not keep the next ones from the supervisor; the first failure is told.
        let mut result = Ok(());
        for command in &self.commands {
            let done = command.carry_out(search, slot, dir, self.wait.is_some(), until);
            restarted |= matches!(done, Ok(Some(Restarted)));
            result = result.and(done.map(drop));
        }
        if self.commands.is_empty() && self.wait.is_none() {
            return ask::service(search, &slot.name, ask::PATIENCE).map(drop);
        }
        result?;
        let Some(goal) = self.wait else { return Ok(()) };
        if matches!(goal, Goal::Restarted { .. }) && !restarted {
            earlier.wait_for_the_end(search, slot, until)?;
        }
        svwait::until_there(search, std::slice::from_ref(&slot.name), goal, false, until)
    }
}

fn command(letter: char) -> Result<Vec<Command>, UsageError> {
    let signal = |letter: char| {
        let number = SIGNALS.iter().find(|(known, _)| *known == letter).map(|(_, number)| *number);
        number.and_then(Signal::from_number)
    };
    let group = |signal| vec![Command::Signal { signal, tree: true }];
    Ok(match letter {
        'u' => vec![Command::Start],
        'd' => vec![Command::Stop],
        'o' => vec![Command::Once],
        'r' => vec![Command::Restart],
        'U' => vec![Command::DownFile(false), Command::Start],
        'D' => vec![Command::DownFile(true), Command::Stop],
        'P' => group(Signal::STOP),
        'C' => group(Signal::CONT),
        'K' => group(Signal::KILL),
        // Ends the slot's own s6-supervise; here one supervisor has all slots, and it stays.
        'x' => Vec::new(),
        _ => match signal(letter) {
            Some(signal) => vec![Command::Signal { signal, tree: false }],
            None => return Err(UsageError::Unsupported(letter)),
        },
    })
}

/// The command's own result says that another life has begun.
struct Restarted;

impl Command {
    fn carry_out(
        self,
        search: &Search,
        slot: &Slot,
        dir: &Path,
        patient: bool,
        until: Option<Instant>,
    ) -> Result<Option<Restarted>, Problem> {
        let targets = ask::only(&slot.name);
        let restart = Request::Restart { targets: targets.clone(), timeout_ms: None, rolling: None };
        let wanted = |request: &Request, want: Want| match ask::act_on_one(search, request, until) {
            Err(Problem::Late) if !patient => judge_by_want(search, slot, want),
            done => done.map(drop),
        };
        match self {
            Self::Start => wanted(&Request::Start { targets, timeout_ms: None, force: false }, Want::Up)?,
            Self::Stop => wanted(&Request::Stop { targets }, Want::Down)?,
            Self::Once => wanted(&Request::Once { targets, timeout_ms: None }, Want::Down)?,
            Self::Signal { signal: Signal::TERM, tree: false } if slot.is_gateway() => {
                wanted(&restart, Want::Up)?;
                return Ok(Some(Restarted));
            }
            Self::Restart if slot.is_gateway() || runs(search, slot)? => {
                wanted(&restart, Want::Up)?;
                return Ok(Some(Restarted));
            }
            Self::Restart => {}
            Self::Signal { signal, tree } => kill(search, slot, signal, tree, until)?,
            Self::DownFile(there) => down_file(dir, there)
                .map_err(|error| Problem::System(format!("its file 'down' cannot be changed: {error}")))?,
        }
        Ok(None)
    }
}

/// The result did not come in time: is at least the want as asked?
fn judge_by_want(search: &Search, slot: &Slot, want: Want) -> Result<(), Problem> {
    let status = ask::service(search, &slot.name, JUDGED)?;
    if status.want == want {
        return Ok(());
    }
    Err(Problem::System(format!("after {} s it still wants {}", UNASKED.as_secs(), status.want.as_str())))
}

fn runs(search: &Search, slot: &Slot) -> Result<bool, Problem> {
    Ok(ask::service(search, &slot.name, ask::PATIENCE)?.pid.is_some())
}

/// Where nothing runs, a signal has nobody to go to, and that is no failure.
fn kill(
    search: &Search,
    slot: &Slot,
    signal: Signal,
    tree: bool,
    until: Option<Instant>,
) -> Result<(), Problem> {
    let request = Request::Kill { targets: ask::only(&slot.name), signal: SignalName(signal), tree };
    let outcome = ask::act(search, &request, until)?.pop();
    match outcome {
        Some(outcome) if !outcome.ok => {
            let problem = |runs: bool| if runs { Err(outcome.clone().into()) } else { Ok(()) };
            match outcome.state {
                // Not known, or known not to run.
                None => problem(true),
                Some(State::Up | State::Ready) => problem(true),
                Some(_) => problem(!matches!(Problem::from(outcome.clone()), Problem::Failed(_))),
            }
        }
        Some(_) | None => Ok(()),
    }
}

/// Makes or removes the file `down` of a slot. Below the slot no link is followed: others may write there.
fn down_file(dir: &Path, there: bool) -> io::Result<()> {
    let slot = Beneath::open(dir)?;
    let name = Path::new("down");
    if there {
        return slot.open_file(name, OFlags::WRONLY | OFlags::CREATE, 0o644).map(drop);
    }
    match slot.remove_file(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// The life of a service when s6-svc was called.
#[derive(Debug, Default)]
struct Earlier {
    pid: Option<u32>,
    /// Absent when it had ended already.
    process: Option<Pidfd>,
}

impl Earlier {
    fn of(search: &Search, slot: &Slot) -> Result<Self, Problem> {
        let pid = ask::service(search, &slot.name, ask::PATIENCE)?.pid;
        let process = pid.and_then(|pid| Pidfd::open(i32::try_from(pid).ok()?).ok());
        Ok(Self { pid, process })
    }

    /// Returns when the supervisor knows that this life is over.
    fn wait_for_the_end(&self, search: &Search, slot: &Slot, until: Option<Instant>) -> Result<(), Problem> {
        let Some(pid) = self.pid else { return Ok(()) };
        if let Some(process) = &self.process
            && !wait::any(&mut [PollFd::new(process, PollFlags::IN)], until)
        {
            return Err(Problem::Late);
        }
        // The kernel tells both of us at once: the supervisor is at most a few questions behind.
        while ask::service(search, &slot.name, ask::PATIENCE)?.pid == Some(pid) {
            if until.is_some_and(|until| Instant::now() >= until) {
                return Err(Problem::Late);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s6::applets::applet::tests::told;
    use std::ffi::OsString;

    fn read(words: &str) -> Result<Order, OrderError> {
        let words: Vec<OsString> = words.split_whitespace().map(OsString::from).collect();
        Order::read(&mut Options::new("s:abqhkti12pcyrlPCKoduDUxOQT:w:", &words))
    }

    #[test]
    fn commands_are_read_in_their_order() {
        use Command::*;
        let signal = |signal| Signal { signal, tree: false };
        for (words, commands) in [
            ("-u", vec![Start]),
            ("-d", vec![Stop]),
            ("-o", vec![Once]),
            ("-dx", vec![Stop]),
            ("-tu", vec![signal(super::Signal::TERM), Start]),
            ("-U", vec![DownFile(false), Start]),
            ("-D", vec![DownFile(true), Stop]),
            ("-r", vec![Restart]),
            ("-s term", vec![signal(super::Signal::TERM)]),
            ("-s SIGKILL", vec![signal(super::Signal::KILL)]),
            ("-s 10", vec![signal(super::Signal::USR1)]),
            ("-pc", vec![signal(super::Signal::STOP), signal(super::Signal::CONT)]),
            ("-K", vec![Signal { signal: super::Signal::KILL, tree: true }]),
        ] {
            assert_eq!(read(words), Ok(Order { commands, ..Order::default() }), "{words}");
        }
        for (letter, name) in [
            ("a", "ALRM"),
            ("b", "ABRT"),
            ("q", "QUIT"),
            ("h", "HUP"),
            ("k", "KILL"),
            ("t", "TERM"),
            ("i", "INT"),
            ("1", "USR1"),
            ("2", "USR2"),
            ("p", "STOP"),
            ("c", "CONT"),
            ("y", "WINCH"),
        ] {
            assert_eq!(read(&format!("-{letter}")), read(&format!("-s {name}")), "{letter}");
        }
    }

    #[test]
    fn waiting_and_its_timeout() {
        let wait = |words: &str| read(words).map(|order| (order.wait, order.timeout));
        assert_eq!(wait("-dwD"), Ok((Some(Goal::Down), None)));
        assert_eq!(
            wait("-wU -T 5000 -u"),
            Ok((Some(Goal::Up { ready: true }), Some(Duration::from_secs(5))))
        );
        assert_eq!(wait("-twR"), Ok((Some(Goal::Restarted { ready: true }), None)));
        assert_eq!(wait("-u -T 0"), Ok((None, None)));
    }

    #[test]
    fn what_cannot_be_done_is_wrong_usage_and_says_so() {
        for (words, why) in [
            (&["-z", "/run/service/x"][..], "unknown option '-z'"),
            (&["-O", "/run/service/x"], "option '-O' is not supported"),
            (&["-l", "/run/service/x"], "option '-l' is not supported"),
            (&["-wx", "/run/service/x"], "option '-w' needs one of u, U, d, D, r, R"),
            (&["-T", "soon", "/run/service/x"], "option '-T' needs a whole number, not 'soon'"),
            (&["-s", "SEGV", "/run/service/x"], "'SEGV' is no signal that can be sent"),
            (&["-u"], "no service directory is named"),
        ] {
            let (code, out, err) = told(main, "s6-svc", words, &|_| None);
            assert_eq!(
                (code, out.as_str(), err),
                (100, "", format!("s6-svc: fatal: {why}: usage: {USAGE}\n"))
            );
        }
    }

    #[test]
    fn nobody_listens_and_no_slot_are_102() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s").into_os_string();
        let env = |key: &str| (key == "HERMES_SUP_SOCKET").then(|| socket.clone());
        for slot in ["/run/service/x", "/run/service/main-hermes"] {
            let (code, _, err) = told(main, "s6-svc", &["-u", slot], &env);
            assert_eq!(code, 102);
            assert!(
                err.starts_with(&format!("s6-svc: fatal: unable to control {slot}: no supervisor")),
                "{err}"
            );
        }
        let (code, _, err) = told(main, "s6-svc", &["-u", "/tmp/x"], &env);
        assert_eq!(
            (code, err.as_str()),
            (102, "s6-svc: fatal: unable to control /tmp/x: it is no slot of /run/service\n")
        );
    }

    #[test]
    fn the_file_down_is_made_and_removed_and_no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let down = dir.path().join("down");
        down_file(dir.path(), false).unwrap();
        down_file(dir.path(), true).unwrap();
        down_file(dir.path(), true).unwrap();
        assert!(down.exists());
        down_file(dir.path(), false).unwrap();
        assert!(!down.exists());
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &down).unwrap();
        assert!(down_file(dir.path(), true).is_err());
        assert!(!dir.path().join("elsewhere").exists());
    }
}
