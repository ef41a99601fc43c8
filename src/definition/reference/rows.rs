//! The rows of the reference, in the order in which a definition is read.

use super::Default::{Nothing, Required, Value};
use super::Type::*;
use super::{Default, Key, Section, Type};
use crate::core::schedule::{LEAST_EVERY, MOST_EVERY};
use crate::definition::values::{DAY, MILLISECOND};
use std::time::Duration as Span;

const YEAR: Span = Span::from_secs(365 * 24 * 60 * 60);

const PROBES: Span = Span::from_millis(50);
const ADDRESS: &str = "IP:PORT or localhost:PORT";
const URL: &str = "http://ADDRESS[:PORT]/PATH, with an IP address or localhost";
const READY_TCP: &str = "ready.kind = \"tcp\"\nready.address = \"127.0.0.1:6379\"";
const READY_HTTP: &str = "ready.kind = \"http\"\nready.url = \"http://127.0.0.1:8080/\"";
const ONESHOT: &str = "type = \"oneshot\"";
const HEALTH_TCP: &str = "health.kind = \"tcp\"\nhealth.address = \"127.0.0.1:6379\"";
const HEALTH_HTTP: &str = "health.kind = \"http\"\nhealth.url = \"http://127.0.0.1:8080/\"";

const fn key(
    path: &'static str,
    kind: Type,
    default: Default,
    example: &'static str,
    what: &'static str,
) -> Key {
    Key { path, kind, default, example, with: "", what }
}

impl Key {
    /// The example has an effect together with `with`.
    const fn with(self, with: &'static str) -> Self {
        Self { with, ..self }
    }
}

/// The tables, in the order of the page.
pub static SECTIONS: &[Section] = &[
    Section { path: "", what: "What runs, as whom, and when. Before the first section." },
    Section { path: "stop", what: "How it is ended." },
    Section { path: "restart", what: "What an end that nobody asked for leads to." },
    Section { path: "restart.backoff", what: "The waits between restarts, in `[restart]`." },
    Section { path: "restart.limit", what: "When to give up, in `[restart]`." },
    Section { path: "ready", what: "How it tells that it can be used." },
    Section { path: "health", what: "Whether it does its work, and what follows if it does not." },
    Section { path: "hooks", what: "Programs that run when something happens to it." },
    Section { path: "log", what: "Where its output goes." },
    Section { path: "limits", what: "What it may use at most. Without a key there is no limit." },
    Section {
        path: "memory",
        what: "What the kernel does about its memory besides bounding it. All of it is off by default.",
    },
    Section { path: "security", what: "What its main process may become." },
];

