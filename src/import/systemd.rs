//! Service units of systemd. What their keys mean and their defaults: systemd.unit(5), systemd.service(5), systemd.exec(5),
//! systemd.kill(5), systemd.resource-control(5).

use super::Gathered;
use super::draft::{Check, DAY, Draft, Health, ROOT, Ready};
use super::exec::{self, Command};
use super::unit::{self, Unit, UnitError, UnitName};
use crate::core::limits::Key;
use crate::definition::is_capability;
use crate::s6::bundle;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

const SUFFIX: &str = ".service";
/// Names of other units of one import are those of all of them, whichever path they came by.
pub(super) const SCOPE: usize = usize::MAX;
/// What systemd has without `StartLimitIntervalSec` and `StartLimitBurst`.
const LIMIT: (u32, Duration) = (5, Duration::from_secs(10));
/// What a definition takes: systemd counts in microseconds.
const SHORTEST: Duration = Duration::from_millis(1);
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// What systemd has for a start and for a stop (`DefaultTimeoutStartSec`).
const PATIENCE: Duration = Duration::from_secs(90);

const HOOKS: [(&str, &str); 4] = [
    ("ExecStartPre", "pre_start"),
    ("ExecStartPost", "post_start"),
    ("ExecStop", "pre_stop"),
    ("ExecStopPost", "post_stop"),
];

/// Limits with the same meaning here, by their keys there.
const LIMITS: [(&str, Key); 10] = [
    ("MemoryMax", Key::MemoryMax),
    ("MemoryHigh", Key::MemoryHigh),
    ("MemorySwapMax", Key::SwapMax),
    ("TasksMax", Key::PidsMax),
    ("CPUQuota", Key::CpuMax),
    ("CPUWeight", Key::CpuWeight),
    ("IOWeight", Key::IoWeight),
    ("LimitNOFILE", Key::Nofile),
    ("LimitNPROC", Key::Nproc),
    ("LimitCORE", Key::Core),
];

/// Keys that ask for what every service has here, or that say nothing about how it is run.
const SILENT: [(&str, &str); 12] = [
    ("Unit", "Documentation"),
    ("Install", "WantedBy"),
    ("Install", "RequiredBy"),
    ("Service", "SyslogIdentifier"),
    ("Service", "RemainAfterExit"),
    ("Service", "MemoryAccounting"),
    ("Service", "CPUAccounting"),
    ("Service", "TasksAccounting"),
    ("Service", "IOAccounting"),
    ("Service", "GuessMainPID"),
    ("Service", "NotifyAccess"),
    ("Service", "Delegate"),
];

/// Keys without a counterpart, with what to do instead; for any other one there is nothing to say.
const INSTEAD: [(&str, &str); 9] = [
    ("ExecCondition", "it is not run: a `pre_start` that fails is a failure, and not a reason to leave it"),
    ("PIDFile", "the main process is the one that is started: have it stay in the foreground"),
    ("Group", "it runs with the groups of its user"),
    ("DynamicUser", "name a user that exists"),
    ("StandardOutput", "the log is <home>/logs/gateways/NAME/current"),
    ("StandardError", "the log is <home>/logs/gateways/NAME/current"),
    ("RuntimeDirectory", "make it in the image or in a oneshot that is required"),
    ("StateDirectory", "make it in the image or in a oneshot that is required"),
    ("Conflicts", "no service stops another one"),
];

/// Why a unit cannot be imported.
#[derive(Debug, thiserror::Error)]
enum UnitFault {
    #[error("is a template: give an instance of it, as in NAME@INSTANCE.service")]
    Template,
    #[error("has no [Service]")]
    NoService,
    #[error("has no ExecStart")]
    NoCommand,
    #[error(
        "has {0} lines ExecStart, and one service is one program: write a script, or a definition for each"
    )]
    Commands(usize),
    #[error("ExecStart {0}")]
    Value(#[from] UnitError),
}

pub(super) fn is_unit(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "service")
}

/// Every unit of a directory; `false`: there is none.
pub(super) fn directory(path: &Path, gathered: &mut Gathered) -> bool {
    let names = bundle::names(path).unwrap_or_default();
    let units: Vec<_> =
        names.iter().map(|name| path.join(name)).filter(|file| is_unit(file) && file.is_file()).collect();
    units.iter().for_each(|file| import(file, gathered));
    !units.is_empty()
}

