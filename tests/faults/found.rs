//! Runs that failed once, each with what was wrong then. They come first in every campaign.

pub const FOUND: &[&str] = &[];
