//! The owner of the volume may plant, rename and link there what he likes: he must gain nothing by it.

use crate::harness::setup::{ALICE, HERMES};
use crate::harness::{End, Setup, World, wait};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

fn own(path: &Path, uid: u32) {
    std::os::unix::fs::lchown(path, Some(uid), Some(uid)).expect("an owner");
}

/// A directory that only root may read, with one file in it.
fn secret_place(world: &World) -> std::path::PathBuf {
    let file = world.write("/root/secret/file", "SECRET=of-root\n");
    for path in [file.parent().expect("a directory"), &file] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o700)).expect("a mode");
    }
    file
}

fn entries(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .expect("a directory")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn a_state_directory_that_is_a_link_is_not_followed() {
    let mut world = World::new(Setup::plain());
    let secret = secret_place(&world);
    let link = world.path("/opt/data/supervisor");
    symlink("/root/secret", &link).expect("a link");
    own(&link, HERMES);
    world.adversary("coder", "pause", "");
    let mut process = world.launch();
    // Whether it refuses to start or goes on without state is its choice; writing through the link is not.
    wait::within(wait::PATIENCE, &world.root, || {
        (!process.running() || world.ctl(&["list"]).code == 0).then_some(())
    });
    assert_eq!(entries(secret.parent().expect("a directory")), ["file"]);
    let mode = std::fs::metadata(secret.parent().expect("a directory")).expect("it").permissions().mode();
    assert_eq!(mode & 0o7777, 0o700);
    assert!(world.stderr().contains("/opt/data/supervisor"), "{}", world.stderr());
}

#[test]
fn a_planted_state_is_set_aside() {
    let mut world = World::new(Setup::plain());
    world.adversary("coder", "pause", "autostart = false");
    let supervisor = world.start();
    assert_eq!(supervisor.terminate(), End::Code(0));
    // The owner of the home renames our directory and puts a copy of his own making there, wants and all.
    let state = world.path("/opt/data/supervisor");
    std::fs::rename(&state, world.path("/opt/data/old")).expect("a rename");
    std::fs::create_dir(&state).expect("a directory");
    own(&state, HERMES);
    for entry in std::fs::read_dir(world.path("/opt/data/old")).expect("the old one").flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            let copy = state.join(entry.file_name());
            std::fs::copy(entry.path(), &copy).expect("a copy");
            own(&copy, HERMES);
        }
    }
    let mirror = std::fs::read_to_string(state.join("wants")).unwrap_or_default();
    std::fs::write(state.join("wants"), mirror.replace("down", "up")).expect("a planted mirror");
    let _supervisor = world.start();
    assert_eq!(world.want("coder"), "down", "a planted mirror is not believed");
    assert!(world.stderr().contains("foreign"), "{}", world.stderr());
    assert_eq!(world.marked("pause").len(), 0);
    let ours = std::fs::metadata(world.path("/opt/data/supervisor")).expect("the state");
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&ours), 0, "a fresh one of our own");
}

/// Before there is a state, the owner of the home gives its name to what root keeps to itself there: that was opened for his group.
#[test]
fn a_private_directory_of_roots_with_the_name_of_the_state_stays_private() {
    for content in ["file", "state/wants"] {
        let mut world = World::new(Setup::plain());
        let file = world.write(&format!("/opt/data/supervisor/{content}"), "of root");
        std::fs::set_permissions(world.path("/opt/data/supervisor"), PermissionsExt::from_mode(0o700))
            .expect("a mode");
        for _ in 0..2 {
            assert_eq!(world.start().terminate(), End::Code(0));
            let names = entries(&world.path("/opt/data"));
            let aside: Vec<_> = names.iter().filter(|name| name.starts_with("supervisor.foreign-")).collect();
            assert_eq!(aside.len(), 1, "{names:?}\n{}", world.stderr());
            let meta = std::fs::metadata(world.path(&format!("/opt/data/{}", aside[0]))).expect("it");
            use std::os::unix::fs::MetadataExt;
            assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o700, 0, 0), "{content}");
            assert!(!file.exists() && world.path("/opt/data/supervisor/state.redb").exists());
        }
        assert!(world.stderr().contains("it holds no state, but something else"), "{}", world.stderr());
    }
}

/// While we run, too: the directory is held by descriptor, not by name.
#[test]
fn a_state_directory_renamed_under_us_changes_nothing() {
    let mut world = World::new(Setup::plain());
    let secret = secret_place(&world);
    world.adversary("coder", "pause", "");
    let supervisor = world.start();
    world.ctl(&["wait", "coder", "--up"]).ok();
    let state = world.path("/opt/data/supervisor");
    std::fs::rename(&state, world.path("/opt/data/old")).expect("a rename");
    symlink("/root/secret", &state).expect("a link");
    let _ = world.ctl(&["stop", "coder"]);
    let _ = world.ctl(&["start", "coder"]);
    assert_eq!(supervisor.terminate(), End::Code(0));
    assert_eq!(entries(secret.parent().expect("a directory")), ["file"]);
}