pub(super) fn import(path: &Path, gathered: &mut Gathered) {
    let Some(stem) =
        path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(SUFFIX))
    else {
        return gathered.fail(path, "its name is no UTF-8 text: rename it");
    };
    let mut unit = Unit::default();
    let mut mode = 0o600;
    let mut dropins = path.as_os_str().to_owned();
    dropins.push(".d");
    let dropins = bundle::names(Path::new(&dropins))
        .unwrap_or_default()
        .into_iter()
        .map(|name| Path::new(&dropins).join(name));
    let dropins = dropins.filter(|file| file.extension().is_some_and(|extension| extension == "conf"));
    for (index, file) in std::iter::once(path.to_owned()).chain(dropins).enumerate() {
        match bundle::text(&file) {
            Ok(text) if text.contains('\0') => {
                return gathered.fail(&file, "contains a NUL character: is it a unit?");
            }
            Ok(text) => unit.add(&text).iter().for_each(|fault| gathered.fail(&file, fault)),
            Err(error) => return gathered.fail(&file, &format!("cannot be read: {error}")),
        }
        let own = std::fs::metadata(&file).map_or(0o600, |stat| stat.mode());
        mode = if index == 0 { own } else { mode & own };
    }
    let mut values = Values { unit, name: UnitName { stem }, draft: Draft::default(), start_timeout: None };
    values.draft.scope = SCOPE;
    values.draft.source = path.to_owned();
    values.draft.mode = mode;
    values.draft.wish = stem.to_owned();
    match values.read() {
        Ok(()) => gathered.drafts.push(values.draft),
        Err(fault) => gathered.fail(path, &fault.to_string()),
    }
}

/// The keys of one unit, taken one by one; what is left has no counterpart.
struct Values<'a> {
    unit: Unit,
    name: UnitName<'a>,
    draft: Draft,
    start_timeout: Option<Duration>,
}

