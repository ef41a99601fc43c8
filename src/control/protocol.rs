//! The words of the control protocol, version 1: requests, the parts of an answer, and the status documents.
//!
//! A connection carries one request at a time: its answer is any number of parts and then [`Reply::End`] or
//! [`Reply::Refused`]. The documents here are also exactly what `--json` prints: every field is always present,
//! what is not known is null, times are RFC 3339 in UTC, durations whole milliseconds. A field may be added within
//! version 1; none may change its meaning or go away. No I/O, no policy.

use crate::core::exit::Exit;
use crate::core::signal::Signal;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::SystemTime;

/// Of the protocol and of every `--json` document.
pub const VERSION: u32 = 1;

/// Most names in one request. Bounds the work that one frame can ask for; `all` is not limited.
pub const MAX_NAMES: usize = 1024;

// ---- requests

/// What a client asks for. Names are as the user typed them: aliases are resolved by the supervisor. How it looks on the
/// wire is the codec's: what serde makes of it, `{"METHOD":PARAMETERS}`, is only a step on the way there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

impl Request {
    /// The wire name of the method, which is also the name of the `ctl` verb where there is one.
    pub fn method(&self) -> &'static str {
        match self {
            Self::Start { .. } => "start",
            Self::Stop { .. } => "stop",
            Self::Restart { .. } => "restart",
            Self::Once { .. } => "once",
            Self::Status { .. } => "status",
            Self::List {} => "list",
            Self::Register(_) => "register",
            Self::Unregister { .. } => "unregister",
            Self::Kill { .. } => "kill",
            Self::Freeze { .. } => "freeze",
            Self::Thaw { .. } => "thaw",
            Self::Tree { .. } => "tree",
            Self::Audit { .. } => "audit",
            Self::Wait { .. } => "wait",
            Self::Set { .. } => "set",
            Self::Reload { .. } => "reload",
            Self::Shutdown { .. } => "shutdown",
            Self::Upgrade { .. } => "upgrade",
            Self::LogPlaces { .. } => "log-places",
            Self::Rescan { .. } => "rescan",
            Self::Scope { .. } => "scope",
            Self::ScopeStop { .. } => "scope-stop",
            Self::ScopeShow { .. } => "scope-show",
        }
    }

    /// The services it names; `None` for a request that is not about named services.
    pub fn targets(&self) -> Option<&Targets> {
        match self {
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
            | Self::LogPlaces { targets } => Some(targets),
            Self::List {}
            | Self::Register(_)
            | Self::Reload { .. }
            | Self::Shutdown { .. }
            | Self::Upgrade { .. }
            | Self::Rescan { .. }
            | Self::Scope { .. }
            | Self::ScopeStop { .. }
            | Self::ScopeShow { .. } => None,
        }
    }
}

/// All methods, for the message that answers an unknown one.
pub const METHODS: [&str; 23] = [
    "start",
    "stop",
    "restart",
    "once",
    "status",
    "list",
    "register",
    "unregister",
    "kill",
    "freeze",
    "thaw",
    "tree",
    "audit",
    "wait",
    "set",
    "reload",
    "shutdown",
    "upgrade",
    "log-places",
    "rescan",
    "scope",
    "scope-stop",
    "scope-show",
];

/// `"all"` or `{"names":[…]}`: an empty list never means everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Targets {
    All,
    Names(Vec<String>),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[serde(rename_all = "kebab-case")]
pub enum Program {
    /// An absolute profile directory.
    Profile(PathBuf),
    /// Not empty; executed without a shell.
    Argv(Vec<String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Until {
    /// Also satisfied by ready.
    Up,
    Ready,
    Down,
}

/// What the kernel's out-of-memory killer may take of a scope that is over its bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
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
pub struct SignalName(pub Signal);

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

// ---- answers

/// One frame of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// More follows.
    Part(Part),
    /// The answer is complete.
    End,
    /// The answer ends here: the request as a whole could not be done.
    Refused(Refusal),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    Supervisor(Box<SupervisorStatus>),
    Service(Box<ServiceStatus>),
    /// What became of a verb for one service; sent as soon as it is known.
    Outcome(Outcome),
    /// One entry of `list`.
    Name(String),
    LogPlace(LogPlace),
    Scope(Box<ScopeStatus>),
    Tree(Tree),
    Audit(Box<Audit>),
}

impl Part {
    /// The service it is about.
    pub fn name(&self) -> &str {
        match self {
            Self::Supervisor(_) => "supervisor",
            Self::Service(service) => &service.name,
            Self::Outcome(outcome) => &outcome.name,
            Self::Name(name) => name,
            Self::LogPlace(place) => &place.name,
            Self::Scope(scope) => &scope.service,
            Self::Tree(tree) => &tree.name,
            Self::Audit(audit) => &audit.name,
        }
    }
}

/// Where the log files of one service are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPlace {
    pub name: String,
    pub dir: PathBuf,
}

