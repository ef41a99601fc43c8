//! `with-contenv`: executes a command with the container's environment, as the boot has written it down.
//!
//! What is there overrides what was inherited. Without the directory, and for users it is not for (it may hold secrets),
//! the environment is left as it is: services of ours have the container's anyway.

use super::applet::{Call, SYSTEM};
use super::exec::exec;
use crate::s6::container_environment::{PLACE, load};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::Path;

const USAGE: &str = "with-contenv COMMAND...";

pub fn main(call: &mut Call<'_>) -> u8 {
    let words = call.words;
    if words.is_empty() {
        return call.usage("there is no command to execute", USAGE);
    }
    match changes(Path::new(PLACE)) {
        Ok(changes) => exec(call, words, changes.into_iter().collect()),
        Err(error) => call.fatal(SYSTEM, &format!("unable to read {PLACE}: {error}")),
    }
}

fn changes(dir: &Path) -> io::Result<BTreeMap<OsString, OsString>> {
    match load(dir) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
            Ok(BTreeMap::new())
        }
        loaded => loaded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s6::applets::applet::tests::told;

    #[test]
    fn no_directory_is_no_change_and_what_is_none_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(changes(&dir.path().join("none")).unwrap().is_empty());
        std::fs::write(dir.path().join("A"), "value\n").unwrap();
        assert_eq!(changes(dir.path()).unwrap(), BTreeMap::from([("A".into(), "value".into())]));
        assert!(changes(&dir.path().join("A")).is_err());
    }

    #[test]
    fn without_a_command_it_is_wrong_usage() {
        assert_eq!(told(main, "with-contenv", &[], &|_| None).0, 100);
    }
}