impl Values<'_> {
    fn read(&mut self) -> Result<(), UnitFault> {
        if self.name.instance() == Some("") {
            return Err(UnitFault::Template);
        }
        if !self.unit.has_section("Service") {
            return Err(UnitFault::NoService);
        }
        self.identity();
        self.kind();
        self.command()?;
        self.order();
        self.restart();
        self.stop();
        self.limits();
        self.security();
        self.watchdog();
        self.hooks();
        self.reload();
        self.rest();
        Ok(())
    }

    /// The last value of a key in `[Service]`, with its specifiers replaced.
    fn service(&mut self, key: &str) -> Option<String> {
        let raw = self.unit.last("Service", key)?;
        match self.name.expand(&raw) {
            Ok(value) => Some(value),
            Err(error) => {
                self.draft.note(format!("{key} {error}"));
                None
            }
        }
    }

    /// The commands of all lines of a key; what is lost of them is noted.
    fn lines(&mut self, key: &str, knows_main_pid: bool) -> Result<Vec<Command>, UnitError> {
        let lines = self.unit.take("Service", key);
        let is_root = self.draft.user.as_deref() == Some(ROOT);
        let env = &self.draft.env;
        let mut reader =
            exec::Reader { name: self.name, env, knows_main_pid, is_root, notes: BTreeSet::new() };
        let commands = reader.commands(key, &lines);
        let notes = reader.notes;
        notes.iter().for_each(|note| self.draft.note(note));
        commands
    }

    fn command(&mut self) -> Result<(), UnitFault> {
        let commands = self.lines("ExecStart", false)?;
        let words = match commands.as_slice() {
            // What ends before the next one begins.
            commands if self.draft.oneshot => exec::joined(commands, true),
            [one] => {
                if one.may_fail {
                    self.draft.note("ExecStart with -: a failure of the program counts as one");
                }
                one.plain()
            }
            [] => None,
            many => return Err(UnitFault::Commands(many.len())),
        };
        self.draft.command = words.ok_or(UnitFault::NoCommand)?;
        Ok(())
    }

    fn identity(&mut self) {
        // Without a word of the unit, systemd's own user.
        let user = self.service("User").filter(|user| !user.is_empty());
        self.draft.user = Some(user.unwrap_or_else(|| ROOT.to_owned()));
        if let Some(directory) = self.service("WorkingDirectory") {
            let path = directory.trim_start_matches('-');
            match path.starts_with('/') {
                true => self.draft.working_dir = Some(path.to_owned()),
                false => self.draft.note(format!("WorkingDirectory={directory}: is not an absolute path")),
            }
        } else {
            self.draft.working_dir = Some("/".to_owned());
        }
        for raw in self.unit.take("Service", "Environment") {
            let read = self.name.expand(&raw).and_then(|value| unit::words(&value));
            match read {
                Ok(words) => {
                    for word in words {
                        match word.split_once('=') {
                            Some((key, value)) if !key.is_empty() => {
                                drop(self.draft.env.insert(key.to_owned(), value.to_owned()))
                            }
                            _ => self.draft.note("Environment: is not a list of NAME=VALUE"),
                        }
                    }
                }
                Err(error) => self.draft.note(format!("Environment {error}")),
            }
        }
        for raw in self.unit.take("Service", "EnvironmentFile") {
            match self.name.expand(&raw) {
                Ok(path) if path.starts_with('/') => self.draft.env_files.push(path),
                Ok(path) if path.starts_with("-/") => self.draft.env_files.push(path.replacen('-', "?", 1)),
                Ok(_) => self.draft.note("EnvironmentFile: is not an absolute path"),
                Err(error) => self.draft.note(format!("EnvironmentFile {error}")),
            }
        }
        if let Some(text) = self.service("UMask") {
            match u32::from_str_radix(&text, 8).ok().filter(|mask| *mask <= 0o777) {
                Some(mask) => self.draft.umask = Some(mask),
                None => self.draft.note(format!("UMask={text}: is not an octal mode")),
            }
        }
        self.draft.description =
            self.unit.last("Unit", "Description").and_then(|text| self.name.expand(&text).ok());
    }

    fn kind(&mut self) {
        let kind = self.service("Type").unwrap_or_else(|| "simple".to_owned());
        match kind.as_str() {
            "simple" | "exec" | "idle" => {}
            "notify" | "notify-reload" => self.draft.ready = Some(Ready::Notify),
            "oneshot" => self.draft.oneshot = true,
            "forking" => self
                .draft
                .note("Type=forking: the program must stay in the foreground; most have an option for that"),
            other => self.draft.note(format!("Type={other}: it counts as ready when it runs")),
        }
    }

    fn order(&mut self) {
        let mut named = |key: &str| -> Vec<String> {
            let values = self.unit.take("Unit", key);
            values.iter().flat_map(|value| value.split_whitespace()).map(str::to_owned).collect()
        };
        let requires: Vec<String> =
            ["Requires", "Requisite", "BindsTo"].iter().flat_map(|key| named(key)).collect();
        let (wants, after, before) = (named("Wants"), named("After"), named("Before"));
        let mut others = Vec::new();
        let mut services = |units: Vec<String>| -> Vec<String> {
            let (services, rest): (Vec<_>, Vec<_>) =
                units.into_iter().partition(|unit| unit.ends_with(SUFFIX));
            others.extend(rest);
            services.iter().map(|unit| unit[..unit.len() - SUFFIX.len()].to_owned()).collect()
        };
        self.draft.requires = services(requires);
        self.draft.after = services(after);
        // Wanted units start with it, which all do here; that it does not wait for them either.
        services(wants);
        for unit in before.iter().filter(|unit| unit.ends_with(SUFFIX)) {
            self.draft.note(format!("Before={unit}: write `after` in the other definition"));
        }
        others.sort();
        others.dedup();
        for unit in others {
            self.draft.note(format!("it names {unit}, and there are services only"));
        }
    }

    fn restart(&mut self) {
        let policy = self.service("Restart").unwrap_or_else(|| "no".to_owned());
        self.draft.policy = Some(match policy.as_str() {
            "no" => "never",
            "always" => "always",
            "on-failure" => "on-failure",
            "on-abnormal" | "on-abort" | "on-watchdog" => {
                self.draft.note(format!("Restart={policy}: it is restarted after every failure"));
                "on-failure"
            }
            other => {
                self.draft.note(format!("Restart={other}: it is restarted after every end"));
                "always"
            }
        });
        if self.draft.oneshot && self.draft.policy == Some("always") {
            self.draft.policy = Some("on-failure");
        }
        let first = self.duration("RestartSec", Duration::from_millis(1), DAY);
        let longest = self.duration("RestartMaxDelaySec", Duration::from_millis(1), DAY);
        self.service("RestartSteps");
        if let Some(first) = first {
            self.draft.backoff = Some((first, longest.unwrap_or(first).max(first)));
        }
        let burst = self.unit.last("Unit", "StartLimitBurst");
        let interval = self.unit.last("Unit", "StartLimitIntervalSec");
        if burst.is_some() || interval.is_some() {
            let burst = burst.map_or(Ok(LIMIT.0), |text| text.parse::<u32>());
            let interval = interval.map_or(Some(LIMIT.1), |text| span(&text));
            match (burst, interval) {
                (_, Some(Duration::ZERO)) => self.draft.unlimited = true,
                (Ok(burst), Some(interval)) => {
                    self.draft.limit = Some((burst.min(10_000), interval.clamp(SHORTEST, YEAR)))
                }
                _ => self.draft.note("StartLimitBurst and StartLimitIntervalSec: are no number and time"),
            }
        }
        for (key, rule) in [
            ("RestartPreventExitStatus", "failed"),
            ("RestartForceExitStatus", "now"),
            ("SuccessExitStatus", "stop"),
        ] {
            let Some(text) = self.service(key) else { continue };
            if rule == "stop" && self.draft.policy == Some("always") {
                self.draft.note(format!("{key}: with Restart=always it is restarted as after any exit"));
                continue;
            }
            for word in text.split_whitespace() {
                match word.parse::<u8>() {
                    Ok(code) => drop(self.draft.exit_codes.insert(code, rule)),
                    Err(_) => self.draft.note(format!("{key}={word}: is not a number of an exit code")),
                }
            }
        }
    }

    fn stop(&mut self) {
        if let Some(text) = self.service("KillSignal") {
            self.draft.take_stop_signal(&text, &format!("KillSignal={text}"));
        }
        let both = self.duration("TimeoutSec", SHORTEST, DAY);
        self.draft.stop_timeout = self.duration("TimeoutStopSec", SHORTEST, DAY).or(both);
        self.start_timeout = self.duration("TimeoutStartSec", SHORTEST, DAY).or(both);
        self.draft.ready_timeout = self.start_timeout;
        if let Some(mode) = self.service("KillMode").filter(|mode| mode != "control-group") {
            self.draft.note(format!("KillMode={mode}: the whole tree ends, the main process first"));
        }
        if self.service("SendSIGKILL").is_some_and(|text| truth(&text) == Some(false)) {
            self.draft.note("SendSIGKILL=no: what is left after the timeout is killed");
        }
    }

    fn limits(&mut self) {
        for (name, key) in LIMITS {
            // A `%` is no specifier there.
            let Some(text) = self.unit.last("Service", name) else { continue };
            // `SOFT:HARD`; systemd's own word for no limit.
            let hard = text.rsplit(':').next().unwrap_or_default();
            let value = if hard == "infinity" { "max" } else { hard };
            self.draft.take_limit(key, value, &format!("{name}={text}: '{value}'"));
        }
        if let Some(text) = self.service("OOMScoreAdjust") {
            self.draft.take_limit(Key::OomScoreAdj, &text, &format!("OOMScoreAdjust={text}: '{text}'"));
        }
        self.draft.ksm = self.service("MemoryKSM").is_some_and(|text| truth(&text) == Some(true));
        match self.service("MemoryTHP").as_deref() {
            None | Some("inherit") => {}
            Some("disable") => self.draft.no_thp = true,
            Some(other) => self.draft.note(format!("MemoryTHP={other}: `thp` is inherited or disabled")),
        }
        match self.service("OOMPolicy").as_deref() {
            None | Some("continue") => {}
            Some("stop" | "kill") => drop(self.draft.limits.insert(Key::Oom.as_str(), "service".to_owned())),
            Some(other) => self.draft.note(format!("OOMPolicy={other}: is not known")),
        }
    }

    fn security(&mut self) {
        self.draft.no_new_privs = self.service("NoNewPrivileges").and_then(|text| truth(&text));
        for (key, ambient) in [("CapabilityBoundingSet", false), ("AmbientCapabilities", true)] {
            let Some(text) = self.service(key) else { continue };
            if text.starts_with('~') {
                self.draft.note(format!("{key}={text}: name those that it needs in [security]"));
                continue;
            }
            // systemd leaves out what it does not know, too.
            let (names, unknown): (Vec<&str>, Vec<&str>) =
                text.split_whitespace().partition(|name| is_capability(name));
            unknown.iter().for_each(|name| self.draft.note(format!("{key}={name}: is not known")));
            let names = names.iter().map(|name| name.trim_start_matches("CAP_").to_owned()).collect();
            *(if ambient { &mut self.draft.ambient } else { &mut self.draft.capabilities }) = Some(names);
        }
    }

    fn watchdog(&mut self) {
        let Some(silence) = self.duration("WatchdogSec", SHORTEST, DAY) else { return };
        // It counts from the report that it is ready.
        let health = Health {
            timeout: Some(silence),
            start_period: Some(Duration::ZERO),
            ..Health::new(Check::Watchdog)
        };
        self.draft.health = Some(health);
    }

    fn hooks(&mut self) {
        for (key, hook) in HOOKS {
            let is_beside = matches!(hook, "post_start" | "pre_stop");
            let commands = match self.lines(key, is_beside) {
                Ok(commands) => commands,
                Err(error) => {
                    self.draft.note(format!("{key} {error}"));
                    continue;
                }
            };
            let Some(words) = exec::joined(&commands, hook == "pre_start") else { continue };
            if is_beside && self.draft.oneshot {
                self.draft
                    .note(format!("{key}: it is not run: nothing of a oneshot is there when it is done"));
                continue;
            }
            self.draft.hooks.push((hook, words));
        }
        let has = |hook| self.draft.hooks.iter().any(|(name, _)| *name == hook);
        let is_before_stop = has("pre_stop");
        let start = match self.draft.oneshot {
            true => DAY,
            false => PATIENCE,
        };
        let start = (has("pre_start") || has("post_start")).then(|| self.start_timeout.unwrap_or(start));
        let stop = self.draft.stop_timeout.unwrap_or(PATIENCE);
        let end = (is_before_stop || has("post_stop")).then_some(stop);
        self.draft.hooks_timeout = start.max(end);
        if is_before_stop {
            // The time begins again there when the program has ended; here it has half of it.
            self.draft.stop_timeout = Some(stop.saturating_mul(2).min(DAY));
        }
    }

    fn reload(&mut self) {
        let Ok(commands) = self.lines("ExecReload", true) else { return };
        match exec::signal(&commands) {
            _ if commands.is_empty() => {}
            Some(signal) => {
                self.draft.note(format!("ExecReload: ask for it by 'hermes-sup ctl kill NAME {signal}'"))
            }
            None => self.draft.note("ExecReload: nothing is run for a reload: run it yourself"),
        }
    }

    fn rest(&mut self) {
        for (section, key) in SILENT {
            self.unit.take(section, key);
        }
        let left: Vec<String> = self.unit.left().map(|(_, key)| key.to_owned()).collect();
        for key in left {
            let instead = INSTEAD
                .iter()
                .find(|(known, _)| *known == key)
                .map_or("it has no counterpart", |(_, what)| what);
            self.draft.note(format!("{key}: {instead}"));
        }
    }

    fn duration(&mut self, key: &str, least: Duration, most: Duration) -> Option<Duration> {
        let text = self.service(key)?;
        let read = span(&text);
        if read.is_none() {
            self.draft.note(format!("{key}={text}: is not a time that can be used"));
        }
        read.map(|time| time.clamp(least, most))
    }
}

/// systemd.time(7): seconds without a unit, or several numbers with theirs; `infinity`.
fn span(text: &str) -> Option<Duration> {
    if text == "infinity" {
        return Some(Duration::MAX);
    }
    match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        // humantime panics where the whole overflows.
        Err(_) if text.bytes().filter(u8::is_ascii_digit).count() > 12 => None,
        Err(_) => humantime::parse_duration(text).ok(),
    }
}

fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "yes" | "true" | "on" | "y" | "t" => Some(true),
        "0" | "no" | "false" | "off" | "n" | "f" => Some(false),
        _ => None,
    }
}
