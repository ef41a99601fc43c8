//! `[ready]` and `[health]` of a definition.

use super::diagnose::{About, Report};
use super::parse::{absolute, argv, idle, settle};
use super::probes::{self, Asked, Check, Health, Http, Probe, Remedy};
use super::raw::{Item, Table};
use super::resolved::{Pattern, Ready};
use super::values::{DAY, MILLISECOND, ValueError};
use crate::core::policy::Kind;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// The documented patience for readiness.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
const READY_INTERVAL: Duration = Duration::from_millis(500);
/// The loop makes the probes of a thousand services.
const INTERVALS: RangeInclusive<Duration> = Duration::from_millis(50)..=DAY;
const TIMES: RangeInclusive<Duration> = MILLISECOND..=DAY;
const STATUSES: RangeInclusive<u64> = 100..=599;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    None,
    Fd,
    Notify,
    Tcp,
    Unix,
    Http,
    Exec,
    Log,
    GatewayState,
    Watchdog,
    FileAge,
}

impl Word {
    fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Fd => "fd",
            Self::Notify => "notify",
            Self::Tcp => "tcp",
            Self::Unix => "unix",
            Self::Http => "http",
            Self::Exec => "exec",
            Self::Log => "log",
            Self::GatewayState => "gateway-state",
            Self::Watchdog => "watchdog",
            Self::FileAge => "file-age",
        }
    }

    /// Its keys beside those that all have; the first ones that it cannot do without, each with an example.
    fn keys(self) -> (&'static [(&'static str, &'static str)], &'static [&'static str]) {
        match self {
            Self::None | Self::Notify | Self::GatewayState | Self::Watchdog => (&[], &[]),
            Self::Fd => (&[], &["fd"]),
            Self::Tcp => (&[("address", "\"127.0.0.1:6379\"")], &[]),
            Self::Unix => (&[("path", "\"/run/app.sock\"")], &[]),
            Self::Http => (&[("url", "\"http://127.0.0.1:8080/health\"")], &["status", "contains"]),
            Self::Exec => (&[("command", "[\"program\", \"argument\"]")], &[]),
            Self::Log => (&[("pattern", "\"ready to accept\"")], &[]),
            Self::FileAge => (&[("path", "\"/run/app/heartbeat\""), ("max_age", "\"2m\"")], &[]),
        }
    }

    fn has(self, key: &str) -> bool {
        let (needed, others) = self.keys();
        needed.iter().any(|(name, _)| *name == key) || others.contains(&key)
    }
}

const READY: [Word; 9] = [
    Word::None,
    Word::Fd,
    Word::Notify,
    Word::Tcp,
    Word::Unix,
    Word::Http,
    Word::Exec,
    Word::Log,
    Word::GatewayState,
];
const HEALTH: [Word; 7] =
    [Word::None, Word::Exec, Word::Http, Word::Tcp, Word::Unix, Word::Watchdog, Word::FileAge];

/// What a section says beside its times: each key taken, whatever the kind.
struct Section<'t> {
    word: Word,
    keys: Vec<Item<'t>>,
    /// Something is missing, and that is reported.
    incomplete: bool,
}

impl<'t> Section<'t> {
    /// `keys`: all that the section knows of any kind.
    fn read(table: &mut Table<'t>, words: &[Word], keys: &[&'static str], report: &mut Report<'_>) -> Self {
        let choices: Vec<(&str, Word)> = words.iter().map(|word| (word.as_str(), *word)).collect();
        let kind = table.take("kind");
        let word = kind.as_ref().and_then(|item| settle(item.choice(&choices), report));
        let all: Vec<Item<'t>> = keys.iter().filter_map(|key| table.take(key)).collect();
        let wrong = kind.is_some() && word.is_none();
        let word = word.unwrap_or(Word::None);
        let mut section = Self { word, keys: Vec::new(), incomplete: wrong };
        for item in all {
            match word {
                _ if word.has(item.key()) => section.keys.push(item),
                Word::None if wrong => {}
                Word::None => idle(Some(&item), "without a 'kind' that uses it", report),
                _ => idle(Some(&item), &format!("with kind = \"{}\"", word.as_str()), report),
            }
        }
        for (key, example) in word.keys().0 {
            if let (None, Some(kind)) = (section.get(key), &kind) {
                let message = format!("kind '{}' needs '{key}'; write {key} = {example}", word.as_str());
                report.wrong(&kind.span(), About::Text, message);
                section.incomplete = true;
            }
        }
        section
    }

    fn get(&self, key: &str) -> Option<&Item<'t>> {
        self.keys.iter().find(|item| item.key() == key)
    }

    /// `None`: the kind is no probe, or something is wrong with it, which is reported.
    fn probe(&self, report: &mut Report<'_>) -> Option<Probe> {
        match self.word {
            Word::Tcp => {
                let address = settle(self.get("address")?.parsed(probes::address), report)?;
                Some(Probe::Tcp(address))
            }
            Word::Unix => Some(Probe::Unix(settle(absolute(self.get("path")?), report)?)),
            Word::Http => self.http(report),
            Word::Exec => Some(Probe::Exec(settle(argv(self.get("command")?), report)?)),
            Word::FileAge => {
                let path = settle(absolute(self.get("path")?), report);
                let max_age = settle(self.get("max_age")?.duration(&TIMES), report);
                Some(Probe::FileAge { path: path?, max_age: max_age? })
            }
            Word::None | Word::Fd | Word::Notify | Word::Log | Word::GatewayState | Word::Watchdog => None,
        }
    }

    fn http(&self, report: &mut Report<'_>) -> Option<Probe> {
        let url = settle(self.get("url")?.parsed(probes::url), report);
        let status = self.get("status").map(|item| settle(item.integer(&STATUSES), report));
        let contains = self.get("contains").map(|item| settle(item.text(), report));
        let (address, host, target) = url?;
        let status = u16::try_from(status.unwrap_or(Some(200))?).ok()?;
        Some(Probe::Http(Http { address, host, target, status, contains: contains.unwrap_or_default() }))
    }
}

