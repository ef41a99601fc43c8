//! What is particular to single rungs of the ladder.

pub use crate::core::words::Rung;

impl Rung {
    /// It changes what a service sees, so nobody gets it without asking for it.
    pub fn on_request(self) -> bool {
        match self {
            Self::Pidns => true,
            Self::Cgroup | Self::CgroupPrivate | Self::Keeper | Self::KeeperSameUid => false,
        }
    }
}
