//! What `hermes` looks for to know s6: the name of PID 1, its directories, its tools.

use super::{idle, script, setup, shell, world};
use crate::harness::setup::{ALICE, HERMES};
use crate::harness::{Place, Rung};
use std::os::unix::fs::MetadataExt;

/// Contract: 46, 58.
#[test]
fn pid_1_passes_for_s6() {
    let mut setup = idle();
    setup.environment.push(("TWO".into(), "a b\nc\n".into()));
    let mut world = world(setup);
    script(&world, "/show", "#!/command/with-contenv sh\nprintf '[%s]' \"$TWO\"\n");
    let supervisor = world.start();
    let look = shell(
        &world,
        &supervisor,
        "cat /proc/1/comm; test -d /run/s6/basedir; stat -c %u:%g:%a /run/service /run/s6; cat /run/s6/container_environment/COLOUR 2>&1 || cat /run/s6/container_environment/HERMES_HOME; /show",
    );
    assert_eq!(
        look.ok(),
        "s6-svscan\n10000:10000:755\n0:0:755\ncat: /run/s6/container_environment/COLOUR: No such file or directory\n/opt/data[a b\nc\n]"
    );
    let refused = world.exec(&supervisor, ALICE, &["cat", "/run/s6/container_environment/HERMES_HOME"]);
    assert!(refused.fails(1).contains("Permission denied"));
    let refused = shell(
        &world,
        &supervisor,
        "cd /run/s6/container_environment; for f in HERMES_HOME NEW; do (echo evil >$f) 2>/dev/null && exit 9; rm -f HERMES_HOME 2>/dev/null && exit 8; done; exit 0",
    );
    refused.ok();
    assert_eq!(
        shell(&world, &supervisor, "/command/s6-svstat -o up /run/service/main-hermes").ok(),
        "true\n"
    );
}

/// The image's first script gives its user the numbers of the volume's owner.
/// Contract: 46.
#[test]
fn what_is_the_gateway_users_follows_it_to_another_uid() {
    let mut world = world(idle());
    let remap = "#!/bin/sh\nsed -i s/10000:10000/12345:12345/ /etc/passwd; sed -i s/hermes:x:10000/hermes:x:12345/ /etc/group\nchown -R 12345:12345 /opt/data\n";
    script(&world, "/etc/cont-init.d/1", remap);
    let supervisor = world.start();
    for path in ["", "/.s6-svscan", "/.s6-svscan/control", "/.s6-svscan/lock", "/gateway-coder/run"] {
        let meta = world.path(&format!("/run/service{path}")).symlink_metadata().expect("it");
        assert_eq!((meta.uid(), meta.gid()), (12345, 12345), "{path}");
    }
    let environment = "/run/s6/container_environment";
    let seen = world.exec(&supervisor, 12345, &["cat", &format!("{environment}/HERMES_HOME")]);
    assert_eq!(seen.ok(), "/opt/data");
    world.exec(&supervisor, HERMES, &["ls", environment]).fails(2);
    world.exec(&supervisor, 12345, &["/command/s6-svc", "-u", "/run/service/gateway-coder"]).ok();
    world.wait_log("coder", "ready pause");
    assert!(world.marked("pause").iter().all(|process| process.uid == 12345));
}

/// Who was the gateway user until then may have put a second name of a file of root's there (the kernel allows it unless
/// fs.protected_hardlinks is set): that file was given to the new uid.
#[test]
fn nothing_of_roots_follows_the_gateway_user_to_another_uid() {
    let mut world = world(idle());
    let control = "/run/service/.s6-svscan";
    for name in ["lock", "control"] {
        world.write(&format!("/etc/of-root-{name}"), "root's");
    }
    let script_text = format!(
        "#!/bin/sh\nsed -i s/10000:10000/12345:12345/ /etc/passwd\nchown -R 12345:12345 /opt/data\n\
         for name in lock control; do ln -f /etc/of-root-$name {control}/$name; done\n"
    );
    script(&world, "/etc/cont-init.d/1", &script_text);
    let _supervisor = world.start();
    for name in ["lock", "control"] {
        let meta = world.path(&format!("/etc/of-root-{name}")).symlink_metadata().expect("it");
        assert_eq!((meta.uid(), meta.gid()), (0, 0), "{name}");
        let meta = world.path(&format!("{control}/{name}")).symlink_metadata().expect("it");
        assert_eq!(meta.uid(), 12345, "{name}");
    }
}

/// Elsewhere `hermes` is not to take us for s6, so the supervisor itself hands its gateway over.
/// Contract: 52, 85.
#[test]
fn gateway_run_is_whose_turn_it_is() {
    for place in [Place::Pid1, Place::Child] {
        let setup = setup(Rung::Cgroup, place).main_program(&["/opt/main-wrapper.sh", "gateway", "run"]);
        let mut world = world(setup);
        script(&world, "/opt/main-wrapper.sh", "#!/bin/sh\necho \"wrapper $*\"\nexec /adversary hold\n");
        let supervisor = world.start();
        let comm = std::fs::read_to_string(format!("/proc/{}/comm", supervisor.pid())).expect("its name");
        if place == Place::Pid1 {
            world.wait_stdout("wrapper -p default gateway run");
            assert_eq!(comm, "s6-svscan\n");
            // Where the image's own reconciliation looks for the CMD.
            let words = std::fs::read(format!("/proc/{}/cmdline", supervisor.pid())).expect("its words");
            assert!(words.ends_with(b"\0/opt/main-wrapper.sh\0gateway\0run\0"), "{words:?}");
        } else {
            world.wait_log("default", "hermes gateway run");
            assert_eq!(comm, "hermes-sup\n");
            assert!(!world.stdout().contains("wrapper"), "{}", world.stdout());
        }
    }
}
