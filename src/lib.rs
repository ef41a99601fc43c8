//! hermes-sup: a process supervisor and container init.
//!
//! * [`core`] decides about lives: one state machine a service, no clock, file, descriptor or kernel crate.
//! * [`daemon`] is one loop on one thread: one queue of news in, the core and the topics decide, one way out. It never waits for a
//!   disk, a reader or a client.
//! * [`containment`] holds each service's tree from before its first instruction until it is proved empty.
//! * [`store`] keeps wants, records and history; [`log`] carries what services write; both have threads of their own,
//!   which are the only ones that may wait.
//! * [`definition`] turns files into checked definitions and judges how far a file may be trusted; [`hermes`] knows what is
//!   particular to the Hermes image.
//! * [`probe`] asks a service over the network whether it does its work.
//! * [`control`] is the socket's protocol, both ends; [`cli`] is the command line; [`monitor`] is what probes and scrapers ask.
//! * [`import`] makes definitions of what other supervisors were told.
//! * [`s6`] reads and writes what lies on disk where s6 would look for it, and is this binary under the names of the s6
//!   tools.
//! * [`sys`] is the kernel's edge: all unsafe code, one topic a file.
//!
//! `src/README.md` has the picture, the glossary, the crates and recipes for common changes.
//! Which room may use which is checked by `tests/architecture.rs`.

pub mod cli;
pub mod containment;
pub mod control;
pub mod core;
pub mod daemon;
pub mod definition;
pub mod hermes;
pub mod import;
pub mod log;
pub mod monitor;
pub mod probe;
pub mod s6;
pub mod store;
pub mod sys;