/// Processes of one service, parents before their children; a service of many comes in several parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    pub name: String,
    pub processes: Vec<Process>,
    /// So many more were not looked at.
    pub left_out: u64,
}

/// One process, as /proc showed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: u32,
    /// Its parent if that is in the tree too; absent: a root of the tree.
    pub parent: Option<u32>,
    /// By name if it has one.
    pub user: String,
    /// The kernel's letter (proc_pid_stat(5)): `R`, `S`, `D`, `T`, `t`, `Z`.
    pub state: String,
    /// Resident, shared pages included.
    pub memory_bytes: u64,
    /// Its arguments, cut where they are long; the name in brackets where it has none.
    pub command: String,
    /// With `.scope`; absent: in none, or not known on this rung.
    pub scope: Option<String>,
}

/// The whole of `tree --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreesDocument {
    pub version: u32,
    pub services: Vec<Tree>,
}

/// What a service may do. While it runs, its main process as the kernel shows it; otherwise its next start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    pub name: String,
    pub state: State,
    /// Absent: no user of that number is known.
    pub user: Option<String>,
    /// Absent: there is no such user.
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub groups: Vec<u32>,
    /// Absent: it does not run.
    pub privileges: Option<Privileges>,
    /// The rung that holds the tree, by its name.
    pub containment: Option<String>,
    pub containment_weakness: Option<String>,
    /// As in [`ServiceStatus`].
    pub limits: BTreeMap<String, String>,
    pub limits_not_in_force: Vec<String>,
    /// A line for each thing that could be tighter, with what to do about it.
    pub tighter: Vec<String>,
}

/// Of a process (capabilities(7), prctl(2), seccomp(2)).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Privileges {
    /// Those it holds, by their names.
    pub capabilities: Vec<String>,
    /// Those it could still gain.
    pub bounding: Vec<String>,
    pub no_new_privs: bool,
    /// Some filter is on it.
    pub seccomp: bool,
}

/// The whole of `audit --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditDocument {
    pub version: u32,
    pub services: Vec<Audit>,
}

/// One scope of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeStatus {
    /// With `.scope`.
    pub unit: String,
    pub service: String,
    /// It is being ended.
    pub stopping: bool,
    /// The path of its cgroup in the hierarchy, as in /proc/PID/cgroup; absent where it has none.
    pub control_group: Option<String>,
    pub procs: u64,
    pub memory_bytes: Option<u64>,
    /// Bounds in force, in bytes; absent: none.
    pub memory_max: Option<u64>,
    pub swap_max: Option<u64>,
    /// The bounds that were asked for and are not in force, and why: a line each.
    pub not_in_force: Vec<String>,
    /// What holds it together is its first process: that must become a child subreaper (prctl(2)) before it executes
    /// anything.
    pub adopt_orphans: bool,
}

/// The result of a verb for one service, as in `"results"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub name: String,
    pub ok: bool,
    pub code: Code,
    /// The state after the verb; absent when there is no such service.
    pub state: Option<State>,
    /// One line. With `ok`: a phrase such as `already up`, shown in place of the state. Otherwise: what failed and
    /// what to do about it.
    pub message: Option<String>,
}

impl Outcome {
    pub fn done(name: impl Into<String>, state: State, message: Option<String>) -> Self {
        Self { name: name.into(), ok: true, code: Code::Done, state: Some(state), message }
    }

