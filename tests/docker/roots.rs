//! What the user of the agent can do to what runs as root in its container: nothing.
//!
//! An agent can be talked into anything, so its user `hermes` counts as hostile. The volume is its own, and so is a directory
//! of the PATH, `/opt/data/.local/bin`, as in Hermes's own image.

use crate::harness::*;

/// Names that somebody at a root prompt, a script or a definition would use without a path, and their like.
const PLANTED: [&str; 13] = [
    "hermes-sup",
    "ps",
    "sh",
    "bash",
    "sleep",
    "id",
    "cat",
    "ls",
    "env",
    "true",
    "python3",
    "hermes",
    "packaged",
];

/// Puts a program under each name where hermes can: it leaves a set-uid shell behind that belongs to the user who runs it.
fn plant(container: &Container) {
    let names = PLANTED.join(" ");
    container
        .sh(&format!(
            r#"mkdir -p /opt/data/.local/bin; cd /opt/data/.local/bin
            for name in {names}; do
                printf '#!/bin/bash\n/bin/cp /bin/bash "/opt/data/shell-of-$(/bin/id -u)-by-%s"\n' "$name" >"$name"
                printf '/bin/chmod 4755 /opt/data/shell-of-*-by-%s\nexec /bin/sleep 1000\n' "$name" >>"$name"
                chmod 755 "$name"
            done
            # What Python loads from where it was started.
            printf 'import os\nos.system("/opt/data/.local/bin/python3 & sleep 0.1")\n' >/opt/data/planted.py"#
        ))
        .ok();
}

/// The set-uid shells of root's that there are, by the name that made them.
fn shells_of_root(container: &Container) -> Vec<String> {
    let found =
        container.exec(&["/usr/bin/find", "/opt/data", "-maxdepth", "1", "-perm", "-4000", "-user", "root"]);
    found.ok().lines().map(String::from).collect()
}

#[test]
fn hermes_becomes_root_in_no_way() {
    let container = Run::new().cmd(&["sleep", "infinity"]).supervised();
    plant(&container);
    // The attack works where it gets its chance, or the rest would prove nothing.
    docker(&["exec", "--detach", &container.id(), "/opt/data/.local/bin/true"]).ok();
    let shell = eventually("the planted program has run", || shells_of_root(&container).pop());
    let became = container.exec_as("hermes", &[&shell, "-p", "-c", "/usr/bin/id -u"]).ok();
    assert_eq!(became.trim(), "0", "a set-uid shell makes hermes root");
    container.exec(&["/bin/rm", &shell]).ok();

    // What we tell people to type, and what they type anyway.
    for command in [
        &["hermes-sup", "ctl", "status"][..],
        &["ps", "-e"],
        &["sh", "-c", "id && cat /etc/hostname && ls && env && true"],
        &["bash", "-c", "id && ls"],
        &["bash", "-ic", "id && ls"],
        &["bash", "-lc", "id && ls"],
        &["env", "id"],
        &["hermes", "--version"],
        &["env", "HERMES_DOCKER_EXEC_AS_ROOT=1", "hermes", "--version"],
        &["python3", "-c", "import os; os.system('id')"],
        &["/command/with-contenv", "id"],
        &["/command/with-contenv", "sh", "-c", "id; sleep 0"],
    ] {
        let ran = container.exec(&[&["timeout", "60"], command].concat());
        assert!(matches!(ran.code, 0 | 3), "{command:?}: {ran:?}");
        assert_eq!(shells_of_root(&container), [""; 0], "{command:?}");
    }

    // What root has running: a definition with a bare name, one that loads what lies around it, an s6 service of the
    // image, a script before the services.
    let script = r##"set -eu
        cp /usr/bin/id /usr/bin/packaged
        mkdir -p /etc/hermes-sup/services /etc/s6-overlay/s6-rc.d/rooted
        printf 'command = ["sleep", "infinity"]\nuser = "root"\n' >/etc/hermes-sup/services/bare.toml
        printf 'command = ["sh", "-c", "id; exec sleep infinity"]\nuser = "root"\n[security]\ncapabilities = ["ALL"]\nno_new_privs = false\n' \
            >/etc/hermes-sup/services/mighty.toml
        printf 'command = ["python3", "-c", "import planted"]\nuser = "root"\ntype = "oneshot"\n' >/etc/hermes-sup/services/loads.toml
        cd /etc/s6-overlay/s6-rc.d
        echo longrun >rooted/type
        printf '#!/command/with-contenv sh\nid\ns6-setuidgid hermes sh -c "echo \\$PATH" >/run/path-of-slot\nexec sleep infinity\n' >rooted/run
        chmod 755 rooted/run
        touch user/contents.d/rooted
        printf '#!/command/with-contenv sh\nid; ls; env\n' >/etc/cont-init.d/02-with
        printf '#!/bin/sh\nid; ls; env\n/command/s6-setuidgid hermes sh -c "echo \\$PATH" >/run/path-of-script\n' >/etc/cont-init.d/03-plain
        chmod 755 /etc/cont-init.d/0*"##;
    container.exec(&["sh", "-c", script]).ok();
    container.restart();
    container.await_up(&["bare", "mighty", "rooted"]);
    for name in ["bare", "mighty", "rooted"] {
        let pid = container.pid(name).expect("it is up").to_string();
        let ids = container.exec(&[
            "sh",
            "-c",
            &format!("grep ^Uid: /proc/{pid}/status; readlink /proc/{pid}/exe"),
        ]);
        let ids = ids.ok();
        assert!(ids.starts_with("Uid:\t0\t0\t0\t0") && ids.ends_with("/sleep\n"), "{name}: {ids}");
    }
    container.await_state("loads", "failed");
    // A program that came with a package, after the image was made.
    let packaged = container.exec(&["packaged", "-u"]).ok();
    assert_eq!(packaged.trim(), "0");
    assert_eq!(shells_of_root(&container), [""; 0], "{}", container.logs());
    // And for hermes itself its own programs come where they always came, also behind a script of root's.
    let paths = [
        container.exec_as("hermes", &["/bin/sh", "-c", "echo $PATH"]).ok(),
        container.exec(&["/bin/cat", "/run/path-of-slot"]).ok(),
        container.exec(&["/bin/cat", "/run/path-of-script"]).ok(),
    ];
    for path in paths {
        let path = path.strip_prefix("/command:").unwrap_or(&path);
        assert!(
            path.starts_with("/opt/hermes/bin:/opt/hermes/.venv/bin:/opt/data/.local/bin:/usr/local/sbin:"),
            "{path}"
        );
    }
}

