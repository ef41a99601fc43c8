//! The kernel's edge: all unsafe code and all raw libc, one topic a file; safe functions out.

pub mod beneath;
pub mod bestow;
pub mod credentials;
pub mod datagram;
pub mod kernel_text;
pub mod localtime;
#[cfg(all(target_arch = "x86_64", any(test, target_env = "musl")))]
mod memcpy;
pub mod mount;
pub mod packet;
pub mod peer;
pub mod pidfd;
pub mod posture;
pub mod reap;
#[cfg(test)]
pub mod reexec;
pub mod replace;
pub mod samepage;
pub mod signal;
pub mod spawn;
pub mod time;
pub mod users;
