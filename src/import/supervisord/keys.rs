//! The keys of one program, but for those about its output: who it runs as, how it starts and stops.

use super::common::{Common, Variables, frozen};
use super::octal;
use crate::import::draft::{DAY, Draft, ROOT};
use crate::import::ini;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Permission bits of a file that may hold secrets.
const OWNER_ONLY: u32 = 0o600;
const SECOND: Duration = Duration::from_secs(1);
/// Bounds of a definition's `limit` and `backoff`.
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
const MOST_FAILURES: u64 = 10_000;

/// The keys of one program, taken one by one; what is left has no counterpart.
pub(super) struct Keys<'a> {
    pub(super) left: BTreeMap<String, String>,
    pub(super) lookup: &'a dyn Fn(&str) -> Option<String>,
    pub(super) draft: Draft,
}

impl Keys<'_> {
    pub(super) fn take(&mut self, key: &str) -> Option<String> {
        let raw = self.left.remove(key)?;
        match ini::expand(&raw, self.lookup) {
            Ok(value) => {
                self.note_frozen(key, &raw);
                Some(value)
            }
            Err(why) => {
                self.draft.note(format!("{key} {why}"));
                None
            }
        }
    }

    pub(super) fn note_frozen(&mut self, key: &str, raw: &str) {
        if let Some(held) = frozen(raw, key) {
            self.draft.note(held);
            self.draft.mode &= OWNER_ONLY;
        }
    }

    /// The variables of `[supervisord]`, and over them the program's own.
    fn environment(&mut self, common: &Variables) {
        let own = self.left.remove("environment");
        let own = own.map(|raw| Variables::read(&raw, self.lookup, "environment")).unwrap_or_default();
        let is_own = |key: &String| own.values.contains_key(key);
        let inherited = common.notes.iter().filter(|(about, _)| !about.as_ref().is_some_and(is_own));
        inherited.chain(&own.notes).for_each(|(_, note)| self.draft.note(note));
        if common.private || own.private {
            self.draft.mode &= OWNER_ONLY;
        }
        let mut values = common.values.clone();
        values.extend(own.values);
        self.draft.env = values.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
    }

    /// Takes `key` away and says why it is not carried over; values may be secrets and are not shown.
    pub(super) fn refuse(&mut self, key: &str, why: &str) {
        self.left.remove(key);
        self.draft.note(format!("{key}: {why}"));
    }

    pub(super) fn refuse_if_there(&mut self, key: &str, why: &str) {
        if self.left.contains_key(key) {
            self.refuse(key, why);
        }
    }

    pub(super) fn integer(&mut self, key: &str, allowed: RangeInclusive<i64>) -> Option<i64> {
        let text = self.take(key)?;
        let number = text.parse().ok().filter(|number| allowed.contains(number));
        if number.is_none() {
            self.draft.note(format!("{key} = {text}: is not a number that can be used"));
        }
        number
    }

    pub(super) fn flag(&mut self, key: &str) -> Option<bool> {
        let text = self.take(key)?;
        let value = truth(&text);
        if value.is_none() {
            self.draft.note(format!("{key} = {text}: is neither true nor false"));
        }
        value
    }

    pub(super) fn identity(&mut self, common: &Common) {
        common.notes.iter().for_each(|note| self.draft.note(note));
        if !common.notes.is_empty() {
            self.draft.mode &= OWNER_ONLY;
        }
        self.draft.user = self.take("user").filter(|user| !user.is_empty()).or_else(|| common.user.clone());
        // supervisord runs it as its own user, who is root in a container.
        self.draft.user.get_or_insert_with(|| ROOT.to_owned());
        self.draft.working_dir = common.directory.clone();
        if let Some(directory) = self.take("directory") {
            match directory.starts_with('/') {
                true => self.draft.working_dir = Some(directory),
                false => self.draft.note(format!("directory = {directory}: is not an absolute path")),
            }
        }
        self.environment(&common.env);
        self.draft.umask = common.umask;
        if let Some(text) = self.take("umask") {
            match octal(&text) {
                Some(mask) => self.draft.umask = Some(mask),
                None => self.draft.note(format!("umask = {text}: is not an octal mode")),
            }
        }
    }

    pub(super) fn starting(&mut self) {
        self.draft.held_down = self.flag("autostart") == Some(false);
        let autorestart = self.take("autorestart").unwrap_or_else(|| "unexpected".to_owned());
        let has_codes = self.left.contains_key("exitcodes");
        let expected = self.expected_codes();
        if has_codes && truth(&autorestart).is_some() {
            self.draft
                .note(format!("exitcodes: say nothing with autorestart = {autorestart}, as in supervisord"));
        }
        self.draft.policy = match truth(&autorestart) {
            Some(true) => Some("always"),
            Some(false) => Some("never"),
            None => {
                if autorestart.to_lowercase() != "unexpected" {
                    self.draft
                        .note(format!("autorestart = {autorestart}: is not known, and counts as unexpected"));
                }
                // `on-failure` expects an exit with 0, which is the default there, too.
                let policy = if expected.contains(&0) { "on-failure" } else { "always" };
                let others = expected.into_iter().filter(|code| *code != 0);
                self.draft.exit_codes = others.map(|code| (code, "stop")).collect();
                Some(policy)
            }
        };
        self.differences(truth(&autorestart));
        let seconds = self.integer("startsecs", 0..=i64::from(u32::MAX));
        let retries = self.integer("startretries", 0..=i64::MAX);
        if let Some(seconds) = seconds {
            let up = Duration::from_secs(seconds.unsigned_abs()).min(YEAR);
            self.draft.reset_after = Some(up);
        }
        if let Some(retries) = retries {
            let retries = retries.unsigned_abs().min(MOST_FAILURES);
            // supervisord waits a second longer before each try. All waits and the times that it may be up make the interval.
            let waits = Duration::from_secs(retries * (retries + 1) / 2);
            let up = self
                .draft
                .reset_after
                .unwrap_or(SECOND)
                .saturating_mul(u32::try_from(retries + 1).unwrap_or(u32::MAX));
            let interval = waits.saturating_add(up).clamp(SECOND, YEAR);
            self.draft.limit = Some((u32::try_from(retries).unwrap_or(u32::MAX), interval));
        }
    }

    /// Notes where starts and restarts differ from supervisord's.
    fn differences(&mut self, restarts: Option<bool>) {
        if self.left.contains_key("startsecs") {
            self.draft.note("startsecs: so long a run ends a row of failures; a start counts as done at once, and an expected exit before it is no failure");
        }
        if restarts == Some(false) {
            if self.left.contains_key("startretries") {
                self.draft
                    .note("startretries: with autorestart = false a start that fails is not tried again");
            }
            return;
        }
        let starts = if self.left.contains_key("startretries") { "startretries" } else { "autorestart" };
        self.draft.note(format!("{starts}: what ran for startsecs is restarted without end there; here every failure counts towards [restart] limit, unless it is \"none\""));
    }

    fn expected_codes(&mut self) -> Vec<u8> {
        let Some(text) = self.take("exitcodes") else { return vec![0] };
        let mut codes = Vec::new();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match word.parse() {
                Ok(code) => codes.push(code),
                Err(_) => self.draft.note(format!("exitcodes: '{word}' is not an exit code")),
            }
        }
        codes
    }

    pub(super) fn stopping(&mut self) {
        if let Some(text) = self.take("stopsignal") {
            self.draft.take_stop_signal(&text, &format!("stopsignal = {text}"));
        }
        if let Some(seconds) = self.integer("stopwaitsecs", 0..=i64::MAX) {
            let wait = Duration::from_secs(seconds.unsigned_abs());
            if wait > DAY {
                self.draft.note("stopwaitsecs: a stop takes no longer than a day");
            }
            // A definition cannot say zero.
            self.draft.stop_timeout = Some(wait.clamp(Duration::from_millis(1), DAY));
        }
        if self.flag("stopasgroup") == Some(true) {
            self.draft
                .note("stopasgroup: the main process gets the signal first, then what is left of its tree");
        }
        // The whole tree is killed in any case.
        self.flag("killasgroup");
    }
}

fn truth(text: &str) -> Option<bool> {
    match text.to_lowercase().as_str() {
        "true" | "yes" | "on" | "t" | "y" | "1" => Some(true),
        "false" | "no" | "off" | "f" | "n" | "0" => Some(false),
        _ => None,
    }
}