#[test]
fn nothing_under_home_names_a_user() {
    let mut world = World::new(Setup::plain());
    for user in ["root", "alice"] {
        let definition =
            format!("command = [\"/adversary\", \"print-ids\", {:?}]\nuser = {user:?}\n", world.mark);
        world.write_as_hermes(&format!("/opt/data/services/as-{user}.toml"), definition);
    }
    let definition = format!("command = [\"/adversary\", \"pause\", {:?}]\n", world.mark);
    world.write_as_hermes("/opt/data/services/honest.toml", definition);
    // Owned by root, but in a directory of somebody else's, who could have put any of root's files there.
    let rooted = world.write_as_hermes(
        "/opt/data/services/rooted.toml",
        "command = [\"/adversary\", \"print-ids\"]\nuser = \"root\"\n",
    );
    own(&rooted, 0);
    let template = format!("command = [\"/adversary\", \"print-ids\", {:?}]\nuser = \"root\"\n", world.mark);
    world.write_as_hermes("/opt/data/services/gateway.toml", template);
    world.write_as_hermes("/opt/data/profiles/coder/SOUL.md", "soul");
    let _supervisor = world.start();
    world.ctl(&["wait", "honest", "--up"]).ok();
    let _ = world.ctl(&["start", "coder"]);
    let _ = world.ctl(&["start", "as-root"]);
    let _ = world.ctl(&["reload"]);
    for process in world.marked("") {
        assert_eq!(process.uid, HERMES, "{process:?}");
    }
    assert!(world.marked("print-ids").iter().all(|process| process.uid == HERMES));
    for name in ["as-root", "as-alice", "rooted"] {
        assert!(world.stderr().contains(&format!("{name}.toml")), "{name} is reported: {}", world.stderr());
    }
}

#[test]
fn a_system_definition_that_others_can_write_is_not_believed() {
    let mut world = World::new(Setup::plain());
    for (name, mode, owner) in [("loose", 0o666, 0), ("theirs", 0o644, HERMES), ("good", 0o644, 0)] {
        let definition =
            format!("command = [\"/adversary\", \"print-ids\", {:?}]\nuser = \"alice\"\n", world.mark);
        let path = world.write(&format!("/etc/hermes-sup/services/{name}.toml"), definition);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("a mode");
        own(&path, owner);
    }
    let _supervisor = world.start();
    world.ctl(&["wait", "good", "--up"]).ok();
    world.wait_log("good", "ready");
    assert_eq!(
        world.marked("print-ids").iter().filter(|each| each.uid == ALICE).count(),
        1,
        "{}",
        world.stderr()
    );
    for name in ["loose", "theirs"] {
        assert!(world.stderr().contains(&format!("{name}.toml")), "{}", world.stderr());
    }
}

#[test]
fn an_env_file_is_read_with_the_users_own_eyes() {
    let mut world = World::new(Setup::plain());
    secret_place(&world);
    let link = world.path("/opt/data/.env");
    symlink("/root/secret/file", &link).expect("a link");
    own(&link, HERMES);
    let definition = format!(
        "command = [\"/adversary\", \"print-env\", {:?}]\nenv_file = \"/opt/data/.env\"\nautostart = false\n",
        world.mark
    );
    world.write_as_hermes("/opt/data/services/curious.toml", definition);
    let _supervisor = world.start();
    let answer = world.ctl(&["start", "curious"]);
    assert!(!world.log("curious").contains("of-root"), "{}", world.log("curious"));
    assert!(!format!("{answer:?}{}", world.stderr()).contains("of-root"), "not in a message either");
}

#[test]
fn links_under_logs_lead_nowhere() {
    let mut world = World::new(Setup::plain());
    let secret = secret_place(&world);
    world.write_as_hermes("/opt/data/logs/gateways/file-link/.keep", "");
    let file_link = world.path("/opt/data/logs/gateways/file-link/current");
    let dir_link = world.path("/opt/data/logs/gateways/dir-link");
    symlink("/root/secret/file", &file_link).expect("a link");
    symlink("/root/secret", &dir_link).expect("a link");
    own(&file_link, HERMES);
    own(&dir_link, HERMES);
    world
        .adversary("file-link", "tick 5", "")
        .adversary("dir-link", "tick 5", "")
        .adversary("honest", "tick 5", "");
    let _supervisor = world.start();
    world.wait_log("honest", "tick 10");
    for name in ["file-link", "dir-link"] {
        // Up, a bad log notwithstanding.
        world.wait_state(name, &["up"]);
    }
    assert_eq!(std::fs::read_to_string(&secret).expect("the secret"), "SECRET=of-root\n");
    assert_eq!(entries(secret.parent().expect("a directory")), ["file"]);
}

