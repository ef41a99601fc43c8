//! The text of a definition → a checked `Definition`, or everything that is wrong with it.
//!
//! Every key of the documented format is asked for here, once, with its default and its range.

use super::diagnose::{About, Diagnostic, Report, Source, quoted};
use super::environment::{self, with_variables};
use super::hooks;
use super::limits;
use super::memory;
use super::parse_probes::{health, ready};
use super::raw::{Item, Placeholders, Read, Table};
use super::resolved::{Definition, LogPolicy, Origin, RunAs, Security};
use super::schedule;
use super::security;
use super::trust::Trust;
use super::users::{Surroundings, UserError};
use super::values::{self, DAY, MILLISECOND, ValueError, octal_mode};
use crate::core::fingerprint::fingerprint;
use crate::core::limits::Key;
use crate::core::name::ServiceName;
use crate::core::policy::{
    Backoff, BurstLimit, ExitRule, Kind, Policy, RestartPolicy, RestartWhen, Role, StopPolicy,
};
use crate::core::signal::Signal;
use crate::core::words::{Overflow, Rung};
use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use toml::de::DeTable;

/// Longest `description`, in characters.
const MOST_DESCRIPTION: usize = 200;

/// Most services of one file.
const MOST_INSTANCES: u64 = 256;

/// In `type`.
pub(super) const ONESHOT: &str = "oneshot";

/// What a text becomes, besides what it says itself.
#[derive(Debug, Clone)]
pub(super) struct Subject<'a> {
    pub name: &'a ServiceName,
    pub origin: Origin,
    pub trust: &'a Trust,
    /// The default of `[security]`.
    pub security: Security,
    pub placeholders: Placeholders<'a>,
    /// What has no effect is of interest.
    pub remarked: bool,
}

/// A definition, and what of its text is of interest later.
#[derive(Debug)]
pub(super) struct Parsed {
    pub definition: Definition,
    pub mentions: Vec<Mention>,
    /// The text is that of so many services, NAME@1 and so on.
    pub instances: Option<u64>,
    /// What is right and has no effect, where that was asked for.
    pub remarks: Vec<Diagnostic>,
}

/// What can be told of a service whose definition is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Says {
    pub kind: Kind,
    pub autostart: bool,
}

impl Default for Says {
    fn default() -> Self {
        Self { kind: Kind::Daemon, autostart: true }
    }
}

impl Says {
    /// Of any text; what it does not say in a way that can be read has its default.
    pub(super) fn read(text: &str) -> Self {
        let table: toml::Table = text.parse().unwrap_or_default();
        let is_oneshot = table.get("type").and_then(toml::Value::as_str) == Some(ONESHOT);
        let kind = if is_oneshot { Kind::Oneshot } else { Kind::Daemon };
        let autostart = table.get("autostart").and_then(toml::Value::as_bool).unwrap_or(true);
        Self { kind, autostart }
    }
}

/// Something outside a definition that it names, and the place in its text. Not yet a message: a place costs a walk through the
/// text, and thousands of names are named for one that is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mention {
    pub what: Mentioned,
    pub span: Range<usize>,
}

