//! The rungs `cgroup` and `cgroup-private`: a directory of cgroup v2 for each incarnation, on the mount that everybody
//! sees or on one that only we do (`private.rs`).
//!
//! `<own cgroup>/hermes-sup.<instance>/<name>.<n>`, and `scope-<unit>` in it. Where scopes are bounded, the processes of the life
//! are in `main` beside them. The directory is fresh for each incarnation: nothing that a former life left (a kill sequence
//! number, `frozen`, counters) can touch the next. The end is `populated 0` in `cgroup.events`, never a list of processes.
//!
//! `discover.rs` finds our own cgroup, `probe.rs` tries the rungs, `remains.rs` removes what tries have left that were killed,
//! `mechanism.rs` begins lives, `handle.rs` is one life and `scope.rs` a scope in it. The kernel's files are below: `tree.rs` the
//! directory of the instance, `leaf.rs` that of a life, `limits.rs`, `reclaim.rs`, `stats.rs`, `watch.rs`.

pub(super) mod discover;
mod handle;
pub(super) mod leaf;
pub(super) mod limits;
pub(super) mod mechanism;
pub(super) mod private;
pub(super) mod probe;
pub(super) mod reclaim;
mod remains;
mod scope;
mod stats;
mod tree;
pub(super) mod watch;
