//! Whole imports: realistic sources and their golden definitions, hostile sources, and that whatever is written parses.

use super::*;
use crate::core::policy::{ExitRule, Kind, RestartWhen};
use crate::core::signal::Signal;
use crate::definition::diagnose::About;
use crate::definition::{Definition, Surroundings, load};
use crate::sys::users::nameless;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

pub(super) struct Source(tempfile::TempDir);

impl Source {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) fn put(&self, name: &str, text: &str) -> &Self {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        let mode = if name.ends_with("run") || name.ends_with("finish") { 0o755 } else { 0o644 };
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        self
    }

    fn link(&self, name: &str, target: &str) -> &Self {
        std::os::unix::fs::symlink(target, self.path(name)).unwrap();
        self
    }

    /// The outcome with the source's own directory as `/src`.
    pub(super) fn import(&self, name: &str) -> Outcome {
        let env = |name: &str| (name == "HOST").then(|| OsString::from("there"));
        let mut outcome = import(&[self.path(name)], &env);
        let own = self.0.path().display().to_string();
        for text in outcome.services.iter_mut().map(|service| &mut service.text) {
            *text = text.replace(&own, "/src");
        }
        for line in outcome.remarks.iter_mut().chain(&mut outcome.failures) {
            *line = line.replace(&own, "/src");
        }
        outcome
    }
}

/// What the supervisor makes of the texts. A user that is refused for the place of a file is no matter here.
pub(super) fn parsed(outcome: &Outcome) -> Result<Vec<Definition>, String> {
    let dir = tempfile::tempdir().unwrap();
    for service in &outcome.services {
        // Nor are rights.
        let place = [
            "user = ",
            "capabilities = ",
            "ambient = ",
            "no_new_privs = false",
            "oom_score_adj = ",
            "nofile = ",
            "nproc = ",
            "core = ",
        ];
        let stays = |line: &&str| !place.iter().any(|start| line.starts_with(start));
        let text: Vec<&str> = service.text.lines().filter(stays).collect();
        write(dir.path(), &Imported { text: text.join("\n"), ..service.clone() }).unwrap();
    }
    let own_uid = rustix::process::geteuid().as_raw();
    let home = PathBuf::from("/nonexistent-home");
    let around = Surroundings { home, gateway: nameless(own_uid, own_uid), own_uid };
    let loaded = load(&[dir.path().to_owned()], &around);
    let wrong: Vec<String> = loaded
        .diagnostics
        .iter()
        .filter(|found| found.about == About::Text)
        .map(ToString::to_string)
        .collect();
    // Several of a kind are one file.
    let files: BTreeSet<_> = loaded.services.keys().map(|name| name.as_str().split('@').next()).collect();
    match wrong.is_empty() && files.len() == outcome.services.len() {
        true => Ok(loaded.services.into_values().collect()),
        false => Err(format!("{wrong:#?}\n{:#?}", outcome.services)),
    }
}

pub(super) fn texts(outcome: &Outcome) -> String {
    outcome
        .services
        .iter()
        .map(|service| format!("# file: {}.toml\n{}", service.name, service.text))
        .collect()
}

