//! What the user of the agent can do to what runs as root in its container: nothing.
//!
//! An agent can be talked into anything, so its user `hermes` counts as hostile. The volume is its own, and so is a directory
//! of the PATH, `/opt/data/.local/bin`, as in Hermes's own image.

use crate::harness::*;

/// Names that somebody at a root prompt, a script or a definition would use without a path, and their like.
const PLANTED: [&str; 12] =
    ["hermes-sup", "ps", "sh", "bash", "sleep", "id", "cat", "ls", "env", "true", "python3", "hermes"];

/// Puts a program under each name where hermes can: it leaves a set-uid shell behind that belongs to whoever runs it.
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
        mkdir -p /etc/hermes-sup/services /etc/s6-overlay/s6-rc.d/rooted
        printf 'command = ["sleep", "infinity"]\nuser = "root"\n' >/etc/hermes-sup/services/bare.toml
        printf 'command = ["sh", "-c", "id; exec sleep infinity"]\nuser = "root"\n[security]\ncapabilities = ["ALL"]\nno_new_privs = false\n' \
            >/etc/hermes-sup/services/mighty.toml
        printf 'command = ["python3", "-c", "import planted"]\nuser = "root"\ntype = "oneshot"\n' >/etc/hermes-sup/services/loads.toml
        cd /etc/s6-overlay/s6-rc.d
        echo longrun >rooted/type
        printf '#!/command/with-contenv sh\nid\nexec sleep infinity\n' >rooted/run
        chmod 755 rooted/run
        touch user/contents.d/rooted
        printf '#!/command/with-contenv sh\nid; ls; env\n' >/etc/cont-init.d/02-with
        printf '#!/bin/sh\nid; ls; env\n' >/etc/cont-init.d/03-plain
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
    assert_eq!(shells_of_root(&container), [""; 0], "{}", container.logs());
    // And for hermes itself its own programs come where they always came.
    let path = container.exec_as("hermes", &["/bin/sh", "-c", "echo $PATH"]).ok();
    assert!(
        path.starts_with("/opt/hermes/bin:/opt/hermes/.venv/bin:/opt/data/.local/bin:/usr/local/sbin:"),
        "{path}"
    );
}
