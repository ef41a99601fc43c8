//! The s6 surface against its own user: in a scan directory that uid 10000 owns, nothing ever runs as root.

use crate::harness::setup::{ALICE, HERMES};
use crate::harness::{Answer, End, Place, Rung, Setup, Supervisor, World, wait};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::{Child, Stdio};

const SCAN: &str = "/run/service";
const TELL: &str = "/command/s6-svscanctl -a /run/service";

fn setup(rung: Rung) -> Setup {
    Setup::new(rung, Place::Pid1)
        .main_program(&["/adversary", "hold"])
        .env("HERMES_SUP_S6_SURFACE", "1")
        .env("PATH", "/opt/bin:/usr/bin:/bin")
}

/// What a shell can say of itself without a helper, where everybody can write: a word, its uid, and for a finish program
/// the slot that it is told.
fn tells(word: &str) -> String {
    let of_us = "while read -r key uid rest; do [ \"$key\" != Uid: ] || break; done </proc/self/status";
    format!("#!/bin/sh\n{of_us}\necho \"{word} $uid${{3:+ for $3}}\" >>/tmp/proof\n")
}

/// A directory with `run`, which stays, and `finish`, all of it `owner`'s.
fn slot(world: &World, path: &str, word: &str, owner: u32) {
    let run = format!("{}exec /adversary pause {}\n", tells(word), world.mark);
    for (file, text) in [("run", run), ("finish", tells(&format!("{word}-finish")))] {
        let file = world.write(&format!("{path}/{file}"), text);
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).expect("a mode");
        chown(&file, Some(owner), Some(owner)).expect("an owner");
    }
    chown(world.path(path), Some(owner), Some(owner)).expect("an owner");
}

/// What was told in /tmp/proof: no word of it by root.
#[track_caller]
fn nobody_was_root(world: &World) -> String {
    let proof = world.read("/tmp/proof");
    assert!(proof.lines().all(|line| line.split(' ').nth(1) == Some("10000")), "{proof}\n{}", world.stderr());
    let root = world.marked("pause").into_iter().find(|process| process.uid != HERMES);
    assert!(root.is_none(), "{root:?}");
    proof
}

fn as_hermes(world: &World, supervisor: &Supervisor, text: &str) -> Answer {
    world.exec(supervisor, HERMES, &["/bin/sh", "-ec", text])
}

/// Everything in /etc with its owner, mode and size.
fn etc(world: &World) -> Vec<String> {
    fn below(dir: &Path, seen: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
            let meta = entry.path().symlink_metadata().expect("an entry");
            seen.push(format!("{:?} {} {:o} {}", entry.path(), meta.uid(), meta.mode(), meta.len()));
            if meta.is_dir() {
                below(&entry.path(), seen);
            }
        }
    }
    let dir = world.path("/etc");
    let meta = dir.metadata().expect("/etc");
    let mut seen = vec![format!("{} {} {:o}", meta.uid(), meta.gid(), meta.mode())];
    below(&dir, &mut seen);
    seen.sort();
    seen
}

#[test]
fn whatever_is_planted_runs_as_its_owner_or_not_at_all() {
    let mut world = World::new(setup(Rung::Cgroup));
    slot(&world, "/opt/rootslot", "elsewhere", 0);
    let before = etc(&world);
    let supervisor = world.start();
    let root = world.root.clone();
    let at = |name: &str| root.join("run/service").join(name);
    // Root itself left a slot there, and a directory of somebody else's.
    slot(&world, &format!("{SCAN}/rooted"), "rooted", 0);
    slot(&world, &format!("{SCAN}/kept"), "kept", 0);
    slot(&world, &format!("{SCAN}/alices"), "alices", ALICE);
    slot(&world, &format!("{SCAN}/hers"), "hers", HERMES);
    chown(at("hers/run"), Some(ALICE), Some(ALICE)).expect("an owner");
    for (name, word) in
        [("planted", "planted"), ("gateway-guest", "gateway"), ("leads", "leads"), ("hard", "hard")]
    {
        slot(&world, &format!("{SCAN}/{name}"), word, HERMES);
    }
    for (path, name) in [("hard/run", "run"), ("hard/finish", "finish")] {
        std::fs::remove_file(at(path)).expect("a file");
        std::fs::hard_link(world.path(&format!("/opt/rootslot/{name}")), at(path)).expect("a link");
    }
    let plant = "cd /run/service
        mv rooted renamed
        ln -s /opt/rootslot linked
        mkdir fifo; mkfifo -m 755 fifo/run fifo/down-signal fifo/finish
        mkdir points; ln -s /opt/rootslot/run points/run; ln -s /opt/rootslot/finish points/finish
        ln -s /etc leads/supervise; ln -s /etc leads/event
        rm -r .s6-svscan; ln -s /etc .s6-svscan
        /command/s6-svscanctl -a /run/service";
    as_hermes(&world, &supervisor, plant).ok();
    let known = world.ctl(&["list"]).ok();
    for name in ["linked", "alices", "hers"] {
        assert!(known.lines().all(|line| line != name), "{name} is a service: {known}");
    }
    for told in
        ["linked: is a symbolic link", "alices: belongs to uid 10001", "hers/run: belongs to uid 10001"]
    {
        world.wait_stderr(told);
    }
    for (name, word) in [
        ("renamed", "rooted"),
        ("kept", "kept"),
        ("planted", "planted"),
        ("leads", "leads"),
        ("hard", "elsewhere"),
    ] {
        world.ctl(&["restart", name]).ok();
        wait::until(name, &world.path("/tmp"), || world.read("/tmp/proof").contains(word).then_some(()));
        world.ctl(&["stop", name]).ok();
    }
    world.ctl(&["start", "planted", "guest"]);
    for (name, state) in [("fifo", "backoff"), ("points", "up")] {
        world.ctl(&["start", name]);
        world.wait_state(name, &[state, "failed"]);
    }
    let proof = nobody_was_root(&world);
    for word in ["rooted-finish", "kept-finish", "planted-finish", "elsewhere-finish"] {
        assert!(proof.contains(word), "{word}: {proof}");
    }
    assert_eq!(supervisor.terminate(), End::Code(0));
    world.assert_no_survivors("planted");
    // The next boot finds all of it.
    let _supervisor = world.start();
    assert!(at(".s6-svscan").symlink_metadata().expect("it").is_dir());
    assert_eq!(etc(&world), before);
    nobody_was_root(&world);
}