#[test]
fn a_supervisord_conf_as_images_have_it() {
    let source = Source::new();
    source
        .put(
            "supervisord.conf",
            "[unix_http_server]\nfile=/run/supervisor.sock\n\n[supervisord]\nnodaemon=true\nenvironment=TZ=\"UTC\"\n\n\
             [include]\nfiles = conf.d/*.conf\n\n[program:nginx]\ncommand=/usr/sbin/nginx -g 'daemon off;'\npriority=10\n\
             autorestart=true\nstdout_logfile=/dev/stdout\nstdout_logfile_maxbytes=0\nredirect_stderr=true\n\
             stopsignal=QUIT\n",
        )
        .put(
            "conf.d/worker.conf",
            "[program:Worker]\ncommand=python3 \"/app/my worker.py\" --id %(process_num)d --host %(ENV_HOST)s\n\
             process_name=%(program_name)s_%(process_num)02d\nnumprocs=2\ndirectory=/app\nuser=www-data\n\
             environment=PATH=\"/app/bin:/bin\",QUOTE='a \"b\"'\nautostart=false\nexitcodes=0,2\nstartsecs=5\n\
             startretries=3\nstopwaitsecs=90 ; it takes its time\numask=027\nstdout_logfile=/var/log/worker.log\n\
             stdout_logfile_maxbytes=50MB\nstdout_logfile_backups=5\nstopasgroup=true\nserverurl=AUTO\n",
        );
    let outcome = source.import("supervisord.conf");
    assert_eq!(outcome.failures, Vec::<String>::new());
    let worker = |number: &str, id: &str| {
        format!(
            r#"# file: worker_{number}.toml
# Imported from /src/conf.d/worker.conf
# It was called 'Worker_{number}' there.
# not carried over: %(ENV_HOST)s in command: the value at the import stands there; it may be a secret, so only the file's owner may read it
# not carried over: startsecs: so long a run ends a row of failures; a start counts as done at once, and an expected exit before it is no failure
# not carried over: startretries: what ran for startsecs is restarted without end there; here every failure counts towards [restart] limit, unless it is "none"
# not carried over: stopasgroup: the main process gets the signal first, then what is left of its tree
# not carried over: stdout_logfile = /var/log/worker.log: the log is <home>/logs/gateways/NAME/current
# not carried over: serverurl: it has no counterpart
command = ["python3", "/app/my worker.py", "--id", "{id}", "--host", "there"]
user = "www-data"
working_dir = "/app"
env = {{ PATH = "/app/bin:/bin", QUOTE = 'a "b"', TZ = "UTC" }}
umask = "0027"
autostart = false
after = ["nginx"]

[stop]
timeout = "1m 30s"

[restart]
policy = "on-failure"
backoff = {{ reset_after = "5s" }}
limit = {{ burst = 3, interval = "26s" }}
exit_codes = {{ 2 = "stop" }}

[log]
max_size = 52428800
keep = 5
to_container = false
"#
        )
    };
    let expected = r#"# file: nginx.toml
# Imported from /src/supervisord.conf
# not carried over: autorestart: what ran for startsecs is restarted without end there; here every failure counts towards [restart] limit, unless it is "none"
# not carried over: redirect_stderr: both streams are in one log anyway, the lines of stderr marked with '!'
command = ["/usr/sbin/nginx", "-g", "daemon off;"]
user = "root"
env = { TZ = "UTC" }

[stop]
signal = "SIGQUIT"

[restart]
policy = "always"

[security]
no_new_privs = false
capabilities = ["ALL"]
"#;
    assert_eq!(texts(&outcome), format!("{expected}{}{}", worker("00", "0"), worker("01", "1")));
    assert!(
        outcome
            .remarks
            .contains(&"/src/supervisord.conf: [supervisord] nodaemon: not carried over".to_owned())
    );
    assert!(outcome.remarks.contains(
        &"/src/conf.d/worker.conf: worker_00: not carried over: serverurl: it has no counterpart".to_owned()
    ));
    let modes: Vec<u32> = outcome.services.iter().map(|service| service.mode).collect();
    assert_eq!(modes, [0o644, 0o600, 0o600], "a value of our environment may be a secret");
    let definitions = parsed(&outcome).unwrap();
    let worker = &definitions[1];
    assert_eq!(worker.policy.restart.when, RestartWhen::OnFailure);
    assert_eq!(worker.policy.restart.exit_codes, [(2, ExitRule::Stop)].into());
    assert_eq!(worker.policy.stop.timeout, Duration::from_secs(90));
    assert_eq!((worker.umask, worker.autostart, worker.log.max_size), (Some(0o27), false, 50 << 20));
    assert_eq!(worker.env["QUOTE"], "a \"b\"");
    assert_eq!(definitions[0].policy.stop.signal, Signal::QUIT);
}

