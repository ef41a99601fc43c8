//! What probes and scrapers ask: whether all is well (`verdict`), all figures (`prometheus`), and both over HTTP (`endpoint`); and
//! what came of a boot (`chart`).
//!
//! All of it is made of the status that any client gets: nothing here knows how it came about.

pub mod chart;
pub mod endpoint;
pub mod prometheus;
pub mod verdict;
