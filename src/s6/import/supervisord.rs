//! The programs of a supervisord.conf. What its keys mean and their defaults: supervisord's "Configuration File"
//! documentation, version 4.

use super::draft::{DAY, Draft};
use super::ini::{self, Ini};
use super::{Env, Gathered};
use crate::core::signal::Signal;
use crate::s6::bundle;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Most processes of one program, and most files of one `[include]`.
const MOST: usize = 1000;
/// What a program has without a `priority`.
const PRIORITY: i64 = 999;
/// Lines of one file that are named as neither section nor key; another kind of file has nothing else.
const MOST_FAULTS: usize = 5;
/// Sections about supervisord itself.
const OWN_SECTIONS: [&str; 4] = ["supervisord", "supervisorctl", "unix_http_server", "inet_http_server"];
/// What is also written to the container without any log file.
const CONTAINER: [&str; 6] =
    ["/dev/stdout", "/dev/stderr", "/dev/fd/1", "/dev/fd/2", "/proc/self/fd/1", "/proc/self/fd/2"];
const SECOND: Duration = Duration::from_secs(1);
/// Bounds of a definition's `limit` and `backoff`, and of its log.
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
const MOST_FAILURES: u64 = 10_000;
const LOG_SIZES: std::ops::RangeInclusive<u64> = 4096..=100_000_000_000;

pub(super) fn import(path: &Path, scope: usize, env: &Env<'_>, gathered: &mut Gathered) {
    let mut files = vec![path.to_owned()];
    let mut read = Vec::new();
    while let Some(file) = files.pop() {
        let Some(ini) = load(&file, gathered) else { continue };
        // As in supervisord, an included file cannot include others.
        if file == *path {
            files = included(path, &ini, env, gathered);
            files.reverse();
        }
        read.push((file, ini));
    }
    let common = Common::of(path, &read, env, gathered);
    let mut found: Vec<(i64, Draft)> = Vec::new();
    for (file, ini) in read {
        let mode = std::fs::metadata(&file).map_or(0o600, |stat| stat.mode());
        for (section, keys) in ini.sections {
            let source = Program { file: &file, scope, mode, common: &common, env };
            match section.split_once(':').map_or((section.as_str(), ""), |(kind, name)| (kind, name.trim())) {
                ("program", name) if !name.is_empty() => match source.drafts(name, &keys) {
                    Ok(drafts) => found.extend(drafts),
                    Err(why) => gathered.fail(&file, &format!("[{section}] cannot be imported: {why}")),
                },
                ("program" | "eventlistener" | "fcgi-program", _) => {
                    gathered.fail(&file, &format!("[{section}] cannot be imported: it has no counterpart"));
                }
                ("group", _) => {
                    gathered.remark(
                        &file,
                        &format!("[{section}]: there are no groups; its programs are imported one by one"),
                    );
                }
                _ if section == "include" || OWN_SECTIONS.contains(&section.as_str()) => {}
                _ => gathered.remark(&file, &format!("[{section}] is not carried over")),
            }
        }
    }
    if found.is_empty() {
        gathered.fail(path, "holds no [program:NAME] that can be imported");
    }
    in_order(&mut found);
    gathered.drafts.extend(found.into_iter().map(|(_, draft)| draft));
}

fn load(file: &Path, gathered: &mut Gathered) -> Option<Ini> {
    match bundle::text(file) {
        Ok(text) if text.contains('\0') => {
            gathered.fail(file, "contains a NUL character: is it a supervisord.conf?");
            None
        }
        Ok(text) => {
            let mut ini = ini::parse(&text);
            let faults = std::mem::take(&mut ini.faults);
            for fault in faults.iter().take(MOST_FAULTS) {
                gathered.fail(file, fault);
            }
            if faults.len() > MOST_FAULTS {
                gathered.fail(
                    file,
                    &format!("{} more such lines: is it a supervisord.conf?", faults.len() - MOST_FAULTS),
                );
            }
            Some(ini)
        }
        Err(error) => {
            gathered.fail(file, &format!("cannot be read: {error}"));
            None
        }
    }
}

fn section<'a>(ini: &'a Ini, name: &str) -> Option<&'a BTreeMap<String, String>> {
    ini.sections.iter().find(|(section, _)| section == name).map(|(_, keys)| keys)
}

