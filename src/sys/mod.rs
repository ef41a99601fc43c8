//! The kernel's edge: all unsafe code and all raw libc, one topic a file; safe functions out.

pub mod beneath;
mod berth;
pub mod bestow;
pub mod child;
pub mod clone;
pub mod credentials;
pub mod fork_server;
pub mod kernel_text;
mod landlock;
pub mod localtime;
pub mod mount;
pub mod packet;
pub mod peer;
pub mod pidfd;
pub mod plan;
pub mod posture;
mod raw;
pub mod reap;
#[cfg(test)]
pub mod reexec;
pub mod replace;
mod shield;
pub mod signal;
pub mod users;