    pub fn failed(
        name: impl Into<String>,
        code: Code,
        state: Option<State>,
        message: impl Into<String>,
    ) -> Self {
        Self { name: name.into(), ok: false, code, state, message: Some(message.into()) }
    }
}

/// Why a request as a whole was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub kind: RefusalKind,
    /// One line: what is wrong and what to do.
    pub message: String,
}

impl Refusal {
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalKind {
    Malformed,
    TooLarge,
    UnknownMethod,
    WrongVersion,
    Busy,
    NotPermitted,
    NoSuchScope,
    /// Also whatever a later supervisor may say that this client does not know.
    #[serde(other)]
    Failed,
}

impl RefusalKind {
    pub fn code(self) -> Code {
        match self {
            Self::NotPermitted => Code::NotPermitted,
            Self::NoSuchScope => Code::NoSuchService,
            Self::Malformed
            | Self::TooLarge
            | Self::UnknownMethod
            | Self::WrongVersion
            | Self::Busy
            | Self::Failed => Code::Failed,
        }
    }
}

/// The exit codes of the command line, also `code` of an [`Outcome`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Code {
    Done = 0,
    Failed = 1,
    Usage = 2,
    /// `status NAME` of a service that is not up.
    NotUp = 3,
    NoSuchService = 4,
    NoSupervisor = 5,
    NotPermitted = 6,
    TimedOut = 7,
}

impl Code {
    pub const ALL: [Self; 8] = [
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::NotUp,
        Self::NoSuchService,
        Self::NoSupervisor,
        Self::NotPermitted,
        Self::TimedOut,
    ];

    pub fn number(self) -> u8 {
        self as u8
    }

    /// The code of several answers together: that of the failures if they agree, else 1; 0 without a failure.
    pub fn common(codes: impl IntoIterator<Item = Self>) -> Self {
        codes.into_iter().filter(|code| *code != Self::Done).fold(Self::Done, |all, code| match all {
            Self::Done => code,
            same if same == code => same,
            _ => Self::Failed,
        })
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(self.number())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u8::deserialize(deserializer)?;
        Ok(Self::ALL.into_iter().find(|code| code.number() == number).unwrap_or(Self::Failed))
    }
}

// ---- status

/// The whole of `status --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusDocument {
    pub version: u32,
    pub supervisor: SupervisorStatus,
    pub services: Vec<ServiceStatus>,
}