impl Mention {
    pub(super) fn service(&self) -> Option<&ServiceName> {
        match &self.what {
            Mentioned::Service { name, .. } => Some(name),
            Mentioned::Program | Mentioned::User | Mentioned::WorkingDir | Mentioned::EnvFile(_) => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mentioned {
    /// In `after` or `requires`.
    Service {
        name: ServiceName,
        key: &'static str,
    },
    Program,
    User,
    WorkingDir,
    /// By its number.
    EnvFile(usize),
}

/// Parses and checks `source`.
///
/// # Errors
/// Everything that is wrong with it, in the order of the text; never empty.
pub(super) fn parse(
    source: &Source,
    subject: Subject<'_>,
    surroundings: &Surroundings,
) -> Result<Parsed, Vec<Diagnostic>> {
    let mut report = Report::new(source, subject.remarked);
    let (document, syntax) = DeTable::parse_recoverable(&source.text);
    for error in &syntax {
        let end = source.text.len();
        report.wrong(&error.span().unwrap_or(end..end), About::Text, error.message());
    }
    if !report.is_clean() {
        // What the parser made of a broken text would only give misleading errors.
        return Err(report.finish());
    }
    let table = Table::new("the definition", document.get_ref(), subject.placeholders);
    let (mut mentions, mut instances) = (Vec::new(), None);
    let read = Reader { subject, surroundings }.definition(table, &mut mentions, &mut instances, &mut report);
    match read {
        Some(definition) if report.is_clean() => {
            Ok(Parsed { definition, mentions, instances, remarks: report.into_remarks() })
        }
        _ => Err(report.finish()),
    }
}

struct Reader<'a> {
    subject: Subject<'a>,
    surroundings: &'a Surroundings,
}

impl Reader<'_> {
    /// `None` only after something was reported.
    fn definition(
        self,
        mut top: Table<'_>,
        mentions: &mut Vec<Mention>,
        instances: &mut Option<u64>,
        report: &mut Report<'_>,
    ) -> Option<Definition> {
        let mut mention = |what, item: Option<&Item<'_>>| {
            mentions.extend(item.map(|item| Mention { what, span: item.span() }));
        };
        let command = top.take("command");
        if command.is_none() {
            report.wrong(
                &(0..0),
                About::Text,
                "'command' is missing; write command = [\"program\", \"argument\"]",
            );
        }
        mention(Mentioned::Program, command.as_ref());
        let command = command.and_then(|item| settle(command_line(&item), report));
        let description = top.read("description", report, line);
        let user_item = top.take("user");
        mention(Mentioned::User, user_item.as_ref());
        let user = user_item.map_or(Some(RunAs::Gateway), |item| self.user(&item, report));
        let working_dir = top.take("working_dir");
        mention(Mentioned::WorkingDir, working_dir.as_ref());
        let working_dir = working_dir.and_then(|item| settle(directory(&item), report));
        let (trust, home) = (self.subject.trust, &self.surroundings.home);
        let variables = environment::read(&mut top, user.as_ref(), trust, home, report);
        let files = variables.places.iter().enumerate();
        mentions.extend(files.map(|(n, span)| Mention { what: Mentioned::EnvFile(n), span: span.clone() }));
        let umask = top.read("umask", report, |item| item.parsed(octal_mode));
        let autostart = top.read("autostart", report, Item::boolean).unwrap_or(true);
        let kinds = [("daemon", Kind::Daemon), (ONESHOT, Kind::Oneshot)];
        let kind = top.read("type", report, |item| item.choice(&kinds)).unwrap_or(Kind::Daemon);
        let schedule = schedule::read(&mut top, kind, report);
        let kind = if schedule.is_some() { Kind::Scheduled } else { kind };
        let roles = [("auxiliary", Role::Auxiliary), ("essential", Role::Essential)];
        let role =
            top.take("role").and_then(|item| self.role(&item, &roles, report)).unwrap_or(Role::Auxiliary);
        let requires = self.services(&mut top, "requires", mentions, report);
        let mut after = self.services(&mut top, "after", mentions, report);
        after.extend(requires.iter().cloned());
        let containment = top.read("containment", report, containment).unwrap_or(None);
        let stop = stop(top.section("stop", "[stop]", report), report);
        let restart = restart(top.section("restart", "[restart]", report), schedule.is_some(), report);
        let log = log(top.section("log", "[log]", report), report);
        let (ready, patience) = ready(top.section("ready", "[ready]", report), report);
        let security = top.section("security", "[security]", report);
        let is_written = security.has("capabilities");
        let security = security::read(security, self.subject.security, self.subject.trust, report);
        let limits = limits::read(top.section("limits", "[limits]", report), self.subject.trust, report);
        let memory = memory::read(top.section("memory", "[memory]", report), report);
        let has_memory_high = limits.get(Key::MemoryHigh).is_some();
        let (hooks, hooked, finish) =
            hooks::read(top.section("hooks", "[hooks]", report), has_memory_high, report);
        if report.is_remarked()
            && let (Some(item), Some(user)) = (user_item, &user)
            && let Some(message) = security::powerless_root(user, security, is_written)
        {
            report.idle(&item.span(), message);
        }
        let count = top.take("instances");
        *instances = count.as_ref().and_then(|item| self.instances(item, report));
        let health = health(top.section("health", "[health]", report), kind, report);
        top.finish(report);
        let filled = self.subject.placeholders.iter().map(|(_, meaning)| meaning.as_str());
        let (command, in_command) = command.unzip();
        let (working_dir, in_directory) = working_dir.unzip();
        let has_variables = [in_command, in_directory, Some(variables.has_variables)].contains(&Some(true));
        // How many there are makes none of them another one.
        let text = report.source.text.as_str();
        let Range { start, end } = count.map_or(0..0, |item| item.span());
        let around =
            [text.get(..start), text.get(end..)].into_iter().flatten().filter(|part| !part.is_empty());
        let hash = fingerprint(around.chain(filled));
        Some(Definition {
            name: self.subject.name.clone(),
            origin: self.subject.origin,
            description,
            command: command?,
            working_dir: working_dir
                .or_else(|| user.as_ref().map(|user| self.surroundings.working_dir(user)))?,
            user: user?,
            env: variables.env,
            env_clear: variables.clear,
            env_files: variables.files,
            secrets: (!variables.secrets.files.is_empty()).then(|| Box::new(variables.secrets)),
            has_variables,
            umask,
            autostart,
            policy: Arc::new(Policy { kind, role, restart, stop, ready: patience, finish, hooks: hooked }),
            schedule,
            after: sorted(after),
            requires: sorted(requires),
            containment,
            ready,
            health,
            slot: None,
            stamp: None,
            hooks,
            log,
            limits,
            memory,
            security,
            hash,
        })
    }

