//! What a boot does in the profiles' directories before any gateway starts: what the last container left there speaks of
//! processes that are no more.
//!
//! Only at a boot that starts everything anew: the files of a gateway that still runs are its own.

use super::boot_log::PriorExit;
use crate::sys::beneath::Beneath;
use crate::sys::credentials::Credentials;
use serde_json::Value;
use std::io;
use std::path::Path;

/// Process ids and tables of the last container's namespace: by now they are somebody else's numbers.
const STALE: [&str; 2] = ["gateway.pid", "processes.json"];
/// Where a gateway notes that it has begun and that it has ended.
const LEDGER: &str = "state/gateway.lifecycle.json";
const MOST: u64 = 1 << 16;

/// Removes the stale files of the profile in `directory` (relative to home); those that are not there are no error.
///
/// # Errors
/// As openat(2) and unlinkat(2), the first of them; the others are tried all the same.
pub fn remove_stale(home: &Beneath, user: &Credentials, directory: &Path) -> io::Result<()> {
    user.on_files(|| {
        let mut result = Ok(());
        for name in STALE {
            match home.remove_file(&directory.join(name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => result = result.and(removed),
            }
        }
        result
    })?
}

/// How the last life of the profile's gateway ended. Whatever cannot be read is unknown.
pub fn prior_exit(home: &Beneath, user: &Credentials, directory: &Path) -> PriorExit {
    let read = user.on_files(|| home.read(&directory.join(LEDGER), MOST));
    let bytes = read.and_then(|bytes| bytes).unwrap_or_default();
    // The gateway reads its own file with or without a byte order mark.
    let ledger =
        serde_json::from_slice(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes)).unwrap_or(Value::Null);
    match ledger.get("phase").and_then(Value::as_str) {
        Some("exited") => PriorExit::Clean,
        Some("running") => PriorExit::Unclean,
        Some(_) | None => PriorExit::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Contract: 49.
    #[test]
    fn the_stale_files_go_and_nothing_else() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("profiles/coder");
        std::fs::create_dir_all(&directory).unwrap();
        for name in ["gateway.pid", "processes.json", "gateway_state.json", "gateway.lock"] {
            std::fs::write(directory.join(name), "x").unwrap();
        }
        std::fs::write(home.path().join("gateway.pid"), "x").unwrap();
        let (beneath, own) = (Beneath::open(home.path()).unwrap(), Credentials::own());
        remove_stale(&beneath, &own, Path::new("profiles/coder")).unwrap();
        let mut left: Vec<_> = directory.read_dir().unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["gateway.lock", "gateway_state.json"]);
        assert!(home.path().join("gateway.pid").exists(), "another profile's");
        remove_stale(&beneath, &own, Path::new("profiles/coder")).unwrap();
        remove_stale(&beneath, &own, Path::new("profiles/gone")).unwrap();
        // A directory in the place of one keeps only that one.
        std::fs::create_dir(directory.join("gateway.pid")).unwrap();
        std::fs::write(directory.join("processes.json"), "x").unwrap();
        assert!(remove_stale(&beneath, &own, Path::new("profiles/coder")).is_err());
        assert!(!directory.join("processes.json").exists());
    }

    /// Contract: 55.
    #[test]
    fn the_last_life_is_judged_by_the_gateways_own_ledger() {
        let home = tempfile::tempdir().unwrap();
        let (beneath, own) = (Beneath::open(home.path()).unwrap(), Credentials::own());
        let exit = || prior_exit(&beneath, &own, Path::new(""));
        assert_eq!(exit(), PriorExit::Unknown, "no file");
        std::fs::create_dir(home.path().join("state")).unwrap();
        for (text, expected) in [
            (r#"{"phase":"exited","pid":7,"exit_code":0}"#, PriorExit::Clean),
            (r#"{"phase":"running","pid":7}"#, PriorExit::Unclean),
            ("\u{feff}{\"phase\":\"running\"}", PriorExit::Unclean),
            (r#"{"phase":"other"}"#, PriorExit::Unknown),
            (r#"["running"]"#, PriorExit::Unknown),
            ("{", PriorExit::Unknown),
        ] {
            std::fs::write(home.path().join(LEDGER), text).unwrap();
            assert_eq!(exit(), expected, "{text}");
        }
    }
}
