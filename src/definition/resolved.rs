//! A checked definition: what everyone else knows about a service. It is complete (defaults filled in), in range, and
//! says whom it may run as only as far as its source is trusted.

use super::environment::escaped;
use super::probes::{Asked, Check, Health};
use super::stamp::Stamp;
use super::trust::Trust;
use super::users::{Surroundings, UserError};
use crate::core::fingerprint::fingerprint;
use crate::core::limits::Limits;
use crate::core::name::ServiceName;
use crate::core::policy::Policy;
use crate::core::schedule::Schedule;
use crate::core::words::{Overflow, Rung};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Where a definition came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file in a services directory.
    File(PathBuf),
    /// A Hermes profile, through the template; `None` is the built-in one.
    Profile { template: Option<PathBuf> },
    /// A record in the database, made by `register`.
    Record,
    /// Part of this program: the dashboard.
    BuiltIn,
    /// An s6 service directory.
    Slot,
}

/// Whom a service runs as. Looked up at each start: see [`super::users`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RunAs {
    /// The gateway user as it is by then.
    Gateway,
    /// A user name or a number, from a source that may name one.
    Named(String),
}

/// How a service tells that it is ready; the patience for that is part of the policy.
#[derive(Debug, Clone, PartialEq)]
pub enum Ready {
    /// It has no way to: it counts as ready when it runs.
    None,
    /// It writes a newline to this descriptor (3 or higher) and closes it: `notification-fd` of s6.
    Fd(i32),
    /// `gateway_state.json` of its profile says that this process is running.
    GatewayState,
    /// It says `READY=1` on its notify socket (sd_notify(3)).
    Notify,
    /// It writes a line that this matches.
    Log(Pattern),
    /// It answers.
    Probe(Asked),
}

/// A regular expression, made once.
#[derive(Debug, Clone)]
pub struct Pattern(pub Arc<regex_lite::Regex>);

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

/// An s6 service directory. Its `run` is the command, unless the operator's template takes its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Absolute; `run` and `finish` are executed in it.
    pub dir: PathBuf,
    /// Its name in the scan directory, by which s6 tools call it.
    pub name: String,
    /// Its `run` is what Hermes or we make of a profile, without a line of anybody's own.
    pub rendered: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPolicy {
    /// Bytes of `current` before it is rotated.
    pub max_size: u64,
    /// Archives kept.
    pub keep: u32,
    /// Also to the stdout and stderr of the container.
    pub to_container: bool,
    /// With its name in front of each line there; `None`: as the supervisor does for all.
    pub prefix: Option<bool>,
    pub overflow: Overflow,
}

impl Default for LogPolicy {
    fn default() -> Self {
        Self { max_size: 1_000_000, keep: 10, to_container: true, prefix: None, overflow: Overflow::Block }
    }
}

/// What the kernel does about its memory, besides bounding it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Pages of the same content are kept once (PR_SET_MEMORY_MERGE).
    pub ksm: bool,
    /// No transparent huge pages (PR_SET_THP_DISABLE).
    pub thp_disabled: bool,
    /// So long after a start, what is not in use is reclaimed, once.
    pub reclaim_after: Option<Duration>,
}

/// What the main process may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Security {
    /// prctl(2) PR_SET_NO_NEW_PRIVS before exec. `None`: only where the containment needs it.
    pub no_new_privs: Option<bool>,
    pub capabilities: Capabilities,
}

/// The capabilities that the main process can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capabilities {
    /// What we have ourselves.
    Inherited,
    /// Masks; bit n is capability n of capabilities(7). Those that no kernel has yet stand for "all that there are".
    Named {
        /// What stays in the bounding set, and is root's.
        bounding: u64,
        /// What another user is given; a part of `bounding`.
        ambient: u64,
    },
}

impl Security {
    /// The default of definitions.
    pub const CONFINED: Self =
        Self { no_new_privs: Some(true), capabilities: Capabilities::Named { bounding: 0, ambient: 0 } };
    /// Gateways, the main program: as the container gave it.
    pub const INHERITED: Self = Self { no_new_privs: None, capabilities: Capabilities::Inherited };
}

/// A file of variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvFile {
    /// Absolute.
    pub path: PathBuf,
    /// It may be missing.
    pub optional: bool,
}

/// Variables whose values are the content of files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Secrets {
    /// Absolute paths, by the names of the variables.
    pub files: BTreeMap<String, PathBuf>,
    /// Root has written the definition: they are read with our own rights, as the manager of systemd does
    /// (systemd.exec(5), LoadCredential). Otherwise with those of the service.
    pub ours: bool,
}

