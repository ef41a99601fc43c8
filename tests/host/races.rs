//! Who owns the volume races the supervisor for every name on it: `adversaries/racer.rs` puts links, FIFOs, sockets, devices,
//! directories and files of root's in their place while everything that works on them is asked for.
//!
//! What must be so: nothing outside changes owner, mode or content; no file of root's is read out; nothing that was planted runs
//! as root; the supervisor answers, goes on, and ends when it is told to. `tests/run races --budget 10m` for longer.

use crate::harness::setup::{ALICE, HERMES};
use crate::harness::{Dice, End, Place, Rung, Setup, Supervisor, World, process, wait};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// How long the host tier races, and how long one world is raced in.
const SHORT: Duration = Duration::from_secs(8);
const ROUND: Duration = Duration::from_secs(10);
/// What only root can read has this in it.
const SECRET: &str = "of-root-alone-";
/// Modes of the directories of root's that lie on the volume, `.roots-0` and so on.
const ROOTS: [u32; 3] = [0o700, 0o750, 0o755];
const RACERS: u64 = 2;
/// How often a start may be refused in a row.
const STARTS: usize = 10;
/// What the supervisor may hold at most, whatever it was shown.
const MEMORY_KB: u64 = 200_000;

/// An entry as it must stay: mode, owner, group, size, and what is in it.
type Entry = (u32, u32, u32, u64, Vec<u8>);

fn entry(path: &Path) -> Entry {
    let meta = fs::symlink_metadata(path).expect("it is there");
    let content = if meta.is_file() {
        fs::read(path).expect("its content")
    } else if meta.is_dir() {
        let mut names: Vec<_> =
            fs::read_dir(path).expect("a directory").flatten().map(|it| it.file_name()).collect();
        names.sort();
        format!("{names:?}").into_bytes()
    } else {
        Vec::new()
    };
    (meta.mode(), meta.uid(), meta.gid(), if meta.is_file() { meta.len() } else { 0 }, content)
}

fn entries(path: &Path, seen: &mut BTreeMap<PathBuf, Entry>) {
    seen.insert(path.to_owned(), entry(path));
    if fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir()) {
        for below in fs::read_dir(path).expect("a directory").flatten() {
            entries(&below.path(), seen);
        }
    }
}

/// A world that is raced in, and what must not change in it.
struct Course {
    world: World,
    outside: BTreeMap<PathBuf, Entry>,
    /// Root's directories on the volume, wherever they are by now.
    roots: Vec<(File, Entry)>,
    /// What was said to hermes.
    told: String,
    surface: bool,
    /// The longest that a command took.
    longest: (Duration, String),
}

const OUTSIDE: [&str; 5] = ["root", "etc", "var", "mnt", "opt/bin"];

