//! `gateway_state.json` of a profile: what the gateway and its CLI wrote about how it should be, and our mirror of the
//! want in it.
//!
//! The gateway and the CLI change this file without a lock, so it is a hint and a mirror, never the record.

use crate::sys::beneath::Beneath;
use crate::sys::credentials::Credentials;
use rustix::fs::OFlags;
use serde_json::{Map, Value};
use std::io::{self, Read};
use std::path::Path;
use std::time::SystemTime;

const FILE: &str = "gateway_state.json";
const MOST: u64 = 1 << 20;

/// What the file says about how the gateway should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Intent {
    /// `desired_state` if there is one, else `gateway_state`, where `draining` and `degraded` count as `running`.
    /// `None` for a file that is missing or broken.
    pub state: Option<String>,
    /// When the file was last written; `None` without a file.
    pub modified: Option<SystemTime>,
}

impl Intent {
    /// Only the word `running` starts a gateway.
    pub fn wants_up(&self) -> bool {
        self.state.as_deref() == Some("running")
    }
}

/// Reads the file of the profile in `directory` (relative to home).
///
/// # Errors
/// As openat(2) and read(2), for example at a link; a missing or broken file is an `Intent` without a state.
pub fn read(home: &Beneath, user: &Credentials, directory: &Path) -> io::Result<Intent> {
    let path = directory.join(FILE);
    user.on_files(|| match contents(home, &path) {
        Ok((bytes, modified)) => Ok(Intent { state: state(&parse(&bytes)), modified: Some(modified) }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Intent::default()),
        // A file that is too large is a broken one.
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Ok(Intent::default()),
        Err(error) => Err(error),
    })?
}

/// Writes the want as `desired_state` and the time (Unix seconds) as `updated_at`, keeping every other key, and returns
/// when the new file was written. A profile directory that is gone stays gone: `None`.
///
/// # Errors
/// As openat(2), write(2), renameat(2); the old file stays then.
pub fn mirror(
    home: &Beneath,
    user: &Credentials,
    directory: &Path,
    up: bool,
    now: u64,
) -> io::Result<Option<SystemTime>> {
    user.on_files(|| {
        let profile = match home.dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let file = Path::new(FILE);
        let mut keys = match contents(&profile, file) {
            Ok((bytes, _)) => parse(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Map::new(),
            Err(error) => return Err(error),
        };
        keys.insert("desired_state".to_owned(), Value::from(if up { "running" } else { "stopped" }));
        keys.insert("updated_at".to_owned(), Value::from(now));
        // The gateway itself writes it with this mode.
        profile.replace(file, Value::Object(keys).to_string().as_bytes(), 0o600)?;
        contents(&profile, file).map(|(_, modified)| Some(modified))
    })?
}

fn contents(directory: &Beneath, path: &Path) -> io::Result<(Vec<u8>, SystemTime)> {
    let file = directory.open_file(path, OFlags::RDONLY, 0)?;
    let modified = file.metadata()?.modified()?;
    let mut bytes = Vec::new();
    file.take(MOST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok((bytes, modified))
}

/// The keys of the object; none if it is no object.
fn parse(bytes: &[u8]) -> Map<String, Value> {
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(keys)) => keys,
        Ok(_) | Err(_) => Map::new(),
    }
}

fn state(keys: &Map<String, Value>) -> Option<String> {
    let text = |key: &str| match keys.get(key)? {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    text("desired_state").or_else(|| {
        text("gateway_state").map(|state| match state.as_str() {
            "draining" | "degraded" => "running".to_owned(),
            _ => state,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn intent_is_the_desired_state_else_the_last_one_seen() {
        for (text, expected) in [
            (r#"{"desired_state":"running","gateway_state":"stopped"}"#, Some("running")),
            (r#"{"desired_state":"stopped","gateway_state":"running"}"#, Some("stopped")),
            (r#"{"desired_state":"draining"}"#, Some("draining")),
            (r#"{"desired_state":null,"gateway_state":"draining"}"#, Some("running")),
            (r#"{"gateway_state":"degraded"}"#, Some("running")),
            (r#"{"gateway_state":"starting"}"#, Some("starting")),
            (r#"{"desired_state":1}"#, Some("1")),
            ("{}", None),
            ("[]", None),
            ("{", None),
            ("", None),
        ] {
            assert_eq!(state(&parse(text.as_bytes())).as_deref(), expected, "{text}");
        }
        assert!(!Intent { state: Some("draining".into()), modified: None }.wants_up());
    }

    #[test]
    fn a_missing_broken_or_huge_file_has_no_state_and_a_link_is_an_error() {
        let home = tempfile::tempdir().unwrap();
        let (own, root) = (Credentials::own(), Path::new(""));
        let read = || super::read(&Beneath::open(home.path()).unwrap(), &own, root);
        let file = home.path().join(FILE);
        assert_eq!(read().unwrap(), Intent::default());
        std::fs::write(&file, vec![b' '; MOST as usize + 1]).unwrap();
        assert_eq!(read().unwrap().state, None);
        std::fs::write(&file, "\0").unwrap();
        assert_eq!(read().unwrap().state, None);
        std::fs::remove_file(&file).unwrap();
        let outside = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(outside.path(), r#"{"desired_state":"running"}"#).unwrap();
        std::os::unix::fs::symlink(outside.path(), &file).unwrap();
        assert!(read().is_err());
    }

    #[test]
    fn the_mirror_keeps_every_other_key_and_can_be_told_from_a_later_wish() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(
            home.path().join(FILE),
            r#"{"pid":7,"platforms":{"x":[1.5]},"desired_state":"running"}"#,
        )
        .unwrap();
        let (beneath, own) = (Beneath::open(home.path()).unwrap(), Credentials::own());
        let written = mirror(&beneath, &own, Path::new(""), false, 1_700_000_000).unwrap();
        let text = std::fs::read_to_string(home.path().join(FILE)).unwrap();
        let expected =
            r#"{"desired_state":"stopped","pid":7,"platforms":{"x":[1.5]},"updated_at":1700000000}"#;
        assert_eq!(text, expected);
        let read = read(&beneath, &own, Path::new("")).unwrap();
        assert_eq!(read, Intent { state: Some("stopped".to_owned()), modified: written });
        assert_eq!(mirror(&beneath, &own, Path::new("profiles/gone"), true, 1).unwrap(), None);
        assert!(!home.path().join("profiles").exists());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100), text in "[{}\\[\\]\":,a-z0-9]{0,100}") {
            let _ = state(&parse(&bytes));
            let _ = state(&parse(text.as_bytes()));
        }
    }
}
