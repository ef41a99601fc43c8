//! Imports of systemd units and compose files: realistic ones and their golden definitions, and what cannot be imported.

use super::tests::{Source, parsed, texts};
use crate::core::policy::{ExitRule, Kind, RestartWhen};
use crate::core::signal::Signal;
use proptest::prelude::*;
use std::time::Duration;

/// Of each, a definition was written that `check` refuses.
#[test]
fn who_only_comes_after_another_that_comes_after_it_is_imported_without_that() {
    let unit = |other: &str| format!("[Unit]\nAfter={other}.service\n[Service]\nExecStart=/bin/x\n");
    let service = |name: &str, other: &str| {
        format!(
            "  {name}:\n    command: /bin/x\n    depends_on:\n      {other}: {{condition: service_started}}\n"
        )
    };
    let source = Source::new();
    source
        .put("units/web.service", &unit("db"))
        .put("units/db.service", &unit("web"))
        .put("compose.yaml", &format!("services:\n{}{}", service("web", "db"), service("db", "web")));
    for from in ["units", "compose.yaml"] {
        let outcome = source.import(from);
        let definitions = parsed(&outcome).unwrap();
        assert_eq!(definitions.iter().filter(|found| !found.after.is_empty()).count(), 1, "{outcome:?}");
        let told = outcome.services.iter().filter(|service| service.text.contains("which waits for it"));
        assert_eq!(told.count(), 1, "{outcome:?}");
    }
}

/// Each made a definition that `check` refuses.
#[test]
fn a_capability_that_nobody_knows_is_left_out_and_a_unit_with_a_nul_is_none() {
    let source = Source::new();
    source
        .put("web.service", "[Service]\nExecStart=/bin/x\nAmbientCapabilities=CAP_KILL CAP_OF_THE_FUTURE\n")
        .put("db.service", "[Service]\nExecStart=/bin/x \0\n");
    let outcome = source.import(".");
    assert!(parsed(&outcome).is_ok(), "{outcome:?}");
    assert!(texts(&outcome).contains("ambient = [\"KILL\"]"), "{outcome:?}");
    assert!(texts(&outcome).contains("AmbientCapabilities=CAP_OF_THE_FUTURE: is not known"), "{outcome:?}");
    assert_eq!(outcome.failures.len(), 1, "{outcome:?}");
}