impl Course {
    fn lay(setup: Setup, surface: bool) -> Self {
        let world = World::new(setup.env("PATH", "/opt/bin:/usr/bin:/bin").env("HERMES_HOME", "/opt/data"));
        let mark = world.mark.clone();
        for (name, mode, content) in [("file", 0o600, SECRET), ("open", 0o644, "of root\n")] {
            let file = world.write(&format!("/root/secret/{name}"), content);
            fs::set_permissions(&file, PermissionsExt::from_mode(mode)).expect("a mode");
        }
        fs::set_permissions(world.path("/root/secret"), PermissionsExt::from_mode(0o700)).expect("a mode");
        let hermes = world.write("/opt/bin/hermes", format!("#!/bin/sh\nexec /adversary pause {mark}\n"));
        fs::set_permissions(hermes, PermissionsExt::from_mode(0o755)).expect("a mode");
        let quick = "[stop]\ntimeout = \"500ms\"\n[restart]\nbackoff = { initial = \"10ms\", max = \"50ms\" }\nlimit = \"none\"\n";
        let small = "[log]\nmax_size = 4096\nkeep = 3\n";
        let floods = format!("while :; do /adversary flood 100 60; done # {mark}");
        world.define(
            "flood",
            &format!(
                "command = [\"/bin/sh\", \"-c\", {floods:?}]\nenv_file = \"?/opt/data/.env\"\n{quick}{small}"
            ),
        );
        let alices = format!("command = [\"/bin/sh\", \"-c\", {floods:?}]\nuser = \"alice\"\n{quick}{small}");
        world.define("alices", &alices);
        let aged = "[health]\nkind = \"file-age\"\npath = \"/opt/data/services/own.toml\"\nmax_age = \"1h\"\ninterval = \"20ms\"\naction = \"mark\"\n";
        world.adversary("aged", "pause", &format!("{quick}{aged}"));
        let own = format!("command = [\"/adversary\", \"pause\", {mark:?}]\n{quick}");
        world.write_as_hermes("/opt/data/services/own.toml", own);
        for profile in ["coder", "writer"] {
            world.write_as_hermes(&format!("/opt/data/profiles/{profile}/SOUL.md"), "soul");
        }
        world.write_as_hermes("/opt/data/.env", "A=1\n");
        world.write_as_hermes("/opt/data/logs/gateways/.keep", "");
        world.write_as_hermes("/opt/data/s6/job/run", "#!/bin/sh\nexec sleep 1\n");
        let mut course = Self {
            world,
            outside: BTreeMap::new(),
            roots: Vec::new(),
            told: String::new(),
            surface,
            longest: Default::default(),
        };
        course.load();
        for place in OUTSIDE {
            entries(&course.world.path(place), &mut course.outside);
        }
        course
    }