#[rustfmt::skip]
pub static KEYS: &[Key] = &[
    key("command", Command, Required, r#"["python3", "-m", "http.server"]"#,
        "What is executed. `${NAME}` and `${NAME:-default}` are variables of the container."),
    key("description", Text, Nothing("none"), r#""The web server""#,
        "What it is, in one line of at most 200 characters; `status` shows it."),
    key("user", Text, Nothing("the user of `--gateway-user`"), r#""www-data""#,
        "Name or number of the user that it runs as. Another one than the default only in a root-owned file outside home."),
    key("working_dir", Path, Nothing("home; of a service of another user than the default one, `/`"), r#""/srv""#,
        "Where it starts. `${NAME}` and `${NAME:-default}` are variables of the container."),
    key("env", Variables, Value("{}"), r#"{ MODE = "fast" }"#,
        "Variables on top of the supervisor's own environment; their values may have `${NAME}` in them."),
    key("env_clear", Boolean, Value("false"), "true",
        "Of the supervisor's environment only PATH, HOME, USER, LOGNAME, TZ and LANG are handed on."),
    key("env_file", OneOrMore(&EnvFile), Value("[]"), r#"["/etc/web.env", "?/etc/web.local.env"]"#,
        "Files of `KEY=value` lines, read at each start; a later one wins, and `env` wins over all. One with a `?` before it may be missing."),
    key("umask", Written(r#"octal digits, "0000" to "0777""#), Nothing("inherited"), r#""0027""#,
        "The file mode creation mask."),
    key("autostart", Boolean, Value("true"), "false",
        "Whether it is wanted up when it is first seen. Afterwards the last command decides."),
    key("type", Choice(&["daemon", "oneshot"]), Value(r#""daemon""#), r#""oneshot""#,
        "A oneshot that succeeds is `finished` and not started again, unless it has a schedule."),
    key("schedule", Written("minute, hour, day of month, month, day of week, as in crontab(5), or @hourly, @daily, @weekly, @monthly, @yearly"), Nothing("a oneshot runs at each boot"), r#""*/5 * * * *""#,
        "Of a oneshot: runs at these times, in the time zone of the container (`TZ`).").with(ONESHOT),
    key("every", Duration(LEAST_EVERY, MOST_EVERY), Nothing("a oneshot runs at each boot"), r#""10m""#,
        "Of a oneshot, instead of `schedule`: runs so long after its last start, and after the boot where none is known.").with(ONESHOT),
    key("role", Choice(&["auxiliary", "essential"]), Value(r#""auxiliary""#), r#""essential""#,
        "When what is essential has `failed`, the container ends with its exit code. Only in a root-owned file outside home."),
    key("requires", Services, Value("[]"), r#"["redis"]"#,
        "Started after these, and fails and stops with them."),
    key("after", Services, Value("[]"), r#"["migrate"]"#,
        "Started after these; order only."),
    key("instances", Integer(1, 256), Nothing("one service, of the file's own name"), "4",
        "So many services, `NAME@1` and so on; `{instance}` in any text is the part behind the `@`."),
    key("containment", Choice(&["auto", "cgroup", "cgroup-private", "pidns", "keeper", "keeper-same-uid"]), Value(r#""auto""#), r#""keeper""#,
        "How its tree is held. `auto` is the best that works here."),

    key("secrets", Paths, Value("{}"), r#"{ DB_PASSWORD = "/run/secrets/db_password" }"#,
        "Variables whose values are the content of files, read at each start; with root's rights where only root can change the definition."),

    key("stop", Table, Value("{}"), r#"{ signal = "SIGINT" }"#, "How it is ended."),
    key("stop.signal", Written("names as SIGTERM or TERM, SIGRTMIN+3, numbers 1 to 64"), Value(r#""SIGTERM""#), r#""SIGQUIT""#,
        "Sent to the main process."),
    key("stop.timeout", Duration(MILLISECOND, DAY), Value(r#""10s""#), r#""75s""#,
        "For the whole tree together; then it is killed."),
    key("stop.leftovers", Duration(Span::ZERO, DAY), Value(r#""0s""#), r#""2s""#,
        "What outlives a main process that died unasked gets the stop signal and this long. Zero: it is killed at once."),

    key("restart", Table, Value("{}"), r#"{ policy = "never" }"#, "What an end that nobody asked for leads to."),
    key("restart.policy", Choice(&["always", "on-failure", "never"]), Value(r#""always""#), r#""on-failure""#,
        "`on-failure`: an exit code other than 0, or a signal. Under `always` a clean exit is no failure: it is started again and nothing is counted. With a schedule the default is `never`."),
    key("restart.backoff", Table, Value("{}"), r#"{ initial = "1s" }"#, "The waits between restarts."),
    key("restart.limit", TableOr(&["none"]), Value("{}"), r#""none""#,
        "More failures than this: `failed`, and nothing is started until somebody asks."),
    key("restart.exit_codes", ExitCodes(&["now", "later", "stop", "failed"]), Value("{}"), r#"{ 75 = "now", 78 = "failed" }"#,
        "What an exit code means, before the policy. `now`: a failure, without a wait; `later`: no failure, after 5 s; `stop`: `finished`."),
    key("restart.backoff.initial", Duration(MILLISECOND, DAY), Value(r#""100ms""#), r#""1s""#,
        "The wait before the second restart in a row; the first does not wait."),
    key("restart.backoff.factor", Number(1.0, 1000.0), Value("2.0"), "1.5",
        "Each further wait is longer by it."),
    key("restart.backoff.max", Duration(MILLISECOND, DAY), Value(r#""30s""#), r#""5m""#,
        "The longest wait."),
    key("restart.backoff.jitter", Number(0.0, 1.0), Value("0.1"), "0.0",
        "By which share of itself a wait is longer or shorter by chance."),
    key("restart.backoff.reset_after", Duration(Span::ZERO, YEAR), Value(r#""60s""#), r#""10m""#,
        "What has run that long begins a new row."),
    key("restart.limit.burst", Integer(0, 10_000), Value("10"), "3",
        "Failures that are borne within `interval`."),
    key("restart.limit.interval", Duration(MILLISECOND, YEAR), Value(r#""10m""#), r#""1m""#,
        "The time in which failures are counted."),

    key("log", Table, Value("{}"), r#"{ keep = 3 }"#, "Where its output goes."),
    key("log.max_size", Size(4096, 100_000_000_000), Value(r#""1MB""#), r#""10MB""#,
        "Bytes of a log file before it is rotated."),
    key("log.keep", Integer(0, 10_000), Value("10"), "3",
        "Rotated files that are kept."),
    key("log.to_container", Boolean, Value("true"), "false",
        "Whether its output also goes to the output of the container."),
    key("log.prefix", Boolean, Nothing("that of `--log-prefix`"), "true",
        "Whether its lines there have its name in front."),
    key("log.overflow", Choice(&["block", "drop"]), Value(r#""block""#), r#""drop""#,
        "What becomes of output faster than it can be written: the service waits, or lines are lost and counted."),

    key("ready", Table, Value("{}"), r#"{ kind = "fd" }"#, "How it tells that it can be used."),
    key("ready.kind", Choice(&["none", "fd", "notify", "tcp", "unix", "http", "exec", "log", "gateway-state"]), Value(r#""none""#), r#""fd""#,
        "`none`: as soon as it runs; `fd`, `notify`, `log`, `gateway-state`: it says so; `tcp`, `unix`, `http`, `exec`: it answers."),
    key("ready.timeout", Duration(MILLISECOND, DAY), Value(r#""60s""#), r#""5m""#,
        "A `start` waits this long for it. What is not ready by then runs on, and what requires it waits on.").with(r#"ready.kind = "fd""#),
    key("ready.fd", Integer(3, 1023), Value("3"), "5",
        "The descriptor of kind `fd`, to which it writes a newline.").with(r#"ready.kind = "fd""#),
    key("ready.interval", Duration(PROBES, DAY), Value(r#""500ms""#), r#""2s""#,
        "From one question of `tcp`, `unix`, `http` or `exec` to the next.").with(READY_TCP),
    key("ready.address", Written(ADDRESS), Nothing("none"), r#""127.0.0.1:6379""#,
        "Of `tcp`: where it accepts connections. Names are not looked up.").with(r#"ready.kind = "tcp""#),
    key("ready.path", Path, Nothing("none"), r#""/run/app.sock""#,
        "Of `unix`: the socket on which it accepts connections.").with(r#"ready.kind = "unix""#),
    key("ready.url", Written(URL), Nothing("none"), r#""http://127.0.0.1:8080/health""#,
        "Of `http`: what is asked for.").with(r#"ready.kind = "http""#),
    key("ready.status", Integer(100, 599), Value("200"), "204",
        "Of `http`: the status that is a yes.").with(READY_HTTP),
    key("ready.contains", Text, Nothing("anything"), r#""ok""#,
        "Of `http`: text that the first 64 KiB of the answer must contain.").with(READY_HTTP),
    key("ready.command", Command, Nothing("none"), r#"["pg_isready", "-q"]"#,
        "Of `exec`: a program that ends with 0, run as the user of the service in its containment.").with(r#"ready.kind = "exec""#),
    key("ready.pattern", Written("a regular expression"), Nothing("none"), r#""ready to accept connections""#,
        "Of `log`: it writes a line that this matches.").with(r#"ready.kind = "log""#),

    key("health", Table, Value("{}"), r#"{ kind = "tcp", address = "127.0.0.1:6379" }"#, "Whether it does its work, and what follows if it does not."),
    key("health.kind", Choice(&["none", "exec", "http", "tcp", "unix", "watchdog", "file-age"]), Value(r#""none""#), r#""watchdog""#,
        "`exec`, `http`, `tcp`, `unix`: it answers, as in `[ready]`; `watchdog`: it says `WATCHDOG=1` on its notify socket; `file-age`: it writes a file."),
    key("health.interval", Duration(PROBES, DAY), Value(r#""30s""#), r#""10s""#,
        "From one question to the next.").with(HEALTH_TCP),
    key("health.timeout", Duration(MILLISECOND, DAY), Value(r#""5s""#), r#""2s""#,
        "Of one question. Of `watchdog` the longest silence, and by default 30 s.").with(HEALTH_TCP),
    key("health.failures", Integer(1, 10_000), Value("3"), "2",
        "So many in a row make it unhealthy.").with(HEALTH_TCP),
    key("health.start_period", Duration(Span::ZERO, DAY), Value(r#""60s""#), r#""5m""#,
        "Failures within it do not count, until the first success.").with(HEALTH_TCP),
    key("health.action", Choice(&["restart", "mark", "quarantine"]), Value(r#""restart""#), r#""mark""#,
        "What is done about an unhealthy one: a restart, which is a failure; nothing but a word; or its tree is frozen for an operator.").with(HEALTH_TCP),
    key("health.address", Written(ADDRESS), Nothing("none"), r#""127.0.0.1:6379""#,
        "Of `tcp`, as in `[ready]`.").with(r#"health.kind = "tcp""#),
    key("health.path", Path, Nothing("none"), r#""/run/app.sock""#,
        "Of `unix`, as in `[ready]`; of `file-age` the file.").with(r#"health.kind = "unix""#),
    key("health.max_age", Duration(MILLISECOND, DAY), Nothing("none"), r#""2m""#,
        "Of `file-age`: the longest time without a change of the file.").with("health.kind = \"file-age\"\nhealth.path = \"/run/app/heartbeat\""),
    key("health.url", Written(URL), Nothing("none"), r#""http://127.0.0.1:8080/health""#,
        "Of `http`, as in `[ready]`.").with(r#"health.kind = "http""#),
    key("health.status", Integer(100, 599), Value("200"), "204",
        "Of `http`, as in `[ready]`.").with(HEALTH_HTTP),
    key("health.contains", Text, Nothing("anything"), r#""ok""#,
        "Of `http`, as in `[ready]`.").with(HEALTH_HTTP),
    key("health.command", Command, Nothing("none"), r#"["redis-cli", "ping"]"#,
        "Of `exec`, as in `[ready]`.").with(r#"health.kind = "exec""#),

    key("security", Table, Value("{}"), r#"{ no_new_privs = true }"#, "What its main process may become."),
    key("security.no_new_privs", Boolean, Value("true"), "false",
        "Set-uid programs and file capabilities have no effect. `false` only in a root-owned file outside home."),
    key("security.capabilities", Capabilities, Value("[]"), r#"["NET_BIND_SERVICE", "CHOWN"]"#,
        "What root keeps, and what others could gain. Only in a root-owned file outside home."),
    key("security.ambient", Capabilities, Value("[]"), r#"["NET_BIND_SERVICE"]"#,
        "What another user than root is given; part of `capabilities` without being named there. Only in a root-owned file outside home."),

    key("limits", Table, Value("{}"), r#"{ nofile = 4096 }"#, "What it may use at most."),
    key("limits.memory_max", Word(r#"a size of at least 1M, as in "512M", or "max""#), Value(r#""max""#), r#""512M""#,
        "Memory of the whole tree; beyond it the OOM killer acts."),
    key("limits.memory_high", Word(r#"a size of at least 1M, as in "512M", or "max""#), Value(r#""max""#), r#""448M""#,
        "Memory beyond which the kernel takes back what it can and slows the service down."),
    key("limits.swap_max", Word(r#"a size, as in "512M", or "max""#), Value(r#""max""#), "0",
        "Swap of the whole tree."),
    key("limits.pids_max", Word(r#"1 to 4194304, or "max""#), Value(r#""max""#), "256",
        "Processes and threads of the whole tree."),
    key("limits.cpu_max", Word(r#""150%" of one CPU, "QUOTA PERIOD" in microseconds, or "max""#), Value(r#""max""#), r#""150%""#,
        "CPU time of the whole tree."),
    key("limits.cpu_weight", Word("1 to 10000"), Value("100"), "50",
        "Its share of the CPU where there is not enough."),
    key("limits.io_weight", Word("1 to 10000"), Value("100"), "50",
        "Its share of the disks where there is not enough."),
    key("limits.oom", Choice(&["service", "process"]), Value(r#""process""#), r#""service""#,
        "When the OOM killer kills a process of it: the whole tree ends, or the rest goes on."),
    key("limits.nofile", Word("1 to 2147483584"), Nothing("inherited"), "4096",
        "Open files of each process (the soft and the hard limit)."),
    key("limits.nproc", Word(r#"1 to 4194304, or "max""#), Nothing("inherited"), "512",
        "Processes of its user (RLIMIT_NPROC)."),
    key("limits.core", Word(r#"a size, as in "512M", or "max""#), Nothing("inherited"), "0",
        "Size of a core file."),
    key("limits.oom_score_adj", Word("-1000 to 1000"), Nothing("inherited"), "500",
        "How early the OOM killer chooses it; lower is later."),

    key("memory", Table, Value("{}"), "{ ksm = true }", "What the kernel does about its memory besides bounding it."),
    key("memory.ksm", Boolean, Value("false"), "true",
        "Kernel samepage merging (KSM): pages with the same content, of all that have it, are kept once. Linux 6.7, and `ksmd` running on the machine."),
    key("memory.thp", Choice(&["inherit", "disable"]), Value(r#""inherit""#), r#""disable""#,
        "`disable`: no transparent huge pages (THP), of which each takes 2 MiB even if little of it is used."),
    key("memory.reclaim_after", Duration(Span::from_secs(1), DAY), Nothing("never"), r#""30s""#,
        "So long after it is up, or ready where `[ready]` says so, the kernel takes back once what it has not used lately: with a memory controller, Linux 5.19."),

    key("hooks", Table, Value("{}"), "{}", "Programs that run when something happens to it."),
    key("hooks.pre_start", Command, Nothing("none"), r#"["/app/migrate", "--all"]"#,
        "Runs before each start in a tree of its own, and must succeed. Only this one has the variables of `env_file` and `[secrets]`."),
    key("hooks.post_start", Command, Nothing("none"), r#"["/app/announce"]"#,
        "Runs beside the main process when it is up, or ready where `[ready]` says so."),
    key("hooks.pre_stop", Command, Nothing("none"), r#"["/app/drain"]"#,
        "Runs beside the main process before the stop signal, for half of the stop's timeout at most."),
    key("hooks.post_stop", Command, Nothing("none"), r#"["sh", "-c", "echo $HERMES_SUP_EXIT_REASON"]"#,
        "Runs when the tree is empty, told how it ended by HERMES_SUP_EXIT_CODE, HERMES_SUP_EXIT_SIGNAL and HERMES_SUP_EXIT_REASON."),
    key("hooks.timeout", Duration(MILLISECOND, DAY), Value(r#""30s""#), r#""2m""#,
        "Of each hook of start and stop; one that takes longer is killed.").with(r#"hooks.pre_start = ["/app/migrate"]"#),
    key("hooks.memory_high", Command, Nothing("none"), r#"["sh", "-c", "kill -USR1 $HERMES_SUP_MAIN_PID"]"#,
        "Runs when the soft limit of memory is reached, once a minute at most.").with(r#"limits.memory_high = "448M""#),
];