/// Programs that run beside the main process when something happens to the service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    /// argv, as `command`, of each. When they run and for how long is part of the policy.
    pub pre_start: Option<Vec<String>>,
    pub post_start: Option<Vec<String>>,
    pub pre_stop: Option<Vec<String>>,
    pub post_stop: Option<Vec<String>>,
    /// argv, as `command`: the kernel holds its memory at `memory_high`.
    pub memory_high: Option<Vec<String>>,
}

/// One service, ready to be supervised.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    pub name: ServiceName,
    pub origin: Origin,
    /// What it is, in the owner's words: one line.
    pub description: Option<String>,
    /// argv, at least one, none with a NUL, the first not empty. None at all: [`Self::is_unread`].
    pub command: Vec<String>,
    pub user: RunAs,
    /// Absolute once its variables are filled in. Without a word of the owner, [`Surroundings::working_dir`].
    pub working_dir: PathBuf,
    /// Added to the supervisor's environment; wins over the files.
    pub env: BTreeMap<String, String>,
    /// Of the supervisor's environment only what no program does without is handed on.
    pub env_clear: bool,
    /// Read at each start by [`super::environment::read_files`], a later one wins.
    pub env_files: Vec<EnvFile>,
    /// `None`: it has none.
    pub secrets: Option<Box<Secrets>>,
    /// `command`, `env` and `working_dir` have variables that are filled in at each start: [`super::environment::expanded`].
    pub has_variables: bool,
    /// `None`: inherited. At most 0o777.
    pub umask: Option<u32>,
    /// The want on first sight; afterwards the database decides.
    pub autostart: bool,
    pub policy: Arc<Policy>,
    /// `None`: it runs when it is wanted.
    pub schedule: Option<Arc<Schedule>>,
    /// Started after these, those of `requires` included. Sorted, without repetition, never the service itself.
    pub after: Vec<ServiceName>,
    /// Fails and stops with these.
    pub requires: Vec<ServiceName>,
    /// `None`: the highest rung that works.
    pub containment: Option<Rung>,
    pub ready: Ready,
    pub health: Option<Box<Health>>,
    pub slot: Option<Box<Slot>>,
    /// What the file that it comes from looked like then.
    pub stamp: Option<Stamp>,
    /// `None`: it has none.
    pub hooks: Option<Box<Hooks>>,
    pub log: LogPolicy,
    pub limits: Limits,
    pub memory: Memory,
    pub security: Security,
    /// [`fingerprint`] of everything that was written; the same on every machine and in every version.
    pub hash: u64,
}

/// What `register` stored: everything else about such a service has its default.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    pub name: &'a ServiceName,
    pub argv: &'a [String],
    pub env: &'a BTreeMap<String, String>,
    pub user: &'a str,
}

#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("'{0}' has no command: register it with '-- PROGRAM ARGUMENT...'")]
    NoCommand(ServiceName),
    #[error("'{0}' has an argument or variable with a NUL character: a program cannot be given one")]
    Nul(ServiceName),
    #[error("'{name}' has a variable called '{variable}': a name must not be empty nor contain '='")]
    Variable { name: ServiceName, variable: String },
    #[error("'{name}': {error}")]
    User { name: ServiceName, error: UserError },
    #[error("'{name}' would run as root, and its record may be somebody else's: {reason}")]
    Stranger { name: ServiceName, reason: String },
}

/// Whether a program can be given these variables.
///
/// # Errors
/// [`RecordError::Variable`] and [`RecordError::Nul`].
pub fn check_variables(name: &ServiceName, env: &BTreeMap<String, String>) -> Result<(), RecordError> {
    for (key, value) in env {
        if key.is_empty() || key.contains('=') {
            return Err(RecordError::Variable { name: name.clone(), variable: key.clone() });
        }
        if key.contains('\0') || value.contains('\0') {
            return Err(RecordError::Nul(name.clone()));
        }
    }
    Ok(())
}

impl Definition {
    /// Adds arguments to the command that mean themselves.
    pub fn add_arguments(&mut self, extra: &[String]) {
        let has_variables = self.has_variables;
        self.command
            .extend(extra.iter().map(|word| if has_variables { escaped(word) } else { word.clone() }));
    }

