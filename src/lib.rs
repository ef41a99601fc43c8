//! hermes-sup: a process supervisor and container init.
pub mod core;
pub mod sys;
pub mod containment;
pub mod store;
pub mod log;
pub mod definition;
pub mod control;
pub mod hermes;
pub mod daemon;
pub mod cli;
