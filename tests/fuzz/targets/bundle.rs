//! The s6-rc sources and `services.d` of an image, and `import` of the same.

use super::files::Place;
use super::{import, one_line};
use hermes_sup::s6::bundle;
use std::collections::BTreeSet;

pub fn run(document: &[u8]) {
    let place = Place::of_root();
    let dir = place.lay("etc", document, "s6-rc.d");
    let (sources, legacy) = (dir.join("s6-rc.d"), dir.join("services.d"));
    let read = bundle::read(&sources, &legacy);
    read.warnings.iter().for_each(|warning| one_line(warning));
    let names: BTreeSet<&str> = read.members.iter().map(|member| member.name.as_str()).collect();
    assert_eq!(names.len(), read.members.len(), "a service twice");
    for member in &read.members {
        assert!(member.dir.is_dir(), "{}", member.name);
        for other in &member.depends_on {
            assert!(
                names.contains(other.as_str()),
                "'{}' waits for '{other}', which never comes",
                member.name
            );
        }
    }
    let _ = bundle::scripts(&dir.join("cont-init.d"));
    import::checked(&place, &sources);
}