    /// Sets a variable to a value that means itself.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        let value = if self.has_variables { escaped(value) } else { value.to_owned() };
        self.env.insert(name.to_owned(), value);
    }

    /// It is given a socket on which it can say what sd_notify(3) says.
    pub fn has_notify_socket(&self) -> bool {
        self.ready == Ready::Notify || self.watchdog().is_some()
    }

    /// How long it may be silent.
    pub fn watchdog(&self) -> Option<Duration> {
        self.health.as_ref().filter(|health| health.check == Check::Watchdog).map(|health| health.timeout)
    }

    /// The definition that a record stands for. `trust` is that of the place the database lies in
    /// ([`super::trust::Place`]): the owner of the volume can put another database there.
    ///
    /// # Errors
    /// [`RecordError`]; nothing of a record is taken as right because it was once.
    pub fn from_record(
        record: Record<'_>,
        trust: &Trust,
        surroundings: &Surroundings,
    ) -> Result<Self, RecordError> {
        let name = record.name.clone();
        if record.argv.first().is_none_or(String::is_empty) {
            return Err(RecordError::NoCommand(name));
        }
        check_variables(&name, record.env)?;
        if record.argv.iter().any(|argument| argument.contains('\0')) {
            return Err(RecordError::Nul(name));
        }
        if let (Trust::Stranger(reason), 0) = (trust, surroundings.gateway.uid) {
            return Err(RecordError::Stranger { name, reason: reason.clone() });
        }
        let mut texts: Vec<&str> = record.argv.iter().map(String::as_str).collect();
        texts.extend(record.env.iter().flat_map(|(key, value)| [key.as_str(), value.as_str()]));
        let user = surroundings
            .may_run_as(record.user, trust)
            .map_err(|error| RecordError::User { name: name.clone(), error })?;
        texts.push(record.user);
        Ok(Self {
            command: record.argv.to_vec(),
            env: record.env.clone(),
            hash: fingerprint(texts),
            ..Self::unread(name, Origin::Record, user, surroundings)
        })
    }

    /// All that is known of a service that runs and whose definition cannot be read now: it can be stopped, and not be started.
    pub fn unread(name: ServiceName, origin: Origin, user: RunAs, surroundings: &Surroundings) -> Self {
        Self {
            name,
            origin,
            description: None,
            command: Vec::new(),
            working_dir: surroundings.working_dir(&user),
            user,
            env: BTreeMap::new(),
            env_clear: false,
            env_files: Vec::new(),
            secrets: None,
            has_variables: false,
            umask: None,
            autostart: false,
            policy: Arc::default(),
            schedule: None,
            after: Vec::new(),
            requires: Vec::new(),
            containment: None,
            ready: Ready::None,
            health: None,
            slot: None,
            stamp: None,
            hooks: None,
            log: LogPolicy::default(),
            limits: Limits::default(),
            memory: Memory::default(),
            security: Security::CONFINED,
            hash: 0,
        }
    }

    /// As [`Self::unread`] makes it.
    pub fn is_unread(&self) -> bool {
        self.command.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::users::nameless;

    #[test]
    fn a_record_names_another_user_only_where_nobody_can_plant_one() {
        let surroundings =
            Surroundings { home: PathBuf::from("/opt/data"), gateway: nameless(10000, 10000), own_uid: 0 };
        let name = ServiceName::new("web").unwrap();
        let argv = ["x".to_owned(), "-v".to_owned()];
        let env = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        let make = |user: &str, argv: &[String], env: &BTreeMap<String, String>, trust: &Trust| {
            let record = Record { name: &name, argv, env, user };
            Definition::from_record(record, trust, &surroundings).map_err(|error| error.to_string())
        };
        let home = Trust::Untrusted("the state lies below --home".to_owned());
        assert_eq!(make("10000", &argv, &env, &home).unwrap().user, RunAs::Gateway);
        assert_eq!(make("root", &argv, &env, &Trust::Trusted).unwrap().user, RunAs::Named("root".to_owned()));
        let dir = |user: &str| make(user, &argv, &env, &Trust::Trusted).unwrap().working_dir;
        assert_eq!(dir("10000"), PathBuf::from("/opt/data"));
        assert_eq!(dir("root"), PathBuf::from("/"), "whose files are in the home is not root's to load");
        assert!(
            make("root", &argv, &env, &home).unwrap_err().starts_with("'web': only a root-owned definition")
        );
        let mut hashes = vec![make("10000", &argv, &env, &home).unwrap().hash];
        hashes.push(make("10000", &argv[..1], &env, &home).unwrap().hash);
        hashes.push(make("10000", &argv, &BTreeMap::new(), &home).unwrap().hash);
        hashes.dedup();
        assert_eq!(hashes.len(), 3);
        for bad in [vec![], vec![String::new()], vec!["a\0b".to_owned()]] {
            assert!(make("10000", &bad, &env, &home).is_err(), "{bad:?}");
        }
        for bad in ["", "A=B", "A\0"] {
            let env = BTreeMap::from([(bad.to_owned(), String::new())]);
            assert!(make("10000", &argv, &env, &home).is_err(), "{bad:?}");
        }
    }
}
