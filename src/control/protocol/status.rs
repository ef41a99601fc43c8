//! The status documents.

use super::replies::Outcome;
use super::requests::SignalName;
use crate::core::exit::{Exit, Shortage};
use crate::core::signal::Signal;
use crate::core::words::{HealthState, State, Want};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::SystemTime;

/// The whole of `status --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StatusDocument {
    pub version: u32,
    pub supervisor: SupervisorStatus,
    pub services: Vec<ServiceStatus>,
}

/// The whole of `--json` of a verb.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ResultsDocument {
    pub version: u32,
    pub results: Vec<Outcome>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ServiceStatus {
    pub name: String,
    /// What it is, in its owner's words.
    #[serde(default)]
    pub description: Option<String>,
    pub kind: Kind,
    pub want: Want,
    pub state: State,
    /// It is up, and every process of it stands still by order.
    #[serde(default)]
    pub frozen: bool,
    /// It has a way to say that it is ready, runs, and has not said so.
    #[serde(default)]
    pub awaits_ready: bool,
    /// In `served`: the gateway that serves the profile.
    #[serde(default)]
    pub served_by: Option<String>,
    /// Why it is in this state, in words.
    pub reason: Option<String>,
    /// Of the main process.
    pub pid: Option<u32>,
    /// When the state began.
    pub since: Option<Utc>,
    /// When readiness was reported, in `ready`.
    pub ready_since: Option<Utc>,
    /// Absent where nobody checks, or it does not run.
    #[serde(default)]
    pub health: Option<Health>,
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
    /// How many of its processes the OOM killer has killed since it was started.
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
    /// Lines that are not in its log, or not in the container's stream, since it was opened.
    #[serde(default)]
    pub log_dropped: u64,
    /// Its start waits for these.
    #[serde(default)]
    pub starts_after: Vec<String>,
    /// Absent: this supervisor has not started it.
    #[serde(default)]
    pub first_start: Option<FirstStart>,
    /// Absent: it runs when it is wanted.
    #[serde(default)]
    pub schedule: Option<Schedule>,
}

/// When a oneshot runs again and again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Schedule {
    /// As its definition has it: `*/5 * * * *`, `every 10m`.
    pub when: String,
    /// When the last run began.
    pub last_run: Option<Utc>,
    /// Absent: it is wanted down.
    pub next_run: Option<Utc>,
    /// How often a run was due and did not take place.
    pub skipped: u64,
}

/// How the first start of a service went, in milliseconds since the supervisor started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FirstStart {
    /// When nothing was left that it had to wait for.
    pub begun_ms: u64,
    pub up_ms: Option<u64>,
    /// When it said that it is ready; of a oneshot, when it had succeeded.
    pub ready_ms: Option<u64>,
}

/// What the health checks say of a life.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Health {
    pub state: HealthState,
    /// In a row.
    pub failures: u32,
    /// The last failure; absent after a success.
    pub reason: Option<String>,
    /// In quarantine: the processes and last lines that it had, each in words.
    #[serde(default)]
    pub quarantine: Option<Vec<String>>,
}

impl ServiceStatus {
    /// Its health check says that it does not do its work.
    pub fn is_unhealthy(&self) -> bool {
        self.health.as_ref().is_some_and(|health| health.state == HealthState::Unhealthy)
    }

