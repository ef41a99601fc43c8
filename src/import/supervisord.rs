//! The programs of a supervisord.conf. What its keys mean and their defaults: supervisord's "Configuration File"
//! documentation, version 4.

use super::draft::{DAY, Draft, ROOT};
use super::ini::{self, Ini, ValueError};
use super::{Env, Gathered};
use crate::s6::bundle;
use std::collections::{BTreeMap, BTreeSet};
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
/// Names of the container's stdout: supervisord's own, and PID 1's.
const STDOUT: [&str; 4] = ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "/proc/1/fd/1"];
/// Names of the container's stderr.
const STDERR: [&str; 4] = ["/dev/stderr", "/dev/fd/2", "/proc/self/fd/2", "/proc/1/fd/2"];
/// Permission bits of a file that may hold secrets.
const OWNER_ONLY: u32 = 0o600;
const SECOND: Duration = Duration::from_secs(1);
/// Bounds of a definition's `limit` and `backoff`, and of its log.
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
const MOST_FAILURES: u64 = 10_000;
const LOG_SIZES: std::ops::RangeInclusive<u64> = 4096..=100_000_000_000;

pub(super) fn import(path: &Path, scope: usize, env: &Env<'_>, gathered: &mut Gathered) {
    let mut read = Vec::new();
    if let Some(ini) = load(path, gathered) {
        // As in supervisord, an included file cannot include others. Each file counts once: `files = *.conf` names the
        // file itself, too.
        let files = included(path, &ini, env, gathered);
        read.push((path.to_owned(), ini));
        let mut known = BTreeSet::from([whole(path)]);
        let new = files.into_iter().filter(|file| known.insert(whole(file)));
        read.extend(new.filter_map(|file| load(&file, gathered).map(|ini| (file, ini))).collect::<Vec<_>>());
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
                    Err(error) => gathered.fail(&file, &format!("[{section}] cannot be imported: {error}")),
                },
                ("eventlistener", _) => {
                    gathered.fail(&file, &format!("[{section}] cannot be imported: no service is told of events. Where it ends the container after a failure: role = \"essential\" in that program's definition does so"));
                }
                ("program" | "fcgi-program", _) => {
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

/// The same for every path of a file.
fn whole(file: &Path) -> PathBuf {
    std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned())
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
            for pattern in patterns.split_whitespace().take(MOST) {
                // Joined as text, a special character in the directory's own name must not become a pattern.
                let whole = match pattern.starts_with('/') {
                    true => pattern.to_owned(),
                    false => format!("{}/{pattern}", glob::Pattern::escape(&here.to_string_lossy())),
                };
                match glob::glob(&whole) {
                    Ok(found) => files.extend(found.take(MOST - files.len()).filter_map(Result::ok)),
                    Err(error) => gathered.fail(path, &format!("[include] files '{pattern}': {error}")),
                }
            }
            if files.len() == MOST {
                gathered.fail(path, &format!("[include] names {MOST} files or more: the rest is not read"));
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
    env: Variables,
    user: Option<String>,
    umask: Option<u32>,
    directory: Option<String>,
    notes: Vec<String>,
}

impl Common {
    fn of(path: &Path, read: &[(PathBuf, Ini)], env: &Env<'_>, gathered: &mut Gathered) -> Self {
        let mut common = Self::default();
        let Some(keys) = read.iter().find_map(|(_, ini)| section(ini, "supervisord")) else { return common };
        let lookup = |name: &str| general(name, path, env);
        for (key, raw) in keys {
            if key == "environment" {
                common.env = Variables::read(raw, &lookup, "[supervisord] environment");
                continue;
            }
            let value = match ini::expand(raw, &lookup) {
                Ok(value) => value,
                Err(why) => {
                    gathered.remark(path, &format!("[supervisord] {key} {why}: not carried over"));
                    continue;
                }
            };
            match key.as_str() {
                "umask" if octal(&value).is_some() => common.umask = octal(&value),
                "directory" if value.starts_with('/') => common.directory = Some(value),
                "user" if !value.is_empty() => common.user = Some(value),
                _ => {
                    gathered.remark(path, &format!("[supervisord] {key}: not carried over"));
                    continue;
                }
            }
            common.notes.extend(frozen(raw, &format!("[supervisord] {key}")));
        }
        common
    }
}

/// Of a value with `%(ENV_X)s` in it: that the definition holds what X was at the import.
fn frozen(raw: &str, place: &str) -> Option<String> {
    let names: Vec<String> =
        environment_names(raw).into_iter().map(|name| format!("%(ENV_{name})s")).collect();
    (!names.is_empty()).then(|| {
        format!(
            "{} in {place}: the value at the import stands there; it may be a secret, so only the file's owner may read it",
            names.join(", ")
        )
    })
}

/// The X of every `%(ENV_X)s`.
fn environment_names(raw: &str) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for part in raw.split("%(ENV_").skip(1) {
        let name = part.split(')').next().unwrap_or_default();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// A list `environment`, each variable expanded alone: one that cannot be expanded is left out, the others stay.
#[derive(Default)]
struct Variables {
    /// `None`: what the supervisor's own environment says, or nothing.
    values: BTreeMap<String, Option<String>>,
    /// By the variable, or by nothing when all are concerned.
    notes: Vec<(Option<String>, String)>,
    /// Some hold what our own environment said.
    private: bool,
}

impl Variables {
    fn read(raw: &str, lookup: &dyn Fn(&str) -> Option<String>, place: &str) -> Self {
        let mut read = Self::default();
        let Ok(listed) = ini::pairs(raw) else {
            // The list itself may be what an expansion gives.
            match ini::expand(raw, lookup).and_then(|list| ini::pairs(&list)) {
                Ok(pairs) => read.values = pairs.into_iter().map(|(key, value)| (key, Some(value))).collect(),
                Err(why) => read.notes.push((None, format!("{place} {why}"))),
            }
            if let Some(held) = frozen(raw, place).filter(|_| !read.values.is_empty()) {
                read.notes.push((None, held));
                read.private = true;
            }
            return read;
        };
        for (key, value) in listed {
            // Every service has the supervisor's environment.
            let expanded = match value == format!("%(ENV_{key})s") {
                true => Ok(None),
                false => ini::expand(&value, lookup).map(Some),
            };
            match &expanded {
                Ok(None) => {}
                Ok(Some(_)) => {
                    if let Some(held) = frozen(&value, &format!("{place}: {key}")) {
                        read.notes.push((Some(key.clone()), held));
                        read.private = true;
                    }
                }
                Err(why) => {
                    let note = format!("{place}: {key} {why}: this variable is left out");
                    read.notes.push((Some(key.clone()), note));
                }
            }
            read.values.insert(key, expanded.ok().flatten());
        }
        read
    }
}

/// Why a program cannot be imported.
#[derive(Debug, thiserror::Error)]
enum ProgramError {
    #[error("{key} = {text} is not a number")]
    NoNumber { key: &'static str, text: String },
    #[error("numprocs = {0} is too many; allowed: {MOST}")]
    TooMany(u64),
    #[error("numprocs needs a process_name with %(process_num)d")]
    OneName,
    #[error("{key} {error}")]
    Value { key: &'static str, error: ValueError },
    #[error("it has no command")]
    NoCommand,
    #[error("its command names no program")]
    NoProgram,
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
    fn drafts(&self, name: &str, keys: &BTreeMap<String, String>) -> Result<Vec<(i64, Draft)>, ProgramError> {
        let number = |key: &'static str, default: u64| {
            let Some(text) = keys.get(key) else { return Ok(default) };
            text.parse().map_err(|_| ProgramError::NoNumber { key, text: text.clone() })
        };
        let (count, start) = (number("numprocs", 1)?, number("numprocs_start", 0)?);
        if count > MOST as u64 || start > 1 << 40 {
            return Err(ProgramError::TooMany(count));
        }
        if count > 1 && !keys.get("process_name").is_some_and(|name| name.contains("%(process_num)")) {
            return Err(ProgramError::OneName);
        }
        (start..start + count).map(|process| self.draft(name, keys, process, count)).collect()
    }

    fn draft(
        &self,
        name: &str,
        keys: &BTreeMap<String, String>,
        process: u64,
        count: u64,
    ) -> Result<(i64, Draft), ProgramError> {
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
            let raw = values.left.remove(key)?;
            values.note_frozen(key, &raw);
            Some(ini::expand(&raw, &lookup).map_err(|error| ProgramError::Value { key, error }))
        });
        let command = command.ok_or(ProgramError::NoCommand)??;
        let wrong = |error| ProgramError::Value { key: "command", error };
        values.draft.command = ini::words(&command).map_err(wrong)?;
        if values.draft.command.first().is_none_or(String::is_empty) {
            return Err(ProgramError::NoProgram);
        }
        if Path::new(&values.draft.command[0]).file_name().is_some_and(|name| name == "pidproxy") {
            values.draft.note("pidproxy comes with supervisord and needs it no more: the whole tree gets the stop signal here, so name the program itself as command");
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
                self.note_frozen(key, &raw);
                Some(value)
            }
            Err(why) => {
                self.draft.note(format!("{key} {why}"));
                None
            }
        }
    }

    fn note_frozen(&mut self, key: &str, raw: &str) {
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
    fn refuse(&mut self, key: &str, why: &str) {
        self.left.remove(key);
        self.draft.note(format!("{key}: {why}"));
    }

    fn refuse_if_there(&mut self, key: &str, why: &str) {
        if self.left.contains_key(key) {
            self.refuse(key, why);
        }
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

    fn starting(&mut self) {
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
                // `on-failure` alone is what is expected by default, an exit with 0.
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
            // Its waits grow by a second each; together with the times it may be up that is how long all tries take.
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

    /// What a definition says otherwise about starts and restarts.
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

    fn stopping(&mut self) {
        if let Some(text) = self.take("stopsignal") {
            self.draft.take_stop_signal(&text, &format!("stopsignal = {text}"));
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
        let [out, err] = ["stdout_logfile", "stderr_logfile"].map(|key| Place::of(self.take(key)));
        let redirected = self.flag("redirect_stderr") == Some(true);
        self.named_places(&out, &err, redirected);
        // One flag for both streams: what one of them showed is not hidden because of the other.
        let shown = out.is_container() || (!redirected && err.is_container());
        self.draft.files_only = out.is_elsewhere() && !shown;
        if out.is_elsewhere() && shown {
            self.draft.note("stdout_logfile: its lines go to the container, too, as those of stderr do: there is one setting for both streams");
        }
        if let Some(text) = self.take("stdout_logfile_maxbytes") {
            match bytes(&text) {
                Some(0) if !out.is_file() => {}
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
        if let Some(keep) = self.integer("stdout_logfile_backups", 0..=10_000)
            && out.is_file()
        {
            self.draft.log_keep = u32::try_from(keep).ok();
        }
        if redirected {
            self.draft.note(
                "redirect_stderr: both streams are in one log anyway, the lines of stderr marked with '!'",
            );
        }
        for key in ["stderr_logfile_maxbytes", "stderr_logfile_backups"] {
            if err.is_file() {
                self.refuse_if_there(key, ONE_LOG);
            } else {
                self.left.remove(key);
            }
        }
    }

    /// Places that a definition does not know.
    fn named_places(&mut self, out: &Place, err: &Place, redirected: bool) {
        const LOG: &str = "the log is <home>/logs/gateways/NAME/current";
        match out {
            Place::File(place) => self.draft.note(format!("stdout_logfile = {place}: {LOG}")),
            Place::Nowhere(word) => {
                self.draft.note(format!("stdout_logfile = {word}: nothing is thrown away: {LOG}"));
            }
            Place::Syslog => self.draft.note(format!("stdout_logfile = syslog: {LOG}")),
            Place::Container(Stream::Err, place) => {
                self.draft.note(format!("stdout_logfile = {place}: it stays the container's stdout"));
            }
            Place::Console(place) => {
                self.draft.note(format!("stdout_logfile = {place}: its lines go to the container's stdout"));
            }
            Place::Unsaid | Place::Auto | Place::Container(Stream::Out, _) => {}
        }
        if redirected {
            return;
        }
        match err {
            Place::File(place) => self.draft.note(format!("stderr_logfile = {place}: {ONE_LOG}")),
            Place::Nowhere(word) => {
                self.draft.note(format!("stderr_logfile = {word}: nothing is thrown away: {ONE_LOG}"));
            }
            Place::Syslog => self.draft.note(format!("stderr_logfile = syslog: {ONE_LOG}")),
            Place::Auto => self.draft.note(format!("stderr_logfile = AUTO: {ONE_LOG}")),
            Place::Container(Stream::Out, place) => {
                self.draft.note(format!("stderr_logfile = {place}: it stays the container's stderr"));
            }
            Place::Console(place) => {
                self.draft.note(format!("stderr_logfile = {place}: its lines go to the container's stderr"));
            }
            Place::Unsaid | Place::Container(Stream::Err, _) => {}
        }
    }
}

/// What a definition makes of stderr.
const ONE_LOG: &str = "both streams are in one log, the lines of stderr marked with '!'";

/// Where a stream of a program is written to.
enum Place {
    Unsaid,
    /// A file that supervisord names.
    Auto,
    /// Nothing is kept.
    Nowhere(String),
    Syslog,
    Container(Stream, String),
    /// The container's terminal.
    Console(String),
    File(String),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stream {
    Out,
    Err,
}

impl Place {
    fn of(text: Option<String>) -> Self {
        let Some(text) = text else { return Self::Unsaid };
        match text.to_lowercase().as_str() {
            "auto" => Self::Auto,
            "none" | "off" | "/dev/null" => Self::Nowhere(text),
            "syslog" => Self::Syslog,
            "/dev/console" | "/dev/tty" => Self::Console(text),
            place if STDOUT.contains(&place) => Self::Container(Stream::Out, text),
            place if STDERR.contains(&place) => Self::Container(Stream::Err, text),
            _ => Self::File(text),
        }
    }

    fn is_container(&self) -> bool {
        matches!(self, Self::Container(..) | Self::Console(_))
    }

    /// It is said, and is not the container's output.
    fn is_elsewhere(&self) -> bool {
        !self.is_container() && !matches!(self, Self::Unsaid)
    }

    /// supervisord keeps a file, so what it says about its size counts.
    fn is_file(&self) -> bool {
        matches!(self, Self::Unsaid | Self::Auto | Self::File(_))
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