/// The files of `[include]`, in the order of their patterns and then of their names.
fn included(path: &Path, ini: &Ini, env: &Env<'_>, gathered: &mut Gathered) -> Vec<PathBuf> {
    let Some(patterns) = section(ini, "include").and_then(|keys| keys.get("files")) else {
        return Vec::new();
    };
    let here = path.parent().unwrap_or(Path::new("/"));
    let lookup = |name: &str| general(name, path, env);
    let mut files = Vec::new();
    match ini::expand(patterns, &lookup) {
        Ok(patterns) => {
            for pattern in patterns.split_whitespace() {
                // Joined as text, a special character in the directory's own name must not become a pattern.
                let whole = match pattern.starts_with('/') {
                    true => pattern.to_owned(),
                    false => format!("{}/{pattern}", glob::Pattern::escape(&here.to_string_lossy())),
                };
                match glob::glob(&whole) {
                    Ok(found) => files.extend(found.take(MOST).filter_map(Result::ok)),
                    Err(error) => gathered.fail(path, &format!("[include] files '{pattern}': {error}")),
                }
            }
        }
        Err(why) => gathered.fail(path, &format!("[include] files {why}")),
    }
    files
}

/// What is known in every value.
fn general(name: &str, file: &Path, env: &Env<'_>) -> Option<String> {
    match name {
        "here" => file.parent().and_then(Path::to_str).map(str::to_owned),
        "host_node_name" => Some(rustix::system::uname().nodename().to_string_lossy().into_owned()),
        _ => env(name.strip_prefix("ENV_")?)?.into_string().ok(),
    }
}

/// What `[supervisord]` says about every program.
#[derive(Default)]
struct Common {
    env: BTreeMap<String, String>,
    umask: Option<u32>,
    directory: Option<String>,
}

impl Common {
    fn of(path: &Path, read: &[(PathBuf, Ini)], env: &Env<'_>, gathered: &mut Gathered) -> Self {
        let mut common = Self::default();
        let Some(keys) = read.iter().find_map(|(_, ini)| section(ini, "supervisord")) else { return common };
        let lookup = |name: &str| general(name, path, env);
        for (key, raw) in keys {
            let value = match ini::expand(raw, &lookup) {
                Ok(value) => value,
                Err(why) => {
                    gathered.remark(path, &format!("[supervisord] {key} {why}: not carried over"));
                    continue;
                }
            };
            match key.as_str() {
                "environment" => match ini::pairs(&value) {
                    Ok(pairs) => common.env = pairs,
                    Err(why) => {
                        gathered.remark(path, &format!("[supervisord] environment {why}: not carried over"))
                    }
                },
                "umask" if octal(&value).is_some() => common.umask = octal(&value),
                "directory" if value.starts_with('/') => common.directory = Some(value),
                _ => gathered.remark(path, &format!("[supervisord] {key}: not carried over")),
            }
        }
        common
    }
}

/// One `[program:x]`'s surroundings.
struct Program<'a> {
    file: &'a Path,
    scope: usize,
    mode: u32,
    common: &'a Common,
    env: &'a Env<'a>,
}

impl Program<'_> {
    /// A draft for each of its processes, with its priority.
    fn drafts(&self, name: &str, keys: &BTreeMap<String, String>) -> Result<Vec<(i64, Draft)>, String> {
        let number = |key: &str, default: u64| -> Result<u64, String> {
            let Some(text) = keys.get(key) else { return Ok(default) };
            text.parse().map_err(|_| format!("{key} = {text} is not a number"))
        };
        let (count, start) = (number("numprocs", 1)?, number("numprocs_start", 0)?);
        if count > MOST as u64 || start > 1 << 40 {
            return Err(format!("numprocs = {count} is too many; allowed: {MOST}"));
        }
        if count > 1 && !keys.get("process_name").is_some_and(|name| name.contains("%(process_num)")) {
            return Err("numprocs needs a process_name with %(process_num)d".to_owned());
        }
        (start..start + count).map(|process| self.draft(name, keys, process, count)).collect()
    }

    fn draft(
        &self,
        name: &str,
        keys: &BTreeMap<String, String>,
        process: u64,
        count: u64,
    ) -> Result<(i64, Draft), String> {
        let lookup = |word: &str| match word {
            "program_name" | "group_name" => Some(name.to_owned()),
            "process_num" => Some(process.to_string()),
            "numprocs" => Some(count.to_string()),
            _ => general(word, self.file, self.env),
        };
        let mut values = Values { left: keys.clone(), lookup: &lookup, draft: Draft::default() };
        values.draft.scope = self.scope;
        values.draft.source = self.file.to_owned();
        values.draft.mode = self.mode;
        let [command, process_name] = ["command", "process_name"].map(|key| {
            values
                .left
                .remove(key)
                .map(|raw| ini::expand(&raw, &lookup).map_err(|why| format!("{key} {why}")))
        });
        let command = command.ok_or("it has no command")??;
        values.draft.command = ini::words(&command).map_err(|why| format!("command {why}"))?;
        if values.draft.command.first().is_none_or(String::is_empty) {
            return Err("its command names no program".to_owned());
        }
        values.draft.wish = process_name.transpose()?.unwrap_or_else(|| name.to_owned());
        for key in ["numprocs", "numprocs_start"] {
            values.left.remove(key);
        }
        let priority = values.integer("priority", i64::MIN..=i64::MAX).unwrap_or(PRIORITY);
        values.identity(self.common);
        values.starting();
        values.stopping();
        values.logging();
        let left: Vec<String> = values.left.keys().cloned().collect();
        for key in left {
            values.refuse(&key, "it has no counterpart");
        }
        Ok((priority, values.draft))
    }
}