    /// Only a trusted source may name somebody else than the gateway user, and only root can become somebody else.
    fn user(&self, item: &Item<'_>, report: &mut Report<'_>) -> Option<RunAs> {
        let text = settle(item.text(), report)?;
        if text.is_empty() {
            report.wrong(
                &item.span(),
                About::Text,
                "'user' is empty; write a name or a number, or leave it out",
            );
            return None;
        }
        match self.surroundings.may_run_as(&text, self.subject.trust) {
            Ok(who) => Some(who),
            Err(error) => {
                let about = match error {
                    UserError::NotRoot { .. } => About::Caller,
                    UserError::Unknown(_) | UserError::NotTrusted { .. } | UserError::Database(_) => {
                        About::Place
                    }
                };
                report.wrong(&item.span(), about, error.to_string());
                None
            }
        }
    }

    /// A process can fail when it likes, and to end the container is the supervisor's user's and root's.
    fn role(&self, item: &Item<'_>, roles: &[(&str, Role)], report: &mut Report<'_>) -> Option<Role> {
        let role = settle(item.choice(roles), report)?;
        let may_shut_down = self.surroundings.is_trusted_owner(self.surroundings.gateway.uid);
        if let (Role::Essential, Some(reason), false) = (role, self.subject.trust.reason(), may_shut_down) {
            let message = format!("only a root-owned definition outside --home may be essential; {reason}");
            report.wrong(&item.span(), About::Place, message);
        }
        Some(role)
    }

    /// Of the file of a service, which has no argument of its own.
    fn instances(&self, item: &Item<'_>, report: &mut Report<'_>) -> Option<u64> {
        let count = settle(item.integer(&(1..=MOST_INSTANCES)), report)?;
        if let Origin::Profile { .. } | Origin::BuiltIn = self.subject.origin {
            report.wrong(&item.key_span(), About::Text, "a profile has one service; leave 'instances' out");
            return None;
        }
        // The instances themselves are read from the same text.
        self.subject.name.as_instance().is_none().then_some(count)
    }

    fn services(
        &self,
        top: &mut Table<'_>,
        key: &'static str,
        mentions: &mut Vec<Mention>,
        report: &mut Report<'_>,
    ) -> Vec<ServiceName> {
        let items = top.read(key, report, Item::elements).unwrap_or_default();
        let mut names = Vec::new();
        for item in items {
            let read = item
                .text()
                .and_then(|text| ServiceName::new(&text).map_err(|error| item.fault(error.to_string())));
            let Some(name) = settle(read, report) else { continue };
            if name == *self.subject.name {
                report.wrong(
                    &item.span(),
                    About::Text,
                    format!("'{name}' cannot wait for itself; name another service"),
                );
                continue;
            }
            let what = Mentioned::Service { name: name.clone(), key };
            mentions.push(Mention { what, span: item.span() });
            names.push(name);
        }
        names
    }
}

pub(super) fn settle<T>(read: Read<T>, report: &mut Report<'_>) -> Option<T> {
    read.map_err(|fault| report.wrong(&fault.span, About::Text, fault.message)).ok()
}

pub(super) fn argv(item: &Item<'_>) -> Read<Vec<String>> {
    let argv = item.texts()?;
    has_program(item, argv.first())?;
    Ok(argv)
}

