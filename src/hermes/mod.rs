//! What is particular to the Hermes image: its profiles and their files, the routing of its CMD, its boot log.
//!
//! Everything below the home directory is touched with the gateway user's file credentials and without following
//! links. Functions that take a `Beneath` block on the file system and belong in a helper thread; `command`,
//! `routing` and `redirect` are pure.

pub mod boot_log;
pub mod command;
pub mod errand;
pub mod gateway_socket;
pub mod planned_stop;
pub mod presence;
pub mod profile_watch;
pub mod profiles;
pub mod reconcile;
pub mod redirect;
pub mod routing;
pub mod state_json;
pub mod state_watch;
pub mod topology;