#[test]
fn the_three_kinds_of_autorestart() {
    let source = Source::new();
    let programs = [
        ("a", "autorestart=false\nexitcodes=3", "never", ""),
        (
            "b",
            "autorestart=unexpected\nexitcodes=1,2",
            "always",
            "exit_codes = { 1 = \"stop\", 2 = \"stop\" }\n",
        ),
        ("c", "", "on-failure", ""),
        ("d", "autorestart=TRUE", "always", ""),
    ];
    let text: String = programs
        .iter()
        .map(|(name, keys, ..)| format!("[program:{name}]\ncommand=x\nuser=u\n{keys}\n"))
        .collect();
    let outcome = source.put("s.conf", &text).import("s.conf");
    for (service, (_, _, policy, codes)) in outcome.services.iter().zip(programs) {
        let tail = format!("\n[restart]\npolicy = \"{policy}\"\n{codes}");
        assert!(service.text.ends_with(&tail), "{}", service.text);
    }
    parsed(&outcome).unwrap();
}

#[test]
fn what_cannot_be_imported_fails_and_the_rest_is_imported() {
    let source = Source::new();
    let text = "stray\n[program:good]\ncommand=x\nuser=u\n[program:nocommand]\n[program:quote]\ncommand=a 'b\n\
                [program:unknown]\ncommand=%(ENV_NOT_SET)s\n[program:many]\ncommand=x\nnumprocs=2\n\
                [eventlistener:e]\ncommand=x\n[group:g]\nprograms=good\n";
    let outcome = source.put("s.conf", text).import("s.conf");
    assert_eq!(outcome.services.len(), 1);
    let words = ["line 1", "no command", "not closed", "ENV_NOT_SET", "process_name", "[eventlistener:e]"];
    assert_eq!(outcome.failures.len(), words.len(), "{:#?}", outcome.failures);
    for word in words {
        assert!(outcome.failures.iter().any(|line| line.contains(word)), "{word}");
    }
    assert!(outcome.remarks.iter().any(|line| line.contains("[group:g]")));
    for (name, content) in [("empty.conf", ""), ("nul.conf", "[program:x]\ncommand=a\0b\n")] {
        let outcome = source.put(name, content).import(name);
        assert!(outcome.services.is_empty() && !outcome.failures.is_empty(), "{name}");
    }
    let outcome = source.put("script", &"exit\n".repeat(100)).import("script");
    assert_eq!(outcome.failures.len(), 7, "{:#?}", outcome.failures);
    assert!(source.import("missing.conf").failures[0].contains("missing.conf: cannot be read"));
}

/// `files = *.conf` names the file itself: it was read again and again, and the import never ended.
#[test]
fn a_supervisord_conf_that_includes_itself_is_read_once() {
    let source = Source::new();
    let outcome = source
        .put(
            "supervisord.conf",
            "[include]\nfiles = *.conf ./*.conf linked/*.conf\n[program:a]\ncommand=/bin/a\nuser=u\n",
        )
        .put("other.conf", "[include]\nfiles = *.conf\n[program:b]\ncommand=/bin/b\nuser=u\n")
        .link("linked", ".")
        .import("supervisord.conf");
    let names: Vec<&str> = outcome.services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!((names, outcome.failures), (vec!["a", "b"], vec![]));
}

