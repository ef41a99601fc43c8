//! The durable state when the disk, a neighbour or a stranger is unkind to it.

use crate::harness::setup::HERMES;
use crate::harness::{Answer, End, Place, Rung, Setup, Supervisor, World, wait};
use rustix::process::Signal;
use serde_json::json;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, Instant};

const STATE: &str = "/opt/data/supervisor";

#[test]
fn the_state_directory_is_closed_to_others() {
    for rung in [Rung::Cgroup, Rung::KeeperSameUid] {
        let (world, _supervisor) = World::started(Setup::new(rung, Place::Child));
        let dir = std::fs::metadata(world.path(STATE)).expect("the state directory");
        let file = std::fs::metadata(world.path("/opt/data/supervisor/state.redb")).expect("the database");
        let owner = if rung == Rung::Cgroup { 0 } else { HERMES };
        assert_eq!((dir.mode() & 0o7777, dir.uid(), dir.gid()), (0o750, owner, HERMES));
        assert_eq!((file.mode() & 0o7777, file.uid(), file.gid()), (0o640, owner, HERMES));
    }
}

#[test]
fn a_corrupt_database_is_set_aside_and_the_wants_come_back() {
    for damage in [&b"not a database at all"[..], &[0u8; 65536], b""] {
        let mut world = World::new(Setup::plain());
        world.adversary("up", "pause", "autostart = false").adversary("down", "pause", "");
        let supervisor = world.start();
        world.ctl(&["start", "up"]).ok();
        world.ctl(&["stop", "down"]).ok();
        assert_eq!(supervisor.terminate(), End::Code(0));
        // Written through, so that owner and mode stay what the supervisor left.
        std::fs::write(world.path("/opt/data/supervisor/state.redb"), damage).expect("damage");
        let _supervisor = world.start();
        world.ctl(&["wait", "up", "--up"]).ok();
        assert_eq!((world.want("up"), world.want("down")), ("up".into(), "down".into()));
        let aside = std::fs::read_dir(world.path(STATE)).expect("the state").flatten().any(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let time = name.strip_prefix("state.redb.corrupt-").map(str::to_owned);
            time.is_some_and(|time| time.parse::<u64>().is_ok())
        });
        assert!(aside || damage.is_empty(), "set aside under its name");
        assert!(world.stderr().contains("corrupt") || damage.is_empty(), "{}", world.stderr());
        let status = world.ctl(&["status"]);
        assert!(
            format!("{}{}", status.out, status.err).contains("rebuilt") || damage.is_empty(),
            "{status:?}"
        );
    }
}

#[test]
fn a_second_supervisor_is_refused_by_name() {
    let mut world = World::new(Setup::plain());
    world.adversary("coder", "pause", "");
    let first = world.start();
    world.ctl(&["wait", "coder", "--up"]).ok();
    let inner = world.ctl(&["--json", "status"]).json()["supervisor"]["pid"].clone();
    let refused = world.exec(&first, 0, &["/hermes-sup", "run", "--socket", "/tmp/second.sock"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.contains(&inner.to_string()), "its pid {inner}: {}", refused.err);
    let host = rustix::system::uname();
    assert!(refused.err.contains(&*host.nodename().to_string_lossy()), "its host: {}", refused.err);
    assert!(refused.err.contains("since"), "{}", refused.err);
    assert_eq!(world.marked("pause").len(), 1);
    assert_eq!(world.state("coder"), "up");
}

/// The advice of the refusal, another --state, gave two living gateways of one profile.
#[test]
fn another_state_of_the_same_home_is_refused_too() {
    let mut world = World::new(Setup::plain());
    world.adversary("coder", "pause", "");
    let first = world.start();
    world.ctl(&["wait", "coder", "--up"]).ok();
    let words = ["/hermes-sup", "run", "--state", "/tmp/state", "--socket", "/tmp/second.sock"];
    let refused = world.exec(&first, 0, &words);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.err.contains("use another --home") && !refused.err.contains("--state"),
        "{}",
        refused.err
    );
    assert_eq!(world.marked("pause").len(), 1);
    // Nor the other way round.
    assert_eq!(first.terminate(), End::Code(0));
    world.setup.supervisor.extend(["--state".to_owned(), "/tmp/state".to_owned()]);
    let first = world.start();
    world.ctl(&["wait", "coder", "--up"]).ok();
    assert_eq!(world.exec(&first, 0, &["/hermes-sup", "run", "--socket", "/tmp/second.sock"]).code, 1);
    assert_eq!(world.marked("pause").len(), 1);
}

