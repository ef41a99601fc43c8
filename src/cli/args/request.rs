//! What a verb of `ctl` asks the supervisor for.

use super::verb::{Asked, Named, UntilFlags, Verb};
use crate::cli::logs::LogQuery;
use crate::cli::settings::absolute;
use crate::control::protocol::{Program, Registration, Request, SignalName, Targets, Until};
use std::time::{Duration, SystemTime};

/// Lines of each service that `logs -f` begins with.
const FOLLOWED_LINES: usize = 10;
/// Events that `events -f` begins with.
const FOLLOWED_EVENTS: u32 = 10;

impl Verb {
    /// What to ask the supervisor. `logs` asks where the files are.
    pub fn request(&self) -> Request {
        let millis = |timeout: &Option<Duration>| {
            timeout.map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX))
        };
        match self {
            Self::Start { named, timeout, force } => {
                Request::Start { targets: named.targets(), timeout_ms: millis(timeout), force: *force }
            }
            Self::Stop { named } => Request::Stop { targets: named.targets() },
            Self::Restart { named, timeout, rolling } => {
                Request::Restart { targets: named.targets(), timeout_ms: millis(timeout), rolling: *rolling }
            }
            Self::Once { named, timeout } => {
                Request::Once { targets: named.targets(), timeout_ms: millis(timeout) }
            }
            Self::Status { names, .. } | Self::Healthcheck { asked: Asked { names, .. } } => {
                Request::Status { targets: these_or_all(names) }
            }
            Self::Tree { names, .. } => Request::Tree { targets: these_or_all(names) },
            Self::Audit { names } => Request::Audit { targets: these_or_all(names) },
            Self::Freeze { named } => Request::Freeze { targets: named.targets() },
            Self::Thaw { named } => Request::Thaw { targets: named.targets() },
            Self::Top { .. } | Self::Metrics | Self::Boot { .. } => Request::Status { targets: Targets::All },
            Self::List => Request::List {},
            Self::Register { name, user, env, down, profile, argv } => Request::Register(Registration {
                name: name.clone(),
                user: user.clone(),
                env: env.iter().cloned().collect(),
                down: *down,
                program: match profile {
                    Some(dir) => Program::Profile(absolute(dir)),
                    None => Program::Argv(argv.clone()),
                },
            }),
            Self::Unregister { named } => Request::Unregister { targets: named.targets() },
            Self::Kill { name, signal, tree } => Request::Kill {
                targets: Targets::Names(vec![name.clone()]),
                signal: SignalName(*signal),
                tree: *tree,
            },
            Self::Events { follow, since } => Request::Events {
                since_ms: since.map(|since| unix_ms(since.moment(SystemTime::now()))),
                last: (*follow && since.is_none()).then_some(FOLLOWED_EVENTS),
                follow: *follow,
            },
            Self::Logs { named, .. } => Request::LogPlaces { targets: named.targets() },
            Self::Wait { named, until, timeout } => {
                Request::Wait { targets: named.targets(), until: until.until(), timeout_ms: millis(timeout) }
            }
            Self::Set { name, limits, persist } => Request::Set {
                targets: Targets::Names(vec![name.clone()]),
                limits: limits.iter().cloned().collect(),
                persist: *persist,
            },
            Self::Reload { restart } => Request::Reload { restart: *restart },
            Self::Shutdown { code } => Request::Shutdown { code: *code },
            Self::Upgrade { program } => Request::Upgrade {
                // What cannot be made absolute is refused with its own words.
                program: program
                    .as_ref()
                    .map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone())),
            },
        }
    }

    /// Which lines `logs` wants; `None` for any other verb.
    pub fn log_query(&self, now: SystemTime) -> Option<LogQuery> {
        match self {
            Self::Logs { named, follow, lines, since, until, stream } => Some(LogQuery {
                last: lines.or((*follow && since.is_none()).then_some(FOLLOWED_LINES)),
                since: since.map(|since| since.moment(now)),
                until: until.map(|until| until.moment(now)),
                stream: *stream,
                follow: *follow,
                all: named.all,
            }),
            _ => None,
        }
    }
}

impl Named {
    fn targets(&self) -> Targets {
        if self.all { Targets::All } else { Targets::Names(self.names.clone()) }
    }
}

impl UntilFlags {
    fn until(&self) -> Until {
        match (self.ready, self.down) {
            (true, _) => Until::Ready,
            (false, true) => Until::Down,
            (false, false) => Until::Up,
        }
    }
}

/// Unix time in milliseconds.
fn unix_ms(moment: SystemTime) -> u64 {
    let since = moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn these_or_all(names: &[String]) -> Targets {
    if names.is_empty() { Targets::All } else { Targets::Names(names.to_vec()) }
}
