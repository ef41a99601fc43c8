//! Every key of the documented format: its example, its default, its range, and the exact words of a refusal.

use super::diagnose::{About, Diagnostic, Source};
use super::load::MOST_BYTES;
use super::parse::{Parsed, Subject, parse};
use super::probes::{Check, Http, Probe, Remedy};
use super::resolved::*;
use super::trust::Trust;
use super::users::Surroundings;
use crate::core::limits::Limits;
use crate::core::name::ServiceName;
use crate::core::policy::{self, ExitRule, Kind, Policy, RestartWhen, Role};
use crate::core::signal::Signal;
use crate::core::words::{Overflow, Rung};
use crate::sys::users::nameless;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

fn surroundings() -> Surroundings {
    Surroundings { home: PathBuf::from("/opt/data"), gateway: nameless(10000, 10000), own_uid: 0 }
}

fn read_parsed(text: &str, trust: &Trust, surroundings: &Surroundings) -> Result<Parsed, Vec<Diagnostic>> {
    let name = ServiceName::new("web").unwrap();
    let path = PathBuf::from("web.toml");
    let subject = Subject {
        name: &name,
        origin: Origin::File(path.clone()),
        trust,
        security: Security::CONFINED,
        placeholders: &[],
        remarked: true,
    };
    parse(&Source { path, text: text.to_owned() }, subject, surroundings)
}

fn read_as(text: &str, trust: &Trust, surroundings: &Surroundings) -> Result<Definition, Vec<Diagnostic>> {
    read_parsed(text, trust, surroundings).map(|parsed| parsed.definition)
}

fn read(text: &str) -> Result<Definition, Vec<super::Diagnostic>> {
    read_as(text, &Trust::Trusted, &surroundings())
}

/// The headlines of what is wrong with a definition that also has a command, one line further down than written.
fn wrong(text: &str) -> Vec<String> {
    let found = read(&format!("command = [\"x\"]\n{text}"));
    found.map(|_| vec![]).unwrap_or_else(|found| found.iter().map(super::Diagnostic::headline).collect())
}

#[test]
fn a_command_alone_has_the_documented_defaults() {
    let made = read("command = ['python3', '-m', 'http.server']").unwrap();
    let expected = Definition {
        name: ServiceName::new("web").unwrap(),
        origin: Origin::File(PathBuf::from("web.toml")),
        description: None,
        command: ["python3", "-m", "http.server"].map(str::to_owned).into(),
        user: RunAs::Gateway,
        working_dir: PathBuf::from("/opt/data"),
        env: BTreeMap::new(),
        env_clear: false,
        env_files: vec![],
        secrets: None,
        has_variables: false,
        umask: None,
        autostart: true,
        policy: Arc::new(Policy::default()),
        schedule: None,
        after: vec![],
        requires: vec![],
        containment: None,
        ready: Ready::None,
        health: None,
        slot: None,
        stamp: None,
        hooks: None,
        log: LogPolicy {
            max_size: 1_000_000,
            keep: 10,
            to_container: true,
            prefix: None,
            overflow: Overflow::Block,
        },
        limits: Limits::default(),
        memory: Memory::default(),
        security: Security::CONFINED,
        hash: made.hash,
    };
    assert_eq!(made, expected);
}

/// The example of the documentation, with another value than the default wherever one is built.
const EVERYTHING: &str = r#"
description = "The web server"
command = ["python3", "-m", "http.server", "${PORT:-8000}"]   # argv, no shell
user = "10001"
working_dir = "/srv"
env = { KEY = "value" }
env_file = ["/etc/web.env", "?/etc/web.local"]
env_clear = true
umask = "0022"
autostart = false
type = "oneshot"
role = "essential"
after = ["migrate", "cache", "migrate"]
requires = ["database"]
containment = "keeper"

[stop]
signal = "SIGINT"
timeout = "1m30s"
leftovers = "2s"

[restart]
policy = "on-failure"
backoff = { initial = "200ms", factor = 3, max = "1m", jitter = 0, reset_after = "2m" }
limit = { burst = 3, interval = "1m" }
exit_codes = { 75 = "now", 78 = "failed", 0 = "stop" }