#[test]
fn odd_files_in_place_of_definitions_hang_nothing() {
    let mut world = World::new(Setup::plain());
    std::fs::create_dir_all(world.path("/opt/data/services")).expect("a directory");
    let fifo = world.path("/opt/data/services/fifo.toml");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o666),
        0,
    )
    .expect("a fifo");
    symlink("/dev/zero", world.path("/opt/data/services/endless.toml")).expect("a link");
    symlink("loop.toml", world.path("/opt/data/services/loop.toml")).expect("a link");
    std::fs::create_dir(world.path("/opt/data/services/directory.toml")).expect("a directory");
    let huge = std::fs::File::create(world.path("/opt/data/services/huge.toml")).expect("a file");
    huge.set_len(4 << 30).expect("a sparse file");
    for level in ["/opt/data/services", "/opt/data/services/huge.toml"] {
        own(&world.path(level), HERMES);
    }
    rustix::fs::mknodat(
        rustix::fs::CWD,
        world.write("/opt/data/logs/gateways/piped/.keep", "").with_file_name("current"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o666),
        0,
    )
    .expect("a fifo");
    for level in ["logs", "logs/gateways", "logs/gateways/piped", "logs/gateways/piped/current"] {
        chown(world.path(&format!("/opt/data/{level}")), Some(HERMES), Some(HERMES)).expect("an owner");
    }
    world.adversary("piped", "tick 5", "").adversary("honest", "tick 5", "");
    let supervisor = world.start();
    world.wait_log("honest", "tick 10");
    world.ctl(&["reload"]);
    world.ctl(&["restart", "piped"]).ok();
    assert!(crate::harness::process::anonymous_kb(supervisor.pid()) < 200_000);
    assert_eq!(supervisor.terminate(), End::Code(0));
}

/// A service sees its container's socket and may ask, but only for what is its due.
#[test]
fn a_service_of_another_user_gains_nothing_by_asking() {
    let mut world = World::new(Setup::plain());
    world.adversary("roots", "pause", "user = \"root\"");
    let script = "for words in 'shutdown' 'reload' 'stop roots' 'kill roots KILL' 'unregister roots' \
                  'register evil --user root -- /bin/sh'; do \
                  /hermes-sup ctl $words >/dev/null 2>&1; echo \"$words: $?\"; done; echo asked; exec sleep 1000";
    world.define("asker", &format!("command = [\"/bin/sh\", \"-c\", {script:?}, {:?}]\n", world.mark));
    let mut supervisor = world.start();
    world.wait_log("asker", "asked");
    for line in world.log_lines("asker").iter().filter(|line| line.contains(": ")) {
        assert!(line.ends_with(": 6"), "{line}");
    }
    assert!(supervisor.process.running());
    assert_eq!(world.state("roots"), "up");
    assert!(!world.ctl(&["list"]).ok().contains("evil"));
}

/// A profile's service runs as the user that the template names: to register one is not a way to become that user.
#[test]
fn a_profile_is_registered_only_for_whom_gateways_run_as() {
    let mut world = World::new(Setup::plain());
    world.define(
        "gateway",
        &format!("command = [\"/adversary\", \"pause\", {:?}]\nuser = \"root\"\n", world.mark),
    );
    let supervisor = world.start();
    for uid in [HERMES, 10001] {
        let words =
            ["/hermes-sup", "ctl", "register", "evil", "--env", "LD_PRELOAD=/tmp/x", "--profile", "/tmp/p"];
        let answer = world.exec(&supervisor, uid, &words);
        assert_ne!(answer.code, 0, "{answer:?}");
    }
    assert!(!world.ctl(&["list"]).ok().contains("evil"));
    assert_eq!(world.marked("pause").len(), 0);
}

/// A malformed template takes nothing away: gateways and what is wanted of them stay.
#[test]
fn a_malformed_template_forgets_no_gateway() {
    let mut world = World::new(Setup::plain());
    world.adversary("other", "pause", "");
    let gateway = format!("command = [\"/adversary\", \"pause\", {:?}]\n", world.mark);
    world.define("gateway", &gateway);
    let profile = world.path("/opt/data/profiles/coder");
    std::fs::create_dir_all(&profile).expect("a profile");
    std::fs::write(profile.join("SOUL.md"), "").expect("its mark");
    let _supervisor = world.start();
    world.ctl(&["start", "coder"]).ok();
    world.ctl(&["stop", "coder"]).ok();
    world.define("gateway", "command = 3\n");
    assert_eq!(world.ctl(&["reload"]).code, 1);
    assert_eq!((world.want("coder").as_str(), world.state("coder").as_str()), ("down", "down"));
    world.define("gateway", &gateway);
    world.ctl(&["reload"]).ok();
    assert!(world.ctl(&["list"]).ok().contains("coder"));
}

/// The client looks at who answers before it says anything.
#[test]
fn a_client_tells_a_stranger_nothing() {
    let mut world = World::new(Setup::plain());
    world.adversary("impostor", "impostor /tmp/fake.sock", "user = \"alice\"");
    let supervisor = world.start();
    world.wait_log("impostor", "ready");
    for uid in [0, HERMES] {
        let answer =
            world.exec(&supervisor, uid, &["/hermes-sup", "ctl", "--socket", "/tmp/fake.sock", "list"]);
        assert_ne!(answer.code, 0, "{answer:?}");
        assert!(answer.err.contains("10001"), "it says whose it is: {answer:?}");
    }
    world.ctl(&["stop", "impostor"]).ok();
    assert!(!world.log("impostor").contains("asked"), "{}", world.log("impostor"));
}
