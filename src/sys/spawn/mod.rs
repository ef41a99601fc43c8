//! Making processes: everything from a finished plan to the exec of the program.
//!
//! `plan.rs` is what the caller decides, ready before the clone. `clone.rs` makes the child and hears how it went. `child.rs`
//! is all that the child does between clone and exec. `fork_server.rs` is a small process that makes children for us.
//! `shield.rs` and `landlock.rs` are two steps of the child; `syscall.rs` is how it asks the kernel.
//!
//! A child can come about in three ways, and keepers are forks of the fork server. What a start costs is mostly the copy of page tables, so they differ in who copies what:
//!
//! | way | memory until the exec | used when | price |
//! |---|---|---|---|
//! | clone of the supervisor | a copy of the supervisor's | there is no fork server, or it cannot make this child | page tables of the largest process; each copied page faults on both sides |
//! | clone of the fork server | a copy of the fork server's, which is small | the child moves into its cgroup, or there is none, or the next way is ruled out | one more process; a round trip over a socket |
//! | clone of the fork server or of a keeper with `CLONE_VM` | that one's own, on a separate stack ([`vfork_stack`]) | the child is born in its cgroup or made by a keeper, has memory enough for its exec, and sets nothing that is of the memory (`oom_score_adj`, KSM, THP) | the rules of `vfork_stack.rs` |
//!
//! No way waits for the child: each reports by a pipe that the exec closes. What may wait is the supervisor's question to a fork
//! server that was stopped: at most one second, then the server is killed and the supervisor makes the child itself.

pub mod child;
pub mod clone;
pub mod fork_server;
mod landlock;
pub mod plan;
mod shield;
mod syscall;
pub mod vfork_stack;
