//! The parts of an answer, its end, and what went wrong.

use super::events::Event;
use super::status::{ServiceStatus, SupervisorStatus};
use crate::core::words::State;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::path::PathBuf;

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
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
    Event(Box<Event>),
    /// So many events are missing here: this reader was too slow.
    Lost(u64),
    /// It comes with the open file (SCM_RIGHTS, unix(7)).
    LogFile(LogFile),
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
            Self::Event(event) => event.service.as_deref().unwrap_or("supervisor"),
            Self::Lost(_) => "events",
            Self::LogFile(file) => &file.service,
        }
    }
}

/// Where the log files of one service are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LogPlace {
    pub name: String,
    pub dir: PathBuf,
    /// The supervisor's `TZ`: the lines there have its local time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tz: Option<String>,
}

/// One file of a service's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LogFile {
    pub service: String,
    /// Its name in the directory: `current`, or that of an archive.
    pub file: String,
}

/// Processes of one service, parents before their children; a service of many comes in several parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Tree {
    pub name: String,
    pub processes: Vec<Process>,
    /// So many more were not looked at.
    pub left_out: u64,
}

/// One process, as /proc showed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TreesDocument {
    pub version: u32,
    pub services: Vec<Tree>,
}

/// What a service may do. While it runs, its main process as the kernel shows it; otherwise its next start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AuditDocument {
    pub version: u32,
    pub services: Vec<Audit>,
}

/// One scope of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Outcome {
    pub name: String,
    pub ok: bool,
    #[cfg_attr(test, schemars(with = "u8"))]
    pub code: Code,
    /// The state after the verb; absent when there is no such service.
    pub state: Option<State>,
    /// One line. With `ok`: a phrase such as `already up`, shown in place of the state. Otherwise a whole sentence that
    /// names the service: what failed and what to do about it.
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
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

#[cfg(test)]
mod tests {
    use super::super::{ResultsDocument, VERSION};
    use super::*;

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
