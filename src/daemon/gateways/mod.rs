//! What is particular to the gateways of Hermes: which of them has a process, and what becomes of a profile that moves or goes.

pub(in crate::daemon) mod fights;
pub(in crate::daemon) mod profile_life;
pub(in crate::daemon) mod topology;
