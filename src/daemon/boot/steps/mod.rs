//! The steps of a start, each a value that the next one is made of: prepared → opened → contained → planned → running. An
//! error of any of them refuses to start, with one line.

pub(super) mod contained;
pub(super) mod opened;
pub(in crate::daemon) mod planned;
pub(super) mod prepared;
pub(in crate::daemon) mod running;
pub(in crate::daemon) mod start_error;
