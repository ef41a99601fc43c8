//! The control socket: what a client may ask of a running supervisor, how it is put into bytes, and who may ask it.
//!
//! `protocol` (types) and `codec` (bytes) do no I/O and are shared by both ends; `server` is driven by the daemon's
//! loop, `client` blocks and belongs to the command line. `permission` and `naming` are pure and are asked by the
//! daemon. Nothing here knows what a service does.

pub mod client;
pub mod codec;
pub mod naming;
pub mod permission;
pub mod protocol;
pub mod server;