/// `docker pause`, a suspended machine, NFS: the second supervisor was stopped while it looked at the lock of the first. Its
/// patience was over when it went on, so it said "does not answer" and started everything a second time.
#[test]
fn a_second_supervisor_that_is_paused_at_the_lock_starts_nothing() {
    let mut world = World::new(Setup::plain());
    world.adversary("coder", "pause", "");
    let _first = world.start();
    world.ctl(&["wait", "coder", "--up"]).ok();
    let mut second = world.run_alone(&["/hermes-sup", "run", "--socket", "/tmp/second.sock"]);
    let tasks = format!("/proc/{}/task", second.pid);
    wait::until("its store to look at the lock, for half a second", &world.root, || {
        let mut names = std::fs::read_dir(&tasks).ok()?.flatten().map(|task| task.path().join("comm"));
        names.any(|comm| std::fs::read_to_string(comm).is_ok_and(|name| name == "store\n")).then_some(())
    });
    second.signal(Signal::STOP);
    // Longer than a start waits for its disk: there is nothing else that could be waited for.
    wait::within(Duration::from_secs(6), &world.root, || None::<()>);
    second.signal(Signal::CONT);
    assert_eq!(second.wait(), End::Code(1));
    assert!(world.stderr().contains("is in use by another supervisor"), "{}", world.stderr());
    assert_eq!(world.marked("pause").len(), 1);
}

/// kubelet, at each start of a pod with `fsGroup`.
#[test]
fn a_volume_with_fs_group_keeps_its_state() {
    let mut world = World::new(Setup::plain());
    world.prepare();
    let supervisor = world.start();
    world.ctl(&["register", "worker", "--down", "--", "/adversary", "pause"]).ok();
    assert_eq!(supervisor.terminate(), End::Code(0));
    let script =
        format!("chgrp -R {HERMES} $0 && chmod -R g+rwX $0 && find $0 -type d -exec chmod g+s {{}} +");
    let done =
        std::process::Command::new("/bin/sh").args(["-c", &script]).arg(world.path("/opt/data")).status();
    assert!(done.is_ok_and(|status| status.success()));
    let _supervisor = world.start();
    assert_eq!(world.ctl(&["list"]).ok().lines().collect::<Vec<_>>(), ["worker"]);
    assert_eq!(world.stderr().matches("fsGroup").count(), 1, "{}", world.stderr());
    let aside = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().contains("foreign");
    assert!(!std::fs::read_dir(world.path("/opt/data")).expect("home").flatten().any(aside));
}

/// An attack of hermes, which owns the home, on what an operator has stopped: it moves the state away, before the stop and after.
#[test]
fn hermes_does_not_undo_a_stop_of_root_by_moving_the_state_away() {
    let mut world = World::new(Setup::plain());
    world.adversary("rootjob", "pause", "user = \"root\"");
    let mut supervisor = world.start();
    world.ctl(&["wait", "rootjob", "--up"]).ok();
    let hides = |world: &World, supervisor: &Supervisor| {
        let script =
            "mv $0 /opt/data/.cache; ! mv /opt/data/.cache /opt/data/logs/ && ! rm -rf /opt/data/.cache";
        world.exec(supervisor, HERMES, &["/bin/sh", "-c", script, STATE]).ok();
        assert!(!world.path(STATE).exists());
    };
    // While it runs: the stop is recorded where the next boot looks.
    hides(&world, &supervisor);
    world.ctl(&["stop", "rootjob"]).ok();
    world.wait_stderr("was moved or removed while it was in use");
    supervisor.kill();
    supervisor = world.start();
    assert_eq!(world.want("rootjob"), "down");
    // Afterwards, so that the next boot finds none, or one of hermes's own.
    hides(&world, &supervisor);
    world.exec(&supervisor, HERMES, &["/bin/sh", "-c", "mkdir -p $0/private", STATE]).ok();
    supervisor.kill();
    let supervisor = world.start();
    assert_eq!((world.want("rootjob"), world.marked("pause").len()), ("down".to_owned(), 0));
    assert!(world.stderr().contains("had renamed it to /opt/data/.cache"), "{}", world.stderr());
    drop(supervisor);
}

