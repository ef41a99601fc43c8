//! The host tier: the real binary in containers in miniature, without Docker. Run as root.

mod harness;
mod adversaries;