#[test]
fn units_as_packages_have_them() {
    let source = Source::new();
    source
        .put(
            "web.service",
            r#"[Unit]
Description=The web server
Documentation=man:web(8)
After=network.target redis.service
Requires=redis.service
StartLimitIntervalSec=60
StartLimitBurst=3

[Service]
User=www-data
WorkingDirectory=/srv
Environment="MODE=fast and loose" PORT=80
EnvironmentFile=/etc/default/web
EnvironmentFile=-/etc/web.env
ExecStart=-/usr/bin/web --port ${PORT} \
    --name "%n" --pid $MAINPID
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartSec=2
RestartPreventExitStatus=78
KillSignal=SIGQUIT
TimeoutStopSec=1min 30s
LimitNOFILE=4096:8192
MemoryMax=512M
TasksMax=infinity
CPUQuota=150%
OOMPolicy=kill
MemoryKSM=yes
MemoryTHP=disable
NoNewPrivileges=yes
AmbientCapabilities=CAP_NET_BIND_SERVICE
PrivateTmp=yes

[Install]
WantedBy=multi-user.target
"#,
        )
        .put("web.service.d/local.conf", "[Service]\nEnvironment=EXTRA=1\nRestartSec=5\n")
        .put(
            "redis.service",
            "[Service]\nType=notify\nExecStart=/usr/bin/redis-server --daemonize no\nRestart=always\n",
        );
    let outcome = source.import(".");
    assert_eq!(outcome.failures, Vec::<String>::new());
    let expected = r#"# file: redis.toml
# Imported from /src/redis.service
command = ["/usr/bin/redis-server", "--daemonize", "no"]
user = "root"
working_dir = "/"

[restart]
policy = "always"

[ready]
kind = "notify"

[security]
no_new_privs = false
capabilities = ["ALL"]
# file: web.toml
# Imported from /src/web.service
# not carried over: $MAINPID in ExecStart: its value is not in Environment
# not carried over: ExecStart with -: a failure of the program counts as one
# not carried over: it names network.target, and there are services only
# not carried over: ExecReload: ask for it by 'hermes-sup ctl kill NAME HUP'
# not carried over: PrivateTmp: it has no counterpart
command = ["/usr/bin/web", "--port", "80", "--name", "web.service", "--pid", "$MAINPID"]
description = "The web server"
user = "www-data"
working_dir = "/srv"
env = { EXTRA = "1", MODE = "fast and loose", PORT = "80" }
env_file = ["/etc/default/web", "?/etc/web.env"]
after = ["redis"]
requires = ["redis"]

[stop]
signal = "SIGQUIT"
timeout = "1m 30s"

[restart]
policy = "on-failure"
backoff = { initial = "5s", max = "5s" }
limit = { burst = 3, interval = "1m" }
exit_codes = { 78 = "failed" }

[limits]
cpu_max = "150%"
memory_max = "512M"
nofile = 8192
oom = "service"
pids_max = "max"

[memory]
ksm = true
thp = "disable"

[security]
no_new_privs = true
ambient = ["NET_BIND_SERVICE"]
"#;
    assert_eq!(texts(&outcome), expected);
    let definitions = parsed(&outcome).unwrap();
    let web = &definitions[1];
    assert_eq!(web.policy.restart.when, RestartWhen::OnFailure);
    assert_eq!(web.policy.restart.exit_codes, [(78, ExitRule::Failed)].into());
    assert_eq!((web.policy.stop.signal, web.policy.stop.timeout), (Signal::QUIT, Duration::from_secs(90)));
}

