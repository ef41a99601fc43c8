//! What the stories are told with: worlds (containers in miniature), supervisors in them, `ctl`, and the oracles.
//!
//! Nothing here waits for time to pass: every wait is on a descriptor, on inotify or on the end of a process, with a
//! deadline at which the test fails and says what it was waiting for.

pub mod ctl;
pub mod dice;
pub mod hostile;
pub mod launch;
pub mod layout;
pub mod process;
pub mod setup;
mod traces;
pub mod wait;
pub mod world;

pub use ctl::Answer;
pub use dice::Dice;
pub use launch::{End, Launched};
pub use setup::{Place, Rung, Setup};
pub use world::{Supervisor, World};

/// Writes the given tests once for each rung and for each place of the supervisor.
#[macro_export]
macro_rules! on_every_rung {
    ($($story:ident),* $(,)?) => { $(
        mod $story {
            use $crate::harness::{Place, Rung, Setup};
            #[test]
            fn cgroup_as_pid_1() { super::$story(Setup::new(Rung::Cgroup, Place::Pid1)); }
            #[test]
            fn cgroup_as_a_child() { super::$story(Setup::new(Rung::Cgroup, Place::Child)); }
            #[test]
            fn cgroup_private_as_pid_1() { super::$story(Setup::new(Rung::CgroupPrivate, Place::Pid1)); }
            #[test]
            fn cgroup_private_as_a_child() { super::$story(Setup::new(Rung::CgroupPrivate, Place::Child)); }
            #[test]
            fn pidns_as_pid_1() { super::$story(Setup::new(Rung::Pidns, Place::Pid1)); }
            #[test]
            fn pidns_as_a_child() { super::$story(Setup::new(Rung::Pidns, Place::Child)); }
            #[test]
            fn keeper_as_pid_1() { super::$story(Setup::new(Rung::Keeper, Place::Pid1)); }
            #[test]
            fn keeper_as_a_child() { super::$story(Setup::new(Rung::Keeper, Place::Child)); }
            #[test]
            fn keeper_same_uid_as_pid_1() { super::$story(Setup::new(Rung::KeeperSameUid, Place::Pid1)); }
            #[test]
            fn keeper_same_uid_as_a_child() { super::$story(Setup::new(Rung::KeeperSameUid, Place::Child)); }
        }
    )* };
}

/// Writes the given tests once for each rung, for supervisors that are not PID 1 (only those can be killed).
#[macro_export]
macro_rules! on_every_rung_as_a_child {
    ($($story:ident),* $(,)?) => { $(
        mod $story {
            use $crate::harness::{Place, Rung, Setup};
            #[test]
            fn cgroup() { super::$story(Setup::new(Rung::Cgroup, Place::Child)); }
            #[test]
            fn cgroup_private() { super::$story(Setup::new(Rung::CgroupPrivate, Place::Child)); }
            #[test]
            fn pidns() { super::$story(Setup::new(Rung::Pidns, Place::Child)); }
            #[test]
            fn keeper() { super::$story(Setup::new(Rung::Keeper, Place::Child)); }
            #[test]
            fn keeper_same_uid() { super::$story(Setup::new(Rung::KeeperSameUid, Place::Child)); }
        }
    )* };
}
