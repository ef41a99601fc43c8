//! The image with fewer capabilities than an engine gives, and root's services with those that they need.

use crate::harness::*;
use std::os::unix::fs::{PermissionsExt, chown};

/// What `docker/README.md` names for a container that still begins as root.
const THREE: [&str; 4] = ["--cap-drop=ALL", "--cap-add=SETUID", "--cap-add=SETGID", "--cap-add=KILL"];

/// A directory of the host's for `/opt/data`, as somebody makes it who read that hermes is 10000. Only hermes may enter it.
struct Bind(tempfile::TempDir);

impl Bind {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o700)).expect("a mode");
        chown(dir.path(), Some(10000), Some(10000)).expect("an owner: this tier runs as root");
        Self(dir)
    }

    fn flag(&self) -> String {
        format!("--volume={}:/opt/data", self.0.path().display())
    }
}

/// The gateway itself, not a look at an id: started, stopped with all that it has, started by Hermes's own CLI, its log read,
/// its want kept over a restart of the container.
fn gateway_lives(run: Run, what: &str) {
    let container = run.flags(&["--env=HERMES_GATEWAY_MAX_STARTS=0"]).cmd(&["gateway", "run"]).supervised();
    container.await_up(&["default"]);
    // By now it has made its home its own alone.
    eventually("the gateway says that it runs", || {
        let state = container.exec_as("hermes", &["cat", "/opt/data/gateway_state.json"]);
        state.out.contains(r#""pid":"#).then_some(())
    });
    // As under s6 the CMD asks for its gateway, however long that is up by then, and sleeps; a stop before that is overtaken.
    eventually("the CMD has asked for its gateway", || {
        let events = container.ctl(&["events"]).ok();
        events.contains("default: start asked for by hermes").then_some(())
    });
    container.ctl(&["stop", "default"]).ok();
    assert_eq!(container.state("default"), "down", "{what}");
    container.hermes(&["gateway", "start"]).ok();
    container.await_up(&["default"]);
    eventually("its log can be read", || {
        let log = container.ctl(&["logs", "default"]).ok();
        log.contains("Hermes Gateway Starting").then_some(())
    });
    container.ctl(&["stop", "default"]).ok();
    container.restart();
    assert_eq!(container.service("default")["want"], "down", "{what}: the want was kept");
    let logs = container.logs();
    // Why no better containment is to be had is no fault.
    let lines: Vec<&str> = logs.lines().filter(|line| !line.contains("containment '")).collect();
    for sign in ["ermission denied", "not permitted", "nothing is recorded", "incomplete"] {
        assert!(!lines.iter().any(|line| line.contains(sign)), "{what}: {sign}: {logs}");
    }
}

#[test]
fn the_gateway_runs_with_the_three_capabilities_that_it_takes() {
    gateway_lives(Run::new().flags(&THREE), "a fresh volume");
    gateway_lives(Run::new().flags(&THREE).flags(&["--read-only", "--tmpfs=/run"]), "read-only");
    let bind = Bind::new();
    gateway_lives(Run::new().flags(&THREE).flags(&[&bind.flag()]), "a directory of the host");
}

#[test]
fn the_gateway_runs_without_the_right_to_give_files_away_or_to_open_others() {
    gateway_lives(Run::new().flags(&["--cap-drop=CHOWN"]), "without CHOWN");
    let bind = Bind::new();
    let flags = ["--cap-drop=DAC_OVERRIDE", &bind.flag()];
    gateway_lives(Run::new().flags(&flags), "without DAC_OVERRIDE, a home of hermes's alone");
}

#[test]
fn a_missing_capability_is_named_at_the_start() {
    for capability in ["SETUID", "SETGID", "KILL"] {
        let refused =
            Run::new().flags(&[&format!("--cap-drop={capability}")]).cmd(&["gateway", "run"]).output();
        assert_eq!(refused.code, 1, "{capability}: {refused:?}");
        assert!(refused.err.contains(&format!("--cap-add {capability}")), "{refused:?}");
    }
}

/// What root's definitions are, and `script` as root before.
fn with_definitions(run: Run, script: &str) -> Container {
    let container = run.cmd(&["sleep", "infinity"]).supervised();
    let script = format!("mkdir -p /etc/hermes-sup/services; cd /etc/hermes-sup/services\n{script}");
    container.exec(&["sh", "-euc", &script]).ok();
    container.ctl(&["reload"]).ok();
    container
}

/// nginx, apache and php-fpm log by opening these names.
#[test]
fn a_service_of_any_user_opens_its_streams_by_name() {
    let script = r##"for user in root www-data hermes; do
        printf 'command = ["/bin/sh", "-c", "echo out of %s >/dev/stdout; echo err of %s >/dev/stderr; exec sleep infinity"]\nuser = "%s"\n' \
            $user $user $user >by-$user.toml
    done"##;
    for flags in [&[][..], &THREE, &["--cap-drop=DAC_OVERRIDE"]] {
        let container = with_definitions(Run::new().flags(flags), script);
        for user in ["root", "www-data", "hermes"] {
            let name = format!("by-{user}");
            container.await_up(&[&name]);
            let log = eventually("both lines are there", || {
                let log = container.ctl(&["logs", &name]).out;
                (log.lines().count() >= 2).then_some(log)
            });
            assert!(
                log.contains(&format!("out of {user}")) && log.contains(&format!("err of {user}")),
                "{flags:?}: {log}"
            );
        }
    }
}

/// Cron changes its user and starts what does so again; a server of the web binds a low port and gives up root; some need
/// nothing.
#[test]
fn root_services_have_the_capabilities_that_they_name() {
    let script = r##"
        printf 'command = ["/bin/sh", "-c", "runuser -u www-data -- sleep 1000; exec sleep 1000"]\nuser = "root"\n' >none.toml
        printf 'command = ["/usr/sbin/runuser", "-u", "www-data", "--", "sleep", "1001"]\nuser = "root"\n[security]\ncapabilities = ["SETUID", "CAP_SETGID"]\n' >some.toml
        printf 'command = ["/bin/su", "www-data", "-s", "/bin/sleep", "1002"]\nuser = "root"\n[security]\ncapabilities = ["ALL"]\nno_new_privs = false\n' >all.toml
        printf 'command = ["/bin/sleep", "1003"]\nuser = "www-data"\n[security]\nambient = ["NET_BIND_SERVICE"]\n' >ambient.toml
        printf 'command = ["/bin/sleep", "1004"]\nuser = "root"\n[security]\ncapabilities = ["SYS_TIME"]\n' >missing.toml"##;
    let container = with_definitions(Run::new(), script);
    container.await_up(&["none", "some", "all", "ambient"]);
    eventually("two have become somebody else", || {
        let users = container.exec(&["ps", "-C", "sleep", "-o", "uid=,args="]).out;
        (users.contains("33 sleep 1001") && users.contains("33 /bin/sleep 1002")
            || users.contains("33 sleep 1002"))
        .then_some(())
    });
    let status = |name: &str, label: &str| {
        let pid = container.pid(name).expect("it is up");
        let text = container.exec(&["cat", &format!("/proc/{pid}/status")]).ok();
        text.lines().find_map(|line| line.strip_prefix(label)).unwrap_or_default().trim().to_owned()
    };
    let mask = |bits: &[u32]| format!("{:016x}", bits.iter().fold(0u64, |mask, bit| mask | 1 << bit));
    // CAP_SETGID is 6, CAP_SETUID 7, CAP_NET_BIND_SERVICE 10 (capabilities(7)).
    for (name, label, expected) in [
        ("none", "CapBnd:", mask(&[])),
        ("some", "CapBnd:", mask(&[6, 7])),
        ("some", "CapEff:", mask(&[6, 7])),
        ("ambient", "CapEff:", mask(&[10])),
        ("ambient", "CapAmb:", mask(&[10])),
        ("none", "NoNewPrivs:", "1".to_owned()),
        ("all", "NoNewPrivs:", "0".to_owned()),
    ] {
        assert_eq!(status(name, label), expected, "{name} {label}");
    }
    let init = container.exec(&["sh", "-c", "grep CapBnd /proc/1/status"]).ok();
    assert!(init.contains(&status("all", "CapBnd:")), "all that the container has: {init}");
    let shown = container.ctl(&["audit", "some"]).ok();
    assert!(shown.contains("CAP_SETGID CAP_SETUID"), "{shown}");
    let refused = container.ctl(&["start", "missing"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.err.contains("CAP_SYS_TIME") && refused.err.contains("--cap-add SYS_TIME"),
        "{refused:?}"
    );
    let checked = container.exec(&["hermes-sup", "check", "/etc/hermes-sup/services"]);
    let warned = checked.out + &checked.err;
    assert!(warned.contains("none.toml:2:8: warning: root has no capabilities here"), "{warned}");
    assert!(!warned.contains("some.toml"), "{warned}");
}

/// kubelet mounts a ConfigMap read-only, as a directory that all could write otherwise, with links through `..data`.
#[test]
fn a_config_map_is_a_services_directory() {
    let map = tempfile::tempdir().expect("a directory");
    let version = map.path().join("..2026_01_01");
    std::fs::create_dir(&version).expect("a directory");
    std::fs::write(version.join("web.toml"), "command = [\"sleep\", \"1000\"]\nuser = \"www-data\"\n")
        .expect("a file");
    std::os::unix::fs::symlink("..2026_01_01", map.path().join("..data")).expect("a link");
    std::os::unix::fs::symlink("..data/web.toml", map.path().join("web.toml")).expect("a link");
    for (path, mode) in [(map.path(), 0o777), (&*version, 0o777), (&*version.join("web.toml"), 0o644)] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("a mode");
    }
    let mounted = |how: &str| {
        let volume = format!("--volume={}:/etc/hermes-sup/services{how}", map.path().display());
        Run::new().flags(&[&volume]).cmd(&["sleep", "infinity"]).supervised()
    };
    let container = mounted(":ro");
    container.await_up(&["web"]);
    assert_eq!(container.exec(&["ps", "-C", "sleep", "-o", "user="]).ok().matches("www-data").count(), 1);
    // Where all can write, anybody can have made the link.
    let logs = mounted("").logs();
    assert!(logs.contains("web.toml: is a symbolic link"), "{logs}");
}
