//! The host tier: the real binary in containers in miniature, without Docker. Run as root.

mod adversaries;
mod applets;
mod audit;
mod boot;
mod freeze;
mod gateways;
mod harness;
mod hygiene;
mod idle;
mod input;
mod killed_supervisor;
mod limits;
mod logs;
mod main_program;
mod reasons;
mod restarts;
mod rungs;
mod scopes;
mod signals;
mod state;
mod surface;
mod surface_trust;
mod trees;
mod trust;
mod upgrade;
mod verbs;