/// A variable of the environment was written into the definition without a word, and one that was not set took the whole
/// `environment` with it.
#[test]
fn variables_of_the_environment_are_named_and_only_those_that_are_not_set_are_left_out() {
    let source = Source::new();
    let outcome = source
        .put(
            "s.conf",
            "[supervisord]\nuser=root\ndirectory=/\nenvironment=PATH=\"/opt/bin:%(ENV_HOST)s\",BOOT=\"%(ENV_NOT_SET)s\",TZ=UTC\n\
             [program:plain]\ncommand=/bin/app --token %(ENV_HOST)s\nautorestart=false\n\
             environment=A=\"%(ENV_NOT_SET)s\",B='x,y',HOST=\"%(ENV_HOST)s\",PATH=/bin,C=\"%(ENV_HOST)s\"\n\
             [program:own]\ncommand=/bin/own\nuser=www\nautorestart=false\nenvironment=PATH=%(ENV_PATH)s\n",
        )
        .import("s.conf");
    assert_eq!(outcome.failures, Vec::<String>::new());
    let expected = r#"# file: plain.toml
# Imported from /src/s.conf
# not carried over: %(ENV_HOST)s in command: the value at the import stands there; it may be a secret, so only the file's owner may read it
# not carried over: [supervisord] environment: BOOT uses %(ENV_NOT_SET)s, which is not known here: this variable is left out
# not carried over: environment: A uses %(ENV_NOT_SET)s, which is not known here: this variable is left out
# not carried over: %(ENV_HOST)s in environment: C: the value at the import stands there; it may be a secret, so only the file's owner may read it
command = ["/bin/app", "--token", "there"]
user = "root"
working_dir = "/"
env = { B = "x,y", C = "there", PATH = "/bin", TZ = "UTC" }

[restart]
policy = "never"

[security]
no_new_privs = false
capabilities = ["ALL"]
# file: own.toml
# Imported from /src/s.conf
# not carried over: [supervisord] environment: BOOT uses %(ENV_NOT_SET)s, which is not known here: this variable is left out
command = ["/bin/own"]
user = "www"
working_dir = "/"
env = { TZ = "UTC" }

[restart]
policy = "never"
"#;
    assert_eq!(
        texts(&outcome),
        expected,
        "what a service has from the supervisor anyway is not written down"
    );
    assert!(outcome.services.iter().all(|service| service.mode == 0o600));
}

/// What `stdout_logfile` and `stderr_logfile` say together: a stream that was shown is shown, and what becomes of the other
/// one is named.
#[test]
fn the_places_of_both_streams() {
    const FILE: &str = "the log is <home>/logs/gateways/NAME/current";
    const ERR: &str = "both streams are in one log, the lines of stderr marked with '!'";
    const SHOWN: &str = "stdout_logfile: its lines go to the container, too, as those of stderr do: there is one setting for both streams";
    let cases = [
        (
            "/var/log/a",
            "/dev/stderr",
            "",
            vec![format!("stdout_logfile = /var/log/a: {FILE}"), SHOWN.to_owned()],
        ),
        (
            "/dev/null",
            "/dev/fd/2",
            "",
            vec![format!("stdout_logfile = /dev/null: nothing is thrown away: {FILE}"), SHOWN.to_owned()],
        ),
        (
            "NONE",
            "/var/log/e",
            "to_container = false",
            vec![
                format!("stdout_logfile = NONE: nothing is thrown away: {FILE}"),
                format!("stderr_logfile = /var/log/e: {ERR}"),
            ],
        ),
        ("/proc/1/fd/1", "/proc/1/fd/2", "", vec![]),
        ("/dev/stdout", "off", "", vec![format!("stderr_logfile = off: nothing is thrown away: {ERR}")]),
        (
            "/dev/stderr",
            "/dev/stdout",
            "",
            vec![
                "stdout_logfile = /dev/stderr: it stays the container's stdout".to_owned(),
                "stderr_logfile = /dev/stdout: it stays the container's stderr".to_owned(),
            ],
        ),
        (
            "/dev/console",
            "AUTO",
            "",
            vec![
                "stdout_logfile = /dev/console: its lines go to the container's stdout".to_owned(),
                format!("stderr_logfile = AUTO: {ERR}"),
            ],
        ),
        ("auto", "syslog", "to_container = false", vec![format!("stderr_logfile = syslog: {ERR}")]),
    ];
    for (out, err, log, notes) in cases {
        let source = Source::new();
        let text = format!(
            "[program:p]\ncommand=x\nuser=u\nautorestart=false\nstdout_logfile={out}\nstderr_logfile={err}\n"
        );
        let mut silent = String::new();
        for (place, stream) in [(out, "stdout"), (err, "stderr")] {
            // As images have it beside a place that is no file.
            if place.starts_with("/dev") || place.starts_with("/proc") {
                silent += &format!("{stream}_logfile_maxbytes=0\n{stream}_logfile_backups=0\n");
            }
        }
        let outcome = source.put("s.conf", &(text + &silent)).import("s.conf");
        let found: Vec<&str> = outcome
            .remarks
            .iter()
            .filter_map(|line| line.split_once("not carried over: "))
            .map(|(_, note)| note)
            .collect();
        assert_eq!(found, notes, "{out} {err}");
        let written = outcome.services[0].text.split_once("[log]\n").map_or("", |(_, log)| log.trim());
        assert_eq!(written, log, "{out} {err}");
        parsed(&outcome).unwrap();
    }
}

