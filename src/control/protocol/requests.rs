//! What a client asks for.

use crate::core::signal::Signal;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// What a client asks for. Names are as the user typed them: aliases are resolved by the supervisor. How it looks on the
/// wire is the codec's: what serde makes of it, `{"METHOD":PARAMETERS}`, is only a step on the way there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// `timeout_ms`: how long the service may take to be up; absent: the supervisor's 30 s. `force`: also when the
    /// last tree is stuck.
    Start {
        targets: Targets,
        timeout_ms: Option<u64>,
        #[serde(default)]
        force: bool,
    },
    /// Ends when every tree is empty, however long that takes.
    Stop {
        targets: Targets,
    },
    /// `rolling`: at most so many at a time, each up before the next.
    Restart {
        targets: Targets,
        timeout_ms: Option<u64>,
        rolling: Option<u32>,
    },
    Once {
        targets: Targets,
        timeout_ms: Option<u64>,
    },
    Status {
        targets: Targets,
    },
    List {},
    Register(Registration),
    Unregister {
        targets: Targets,
    },
    /// To the main process, or with `tree` to every process of the service.
    Kill {
        targets: Targets,
        signal: SignalName,
        #[serde(default)]
        tree: bool,
    },
    /// Stops every process of what is up where it is; ends when all stand still.
    Freeze {
        targets: Targets,
    },
    /// Lets them go on.
    Thaw {
        targets: Targets,
    },
    /// The processes of each: one or more [`Part::Tree`] for every service.
    Tree {
        targets: Targets,
    },
    /// What each may do, and what could be tighter: a [`Part::Audit`] for every service.
    Audit {
        targets: Targets,
    },
    Wait {
        targets: Targets,
        until: Until,
        timeout_ms: Option<u64>,
    },
    /// `limits`: by the names and in the words of the definition, or `default` for what that says. `persist`: also for all
    /// starts to come.
    Set {
        targets: Targets,
        limits: BTreeMap<String, String>,
        #[serde(default)]
        persist: bool,
    },
    /// `restart`: restart what has changed.
    Reload {
        #[serde(default)]
        restart: bool,
    },
    /// `code`: the exit code of the supervisor; absent: its own rules.
    Shutdown {
        code: Option<u8>,
    },
    /// Becomes this program (absolute; absent: its own, as it is on the disk now) without stopping any service. The answer
    /// comes from the new one.
    Upgrade {
        program: Option<PathBuf>,
    },
    /// Where the log files are, so that the client reads them itself, with its own rights.
    LogPlaces {
        targets: Targets,
    },
    /// The open log files of a service, oldest first: for its user, whom the way to them may be closed to. The answer is a
    /// [`Part::LogFile`](super::Part::LogFile) for the newest of them.
    LogFiles {
        targets: Targets,
    },
    /// What has happened: a [`Part::Event`](super::Part::Event) for each of what is kept, from `since_ms` (Unix time in
    /// milliseconds) on, and of those the `last`. `follow`: and what happens from now on.
    Events {
        since_ms: Option<u64>,
        last: Option<u32>,
        #[serde(default)]
        follow: bool,
    },
    /// Looks at the s6 scan directory again: new slots become services. `nuke`: services whose slot is gone end.
    Rescan {
        #[serde(default)]
        nuke: bool,
    },
    /// Puts the calling process, which must be part of a running service, into a new scope of that service. Limits are
    /// in bytes; absent: none. The answer is one [`Part::Scope`].
    Scope {
        unit: String,
        memory_max: Option<u64>,
        swap_max: Option<u64>,
        #[serde(default)]
        oom: OomPolicy,
    },
    /// Ends a scope of the caller's service; the answer comes when it is empty, however long that takes.
    ScopeStop {
        unit: String,
    },
    /// The answer is one [`Part::Scope`].
    ScopeShow {
        unit: String,
    },
}

/// The targets of a request, borrowed as the request is.
macro_rules! targets_of {
    ($request:expr) => {
        match $request {
            Self::Start { targets, .. }
            | Self::Stop { targets }
            | Self::Restart { targets, .. }
            | Self::Once { targets, .. }
            | Self::Status { targets }
            | Self::Unregister { targets }
            | Self::Kill { targets, .. }
            | Self::Freeze { targets }
            | Self::Thaw { targets }
            | Self::Tree { targets }
            | Self::Audit { targets }
            | Self::Wait { targets, .. }
            | Self::Set { targets, .. }
            | Self::LogPlaces { targets }
            | Self::LogFiles { targets } => Some(targets),
            Self::List {}
            | Self::Register(_)
            | Self::Reload { .. }
            | Self::Shutdown { .. }
            | Self::Upgrade { .. }
            | Self::Events { .. }
            | Self::Rescan { .. }
            | Self::Scope { .. }
            | Self::ScopeStop { .. }
            | Self::ScopeShow { .. } => None,
        }
    };
}

impl Request {
    /// The services it names; `None` for a request that is not about named services.
    pub fn targets(&self) -> Option<&Targets> {
        targets_of!(self)
    }

    /// The same request about other services; one that names none stays as it is.
    #[must_use]
    pub fn about(mut self, others: Targets) -> Self {
        if let Some(targets) = targets_of!(&mut self) {
            *targets = others;
        }
        self
    }

    /// How long the caller gives it; `None`: the caller says nothing, or this request has no timeout of the caller's.
    pub fn timeout(&self) -> Option<Duration> {
        match self {
            Self::Start { timeout_ms, .. }
            | Self::Restart { timeout_ms, .. }
            | Self::Once { timeout_ms, .. }
            | Self::Wait { timeout_ms, .. } => timeout_ms.map(Duration::from_millis),
            _ => None,
        }
    }
}

/// `"all"` or `{"names":[…]}`: an empty list never means everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Targets {
    All,
    Names(Vec<String>),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Registration {
    pub name: String,
    /// Absent: the caller's own.
    pub user: Option<String>,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Recorded with want down; otherwise it starts at once.
    #[serde(default)]
    pub down: bool,
    pub program: Program,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Program {
    /// An absolute profile directory.
    Profile(PathBuf),
    /// Not empty; executed without a shell.
    Argv(Vec<String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Until {
    /// Also satisfied by ready.
    Up,
    Ready,
    Down,
}

/// What the kernel's out-of-memory killer may take of a scope that is over its bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum OomPolicy {
    /// All of it (`memory.oom.group`).
    #[default]
    Kill,
    /// One process.
    Continue,
}

/// A signal by its name (`"SIGTERM"`); anything that [`Signal::parse`] knows is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SignalName(#[cfg_attr(test, schemars(with = "String"))] pub Signal);

impl Serialize for SignalName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SignalName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Signal::parse(&text)
            .or_else(|| Signal::from_number(text.strip_prefix("signal ")?.parse().ok()?))
            .map(Self)
            .ok_or_else(|| de::Error::custom("that is not a signal"))
    }
}
