//! `import`: whatever it makes of what another supervisor was told is a definition that is loaded without complaint.

use super::definition::surroundings;
use super::files::Place;
use hermes_sup::core::name::ServiceName;
use hermes_sup::definition::diagnose::About;
use hermes_sup::definition::load::{RefusedFile, load_thoroughly};
use hermes_sup::import::{import, write};
use std::ffi::OsString;
use std::path::Path;

pub fn supervisord(document: &[u8]) {
    one_file(document, "supervisord.conf");
}

pub fn compose(document: &[u8]) {
    one_file(document, "compose.yaml");
}

pub fn units(document: &[u8]) {
    let place = Place::of_root();
    let dir = place.lay("units", document, "web.service");
    checked(&place, &dir);
    for name in ["web.service", "web@.service", "web.timer"].map(|name| dir.join(name)) {
        if name.is_file() {
            checked(&place, &name);
        }
    }
}

fn one_file(document: &[u8], name: &str) {
    let place = Place::of_root();
    let dir = place.lay("from", document, name);
    checked(&place, &dir.join(name));
}

/// # Panics
/// When what is made of `from` is not as `check` wants it.
pub fn checked(place: &Place, from: &Path) {
    let env = |name: &str| (name == "HOME").then(|| OsString::from("/root"));
    let outcome = import(&[from.to_owned()], &env);
    let to = place.path().join("imported");
    let _ = std::fs::remove_dir_all(&to);
    for service in &outcome.services {
        let written = write(&to, service);
        assert!(matches!(written, Ok((_, true))), "'{}' twice: {written:?}", service.name);
    }
    let around = surroundings(&place.path().join("home"));
    let loaded = load_thoroughly(&[to], &around);
    // Whom it may name depends on where it lies.
    let is_wrong = |file: &&RefusedFile| file.wrong.about == About::Text;
    let refused: Vec<String> =
        loaded.refused.values().filter(is_wrong).map(|file| file.wrong.to_string()).collect();
    assert_eq!(refused, Vec::<String>::new(), "made of {}", from.display());
    let is_there = |name| {
        let refused = loaded.refused.contains_key(ServiceName::as_str(name));
        loaded.services.contains_key(name) || loaded.groups.contains_key(name) || refused
    };
    for service in &outcome.services {
        assert!(is_there(&service.name), "'{}' is not there", service.name);
    }
}
