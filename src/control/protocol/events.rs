//! What has happened: one line of `events`, which is also the line of the supervisor's log about it.
//!
//! A new kind is a variant of [`EventKind`] and the line where it happens.

use super::status::Utc;
use crate::core::exit::Exit;
use crate::core::words::State;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::time::SystemTime;

/// One document of `events --json`, and one line of what the state keeps.
// Small, as many are remembered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Event {
    pub time: Utc,
    /// Absent: it is about the supervisor, or about several services.
    pub service: Option<Box<str>>,
    pub event: EventKind,
    pub level: Level,
    /// In words, without the name of the service.
    pub message: Cow<'static, str>,
    /// Where `event` is `state`: the new one.
    pub state: Option<State>,
    /// Of the main process.
    pub pid: Option<u32>,
    /// Where `event` is `exit`: as a shell would show it.
    pub exit_code: Option<u8>,
    /// Who asked for it.
    pub by: Option<Box<Asker>>,
}

/// A caller of the control socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Asker {
    pub uid: u32,
    /// Absent: no user of that number is known.
    pub user: Option<String>,
    /// Absent: it is a process of another container.
    pub pid: Option<u32>,
}

impl fmt::Display for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user} ")?;
        }
        match self.pid {
            Some(pid) => write!(f, "(uid {}, pid {pid})", self.uid),
            None => write!(f, "(uid {}, of another container)", self.uid),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum EventKind {
    /// A service is in another state.
    State,
    /// A main process ended unasked.
    Exit,
    /// There is no main process.
    StartFailed,
    /// A process did not end in its time, and is killed.
    Killed,
    /// The OOM killer has killed.
    Oom,
    /// A limit was met, set, or is not in force.
    Limit,
    /// A health check found a service ill, or well again.
    Health,
    /// A hook beside a main process has run, or could not.
    Hook,
    /// A process tree was stopped where it is, or goes on.
    Freeze,
    /// A scheduled run began, was skipped or was missed.
    Schedule,
    /// Somebody asked for something.
    Command,
    /// Definitions were read again.
    Reload,
    /// A definition cannot be used.
    Refused,
    /// The supervisor has begun.
    Started,
    /// The supervisor is another program, or was to be.
    Upgrade,
    /// The supervisor ends.
    Shutdown,
    /// The supervisor did not run for a while.
    Paused,
    /// What a later supervisor may say that this client does not know.
    #[serde(other)]
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Level {
    /// It passes by itself: told to who listens, and not kept.
    Debug,
    Info,
    Warning,
    Error,
}

impl Event {
    fn new(level: Level, event: EventKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            time: Utc(SystemTime::UNIX_EPOCH),
            service: None,
            event,
            level,
            message: message.into(),
            state: None,
            pid: None,
            exit_code: None,
            by: None,
        }
    }

    pub fn info(event: EventKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Level::Info, event, message)
    }

    pub fn warning(event: EventKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Level::Warning, event, message)
    }

    pub fn error(event: EventKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Level::Error, event, message)
    }

    /// How a hook ended, or why it does not run.
    pub fn of_hook(hook: &str, ended: Result<Exit, &dyn fmt::Display>) -> Self {
        match ended {
            Ok(exit) if exit.is_success() => Self::info(EventKind::Hook, format!("its hook {hook} has run")),
            Ok(exit) => Self::warning(EventKind::Hook, format!("its hook {hook} {exit}")),
            Err(why) => Self::warning(EventKind::Hook, format!("its hook {hook} does not run: {why}")),
        }
    }

    #[must_use]
    pub fn about(self, service: impl AsRef<str>) -> Self {
        Self { service: Some(service.as_ref().into()), ..self }
    }

    #[must_use]
    pub fn by(self, by: Asker) -> Self {
        Self { by: Some(Box::new(by)), ..self }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.service {
            Some(service) => write!(f, "{service}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_line_is_the_documented_one() {
        let mut event =
            Event::warning(EventKind::Exit, "exited with code 3 unexpectedly, after 1m 1s").about("web");
        event.time = Utc(SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123));
        event.exit_code = Some(3);
        assert_eq!(
            serde_json::to_string(&event).unwrap(),
            concat!(
                r#"{"time":"2023-11-14T22:13:20.123Z","service":"web","event":"exit","level":"warning","#,
                r#""message":"exited with code 3 unexpectedly, after 1m 1s","state":null,"pid":null,"exit_code":3,"by":null}"#,
            )
        );
        assert_eq!(event.to_string(), "web: exited with code 3 unexpectedly, after 1m 1s");
        let by = Asker { uid: 0, user: Some("root".to_owned()), pid: Some(7) };
        assert_eq!(by.to_string(), "root (uid 0, pid 7)");
        assert_eq!(Asker { uid: 5, user: None, pid: None }.to_string(), "(uid 5, of another container)");
    }

    #[test]
    fn a_kind_of_a_later_supervisor_is_still_read() {
        assert_eq!(serde_json::from_str::<EventKind>(r#""earthquake""#).unwrap(), EventKind::Other);
        assert_eq!(serde_json::to_string(&EventKind::StartFailed).unwrap(), r#""start-failed""#);
    }
}