[ready]
kind = "fd"
timeout = "30s"
fd = 5

[health]
kind = "http"
url = "http://localhost:8080/health"
status = 204
contains = "ok"
interval = "10s"
timeout = "2s"
failures = 2
start_period = "1m"
action = "quarantine"

[hooks]
memory_high = ["sh", "-c", "kill -USR1 $HERMES_SUP_MAIN_PID"]
pre_start = ["migrate"]
post_start = ["announce"]
pre_stop = ["drain"]
post_stop = ["sh", "-c", "echo ${HERMES_SUP_EXIT_CODE}"]
timeout = "20s"

[log]
max_size = "2M"
keep = 0
to_container = false
prefix = true
overflow = "drop"

[limits]
memory_max = "512M"
cpu_max = "150%"
oom = "service"
nofile = 1024

[secrets]
TOKEN = "/run/secrets/token"

[security]
no_new_privs = true
capabilities = []
"#;

#[test]
fn every_key_is_understood() {
    let made = read(EVERYTHING).unwrap_or_else(|found| panic!("{}", found[0]));
    let names = |names: &[&str]| names.iter().map(|name| ServiceName::new(name).unwrap()).collect::<Vec<_>>();
    assert_eq!(made.user, RunAs::Named("10001".to_owned()));
    assert_eq!(made.working_dir, Path::new("/srv"));
    assert_eq!(made.env, BTreeMap::from([("KEY".to_owned(), "value".to_owned())]));
    let file = |path: &str, optional| EnvFile { path: PathBuf::from(path), optional };
    assert_eq!(made.env_files, [file("/etc/web.env", false), file("/etc/web.local", true)]);
    assert_eq!(made.description.as_deref(), Some("The web server"));
    let secret = ("TOKEN".to_owned(), PathBuf::from("/run/secrets/token"));
    assert_eq!(made.secrets.as_deref(), Some(&Secrets { files: [secret].into(), ours: true }));
    assert!(made.env_clear && made.has_variables);
    assert_eq!(made.umask, Some(0o022));
    assert!(!made.autostart);
    assert_eq!((made.policy.kind, made.policy.role), (Kind::Oneshot, Role::Essential));
    assert_eq!(made.after, names(&["cache", "database", "migrate"]), "order includes what is required");
    assert_eq!(made.requires, names(&["database"]));
    assert_eq!(made.containment, Some(Rung::Keeper));
    assert_eq!((made.ready, made.policy.ready), (Ready::Fd(5), Some(secs(30))));
    assert_eq!(made.health, None, "a oneshot runs as long as its work takes");
    let stop = made.policy.stop;
    assert_eq!((stop.signal, stop.timeout, stop.leftovers), (Signal::INT, secs(90), secs(2)));
    let restart = &made.policy.restart;
    assert_eq!(restart.when, RestartWhen::OnFailure);
    assert_eq!((restart.backoff.initial, restart.backoff.max), (Duration::from_millis(200), secs(60)));
    assert_eq!((restart.backoff.factor, restart.backoff.jitter), (3.0, 0.0));
    assert_eq!(
        (restart.backoff.reset_after, restart.limit.unwrap().burst, restart.limit.unwrap().interval),
        (secs(120), 3, secs(60))
    );
    let rules = [(0, ExitRule::Stop), (75, ExitRule::Now), (78, ExitRule::Failed)];
    assert_eq!(restart.exit_codes, BTreeMap::from(rules));
    let log = LogPolicy {
        max_size: 2 << 20,
        keep: 0,
        to_container: false,
        prefix: Some(true),
        overflow: Overflow::Drop,
    };
    assert_eq!(made.log, log);
    assert_eq!(made.limits.iter().count(), 4);
    let hooks = made.hooks.unwrap();
    assert_eq!(hooks.memory_high.unwrap().len(), 3);
    assert_eq!(hooks.pre_start.unwrap(), ["migrate"]);
    assert_eq!(hooks.post_stop.unwrap()[2], "echo ${HERMES_SUP_EXIT_CODE}", "that is the shell's");
    let twenty = Some(secs(20));
    assert_eq!(made.policy.hooks, policy::Hooks { pre_start: twenty, post_start: twenty, pre_stop: twenty });
    assert_eq!(made.policy.finish, twenty);
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn each_kind_of_readiness_and_health_has_its_keys_and_no_others() {
    let path = || PathBuf::from("/run/x");
    let ready = |text: &str| read(&format!("command = ['x']\nready = {{ {text} }}")).unwrap().ready;
    let probe = |text: &str| match ready(text) {
        Ready::Probe(asked) => (*asked.probe).clone(),
        other => panic!("{other:?}"),
    };
    let tcp = Probe::Tcp("127.0.0.1:6379".parse().unwrap());
    assert_eq!(probe("kind = 'tcp', address = 'localhost:6379'"), tcp);
    assert_eq!(probe("kind = 'unix', path = '/run/x'"), Probe::Unix(path()));
    assert_eq!(probe("kind = 'exec', command = ['a', 'b']"), Probe::Exec(vec!["a".into(), "b".into()]));
    assert_eq!(ready("kind = 'notify'"), Ready::Notify);
    assert!(
        matches!(ready("kind = 'log', pattern = 'ready$'"), Ready::Log(made) if made.0.is_match("is ready"))
    );
    let health =
        |text: &str| read(&format!("command = ['x']\nhealth = {{ {text} }}")).unwrap().health.unwrap();
    let asked = Http {
        address: "127.0.0.1:8080".parse().unwrap(),
        host: "localhost:8080".to_owned(),
        target: "/health".to_owned(),
        status: 204,
        contains: Some("ok".to_owned()),
    };
    let all = health(
        "kind = 'http', url = 'http://localhost:8080/health', status = 204, contains = 'ok', interval = '10s', \
         timeout = '2s', failures = 2, start_period = '1m', action = 'quarantine'",
    );
    assert_eq!(all.check, Check::Probe(Arc::new(Probe::Http(asked))));
    assert_eq!((all.interval, all.timeout, all.start_period), (secs(10), secs(2), secs(60)));
    assert_eq!((all.failures, all.action), (2, Remedy::Quarantine));
    let old = health("kind = 'file-age', path = '/run/x', max_age = '2m'");
    assert_eq!(old.check, Check::Probe(Arc::new(Probe::FileAge { path: path(), max_age: secs(120) })));
    assert_eq!((old.interval, old.timeout, old.failures, old.start_period), (secs(30), secs(5), 3, secs(60)));
    assert_eq!(health("kind = 'watchdog', timeout = '10s'").timeout, secs(10));
    for (text, said) in [
        ("ready = { kind = 'tcp' }", "2:18: kind 'tcp' needs 'address'; write address = \"127.0.0.1:6379\""),
        (
            "health = { kind = 'file-age', path = '/x' }",
            "2:19: kind 'file-age' needs 'max_age'; write max_age = \"2m\"",
        ),
        ("ready = { kind = 'log', pattern = '(' }", "2:35: '(' is no regular expression: "),
        (
            "ready = { kind = 'tcp', address = 'redis:6379' }",
            "2:35: 'redis:6379' is no address; write an IP address",
        ),
        (
            "health = { kind = 'http', url = 'https://localhost/' }",
            "2:33: 'https://localhost/' is no URL that can be asked",
        ),
        (
            "health = { kind = 'fd' }",
            "2:19: 'fd' is not known here; allowed: none, exec, http, tcp, unix, watchdog, file-age",
        ),
    ] {
        let found = wrong(text);
        assert!(found[0].starts_with(&format!("web.toml:{said}")) && found.len() == 1, "{found:?}");
    }
}

#[test]
fn a_oneshot_may_run_at_times_or_intervals() {
    for (text, expected) in [
        ("type = 'oneshot'\nschedule = ' 0 3 * * sun '", Some("0 3 * * sun")),
        ("type = 'oneshot'\nschedule = '@hourly'", Some("@hourly")),
        ("type = 'oneshot'\nevery = '90s'", Some("every 1m 30s")),
        ("type = 'oneshot'", None),
    ] {
        let made = read(&format!("command = ['x']\n{text}\n")).unwrap();
        assert_eq!(made.schedule.as_ref().map(ToString::to_string).as_deref(), expected, "{text}");
        assert_eq!(made.policy.kind == Kind::Scheduled, expected.is_some());
        let when = if expected.is_some() { RestartWhen::Never } else { RestartWhen::Always };
        assert_eq!(made.policy.restart.when, when, "{text}");
    }
    let tried_again = "command = ['x']\ntype = 'oneshot'\nevery = '1s'\nrestart.policy = 'on-failure'\n";
    assert_eq!(read(tried_again).unwrap().policy.restart.when, RestartWhen::OnFailure);
    for (text, said) in [
        ("every = '10m'", "2:1: 'every' is for what ends; write type = \"oneshot\" too"),
        ("schedule = '@daily'", "2:1: 'schedule' is for what ends; write type = \"oneshot\" too"),
        (
            "type = 'oneshot'\nschedule = '@daily'\nevery = '1m'",
            "4:1: there is a 'schedule' already; keep one of the two",
        ),
        (
            "type = 'oneshot'\nschedule = '61 * * * *'",
            "3:12: '61 * * * *' has \"61\" for the minute; allowed: 0 to 59",
        ),
        ("type = 'oneshot'\nschedule = '* * * *'", "3:12: '* * * *' has 4 fields; write five"),
        ("type = 'oneshot'\nevery = '100ms'", "3:9: '100ms' is out of range; allowed: 1s to 1year"),
    ] {
        let found = wrong(text);
        assert!(found[0].starts_with(&format!("web.toml:{said}")) && found.len() == 1, "{found:?}");
    }
}

#[test]
fn limits_are_texts_or_numbers_and_each_is_checked() {
    let made = read(
        "command = ['x']\n[limits]\nmemory_max = '512M'\nmemory_high = 402653184\nswap_max = 0\npids_max = 'max'\n\
         cpu_max = '150%'\ncpu_weight = 200\nio_weight = '50'\noom = 'service'\nnofile = 1024\nnproc = 100\ncore = 0\n\
         oom_score_adj = -500\n",
    )
    .unwrap();
    let shown: Vec<String> =
        made.limits.iter().map(|(key, value)| format!("{key}={}", key.show(value))).collect();
    assert_eq!(
        shown.join(" "),
        "memory_max=512M memory_high=384M swap_max=0 pids_max=max cpu_max=150% cpu_weight=200 io_weight=50 \
         oom=service nofile=1024 nproc=100 core=0 oom_score_adj=-500"
    );
    for (text, expected) in [
        (
            "memory_max = '5 apples'",
            "3:14: '5 apples' is not known here; allowed: a size of at least 1M, as in \"512M\", or \"max\"",
        ),
        ("pids_max = true", "3:12: 'pids_max' is a boolean; write a text in quotes or a whole number"),
        ("cpu_weight = 0", "3:14: '0' is out of range; allowed: 1 to 10000 (100 where nothing is set)"),
        ("oom = 'kill'", "3:7: 'kill' is not known here; allowed: service, process"),
        ("nofile = 'max'", "3:10: 'max' is not known here; allowed: 1 to 2147483584"),
    ] {
        assert_eq!(wrong(&format!("[limits]\n{text}")), [format!("web.toml:{expected}")]);
    }
    assert!(
        wrong("[limits]\nmemory = 1")[0].contains("unknown key 'memory' in [limits]; allowed: memory_max, ")
    );
}

#[test]
fn what_is_not_trusted_gets_no_more_than_it_would_have_without_limits() {
    let home = Trust::Untrusted("this one is below --home /opt/data".to_owned());
    let read = |text: &str| read_as(&format!("command = ['x']\n[limits]\n{text}"), &home, &surroundings());
    // Beyond what any process has, whatever this one has.
    for text in ["oom_score_adj = -1000", "cpu_weight = 101", "io_weight = 10000", "nofile = 2147483584"] {
        let found = read(text).unwrap_err();
        assert_eq!(found[0].about, About::Place, "{text}");
        let key = text.split(' ').next().unwrap();
        let expected = format!(
            "only a root-owned definition outside --home may give more than a service has without '{key}'; this one is \
             below --home /opt/data"
        );
        assert!(found[0].headline().ends_with(&expected), "{}", found[0]);
    }
    let tight = "memory_max = '64M'\ncpu_weight = 10\nnofile = 16\noom_score_adj = 1000\noom = 'service'";
    assert_eq!(read(tight).unwrap().limits.iter().count(), 5);
}

#[test]
fn a_refusal_says_where_what_is_wrong_and_what_is_allowed() {
    for (text, expected) in [
        ("umask = 22", "2:9: 'umask' is an integer; write a text in quotes"),
        ("umask = '99'", "2:9: '99' is not a umask; write octal digits in quotes, \"0000\" to \"0777\""),
        ("autostart = 'yes'", "2:13: 'autostart' is a string; write true or false"),
        ("type = 'forking'", "2:8: 'forking' is not known here; allowed: daemon, oneshot"),
        ("role = 'main'", "2:8: 'main' is not known here; allowed: auxiliary, essential"),
        ("working_dir = 'data'", "2:15: 'data' is not an absolute path; begin it with '/'"),
        ("env = { A = 1 }", "2:13: 'A' is an integer; write a text in quotes"),
        (
            "env = { '' = 'x' }",
            "2:14: '' cannot be the name of a variable; it must not be empty nor contain '=' or NUL",
        ),
        ("env = { A = \"\\u0000\" }", "2:13: 'A' contains a NUL character; none is allowed"),
        ("user = ''", "2:8: 'user' is empty; write a name or a number, or leave it out"),
        ("after = 'migrate'", "2:9: 'after' is a string; write a list in brackets, as in [\"a\", \"b\"]"),
        ("after = ['web']", "2:10: 'web' cannot wait for itself; name another service"),
        (
            "requires = ['a', 'B']",
            "2:18: 'B' is not a service name: use 1 to 64 of a-z, 0-9, '-' and '_', beginning with a letter or digit; an instance of NAME is NAME@ARGUMENT",
        ),
        ("stop = 3", "2:8: 'stop' is an integer; write a table, as in { key = \"value\" }"),
        ("stop = { timeout = 10 }", "2:20: 'timeout' is an integer; write a text in quotes"),
        (
            "stop = { timeout = '10' }",
            "2:20: '10' is not a duration; write a number and a unit, as in \"100ms\", \"10s\" or \"1m30s\"",
        ),
        ("stop = { timeout = '0s' }", "2:20: '0s' is out of range; allowed: 1ms to 1day"),
        ("stop = { timeout = '2days' }", "2:20: '2days' is out of range; allowed: 1ms to 1day"),
        (
            "stop = { signal = 'SIGNOPE' }",
            "2:19: 'SIGNOPE' is not a signal; allowed: names as SIGTERM or TERM, SIGRTMIN+3, numbers 1 to 64",
        ),
        (
            "restart = { policy = 'unless-stopped' }",
            "2:22: 'unless-stopped' is not known here; allowed: always, on-failure, never",
        ),
        ("restart = { backoff = { factor = 0.5 } }", "2:34: 'factor' is out of range; allowed: 1 to 1000"),
        ("restart = { backoff = { factor = nan } }", "2:34: 'factor' is out of range; allowed: 1 to 1000"),
        ("restart = { backoff = { jitter = 1.1 } }", "2:34: 'jitter' is out of range; allowed: 0 to 1"),
        (
            "restart = { backoff = { initial = '9s', max = '1s' } }",
            "2:23: 'initial' is longer than 'max'; a wait grows from initial to max",
        ),
        ("restart = { limit = { burst = -1 } }", "2:31: 'burst' is out of range; allowed: 0 to 10000"),
        ("restart = { exit_codes = { 256 = 'now' } }", "2:28: '256' is not an exit code; allowed: 0 to 255"),
        ("restart = { exit_codes = { 075 = 'now' } }", "2:28: '075' is not an exit code; allowed: 0 to 255"),
        (
            "restart = { exit_codes = { 75 = 'soon' } }",
            "2:33: 'soon' is not known here; allowed: now, later, stop, failed",
        ),
        ("memory = { thp = 'madvise' }", "2:18: 'madvise' is not known here; allowed: inherit, disable"),
        ("memory = { ksm = 1 }", "2:18: 'ksm' is an integer; write true or false"),
        ("log = { max_size = '1' }", "2:20: 'max_size' is out of range; allowed: 4096 bytes to 100GB"),
        (
            "log = { max_size = 'big' }",
            "2:20: 'big' is not a size; write a number and a unit, as in \"1MB\" (10^6 bytes) or \"512M\" (2^20)",
        ),
        (
            "hooks = { pre_start = 'a' }",
            "2:23: 'pre_start' is a string; write a list in brackets, as in [\"a\", \"b\"]",
        ),
        ("hooks = { post_stop = ['a'], timeout = '0s' }", "2:40: '0s' is out of range; allowed: 1ms to 1day"),
        ("log = { keep = 10001 }", "2:16: 'keep' is out of range; allowed: 0 to 10000"),
        ("log = { overflow = 'wait' }", "2:20: 'wait' is not known here; allowed: block, drop"),
        (
            "containment = 'docker'",
            "2:15: 'docker' is not known here; allowed: auto, cgroup, cgroup-private, pidns, keeper, keeper-same-uid",
        ),
        (
            "ready = { kind = 'maybe' }",
            "2:18: 'maybe' is not known here; allowed: none, fd, notify, tcp, unix, http, exec, log, gateway-state",
        ),
        (
            "stop = { sigal = 'TERM' }",
            "2:10: unknown key 'sigal' in [stop] (did you mean 'signal'?); allowed: signal, timeout, leftovers",
        ),
        (
            "description = \"two\\nlines\"",
            "2:15: 'description' is not one line of at most 200 characters; shorten it",
        ),
        ("env_file = ['/a', 'b']", "2:19: 'b' is not an absolute path; begin it with '/'"),
        ("env_clear = 'yes'", "2:13: 'env_clear' is a string; write true or false"),
        (
            "working_dir = '/a/${'",
            "2:15: '/a/${' has a '${' that begins no variable; write ${NAME} or ${NAME:-default}, or $${ for the text '${'",
        ),
        ("env = { A = 'x' }\nsecrets = { A = '/a' }", "3:17: 'A' is also in 'env'; write it once"),
        ("secrets = { A = 'a' }", "2:17: 'a' is not an absolute path; begin it with '/'"),
        (
            "env_file = '/opt/data/.env'\nuser = '10001'",
            "2:12: an env_file below --home is only read for services of the default user; put it elsewhere, owned by root or the service's user",
        ),
    ] {
        assert_eq!(wrong(text), [format!("web.toml:{expected}")], "{text}");
    }
}

#[test]
fn an_unknown_key_is_refused_with_the_known_ones() {
    let found = wrong("comand = 1");
    assert!(found[0].starts_with(
        "web.toml:2:1: unknown key 'comand' in the definition (did you mean 'command'?); allowed: command, description, user, "
    ));
    for known in ["env_file", "security", "limits", "hooks", "health", "ready", "restart", "stop", "log"] {
        assert!(found[0].contains(known), "{known}: {found:?}");
    }
}

#[test]
fn all_errors_of_a_file_are_reported_together_in_its_order() {
    let found =
        read("user = 1\numask = '9'\nwhat = 2\n[stop]\ntimeout = 'x'\n[log]\nkeep = 1.5\n").unwrap_err();
    let places: Vec<String> =
        found.iter().map(|d| d.headline().split(": ").next().unwrap().to_owned()).collect();
    assert_eq!(
        places,
        ["web.toml:1:1", "web.toml:1:8", "web.toml:2:9", "web.toml:3:1", "web.toml:5:11", "web.toml:7:8"]
    );
    assert_eq!(
        found[5].to_string(),
        "web.toml:7:8: 'keep' is a float; write a whole number without quotes\n  7 | keep = 1.5\n    |        ^^^"
    );
    let many: String = (0..50).map(|n| format!("k{n} = 1\n")).collect();
    let found = wrong(&many);
    assert_eq!(found.len(), 21);
    assert_eq!(found[20], "web.toml: only the first 20 errors are shown");
}

#[test]
fn broken_toml_is_reported_with_its_place() {
    let found = read("command = [\"x\"\numask = \"0022\"\n").unwrap_err();
    assert_eq!(found[0].about, About::Text);
    assert!(found[0].headline().starts_with("web.toml:"), "{}", found[0]);
    assert_eq!(
        read("").unwrap_err()[0].headline(),
        "web.toml:1:1: 'command' is missing; write command = [\"program\", \"argument\"]"
    );
    for text in ["command = []", "command = ['']"] {
        let expected =
            "web.toml:1:11: 'command' names no program; write command = [\"program\", \"argument\"]";
        assert_eq!(read(text).unwrap_err()[0].headline(), expected);
    }
}

/// A root service such as nginx or cron needs some of root's capabilities, and says so.
#[test]
fn capabilities_are_named_and_root_without_any_is_a_warning() {
    let security = |text: &str| read(&format!("command = ['x']\n[security]\n{text}")).unwrap().security;
    let named = |bounding, ambient| Capabilities::Named { bounding, ambient };
    let made = security("capabilities = ['CAP_CHOWN', 'kill']\nambient = ['SETUID']\nno_new_privs = false");
    assert_eq!(
        made,
        Security { no_new_privs: Some(false), capabilities: named(1 | 1 << 5 | 1 << 7, 1 << 7) }
    );
    assert_eq!(security("capabilities = ['ALL']").capabilities, named(u64::MAX, 0));
    assert_eq!(security("capabilities = []"), Security::CONFINED);
    let found = wrong("[security]\ncapabilities = ['CAP_CHOWN', 'CAP_OF_ANOTHER_WORLD']");
    assert!(
        found[0].starts_with("web.toml:3:30: 'CAP_OF_ANOTHER_WORLD' is no capability; allowed: "),
        "{found:?}"
    );

    let warned = |text: &str| {
        let parsed =
            read_parsed(&format!("command = ['x']\n{text}"), &Trust::Trusted, &surroundings()).unwrap();
        parsed.remarks.iter().map(Diagnostic::headline).collect::<Vec<_>>()
    };
    for text in ["user = 'root'", "user = '0'", "user = 'root'\n[security]\nno_new_privs = false"] {
        let found = warned(text);
        assert!(
            found.len() == 1 && found[0].starts_with("web.toml:2:8: root has no capabilities here"),
            "{found:?}"
        );
    }
    for text in [
        "",
        "user = '10001'",
        "user = 'root'\nsecurity = { capabilities = [] }",
        "user = '0'\nsecurity = { capabilities = ['ALL'] }",
    ] {
        assert_eq!(warned(text), [""; 0], "{text}");
    }
}

#[test]
fn what_is_not_trusted_runs_as_the_gateway_user_and_gets_no_rights() {
    let home = Trust::Untrusted("this one is below --home /opt/data".to_owned());
    let read = |text: &str| read_as(&format!("command = ['x']\n{text}"), &home, &surroundings());
    assert_eq!(read("").unwrap().user, RunAs::Gateway);
    // Kept as "the gateway user", not as the number it has today.
    assert_eq!(read("user = '10000'").unwrap().user, RunAs::Gateway);
    for user in ["root", "0", "10001", "no-such-user-here"] {
        let found = read(&format!("user = '{user}'")).unwrap_err();
        assert_eq!(found[0].about, About::Place);
        assert_eq!(
            found[0].headline(),
            "web.toml:2:8: only a root-owned definition outside --home may name another user than the default one, \
             '10000'; this one is below --home /opt/data"
        );
    }
    for (text, what) in [
        ("security = { capabilities = ['CAP_SYS_ADMIN'] }", "name capabilities"),
        ("security = { capabilities = ['ALL'] }", "name capabilities"),
        ("security = { ambient = ['CAP_SYS_ADMIN'] }", "name capabilities"),
        ("security = { no_new_privs = false }", "turn off no_new_privs"),
        ("role = 'essential'", "be essential"),
    ] {
        let found = read(text).unwrap_err()[0].headline();
        let expected = format!("only a root-owned definition outside --home may {what}");
        assert!(found.contains(&expected), "{found}");
    }
    assert_eq!(read("role = 'auxiliary'").unwrap().policy.role, Role::Auxiliary);
    assert_eq!(
        read("security = { capabilities = [], no_new_privs = true }").unwrap().security,
        Security::CONFINED
    );
}

#[test]
fn without_root_even_a_trusted_definition_names_only_ourselves() {
    let own = Surroundings { own_uid: 10000, ..surroundings() };
    let read = |text: &str| read_as(&format!("command = ['x']\n{text}"), &Trust::Trusted, &own);
    assert_eq!(read("user = '10000'").unwrap().user, RunAs::Named("10000".to_owned()));
    let found = read("user = 'root'").unwrap_err();
    assert_eq!(found[0].about, About::Caller);
    assert!(found[0].headline().contains("CAP_SETUID"), "{}", found[0]);
}

#[test]
fn the_hash_follows_the_text() {
    let hash = |text: &str| read(text).unwrap().hash;
    assert_eq!(hash("command = ['x']"), hash("command = ['x']"));
    assert_ne!(hash("command = ['x']"), hash("command = ['y']"));
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        let _ = read(&text);
    }

    /// Pieces of real definitions in any order and with any piece cut out reach further than random text.
    #[test]
    fn no_mutilated_definition_panics(cuts in proptest::collection::vec((0usize..1400, 0usize..60, "[\\[\\]{}='\",.0-9a-z\n\u{0}é]{0,6}"), 0..6)) {
        let mut text: Vec<char> = EVERYTHING.chars().collect();
        for (at, length, insert) in cuts {
            let at = at.min(text.len());
            let end = (at + length).min(text.len());
            text.splice(at..end, insert.chars());
        }
        let text: String = text.into_iter().collect();
        if let Err(found) = read(&text) {
            prop_assert!(!found.is_empty());
            for diagnostic in found {
                prop_assert!(!diagnostic.to_string().is_empty());
            }
        }
    }
}

/// A file of the largest size that is read must neither use up the stack nor flood the reader of what is wrong with it.
#[test]
fn hostile_files_of_full_size_are_refused_cheaply() {
    const SIZE: usize = MOST_BYTES as usize;
    let tables: String = (0..).map(|n| format!("[t{n}]\n")).take(SIZE / 18).collect();
    let unknown: String = (0..).map(|n| format!("k{n}=1,")).take(SIZE / 10).collect();
    for (what, text) in [
        ("nested arrays", format!("command = {}", "[".repeat(SIZE))),
        ("nested tables", format!("env = {}", "{a=".repeat(SIZE / 3))),
        ("dotted keys", format!("{} = 1", "a.".repeat(SIZE / 2) + "a")),
        ("errors", "=\n".repeat(SIZE / 2)),
        ("unknown keys in one line", format!("stop = {{{unknown}}}")),
        ("tables that come again", tables.repeat(2)),
        ("one long line", format!("umask = '{}'", "9".repeat(SIZE))),
    ] {
        let found = read(&text).unwrap_err();
        let shown: usize = found.iter().map(|found| found.to_string().len()).sum();
        assert!(found.len() <= 21 && shown < 10_000, "{what}: {} errors, {shown} bytes", found.len());
    }
}
