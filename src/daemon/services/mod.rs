//! The services as the daemon knows them: what defines each, and what a start of it needs.

pub(in crate::daemon) mod beside;
pub(in crate::daemon) mod define;
pub(in crate::daemon) mod gateways;
pub(in crate::daemon) mod launch;
pub(in crate::daemon) mod launch_error;
mod memory;
pub(in crate::daemon) mod mirror;
pub(in crate::daemon) mod privileges;
pub(in crate::daemon) mod process_limits;
pub(in crate::daemon) mod starts;

use crate::core::fleet::ServiceId;
use crate::core::name::ServiceName;
use crate::core::words::State;
use crate::daemon::show::first_starts::First;
use crate::definition::Definition;
use crate::definition::resolved::{LogPolicy, Origin, Ready};
use crate::definition::template::Profile;
use crate::hermes::profiles;
use crate::store::{MirroredRow, Program, RecordRow};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// One service, beside its state machine.
#[derive(Debug)]
pub struct Service {
    pub name: ServiceName,
    pub definition: Definition,
    /// It was registered, with this record.
    pub record: Option<Box<RecordRow>>,
    pub gone: Gone,
    /// Its log is open, with this policy.
    pub logged: Option<(LogPolicy, u32)>,
    /// What `gateway run` as the CMD had more than the template.
    pub extra_args: Vec<String>,
    /// What the gateway's own state file is known to say of its want. `None`: it must be written, or just is.
    pub mirrored: Option<MirroredRow>,
    /// It could not be written; said once.
    pub unmirrored: bool,
    /// The definition that its present life was started with, by its hash. `None`: it is not known to be another one than
    /// `definition`.
    pub in_force: Option<u64>,
    /// What had become of its definition's file when it was last looked at, below home.
    pub edited: Option<&'static str>,
    /// What our own log last said of it.
    pub told: Option<Told>,
    pub first_start: First,
}

/// Whether its definition is gone: then it is dropped once it is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    No,
    Yes,
    /// It has stopped. It goes when its rows are out of the database and its log is closed.
    Dropped,
    /// By now there is a definition again, which is read when it has gone.
    Returns,
}

impl Gone {
    /// Nothing more is to be written of it.
    pub fn is_off_record(self) -> bool {
        match self {
            Self::No | Self::Yes => false,
            Self::Dropped | Self::Returns => true,
        }
    }
}

/// A line about a service's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    pub state: State,
    pub reason: String,
    pub pid: Option<i32>,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason.as_str() {
            "" => write!(f, "{}", self.state),
            reason => write!(f, "{}: {reason}", self.state),
        }
    }
}

impl Service {
    pub fn new(definition: Definition, record: Option<RecordRow>) -> Self {
        Self {
            name: definition.name.clone(),
            definition,
            record: record.map(Box::new),
            gone: Gone::No,
            logged: None,
            extra_args: Vec::new(),
            mirrored: None,
            unmirrored: false,
            in_force: None,
            edited: None,
            told: None,
            first_start: First::default(),
        }
    }

    /// Before it has reported, no other supervisor can go on with it: it would find nobody at the other end of its pipe, and end of
    /// that.
    pub fn reports_by_pipe(&self) -> bool {
        matches!(self.definition.ready, Ready::Fd(_))
    }

    /// As [`gateway_directory`].
    pub fn gateway_directory(&self, home: &Path) -> Option<PathBuf> {
        gateway_directory(&self.definition, self.record.as_deref(), home)
    }

    /// The directory of the gateway whose state file tells this service's want. Only the service that is named like its
    /// profile tells it: of two services on one profile each would take the other's mirror for somebody's wish.
    pub fn mirror_directory(&self, home: &Path) -> Option<PathBuf> {
        mirror_directory(&self.definition, self.record.as_deref(), home)
    }
}

/// The home of the Hermes gateway that the service is, relative to home. `None`: it is no gateway, or lies elsewhere.
pub fn gateway_directory(
    definition: &Definition,
    record: Option<&RecordRow>,
    home: &Path,
) -> Option<PathBuf> {
    match &definition.origin {
        Origin::Profile { .. } => match record.map(|record| &record.program) {
            Some(Program::Profile(directory)) => registered_directory(directory, home),
            Some(Program::Argv(_)) | None => Some(profiles::directory_of(&definition.name)),
        },
        // A slot that is a gateway has its profile's origin.
        Origin::Slot | Origin::File(_) | Origin::Record | Origin::BuiltIn => None,
    }
}

/// The same of a gateway that was registered with this directory.
pub fn registered_directory(directory: &str, home: &Path) -> Option<PathBuf> {
    match Profile::in_directory(Path::new(directory), home)? {
        Profile::Default => Some(PathBuf::new()),
        Profile::Named(name) => Some(profiles::directory_of(&name)),
        Profile::Directory(elsewhere) => Path::new(&elsewhere).strip_prefix(home).ok().map(Path::to_owned),
    }
}

/// As [`Service::mirror_directory`].
pub fn mirror_directory(definition: &Definition, record: Option<&RecordRow>, home: &Path) -> Option<PathBuf> {
    gateway_directory(definition, record, home)
        .filter(|directory| *directory == profiles::directory_of(&definition.name))
}

/// All of them, by number. Boxed: a node of the tree keeps up to half of its places free.
pub type Services = BTreeMap<ServiceId, Box<Service>>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::{Surroundings, Template};
    use crate::sys::users::nameless;

    #[test]
    fn a_gateway_is_at_home_in_its_profile() {
        let home = Path::new("/opt/data");
        let around = Surroundings { home: home.to_owned(), gateway: nameless(10000, 10000), own_uid: 0 };
        let record = |directory: &str| RecordRow {
            registrant_uid: 0,
            user: "hermes".to_owned(),
            program: Program::Profile(directory.to_owned()),
            env: BTreeMap::new(),
            registered_at_ms: 0,
        };
        for (name, profile, directory, mirrors) in [
            ("default", None, Some(""), true),
            ("coder", None, Some("profiles/coder"), true),
            ("coder", Some("/opt/data/profiles/coder"), Some("profiles/coder"), true),
            ("second", Some("/opt/data/profiles/coder"), Some("profiles/coder"), false),
            ("root", Some("/opt/data"), Some(""), false),
            ("root", Some("/opt/data/profiles/default"), Some(""), false),
            ("guest", Some("/opt/data/guest"), Some("guest"), false),
            ("guest", Some("/srv/guest"), None, false),
        ] {
            let name = ServiceName::new(name).unwrap();
            let row = profile.map(record);
            let made = Template::built_in().gateway(&name, &Profile::named(&name), &around).unwrap();
            let found = gateway_directory(&made, row.as_ref(), home);
            assert_eq!(found.as_deref(), directory.map(Path::new), "{name} {profile:?}");
            let service = Service::new(made, row);
            assert_eq!(service.mirror_directory(home), found.filter(|_| mirrors), "{name} {profile:?}");
        }
        let dashboard = crate::definition::dashboard::dashboard(|_| None, &around).unwrap();
        assert_eq!(gateway_directory(&dashboard, None, home), None);
    }
}
