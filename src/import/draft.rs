//! A definition being made: what a reader found, under the names of its source, and how that becomes TOML.
//!
//! Readers only put in what the documented ranges allow; names are given here, when all are known.

use super::{Gathered, Imported, Outcome};
use crate::core::limits::Key;
use crate::core::name::{MAX_LEN, RESERVED, ServiceName};
use crate::core::signal::Signal;
use crate::definition::environment::escaped;
use crate::definition::load::MOST_BYTES;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;
use toml::Value;

/// Characters of a foreign text that a message shows.
const SHOWN: usize = 200;

/// Nobody in particular.
pub(super) const ROOT: &str = "root";

pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Debug, Default)]
pub(super) struct Draft {
    /// Which of the paths it came from: names refer to others of the same path.
    pub scope: usize,
    /// Its name there.
    pub wish: String,
    pub source: PathBuf,
    pub mode: u32,
    /// What is not carried over.
    pub notes: Vec<String>,
    pub command: Vec<String>,
    pub description: Option<String>,
    pub user: Option<String>,
    pub working_dir: Option<String>,
    pub env: BTreeMap<String, String>,
    /// Absolute; one that need not be there has a `?` before it.
    pub env_files: Vec<String>,
    pub umask: Option<u32>,
    pub held_down: bool,
    pub oneshot: bool,
    /// Names of the source. No circle.
    pub after: Vec<String>,
    /// Names of the source. A circle is opened here.
    pub requires: Vec<String>,
    pub stop_signal: Option<Signal>,
    pub stop_timeout: Option<Duration>,
    pub policy: Option<&'static str>,
    pub reset_after: Option<Duration>,
    /// The first wait and the longest.
    pub backoff: Option<(Duration, Duration)>,
    pub limit: Option<(u32, Duration)>,
    /// Failures are not counted.
    pub unlimited: bool,
    pub exit_codes: BTreeMap<u8, &'static str>,
    pub ready: Option<Ready>,
    /// This and the next only where it is asked, or says so.
    pub ready_interval: Option<Duration>,
    pub ready_timeout: Option<Duration>,
    pub health: Option<Health>,
    /// By their keys, in the order of a life.
    pub hooks: Vec<(&'static str, Vec<String>)>,
    pub hooks_timeout: Option<Duration>,
    /// More than one; 256 at most.
    pub instances: Option<u32>,
    pub log_size: Option<u64>,
    pub log_keep: Option<u32>,
    pub files_only: bool,
    /// In the words of `[limits]`.
    pub limits: BTreeMap<&'static str, String>,
    pub ksm: bool,
    pub no_thp: bool,
    pub no_new_privs: Option<bool>,
    /// Without them, root has what the container has.
    pub capabilities: Option<Vec<String>>,
    pub ambient: Option<Vec<String>>,
}

/// How it tells that it can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ready {
    /// It writes a newline to this descriptor; 3 to 1023.
    Fd(u32),
    /// By sd_notify(3).
    Notify,
    /// This program ends with 0.
    Exec(Vec<String>),
}

/// Whether it does its work. Without a value it is the default of `[health]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Health {
    pub check: Check,
    pub interval: Option<Duration>,
    pub timeout: Option<Duration>,
    pub failures: Option<u32>,
    pub start_period: Option<Duration>,
    /// It is only told.
    pub marks: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Check {
    Exec(Vec<String>),
    Watchdog,
}

impl Health {
    pub(super) fn new(check: Check) -> Self {
        Self { check, interval: None, timeout: None, failures: None, start_period: None, marks: false }
    }
}

impl Draft {
    pub(super) fn note(&mut self, what: impl AsRef<str>) {
        self.notes.push(clean(what.as_ref()));
    }

    /// The signal of a stop, which the source says in `said`.
    pub(super) fn take_stop_signal(&mut self, text: &str, said: &str) {
        self.stop_signal = Signal::parse(text);
        if self.stop_signal.is_none() {
            self.note(format!("{said}: is not a signal"));
        }
    }

