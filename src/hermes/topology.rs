//! One gateway or many: whether the gateway of a named profile has a process of its own, or the root profile's gateway
//! serves it.
//!
//! Which of the two holds depends on the version of Hermes, on variables, `.env` and `config.yaml`; the running root gateway
//! knows, and says so in its `gateway_state.json`. So it is asked, and nothing else is. What the file says counts only with
//! the process id of the gateway that we see running: it survives containers.
//!
//! [`place`] is pure; the functions that take a `Beneath` block on the file system.

use super::{profiles, state_json};
use crate::core::fleet::Place;
use crate::core::gateway::Elsewhere;
use crate::core::name::ServiceName;
use crate::sys::beneath::Beneath;
use crate::sys::credentials::Credentials;
use rustix::fs::{AtFlags, OFlags};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::time::Duration;

/// How long named gateways wait for the root gateway's word, however often it starts meanwhile. It takes one to two seconds
/// to say that it runs, ten and more on a small machine.
pub const ROOT_PATIENCE: Duration = Duration::from_secs(60);

/// A profile's mark that its owner wants no gateway to serve it (`hermes -p NAME gateway stop`, since Hermes 0.21.5).
const PARKED: &str = "gateway.parked";

/// What a running gateway says in its state file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Word {
    /// Of the process that wrote it.
    pub pid: u32,
    /// The profiles that it serves, its own among them. Empty: only its own, by `served_profiles` of a gateway that does
    /// not multiplex.
    pub served: BTreeSet<String>,
    /// Why it serves only its own profile (`multiplex_standalone_reason`, Hermes 0.21.4).
    pub alone_because: Option<String>,
}

impl Word {
    /// It may serve more profiles than its own.
    pub fn multiplexes(&self) -> bool {
        !self.served.is_empty()
    }
}

/// The root gateway, as far as others depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root<'a> {
    /// It does not run and is not going to: nobody wants it, or it was given up.
    Absent,
    /// It is on its way, or has begun and not yet said that it runs.
    Coming,
    /// It was on its way for [`ROOT_PATIENCE`].
    Late,
    Runs(&'a Word),
}

/// Where the work of a named profile is done. `parked`: it carries the mark.
pub fn place(root: Root<'_>, root_name: &ServiceName, profile: &str, parked: bool) -> Place {
    match root {
        Root::Absent | Root::Late => Place::Own,
        Root::Coming => Place::Ask(root_name.clone()),
        Root::Runs(word) if word.served.contains(profile) => {
            Place::Elsewhere(Elsewhere::Served { by: root_name.clone() })
        }
        // Versions without the mark do not multiplex unless told to, and then serve every profile.
        Root::Runs(word) if parked && word.multiplexes() => Place::Elsewhere(Elsewhere::Parked),
        Root::Runs(_) => Place::Own,
    }
}

/// What the root gateway says, if it says that it runs, and those of `profiles` that carry the mark of a parked profile.
///
/// # Errors
/// As openat(2) and read(2); a missing or broken file says nothing.
pub fn read(
    home: &Beneath,
    user: &Credentials,
    names: &[ServiceName],
) -> io::Result<(Option<Word>, BTreeSet<ServiceName>)> {
    let word = state_json::keys(home, user, Path::new(""))?.and_then(|keys| word(&keys));
    let parked = user.on_files(|| {
        let is_parked = |name: &&ServiceName| {
            let profile = home.dir(&profiles::directory_of(name));
            profile.is_ok_and(|dir| rustix::fs::statat(&dir, PARKED, AtFlags::SYMLINK_NOFOLLOW).is_ok())
        };
        names.iter().filter(is_parked).cloned().collect()
    })?;
    Ok((word, parked))
}

fn word(keys: &serde_json::Map<String, Value>) -> Option<Word> {
    // `degraded`: some of its platforms are not connected; `draining`: it finishes its turns and still is the one.
    let state = keys.get("gateway_state").and_then(Value::as_str)?;
    if !["running", "degraded", "draining"].contains(&state) {
        return None;
    }
    let texts =
        |key: &str| keys.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    Some(Word {
        pid: keys.get("pid").and_then(Value::as_u64).and_then(|pid| u32::try_from(pid).ok())?,
        served: texts("served_profiles").map(str::to_owned).collect(),
        alone_because: keys.get("multiplex_standalone_reason").and_then(Value::as_str).map(str::to_owned),
    })
}

/// Whether the process `pid` got far enough to write the state file of the profile in `directory`. A gateway that another one
/// leaves no room for ends before that; one with a bad configuration says so there.
///
/// # Errors
/// As [`read`].
pub fn wrote_state(home: &Beneath, user: &Credentials, directory: &Path, pid: u32) -> io::Result<bool> {
    let keys = state_json::keys(home, user, directory)?;
    Ok(keys.is_some_and(|keys| keys.get("pid").and_then(Value::as_u64) == Some(u64::from(pid))))
}

