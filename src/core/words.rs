//! Words that every room speaks: each is defined here once, with its text and its form in JSON and in the database.
//!
//! The text of a word is what `serde` writes, what people read, and what they type; a test holds the three together.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The operator's durable intent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Want {
    Up,
    Down,
}

impl Want {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// What is true of a service now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Down,
    /// It waits for another service, or its main process is being made.
    Starting,
    /// Exec succeeded.
    Up,
    /// It has reported that it is ready.
    Ready,
    Stopping,
    /// It waits for its next start.
    Backoff,
    Failed,
    Finished,
    /// Its definition cannot be read: there is no service.
    Refused,
    /// Another gateway serves the profile: there is no process, and no failure.
    Served,
    /// Its owner wants no gateway to serve the profile.
    Parked,
}

impl State {
    pub const ALL: [Self; 11] = [
        Self::Down,
        Self::Starting,
        Self::Up,
        Self::Ready,
        Self::Stopping,
        Self::Backoff,
        Self::Failed,
        Self::Finished,
        Self::Refused,
        Self::Served,
        Self::Parked,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Ready => "ready",
            Self::Stopping => "stopping",
            Self::Backoff => "backoff",
            Self::Failed => "failed",
            Self::Finished => "finished",
            Self::Refused => "refused",
            Self::Served => "served",
            Self::Parked => "parked",
        }
    }

    /// Its main process runs.
    pub fn is_up(self) -> bool {
        matches!(self, Self::Up | Self::Ready)
    }

    /// What it is there for is done, by its own process or another service's.
    pub fn does_its_work(self) -> bool {
        self.is_up() || self == Self::Served
    }
}

/// How a process tree is held: the rungs of the ladder, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rung {
    Cgroup,
    CgroupPrivate,
    Pidns,
    Keeper,
    KeeperSameUid,
}

impl Rung {
    pub const ALL: [Self; 5] =
        [Self::Cgroup, Self::CgroupPrivate, Self::Pidns, Self::Keeper, Self::KeeperSameUid];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::CgroupPrivate => "cgroup-private",
            Self::Pidns => "pidns",
            Self::Keeper => "keeper",
            Self::KeeperSameUid => "keeper-same-uid",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rung| rung.as_str() == text)
    }
}

/// One of the two output streams of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stream {
    Out,
    Err,
}

impl Stream {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::Err => "err",
        }
    }
}

/// What happens to lines of a service whose log file cannot keep up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// The writer waits.
    #[default]
    Block,
    /// Whole lines are dropped and counted.
    Drop,
}

/// Who decided what is wanted of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Cause {
    /// A command over the control socket.
    Operator,
    Register,
    /// `gateway run` as the container's CMD.
    GatewayRun,
    /// The definition, when the service was seen for the first time.
    FirstBoot,
    /// The gateway's own `gateway_state.json`.
    GatewayState,
    /// The file `down` of an s6 service directory, or that there is none.
    Slot,
    /// The profile had another name before.
    ProfileMoved,
    /// One that this release does not know.
    Other(String),
}

impl Cause {
    /// Those that this release knows.
    const KNOWN: [Self; 7] = [
        Self::Operator,
        Self::Register,
        Self::GatewayRun,
        Self::FirstBoot,
        Self::GatewayState,
        Self::Slot,
        Self::ProfileMoved,
    ];

    pub fn as_str(&self) -> &str {
        match self {
            Self::Operator => "operator",
            Self::Register => "register",
            Self::GatewayRun => "gateway run",
            Self::FirstBoot => "first-boot",
            Self::GatewayState => "gateway-state",
            Self::Slot => "slot",
            Self::ProfileMoved => "profile-moved",
            Self::Other(text) => text,
        }
    }
}

impl From<String> for Cause {
    fn from(text: String) -> Self {
        Self::KNOWN.into_iter().find(|cause| cause.as_str() == text).unwrap_or(Self::Other(text))
    }
}

impl From<Cause> for String {
    fn from(cause: Cause) -> Self {
        cause.as_str().to_owned()
    }
}

/// Whether a service that runs does its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum HealthState {
    /// Not known yet.
    Starting,
    Healthy,
    Unhealthy,
}

impl HealthState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// How our own log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// `hermes-sup: warning: message key=value`
    #[default]
    Text,
    /// One object a line: time (RFC 3339 UTC), level, message, then the keys.
    Json,
}

macro_rules! shown {
    ($($word:ty),*) => {
        $(impl fmt::Display for $word {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        })*
    };
}

shown!(Want, State, HealthState, Rung, Stream, Cause);

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::DeserializeOwned;

    fn has_one_text<W: Serialize + DeserializeOwned + PartialEq + fmt::Debug + fmt::Display>(word: W) {
        let written = serde_json::to_string(&word).unwrap();
        assert_eq!(written, format!("\"{word}\""));
        assert_eq!(serde_json::from_str::<W>(&written).unwrap(), word);
    }

    #[test]
    fn a_word_is_written_as_it_is_shown_and_read_back() {
        [Want::Up, Want::Down].into_iter().for_each(has_one_text);
        State::ALL.into_iter().for_each(has_one_text);
        Rung::ALL.into_iter().for_each(has_one_text);
        [HealthState::Starting, HealthState::Healthy, HealthState::Unhealthy]
            .into_iter()
            .for_each(has_one_text);
        [Stream::Out, Stream::Err].into_iter().for_each(has_one_text);
        Cause::KNOWN.into_iter().for_each(has_one_text);
        has_one_text(Cause::Other("of the future".to_owned()));
        assert!(Rung::ALL.iter().all(|rung| Rung::parse(rung.as_str()) == Some(*rung)));
    }
}