fn has_program(item: &Item<'_>, first: Option<&String>) -> Read<()> {
    match first {
        Some(program) if !program.is_empty() => Ok(()),
        _ => {
            let key = item.key();
            Err(item.fault(format!("'{key}' names no program; write {key} = [\"program\", \"argument\"]")))
        }
    }
}

/// argv as `argv` has it, and whether it has variables.
fn command_line(item: &Item<'_>) -> Read<(Vec<String>, bool)> {
    let words: Vec<(String, bool)> = item.elements()?.iter().map(with_variables).collect::<Read<_>>()?;
    let (words, found): (Vec<String>, Vec<bool>) = words.into_iter().unzip();
    has_program(item, words.first())?;
    Ok((words, found.contains(&true)))
}

pub(super) fn absolute(item: &Item<'_>) -> Read<PathBuf> {
    item.parsed(values::absolute)
}

/// An absolute path, or one that begins with a variable; and whether it has variables.
fn directory(item: &Item<'_>) -> Read<(PathBuf, bool)> {
    let (text, found) = with_variables(item)?;
    if !text.starts_with('/') && !text.starts_with("${") {
        return Err(item.fault(format!("{} {}", quoted(&text), ValueError::NotAbsolute)));
    }
    Ok((PathBuf::from(text), found))
}

/// A line for people.
fn line(item: &Item<'_>) -> Read<String> {
    let text = item.text()?;
    match text.chars().any(char::is_control) || text.chars().count() > MOST_DESCRIPTION {
        true => Err(item.fault(format!(
            "'description' is not one line of at most {MOST_DESCRIPTION} characters; shorten it"
        ))),
        false => Ok(text),
    }
}

/// `None`: the highest rung that works.
fn containment(item: &Item<'_>) -> Read<Option<Rung>> {
    let rungs = Rung::ALL.map(|rung| (rung.as_str(), Some(rung)));
    let choices: Vec<_> = std::iter::once(("auto", None)).chain(rungs).collect();
    item.choice(&choices)
}

fn stop(mut table: Table<'_>, report: &mut Report<'_>) -> StopPolicy {
    let default = Policy::default().stop;
    let signal = table
        .read("signal", report, |item| item.parsed(|text| Signal::parse(text).ok_or(ValueError::NoSignal)));
    let timeout = duration(&mut table, "timeout", MILLISECOND..=DAY, default.timeout, report);
    let leftovers = duration(&mut table, "leftovers", Duration::ZERO..=DAY, default.leftovers, report);
    table.finish(report);
    StopPolicy { signal: signal.unwrap_or(default.signal), timeout, leftovers }
}

fn duration(
    table: &mut Table<'_>,
    key: &'static str,
    allowed: RangeInclusive<Duration>,
    default: Duration,
    report: &mut Report<'_>,
) -> Duration {
    table.read(key, report, |item| item.duration(&allowed)).unwrap_or(default)
}

/// `scheduled`: what fails has its next run anyway, so by default it is not tried again.
fn restart(mut table: Table<'_>, scheduled: bool, report: &mut Report<'_>) -> RestartPolicy {
    let default = Policy::default().restart;
    let policies = [
        ("always", RestartWhen::Always),
        ("on-failure", RestartWhen::OnFailure),
        ("never", RestartWhen::Never),
    ];
    let when = table.read("policy", report, |item| item.choice(&policies));
    let is_written = when.is_some();
    let when = when.unwrap_or(if scheduled { RestartWhen::Never } else { default.when });
    let (waits, bound) = (table.take("backoff"), table.take("limit"));
    let exit_codes = table.take("exit_codes").map(|item| exit_codes(&item, report));
    table.finish(report);
    let restarts = exit_codes.iter().flat_map(BTreeMap::values).any(|rule| *rule == ExitRule::Now);
    if when == RestartWhen::Never && !restarts {
        for item in [&waits, &bound] {
            let why = match is_written {
                true => "with policy = \"never\"",
                false => "with policy = \"never\", the default of what has a schedule",
            };
            idle(item.as_ref(), why, report);
        }
    }
    let backoff = waits.map(|item| backoff(&item, default.backoff.clone(), report));
    let limit = match bound {
        Some(item) => limit(&item, default.limit, report),
        None => default.limit,
    };
    RestartPolicy {
        when,
        backoff: backoff.unwrap_or(default.backoff),
        limit,
        exit_codes: exit_codes.unwrap_or_default(),
    }
}

