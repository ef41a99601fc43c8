//! From one supervisor to the next: `record.rs` is what a supervisor writes down of its lives while it runs, `adopt.rs` how its
//! successor takes them over, `predecessor.rs` how the successor ends what it does not take over.

pub(super) mod adopt;
pub(super) mod predecessor;
pub(super) mod record;
