//! Imports of systemd units and compose files: realistic ones and their golden definitions, and what cannot be imported.

use super::tests::{Source, parsed, texts};
use crate::core::policy::{ExitRule, Kind, RestartWhen};
use crate::core::signal::Signal;
use proptest::prelude::*;
use std::time::Duration;

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
# not carried over: ExecStart with -: a failure of the program counts as one
# not carried over: $MAINPID in ExecStart: its value is not in Environment
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
# not carried over: healthcheck: it is not run
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

[limits]
cpu_max = "150%"
memory_max = "512M"
# file: worker.toml
# Imported from /src/compose.yaml
# not carried over: ${HOST} in command: the value at the import stands there; it may be a secret, so only the file's owner may read it
# not carried over: ${MODE} in command: its default stands there
# not carried over: user: that of its image is not known, so it runs as the default user
# not carried over: deploy.replicas: it has no counterpart
# not carried over: build: what it brings has to be in this image
command = ["python3", "-m", "worker", "--host", "there", "--mode", "fast"]
working_dir = "/app"
env = { URL = "redis://redis/$0" }
env_file = "/src/worker.env"
after = ["redis"]

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
command = ["redis-server"]

[restart]
policy = "never"
"#;
    assert_eq!(texts(&outcome), expected);
    assert!(outcome.remarks.contains(&"/src/compose.yaml: volumes: not carried over".to_owned()));
    let modes: Vec<u32> = outcome.services.iter().map(|service| service.mode).collect();
    assert_eq!(modes, [0o644, 0o600, 0o644], "a value of our environment may be a secret");
    let definitions = parsed(&outcome).unwrap();
    assert_eq!(definitions.len(), 3);
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
             Environment={word}\nOOMScoreAdjust={number}\n",
        );
        let compose = format!(
            "services:\n  web:\n    command: ['x', {word:?}]\n    restart: {word:?}\n    stop_grace_period: {time:?}\n    \
             stop_signal: {number:?}\n    pids_limit: {number}\n    mem_limit: {number}\n    cpus: {number}\n    \
             environment: [{word:?}]\n",
        );
        for (name, text) in [("a.service", &unit), ("c.yml", &compose)] {
            let outcome = source.put(name, text).import(name);
            if let Err(wrong) = parsed(&outcome) {
                panic!("{text}: {wrong}");
            }
        }
    }
}
