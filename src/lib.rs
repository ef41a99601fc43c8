//! hermes-sup: a process supervisor and container init.
pub mod cli;
pub mod containment;
pub mod control;
pub mod core;
pub mod daemon;
pub mod definition;
pub mod hermes;
pub mod log;
pub mod store;
pub mod sys;
