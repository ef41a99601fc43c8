//! The rungs `cgroup` and `cgroup-private`: a directory of cgroup v2 for each incarnation, on the mount that everybody
//! sees or on one that only we do (`private.rs`).
//!
//! `<own cgroup>/hermes-sup.<instance>/<name>.<n>/main`, and `scope-<unit>` beside `main`. The directory is fresh for each incarnation: nothing that a
//! former life left (a kill sequence number, `frozen`, counters) can touch the next. The end is `populated 0` in
//! `cgroup.events`, never a list of processes.
//!
//! Direct, by directory descriptor: mkdir, rmdir, `cgroup.procs`, `cgroup.kill`, `cgroup.events`, `subtree_control`,
//! and limits, because errors decide there and cgroups-rs drops them, picks v1 on a hybrid host and has no events.
//! Through cgroups-rs: CPU time (`stats.rs`).

pub(super) mod cage;
pub(super) mod discover;
pub(super) mod leaf;
pub(super) mod limits;
pub(super) mod private;
pub(super) mod scope;
pub(super) mod stats;
pub(super) mod tree;
pub(super) mod watch;
