//! Where the supervisor's names are: FIFOs, keepers' sockets, the roster. In memory, where there is any.
//!
//! On ext4 the loop made a FIFO in the time of the journal, and behind a history of deletions it took three quarters of a boot.

use crate::harness::{End, Place, Rung, Setup, Supervisor, World, wait};
use rustix::fs::inotify;
use rustix::process::Signal;
use serde_json::json;
use std::collections::{BTreeSet, HashMap};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

crate::on_every_rung!(nothing_is_made_or_removed_on_the_disk);

/// What is made, moved and removed below a world's root, which is all on one disk. Mounts of the world are not seen from here.
struct Watched {
    inotify: OwnedFd,
    dirs: HashMap<i32, PathBuf>,
}

impl Watched {
    fn new(root: &Path) -> Self {
        let inotify =
            inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).expect("inotify");
        let mut watched = Self { inotify, dirs: HashMap::new() };
        watched.add(root, Path::new("/"));
        watched
    }

    fn add(&mut self, dir: &Path, shown: &Path) {
        let events = inotify::WatchFlags::CREATE
            | inotify::WatchFlags::DELETE
            | inotify::WatchFlags::MOVED_FROM
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::DONT_FOLLOW;
        let watch = inotify::add_watch(&self.inotify, dir, events).expect("a watch");
        self.dirs.insert(watch, shown.to_owned());
        for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.add(&entry.path(), &shown.join(entry.file_name()));
            }
        }
    }

    /// The paths that something has happened to since the last call.
    fn paths(&self) -> BTreeSet<String> {
        let mut buffer = [MaybeUninit::uninit(); 64 * 1024];
        let mut events = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut paths = BTreeSet::new();
        while let Ok(event) = events.next() {
            assert!(!event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW), "too much to count");
            let name = event.file_name().map(|name| std::ffi::OsStr::from_bytes(name.to_bytes()));
            if let (Some(dir), Some(name)) = (self.dirs.get(&event.wd()), name) {
                paths.insert(dir.join(name).display().to_string());
            }
        }
        paths
    }
}

/// What is promised beside the database: the wants in words, renamed into place after a commit.
const MIRROR: [&str; 2] = ["/opt/data/supervisor/wants", "/opt/data/supervisor/wants.tmp"];

fn but_for(paths: BTreeSet<String>, exceptions: &[&str]) -> Vec<String> {
    paths.into_iter().filter(|path| !exceptions.contains(&path.as_str())).collect()
}

/// Starts, stops and crashes. The log directory of a service is made once, at its first start ever. A gateway has two files more, by
/// a rename as well, because Hermes reads them: `gateway_state.json` tells what is wanted of it, `.gateway-planned-stop.json` that
/// its stop is planned.
fn nothing_is_made_or_removed_on_the_disk(setup: Setup) {
    let mut world = World::new(setup);
    let quick = "[stop]\ntimeout = \"10s\"\n[restart]\nbackoff = { initial = \"1ms\" }";
    for name in ["web", "worker", "clock"] {
        world.adversary(name, "pause", quick);
    }
    let supervisor = world.start();
    for name in ["web", "worker", "clock"] {
        world.wait_log(name, "ready");
    }
    let watched = Watched::new(&world.root);
    world.ctl(&["restart", "web"]).ok();
    world.ctl(&["stop", "worker"]).ok();
    world.ctl(&["start", "worker"]).ok();
    world.wait_log_times("worker", "ready", 2);
    world.ctl(&["kill", "clock", "KILL"]).ok();
    world.wait_log_times("clock", "ready", 2);
    let want = "the mirror to follow";
    wait::until(want, &world.path("/opt/data/supervisor"), || {
        let mirror = world.read("/opt/data/supervisor/wants");
        let line = mirror.lines().find(|line| line.starts_with("worker "))?;
        line.contains(" up ").then_some(())
    });
    assert_eq!(but_for(watched.paths(), &MIRROR), Vec::<String>::new());
    // A supervisor's own start makes its control socket, however many services it has.
    end_in_order(supervisor, &world);
    let made = but_for(watched.paths(), &MIRROR);
    let control: &[&str] = &["/run/hermes-sup/control.sock", "/opt/data/supervisor/control.sock"];
    assert!(made.iter().all(|path| control.contains(&path.as_str())), "{made:?}");
    let supervisor = world.start();
    for name in ["web", "worker", "clock"] {
        world.wait_log_times(name, "ready", 3);
    }
    let made = but_for(watched.paths(), &[&MIRROR[..], control].concat());
    assert_eq!(made, Vec::<String>::new(), "at a boot");
    end_in_order(supervisor, &world);
}

fn end_in_order(supervisor: Supervisor, world: &World) {
    supervisor.process.signal(Signal::TERM);
    let mut supervisor = supervisor;
    assert_eq!(supervisor.ends(), End::Code(0), "{}", world.stderr());
}

/// The runtime directories that there are, with the place of each.
fn directories(world: &World) -> Vec<&'static str> {
    let is_ours = |dir: &Path| dir.is_dir() && dir.join("roster").exists();
    let has = |place: &str| {
        let entries = std::fs::read_dir(world.path(place));
        entries.is_ok_and(|entries| entries.flatten().any(|entry| is_ours(&entry.path())))
    };
    ["/run/hermes-sup", "/dev/shm"].into_iter().filter(|place| has(place)).collect()
}

/// What is deaf to SIGTERM would keep each end waiting for ten seconds.
const SOON: &str = "[stop]\ntimeout = \"100ms\"";