/// The keys of one program, taken one by one; what is left has no counterpart.
struct Values<'a> {
    left: BTreeMap<String, String>,
    lookup: &'a dyn Fn(&str) -> Option<String>,
    draft: Draft,
}

impl Values<'_> {
    fn take(&mut self, key: &str) -> Option<String> {
        let raw = self.left.remove(key)?;
        match ini::expand(&raw, self.lookup) {
            Ok(value) => {
                if raw.contains("%(ENV_") {
                    self.draft
                        .note(format!("{key}: the variables in it were replaced by their values of today"));
                }
                Some(value)
            }
            Err(why) => {
                self.draft.note(format!("{key} {why}"));
                None
            }
        }
    }

    /// Takes `key` away and says why it is not carried over; values may be secrets and are not shown.
    fn refuse(&mut self, key: &str, why: &str) {
        self.left.remove(key);
        self.draft.note(format!("{key}: {why}"));
    }

    fn integer(&mut self, key: &str, allowed: std::ops::RangeInclusive<i64>) -> Option<i64> {
        let text = self.take(key)?;
        let number = text.parse().ok().filter(|number| allowed.contains(number));
        if number.is_none() {
            self.draft.note(format!("{key} = {text}: is not a number that can be used"));
        }
        number
    }

    fn flag(&mut self, key: &str) -> Option<bool> {
        let text = self.take(key)?;
        let value = truth(&text);
        if value.is_none() {
            self.draft.note(format!("{key} = {text}: is neither true nor false"));
        }
        value
    }

    fn identity(&mut self, common: &Common) {
        self.draft.user = self.take("user").filter(|user| !user.is_empty());
        if self.draft.user.is_none() {
            self.draft.note("supervisord runs it as its own user; this runs as the gateway user, unless you add a line user = \"NAME\"");
        }
        self.draft.working_dir = common.directory.clone();
        if let Some(directory) = self.take("directory") {
            match directory.starts_with('/') {
                true => self.draft.working_dir = Some(directory),
                false => self.draft.note(format!("directory = {directory}: is not an absolute path")),
            }
        }
        self.draft.env = common.env.clone();
        if let Some(list) = self.take("environment") {
            match ini::pairs(&list) {
                Ok(pairs) => self.draft.env.extend(pairs),
                Err(why) => self.draft.note(format!("environment {why}")),
            }
        }
        self.draft.umask = common.umask;
        if let Some(text) = self.take("umask") {
            match octal(&text) {
                Some(mask) => self.draft.umask = Some(mask),
                None => self.draft.note(format!("umask = {text}: is not an octal mode")),
            }
        }
    }

    fn starting(&mut self) {
        self.draft.held_down = self.flag("autostart") == Some(false);
        let autorestart = self.take("autorestart").unwrap_or_else(|| "unexpected".to_owned());
        let expected = self.expected_codes();
        self.draft.policy = match truth(&autorestart) {
            Some(true) => Some("always"),
            Some(false) => Some("never"),
            None => {
                if autorestart.to_lowercase() != "unexpected" {
                    self.draft
                        .note(format!("autorestart = {autorestart}: is not known, and counts as unexpected"));
                }
                // `on-failure` alone is what is expected by default, an exit with 0.
                let policy = if expected.contains(&0) { "on-failure" } else { "always" };
                let others = expected.into_iter().filter(|code| *code != 0);
                self.draft.exit_codes = others.map(|code| (code, "stop")).collect();
                Some(policy)
            }
        };
        let seconds = self.integer("startsecs", 0..=i64::from(u32::MAX));
        let retries = self.integer("startretries", 0..=i64::MAX);
        if let Some(seconds) = seconds {
            let up = Duration::from_secs(seconds.unsigned_abs()).min(YEAR);
            self.draft.reset_after = Some(up);
        }
        if let Some(retries) = retries {
            let retries = retries.unsigned_abs().min(MOST_FAILURES);
            // Its waits grow by a second each; together with the times it may be up that is how long all tries take.
            let waits = Duration::from_secs(retries * (retries + 1) / 2);
            let up = self
                .draft
                .reset_after
                .unwrap_or(SECOND)
                .saturating_mul(u32::try_from(retries + 1).unwrap_or(u32::MAX));
            let interval = waits.saturating_add(up).clamp(SECOND, YEAR);
            self.draft.limit = Some((u32::try_from(retries).unwrap_or(u32::MAX), interval));
            self.draft.note("startretries: here the failures of every run within [restart] limit count, not only those while starting");
        }
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

    fn stopping(&mut self) {
        if let Some(text) = self.take("stopsignal") {
            self.draft.stop_signal = Signal::parse(&text);
            if self.draft.stop_signal.is_none() {
                self.draft.note(format!("stopsignal = {text}: is not a signal"));
            }
        }
        if let Some(seconds) = self.integer("stopwaitsecs", 0..=i64::MAX) {
            let wait = Duration::from_secs(seconds.unsigned_abs());
            if wait > DAY {
                self.draft.note("stopwaitsecs: a stop takes no longer than a day");
            }
            // No time at all is none that a definition can say.
            self.draft.stop_timeout = Some(wait.clamp(Duration::from_millis(1), DAY));
        }
        if self.flag("stopasgroup") == Some(true) {
            self.draft
                .note("stopasgroup: the main process gets the signal first, then what is left of its tree");
        }
        // The whole tree is killed in any case.
        self.flag("killasgroup");
    }

    fn logging(&mut self) {
        let to_container = |place: &str| CONTAINER.contains(&place);
        let out = self.take("stdout_logfile");
        match out.as_deref() {
            None => {}
            Some(place) if to_container(place) => {}
            Some("AUTO") => self.draft.files_only = true,
            Some(place) => {
                self.draft.files_only = true;
                self.draft
                    .note(format!("stdout_logfile = {place}: the log is <home>/logs/gateways/NAME/current"));
            }
        }
        let container = out.as_deref().is_some_and(to_container);
        if let Some(text) = self.take("stdout_logfile_maxbytes") {
            match bytes(&text) {
                Some(0) if container => {}
                Some(0) => self.draft.note("stdout_logfile_maxbytes = 0: every log is rotated"),
                Some(size) => {
                    let bounded = size.clamp(*LOG_SIZES.start(), *LOG_SIZES.end());
                    self.draft.log_size = Some(bounded);
                    if size != bounded {
                        self.draft.note(format!(
                            "stdout_logfile_maxbytes = {text}: a log file has 4096 bytes to 100GB"
                        ));
                    }
                }
                None => self.draft.note(format!("stdout_logfile_maxbytes = {text}: is not a size")),
            }
        }
        if let Some(keep) = self.integer("stdout_logfile_backups", 0..=10_000) {
            self.draft.log_keep = u32::try_from(keep).ok();
        }
        if self.flag("redirect_stderr") == Some(true) {
            self.draft.note(
                "redirect_stderr: both streams are in one log anyway, the lines of stderr marked with '!'",
            );
        }
        if self.left.get("stderr_logfile").is_some_and(|place| to_container(place)) {
            for key in ["stderr_logfile", "stderr_logfile_maxbytes"] {
                self.left.remove(key);
            }
        }
        for key in ["stderr_logfile", "stderr_logfile_maxbytes", "stderr_logfile_backups"] {
            if self.left.contains_key(key) {
                self.refuse(key, "both streams are in one log, the lines of stderr marked with '!'");
            }
        }
    }
}

