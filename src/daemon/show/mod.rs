//! What callers and the log are shown, from what everybody knows. Nothing here changes anything.

pub(in crate::daemon) mod audit;
pub(in crate::daemon) mod first_starts;
pub(in crate::daemon) mod report;
pub(in crate::daemon) mod status;
pub(in crate::daemon) mod trees;