/// Root had made a copy of the state before it stopped a service. hermes gave the copy the name of the state, and the service was up
/// after the next boot without a word. An empty directory of root's did as well.
#[test]
fn hermes_does_not_undo_a_stop_of_root_by_an_older_state() {
    let mut world = World::new(Setup::plain());
    world.adversary("rootjob", "pause", "user = \"root\"");
    let mut supervisor = world.start();
    world.ctl(&["wait", "rootjob", "--up"]).ok();
    let root = "cp -a $0 /opt/data/backup; mkdir -m 700 /opt/data/empty";
    world.exec(&supervisor, 0, &["/bin/sh", "-ec", root, STATE]).ok();
    world.ctl(&["stop", "rootjob"]).ok();
    for older in ["/opt/data/backup", "/opt/data/empty"] {
        let exchange = ["/bin/sh", "-ec", "mv $0 /opt/data/away; mv $1 $0", STATE, older];
        world.exec(&supervisor, HERMES, &exchange).ok();
        supervisor.kill();
        supervisor = world.start();
        assert_eq!((world.want("rootjob"), world.marked("pause").len()), ("down".to_owned(), 0), "{older}");
        assert!(world.stderr().contains("was not the state that was used last"), "{}", world.stderr());
        assert!(!world.path("/opt/data/away").exists());
    }
    // Root goes back to an older state where it has removed the newer one.
    supervisor.kill();
    let root = "rm -r $0; rmdir $0.older-*/private 2>/dev/null || :; rmdir $0.older-* 2>/dev/null || :; mv $0.older-* $0";
    world.inside_answer(&["/bin/sh", "-ec", root, STATE]).ok();
    let _supervisor = world.start();
    assert_eq!(world.want("rootjob"), "up");
}

/// However much hermes puts beside the state that it hides.
#[test]
fn hermes_does_not_undo_a_stop_of_root_behind_a_flood_of_directories() {
    let home = ["--tmpfs", "/opt/data", "mode=755,uid=10000,gid=10000"];
    let mut world = World::new(Setup::plain().world_option(&home));
    world.adversary("rootjob", "pause", "user = \"root\"");
    let mut supervisor = world.start();
    world.ctl(&["wait", "rootjob", "--up"]).ok();
    let flood = "cd /opt/data; seq 120000 | xargs mkdir; mv $0 .cache";
    world.exec(&supervisor, HERMES, &["/bin/sh", "-ec", flood, STATE]).ok();
    // What takes too long fails, and says so.
    wait::until("the stop to be recorded", &world.root, || {
        let answer = world.ctl(&["stop", "rootjob"]);
        assert!(answer.code == 0 || answer.err.contains("not recorded"), "{answer:?}");
        (answer.code == 0).then_some(())
    });
    for hidden in ["/opt/data/.cache", "/opt/data/.config"] {
        supervisor.kill();
        supervisor = world.start();
        assert_eq!((world.want("rootjob"), world.marked("pause").len()), ("down".to_owned(), 0), "{hidden}");
        world.exec(&supervisor, HERMES, &["/bin/mv", STATE, "/opt/data/.config"]).ok();
    }
    assert!(world.stderr().contains("had renamed it to /opt/data/.config"), "{}", world.stderr());
}

#[test]
fn another_main_program_runs_beside_the_holder_of_the_state() {
    let mut world = World::new(Setup::plain());
    world.adversary("coder", "pause", "");
    let first = world.start();
    world.ctl(&["wait", "coder", "--up"]).ok();
    let beside = world.exec(
        &first,
        0,
        &["/hermes-sup", "init", "--socket", "/tmp/second.sock", "--", "/bin/sh", "-c", "echo chat; exit 42"],
    );
    assert_eq!(beside.code, 42, "{beside:?}");
    assert_eq!(beside.out, "chat\n");
    assert!(beside.err.contains("supervisor"), "one line says so: {}", beside.err);
    assert_eq!(world.marked("pause").len(), 1);
}

#[test]
fn read_only_state_runs_what_is_defined_and_says_so() {
    let mut world = World::new(Setup::plain().world_option(&["--read-only", STATE]));
    std::fs::create_dir_all(world.root.join("opt/data/supervisor")).expect("a directory");
    world.adversary("up", "pause", "").adversary("down", "pause", "autostart = false");
    let _supervisor = world.start();
    world.ctl(&["wait", "up", "--up"]).ok();
    assert!(!world.ctl(&["start", "down"]).fails(1).is_empty());
    assert_eq!(world.state("down"), "down", "what cannot be recorded is not begun");
    assert!(world.ctl(&["stop", "up"]).fails(1).contains("stopped, but not recorded"));
    world.assert_no_survivors("stop acts all the same");
    let status = world.ctl(&["--json", "status"]).json();
    assert_ne!(status["supervisor"]["warnings"], json!([]), "{status}");
}

