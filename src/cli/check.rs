//! `check`: says what is wrong with definitions without running any of them.
//!
//! It reads them by the same path as the supervisor. What a file may not say only because of its place or owner is a
//! warning here: it may be checked before it is installed, by somebody who is not root.

use crate::definition::diagnose::{About, Diagnostic};
use crate::definition::load::{Loaded, load, load_file};
use crate::definition::users::Surroundings;
use std::path::{Path, PathBuf};

/// Checks each file, and each directory as a services directory. Gives the lines to print and whether all is well.
/// Blocks on the file system.
pub fn check(paths: &[PathBuf], surroundings: &Surroundings) -> (Vec<String>, bool) {
    let mut lines = Vec::new();
    let (mut good, mut errors, mut warnings) = (0, 0, 0);
    for path in paths {
        let loaded = match read(path, surroundings) {
            Ok(loaded) => loaded,
            Err(error) => {
                errors += 1;
                lines.push(format!("{}: {error}", path.display()));
                continue;
            }
        };
        good += loaded.services.len();
        // Of a single file, the services it names are elsewhere.
        let dangling = loaded.dangling(|_| !path.is_dir());
        for found in loaded.diagnostics.iter().chain(dangling) {
            let is_error = found.about == About::Text;
            lines.push(shown(found, is_error));
            *(if is_error { &mut errors } else { &mut warnings }) += 1;
        }
    }
    lines.push(format!("{good} services defined, {errors} errors, {warnings} warnings"));
    (lines, errors == 0)
}

fn read(path: &Path, surroundings: &Surroundings) -> std::io::Result<Loaded> {
    if std::fs::metadata(path)?.is_dir() {
        Ok(load(&[std::path::absolute(path)?], surroundings))
    } else {
        load_file(path, surroundings)
    }
}

fn shown(found: &Diagnostic, is_error: bool) -> String {
    if is_error {
        return found.to_string();
    }
    let mut warning = found.clone();
    warning.message.insert_str(0, "warning: ");
    warning.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::users::nameless;

    #[test]
    fn errors_fail_the_check_and_matters_of_place_only_warn() {
        let dir = tempfile::tempdir().unwrap();
        // The gateway user is whoever runs the test: it can read what the test wrote.
        let own_uid = rustix::process::geteuid().as_raw();
        let home = PathBuf::from("/nonexistent-home");
        let surroundings = Surroundings { home, gateway: nameless(own_uid, own_uid), own_uid };
        let put = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let good = put("good.toml", "command = ['x']\nafter = ['elsewhere']\n");
        let (lines, ok) = check(std::slice::from_ref(&good), &surroundings);
        assert_eq!((lines, ok), (vec!["1 services defined, 0 errors, 0 warnings".to_owned()], true));

        // /tmp, where tests run, is writable by all, so nothing below it may name a user.
        let other = put("other.toml", "command = ['x']\nuser = '4123456789'\n");
        let (lines, ok) = check(&[other], &surroundings);
        assert!(ok, "{lines:?}");
        assert!(lines[0].contains("other.toml:2:8: warning: "), "{lines:?}");

        put("bad.toml", "command = ['x']\numask = 22\n");
        let (lines, ok) = check(&[dir.path().to_owned()], &surroundings);
        assert!(!ok);
        let expected = format!(
            "{}/bad.toml:2:9: 'umask' is an integer; write a text in quotes\n  2 | umask = 22\n    |         ^^",
            dir.path().display()
        );
        assert_eq!(lines[0], expected);
        assert_eq!(lines.last().unwrap(), "1 services defined, 1 errors, 2 warnings");

        let (lines, ok) = check(&[dir.path().join("none.toml")], &surroundings);
        assert!(!ok && lines[0].contains("none.toml: No such file"), "{lines:?}");
    }
}