/// Puts the mark of a parked profile into its directory, or takes it away; both may be so already.
///
/// # Errors
/// As openat(2) and unlinkat(2).
pub fn mark_parked(home: &Beneath, user: &Credentials, name: &ServiceName, parked: bool) -> io::Result<()> {
    let mark = profiles::directory_of(name).join(PARKED);
    user.on_files(|| {
        if parked {
            return home.open_file(&mark, OFlags::WRONLY | OFlags::CREATE, 0o644).map(drop);
        }
        match home.remove_file(&mark) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    })?
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn name(text: &str) -> ServiceName {
        ServiceName::new(text).unwrap()
    }

    fn says(file: Value) -> Option<Word> {
        word(file.as_object().unwrap())
    }

    /// The table of versions and settings, with what the root gateway of each was seen to write: Hermes 0.19 and 0.20 serve all
    /// profiles where a variable, `.env` or the configuration says so; 0.21.4 does so by itself, but not below what it takes
    /// for s6; 0.22 always, but for profiles that opted out or are parked.
    #[test]
    fn the_root_gateways_own_word_decides_in_every_version() {
        let served =
            |names: Value| says(json!({"pid": 7, "gateway_state": "running", "served_profiles": names}));
        let alone = says(json!({"pid": 7, "gateway_state": "running", "served_profiles": [],
                                "multiplex_standalone_reason": "s6-supervised container"}));
        let by_default = Place::Elsewhere(Elsewhere::Served { by: name("default") });
        let parked = Place::Elsewhere(Elsewhere::Parked);
        for (version, word, marked, work, research) in [
            (
                "0.19.0 unset",
                says(json!({"pid": 7, "gateway_state": "running"})),
                false,
                &Place::Own,
                &Place::Own,
            ),
            (
                "0.19.0 env, .env, config",
                served(json!(["default", "research", "work"])),
                false,
                &by_default,
                &by_default,
            ),
            ("0.21.4 unset", alone.clone(), false, &Place::Own, &Place::Own),
            ("0.21.4 unset, with a mark", alone, true, &Place::Own, &Place::Own),
            (
                "0.21.4 --init",
                served(json!(["default", "research", "work"])),
                false,
                &by_default,
                &by_default,
            ),
            ("0.22.2", served(json!(["default", "research", "work"])), false, &by_default, &by_default),
            (
                "0.22.2, work stands alone",
                served(json!(["default", "research"])),
                false,
                &Place::Own,
                &by_default,
            ),
            ("0.22.2, work is parked", served(json!(["default", "research"])), true, &parked, &by_default),
        ] {
            let word = word.unwrap();
            let place = |profile, marked| place(Root::Runs(&word), &name("default"), profile, marked);
            assert_eq!(place("work", marked), *work, "{version}");
            assert_eq!(place("research", false), *research, "{version}");
        }
    }

    #[test]
    fn without_its_word_named_gateways_wait_and_without_a_root_gateway_they_do_not() {
        let place = |root| place(root, &name("default"), "work", true);
        assert_eq!(place(Root::Coming), Place::Ask(name("default")));
        assert_eq!(place(Root::Absent), Place::Own);
        assert_eq!(place(Root::Late), Place::Own);
    }

    #[test]
    fn a_gateway_has_spoken_when_it_runs_and_says_who_it_is() {
        for (file, spoke) in [
            (json!({"pid": 7, "gateway_state": "running"}), true),
            (json!({"pid": 7, "gateway_state": "degraded"}), true),
            (json!({"pid": 7, "gateway_state": "draining"}), true),
            (json!({"pid": 7, "gateway_state": "starting", "served_profiles": ["default"]}), false),
            (json!({"pid": 7, "gateway_state": "startup_failed"}), false),
            (json!({"pid": 7, "gateway_state": "stopped"}), false),
            (json!({"pid": 7, "desired_state": "running"}), false),
            (json!({"pid": -1, "gateway_state": "running"}), false),
            (json!({"gateway_state": "running"}), false),
        ] {
            assert_eq!(says(file.clone()).is_some(), spoke, "{file}");
        }
        let odd = says(json!({"pid": 7, "gateway_state": "running", "served_profiles": [1, "work", null]}));
        assert_eq!(odd.unwrap().served, BTreeSet::from(["work".to_owned()]));
    }

    #[test]
    fn the_mark_of_a_parked_profile_comes_and_goes() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join("profiles/work")).unwrap();
        let (beneath, own) = (Beneath::open(home.path()).unwrap(), Credentials::own());
        let names = [name("work"), name("gone")];
        let parked = || read(&beneath, &own, &names).unwrap().1;
        assert_eq!(parked(), BTreeSet::new());
        for _ in 0..2 {
            mark_parked(&beneath, &own, &name("work"), true).unwrap();
            assert_eq!(parked(), BTreeSet::from([name("work")]));
        }
        for _ in 0..2 {
            mark_parked(&beneath, &own, &name("work"), false).unwrap();
            assert_eq!(parked(), BTreeSet::new());
        }
        assert!(mark_parked(&beneath, &own, &name("gone"), true).is_err());
    }

    #[test]
    fn a_gateway_that_was_left_no_room_wrote_nothing() {
        let home = tempfile::tempdir().unwrap();
        let (beneath, own) = (Beneath::open(home.path()).unwrap(), Credentials::own());
        let wrote = |pid| wrote_state(&beneath, &own, Path::new(""), pid).unwrap();
        assert!(!wrote(7), "no file");
        std::fs::write(
            home.path().join("gateway_state.json"),
            r#"{"pid":7,"gateway_state":"startup_failed"}"#,
        )
        .unwrap();
        assert!(wrote(7));
        assert!(!wrote(8), "the file of an earlier life");
    }
}