#[test]
fn what_only_supervisord_does_is_named() {
    let source = Source::new();
    let outcome = source
        .put(
            "s.conf",
            "[program:db]\ncommand=/usr/bin/pidproxy /run/db.pid /usr/bin/db_safe\nuser=u\nautorestart=false\n\
             exitcodes=0,300\nstartretries=5\n[eventlistener:fatal]\ncommand=x\nevents=PROCESS_STATE_FATAL\n",
        )
        .import("s.conf");
    let all = outcome.remarks.iter().chain(&outcome.failures).cloned().collect::<Vec<_>>().join("\n");
    for words in [
        "pidproxy comes with supervisord",
        "exitcodes: '300' is not an exit code",
        "exitcodes: say nothing with autorestart = false",
        "startretries: with autorestart = false a start that fails is not tried again",
        "[eventlistener:fatal] cannot be imported: no service is told of events",
    ] {
        assert!(all.contains(words), "{words}\n{all}");
    }
}

#[test]
fn one_service_directory() {
    let source = Source::new();
    source
        .put("My.App/run", "#!/bin/sh\nexec app\n")
        .put("My.App/finish", "")
        .put("My.App/down", "")
        .put("My.App/down-signal", "SIGINT\n")
        .put("My.App/timeout-kill", "3000\n")
        .put("My.App/notification-fd", "3\n")
        .put("My.App/log/run", "");
    let outcome = source.import("My.App");
    let expected = r#"# file: my-app.toml
# Imported from /src/My.App
# It was called 'My.App' there.
# not carried over: finish: no program is run after the end; codes for which it exits with 125 belong into [restart] exit_codes
# not carried over: log/run: the supervisor keeps the log itself
command = ["/src/My.App/run"]
user = "root"
working_dir = "/src/My.App"
autostart = false

[stop]
signal = "SIGINT"
timeout = "3s"

[ready]
kind = "fd"
fd = 3

[security]
no_new_privs = false
capabilities = ["ALL"]
"#;
    assert_eq!((texts(&outcome).as_str(), &outcome.failures), (expected, &vec![]));
    let definition = &parsed(&outcome).unwrap()[0];
    assert_eq!((definition.autostart, definition.policy.stop.signal), (false, Signal::INT));
}

