//! One gateway or many: whether the gateway of a named profile has a process of its own, or the root profile's gateway
//! serves it.
//!
//! Which of the two holds depends on the version of Hermes, on variables, `.env` and `config.yaml`; the running root gateway
//! knows, and says so in its `gateway_state.json`. So it is asked, and nothing else is. What the file says counts only with
//! the process id of the gateway that we see running: it survives containers.
//!
//! The functions that take a `Beneath` block on the file system; the others are pure.

use super::{profiles, state_json};
use crate::core::clock::Tick;
use crate::core::exit::Exit;
use crate::core::fleet::Place;
use crate::core::gateway::Elsewhere;
use crate::core::name::ServiceName;
use crate::definition::template::DEFAULT_PROFILE;
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

/// EX_CONFIG of sysexits(3): a gateway that another one leaves no room for ends with it, as one that is badly configured.
const REFUSED: Exit = Exit::Code(78);

/// A profile's mark that its owner wants no gateway to serve it (`hermes -p NAME gateway stop`, since Hermes 0.21.5).
pub const PARKED: &str = "gateway.parked";

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

/// The process of the root gateway, as the loop sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Nobody wants it, or it was given up.
    Absent,
    OnItsWay,
    /// It may serve others until it has ended.
    Ending,
    /// The process with this id runs.
    Runs(u32),
}

/// The wait for the root gateway's word.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// It has spoken, or is not going to.
    #[default]
    Off,
    Until(Tick),
    /// It took too long. Nobody waits again before it has spoken or is gone.
    Over,
}

impl Hold {
    pub fn begin(now: Tick) -> Self {
        Self::Until(now.after(ROOT_PATIENCE))
    }

    pub fn deadline(self) -> Option<Tick> {
        match self {
            Self::Until(at) => Some(at),
            Self::Off | Self::Over => None,
        }
    }

    /// Time in which we did not run is nobody's timeout.
    pub fn postpone(&mut self, by: Duration) {
        if let Self::Until(at) = self {
            *at = at.after(by);
        }
    }

    /// Brings it up to date. `undecided`: the root gateway has yet to say something. Whether it took too long just now.
    pub fn pass(&mut self, undecided: bool, now: Tick) -> bool {
        let before = *self;
        *self = match before {
            _ if !undecided => Self::Off,
            Self::Off => Self::begin(now),
            Self::Until(at) if at <= now => Self::Over,
            Self::Until(_) | Self::Over => before,
        };
        *self == Self::Over && before != Self::Over
    }
}

/// The root gateway for those that depend on it. `word`: the last one of the process that is listened to.
pub fn root<'a>(seen: Seen, word: Option<&'a Word>, hold: Hold) -> Root<'a> {
    match (seen, word) {
        (Seen::Absent, _) => Root::Absent,
        (Seen::Runs(pid), Some(word)) if word.pid == pid => Root::Runs(word),
        (Seen::Ending, _) => Root::Coming,
        (Seen::Runs(_) | Seen::OnItsWay, _) if hold == Hold::Over => Root::Late,
        (Seen::Runs(_) | Seen::OnItsWay, _) => Root::Coming,
    }
}

/// What has to be known before the end of a named gateway can be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// Whether the root gateway serves the profile once it has looked again.
    Rescan,
    /// Whether it ended before it had begun, which is no fault of its own.
    WhyItEnded,
}

/// `needable`: the root gateway may be started for another one.
pub fn doubt(exit: Exit, root: Root<'_>, profile: &str, needable: bool) -> Option<Doubt> {
    match root {
        _ if exit != REFUSED => None,
        Root::Runs(word) if !word.served.contains(profile) => Some(Doubt::Rescan),
        Root::Absent if needable => Some(Doubt::WhyItEnded),
        Root::Runs(_) | Root::Absent | Root::Coming | Root::Late => None,
    }
}

/// Why no gateway serves a profile whose own one was given up after this end, and what helps.
pub fn unserved(exit: Exit, root: Root<'_>, profile: &str) -> Option<String> {
    match root {
        _ if exit != REFUSED => None,
        Root::Runs(word) if !word.served.contains(profile) => {
            let why = word.alone_because.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
            Some(format!(
                "'{DEFAULT_PROFILE}' does not serve it{why}: try 'hermes-sup ctl restart {DEFAULT_PROFILE}'"
            ))
        }
        Root::Absent => Some(format!("no gateway serves it: try 'hermes-sup ctl start {DEFAULT_PROFILE}'")),
        Root::Runs(_) | Root::Coming | Root::Late => None,
    }
}

