//! The command line: what was typed (`args`), what it asks of a supervisor (`ctl`), and how the answer looks.
//!
//! Nothing here writes but through [`render::Console`], and nothing reads the environment but through the function
//! that is handed in: so all of it is tested without a daemon, a terminal or another process.

pub mod args;
pub mod audit;
mod candidates;
pub mod check;
pub mod ctl;
pub mod doctor;
mod events;
pub mod generate;
pub mod healthcheck;
pub mod logs;
pub mod manual;
mod pattern;
mod plain;
pub mod render;
pub mod settings;
pub mod status;
pub mod top;
pub mod tree;
