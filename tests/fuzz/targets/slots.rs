//! A scan directory of s6: its slots, their scripts, the container's environment beside them, and `import` of the same.

use super::definition::surroundings;
use super::files::Place;
use super::{import, one_line};
use hermes_sup::s6::scan::{MOST_SLOTS, ScanDir};
use hermes_sup::s6::{container_environment, script, slot};
use hermes_sup::sys::credentials::Credentials;
use std::collections::BTreeSet;
use std::ffi::OsString;

pub fn run(document: &[u8]) {
    let place = Place::of_root();
    let dir = place.lay("scan", document, "web");
    let around = surroundings(&place.path().join("home"));
    let own = Credentials::own();
    if let Ok(open) = ScanDir::open(&dir, &around) {
        let scan = open.scan(&BTreeSet::new()).expect("a directory of ours");
        assert!(scan.slots.len() <= MOST_SLOTS);
        scan.warnings.iter().for_each(|warning| one_line(warning));
        for (name, found) in &scan.slots {
            assert!(slot::slot_name(OsString::from(name).as_ref()).is_ok(), "{name:?} is no name of a slot");
            let again = open.slot(&OsString::from(name)).expect("the same slot");
            assert_eq!(&again.slot, found);
            let path = dir.join(name);
            assert!(!script::command(&path, "run", &own).is_empty());
            let _ = (script::with_its_own_takeover(&path, &own, true), script::is_rendered(&path, &own));
        }
    }
    for (name, value) in container_environment::load(&dir.join("env")).into_iter().flatten() {
        let bytes = [name.as_encoded_bytes(), value.as_encoded_bytes()];
        assert!(bytes.iter().all(|bytes| !bytes.contains(&0)), "no program can be given {name:?}");
    }
    import::checked(&place, &dir);
}