#[test]
fn a_full_state_disk_never_keeps_a_service_running() {
    let mut world = World::new(Setup::plain().world_option(&["--tmpfs", STATE, "size=8m,mode=750"]));
    std::fs::create_dir_all(world.root.join("opt/data/supervisor")).expect("a directory");
    for count in 0..5 {
        world.adversary(&format!("s{count}"), "pause", "");
    }
    let _supervisor = world.start();
    world.ctl(&["wait", "--all", "--up"]).ok();
    let _ = std::fs::write(world.path("/opt/data/supervisor/filler"), vec![0u8; 16 << 20]);
    let full = std::fs::write(world.path("/opt/data/supervisor/more"), vec![0u8; 8192]);
    assert!(full.is_err(), "the disk is full");
    for count in 0..5 {
        let stopped = world.ctl(&["stop", &format!("s{count}")]);
        let unrecorded = stopped.code == 1 && stopped.err.contains("stopped, but not recorded");
        assert!(stopped.code == 0 || unrecorded, "{stopped:?}");
        assert_eq!(world.marked("pause").len(), 4 - count);
    }
    // An answer of success is a promise, also on a full disk: see that it is one for starts too.
    let started = world.ctl(&["start", "s0"]);
    assert!(started.code == 0 || (started.code == 1 && !started.err.is_empty()), "{started:?}");
    assert_eq!(world.state("s0") == "up", started.code == 0);
}

/// A world whose home is an ext4 image, which can be made to hang. `features` as `mkfs.ext4 -O` takes them.
fn on_a_disk_of_its_own(images: &tempfile::TempDir, features: &str) -> World {
    let image = images.path().join("disk");
    std::fs::File::create(&image).and_then(|file| file.set_len(64 << 20)).expect("an image");
    let made =
        std::process::Command::new("mkfs.ext4").args(["-q", "-F", "-O", features]).arg(&image).status();
    assert!(made.is_ok_and(|status| status.success()), "mkfs.ext4 is needed here");
    let mut world =
        World::new(Setup::plain().world_option(&["--disk", "/opt/data", &image.to_string_lossy()]));
    world.prepare();
    std::os::unix::fs::chown(world.path("/opt/data"), Some(HERMES), Some(HERMES)).expect("an owner");
    world
}

/// How many commits of the journal of the world's disk somebody has waited for, as with fsync(2): jbd2's own count.
fn journal_commits(world: &World) -> u64 {
    let mounts = std::fs::read_to_string(format!("/proc/{}/mounts", world.holder_pid())).expect("its mounts");
    let device = mounts.lines().find_map(|line| line.split_once(" /opt/data ")?.0.strip_prefix("/dev/"));
    let info = format!("/proc/fs/jbd2/{}-8/info", device.expect("a loop device"));
    let info = std::fs::read_to_string(&info).expect("a journal");
    let requested = info.split_once('(').and_then(|(_, rest)| rest.split_once(" requested"));
    requested.and_then(|(count, _)| count.parse().ok()).expect("a count")
}

/// A start took longer the more services there were: pages of the database that had never been written, and a file that shrank and
/// grew, took each commit through the journal, with the log directories of all the others in it.
#[test]
fn a_command_waits_for_nothing_that_others_have_in_the_journal() {
    let images = tempfile::tempdir().expect("a directory");
    let mut world = on_a_disk_of_its_own(&images, "has_journal");
    for n in 0..20 {
        world.adversary(&format!("s{n}"), "pause", "");
    }
    let _supervisor = world.start();
    world.ctl(&["wait", "--all", "--up"]).ok();
    world.wait_log("s19", "ready");
    // That of a new one is written a second after the boot: to lseek(2) it is a hole until then.
    let state = world.path("/opt/data/supervisor");
    let database = std::fs::File::open(state.join("state.redb")).expect("a database");
    wait::until("a database without a place that is only reserved", &state, || {
        let hole = rustix::fs::seek(&database, rustix::fs::SeekFrom::Hole(0)).expect("a place");
        (hole == database.metadata().expect("its length").len()).then_some(())
    });
    let home = std::fs::File::open(world.path("/opt/data")).expect("home");
    rustix::fs::syncfs(&home).expect("what the boot made is on the disk");
    let before = journal_commits(&world);
    for n in 0..20 {
        let name = format!("s{n}");
        world.ctl(&["stop", &name]).ok();
        world.ctl(&["start", &name]).ok();
    }
    let commits = journal_commits(&world) - before;
    assert!(commits <= 2, "{commits} of the commits of forty commands went through the journal");
}

