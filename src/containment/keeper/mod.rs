//! The rungs `keeper`, `keeper-same-uid` and `pidns`: one small process for each incarnation, which is the parent of its
//! tree. On `pidns` it is also the first process of a PID namespace.
//!
//! `process.rs` is that process, `wire.rs` what is said between it and the supervisor, `ward.rs` the supervisor's
//! side, `lost.rs` what happens when a keeper dies first, `tags.rs` the groups by which a tree is known.

pub(super) mod lost;
mod process;
pub(super) mod tags;
pub(super) mod ward;
pub(super) mod wire;

pub use process::{ARGUMENT, main, serve};
pub(super) use process::{MOUNT, REHEARSE, SOCKET, TRY_PARENT};