/// Lives, dies by SIGKILL, is succeeded, upgrades, ends; its names are in `place` all the while and gone at the end.
fn lives_and_ends(mut world: World, places: [&str; 2]) {
    world.adversary("clock", "tick 1", SOON).adversary("wood", "tree 5", SOON);
    let supervisor = world.start();
    world.wait_log("wood", "ready tree");
    world.ctl(&["wait", "clock", "wood", "--up"]).ok();
    assert_eq!(directories(&world), [places[0]], "{}", world.stderr());
    let pid = world.status("clock")["pid"].clone();
    assert_eq!(supervisor.kill(), End::Signal(9));
    let _ = std::fs::remove_file(world.path("/dev/shm/filler"));
    let supervisor = world.start();
    assert_eq!(world.status("clock")["pid"], pid, "it was taken over: {}", world.stderr());
    let ticks = world.log("clock").matches("tick").count();
    world.wait_log_times("clock", "tick", ticks + 10);
    assert_eq!(directories(&world), [places[0]], "FIFOs are not moved while they live");
    world.ctl(&["upgrade"]).ok();
    assert_eq!(world.status("clock")["pid"], pid);
    let ticks = world.log("clock").matches("tick").count();
    world.wait_log_times("clock", "tick", ticks + 10);
    assert_eq!(world.status("wood")["restarts"], json!(0));
    end_in_order(supervisor, &world);
    world.assert_no_survivors("after the end");
    assert!(directories(&world).is_empty(), "{:?}", directories(&world));
    let supervisor = world.start();
    world.ctl(&["wait", "clock", "wood", "--up"]).ok();
    assert_eq!(directories(&world), [places[1]], "{}", world.stderr());
    end_in_order(supervisor, &world);
}

fn setups() -> [Setup; 3] {
    [Rung::Cgroup, Rung::Keeper, Rung::KeeperSameUid].map(|rung| Setup::new(rung, Place::Child))
}

#[test]
fn in_shared_memory_where_run_is_on_a_disk() {
    for setup in setups() {
        lives_and_ends(World::new(setup), ["/dev/shm"; 2]);
    }
}

#[test]
fn in_run_where_that_is_in_memory() {
    for setup in setups().into_iter().filter(|setup| setup.rung != Rung::KeeperSameUid) {
        let world = World::new(setup.world_option(&["--tmpfs", "/run", "mode=755"]));
        lives_and_ends(world, ["/run/hermes-sup"; 2]);
    }
}

/// Little memory, memory that cannot be written, and none.
#[test]
fn beside_the_socket_where_there_is_no_memory() {
    for options in [&["--tmpfs", "/dev/shm", "size=64k,mode=1777"][..], &["--read-only", "/dev/shm"]] {
        lives_and_ends(World::new(Setup::plain().world_option(options)), ["/run/hermes-sup"; 2]);
    }
    // That anybody may give another name.
    let open = ["--tmpfs", "/dev/shm", "size=64m,mode=777"];
    lives_and_ends(World::new(Setup::plain().world_option(&open)), ["/run/hermes-sup"; 2]);
}

/// As after the upgrade of a release that knew the place beside the socket alone.
#[test]
fn a_successor_with_another_choice_goes_on_where_it_is() {
    for rung in [Rung::Cgroup, Rung::Keeper] {
        let mut world = World::new(Setup::new(rung, Place::Child));
        world.prepare();
        let mut filler = std::fs::File::create(world.path("/dev/shm/filler")).expect("a file");
        let full = std::io::copy(&mut std::io::repeat(0), &mut filler);
        assert_eq!(full.map_err(|error| error.kind()), Err(std::io::ErrorKind::StorageFull));
        drop(filler);
        lives_and_ends(world, ["/run/hermes-sup", "/dev/shm"]);
    }
}

/// One file system under two containers, as with `--ipc=host` or in a pod: neither sees the other's names, and what one leaves
/// when it is killed with its container is taken by the next on its state alone.
#[test]
fn a_container_that_is_killed_leaves_its_names_to_its_own_state() {
    let shared = tempfile::tempdir_in("/dev/shm").expect("memory");
    let option = shared.path().display().to_string();
    let setup = || Setup::new(Rung::Keeper, Place::Pid1).world_option(&["--bind", &option, "/dev/shm"]);
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(shared.path(), PermissionsExt::from_mode(0o1777)).expect("a mode");
    let names = || -> BTreeSet<_> {
        std::fs::read_dir(shared.path()).expect("it").flatten().map(|entry| entry.file_name()).collect()
    };
    let mut worlds = [World::new(setup()), World::new(setup())];
    let supervisors = worlds.each_mut().map(|world| {
        world.adversary("clock", "tick 1", "[stop]\ntimeout = \"100ms\"");
        let supervisor = world.start();
        world.wait_log("clock", "tick");
        supervisor
    });
    let both = names();
    assert_eq!(both.len(), 2, "one of each: {both:?}");
    let [first, second] = supervisors;
    assert_eq!(first.kill(), End::Signal(9));
    assert_eq!(names(), both);
    let first = worlds[0].start();
    worlds[0].wait_log_times("clock", "tick", 20);
    assert_eq!(names(), both, "the same name for the same state");
    end_in_order(first, &worlds[0]);
    assert_eq!(names().len(), 1, "what others live in stays");
    worlds[1].ctl(&["restart", "clock"]).ok();
    end_in_order(second, &worlds[1]);
    assert!(names().is_empty(), "{:?}", names());
}