/// The whole of `--json` of a verb.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultsDocument {
    pub version: u32,
    pub results: Vec<Outcome>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupervisorStatus {
    pub pid: u32,
    /// Of the program, as in `--version`.
    pub version: String,
    pub since: Utc,
    pub uptime_ms: u64,
    /// The rung in force, by its name.
    pub containment: String,
    /// Why it is not a higher one.
    pub containment_reason: Option<String>,
    /// The one flag of the container engine that would raise it.
    pub containment_flag: Option<String>,
    pub state_dir: PathBuf,
    pub stopping: bool,
    /// What is degraded just now (store, logs, weaker guarantees), a line each.
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    pub name: String,
    pub kind: Kind,
    pub want: Want,
    pub state: State,
    /// It is up, and every process of it stands still by order.
    #[serde(default)]
    pub frozen: bool,
    /// Why it is in this state, in words.
    pub reason: Option<String>,
    /// Of the main process.
    pub pid: Option<u32>,
    /// When the state began.
    pub since: Option<Utc>,
    /// When readiness was reported, in `ready`.
    pub ready_since: Option<Utc>,
    /// Of the main process.
    pub uptime_ms: Option<u64>,
    pub restarts: u64,
    /// Time until the next attempt, in `backoff`.
    pub next_retry_ms: Option<u64>,
    pub last_exit: Option<LastExit>,
    /// The rung that holds the tree, by its name.
    pub containment: Option<String>,
    /// What is weaker for this service than its rung promises; absent: nothing.
    pub containment_weakness: Option<String>,
    pub procs: Option<u64>,
    pub memory_bytes: Option<u64>,
    pub memory_peak_bytes: Option<u64>,
    pub cpu_ms: Option<u64>,
    /// How many of its processes the kernel has killed for want of memory since it was started.
    pub oom_kills: Option<u64>,
    /// When the kernel last held its memory at `memory_high`, in this life.
    #[serde(default)]
    pub memory_high_at: Option<Utc>,
    pub io: Option<Io>,
    pub pressure: Option<Pressure>,
    /// The directory of its log files.
    pub log: Option<PathBuf>,
    /// While it runs those in force, otherwise those of its next start; by the names of the definition.
    pub limits: Option<BTreeMap<String, String>>,
    /// A line for each limit that was asked for and does not hold.
    #[serde(default)]
    pub limits_not_in_force: Vec<String>,
    /// Where it was defined: a file, a profile's directory, or `registered`.
    pub definition: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Gateway,
    Daemon,
    Oneshot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Want {
    Up,
    Down,
}

impl Want {
    pub fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Down,
    Starting,
    Up,
    Ready,
    Stopping,
    Backoff,
    Failed,
    Finished,
}

impl State {
    const ALL: [Self; 8] = [
        Self::Down,
        Self::Starting,
        Self::Up,
        Self::Ready,
        Self::Stopping,
        Self::Backoff,
        Self::Failed,
        Self::Finished,
    ];

    /// The state that the core calls so.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.word() == word)
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Ready => "ready",
            Self::Stopping => "stopping",
            Self::Backoff => "backoff",
            Self::Failed => "failed",
            Self::Finished => "finished",
        }
    }

    pub fn is_up(self) -> bool {
        matches!(self, Self::Up | Self::Ready)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// How the last incarnation's main process ended: one of `code`, `signal` and `unknown`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastExit {
    pub code: Option<u8>,
    pub signal: Option<SignalName>,
    pub core: bool,
    /// The kernel killed it for want of memory. Absent: that cannot be told, though it may be `oom_likely`.
    pub oom: Option<bool>,
    #[serde(default)]
    pub oom_likely: bool,
    pub unknown: bool,
    pub at: Option<Utc>,
}

impl LastExit {
    pub fn new(exit: Exit, at: Option<Utc>) -> Self {
        let nothing = Self {
            code: None,
            signal: None,
            core: false,
            oom: Some(false),
            oom_likely: false,
            unknown: false,
            at,
        };
        let killed = Self { signal: Some(SignalName(Signal::KILL)), ..nothing.clone() };
        match exit {
            Exit::Code(code) => Self { code: Some(code), ..nothing },
            Exit::Signal { signal, core } => Self { signal: Some(SignalName(signal)), core, ..nothing },
            Exit::Oom => Self { oom: Some(true), ..killed },
            Exit::MaybeOom { likely } => Self { oom: None, oom_likely: likely, ..killed },
            // Nor is it known whether it was for that.
            Exit::Unknown => Self { unknown: true, oom: None, ..nothing },
        }
    }

    pub fn exit(&self) -> Exit {
        match (self.code, self.signal) {
            _ if self.oom == Some(true) => Exit::Oom,
            (None, Some(SignalName(Signal::KILL))) if self.oom.is_none() => {
                Exit::MaybeOom { likely: self.oom_likely }
            }
            (Some(code), _) => Exit::Code(code),
            (None, Some(SignalName(signal))) => Exit::Signal { signal, core: self.core },
            (None, None) => Exit::Unknown,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Io {
    pub read_bytes: u64,
    pub write_bytes: u64,
}

/// Share of the last 10 s in which something waited, in percent (`some avg10` of the kernel's pressure files).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Pressure {
    pub cpu: Option<f64>,
    pub memory: Option<f64>,
    pub io: Option<f64>,
}

/// A moment, written as RFC 3339 in UTC with milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Utc(pub SystemTime);

impl Serialize for Utc {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Utc {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_rfc3339(&text).map(Self).map_err(de::Error::custom)
    }
}

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The formatter refuses years beyond 9999 and before 1970: a clock that is so wrong is shown as the epoch.
        let limit = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(253_402_300_799);
        let shown =
            if (SystemTime::UNIX_EPOCH..=limit).contains(&self.0) { self.0 } else { SystemTime::UNIX_EPOCH };
        humantime::format_rfc3339_millis(shown).fmt(f)
    }
}

