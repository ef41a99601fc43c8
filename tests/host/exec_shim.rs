//! `docker exec … hermes`, which is root's command, on a volume where hermes has put what it likes: `docker/hermes-exec-shim.sh` beside
//! a real supervisor that is not PID 1, where commands for gateways go to `ctl`.

use crate::harness::setup::HERMES;
use crate::harness::{Setup, World};
use std::os::unix::fs::{PermissionsExt, symlink};

const SHIM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docker/hermes-exec-shim.sh");

/// What hermes had written into `active_profile`, and into the names of profiles, became words of the command, and a FIFO there kept it
/// waiting.
#[test]
fn what_lies_on_the_volume_is_no_word_of_a_command_of_roots() {
    let bin = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(bin.path(), PermissionsExt::from_mode(0o755)).expect("a mode");
    symlink("/hermes-sup", bin.path().join("hermes-sup")).expect("a link");
    let bin_path = bin.path().to_str().expect("a path");
    let mut world = World::new(Setup::plain().world_option(&["--bind", bin_path, "/usr/local/bin"]));
    for (path, text) in [
        ("/opt/hermes-exec-shim.sh", std::fs::read_to_string(SHIM).expect("the script")),
        ("/opt/hermes/.venv/bin/hermes", "#!/bin/sh\necho \"the real one: $*\"\n".to_owned()),
    ] {
        let file = world.write(path, text);
        std::fs::set_permissions(file, PermissionsExt::from_mode(0o755)).expect("a mode");
    }
    std::fs::create_dir(world.path("/command")).expect("a directory");
    symlink("/hermes-sup", world.path("/command/s6-setuidgid")).expect("a link");
    world.write("/etc/secret", "first-line-of-roots\n");
    std::fs::set_permissions(world.path("/etc/secret"), PermissionsExt::from_mode(0o600)).expect("a mode");
    world.adversary("roots", "pause", "user = \"root\"").adversary("default", "pause", "");
    let supervisor = world.start();
    let plant = |text: &str| {
        world.exec(&supervisor, HERMES, &["/bin/sh", "-ec", &format!("cd /opt/data; {text}")]).ok();
    };
    let shim = |words: &[&str]| {
        let all = [&["/bin/sh", "/opt/hermes-exec-shim.sh"][..], words].concat();
        world.exec(&supervisor, 0, &all)
    };
    plant("mkdir -p 'profiles/--all' 'profiles/x roots'; for it in profiles/*; do : >\"$it/SOUL.md\"; done");
    for (text, code) in [
        ("echo --all >active_profile", 1),
        ("echo 'default roots' >active_profile", 1),
        ("ln -s /etc/secret active_profile", 0),
        ("mkfifo active_profile", 0),
        ("mkdir active_profile", 0),
        ("echo default >active_profile", 0),
    ] {
        plant(&format!("rm -rf active_profile; {text}"));
        world.ctl(&["start", "default"]).ok();
        let stopped = shim(&["gateway", "stop"]);
        assert_eq!(stopped.code, code, "{text}: {stopped:?}");
        assert!(!format!("{stopped:?}").contains("first-line-of-roots"), "{text}: {stopped:?}");
        assert_eq!(world.state("default"), if code == 0 { "down" } else { "up" }, "{text}");
    }
    shim(&["gateway", "stop", "--all"]).ok();
    assert_eq!(world.state("roots"), "up");
    assert_eq!(shim(&["chat"]).ok(), "the real one: chat\n");
}