fn backoff(item: &Item<'_>, default: Backoff, report: &mut Report<'_>) -> Backoff {
    let Some(mut table) = settle(item.table("backoff"), report) else { return default };
    let initial = duration(&mut table, "initial", MILLISECOND..=DAY, default.initial, report);
    let max = duration(&mut table, "max", MILLISECOND..=DAY, default.max.max(initial), report);
    let reset_after =
        duration(&mut table, "reset_after", Duration::ZERO..=DAY * 365, default.reset_after, report);
    let factor = table.read("factor", report, |item| item.float(&(1.0..=1000.0))).unwrap_or(default.factor);
    let jitter = table.read("jitter", report, |item| item.float(&(0.0..=1.0))).unwrap_or(default.jitter);
    table.finish(report);
    if initial > max {
        let message = "'initial' is longer than 'max'; a wait grows from initial to max";
        report.wrong(&item.span(), About::Text, message);
    }
    Backoff { initial, factor, max, jitter, reset_after }
}

fn limit(item: &Item<'_>, default: Option<BurstLimit>, report: &mut Report<'_>) -> Option<BurstLimit> {
    if item.text().is_ok_and(|text| text == "none") {
        return None;
    }
    let wrong =
        |_| item.fault("'limit' is neither a table nor \"none\"; write { burst = 10, interval = \"10m\" }");
    let mut table = settle(item.table("limit").map_err(wrong), report)?;
    let default = default?;
    // The times of that many failures are kept for each service.
    let burst = table.read("burst", report, |item| item.integer(&(0..=10_000)));
    let interval = duration(&mut table, "interval", MILLISECOND..=DAY * 365, default.interval, report);
    table.finish(report);
    let burst = burst.and_then(|burst| u32::try_from(burst).ok()).unwrap_or(default.burst);
    Some(BurstLimit { burst, interval })
}

fn exit_codes(item: &Item<'_>, report: &mut Report<'_>) -> BTreeMap<u8, ExitRule> {
    let rules = [
        ("now", ExitRule::Now),
        ("later", ExitRule::Later),
        ("stop", ExitRule::Stop),
        ("failed", ExitRule::Failed),
    ];
    let mut codes = BTreeMap::new();
    let Some(table) = settle(item.table("exit_codes"), report) else { return codes };
    for (key, value) in table.into_items() {
        // Plain digits only: `+75` and `075` would be second names of one code.
        let code = key.parse::<u8>().ok().filter(|code| code.to_string() == key);
        let Some(code) = code else {
            let message = format!("{} is not an exit code; allowed: 0 to 255", quoted(key));
            report.wrong(&value.key_span(), About::Text, message);
            continue;
        };
        if let Some(rule) = settle(value.choice(&rules), report) {
            codes.insert(code, rule);
        }
    }
    codes
}

fn log(mut table: Table<'_>, report: &mut Report<'_>) -> LogPolicy {
    let default = LogPolicy::default();
    // Below the smallest, every line or two would be an archive of its own (s6-log has the same bound).
    let sizes = 4096..=100_000_000_000;
    let max_size = table.read("max_size", report, |item| item.size(&sizes, "4096 bytes to 100GB"));
    let keep = table.read("keep", report, |item| item.integer(&(0..=10_000)));
    let to_container = table.read("to_container", report, Item::boolean);
    let prefix = table.read("prefix", report, Item::boolean);
    let overflows = [("block", Overflow::Block), ("drop", Overflow::Drop)];
    let overflow = table.read("overflow", report, |item| item.choice(&overflows));
    table.finish(report);
    LogPolicy {
        max_size: max_size.unwrap_or(default.max_size),
        keep: keep.and_then(|keep| u32::try_from(keep).ok()).unwrap_or(default.keep),
        to_container: to_container.unwrap_or(default.to_container),
        prefix,
        overflow: overflow.unwrap_or(default.overflow),
    }
}

/// Remarks that `item`, if it is there, has no effect.
pub(super) fn idle(item: Option<&Item<'_>>, why: &str, report: &mut Report<'_>) {
    if let Some(item) = item {
        report.idle(&item.key_span(), format!("'{}' has no effect {why}", item.key()));
    }
}

fn sorted(mut names: Vec<ServiceName>) -> Vec<ServiceName> {
    names.sort();
    names.dedup();
    names
}