/// Documents for the tests of this room and of the command line.
#[cfg(test)]
pub(crate) mod samples {
    use super::*;
    use std::time::Duration;

    pub(crate) fn at(seconds: u64) -> Utc {
        Utc(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds))
    }

    pub(crate) fn scope() -> ScopeStatus {
        ScopeStatus {
            unit: "hermes-worker-1.scope".to_owned(),
            service: "coder".to_owned(),
            stopping: false,
            control_group: Some("/hermes-sup.x/coder.3/scope-hermes-worker-1".to_owned()),
            procs: 2,
            memory_bytes: Some(4096),
            memory_max: Some(1 << 30),
            swap_max: None,
            not_in_force: vec!["MemorySwapMax is not in force".to_owned()],
            adopt_orphans: false,
        }
    }

    /// A shell with two children, one of them in a scope.
    pub(crate) fn tree() -> Tree {
        let process = |pid, parent, command: &str| Process {
            pid,
            parent,
            user: "hermes".to_owned(),
            state: "S".to_owned(),
            memory_bytes: 1 << 20,
            command: command.to_owned(),
            scope: None,
        };
        let worker =
            Process { scope: Some("hermes-worker-1.scope".to_owned()), ..process(44, Some(42), "sleep 1") };
        let processes = vec![process(42, None, "sh -c x"), process(43, Some(42), "cat"), worker];
        Tree { name: "coder".to_owned(), processes, left_out: 0 }
    }

    pub(crate) fn audit(name: &str) -> Audit {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        Audit {
            name: name.to_owned(),
            state: State::Up,
            user: Some("hermes".to_owned()),
            uid: Some(10000),
            gid: Some(10000),
            groups: vec![10000, 44],
            privileges: Some(Privileges {
                capabilities: Vec::new(),
                bounding: names(&["CAP_CHOWN", "CAP_KILL"]),
                no_new_privs: false,
                seccomp: true,
            }),
            containment: Some("cgroup".to_owned()),
            containment_weakness: Some("weak".to_owned()),
            limits: [("memory_max".to_owned(), "512M".to_owned())].into(),
            limits_not_in_force: names(&["pids_max=5 is not in force: no"]),
            tighter: names(&["one", "two"]),
        }
    }

    pub(crate) fn supervisor() -> SupervisorStatus {
        SupervisorStatus {
            pid: 1,
            version: "0.1.0".to_owned(),
            since: at(0),
            uptime_ms: 7_980_000,
            containment: "keeper".to_owned(),
            containment_reason: Some("/sys/fs/cgroup is read-only".to_owned()),
            containment_flag: Some("--security-opt writable-cgroups".to_owned()),
            state_dir: "/opt/data/supervisor".into(),
            stopping: false,
            warnings: Vec::new(),
        }
    }

    pub(crate) fn service(name: &str) -> ServiceStatus {
        ServiceStatus {
            name: name.to_owned(),
            kind: Kind::Gateway,
            want: Want::Up,
            state: State::Up,
            frozen: false,
            reason: None,
            pid: Some(42),
            since: Some(at(60)),
            ready_since: None,
            uptime_ms: Some(65_000),
            restarts: 2,
            next_retry_ms: None,
            last_exit: Some(LastExit::new(Exit::Oom, Some(at(50)))),
            containment: Some("keeper".to_owned()),
            containment_weakness: None,
            procs: Some(5),
            memory_bytes: Some(12_900_000),
            memory_peak_bytes: None,
            cpu_ms: Some(61_500),
            oom_kills: None,
            memory_high_at: None,
            io: None,
            pressure: None,
            log: Some("/opt/data/logs/gateways/coder".into()),
            limits: None,
            limits_not_in_force: Vec::new(),
            definition: Some("/opt/data/profiles/coder".to_owned()),
        }
    }

    /// A service that is down and never ran: everything that can be absent is.
    pub(crate) fn down(name: &str) -> ServiceStatus {
        ServiceStatus {
            name: name.to_owned(),
            kind: Kind::Daemon,
            want: Want::Down,
            state: State::Down,
            frozen: false,
            reason: None,
            pid: None,
            since: None,
            ready_since: None,
            uptime_ms: None,
            restarts: 0,
            next_retry_ms: None,
            last_exit: None,
            containment: None,
            containment_weakness: None,
            procs: None,
            memory_bytes: None,
            memory_peak_bytes: None,
            cpu_ms: None,
            oom_kills: None,
            memory_high_at: None,
            io: None,
            pressure: None,
            log: None,
            limits: None,
            limits_not_in_force: Vec::new(),
            definition: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_document_has_every_field_and_null_for_what_is_absent() {
        let document = StatusDocument {
            version: VERSION,
            supervisor: samples::supervisor(),
            services: vec![samples::down("b"), samples::service("coder")],
        };
        let expected = concat!(
            r#"{"version":1,"supervisor":{"pid":1,"version":"0.1.0","since":"2023-11-14T22:13:20.000Z","#,
            r#""uptime_ms":7980000,"containment":"keeper","containment_reason":"/sys/fs/cgroup is read-only","#,
            r#""containment_flag":"--security-opt writable-cgroups","state_dir":"/opt/data/supervisor","#,
            r#""stopping":false,"warnings":[]},"services":["#,
            r#"{"name":"b","kind":"daemon","want":"down","state":"down","frozen":false,"reason":null,"pid":null,"since":null,"#,
            r#""ready_since":null,"uptime_ms":null,"restarts":0,"next_retry_ms":null,"last_exit":null,"containment":null,"containment_weakness":null,"procs":null,"#,
            r#""memory_bytes":null,"memory_peak_bytes":null,"cpu_ms":null,"oom_kills":null,"memory_high_at":null,"io":null,"pressure":null,"log":null,"#,
            r#""limits":null,"limits_not_in_force":[],"definition":null},"#,
            r#"{"name":"coder","kind":"gateway","want":"up","state":"up","frozen":false,"reason":null,"pid":42,"#,
            r#""since":"2023-11-14T22:14:20.000Z","ready_since":null,"uptime_ms":65000,"restarts":2,"next_retry_ms":null,"#,
            r#""last_exit":{"code":null,"signal":"SIGKILL","core":false,"oom":true,"oom_likely":false,"unknown":false,"#,
            r#""at":"2023-11-14T22:14:10.000Z"},"containment":"keeper","containment_weakness":null,"procs":5,"memory_bytes":12900000,"#,
            r#""memory_peak_bytes":null,"cpu_ms":61500,"oom_kills":null,"memory_high_at":null,"io":null,"pressure":null,"#,
            r#""log":"/opt/data/logs/gateways/coder","limits":null,"limits_not_in_force":[],"definition":"/opt/data/profiles/coder"}]}"#,
        );
        assert_eq!(serde_json::to_string(&document).unwrap(), expected);
        assert_eq!(serde_json::from_str::<StatusDocument>(expected).unwrap(), document);
    }

    #[test]
    fn a_results_document_is_the_documented_one() {
        let results = vec![
            Outcome::done("a", State::Up, None),
            Outcome::failed("b", Code::NoSuchService, None, "no such gateway"),
        ];
        assert_eq!(
            serde_json::to_string(&ResultsDocument { version: VERSION, results }).unwrap(),
            concat!(
                r#"{"version":1,"results":[{"name":"a","ok":true,"code":0,"state":"up","message":null},"#,
                r#"{"name":"b","ok":false,"code":4,"state":null,"message":"no such gateway"}]}"#,
            )
        );
    }

    #[test]
    fn several_failures_give_their_common_code_else_1() {
        use Code::*;
        for (codes, common) in [
            (vec![], Done),
            (vec![Done, Done], Done),
            (vec![Done, NoSuchService], NoSuchService),
            (vec![TimedOut, Done, TimedOut], TimedOut),
            (vec![TimedOut, NoSuchService], Failed),
            (vec![Failed, Failed], Failed),
        ] {
            assert_eq!(Code::common(codes.clone()), common, "{codes:?}");
        }
    }

    #[test]
    fn a_later_supervisors_words_are_still_understood() {
        assert_eq!(serde_json::from_str::<RefusalKind>(r#""on-strike""#).unwrap(), RefusalKind::Failed);
        assert_eq!(serde_json::from_str::<Code>("99").unwrap(), Code::Failed);
    }
}
