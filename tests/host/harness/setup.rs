//! What a world is to be like: the rights a container of some kind would have, and the supervisor's options.

use std::path::PathBuf;

/// The user of the volume and of the services, as in the Hermes image.
pub const HERMES: u32 = 10000;
pub const ALICE: u32 = 10001;

/// The containment that the world allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rung {
    /// Root, Docker's capabilities and filter, cgroup2 writable (`--security-opt writable-cgroups`).
    Cgroup,
    /// Root, Docker's capabilities without a filter, cgroup2 read-only: Kubernetes without a seccomp profile.
    CgroupPrivate,
    /// Root, Docker's capabilities and filter, cgroup2 read-only: a plain `docker run`.
    Keeper,
    /// The same with `--user 10000:10000`.
    KeeperSameUid,
}

impl Rung {
    /// The kernel holds trees in cgroups.
    pub fn is_cgroup(self) -> bool {
        matches!(self, Self::Cgroup | Self::CgroupPrivate)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::CgroupPrivate => "cgroup-private",
            Self::Keeper => "keeper",
            Self::KeeperSameUid => "keeper-same-uid",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Pid1,
    /// Below a PID 1 that only reaps (`docker run --init`).
    Child,
}

/// What the world is to be like.
#[derive(Debug, Clone)]
pub struct Setup {
    pub rung: Rung,
    pub place: Place,
    /// Further options of `adversary world`, such as mounts.
    pub world: Vec<String>,
    /// Further options of the supervisor.
    pub supervisor: Vec<String>,
    /// The main program; empty for none.
    pub main_program: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// A path outside for the supervisor's stdout, instead of a file of the world.
    pub stdout: Option<PathBuf>,
    /// `run`, whatever stands for PID 1 and main programs elsewhere.
    pub verb: Option<&'static str>,
    /// The user's own launcher options for the supervisor, such as an inherited disposition.
    pub launcher: Vec<String>,
    /// What the world sees of cgroup2 when the rung does not say it: rw, ro, absent, hybrid
    /// (v2 under …/unified) or subtree (its own directory of the machine's tree).
    pub cgroup_mount: Option<&'static str>,
    /// All capabilities and no filter, as on a host.
    pub bare: bool,
    /// Name of a cgroup of the world that the next supervisor is put into; empty for the world's own.
    pub cgroup: String,
}

impl Setup {
    pub fn new(rung: Rung, place: Place) -> Self {
        Self {
            rung,
            place,
            world: Vec::new(),
            supervisor: Vec::new(),
            main_program: Vec::new(),
            environment: Vec::new(),
            stdout: None,
            verb: None,
            launcher: Vec::new(),
            cgroup_mount: None,
            bare: false,
            cgroup: String::new(),
        }
    }

    /// The common case for stories where neither matters.
    pub fn plain() -> Self {
        Self::new(Rung::Cgroup, Place::Child)
    }

    pub fn world_option(mut self, words: &[&str]) -> Self {
        self.world.extend(words.iter().map(|word| (*word).to_owned()));
        self
    }

    pub fn main_program(mut self, words: &[&str]) -> Self {
        self.main_program = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    pub fn supervisor_option(mut self, words: &[&str]) -> Self {
        self.supervisor.extend(words.iter().map(|word| (*word).to_owned()));
        self
    }

    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.environment.push((key.into(), value.into()));
        self
    }
}