/// hermes could not stop root's services one by one, but all of them with the container: by an essential service of its own that
/// fails.
#[test]
fn hermes_cannot_end_the_container_by_an_essential_service() {
    let container = Run::new().cmd(&["sleep", "infinity"]).supervised();
    let script = r#"set -eu
        mkdir -p /etc/hermes-sup/services
        printf 'command = ["sleep", "infinity"]\nuser = "root"\n' >/etc/hermes-sup/services/roots.toml
        /command/s6-setuidgid hermes sh -c 'mkdir -p /opt/data/services; cd /opt/data/services
            printf "command = [\"false\"]\nrole = \"essential\"\n[restart]\npolicy = \"never\"\n" >vital.toml'"#;
    container.exec(&["sh", "-c", script]).ok();
    container.restart();
    container.await_up(&["roots"]);
    container.await_state("vital", "refused");
    let reason = container.exec(&["hermes-sup", "ctl", "status", "vital"]);
    assert!(reason.out.contains("may be essential"), "{reason:?}");
    container.await_up(&["roots"]);
}

/// cron, sshd and their like were told that they may gain nothing: what they start for others with a set-uid program failed.
#[test]
fn an_s6_service_of_root_inherits_what_the_container_has() {
    let container = Run::new().cmd(&["sleep", "infinity"]).supervised();
    let script = r##"set -eu
        cp /usr/bin/id /usr/local/bin/gains
        chmod 4755 /usr/local/bin/gains
        mkdir -p /etc/hermes-sup/services /etc/services.d/legacy /etc/s6-overlay/s6-rc.d/rooted
        cd /etc/s6-overlay/s6-rc.d
        echo longrun >rooted/type
        touch user/contents.d/rooted
        for run in rooted/run /etc/services.d/legacy/run; do
            name=$(basename $(dirname $run))
            printf '#!/command/with-contenv sh\ns6-setuidgid hermes gains -u >/run/gained-%s\nexec sleep infinity\n' "$name" >"$run"
            chmod 755 "$run"
        done
        printf 'command = ["sleep", "infinity"]\nuser = "root"\n' >/etc/hermes-sup/services/defined.toml"##;
    container.exec(&["sh", "-c", script]).ok();
    container.restart();
    let flag = |name: &str, line: &str| {
        let pid = container.pid(name).expect("it is up");
        let found = container.exec(&["grep", line, &format!("/proc/{pid}/status")]).ok();
        found.split_whitespace().last().unwrap_or_default().to_owned()
    };
    container.await_up(&["rooted", "legacy", "defined"]);
    for name in ["rooted", "legacy"] {
        assert_eq!(flag(name, "NoNewPrivs"), "0", "{name}");
        let all = container.exec(&["grep", "CapBnd", "/proc/1/status"]).ok();
        assert!(all.contains(&flag(name, "CapEff")), "{name}: {all}");
        let gained = container.exec(&["cat", &format!("/run/gained-{name}")]).ok();
        assert_eq!(gained.trim(), "0", "{name}");
    }
    // A definition says so itself.
    assert_eq!(
        (flag("defined", "NoNewPrivs"), flag("defined", "CapEff")),
        ("1".into(), format!("{:016x}", 0))
    );
}
