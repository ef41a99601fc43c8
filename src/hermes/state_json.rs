//! `gateway_state.json` of a profile: what the gateway and its CLI wrote about how it should be, and our mirror of the
//! want in it.
//!
//! The gateway and the CLI change this file without a lock, so it is a hint and a mirror, never the record. We write it
//! only while the gateway does not run: what it writes on its way down cannot overwrite us then.

use crate::core::words::Want;
use crate::store::MirroredRow;
use crate::sys::beneath::Beneath;
use crate::sys::credentials::Credentials;
use rustix::fs::OFlags;
use serde_json::{Map, Value};
use std::io::{self, Read};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

pub const FILE: &str = "gateway_state.json";
const MOST: u64 = 1 << 20;

/// What the file says about how the gateway should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Intent {
    /// `desired_state` if there is one, else `gateway_state`, where `draining` and `degraded` count as `running`.
    /// `None` for a file that is missing or broken.
    pub state: Option<String>,
    /// It is a `desired_state`: somebody's wish, not only what the gateway last was.
    pub desired: bool,
    /// It names a process: a gateway wrote it.
    pub by_gateway: bool,
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
        Ok((bytes, modified)) => {
            let keys = parse(&bytes);
            let (state, desired) = state(&keys);
            let by_gateway = keys.get("pid").is_some_and(Value::is_number);
            Ok(Intent { state, desired, by_gateway, modified: Some(modified) })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Intent::default()),
        // A file that is too large is a broken one.
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Ok(Intent::default()),
        Err(error) => Err(error),
    })?
}

/// A wish that somebody else has put into the file since we last mirrored `want` there, `up` or not. Without a mirror of
/// ours, or with one of another want, the file is merely old: the database wins.
pub fn outside_wish(want: Want, mirrored: Option<&MirroredRow>, intent: &Intent) -> Option<Want> {
    let mirrored = mirrored.filter(|row| row.want == want)?;
    let newer = match mirrored.modified_ns {
        Some(ours) => intent.modified.map(nanoseconds).is_some_and(|theirs| theirs > ours),
        None => intent.modified.is_some(),
    };
    // What we wrote is a `desired_state`, which a gateway keeps. Where it is missing the gateway began a new file, because
    // ours could not be read, and its state is no wish.
    let wished = intent.desired || (intent.state.is_some() && mirrored.modified_ns.is_none());
    let theirs = if intent.wants_up() { Want::Up } else { Want::Down };
    // We started none, so that one was somebody's own, as behind a wrapper that is the container's command. That it ran is
    // no reason to run another beside it.
    if theirs == Want::Up && !intent.desired && intent.by_gateway {
        return None;
    }
    (newer && wished && theirs != want).then_some(theirs)
}

/// What counts as mirrored when `want` is in force: the old mirror or, where the file says the same without one, that.
/// `None`: the file must be written.
pub fn agreed(want: Want, mirrored: Option<&MirroredRow>, intent: &Intent) -> Option<MirroredRow> {
    let same = intent.wants_up() == (want == Want::Up);
    let old = mirrored.filter(|row| row.want == want).cloned();
    same.then(|| old.unwrap_or(MirroredRow { want, modified_ns: None }))
}

/// Whether the gateway that is process `pid` says in its file that it runs.
///
/// # Errors
/// As openat(2) and read(2); a missing or broken file says nothing.
pub fn says_running(home: &Beneath, user: &Credentials, directory: &Path, pid: u32) -> io::Result<bool> {
    let keys = keys(home, user, directory)?.unwrap_or_default();
    let is_pid = keys.get("pid").and_then(Value::as_u64) == Some(u64::from(pid));
    Ok(is_pid && keys.get("gateway_state").and_then(Value::as_str) == Some("running"))
}

