//! What probes and scrapers ask: whether all is well (`verdict`).
//!
//! All of it is made of the status that any client gets: nothing here knows how it came about.

pub mod verdict;
