//! The rungs of the ladder by name.

use std::fmt;

/// The rungs, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
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

    /// It changes what a service sees, so nobody gets it without asking for it.
    pub fn on_request(self) -> bool {
        match self {
            Self::Pidns => true,
            Self::Cgroup | Self::CgroupPrivate | Self::Keeper | Self::KeeperSameUid => false,
        }
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