/// Takes out of the file what the last life of a gateway said of itself, before the next one begins: that one writes its
/// process id into it some time before it says what it does, and until then the rest would be taken for its word. The wish
/// in it stays. A missing or broken file is left alone.
///
/// # Errors
/// As openat(2), write(2), renameat(2); the old file stays then.
pub fn forget_last_life(home: &Beneath, user: &Credentials, directory: &Path) -> io::Result<()> {
    let Some(mut keys) = keys(home, user, directory)? else { return Ok(()) };
    let mut changed = false;
    for key in ["pid", "served_profiles", "multiplex_standalone_reason"] {
        changed |= keys.remove(key).is_some();
    }
    // Without a wish beside it this is the wish.
    if keys.get("desired_state").is_some_and(Value::is_string)
        && keys.get("gateway_state").is_some_and(|state| *state != "starting")
    {
        keys.insert("gateway_state".to_owned(), Value::from("starting"));
        changed = true;
    }
    if !changed {
        return Ok(());
    }
    let text = Value::Object(keys).to_string();
    user.on_files(|| home.replace(&directory.join(FILE), text.as_bytes(), 0o600))?
}

/// Everything that the file of the profile in `directory` says. `None`: there is none, or it is broken.
///
/// # Errors
/// As openat(2) and read(2).
pub(super) fn keys(
    home: &Beneath,
    user: &Credentials,
    directory: &Path,
) -> io::Result<Option<Map<String, Value>>> {
    let path = directory.join(FILE);
    user.on_files(|| match contents(home, &path) {
        Ok((bytes, _)) => Ok(Some(parse(&bytes))),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::FileTooLarge) => {
            Ok(None)
        }
        Err(error) => Err(error),
    })?
}

/// Whether there is such a file at all.
///
/// # Errors
/// As openat(2), other than that it is missing.
pub fn exists(home: &Beneath, user: &Credentials, directory: &Path) -> io::Result<bool> {
    let path = directory.join(FILE);
    user.on_files(|| match home.open_file(&path, OFlags::RDONLY, 0) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    })?
}

/// Writes the file that stands for "the gateway was the container's command, and ran". `now` is in Unix seconds.
///
/// # Errors
/// As openat(2), write(2), renameat(2).
pub fn migrate_legacy(home: &Beneath, user: &Credentials, directory: &Path, now: u64) -> io::Result<()> {
    let keys = serde_json::json!({
        "gateway_state": "running",
        "desired_state": "running",
        "timestamp": now,
        "migrated_from": "legacy-container-cmd",
    });
    user.on_files(|| home.replace(&directory.join(FILE), format!("{keys}\n").as_bytes(), 0o600))?
}

/// A file time as the database keeps it: nanoseconds since 1970.
fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Writes the want as `desired_state` and the time (Unix seconds) as `updated_at`, keeping every other key, and returns
/// what is mirrored now. A profile directory that is gone stays gone, and holds nothing of ours.
///
/// # Errors
/// As openat(2), write(2), renameat(2); the old file stays then.
pub fn mirror(
    home: &Beneath,
    user: &Credentials,
    directory: &Path,
    want: Want,
    now: u64,
) -> io::Result<MirroredRow> {
    user.on_files(|| {
        let profile = match home.dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(MirroredRow { want, modified_ns: None });
            }
            opened => opened?,
        };
        let file = Path::new(FILE);
        let mut keys = match contents(&profile, file) {
            Ok((bytes, _)) => parse(&bytes),
            // A file that is too large is a broken one.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::FileTooLarge) => {
                Map::new()
            }
            Err(error) => return Err(error),
        };
        let state = match want {
            Want::Up => "running",
            Want::Down => "stopped",
        };
        keys.insert("desired_state".to_owned(), Value::from(state));
        keys.insert("updated_at".to_owned(), Value::from(now));
        // The gateway itself writes it with this mode.
        profile.replace(file, Value::Object(keys).to_string().as_bytes(), 0o600)?;
        let modified = profile.open_file(file, OFlags::RDONLY, 0)?.metadata()?.modified()?;
        Ok(MirroredRow { want, modified_ns: Some(nanoseconds(modified)) })
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