#[test]
fn kinds_and_instances_of_units() {
    let source = Source::new();
    source
        .put("job@blue.service", "[Service]\nType=oneshot\nExecStart=/bin/job %i 100%%\nRestart=always\n")
        .put(
            "old.service",
            "[Service]\nType=forking\nPIDFile=/run/x\nExecStart=/bin/old\nKillMode=process\n",
        );
    let outcome = source.import(".");
    let text = texts(&outcome);
    assert!(
        text.contains("# file: job-blue.toml\n") && text.contains(r#"["/bin/job", "blue", "100%"]"#),
        "{text}"
    );
    assert!(text.contains("Type=forking: the program must stay in the foreground"), "{text}");
    assert!(text.contains("KillMode=process: the whole tree ends"), "{text}");
    let definitions = parsed(&outcome).unwrap();
    assert_eq!(definitions[0].policy.kind, Kind::Oneshot);
    assert_eq!(definitions[0].policy.restart.when, RestartWhen::OnFailure);
    assert_eq!(definitions[1].policy.restart.when, RestartWhen::Never);
}

#[test]
fn what_is_no_unit_is_said() {
    for (name, text, why) in [
        ("a@.service", "[Service]\nExecStart=/bin/x\n", "is a template"),
        ("a.service", "[Timer]\nOnCalendar=daily\n", "has no [Service]"),
        ("a.service", "[Service]\nUser=x\n", "has no ExecStart"),
        ("a.service", "[Service]\nExecStart=/bin/a\nExecStart=/bin/b\n", "2 lines ExecStart"),
        ("a.service", "[Service]\nExecStart=/bin/a ; /bin/b\n", "2 lines ExecStart"),
        ("a.service", "[Service]\nExecStart=/bin/a '\n", "a quote is not closed"),
        ("a.service", "[Service]\nExecStart=/bin/a %H\n", "known to systemd only"),
        ("a.service", "ExecStart=/bin/a\n", "line 1: is not KEY=VALUE in a section"),
    ] {
        let source = Source::new();
        let outcome = source.put(name, text).import(name);
        assert!(outcome.failures[0].contains(why), "{text}: {:?}", outcome.failures);
        assert!(outcome.services.is_empty());
    }
}

#[test]
fn a_compose_file_as_projects_have_it() {
    let source = Source::new();
    source.put(
        "compose.yaml",
        r#"name: shop
x-base: &base
  restart: unless-stopped
  environment: &env
    TZ: UTC
services:
  web:
    <<: *base
    image: nginx:1.27
    command: ["nginx", "-g", "daemon off;"]
    user: "101:101"
    ports: ["80:80"]
    depends_on:
      worker: { condition: service_started }
      redis: { condition: service_healthy }
    stop_signal: SIGQUIT
    stop_grace_period: 1m30s
    mem_limit: 512m
    cpus: 1.5
    healthcheck: { test: ["CMD", "true"] }
    x-note: ours
  worker:
    build: .
    entrypoint: python3 -m
    command: worker --host ${HOST} --mode ${MODE:-fast}
    working_dir: /app
    environment:
      - URL=redis://redis/$$0
      - TOKEN
    env_file: worker.env
    depends_on: [redis]
    restart: on-failure:5
    deploy: { replicas: 2, resources: { limits: { memory: 1gb, pids: 64 } } }
  redis:
    image: redis
    command: redis-server
volumes: {}
"#,
    );
    let outcome = source.import("compose.yaml");
    assert_eq!(outcome.failures, Vec::<String>::new());
    let expected = r#"# file: web.toml
# Imported from /src/compose.yaml
# not carried over: user: group 101: it runs with the groups of its user
# not carried over: image: what it brings has to be in this image
# not carried over: ports: publish them from this container
command = ["nginx", "-g", "daemon off;"]
user = "101"
env = { TZ = "UTC" }
after = ["worker"]
requires = ["redis"]

[stop]
signal = "SIGQUIT"
timeout = "1m 30s"

[restart]
policy = "always"

[health]
kind = "exec"
command = ["true"]
timeout = "30s"
start_period = "0s"
action = "mark"

[limits]
cpu_max = "150%"
memory_max = "512M"
# file: worker.toml
# Imported from /src/compose.yaml
# not carried over: ${HOST} in command: the value at the import stands there; it may be a secret, so only the file's owner may read it
# not carried over: ${MODE} in command: its default stands there
# not carried over: user: that of its image is not known, so it runs as the default user
# not carried over: build: what it brings has to be in this image
command = ["python3", "-m", "worker", "--host", "there", "--mode", "fast"]
working_dir = "/app"
env = { URL = "redis://redis/$0" }
env_file = "/src/worker.env"
after = ["redis"]
instances = 2

[restart]
policy = "on-failure"
limit = { burst = 5, interval = "1day" }

[limits]
memory_max = "1G"
pids_max = 64
# file: redis.toml
# Imported from /src/compose.yaml
# not carried over: user: that of its image is not known, so it runs as the default user
# not carried over: image: what it brings has to be in this image
# not carried over: healthcheck: another one waits for that of its image, which is not known: write [ready]
command = ["redis-server"]

[restart]
policy = "never"
"#;
    assert_eq!(texts(&outcome), expected);
    assert!(outcome.remarks.contains(&"/src/compose.yaml: volumes: not carried over".to_owned()));
    let modes: Vec<u32> = outcome.services.iter().map(|service| service.mode).collect();
    assert_eq!(modes, [0o644, 0o600, 0o644], "a value of our environment may be a secret");
    let definitions = parsed(&outcome).unwrap();
    assert_eq!(definitions.len(), 4, "two workers");
}

/// A worker that needs a database that answers, and a migration that is done.
#[test]
fn a_health_check_and_who_waits_for_it() {
    let source = Source::new();
    source.put(
        "compose.yaml",
        r#"services:
  db:
    command: postgres
    user: postgres
    restart: always
    healthcheck:
      test: ["CMD-SHELL", "pg_isready -U $${USER}"]
      interval: 10s
      timeout: 2s
      retries: 5
      start_period: 1m30s
      start_interval: 1s
  migrate: { command: migrate, user: app, restart: always }
  cache: { command: cache, user: app, healthcheck: { test: cache ping } }
  worker:
    command: worker
    user: app
    scale: 3
    depends_on:
      db: { condition: service_healthy }
      migrate: { condition: service_completed_successfully }
      cache: { condition: service_healthy, required: false }
"#,
    );
    let outcome = source.import("compose.yaml");
    assert_eq!((&outcome.failures, &outcome.remarks), (&vec![], &vec![]));
    let expected = r#"# file: db.toml
# Imported from /src/compose.yaml
command = ["postgres"]
user = "postgres"

[restart]
policy = "always"

[ready]
kind = "exec"
command = ["/bin/sh", "-c", "pg_isready -U ${USER}"]
interval = "1s"
timeout = "2m 20s"

[health]
kind = "exec"
command = ["/bin/sh", "-c", "pg_isready -U ${USER}"]
interval = "10s"
timeout = "2s"
failures = 5
start_period = "1m 30s"
action = "mark"
# file: migrate.toml
# Imported from /src/compose.yaml
command = ["migrate"]
user = "app"
type = "oneshot"

[restart]
policy = "on-failure"
# file: cache.toml
# Imported from /src/compose.yaml
command = ["cache"]
user = "app"

[restart]
policy = "never"

[ready]
kind = "exec"
command = ["/bin/sh", "-c", "cache ping"]
timeout = "1m 30s"

[health]
kind = "exec"
command = ["/bin/sh", "-c", "cache ping"]
timeout = "30s"
start_period = "0s"
action = "mark"
# file: worker.toml
# Imported from /src/compose.yaml
command = ["worker"]
user = "app"
after = ["cache"]
requires = ["db", "migrate"]
instances = 3

[restart]
policy = "never"
"#;
    assert_eq!(texts(&outcome), expected);
    assert!(parsed(&outcome).is_ok(), "{:?}", parsed(&outcome));
}

#[test]
fn what_of_a_health_check_cannot_be_used_is_said() {
    for (service, note) in [
        ("healthcheck: { test: [NONE] }", None),
        ("healthcheck: { disable: true, test: x }", None),
        (
            "healthcheck: { interval: 5s }",
            Some("healthcheck: has no test, and that of its image is not known"),
        ),
        ("healthcheck: { test: [curl, x] }", Some("healthcheck.test: is none of CMD, CMD-SHELL and NONE")),
        ("healthcheck: { test: x, retries: many }", Some("healthcheck.retries: many: is not a number")),
        ("healthcheck: { test: x, timeout: long }", Some("healthcheck.timeout: long: is not a duration")),
        ("deploy: { replicas: 257 }", Some("replicas: 257: is not a number up to 256, so there is one")),
        ("deploy: { replicas: 1 }", None),
    ] {
        let source = Source::new();
        let text = format!("services: {{ web: {{ command: web, user: app, {service} }} }}");
        let outcome = source.put("c.yml", &text).import("c.yml");
        let notes: Vec<_> =
            outcome.remarks.iter().filter_map(|line| line.split_once("carried over: ")).collect();
        assert_eq!(
            notes.iter().map(|(_, note)| *note).collect::<Vec<_>>(),
            Vec::from_iter(note),
            "{service}"
        );
        assert!(parsed(&outcome).is_ok(), "{:?}", parsed(&outcome));
    }
    let source = Source::new();
    let long = format!("services: {{ {}: {{ command: web, user: app, scale: 2 }} }}", "w".repeat(64));
    let outcome = source.put("c.yml", &long).import("c.yml");
    assert!(
        outcome.remarks[0].contains("its name is too long for numbers behind it"),
        "{:?}",
        outcome.remarks
    );
    assert!(parsed(&outcome).is_ok(), "{:?}", parsed(&outcome));
}

/// What runs before and after the program of a unit was left out.
#[test]
fn programs_before_and_after_that_of_a_unit() {
    let source = Source::new();
    let unit = "[Service]\nType=notify\nUser=app\nEnvironment=DIR=/srv/app\nTimeoutStartSec=2min\n\
                TimeoutStopSec=20\nWatchdogSec=30\nNotifyAccess=main\n\
                ExecStartPre=/bin/mkdir -p ${DIR}\nExecStartPre=-/usr/bin/find ${DIR} -name '*.tmp' -exec rm {} \\;\n\
                ExecStart=/usr/bin/app\nExecStartPost=-/usr/bin/announce $DIR\n\
                ExecReload=/usr/bin/app --check\nExecReload=/bin/kill -s USR1 $MAINPID\n\
                ExecStop=/bin/kill -WINCH $MAINPID\nExecStopPost=+/bin/rm -rf /run/app\nExecCondition=/bin/true\n";
    let outcome = source.put("app.service", unit).import("app.service");
    assert_eq!(outcome.failures, Vec::<String>::new());
    let expected = r#"# file: app.toml
# Imported from /src/app.service
# not carried over: ExecStopPost with + or !: it runs as the user of the service, with what [security] says
# not carried over: ExecReload: ask for it by 'hermes-sup ctl kill NAME USR1'
# not carried over: ExecCondition: it is not run: a `pre_start` that fails is a failure, and not a reason to leave it
command = ["/usr/bin/app"]
user = "app"
working_dir = "/"
env = { DIR = "/srv/app" }

[stop]
timeout = "40s"

[restart]
policy = "never"

[ready]
kind = "notify"
timeout = "2m"

[health]
kind = "watchdog"
timeout = "30s"
start_period = "0s"

[hooks]
pre_start = ["/bin/sh", "-c", "set -e; /bin/mkdir -p /srv/app; /usr/bin/find /srv/app -name '*.tmp' -exec rm '{}' ';' || :"]
post_start = ["/usr/bin/announce", "/srv/app"]
pre_stop = ["/bin/sh", "-c", '/bin/kill -WINCH "$HERMES_SUP_MAIN_PID"']
post_stop = ["/bin/rm", "-rf", "/run/app"]
timeout = "2m"
"#;
    assert_eq!(texts(&outcome), expected);
    assert!(parsed(&outcome).is_ok(), "{:?}", parsed(&outcome));
}

/// A oneshot of several lines could not be imported at all.
#[test]
fn a_oneshot_of_several_lines_is_one_program() {
    let source = Source::new();
    let unit = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStartPre=/bin/a\nExecStart=-/bin/b 'x y'\nExecStart=/bin/c\n\
                ExecStartPost=/bin/d\nExecStop=/bin/e\nExecReload=/bin/f\n";
    let outcome = source.put("a.service", unit).import("a.service");
    let text = texts(&outcome);
    for line in [
        r#"command = ["/bin/sh", "-c", "set -e; /bin/b 'x y' || :; /bin/c"]"#,
        r#"pre_start = ["/bin/a"]"#,
        "# not carried over: ExecStartPost: it is not run: nothing of a oneshot is there when it is done",
        "# not carried over: ExecStop: it is not run: nothing of a oneshot is there when it is done",
        "# not carried over: ExecReload: nothing is run for a reload: run it yourself",
        "timeout = \"1day\"",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(!text.contains("post_start =") && !text.contains("pre_stop ="), "{text}");
    assert!(parsed(&outcome).is_ok(), "{:?}", parsed(&outcome));
}

#[test]
fn what_is_no_compose_file_is_said() {
    for (text, why) in [
        ("a: [", "is no YAML"),
        ("a: 1", "has no `services`"),
        ("services: { web: { image: x } }", "services.web has no command"),
        ("services: { web: { command: \"a 'b\" } }", "services.web command"),
        ("services: { web: { command: { a: b } } }", "is neither a text nor a list of texts"),
    ] {
        let source = Source::new();
        let outcome = source.put("c.yml", text).import("c.yml");
        assert!(outcome.failures[0].contains(why), "{text}: {:?}", outcome.failures);
    }
}

/// What the last line said went with it.
#[test]
fn a_last_line_that_goes_on_is_not_lost() {
    let source = Source::new();
    let outcome = source.put("a.service", "[Service]\nExecStart=/bin/x one \\").import("a.service");
    assert_eq!(parsed(&outcome).unwrap()[0].command, ["/bin/x", "one"]);
}

/// systemd counts in microseconds; such an interval was written as it stood, and the definition was refused.
#[test]
fn an_interval_below_a_millisecond_is_the_shortest_that_there_is() {
    let source = Source::new();
    let unit = "[Unit]\nStartLimitIntervalSec=20us\nStartLimitBurst=3\n[Service]\nExecStart=/bin/x\n";
    let outcome = source.put("a.service", unit).import("a.service");
    assert!(parsed(&outcome).is_ok(), "{:?}", parsed(&outcome));
}

/// A definition takes twelve digits, and such a time was written with more.
#[test]
fn a_long_time_is_written_with_as_many_digits_as_a_definition_takes() {
    let source = Source::new();
    let unit =
        "[Unit]\nStartLimitIntervalSec=9980764536ms 51us\nStartLimitBurst=3\n[Service]\nExecStart=/bin/x\n";
    let outcome = source.put("a.service", unit).import("a.service");
    assert!(parsed(&outcome).is_ok(), "{:?}", parsed(&outcome));
    assert!(outcome.services[0].text.contains("3months 24days 4h 45m 16s"), "{}", outcome.services[0].text);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever values stand there, what is written is a definition.
    #[test]
    fn whatever_is_imported_parses(
        time in "[0-9]{0,20}(s|min|h|ms|)( [0-9]{1,3}us)?",
        word in "[a-z0-9%$:{}=\"' -]{0,20}",
        number in "-?[0-9]{1,20}",
    ) {
        let source = Source::new();
        let unit = format!(
            "[Unit]\nAfter={word}.service\nStartLimitBurst={number}\nStartLimitIntervalSec={time}\n[Service]\n\
             ExecStart=/bin/x {word}\nRestart={word}\nRestartSec={time}\nTimeoutStopSec={time}\nKillSignal={number}\n\
             UMask={number}\nTasksMax={number}\nMemoryMax={number}\nCPUQuota={number}%\nSuccessExitStatus={number}\n\
             Environment={word}\nOOMScoreAdjust={number}\nExecStartPre=-/bin/y {word}\nExecStop={word} $MAINPID\n\
             ExecReload=/bin/kill {word}\nTimeoutStartSec={time}\nWatchdogSec={time}\nType=notify\n",
        );
        let compose = format!(
            "services:\n  web:\n    command: ['x', {word:?}]\n    restart: {word:?}\n    stop_grace_period: {time:?}\n    \
             stop_signal: {number:?}\n    pids_limit: {number}\n    mem_limit: {number}\n    cpus: {number}\n    \
             environment: [{word:?}]\n    scale: {number}\n    depends_on: {{ x: {{ condition: service_healthy }} }}\n  x:\n    \
             command: x\n    healthcheck: {{ test: ['CMD', 'x', {word:?}], interval: {time:?}, retries: {number}, timeout: {time:?} }}\n",
        );
        for (name, text) in [("a.service", &unit), ("c.yml", &compose)] {
            let outcome = source.put(name, text).import(name);
            if let Err(wrong) = parsed(&outcome) {
                panic!("{text}: {wrong}");
            }
        }
    }
}