    /// What only root could have put on the volume: second names of its files, devices, directories.
    fn load(&mut self) {
        let world = &self.world;
        let dir = world.path("/opt/data/.ammunition");
        fs::create_dir(&dir).expect("a directory");
        chown(&dir, Some(HERMES), Some(HERMES)).expect("an owner");
        for number in 0..RACERS {
            for (name, of) in
                [("secret", "/root/secret/file"), ("open", "/root/secret/open"), ("users", "/etc/passwd")]
            {
                fs::hard_link(world.path(of), dir.join(format!("{name}-{number}"))).expect("a second name");
            }
            let device = dir.join(format!("zero-{number}"));
            let (kind, mode) =
                (rustix::fs::FileType::CharacterDevice, rustix::fs::Mode::from_raw_mode(0o666));
            rustix::fs::mknodat(rustix::fs::CWD, &device, kind, mode, rustix::fs::makedev(1, 5))
                .expect("a device");
        }
        for place in ["", "profiles", "logs", "logs/gateways", "services"] {
            for (number, mode) in ROOTS.into_iter().enumerate() {
                let dir = world.path(&format!("/opt/data/{place}")).join(format!(".roots-{number}"));
                fs::create_dir(&dir).expect("a directory");
                let file = dir.join("file");
                fs::write(&file, SECRET).expect("a file");
                fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).expect("a mode");
                fs::set_permissions(&dir, PermissionsExt::from_mode(mode)).expect("a mode");
                let seen = entry(&dir);
                self.roots.push((File::open(&dir).expect("it"), seen));
            }
        }
    }

    fn racers(&self, dice: &mut Dice) -> Vec<Child> {
        let place = if self.surface { "/run/service" } else { "/opt/data/profiles" };
        let start = |number: u64| {
            let seed = format!("{}{number}", dice.roll(1 << 20));
            let words =
                ["/adversary", "race", &seed, "/opt/data/.ammunition", "/opt/data", "/opt/data", place];
            let mut command = self.world.inside_command(HERMES, &words);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a racer")
        };
        (0..RACERS).map(start).collect()
    }

    /// Something that makes the supervisor work on the volume.
    fn ask(&mut self, dice: &mut Dice, supervisor: &Supervisor) {
        let mark = self.world.mark.clone();
        let for_all: [&[&str]; 12] = [
            &["start", "coder", "--timeout", "1s"],
            &["stop", "coder"],
            &["restart", "flood", "alices", "--timeout", "1s"],
            &["start", "own", "--timeout", "1s"],
            &["stop", "own"],
            &["start", "writer", "--timeout", "1s"],
            &["stop", "writer"],
            &["unregister", "recorded"],
            &["register", "recorded", "--", "/adversary", "pause", &mark],
            &["register", "profile", "--profile", "/opt/data/profiles/writer"],
            &["status", "coder"],
            &["logs", "flood", "coder", "own", "-n", "20"],
        ];
        let for_root: [&[&str]; 7] = [
            &["reload"],
            &["reload", "--restart"],
            &["upgrade"],
            &["once", "aged"],
            &["audit"],
            &["set", "coder", "nofile=512", "--persist"],
            &["healthcheck"],
        ];
        let for_shell: [&[&str]; 4] = [
            &["/hermes-sup", "import", "/opt/data/s6", "--to", "/tmp/imported"],
            &["/hermes-sup", "check", "/opt/data/services"],
            &["/command/s6-svscanctl", "-an", "/run/service"],
            &["/command/s6-svc", "-r", "/run/service/gateway-coder"],
        ];
        let begun = Instant::now();
        let answer = match dice.roll(8) {
            0..=2 => {
                let answer = self.world.ctl_as(supervisor, HERMES, dice.pick(&for_all));
                self.told.push_str(&format!("{}{}", answer.out, answer.err));
                answer
            }
            3 | 4 => self.world.ctl(dice.pick(&for_all)),
            5 | 6 => self.world.ctl(dice.pick(&for_root)),
            _ => {
                let count = if self.surface { for_shell.len() } else { 2 };
                self.world.inside_answer(dice.pick(&for_shell[..count]))
            }
        };
        self.longest = self.longest.clone().max((begun.elapsed(), answer.asked.clone()));
        assert!(!answer.err.contains("panicked"), "{answer:?}");
        // Nobody waits for what hermes does.
        self.answers();
    }

    /// The supervisor answers. On a machine that is busier than `ctl` is patient, `ctl` asks again.
    #[track_caller]
    fn answers(&self) {
        wait::until("the supervisor to answer", Path::new("/"), || {
            (self.world.ctl(&["list"]).code == 0).then_some(())
        });
    }

    /// What only shows while it goes on.
    #[track_caller]
    fn is_safe(&self, supervisor: &mut Supervisor) {
        assert!(supervisor.process.running(), "the supervisor has ended:\n{}", self.world.stderr());
        for process in self.world.marked("") {
            assert!([HERMES, ALICE].contains(&process.uid), "{process:?}");
        }
        let memory = process::anonymous_kb(supervisor.pid());
        assert!(memory < MEMORY_KB, "{memory} kB");
    }

    /// What has become of it.
    #[track_caller]
    fn is_as_it_was(&self) {
        let mut now = BTreeMap::new();
        for place in OUTSIDE {
            entries(&self.world.path(place), &mut now);
        }
        assert_eq!(now, self.outside, "something outside was changed");
        for (dir, then) in &self.roots {
            use std::os::fd::AsRawFd;
            let path = format!("/proc/self/fd/{}/.", dir.as_raw_fd());
            assert_eq!(
                &entry(Path::new(&path)),
                then,
                "a directory of root's: {:?}",
                fs::read_link(path.trim_end_matches("/."))
            );
        }
        let proof = self.world.read("/tmp/proof");
        assert!(proof.lines().all(|uid| uid != "0"), "what was planted ran as root: {proof}");
        assert!(!self.told.contains(SECRET), "{}", self.told);
        for output in [self.world.stderr(), self.world.stdout()] {
            assert!(!output.contains(SECRET), "{output}");
        }
        for place in ["opt/data", "run", "tmp", "dev/shm"] {
            self.holds_no_secret(&self.world.path(place));
        }
    }

    /// What others than root can read below a directory.
    #[track_caller]
    fn holds_no_secret(&self, path: &Path) {
        let Ok(meta) = fs::symlink_metadata(path) else { return };
        if meta.is_dir() {
            for below in fs::read_dir(path).into_iter().flatten().flatten() {
                self.holds_no_secret(&below.path());
            }
        } else if meta.is_file() && meta.len() < 1 << 20 && (meta.uid() != 0 || meta.mode() & 0o077 != 0) {
            let content = fs::read(path).unwrap_or_default();
            let found = content.windows(SECRET.len()).any(|part| part == SECRET.as_bytes());
            assert!(!found, "{} has a secret of root's in it", path.display());
        }
    }
}