/// The state that the keys ask for, and whether it is a `desired_state`.
fn state(keys: &Map<String, Value>) -> (Option<String>, bool) {
    let text = |key: &str| match keys.get(key)? {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    if let Some(desired) = text("desired_state") {
        return (Some(desired), true);
    }
    let state = text("gateway_state").map(|state| match state.as_str() {
        "draining" | "degraded" => "running".to_owned(),
        _ => state,
    });
    (state, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Contract: 48.
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
            assert_eq!(state(&parse(text.as_bytes())).0.as_deref(), expected, "{text}");
        }
        assert!(!Intent { state: Some("draining".into()), ..Intent::default() }.wants_up());
    }

    /// Contract: 48.
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

    /// Contract: 82.
    #[test]
    fn the_mirror_keeps_every_other_key_and_can_be_told_from_a_later_wish() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(
            home.path().join(FILE),
            r#"{"pid":7,"platforms":{"x":[1748082020.5555227]},"desired_state":"running"}"#,
        )
        .unwrap();
        let (beneath, own) = (Beneath::open(home.path()).unwrap(), Credentials::own());
        let written = mirror(&beneath, &own, Path::new(""), Want::Down, 1_700_000_000).unwrap();
        let text = std::fs::read_to_string(home.path().join(FILE)).unwrap();
        let expected = r#"{"desired_state":"stopped","pid":7,"platforms":{"x":[1748082020.5555227]},"updated_at":1700000000}"#;
        assert_eq!(text, expected);
        let read = read(&beneath, &own, Path::new("")).unwrap();
        assert_eq!((read.state.as_deref(), read.desired), (Some("stopped"), true));
        assert_eq!(written, MirroredRow { want: Want::Down, modified_ns: read.modified.map(nanoseconds) });
        assert_eq!(outside_wish(Want::Down, Some(&written), &read), None, "our own mirror is no wish");
        let gone = mirror(&beneath, &own, Path::new("profiles/gone"), Want::Up, 1).unwrap();
        assert_eq!(gone, MirroredRow { want: Want::Up, modified_ns: None });
        assert!(!home.path().join("profiles").exists());
    }

    #[test]
    fn only_a_later_wish_of_somebody_else_is_adopted() {
        use Want::{Down, Up};
        let at = |seconds: u64| UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        let intent = |state: &str, desired: bool, seconds: u64| Intent {
            state: Some(state.to_owned()),
            desired,
            by_gateway: false,
            modified: Some(at(seconds)),
        };
        let ran = Intent { by_gateway: true, ..intent("running", false, 6) };
        assert_eq!(outside_wish(Down, Some(&MirroredRow { want: Down, modified_ns: None }), &ran), None);
        let row =
            |want: Want, seconds: u64| MirroredRow { want, modified_ns: Some(nanoseconds(at(seconds))) };
        let agreed_only = |want: Want| MirroredRow { want, modified_ns: None };
        for (want, mirrored, intent, expected) in [
            (Down, Some(row(Down, 5)), intent("running", true, 6), Some(Up)),
            (Up, Some(row(Up, 5)), intent("stopped", true, 6), Some(Down)),
            (Up, Some(row(Up, 5)), intent("running", true, 6), None),
            // Not later than our mirror: an old copy that was put back, or a clock that was.
            (Down, Some(row(Down, 5)), intent("running", true, 5), None),
            (Down, Some(row(Down, 5)), intent("running", true, 4), None),
            // The mirror of another want: ours was not written yet.
            (Down, Some(row(Up, 5)), intent("running", true, 6), None),
            (Down, None, intent("running", true, 6), None),
            // A gateway that began a new file says how it is, not how it should be.
            (Up, Some(row(Up, 5)), intent("starting", false, 6), None),
            (Down, Some(row(Down, 5)), intent("running", false, 6), None),
            // Nothing was ever written by us: a file that appears is somebody's.
            (Down, Some(agreed_only(Down)), intent("running", false, 6), Some(Up)),
            (Down, Some(agreed_only(Down)), Intent::default(), None),
            (Up, Some(agreed_only(Up)), intent("stopped", false, 6), Some(Down)),
        ] {
            let wish = outside_wish(want, mirrored.as_ref(), &intent);
            assert_eq!(wish, expected, "{want:?} {mirrored:?} {intent:?}");
        }
        assert_eq!(
            agreed(Down, None, &Intent::default()),
            Some(agreed_only(Down)),
            "nothing is as good as down"
        );
        assert_eq!(agreed(Up, None, &Intent::default()), None);
        assert_eq!(agreed(Up, Some(&row(Up, 5)), &intent("running", true, 9)), Some(row(Up, 5)));
        assert_eq!(agreed(Up, Some(&row(Down, 5)), &intent("running", true, 9)), Some(agreed_only(Up)));
        assert_eq!(agreed(Down, Some(&row(Down, 5)), &intent("running", true, 4)), None);
    }

    /// Contract: 105, 109.
    #[test]
    fn a_running_gateway_says_so_with_its_own_pid() {
        let home = tempfile::tempdir().unwrap();
        let (beneath, own) = (Beneath::open(home.path()).unwrap(), Credentials::own());
        let says = |pid| says_running(&beneath, &own, Path::new(""), pid).unwrap();
        assert!(!says(7), "no file");
        for (text, expected) in [
            (r#"{"pid":7,"gateway_state":"running"}"#, true),
            (r#"{"pid":8,"gateway_state":"running"}"#, false),
            (r#"{"pid":7,"gateway_state":"starting"}"#, false),
            (r#"{"pid":7,"gateway_state":"degraded"}"#, false),
            (r#"{"pid":"7","gateway_state":"running"}"#, false),
            (r#"{"pid":7,"desired_state":"running"}"#, false),
            ("{", false),
        ] {
            std::fs::write(home.path().join(FILE), text).unwrap();
            assert_eq!(says(7), expected, "{text}");
        }
    }

    /// Hermes 0.21 writes its process id into the old file seconds before it says what it does: what an earlier life served was
    /// taken for its word.
    #[test]
    fn the_word_of_an_earlier_life_is_gone_before_the_next_begins_and_the_wish_is_not() {
        let home = tempfile::tempdir().unwrap();
        let (beneath, own, root) = (Beneath::open(home.path()).unwrap(), Credentials::own(), Path::new(""));
        let forget = |text: &str| {
            std::fs::write(home.path().join(FILE), text).unwrap();
            forget_last_life(&beneath, &own, root).unwrap();
            std::fs::read_to_string(home.path().join(FILE)).unwrap()
        };
        for (before, after) in [
            (
                r#"{"desired_state":"running","gateway_state":"running","pid":7,"served_profiles":["default","work"],"x":1}"#,
                r#"{"desired_state":"running","gateway_state":"starting","x":1}"#,
            ),
            (r#"{"gateway_state":"running","pid":7}"#, r#"{"gateway_state":"running"}"#),
            (r#"{ "desired_state": "running" }"#, r#"{ "desired_state": "running" }"#),
            ("{", "{"),
        ] {
            assert_eq!(forget(before), after);
        }
        std::fs::remove_file(home.path().join(FILE)).unwrap();
        forget_last_life(&beneath, &own, root).unwrap();
        assert!(!home.path().join(FILE).exists());
    }

    /// Contract: 51.
    #[test]
    fn a_legacy_home_gets_the_file_that_the_images_own_migration_writes() {
        let home = tempfile::tempdir().unwrap();
        let (beneath, own, root) = (Beneath::open(home.path()).unwrap(), Credentials::own(), Path::new(""));
        assert!(!exists(&beneath, &own, root).unwrap());
        migrate_legacy(&beneath, &own, root, 1_700_000_000).unwrap();
        assert!(exists(&beneath, &own, root).unwrap());
        let text = std::fs::read_to_string(home.path().join(FILE)).unwrap();
        let expected = "{\"desired_state\":\"running\",\"gateway_state\":\"running\",\
                        \"migrated_from\":\"legacy-container-cmd\",\"timestamp\":1700000000}\n";
        assert_eq!(text, expected);
        assert!(read(&beneath, &own, root).unwrap().wants_up());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100), text in "[{}\\[\\]\":,a-z0-9]{0,100}") {
            let _ = state(&parse(&bytes));
            let _ = state(&parse(text.as_bytes()));
        }
    }
}
