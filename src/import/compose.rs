//! The services of a compose file. What its keys mean: the Compose Specification.
//!
//! A service there is an image, here it is a program in this one: what the images bring, their networks and their volumes are
//! noted and not carried over.

use super::draft::{Check, DAY, Draft, Health, Ready};
use super::ini::{self, ValueError};
use super::yaml::Node;
use super::{Env, Gathered};
use crate::core::limits::Key;
use crate::s6::bundle;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

const OWNER_ONLY: u32 = 0o600;

/// What Docker has without `interval` or `timeout` of a health check.
const ENGINES: Duration = Duration::from_secs(30);
/// What a definition takes.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(50);
const MOST_FAILURES: u32 = 10_000;
const MOST_INSTANCES: u32 = 256;

/// Keys that say nothing about how a program is run, or ask for what every service has here.
const SILENT: [&str; 8] =
    ["container_name", "hostname", "init", "tty", "stdin_open", "labels", "annotations", "pull_policy"];

/// Keys without a counterpart, with what to do instead.
const INSTEAD: [(&str, &str); 10] = [
    ("image", "what it brings has to be in this image"),
    ("build", "what it brings has to be in this image"),
    ("ports", "publish them from this container"),
    ("expose", "services of one container share its network"),
    ("networks", "services of one container share its network"),
    ("volumes", "mount them into this container"),
    ("tmpfs", "mount them into this container"),
    ("logging", "the log is <home>/logs/gateways/NAME/current"),
    ("extends", "write out what it extends"),
    ("profiles", "write autostart = false for what is not always wanted"),
];

/// Why a service cannot be imported.
#[derive(Debug, thiserror::Error)]
enum ServiceError {
    #[error("has no command: write the one of its image as `command`")]
    NoCommand,
    #[error("{key} {error}")]
    Value { key: &'static str, error: ValueError },
    #[error("{0} is neither a text nor a list of texts")]
    NoWords(&'static str),
}

pub(super) fn is_compose(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yml" || extension == "yaml")
}

pub(super) fn import(path: &Path, scope: usize, env: &Env<'_>, gathered: &mut Gathered) {
    let root = match bundle::text(path).map(|text| Node::parse(&text)) {
        Ok(Ok(root)) => root,
        Ok(Err(error)) => return gathered.fail(path, &error.to_string()),
        Err(error) => return gathered.fail(path, &format!("cannot be read: {error}")),
    };
    let Some(services) = root.get("services") else {
        return gathered.fail(path, "has no `services`: is it a compose file?");
    };
    for (key, _) in root.entries() {
        if !matches!(key, "services" | "version" | "name") && !key.starts_with("x-") {
            gathered.remark(path, &format!("{key}: not carried over"));
        }
    }
    let mode = std::fs::metadata(path).map_or(0o600, |stat| stat.mode());
    let (mut drafts, mut awaited) = (Vec::new(), Vec::new());
    for (name, service) in services.entries() {
        let mut draft =
            Draft { scope, source: path.to_owned(), mode, wish: name.to_owned(), ..Draft::default() };
        let mut values = Values {
            entries: service.entries(),
            env,
            dir: path.parent(),
            awaited: &mut awaited,
            draft: &mut draft,
        };
        match values.read() {
            Ok(()) => drafts.push(draft),
            Err(error) => gathered.fail(path, &format!("services.{name} {error}")),
        }
    }
    for (name, until) in awaited {
        // One that is not there is noted with the names.
        if let Some(draft) = drafts.iter_mut().find(|draft| draft.wish == name) {
            until.told_by(draft);
        }
    }
    gathered.drafts.append(&mut drafts);
}

/// What another service waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    Healthy,
    Completed,
}

impl Until {
    /// The one that is waited for says it by itself here.
    fn told_by(self, draft: &mut Draft) {
        match (self, &draft.health) {
            (Self::Completed, _) => {
                draft.oneshot = true;
                if draft.policy == Some("always") {
                    draft.policy = Some("on-failure");
                }
            }
            (Self::Healthy, Some(Health { check: Check::Exec(words), .. })) => {
                draft.ready = Some(Ready::Exec(words.clone()));
            }
            (Self::Healthy, _) => {
                draft.note(
                    "healthcheck: another one waits for that of its image, which is not known: write [ready]",
                );
            }
        }
    }
}

/// The keys of one service, taken one by one.
struct Values<'a> {
    entries: Vec<(&'a str, &'a Node)>,
    env: &'a Env<'a>,
    /// Relative paths are from here.
    dir: Option<&'a Path>,
    /// Services that others wait for.
    awaited: &'a mut Vec<(String, Until)>,
    draft: &'a mut Draft,
}