/// Ends with its handle.
struct Exchange(Child);

impl Exchange {
    fn start(world: &World, one: &str, other: &str) -> Self {
        let words = ["/adversary", "exchange", one, other];
        let mut command = world.inside_command(HERMES, &words);
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("the adversary"))
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Between every look and every use: a slot of root's and one of the attacker's change places all the time.
#[test]
fn slots_that_are_exchanged_all_the_time_never_run_as_root() {
    // Of two services.
    const RESTARTS: usize = 100;
    let mut world = World::new(setup(Rung::Cgroup));
    let supervisor = world.start();
    slot(&world, &format!("{SCAN}/.mine"), "mine", HERMES);
    slot(&world, &format!("{SCAN}/.roots"), "roots", 0);
    as_hermes(&world, &supervisor, &format!("cd {SCAN}; mv .roots roots; mv .mine mine; {TELL}")).ok();
    for name in ["mine", "roots"] {
        world.wait_state(name, &["up"]);
    }
    let exchange = Exchange::start(&world, "/run/service/roots", "/run/service/mine");
    let restarts = format!(
        "i=0; while [ $i -lt {RESTARTS} ]; do /hermes-sup ctl restart roots mine >/tmp/said || exit; \
         [ $((i % 10)) != 0 ] || {TELL}; i=$((i+1)); done"
    );
    world.exec(&supervisor, 0, &["/bin/sh", "-c", &restarts]).ok();
    drop(exchange);
    let proof = nobody_was_root(&world);
    // Each was found under the other's name, or nothing was tried here.
    for line in ["mine-finish 10000 for roots", "roots-finish 10000 for mine"] {
        let times = proof.lines().filter(|told| *told == line).count();
        assert!(times > RESTARTS / 20, "{times} times {line}");
    }
    drop(supervisor);
}

/// A service of the image is root's as long as it is root's alone.
#[test]
fn a_service_of_the_image_that_others_can_write_runs_no_more() {
    let mut world = World::new(setup(Rung::Cgroup));
    let dir = "/etc/s6-overlay/s6-rc.d";
    for name in ["open", "closed"] {
        world.write(&format!("{dir}/user/contents.d/{name}"), "");
        world.write(&format!("{dir}/{name}/type"), "longrun\n");
        slot(&world, &format!("{dir}/{name}"), name, 0);
    }
    let supervisor = world.start();
    for name in ["open", "closed"] {
        wait::until(name, &world.path("/tmp"), || {
            world.read("/tmp/proof").contains(&format!("{name} 0")).then_some(())
        });
    }
    std::fs::set_permissions(world.path(&format!("{dir}/open/run")), PermissionsExt::from_mode(0o777))
        .expect("a mode");
    let why = world.ctl(&["restart", "open"]).fails(1);
    assert!(why.contains("no longer root's alone"), "{why}");
    world.ctl(&["restart", "closed"]).ok();
    assert_eq!(world.read("/tmp/proof").matches("open 0").count(), 1);
    assert!(!world.read("/tmp/proof").contains("open-finish"), "{}", world.read("/tmp/proof"));
    drop(supervisor);
}

/// `/run` as a tmpfs that everybody can write, where an earlier life of the gateway user has prepared the ground.
#[test]
fn what_was_prepared_in_run_leads_nowhere() {
    let mut world = World::new(setup(Rung::Cgroup));
    world.write("/etc/s6-overlay/s6-rc.d/user/contents.d/aft", "");
    world.write("/etc/s6-overlay/s6-rc.d/aft/type", "longrun\n");
    slot(&world, "/etc/s6-overlay/s6-rc.d/aft", "aft", 0);
    std::fs::set_permissions(world.path("/run"), PermissionsExt::from_mode(0o1777)).expect("a mode");
    let root = world.root.clone();
    let own = |path: &str| {
        let path = root.join(path.trim_start_matches('/'));
        std::os::unix::fs::lchown(path, Some(HERMES), Some(HERMES)).expect("an owner");
    };
    let plant = |target: &str, path: &str| {
        symlink(target, root.join(path.trim_start_matches('/'))).expect("a link");
        own(path);
    };
    world.write("/tmp/environment/LD_PRELOAD", "/tmp/evil.so");
    for dir in ["/run/s6", "/run/s6-rc"] {
        std::fs::create_dir(world.path(dir)).expect("a directory");
        own(dir);
    }
    plant("/etc", "/run/service");
    plant("/tmp/environment", "/run/s6/container_environment");
    plant("/etc", "/run/s6/basedir");
    plant("/etc", "/run/s6-rc/servicedirs");
    let before = etc(&world);
    for round in ["first", "second"] {
        let supervisor = world.start();
        assert_eq!(etc(&world), before, "{round}");
        let stat = |path: &str| {
            let meta = world.path(path).symlink_metadata().expect("it");
            (meta.is_dir(), meta.uid(), meta.mode() & 0o777)
        };
        assert_eq!(stat("/run/service"), (true, HERMES, 0o755));
        for dir in ["/run/s6", "/run/s6/basedir", "/run/s6-rc", "/run/s6-rc/servicedirs"] {
            assert_eq!(stat(dir), (true, 0, 0o755), "{round}: {dir}");
        }
        assert_eq!(stat("/run/s6/container_environment"), (true, 0, 0o750));
        assert!(!world.path("/run/s6/container_environment/LD_PRELOAD").exists());
        assert!(world.path("/run/service/aft").symlink_metadata().expect("it").is_symlink());
        assert!(!world.stderr().contains("the s6 surface is incomplete"), "{}", world.stderr());
        as_hermes(&world, &supervisor, "cd /run/s6; ! mv container_environment x 2>/dev/null; ! touch y 2>/dev/null; rm -r /run/service/.s6-svscan /run/service/aft; ln -s /etc /run/service/.s6-svscan; d=/run/service/deep; mkdir $d; cd $d; for i in 1 2 3 4 5 6 7 8 9 a b c d e f g h i j k; do mkdir d; cd d; done").ok();
        assert_eq!(supervisor.terminate(), End::Code(0));
    }
    // A link in the place of all of it.
    std::fs::remove_dir_all(world.path("/run/s6")).expect("a directory");
    plant("/tmp", "/run/s6");
    world.write("/tmp/container_environment/LD_PRELOAD", "/tmp/evil.so");
    let _supervisor = world.start();
    assert!(world.path("/run/s6").symlink_metadata().expect("it").is_dir());
    assert_eq!(world.path("/tmp").metadata().expect("it").mode() & 0o7777, 0o1777);
    assert_eq!(etc(&world), before);
}

/// `docker run --user 10000:10000`: what needs root is left out in words, and the rest works.
#[test]
fn without_root_the_surface_is_what_it_can_be() {
    for writable in [false, true] {
        let mut world = World::new(setup(Rung::KeeperSameUid));
        world.write("/etc/s6-overlay/s6-rc.d/user/contents.d/aft", "");
        world.write("/etc/s6-overlay/s6-rc.d/aft/type", "longrun\n");
        slot(&world, "/etc/s6-overlay/s6-rc.d/aft", "aft", 0);
        std::fs::create_dir(world.path("/command")).expect("a directory");
        for name in ["s6-svc", "s6-svscanctl", "s6-svstat"] {
            symlink("/hermes-sup", world.path(&format!("/command/{name}"))).expect("a link");
        }
        if writable {
            chown(world.path("/run"), Some(HERMES), Some(HERMES)).expect("an owner");
        }
        let supervisor = world.start();
        wait::until("a service of the image", &world.path("/tmp"), || {
            (!world.read("/tmp/proof").is_empty()).then_some(())
        });
        assert_eq!(world.read("/tmp/proof"), "aft 10000\n");
        let incomplete = world.stderr().contains("the s6 surface is incomplete: /run");
        assert_eq!(incomplete, !writable, "{}", world.stderr());
        let told = as_hermes(&world, &supervisor, TELL);
        if writable {
            told.ok();
            slot(&world, &format!("{SCAN}/.planted"), "planted", HERMES);
            as_hermes(&world, &supervisor, &format!("mv {SCAN}/.planted {SCAN}/gateway-planted; {TELL}; /command/s6-svstat -o up,wantedup {SCAN}/gateway-planted")).ok();
            world.wait_state("planted", &["up"]);
        } else {
            told.fails(111);
        }
        assert_eq!(supervisor.terminate(), End::Code(0));
        world.assert_no_survivors("without root");
    }
}
