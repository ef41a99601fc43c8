//! `check`: says what is wrong with definitions without running any of them.
//!
//! It reads them by the same path as the supervisor: what that would refuse here is an error, but for what only root can do,
//! because anybody may check. What does not exist (yet), or has no effect, is a warning.

use crate::definition::diagnose::{About, Diagnostic};
use crate::definition::load::{Loaded, load_file, load_thoroughly};
use crate::definition::users::Surroundings;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What to check.
#[derive(Debug, Clone)]
pub struct What {
    /// Files, and directories of definitions.
    pub paths: Vec<PathBuf>,
    /// One that does not exist is no error: the supervisor would not miss it either.
    pub may_be_absent: bool,
    /// The PATH of a service whose definition has none; `None`: that of a process without one.
    pub search: Option<OsString>,
}

/// Checks each file, and each directory as a services directory. Gives the lines to print and whether all is well.
/// Blocks on the file system.
pub fn check(what: &What, surroundings: &Surroundings) -> (Vec<String>, bool) {
    let mut lines = Vec::new();
    let (mut good, mut errors, mut warnings) = (0, 0, 0);
    for path in &what.paths {
        let loaded = match read(path, surroundings) {
            Ok(loaded) => loaded,
            Err(error) if what.may_be_absent && error.kind() == ErrorKind::NotFound => continue,
            Err(error) => {
                errors += 1;
                lines.push(format!("{}: {error}", path.display()));
                continue;
            }
        };
        good += loaded.services.len();
        // Of a single file, the services it names are elsewhere.
        let dangling = loaded.dangling(|_| !path.is_dir());
        let missing = loaded.missing(what.search.as_deref(), surroundings);
        let found = loaded.diagnostics.iter().chain(&loaded.remarks).chain(&dangling).chain(&missing);
        for found in found {
            let is_error = matches!(found.about, About::Text | About::Place | About::Unread);
            lines.extend(shown(found, is_error).lines().map(str::to_owned));
            *(if is_error { &mut errors } else { &mut warnings }) += 1;
        }
    }
    let [good, wrong, doubtful] =
        [(good, "service"), (errors, "error"), (warnings, "warning")].map(|(count, of)| counted(count, of));
    lines.push(format!("{good} defined, {wrong}, {doubtful}"));
    (lines, errors == 0)
}

fn counted(count: usize, of: &str) -> String {
    if count == 1 { format!("1 {of}") } else { format!("{count} {of}s") }
}

fn read(path: &Path, surroundings: &Surroundings) -> std::io::Result<Loaded> {
    if std::fs::metadata(path)?.is_dir() {
        Ok(load_thoroughly(&[std::path::absolute(path)?], surroundings))
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

    struct Bench {
        dir: tempfile::TempDir,
        around: Surroundings,
    }

    impl Bench {
        fn new() -> Self {
            // The gateway user is the user of the test: it can read what the test wrote.
            let own_uid = rustix::process::geteuid().as_raw();
            let home = PathBuf::from("/nonexistent-home");
            let around = Surroundings { home, gateway: nameless(own_uid, own_uid), own_uid };
            Self { dir: tempfile::tempdir().unwrap(), around }
        }

        fn put(&self, name: &str, text: &str) -> PathBuf {
            let path = self.dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        }

        fn check(&self, path: &Path) -> (Vec<String>, bool) {
            let what = What {
                paths: vec![path.to_owned()],
                may_be_absent: false,
                search: Some(OsString::from("/usr/bin:/bin")),
            };
            check(&what, &self.around)
        }
    }

    #[test]
    fn what_the_supervisor_would_refuse_fails_the_check_and_is_shown_with_a_caret() {
        let bench = Bench::new();
        let good = bench.put("good.toml", "command = ['sh']\nworking_dir = '/'\nafter = ['elsewhere']\n");
        let fine = (vec!["1 service defined, 0 errors, 0 warnings".to_owned()], true);
        assert_eq!(bench.check(&good), fine);

        // /tmp, where tests run, is writable by all, so nothing below it may name a user: refused, so no service of it.
        let other = bench.put("other.toml", "command = ['sh']\nuser = '4123456789'\n");
        let (lines, ok) = bench.check(&other);
        assert!(!ok, "{lines:?}");
        assert!(lines[0].contains("other.toml:2:8: only a root-owned"), "{lines:?}");
        assert_eq!(lines.last().unwrap(), "0 services defined, 1 error, 0 warnings");

        let bad = bench.put("bad.toml", "command = ['sh']\numask = 22\n");
        let (lines, ok) = bench.check(&bad);
        assert!(!ok);
        let first = format!("{}:2:9: 'umask' is an integer; write a text in quotes", bad.display());
        assert_eq!(lines[..3], [first.as_str(), "  2 | umask = 22", "    |         ^^"]);

        let (lines, ok) = bench.check(&bench.dir.path().join("none.toml"));
        assert!(!ok && lines[0].contains("none.toml: No such file"), "{lines:?}");
        let absent = What { paths: vec![PathBuf::from("/none")], may_be_absent: true, search: None };
        let nothing = (vec!["0 services defined, 0 errors, 0 warnings".to_owned()], true);
        assert_eq!(check(&absent, &bench.around), nothing);
    }

    #[test]
    fn what_does_not_exist_or_has_no_effect_is_a_warning_with_its_place() {
        let bench = Bench::new();
        let path = bench.put(
            "web.toml",
            "command = ['no-such-program']\nworking_dir = '/no/dir'\nenv_file = '/no/file'\n\
             [ready]\ntimeout = '3s'\nfd = 4\n[restart]\npolicy = 'never'\nlimit = { burst = 3 }\n\
             [hooks]\nmemory_high = ['sh']\n[health]\nfailures = 3\n",
        );
        let (lines, ok) = bench.check(&path);
        assert!(ok, "{lines:?}");
        let heads: Vec<&str> =
            lines.iter().filter_map(|line| line.strip_prefix(&format!("{}:", path.display()))).collect();
        let expected = [
            "5:1: warning: 'timeout' has no effect without a 'kind' of readiness",
            "6:1: warning: 'fd' has no effect without a 'kind' that uses it",
            "9:1: warning: 'limit' has no effect with policy = \"never\"",
            "11:1: warning: 'memory_high' has no effect without memory_high in [limits]",
            "13:1: warning: 'failures' has no effect without a 'kind' of health check",
            "1:11: warning: there is no program 'no-such-program' in PATH (/usr/bin:/bin)",
            "2:15: warning: there is no directory '/no/dir'",
            "3:12: warning: there is no file '/no/file'",
        ];
        let sorted = |mut lines: Vec<&str>| {
            lines.sort_unstable();
            lines.join("\n")
        };
        assert_eq!(sorted(heads), sorted(expected.to_vec()));
        assert_eq!(lines.last().unwrap(), "1 service defined, 0 errors, 8 warnings");
    }
}