impl<'a> Values<'a> {
    fn read(&mut self) -> Result<(), ServiceError> {
        let entrypoint = self.words("entrypoint")?.unwrap_or_default();
        let command = self.words("command")?.unwrap_or_default();
        self.draft.command = entrypoint.into_iter().chain(command).collect();
        if self.draft.command.first().is_none_or(String::is_empty) {
            return Err(ServiceError::NoCommand);
        }
        self.identity();
        self.order();
        self.restart();
        self.stop();
        self.limits();
        self.health();
        for (key, _) in std::mem::take(&mut self.entries) {
            if SILENT.contains(&key) || key.starts_with("x-") {
                continue;
            }
            let instead = INSTEAD
                .iter()
                .find(|(known, _)| *known == key)
                .map_or("it has no counterpart", |(_, what)| what);
            self.draft.note(format!("{key}: {instead}"));
        }
        Ok(())
    }

    fn take(&mut self, key: &str) -> Option<&'a Node> {
        let at = self.entries.iter().position(|(name, _)| *name == key)?;
        let (_, node) = self.entries.swap_remove(at);
        (*node != Node::Null).then_some(node)
    }

    fn text(&mut self, key: &'static str) -> Option<String> {
        let node = self.take(key)?;
        match node.text() {
            Some(text) => Some(self.filled(key, text)),
            None => {
                self.draft.note(format!("{key}: is no text"));
                None
            }
        }
    }

    /// A command: a list, or a text that is split as a shell would.
    fn words(&mut self, key: &'static str) -> Result<Option<Vec<String>>, ServiceError> {
        let Some(node) = self.take(key) else { return Ok(None) };
        if let Some(text) = node.text() {
            let text = self.filled(key, text);
            return ini::words(&text).map(Some).map_err(|error| ServiceError::Value { key, error });
        }
        let items = node.list().ok_or(ServiceError::NoWords(key))?;
        let words = items
            .map(|item| item.text().map(|text| self.filled(key, text)).ok_or(ServiceError::NoWords(key)));
        words.collect::<Result<_, _>>().map(Some)
    }

    /// With variables of the environment in it, as they are now.
    fn filled(&mut self, key: &str, text: &str) -> String {
        let (filled, names) = interpolate(text, self.env);
        for (name, found) in names {
            let note = match found {
                Found::Nowhere => format!("${{{name}}} in {key}: it is not set, so nothing stands there"),
                Found::Set => {
                    self.draft.mode &= OWNER_ONLY;
                    format!(
                        "${{{name}}} in {key}: the value at the import stands there; it may be a secret, so only the file's owner may read it"
                    )
                }
                Found::Default => format!("${{{name}}} in {key}: its default stands there"),
            };
            self.draft.note(note);
        }
        filled
    }

    fn identity(&mut self) {
        self.draft.user = self.text("user").filter(|user| !user.is_empty());
        match self.draft.user.as_deref().and_then(|user| user.split_once(':')) {
            Some((user, group)) => {
                let (user, group) = (user.to_owned(), group.to_owned());
                self.draft.note(format!("user: group {group}: it runs with the groups of its user"));
                self.draft.user = Some(user);
            }
            None if self.draft.user.is_none() => {
                self.draft.note("user: that of its image is not known, so it runs as the default user");
            }
            None => {}
        }
        if let Some(directory) = self.text("working_dir") {
            match directory.starts_with('/') {
                true => self.draft.working_dir = Some(directory),
                false => self.draft.note(format!("working_dir: {directory}: is not an absolute path")),
            }
        }
        if let Some(node) = self.take("environment") {
            let pairs: Vec<(String, Option<String>)> = match node.list() {
                Some(items) => items
                    .filter_map(Node::text)
                    .map(|text| match text.split_once('=') {
                        Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                        None => (text.to_owned(), None),
                    })
                    .collect(),
                None => {
                    let own = |value: &Node| value.text().map(str::to_owned);
                    node.entries().into_iter().map(|(key, value)| (key.to_owned(), own(value))).collect()
                }
            };
            for (key, value) in pairs {
                // Without a value it is what the environment of the supervisor says, which every service has.
                if let (false, Some(value)) = (key.is_empty(), value) {
                    let value = self.filled("environment", &value);
                    self.draft.env.insert(key, value);
                }
            }
        }
        let files: Vec<&Node> = match self.take("env_file") {
            Some(node) => node.list().map_or_else(|| vec![node], Iterator::collect),
            None => Vec::new(),
        };
        for file in files {
            let Some(text) = file.text().or_else(|| file.get("path")?.text()) else { continue };
            let text = self.filled("env_file", text);
            let path = self.dir.unwrap_or(Path::new("/")).join(text);
            let path: std::path::PathBuf = path.components().collect();
            let optional = file.get("required").and_then(Node::text) == Some("false");
            self.draft.env_files.push(format!("{}{}", if optional { "?" } else { "" }, path.display()));
        }
    }

    fn order(&mut self) {
        let Some(node) = self.take("depends_on") else { return };
        if let Some(items) = node.list() {
            self.draft.after.extend(items.filter_map(Node::text).map(str::to_owned));
        }
        for (name, how) in node.entries() {
            let until = match how.get("condition").and_then(Node::text) {
                Some("service_healthy") => Some(Until::Healthy),
                Some("service_completed_successfully") => Some(Until::Completed),
                _ => None,
            };
            self.awaited.extend(until.map(|until| (name.to_owned(), until)));
            let is_optional = how.get("required").and_then(Node::text) == Some("false");
            match until {
                Some(_) if !is_optional => self.draft.requires.push(name.to_owned()),
                _ => self.draft.after.push(name.to_owned()),
            }
        }
    }

    /// Who is unhealthy there is only shown so.
    fn health(&mut self) {
        let Some(node) = self.take("healthcheck") else { return };
        if node.get("disable").and_then(Node::text) == Some("true") {
            return;
        }
        let Some(words) = self.test(node) else { return };
        let [interval, timeout, start_period, start_interval] =
            ["interval", "timeout", "start_period", "start_interval"].map(|key| self.time(node, key));
        let failures = node.get("retries").and_then(Node::text).and_then(|text| match text.parse::<u32>() {
            Ok(number) => Some(number.min(MOST_FAILURES)),
            Err(_) => {
                self.draft.note(format!("healthcheck.retries: {text}: is not a number"));
                None
            }
        });
        // None of them is 0 to an engine.
        let failures = failures.filter(|number| *number > 0);
        let interval = interval.map(|time| time.max(SHORTEST_INTERVAL));
        let whole = interval.unwrap_or(ENGINES).saturating_mul(failures.unwrap_or(3));
        let start_period = start_period.unwrap_or_default();
        // Others wait for it until it is unhealthy.
        self.draft.ready_timeout = Some(whole.saturating_add(start_period).min(DAY));
        self.draft.ready_interval = start_interval.map(|time| time.max(SHORTEST_INTERVAL));
        self.draft.health = Some(Health {
            interval,
            timeout: Some(timeout.unwrap_or(ENGINES)),
            failures,
            start_period: Some(start_period),
            marks: true,
            ..Health::new(Check::Exec(words))
        });
    }

    /// What is run; `None`: nothing.
    fn test(&mut self, node: &Node) -> Option<Vec<String>> {
        const KEY: &str = "healthcheck";
        let shell = |script: String| vec!["/bin/sh".to_owned(), "-c".to_owned(), script];
        let Some(test) = node.get("test") else {
            self.draft.note("healthcheck: has no test, and that of its image is not known");
            return None;
        };
        if let Some(script) = test.text() {
            return Some(shell(self.filled(KEY, script)));
        }
        let words: Vec<&str> = test.list().into_iter().flatten().filter_map(Node::text).collect();
        match words.as_slice() {
            ["NONE"] => None,
            ["CMD", program, rest @ ..] if !program.is_empty() => {
                Some([program].into_iter().chain(rest).map(|word| self.filled(KEY, word)).collect())
            }
            ["CMD-SHELL", script] => Some(shell(self.filled(KEY, script))),
            _ => {
                self.draft.note("healthcheck.test: is none of CMD, CMD-SHELL and NONE");
                None
            }
        }
    }

    /// A time of the health check; 0 is as if it were not there.
    fn time(&mut self, node: &Node, key: &str) -> Option<Duration> {
        let text = self.filled("healthcheck", node.get(key)?.text()?);
        let read = span(&text);
        if read.is_none() {
            self.draft.note(format!("healthcheck.{key}: {text}: is not a duration"));
        }
        read.filter(|time| !time.is_zero()).map(|time| time.clamp(Duration::from_millis(1), DAY))
    }

    fn restart(&mut self) {
        let policy = self.text("restart").unwrap_or_else(|| "no".to_owned());
        let (policy, most) =
            policy.split_once(':').map_or((policy.as_str(), None), |(policy, most)| (policy, Some(most)));
        self.draft.policy = Some(match policy {
            "no" | "false" => "never",
            "always" | "unless-stopped" => "always",
            "on-failure" => "on-failure",
            other => {
                self.draft.note(format!("restart: {other}: is not known, and counts as no"));
                "never"
            }
        });
        if let Some(most) = most {
            match most.parse::<u32>() {
                Ok(most) => self.draft.limit = Some((most.min(10_000), DAY)),
                Err(_) => self.draft.note(format!("restart: {most}: is not a number")),
            }
        }
    }

    fn stop(&mut self) {
        if let Some(text) = self.text("stop_signal") {
            self.draft.take_stop_signal(&text, &format!("stop_signal: {text}"));
        }
        if let Some(text) = self.text("stop_grace_period") {
            match span(&text) {
                Some(time) => self.draft.stop_timeout = Some(time.clamp(Duration::from_millis(1), DAY)),
                None => self.draft.note(format!("stop_grace_period: {text}: is not a duration")),
            }
        }
    }

    fn limits(&mut self) {
        let deploy = self.take("deploy");
        let of_deploy = deploy.and_then(|deploy| deploy.get("resources")?.get("limits"));
        for (own, below, key) in [
            ("mem_limit", "memory", Key::MemoryMax),
            ("pids_limit", "pids", Key::PidsMax),
            ("cpus", "cpus", Key::CpuMax),
        ] {
            let below = of_deploy.and_then(|limits| limits.get(below)?.text()).map(str::to_owned);
            let Some(text) = self.text(own).or(below) else { continue };
            let value = match key {
                Key::CpuMax => {
                    text.parse::<f64>().map_or(text.clone(), |cpus| format!("{:.0}%", cpus * 100.0))
                }
                Key::MemoryMax => binary(&text),
                _ if text == "-1" => "max".to_owned(),
                _ => text.clone(),
            };
            self.draft.take_limit(key, &value, &format!("{own}: '{text}'"));
        }
        for (key, _) in deploy.map(Node::entries).unwrap_or_default() {
            if !matches!(key, "resources" | "replicas") {
                self.draft.note(format!("deploy.{key}: it has no counterpart"));
            }
        }
        let replicas = deploy.and_then(|deploy| deploy.get("replicas")?.text()).map(str::to_owned);
        if let Some(text) = self.text("scale").or(replicas) {
            self.instances(&text);
        }
    }

    fn instances(&mut self, text: &str) {
        match text.parse::<u32>() {
            Ok(0) => self.draft.held_down = true,
            Ok(1) => {}
            Ok(count @ ..=MOST_INSTANCES) => self.draft.instances = Some(count),
            _ => self
                .draft
                .note(format!("replicas: {text}: is not a number up to {MOST_INSTANCES}, so there is one")),
        }
    }
}