/// How readiness is told, and the patience for it.
pub(super) fn ready(mut table: Table<'_>, report: &mut Report<'_>) -> (Ready, Option<Duration>) {
    let keys = ["fd", "address", "path", "url", "status", "contains", "command", "pattern"];
    let section = Section::read(&mut table, &READY, &keys, report);
    let [timeout, interval] = ["timeout", "interval"].map(|key| table.take(key));
    table.finish(report);
    if section.word == Word::None {
        idle(timeout.as_ref(), "without a 'kind' of readiness", report);
    }
    let probe = section.probe(report);
    if probe.is_none() && !section.incomplete {
        idle(interval.as_ref(), "where the service reports by itself", report);
    }
    let patience = timeout.and_then(|item| settle(item.duration(&TIMES), report)).unwrap_or(READY_TIMEOUT);
    let interval =
        interval.and_then(|item| settle(item.duration(&INTERVALS), report)).unwrap_or(READY_INTERVAL);
    let ready = match section.word {
        Word::Fd => {
            let fd = section.get("fd").and_then(|item| settle(item.integer(&(3..=1023)), report));
            Ready::Fd(fd.and_then(|fd| i32::try_from(fd).ok()).unwrap_or(3))
        }
        Word::Notify => Ready::Notify,
        Word::GatewayState => Ready::GatewayState,
        Word::Log => {
            let pattern = section.get("pattern").and_then(|item| settle(item.parsed(Pattern::new), report));
            pattern.map_or(Ready::None, Ready::Log)
        }
        Word::Tcp | Word::Unix | Word::Http | Word::Exec => {
            probe.map_or(Ready::None, |probe| Ready::Probe(Asked { probe: Arc::new(probe), interval }))
        }
        Word::None | Word::Watchdog | Word::FileAge => Ready::None,
    };
    let patience = (ready != Ready::None).then_some(patience);
    (ready, patience)
}

/// Whether it does its work, and what follows if it does not.
pub(super) fn health(mut table: Table<'_>, kind: Kind, report: &mut Report<'_>) -> Option<Box<Health>> {
    let keys = ["address", "path", "url", "status", "contains", "command", "max_age"];
    let section = Section::read(&mut table, &HEALTH, &keys, report);
    let [interval, timeout, failures, start_period, action] =
        ["interval", "timeout", "failures", "start_period", "action"].map(|key| table.take(key));
    table.finish(report);
    match section.word {
        Word::None if !section.incomplete => {
            for item in [&interval, &timeout, &failures, &start_period, &action] {
                idle(item.as_ref(), "without a 'kind' of health check", report);
            }
        }
        Word::Watchdog => {
            for item in [&interval, &failures] {
                idle(item.as_ref(), "with kind = \"watchdog\": 'timeout' is the longest silence", report);
            }
        }
        _ => {}
    }
    let mut time = |item: Option<Item<'_>>, allowed: RangeInclusive<Duration>, default: u64| {
        let read = item.and_then(|item| settle(item.duration(&allowed), report));
        read.unwrap_or(Duration::from_secs(default))
    };
    let interval = time(interval, INTERVALS, 30);
    let timeout = time(timeout, TIMES, if section.word == Word::Watchdog { 30 } else { 5 });
    let start_period = time(start_period, Duration::ZERO..=DAY, 60);
    let failures = failures.and_then(|item| settle(item.integer(&(1..=10_000)), report)).unwrap_or(3);
    let remedies = [("restart", Remedy::Restart), ("mark", Remedy::Mark), ("quarantine", Remedy::Quarantine)];
    let action = action.and_then(|item| settle(item.choice(&remedies), report)).unwrap_or(Remedy::Restart);
    let check = match section.word {
        Word::None => return None,
        Word::Watchdog => Check::Watchdog,
        _ => Check::Probe(Arc::new(section.probe(report)?)),
    };
    if kind.is_oneshot() {
        // It runs as long as its work takes.
        report.idle(&(0..0), "[health] has no effect on a oneshot".to_owned());
        return None;
    }
    let failures = if check == Check::Watchdog { 1 } else { u32::try_from(failures).unwrap_or(3) };
    Some(Box::new(Health { check, interval, timeout, failures, start_period, action }))
}

impl Pattern {
    /// # Errors
    /// [`ValueError::NoPattern`].
    fn new(text: &str) -> Result<Self, ValueError> {
        let made = regex_lite::RegexBuilder::new(text).size_limit(PATTERN_SIZE).build();
        made.map(|made| Self(made.into())).map_err(|error| ValueError::NoPattern(error.to_string()))
    }
}

/// Of the program that a pattern becomes, in bytes.
const PATTERN_SIZE: usize = 256 * 1024;