/// Each starts after everything of the next lower priority.
fn in_order(found: &mut [(i64, Draft)]) {
    let mut levels: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    for (priority, draft) in found.iter() {
        levels.entry(*priority).or_default().push(draft.wish.clone());
    }
    for (priority, draft) in found {
        if let Some((_, before)) = levels.range(..*priority).next_back() {
            draft.after.clone_from(before);
        }
    }
}

fn truth(text: &str) -> Option<bool> {
    match text.to_lowercase().as_str() {
        "true" | "yes" | "on" | "t" | "y" | "1" => Some(true),
        "false" | "no" | "off" | "f" | "n" | "0" => Some(false),
        _ => None,
    }
}

fn octal(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 8).ok().filter(|mask| *mask <= 0o777)
}

/// `50MB` is 50 times 2^20 to supervisord.
fn bytes(text: &str) -> Option<u64> {
    let lower = text.to_lowercase();
    let units = [("kb", 1 << 10), ("mb", 1 << 20), ("gb", 1 << 30)];
    let (number, unit) = units
        .iter()
        .find_map(|(suffix, unit)| lower.strip_suffix(suffix).map(|number| (number, *unit)))
        .unwrap_or((&lower, 1));
    number.trim().parse::<u64>().ok()?.checked_mul(unit)
}