/// `512m` and `512mb` are 512 times 2^20 to compose.
fn binary(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let digits = lower.len() - lower.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    match lower.get(digits..) {
        Some(unit @ ("k" | "kb" | "m" | "mb" | "g" | "gb")) => {
            format!("{}{}", &lower[..digits], unit[..1].to_ascii_uppercase())
        }
        Some("b") => lower[..digits].to_owned(),
        _ => text.to_owned(),
    }
}

fn span(text: &str) -> Option<Duration> {
    // humantime panics where the whole overflows.
    (text.bytes().filter(u8::is_ascii_digit).count() <= 12).then(|| humantime::parse_duration(text).ok())?
}

/// Where the value of a variable came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Set,
    Default,
    Nowhere,
}

/// `$X`, `${X}`, `${X:-default}`, `${X-default}`, `${X:?message}`, `${X:+other}`, and `$$` for a dollar sign. Gives also each
/// variable and where its value came from.
fn interpolate(text: &str, env: &Env<'_>) -> (String, Vec<(String, Found)>) {
    let (mut out, mut names) = (String::new(), Vec::new());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let (inside, behind) = match after.strip_prefix('{').and_then(|after| after.split_once('}')) {
            Some(braced) => braced,
            None => after.split_at(after.find(|c| !is_name(c)).unwrap_or(after.len())),
        };
        let (name, how) = inside.split_at(inside.find(|c| !is_name(c)).unwrap_or(inside.len()));
        if name.is_empty() {
            out.push('$');
            rest = after;
            continue;
        }
        let value = env(name).and_then(|value| value.into_string().ok());
        // With a colon an empty value counts as none.
        let value = value.filter(|value| !(how.starts_with(':') && value.is_empty()));
        let how = how.trim_start_matches(':');
        let (value, found) = match (value, how.split_at_checked(1)) {
            (Some(_), Some(("+", other))) => (other.to_owned(), Found::Default),
            (Some(value), _) => (value, Found::Set),
            (None, Some(("-", default))) => (default.to_owned(), Found::Default),
            (None, Some(("+", _))) => (String::new(), Found::Default),
            (None, _) => (String::new(), Found::Nowhere),
        };
        out.push_str(&value);
        names.push((name.to_owned(), found));
        rest = behind;
    }
    out.push_str(rest);
    (out, names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::ffi::OsString;

    #[test]
    fn variables_are_those_of_compose() {
        let env = |name: &str| match name {
            "SET" => Some(OsString::from("v")),
            "EMPTY" => Some(OsString::new()),
            _ => None,
        };
        for (text, expected) in [
            ("a$$b ${SET}-$SET", "a$b v-v"),
            ("${NONE:-d} ${EMPTY:-d} ${EMPTY-d}", "d d "),
            ("${SET:+o} ${NONE:+o}|${NONE}|${NONE:?why}", "o ||"),
            ("$ ${ $1", "$ ${ "),
        ] {
            assert_eq!(interpolate(text, &env).0, expected, "{text}");
        }
        assert_eq!(interpolate("${SET}", &env).1, [("SET".to_owned(), Found::Set)]);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a${}:?+X\\-ü]{0,30}") {
            let _ = interpolate(&text, &|name| (name == "X").then(|| OsString::from("v")));
            let _ = binary(&text);
            let _ = span(&text);
        }
    }
}