#[test]
fn the_sources_of_s6_rc() {
    let source = Source::new();
    source
        .put("rc/user/type", "bundle\n")
        .put("rc/user/contents.d/web", "")
        .put("rc/web/type", "longrun\n")
        .put("rc/web/run", "")
        .put("rc/web/dependencies.d/base", "")
        .put("rc/web/dependencies.d/migrate", "")
        .put("rc/web/dependencies.d/gone", "")
        .put("rc/migrate/type", "oneshot\n")
        .put("rc/migrate/up", "/app/migrate --all\n")
        .put("rc/shell/type", "oneshot\n")
        .put("rc/shell/up", "if { test -e x } echo y\n")
        .put("rc/spare/type", "longrun\n")
        .put("rc/spare/run", "")
        .put("rc/user/contents.d/lines-pipeline", "")
        .put("rc/lines/run", "")
        .put("rc/lines/producer-for", "lines-log\n")
        .put("rc/lines-log/run", "")
        .put("rc/lines-log/consumer-for", "lines\n")
        .put("rc/lines-log/pipeline-name", "lines-pipeline\n")
        .put("rc/gateway-x/run", "");
    let outcome = source.import("rc");
    assert_eq!(outcome.failures.len(), 1);
    assert!(outcome.failures[0].starts_with("/src/rc/shell/up: is execline"), "{:?}", outcome.failures);
    let definitions = parsed(&outcome).unwrap();
    let shown: Vec<(&str, bool, Kind, usize)> = definitions
        .iter()
        .map(|found| (found.name.as_str(), found.autostart, found.policy.kind, found.requires.len()))
        .collect();
    let expected = [
        ("lines", true, Kind::Daemon, 0),
        ("lines-log", false, Kind::Daemon, 0),
        ("migrate", true, Kind::Oneshot, 0),
        ("spare", false, Kind::Daemon, 0),
        ("web", true, Kind::Daemon, 1),
    ];
    assert_eq!(shown, expected, "what no bundle names is not started, nor what reads another's output");
    assert_eq!(definitions[2].command, ["/app/migrate", "--all"]);
    assert!(outcome.remarks.iter().any(|line| line.contains("depends on 'gone'")));
    assert!(outcome.remarks.iter().any(|line| line.contains("gateway-x: is made from its Hermes profile")));
    assert!(source.put("none/file", "").import("none").failures[0].contains("no s6 service directory"));
}

/// A `run` that is a link was said to be no program, and files that have no counterpart were passed over in silence.
#[test]
fn a_linked_run_is_a_program_and_files_without_a_counterpart_are_named() {
    let source = Source::new();
    source
        .put("other/run", "#!/bin/sh\nexec app\n")
        .put("app/env/FOO", "bar")
        .put("app/flag-newpidns", "")
        .put("app/timeout-finish", "1000")
        .put("app/finish", "")
        .link("app/run", "../other/run")
        .put("gone/type", "longrun\n")
        .link("gone/run", "../nowhere");
    let outcome = source.import("app");
    let text = &outcome.services[0].text;
    for words in [
        "flag-newpidns: write containment = \"pidns\"",
        "timeout-finish: no program is run after the end",
        "env: its variables are set only where ./run reads them",
        "command = [\"/src/app/run\"]",
    ] {
        assert!(text.contains(words), "{words}\n{text}");
    }
    let all = outcome.remarks.join("\n") + text;
    assert!(!all.contains("no executable file") && !all.contains("symbolic link"), "{all}");
    parsed(&outcome).unwrap();
    let outcome = source.import("gone");
    assert!(outcome.services[0].text.contains("its ./run is no executable file"), "{outcome:?}");
}

#[test]
fn names_that_clash_or_are_reserved_or_go_round_in_circles_still_give_definitions() {
    let source = Source::new();
    let long = "x".repeat(70);
    for name in ["A", "a", "dashboard", "-", &long, &format!("{long}y")] {
        source.put(&format!("scan/{name}/run"), "");
    }
    source.put("scan/A/dependencies.d/a", "").put("scan/a/dependencies.d/A", "");
    let outcome = source.import("scan");
    let names: Vec<&str> = outcome.services.iter().map(|service| service.name.as_str()).collect();
    let cut = "x".repeat(64);
    assert_eq!(names, ["service", "a", "a-2", "dashboard-service", &cut, &format!("{}-2", "x".repeat(62))]);
    let definitions = parsed(&outcome).unwrap();
    assert_eq!(definitions.iter().filter(|found| !found.requires.is_empty()).count(), 1);
}

