//! The state file of a gateway, and what lies beside it in its profile.

use super::definition::surroundings;
use super::files::Place;
use hermes_sup::core::name::ServiceName;
use hermes_sup::core::words::Want;
use hermes_sup::hermes::{presence, profiles, reconcile, state_json, topology};
use hermes_sup::sys::beneath::Beneath;
use hermes_sup::sys::credentials::Credentials;
use serde_json::{Map, Value};
use std::path::Path;

pub fn run(document: &[u8]) {
    let place = Place::new();
    let dir = place.lay("home", document, state_json::FILE);
    let home = Beneath::open(&dir).expect("a directory of ours");
    let own = Credentials::own();
    let root = Path::new("");
    let web = ServiceName::new("web").expect("a name");
    for found in profiles::entries(&home, &own).into_iter().flatten().flat_map(|(_, names)| names) {
        let _ = profiles::exists(
            &home,
            &own,
            &ServiceName::of_slot(&found.to_string_lossy()).unwrap_or(web.clone()),
        );
    }
    if let Ok((Some(word), _)) = topology::read(&home, &own, std::slice::from_ref(&web)) {
        let _ = topology::news(None, &word);
    }
    let _ = topology::wrote_state(&home, &own, root, 7);
    let _ = presence::look(&home, &own, root);
    let _ = reconcile::prior_exit(&home, &own, root);
    let _ = state_json::says_running(&home, &own, root, 7);
    let _ = surroundings(&dir);
    let Ok(intent) = state_json::read(&home, &own, root) else { return };
    let keys = || -> Map<String, Value> {
        let bytes = std::fs::read(dir.join(state_json::FILE)).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    };
    let before = keys();
    for want in [Want::Up, Want::Down] {
        let _ = state_json::outside_wish(want, None, &intent);
        let Ok(mirrored) = state_json::mirror(&home, &own, root, want, 1_700_000_000) else { return };
        let read = state_json::read(&home, &own, root).expect("what we wrote");
        assert_eq!(read.wants_up(), want == Want::Up, "what is wanted is what is read");
        assert_eq!(
            state_json::outside_wish(want, Some(&mirrored), &read),
            None,
            "our own word is nobody's wish"
        );
        let after = keys();
        for (key, value) in &before {
            assert!(
                after.get(key) == Some(value) || ["desired_state", "updated_at"].contains(&key.as_str()),
                "{key} was lost or changed"
            );
        }
    }
    state_json::forget_last_life(&home, &own, root).expect("a file of ours");
    assert!(!keys().contains_key("pid"), "the word of an earlier life");
}
