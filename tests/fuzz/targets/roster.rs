//! What an earlier supervisor wrote down of the lives that may be taken over: whatever is read can be written again.

use super::files::Place;
use hermes_sup::containment::AdoptionRecords;

pub fn run(document: &[u8]) {
    let place = Place::new();
    let dir = place.path();
    std::fs::write(dir.join("roster"), document).expect("the document");
    let left = AdoptionRecords::left_in(dir);
    let mut next = AdoptionRecords::create(dir).expect("a file of ours");
    for (slot, record) in left.iter().enumerate() {
        next.write(slot as u32, Some(record)).expect("a file of ours");
    }
    next.show().expect("a file of ours");
    assert_eq!(AdoptionRecords::left_in(dir), left, "what a successor of the successor finds");
}