/// How many commands were given, and which of them took the longest.
fn round(setup: Setup, surface: bool, dice: &mut Dice, lasts: Duration) -> (u64, (Duration, String)) {
    let can_be_killed = setup.place == Place::Child;
    let mut course = Course::lay(setup, surface);
    let mut supervisor = course.world.start();
    let mut racers = course.racers(dice);
    let (begun, mut asked) = (Instant::now(), 0);
    while begun.elapsed() < lasts {
        course.ask(dice, &supervisor);
        course.is_safe(&mut supervisor);
        asked += 1;
        // A start works on more names than anything else. One may be refused: then there is another.
        if can_be_killed && dice.roll(12) == 0 {
            supervisor.kill();
            let again = (0..STARTS).find_map(|_| course.world.start_if_it_lives());
            supervisor = again.unwrap_or_else(|| panic!("it does not start:\n{}", course.world.stderr()));
        }
    }
    for racer in &mut racers {
        assert!(racer.try_wait().expect("its status").is_none(), "a racer has ended");
        let _ = racer.kill();
        let _ = racer.wait();
    }
    course.answers();
    course.is_safe(&mut supervisor);
    assert_eq!(supervisor.terminate(), End::Code(0), "{}", course.world.stderr());
    course.is_as_it_was();
    (asked, course.longest)
}

#[test]
#[allow(clippy::disallowed_macros, reason = "the test harness captures it and shows it on demand")]
fn whatever_is_renamed_on_the_volume_nothing_beyond_it_changes() {
    let budget = std::env::var("HERMES_SUP_RACES").ok();
    let budget = budget.map_or(SHORT, |text| humantime::parse_duration(&text).expect("HERMES_SUP_RACES"));
    let kinds: [fn() -> (Setup, bool); 4] = [
        || (Setup::new(Rung::Keeper, Place::Child), false),
        || {
            let setup = Setup::new(Rung::Cgroup, Place::Pid1).main_program(&["/adversary", "hold"]);
            (setup.env("HERMES_SUP_S6_SURFACE", "1"), true)
        },
        || (Setup::new(Rung::Cgroup, Place::Child), false),
        || {
            let setup = Setup::new(Rung::Keeper, Place::Pid1).main_program(&["/adversary", "hold"]);
            (setup.env("HERMES_SUP_S6_SURFACE", "1"), true)
        },
    ];
    let (begun, mut dice) = (Instant::now(), Dice::new(0x5eed));
    let (mut rounds, mut asked, mut longest) = (0, 0, (Duration::ZERO, String::new()));
    while begun.elapsed() < budget {
        let (setup, surface) = kinds[rounds % kinds.len()]();
        let (more, took) = round(setup, surface, &mut dice, ROUND.min(budget / 2));
        (rounds, asked, longest) = (rounds + 1, asked + more, longest.max(took));
    }
    println!(
        "races: {rounds} worlds, {asked} commands in {} s; the longest took {:.1} s: {}",
        begun.elapsed().as_secs(),
        longest.0.as_secs_f64(),
        longest.1
    );
}