#[test]
fn hostile_directories_neither_block_nor_lead_away() {
    let source = Source::new();
    std::fs::create_dir(source.path("slot")).unwrap();
    for name in ["run", "type", "timeout-kill", "dependencies", "consumer-for"] {
        let path = source.path("slot").join(name);
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
            .unwrap();
    }
    let outcome = source.import("slot");
    assert_eq!(outcome.services.len(), 1);
    assert!(outcome.services[0].text.contains("its ./run is no executable file"));
    parsed(&outcome).unwrap();
}

#[test]
fn a_file_that_is_there_is_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("new/services");
    let name = ServiceName::new("web").unwrap();
    let service = Imported { name, text: "command = ['x']\n".to_owned(), mode: 0o600 };
    let path = to.join("web.toml");
    assert_eq!(write(&to, &service).unwrap(), (path.clone(), true));
    assert_eq!(write(&to, &service).unwrap(), (path.clone(), false), "the same again");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let other = Imported { text: "command = ['y']\n".to_owned(), ..service.clone() };
    assert_eq!(write(&to, &other).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(dir.path().join("target"), &path).unwrap();
    assert!(write(&to, &service).is_err());
    assert!(!dir.path().join("target").exists(), "a link is not written through");
}

/// A key of a program with a value that may be anything.
fn setting() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec![
        "process_name",
        "numprocs",
        "numprocs_start",
        "priority",
        "directory",
        "user",
        "environment",
        "autostart",
        "autorestart",
        "exitcodes",
        "startsecs",
        "startretries",
        "stopsignal",
        "stopwaitsecs",
        "umask",
        "stdout_logfile",
        "stdout_logfile_maxbytes",
        "stdout_logfile_backups",
        "stderr_logfile",
        "redirect_stderr",
        "nonsense",
    ]);
    let value = prop_oneof![
        "[ -~ü\u{7f}\u{85}\u{2028}\"\\\\]{0,20}",
        "-?[0-9]{1,20}",
        prop::sample::select(vec![
            "true",
            "false",
            "TERM",
            "A=\"b\x1b\"",
            "/tmp",
            "%(process_num)02d",
            "9GB"
        ])
        .prop_map(str::to_owned),
    ];
    (key, value).prop_map(|(key, value)| format!("{key}={value}\n"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// A `down-signal` of 33, which has no name, was written as two words that `check` refuses.
    #[test]
    fn whatever_is_imported_from_s6_parses(
        values in prop::collection::vec((prop::sample::select(vec!["down-signal", "timeout-kill", "timeout-finish",
            "notification-fd", "type", "dependencies"]), prop_oneof!["[0-9]{1,3}", "-?[0-9]{1,12}", "[ -~ü\u{7f}]{0,12}"]), 0..5),
        signal in 1..=64u8,
    ) {
        let source = Source::new();
        source.put("app/run", "").put("app/down-signal", &format!("{signal}\n"));
        for (file, value) in &values {
            source.put(&format!("app/{file}"), value);
        }
        let outcome = source.import("app");
        if let Err(wrong) = parsed(&outcome) {
            prop_assert!(false, "{values:?}\n{wrong}");
        }
    }

    #[test]
    fn whatever_is_imported_from_supervisord_parses(
        programs in prop::collection::vec(("[^\\]\r\n\0]{1,12}", "[ -$&-~ü\u{1b}\u{9b}]{1,30}",
                                           prop::collection::vec(setting(), 0..6)), 1..4)
    ) {
        let text: String = programs
            .into_iter()
            .map(|(name, command, keys)| format!("[program:{name}]\ncommand={command}\n{}", keys.concat()))
            .collect();
        let source = Source::new();
        let outcome = source.put("s.conf", &text).import("s.conf");
        if let Err(wrong) = parsed(&outcome) {
            prop_assert!(false, "{text}\n{wrong}");
        }
        for line in outcome.remarks.iter().chain(&outcome.failures) {
            prop_assert!(!line.contains(char::is_control), "{line:?}");
        }
    }
}
