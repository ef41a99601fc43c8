//! What the owner of a service wrote about it: read, checked, and turned into a `Definition` that everyone else uses.
//!
//! The way of a file: `trust` opens it and says how far it may be believed, `load` gathers the files of the services
//! directories, `parse` turns the text of one into a `Definition` (through `raw`, the table reader, and `values`), and
//! whatever is wrong becomes a `diagnose::Diagnostic`. `template` makes gateways from Hermes profiles, and `dashboard` the Hermes dashboard,
//! by the same path.
//!
//! Invariants: a `Definition` that exists is complete and in range; nothing below the home directory makes one that
//! runs as anybody but the gateway user. Everything here blocks on files: it belongs in a helper thread, not in the loop.

pub mod dashboard;
pub mod diagnose;
pub mod environment;
mod hooks;
pub mod limits;
pub mod load;
mod memory;
mod parse;
mod parse_probes;
mod presence;
pub mod probes;
pub mod programs;
mod raw;
pub mod reference;
pub mod resolved;
mod schedule;
mod security;
pub mod stamp;
pub mod template;
pub mod trust;
pub mod users;
mod values;

#[cfg(test)]
mod parse_tests;

pub use diagnose::Diagnostic;
pub use load::{Loaded, load};
pub use resolved::Definition;
pub use security::is_capability;
pub use template::Template;
pub use users::Surroundings;