    /// A limit in the words of `[limits]`; what is wrong with it is noted after `said`.
    pub(super) fn take_limit(&mut self, key: Key, value: &str, said: &str) {
        match key.parse(value) {
            Ok(parsed) => drop(self.limits.insert(key.as_str(), key.show(parsed))),
            Err(error) => self.note(format!("{said} {error}")),
        }
    }
}

/// One line without control characters, cut: for comments and messages.
pub(super) fn clean(text: &str) -> String {
    let mut shown = String::new();
    for (index, c) in text.chars().enumerate() {
        if index == SHOWN {
            shown.push('…');
            break;
        }
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Gives names and writes the texts.
pub(super) fn finish(gathered: Gathered) -> Outcome {
    let Gathered { mut drafts, remarks, failures } = gathered;
    let mut outcome = Outcome { services: Vec::new(), remarks, failures };
    let mut taken = BTreeSet::new();
    let mut names: BTreeMap<(usize, String), ServiceName> = BTreeMap::new();
    let mut given = Vec::new();
    for draft in &drafts {
        let name = name(&draft.wish, &mut taken);
        if let Some(name) = &name {
            names.entry((draft.scope, draft.wish.clone())).or_insert_with(|| name.clone());
        }
        given.push(name);
    }
    open_circles(&mut drafts);
    for (mut draft, name) in drafts.into_iter().zip(given) {
        let source = draft.source.display().to_string();
        let Some(name) = name else {
            outcome.failures.push(format!("{source}: '{}' cannot be named", clean(&draft.wish)));
            continue;
        };
        let mut missing = Vec::new();
        let mut resolve = |wishes: &[String]| -> Vec<Value> {
            let mut found = BTreeSet::new();
            for wish in wishes {
                match names.get(&(draft.scope, wish.clone())) {
                    Some(other) if *other != name => drop(found.insert(other.to_string())),
                    Some(_) => {}
                    None => missing.push(format!("it depends on '{wish}', which was not imported")),
                }
            }
            found.into_iter().map(Value::String).collect()
        };
        let (after, requires) = (resolve(&draft.after), resolve(&draft.requires));
        missing.into_iter().for_each(|what| draft.note(what));
        if let Some(last) = draft.instances
            && name.instance(&last.to_string()).is_err()
        {
            draft.instances = None;
            draft.note(format!("there are {last} of it: its name is too long for numbers behind it"));
        }
        let text = render(&draft, &name, after, requires);
        if text.len() as u64 > MOST_BYTES {
            outcome.failures.push(format!("{source}: '{name}' is larger than a definition may be"));
            continue;
        }
        if name.as_str() != draft.wish {
            outcome.remarks.push(format!("{source}: '{}' is now called '{name}'", clean(&draft.wish)));
        }
        let notes = draft.notes.iter().map(|note| format!("{source}: {name}: not carried over: {note}"));
        outcome.remarks.extend(notes);
        outcome.services.push(Imported { name, text, mode: draft.mode & 0o666 | 0o600 });
    }
    outcome
}

/// The nearest name that the rule allows and nobody has.
fn name(wish: &str, taken: &mut BTreeSet<String>) -> Option<ServiceName> {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c.to_ascii_lowercase() } else { '-' };
    let mapped: String = wish.chars().take(MAX_LEN).map(allowed).collect();
    let mut base = mapped.trim_start_matches(['-', '_']).to_owned();
    if base.is_empty() {
        "service".clone_into(&mut base);
    }
    if RESERVED.contains(&base.as_str()) {
        base.push_str("-service");
    }
    let candidates = std::iter::once(base.clone()).chain((2..100_000).map(|number| {
        let suffix = format!("-{number}");
        let room = MAX_LEN - suffix.len();
        format!("{}{suffix}", base.get(..room).unwrap_or(&base))
    }));
    let free = candidates.into_iter().find(|candidate| !taken.contains(candidate))?;
    taken.insert(free.clone());
    ServiceName::new(&free).ok()
}

/// No definition waits for one that waits for it, whether it needs the other or only comes after it: what closes a circle is left
/// out and noted.
fn open_circles(drafts: &mut [Draft]) {
    type Wishes = fn(&mut Draft) -> &mut Vec<String>;
    // What is needed is kept before what is only an order.
    const KINDS: [(Wishes, &str); 2] =
        [(|draft| &mut draft.requires, "depends on"), (|draft| &mut draft.after, "comes after")];
    let index: BTreeMap<_, _> =
        drafts.iter().enumerate().map(|(at, draft)| ((draft.scope, draft.wish.clone()), at)).collect();
    let mut accepted: Vec<Vec<usize>> = vec![Vec::new(); drafts.len()];
    for (wishes, how) in KINDS {
        for (at, draft) in drafts.iter_mut().enumerate() {
            for wish in std::mem::take(wishes(draft)) {
                if let Some(&other) = index.get(&(draft.scope, wish.clone())) {
                    if reaches(&accepted, other, at) {
                        draft.note(format!("it {how} '{wish}', which waits for it"));
                        continue;
                    }
                    accepted[at].push(other);
                }
                wishes(draft).push(wish);
            }
        }
    }
}

fn reaches(edges: &[Vec<usize>], from: usize, to: usize) -> bool {
    let (mut left, mut seen) = (vec![from], BTreeSet::from([from]));
    while let Some(at) = left.pop() {
        if at == to {
            return true;
        }
        left.extend(edges[at].iter().filter(|next| seen.insert(**next)));
    }
    false
}

fn render(draft: &Draft, name: &ServiceName, after: Vec<Value>, requires: Vec<Value>) -> String {
    let mut text = format!("# Imported from {}\n", clean(&draft.source.display().to_string()));
    if name.as_str() != draft.wish {
        let _ = writeln!(text, "# It was called '{}' there.", clean(&draft.wish));
    }
    for note in &draft.notes {
        let _ = writeln!(text, "# not carried over: {note}");
    }
    let mut top = Keys::default();
    let command: Vec<String> = draft.command.iter().map(|word| escaped(word)).collect();
    top.put("command", list(&command));
    let description =
        draft.description.as_deref().map(|text| clean(text).chars().take(SHOWN).collect::<String>());
    top.put_if("description", description);
    top.put_if("user", draft.user.clone());
    top.put_if("working_dir", draft.working_dir.as_deref().map(escaped));
    if !draft.env.is_empty() {
        let env = draft.env.iter().map(|(key, value)| (key.clone(), Value::String(escaped(value))));
        top.put("env", table(env));
    }
    match draft.env_files.as_slice() {
        [] => {}
        [one] => top.put("env_file", one.as_str()),
        many => top.put("env_file", list(many)),
    }
    top.put_if("umask", draft.umask.map(|mask| format!("{mask:04o}")));
    top.put_if("autostart", draft.held_down.then_some(false));
    top.put_if("type", draft.oneshot.then_some("oneshot"));
    top.put_if("after", Some(after).filter(|names| !names.is_empty()));
    top.put_if("requires", Some(requires).filter(|names| !names.is_empty()));
    top.put_if("instances", draft.instances.map(i64::from));
    text.push_str(&top.0);

    let mut stop = Keys::default();
    stop.put_if("signal", draft.stop_signal.map(|signal| signal.to_string()));
    stop.put_if("timeout", draft.stop_timeout.map(duration));
    stop.section("stop", &mut text);

    let mut restart = Keys::default();
    restart.put_if("policy", draft.policy);
    let mut backoff = Vec::new();
    if let Some((first, longest)) = draft.backoff {
        backoff.push(("initial".to_owned(), duration(first).into()));
        backoff.push(("max".to_owned(), duration(longest).into()));
    }
    backoff.extend(draft.reset_after.map(|after| ("reset_after".to_owned(), duration(after).into())));
    if !backoff.is_empty() {
        restart.put("backoff", table(backoff));
    }
    restart.put_if("limit", draft.unlimited.then_some("none"));
    restart.put_if(
        "limit",
        draft.limit.map(|(burst, interval)| {
            table([
                ("burst".to_owned(), i64::from(burst).into()),
                ("interval".to_owned(), duration(interval).into()),
            ])
        }),
    );
    if !draft.exit_codes.is_empty() {
        let codes = draft.exit_codes.iter().map(|(code, rule)| (code.to_string(), Value::from(*rule)));
        restart.put("exit_codes", table(codes));
    }
    restart.section("restart", &mut text);

    probes(draft, &mut text);

    let mut hooks = Keys::default();
    for (key, words) in &draft.hooks {
        hooks.put(key, list(words));
    }
    hooks.put_if("timeout", draft.hooks_timeout.map(duration));
    hooks.section("hooks", &mut text);

    let mut log = Keys::default();
    log.put_if("max_size", draft.log_size.and_then(|size| i64::try_from(size).ok()));
    log.put_if("keep", draft.log_keep.map(i64::from));
    log.put_if("to_container", draft.files_only.then_some(false));
    log.section("log", &mut text);

    let mut limits = Keys::default();
    for (key, value) in &draft.limits {
        match value.parse::<i64>() {
            Ok(number) => limits.put(key, number),
            Err(_) => limits.put(key, value.as_str()),
        }
    }
    limits.section("limits", &mut text);

    let mut memory = Keys::default();
    memory.put_if("ksm", draft.ksm.then_some(true));
    memory.put_if("thp", draft.no_thp.then_some("disable"));
    memory.section("memory", &mut text);

    let mut security = Keys::default();
    let is_root = draft.user.as_deref().is_some_and(|user| matches!(user, ROOT | "0"));
    // What root has there: all that the container has.
    security.put_if("no_new_privs", draft.no_new_privs.or(is_root.then_some(false)));
    let all = is_root.then(|| vec!["ALL".to_owned()]);
    security.put_if("capabilities", draft.capabilities.clone().or(all).map(|names| list(&names)));
    security.put_if("ambient", draft.ambient.as_ref().map(|names| list(names)));
    security.section("security", &mut text);
    text
}

fn probes(draft: &Draft, text: &mut String) {
    let mut ready = Keys::default();
    match &draft.ready {
        None => {}
        Some(Ready::Fd(fd)) => {
            ready.put("kind", "fd");
            ready.put("fd", i64::from(*fd));
        }
        Some(Ready::Notify) => ready.put("kind", "notify"),
        Some(Ready::Exec(words)) => {
            ready.put("kind", "exec");
            ready.put("command", list(words));
        }
    }
    if draft.ready.is_some() {
        ready.put_if("interval", draft.ready_interval.map(duration));
        ready.put_if("timeout", draft.ready_timeout.map(duration));
    }
    ready.section("ready", text);

    // A oneshot runs as long as its work takes.
    let Some(check) = draft.health.as_ref().filter(|_| !draft.oneshot) else { return };
    let mut health = Keys::default();
    match &check.check {
        Check::Watchdog => health.put("kind", "watchdog"),
        Check::Exec(words) => {
            health.put("kind", "exec");
            health.put("command", list(words));
        }
    }
    health.put_if("interval", check.interval.map(duration));
    health.put_if("timeout", check.timeout.map(duration));
    health.put_if("failures", check.failures.map(i64::from));
    health.put_if("start_period", check.start_period.map(duration));
    health.put_if("action", check.marks.then_some("mark"));
    health.section("health", text);
}

/// Lines of `key = value`.
#[derive(Default)]
struct Keys(String);

impl Keys {
    fn put(&mut self, key: &str, value: impl Into<Value>) {
        let _ = writeln!(self.0, "{key} = {}", value.into());
    }

    fn put_if(&mut self, key: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.put(key, value);
        }
    }

    fn section(self, name: &str, text: &mut String) {
        if !self.0.is_empty() {
            let _ = write!(text, "\n[{name}]\n{}", self.0);
        }
    }
}

fn table(entries: impl IntoIterator<Item = (String, Value)>) -> Value {
    let mut table = toml::Table::new();
    table.extend(entries);
    Value::Table(table)
}

fn list(words: &[String]) -> Value {
    Value::Array(words.iter().cloned().map(Value::String).collect())
}

/// As a definition has it, which takes twelve digits: to the second from a day on, else to the millisecond.
fn duration(value: Duration) -> String {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let grain = if value < DAY { 1 } else { 1000 };
    let millis = u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
    humantime::format_duration(Duration::from_millis(millis / grain * grain)).to_string()
}