/// The marker of a planned stop cannot be written then; the stop signal goes without it.
#[test]
fn a_hung_disk_delays_the_stop_signal_of_a_gateway_by_a_second_at_most() {
    let images = tempfile::tempdir().expect("a directory");
    let mut world = on_a_disk_of_its_own(&images, "^has_journal");
    let mark = world.mark.clone();
    let template =
        format!("command = [\"/adversary\", \"wait-signal\", \"{mark}\"]\n[stop]\ntimeout = \"75s\"\n");
    world.define("gateway", &template);
    world.write_as_hermes("/opt/data/profiles/coder/SOUL.md", "soul");
    let mut supervisor = world.start();
    world.ctl(&["start", "coder"]).ok();
    world.wait_log("coder", "ready");
    let disk = Frozen::freeze(world.path("/opt/data"));
    let began = Instant::now();
    let stopped = world.ctl(&["stop", "coder"]);
    assert!(world.marked("").is_empty(), "{stopped:?}");
    assert!(stopped.code == 1 && stopped.err.contains("stopped, but not recorded"), "{stopped:?}");
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    assert_eq!(world.status("coder")["last_exit"]["code"], json!(0), "by the signal, not by the kill");
    world.wait_stderr("coder: it may take this stop for an accident");
    drop(disk);
    assert!(supervisor.process.running());
}

/// A disk that hangs: an ext4 image whose file system is frozen, so that every write to it waits.
#[test]
fn a_hung_disk_delays_a_stop_by_two_seconds_at_most() {
    let images = tempfile::tempdir().expect("a directory");
    let mut world = on_a_disk_of_its_own(&images, "^has_journal");
    world.adversary("wood", "tree 5", "[stop]\ntimeout = \"100ms\"").adversary("clock", "tick 10", "");
    let mut supervisor = world.start();
    world.wait_log("wood", "ready");
    world.wait_log("clock", "tick 3");
    let disk = Frozen::freeze(world.path("/opt/data"));
    let began = Instant::now();
    let stopped = world.ctl(&["stop", "wood"]);
    assert!(world.marked("tree").is_empty(), "{stopped:?}");
    assert!(stopped.code == 1 && stopped.err.contains("stopped, but not recorded"), "{stopped:?}");
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    assert_ne!(world.ctl(&["status", "clock"]).code, 5, "answers while the disk hangs");
    let refused = world.ctl(&["start", "wood", "--timeout", "1s"]);
    assert_ne!(refused.code, 0, "what is not recorded is not acknowledged: {refused:?}");
    drop(disk);
    assert!(supervisor.process.running());
    // Once the disk is back, everything works again.
    wait::until("stop to be recorded again", &world.root, || {
        (world.ctl(&["stop", "wood"]).code == 0).then_some(())
    });
    world.assert_no_survivors_named("tree");
}

/// Thaws when dropped, or nothing that has touched the disk could ever end.
struct Frozen(std::path::PathBuf);

impl Frozen {
    fn freeze(path: std::path::PathBuf) -> Self {
        let status = std::process::Command::new("fsfreeze").arg("-f").arg(&path).status();
        assert!(status.is_ok_and(|status| status.success()), "fsfreeze is needed here");
        Self(path)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = std::process::Command::new("fsfreeze").arg("-u").arg(&self.0).status();
    }
}

#[test]
fn an_unwritable_run_directory_moves_the_socket_to_the_state() {
    let (world, _supervisor) = World::started(Setup::new(Rung::KeeperSameUid, Place::Pid1));
    assert!(world.socket().ends_with("opt/data/supervisor/control.sock"));
    let found: Answer = {
        let supervisor = &_supervisor;
        world.exec(supervisor, HERMES, &["/hermes-sup", "ctl", "list"])
    };
    found.ok();
    let mode = std::fs::metadata(world.socket()).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o007, 0, "{mode:o}");
}
