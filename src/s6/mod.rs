//! The s6 surface: what lies on disk where s6 and s6-overlay would look, read and written as they do.
//!
//! Nothing here supervises. Whatever reads below a directory that the gateway user can write follows no link, waits
//! for no FIFO and is bounded in size and number; everything here blocks on the file system and belongs in a helper
//! thread or before the loop.

pub mod applets;
pub mod bundle;
pub mod container_environment;
pub mod materialise;
pub mod scan;
pub mod script;
pub mod slot;

/// The scan directory of the Hermes image.
pub const SCAN_DIRECTORY: &str = "/run/service";