    /// A service that is down and never ran: everything that can be absent is.
    pub fn down(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            description: None,
            kind: Kind::Daemon,
            want: Want::Down,
            state: State::Down,
            frozen: false,
            awaits_ready: false,
            served_by: None,
            reason: None,
            pid: None,
            since: None,
            ready_since: None,
            health: None,
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
            log_dropped: 0,
            starts_after: Vec::new(),
            first_start: None,
            schedule: None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Gateway,
    Daemon,
    Oneshot,
}

/// How the last incarnation's main process ended: one of `code`, `signal` and `unknown`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LastExit {
    pub code: Option<u8>,
    pub signal: Option<SignalName>,
    pub core: bool,
    /// The OOM killer killed it. Absent: that cannot be told, though it may be `oom_likely`.
    pub oom: Option<bool>,
    #[serde(default)]
    pub oom_likely: bool,
    /// The limit of the service at which that was, in bytes, where it is known.
    #[serde(default)]
    pub oom_memory_max: Option<u64>,
    /// The memory of the container or the machine had run out, not the service's own limit.
    #[serde(default)]
    pub oom_outside: bool,
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
            oom_memory_max: None,
            oom_outside: false,
            unknown: false,
            at,
        };
        let killed = Self { signal: Some(SignalName(Signal::KILL)), ..nothing.clone() };
        match exit {
            Exit::Code(code) => Self { code: Some(code), ..nothing },
            Exit::Signal { signal, core } => Self { signal: Some(SignalName(signal)), core, ..nothing },
            Exit::Oom(Shortage::MemoryMax(bytes)) => {
                Self { oom: Some(true), oom_memory_max: Some(bytes), ..killed }
            }
            Exit::Oom(Shortage::Outside) => Self { oom: Some(true), oom_outside: true, ..killed },
            Exit::Oom(Shortage::Unknown) => Self { oom: Some(true), ..killed },
            Exit::MaybeOom { likely } => Self { oom: None, oom_likely: likely, ..killed },
            // Nor is it known whether it was for that.
            Exit::Unknown => Self { unknown: true, oom: None, ..nothing },
        }
    }

    pub fn exit(&self) -> Exit {
        match (self.code, self.signal) {
            _ if self.oom == Some(true) => Exit::Oom(match self.oom_memory_max {
                Some(bytes) => Shortage::MemoryMax(bytes),
                None if self.oom_outside => Shortage::Outside,
                None => Shortage::Unknown,
            }),
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Io {
    pub read_bytes: u64,
    pub write_bytes: u64,
}

/// Share of the last 10 s in which something waited, in percent (`some avg10` of the kernel's pressure files).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Pressure {
    pub cpu: Option<f64>,
    pub memory: Option<f64>,
    pub io: Option<f64>,
}

/// A moment, written as RFC 3339 in UTC with milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Utc(#[cfg_attr(test, schemars(with = "String"))] pub SystemTime);

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

#[cfg(test)]
mod tests {
    use super::super::{VERSION, samples};
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
            r#"{"name":"b","description":null,"kind":"daemon","want":"down","state":"down","frozen":false,"awaits_ready":false,"served_by":null,"reason":null,"pid":null,"since":null,"#,
            r#""ready_since":null,"health":null,"uptime_ms":null,"restarts":0,"next_retry_ms":null,"last_exit":null,"containment":null,"containment_weakness":null,"procs":null,"#,
            r#""memory_bytes":null,"memory_peak_bytes":null,"cpu_ms":null,"oom_kills":null,"memory_high_at":null,"io":null,"pressure":null,"log":null,"#,
            r#""limits":null,"limits_not_in_force":[],"definition":null,"log_dropped":0,"starts_after":[],"first_start":null,"schedule":null},"#,
            r#"{"name":"coder","description":null,"kind":"gateway","want":"up","state":"up","frozen":false,"awaits_ready":false,"served_by":null,"reason":null,"pid":42,"#,
            r#""since":"2023-11-14T22:14:20.000Z","ready_since":null,"health":null,"uptime_ms":65000,"restarts":2,"next_retry_ms":null,"#,
            r#""last_exit":{"code":null,"signal":"SIGKILL","core":false,"oom":true,"oom_likely":false,"oom_memory_max":50331648,"oom_outside":false,"unknown":false,"#,
            r#""at":"2023-11-14T22:14:10.000Z"},"containment":"keeper","containment_weakness":null,"procs":5,"memory_bytes":12900000,"#,
            r#""memory_peak_bytes":null,"cpu_ms":61500,"oom_kills":null,"memory_high_at":null,"io":null,"pressure":null,"#,
            r#""log":"/opt/data/logs/gateways/coder","limits":null,"limits_not_in_force":[],"definition":"/opt/data/profiles/coder","log_dropped":0,"starts_after":[],"first_start":null,"schedule":null}]}"#,
        );
        assert_eq!(serde_json::to_string(&document).unwrap(), expected);
        assert_eq!(serde_json::from_str::<StatusDocument>(expected).unwrap(), document);
    }
}
