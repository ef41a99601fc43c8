//! The pure core: what a service is, what it should do next, and why. No clock, descriptor, path or kernel crate.

pub mod clock;
pub mod effect;
pub mod event;
pub mod exit;
pub mod farewell;
pub mod fights;
pub mod fingerprint;
pub mod fleet;
pub mod gateway;
pub mod limits;
pub mod line;
#[cfg(test)]
pub(crate) mod model;
pub mod name;
pub mod near;
pub mod notify;
pub mod policy;
pub mod schedule;
pub mod signal;
#[cfg(any(test, debug_assertions))]
pub mod trace;
pub mod unit;
pub mod words;