/// What is new in the root gateway's word, for one line of the log.
pub fn news(old: Option<&Word>, new: &Word) -> Option<String> {
    if old.is_some_and(|old| old.served == new.served) {
        return None;
    }
    let served: Vec<&str> = new.served.iter().map(String::as_str).collect();
    match (new.multiplexes(), &new.alone_because) {
        (true, _) => Some(format!("it serves {}", served.join(", "))),
        (false, Some(why)) => Some(format!("it serves only its own profile: {why}")),
        (false, None) => old.map(|_| "it serves only its own profile".to_owned()),
    }
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

/// Puts the mark of a parked profile into its directory, or takes it away. Whether it was otherwise before.
///
/// # Errors
/// As openat(2) and unlinkat(2).
pub fn mark_parked(home: &Beneath, user: &Credentials, name: &ServiceName, parked: bool) -> io::Result<bool> {
    let mark = profiles::directory_of(name).join(PARKED);
    user.on_files(|| {
        if parked {
            return match home.open_file(&mark, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, 0o644) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
                made => made.map(|_| true),
            };
        }
        match home.remove_file(&mark) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            removed => removed.map(|()| true),
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

    /// The wait is bounded, and counted once for each time that the root gateway is on its way.
    #[test]
    fn the_wait_ends_with_the_word_or_after_its_time_and_is_not_begun_again_before_that() {
        let (start, late) = (Tick(1_000), Tick(1_000).after(ROOT_PATIENCE));
        let mut hold = Hold::default();
        assert!(!hold.pass(true, start));
        assert_eq!(hold, Hold::begin(start));
        assert!(!hold.pass(true, start.after(Duration::from_secs(59))));
        hold.postpone(Duration::from_secs(7));
        assert!(!hold.pass(true, late), "it did not run for a while");
        assert!(hold.pass(true, late.after(Duration::from_secs(7))), "now it took too long");
        assert!(!hold.pass(true, late.after(Duration::from_secs(600))), "which is said once");
        assert_eq!((hold, hold.deadline()), (Hold::Over, None));
        assert!(!hold.pass(false, late.after(Duration::from_secs(601))));
        assert_eq!(hold, Hold::Off);
    }

    #[test]
    fn the_root_gateway_has_spoken_only_with_the_word_of_the_process_that_runs() {
        let word = Word { pid: 7, ..Word::default() };
        for (seen, hold, expected) in [
            (Seen::Runs(7), Hold::Off, Root::Runs(&word)),
            (Seen::Runs(7), Hold::Over, Root::Runs(&word)),
            (Seen::Runs(8), Hold::Off, Root::Coming),
            (Seen::Runs(8), Hold::Over, Root::Late),
            (Seen::OnItsWay, Hold::Off, Root::Coming),
            (Seen::OnItsWay, Hold::Over, Root::Late),
            // It may serve others until it has ended, however long that takes.
            (Seen::Ending, Hold::Over, Root::Coming),
            (Seen::Absent, Hold::Over, Root::Absent),
        ] {
            assert_eq!(root(seen, Some(&word), hold), expected, "{seen:?}, {hold:?}");
        }
        assert_eq!(root(Seen::Runs(7), None, Hold::Off), Root::Coming);
    }

    #[test]
    fn only_the_end_of_a_gateway_that_was_left_no_room_is_in_doubt() {
        let serves = |names: &[&str]| Word {
            pid: 7,
            served: names.iter().map(|name| (*name).to_owned()).collect(),
            ..Word::default()
        };
        let (others, it) = (serves(&["default"]), serves(&["default", "work"]));
        let refused = Exit::Code(78);
        for (exit, root, needable, expected) in [
            (refused, Root::Runs(&others), true, Some(Doubt::Rescan)),
            (refused, Root::Runs(&it), true, None),
            (refused, Root::Absent, true, Some(Doubt::WhyItEnded)),
            (refused, Root::Absent, false, None),
            (refused, Root::Coming, true, None),
            (refused, Root::Late, true, None),
            (Exit::Code(75), Root::Runs(&others), true, None),
            (Exit::Code(1), Root::Absent, true, None),
        ] {
            assert_eq!(doubt(exit, root, "work", needable), expected, "{exit:?}, {root:?}");
        }
    }

    #[test]
    fn a_profile_that_no_gateway_serves_says_what_helps() {
        let refused = Exit::Code(78);
        let mut word = Word { pid: 7, served: BTreeSet::from(["default".to_owned()]), ..Word::default() };
        assert_eq!(
            unserved(refused, Root::Runs(&word), "work").as_deref(),
            Some("'default' does not serve it: try 'hermes-sup ctl restart default'")
        );
        word.alone_because = Some("s6".to_owned());
        assert_eq!(
            unserved(refused, Root::Runs(&word), "work").as_deref(),
            Some("'default' does not serve it (s6): try 'hermes-sup ctl restart default'")
        );
        assert_eq!(
            unserved(refused, Root::Absent, "work").as_deref(),
            Some("no gateway serves it: try 'hermes-sup ctl start default'")
        );
        assert_eq!(unserved(refused, Root::Runs(&word), "default"), None);
        assert_eq!(unserved(refused, Root::Coming, "work"), None);
        assert_eq!(unserved(Exit::Code(1), Root::Absent, "work"), None);
    }

    #[test]
    fn what_the_root_gateway_says_is_told_where_it_is_news() {
        let word = |served: &[&str], why: Option<&str>| Word {
            pid: 7,
            served: served.iter().map(|name| (*name).to_owned()).collect(),
            alone_because: why.map(str::to_owned),
        };
        let (alone, all) = (word(&[], None), word(&["default", "work"], None));
        assert_eq!(news(None, &alone), None, "as every gateway of old");
        assert_eq!(news(None, &all).as_deref(), Some("it serves default, work"));
        assert_eq!(news(Some(&all), &all), None);
        assert_eq!(news(Some(&all), &alone).as_deref(), Some("it serves only its own profile"));
        let why = word(&[], Some("s6"));
        assert_eq!(news(None, &why).as_deref(), Some("it serves only its own profile: s6"));
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
        for is_new in [true, false] {
            assert_eq!(mark_parked(&beneath, &own, &name("work"), true).unwrap(), is_new);
            assert_eq!(parked(), BTreeSet::from([name("work")]));
        }
        for was_there in [true, false] {
            assert_eq!(mark_parked(&beneath, &own, &name("work"), false).unwrap(), was_there);
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
