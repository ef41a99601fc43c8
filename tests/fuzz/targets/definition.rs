//! Services directories: definitions, templates and env files, where they are trusted and below home, where they are not.

use super::files::Place;
use super::one_line;
use hermes_sup::core::name::ServiceName;
use hermes_sup::definition::environment;
use hermes_sup::definition::load::{Loaded, load, load_thoroughly};
use hermes_sup::definition::resolved::RunAs;
use hermes_sup::definition::{Surroundings, diagnose::Diagnostic};
use hermes_sup::sys::users;
use std::path::Path;

pub fn run(document: &[u8]) {
    let place = Place::of_root();
    let dir = place.lay("services", document, "web.toml");
    let elsewhere = place.path().join("home");
    let trusted = checked(&dir, &elsewhere);
    let below_home = checked(&dir, place.path());
    for (name, definition) in &below_home.services {
        assert_eq!(definition.user, RunAs::Gateway, "'{name}' lies below home and names another user");
        assert!(trusted.services.contains_key(name), "'{name}' counts only where it is trusted less");
    }
}

pub fn surroundings(home: &Path) -> Surroundings {
    let own_uid = rustix::process::geteuid().as_raw();
    let gateway = if own_uid == 0 { 10_000 } else { own_uid };
    Surroundings { home: home.to_owned(), gateway: users::nameless(gateway, gateway), own_uid }
}

fn checked(dir: &Path, home: &Path) -> Loaded {
    let around = surroundings(home);
    let dirs = [dir.to_owned()];
    let loaded = load_thoroughly(&dirs, &around);
    let again = load(&dirs, &around);
    assert_eq!(loaded.services, again.services, "the same whatever else is asked");
    readable(&loaded.diagnostics);
    readable(&loaded.remarks);
    readable(&loaded.dangling(|name| name.as_str() == "db"));
    readable(&loaded.missing(None, &around));
    for (name, definition) in &loaded.services {
        assert_eq!(ServiceName::of_slot(name.as_str()).as_ref(), Ok(name));
        assert!(
            definition.command.first().is_some_and(|program| !program.is_empty()),
            "'{name}' runs nothing"
        );
        assert!(!loaded.refused.contains_key(name.as_str()), "'{name}' is there and refused");
        if let Err(error) = environment::read_files(definition, &around.gateway, &around) {
            one_line(&error.to_string());
        }
    }
    loaded
}

fn readable(diagnostics: &[Diagnostic]) {
    for diagnostic in diagnostics {
        one_line(&diagnostic.headline());
        assert!(!diagnostic.to_string().chars().any(|c| c.is_control() && c != '\n'), "{diagnostic:?}");
    }
}
