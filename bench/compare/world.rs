//! A world: the place in which one supervisor runs. Fresh pid, mount, cgroup, ipc and uts namespaces, a root directory of
//! its own with the system's programs, a cgroup2 mount of its own that may be written, `/run` in memory unless the ground is
//! another, and the FIFO of the test service. Everything is gone when it is dropped.
//!
//! The namespaces are made by `adversary world`, as for the host tests; `bench/run` has put the harness into a mount
//! namespace of its own, so that the mounts of a run that is killed go with it.

use crate::clock;
use crate::events::{self, Events};
use crate::ground::Ground;
use crate::options::Options;
use crate::process;
use crate::record::{COMPLAINTS, Kind, Record};
use rustix::event::PollFlags;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::{Pid, PidfdFlags, Signal};
use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The test service, inside.
pub const SERVICE: &str = "/bench/service";

/// hermes-sup, and the one that it is compared with, inside.
pub const HERMES: &str = "/bench/hermes-sup";
pub const AGAINST: &str = "/bench/against";

/// Services of a world that can be made to crash, each through a FIFO of its own.
pub const CRASHERS: usize = 8;

/// What must happen sooner or later, happens within this time, or the cell is given up.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Inodes that are made and removed before a supervisor starts on a disk: as many as a boot of a thousand services made.
const HISTORY: usize = 2000;

/// A root directory with the programs of the comparison in it.
pub struct Layout {
    dir: tempfile::TempDir,
    pub root: PathBuf,
}

impl Layout {
    /// # Errors
    /// As of std::fs.
    pub fn new(options: &Options) -> io::Result<Self> {
        // The path is short: the control sockets of the peers lie below it, and 107 bytes are all there is (unix(7)).
        let dir = tempfile::Builder::new().prefix("hsb").rand_bytes(4).tempdir_in(&options.work)?;
        let root = dir.path().join("r");
        std::fs::create_dir_all(root.join("bench"))?;
        let programs = [
            (Some(&options.service), SERVICE),
            (Some(&options.hermes), HERMES),
            (options.against.as_ref(), AGAINST),
        ];
        for (from, to) in programs {
            if let Some(from) = from {
                place(from, &root.join(to.trim_start_matches('/')))?;
            }
        }
        if let Some(dinit) = &options.dinit {
            for name in ["dinit", "dinitctl"] {
                place(&dinit.join(name), &root.join("bench").join(name))?;
            }
        }
        // Where it was built for, and first in the PATH of the world.
        if let Some(s6) = &options.s6 {
            std::fs::create_dir(root.join("bench/s6"))?;
            for program in std::fs::read_dir(s6)?.flatten().filter(|entry| entry.path().is_file()) {
                place(&program.path(), &root.join("bench/s6").join(program.file_name()))?;
            }
        }
        Ok(Self { dir, root })
    }

    /// What it lies in, for what is beside the root.
    pub fn outside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn path(&self, inside: &str) -> PathBuf {
        self.root.join(inside.trim_start_matches('/'))
    }

    /// # Errors
    /// As of std::fs.
    pub fn write(&self, inside: &str, content: &str, mode: u32) -> io::Result<()> {
        let path = self.path(inside);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&path, content)?;
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
    }
}

pub struct World {
    layout: Layout,
    ground: Ground,
    pub cgroup: PathBuf,
    pub events: Events,
    adversary: PathBuf,
    /// `adversary world`, and its reports.
    outer: Option<(Child, BufReader<ChildStdout>)>,
    /// PID 1 of the world, as seen outside.
    pub first: i32,
}

impl World {
    pub fn new(options: &Options) -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let layout = Layout::new(options)?;
        let root = layout.root.clone();
        for inside in
            ["dev", "proc", "sys/fs/cgroup", "etc", "run", "root", "tmp", "opt/data", "bench", "var/log"]
        {
            std::fs::create_dir_all(root.join(inside))?;
        }
        for name in ["bin", "sbin", "lib", "lib32", "lib64"] {
            if let Ok(target) = std::fs::read_link(Path::new("/").join(name)) {
                symlink(target, root.join(name))?;
            }
        }
        for name in ["ld.so.cache", "ld.so.conf"] {
            let _ = std::fs::copy(Path::new("/etc").join(name), root.join("etc").join(name));
        }
        std::fs::write(
            root.join("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n",
        )?;
        std::fs::write(root.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n")?;
        if options.ground == Ground::Disk {
            remove_many(&root.join("run"))?;
        } else {
            let mode = Some(c"mode=755,nr_inodes=0");
            rustix::mount::mount("tmpfs", root.join("run"), "tmpfs", MountFlags::empty(), mode)?;
        }
        let events = Events::make(&root.join("bench/events"))?;
        for id in 0..CRASHERS {
            events::fifo(&root.join(format!("bench/crash{id}")))?;
        }
        let id = format!("hermes-sup-bench.{}.{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let cgroup = cgroup_mount()?.join(id);
        std::fs::create_dir(&cgroup)?;
        let (ground, adversary) = (options.ground, options.adversary.clone());
        Ok(Self { layout, ground, cgroup, events, adversary, outer: None, first: 0 })
    }

    fn sandbox(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.adversary);
        command.arg(verb).arg("--cgroup").arg(&self.cgroup).args(["--capabilities", "all"]);
        command
            .env_clear()
            .env("PATH", "/bench/s6:/bench:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .env("HOME", "/root");
        command.env("LC_ALL", "C").stdin(Stdio::null()).stderr(Stdio::inherit());
        command
    }

    /// Starts `words` as the world's PID 1, its output thrown away.
    ///
    /// # Errors
    /// When the world cannot be made.
    pub fn start(&mut self, words: &[String]) -> io::Result<()> {
        let mut command = self.sandbox("world");
        command.arg("--root").arg(&self.root).args(["--cgroup-mount", "rw"]);
        let said = self.outside("said");
        command.arg("--stdout").arg("/dev/null").arg("--stderr").arg(said).arg("--").args(words);
        let mut outer = self.ground.spawning(|| command.stdout(Stdio::piped()).spawn())?;
        let mut reports = BufReader::new(outer.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?);
        let mut line = String::new();
        reports.read_line(&mut line)?;
        let pid = line.trim().strip_prefix("pid ").and_then(|pid| pid.parse().ok());
        self.first = pid.ok_or_else(|| io::Error::other(format!("no world: {line}")))?;
        self.outer = Some((outer, reports));
        Ok(())
    }

    /// A command beside the supervisor, as `docker exec` would run it. It is over when its stdout is closed.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn enter(&self, words: &[String]) -> io::Result<Child> {
        let mut command = self.sandbox("enter");
        command.args(["--target", &self.first.to_string(), "--quiet", "--"]).args(words);
        self.ground.spawning(|| command.stdout(Stdio::null()).stderr(Stdio::null()).spawn())
    }

    /// The exit code of such a command.
    ///
    /// # Errors
    /// When it cannot be started or does not end in time.
    pub fn run(&self, words: &[String], patience: Duration) -> io::Result<i32> {
        let mut child = self.enter(words)?;
        let pidfd = rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
        let deadline = clock::after(patience);
        if clock::wait_any(&[pidfd.as_fd()], PollFlags::IN, deadline).is_none() {
            child.kill()?;
            child.wait()?;
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(child.wait()?.code().unwrap_or(-1))
    }

    /// Runs the commands in turn inside, `rounds` times or, after the first round, for as long as `most`. A record of each end,
    /// with the number of the command as its id.
    ///
    /// # Errors
    /// When they cannot be run, or are not done within `patience`.
    pub fn stopwatch(
        &mut self,
        rounds: usize,
        most: Duration,
        commands: &[Vec<String>],
        patience: Duration,
    ) -> io::Result<Vec<Record>> {
        let mut words = service(&["stopwatch", &rounds.to_string(), &most.as_millis().to_string()]);
        for command in commands {
            words.push("--".into());
            words.extend_from_slice(command);
        }
        self.run(&words, patience)?;
        let mut records = Vec::new();
        loop {
            let record = self.events.next(clock::after(PATIENCE)).ok_or(io::ErrorKind::TimedOut)?;
            match record.kind {
                Kind::Ran => records.push(record),
                Kind::Done => return Ok(records),
                _ => {}
            }
        }
    }

    /// What the supervisor complained about.
    pub fn said(&self) -> String {
        end_of(&self.outside("said"), 5)
    }

    /// What the commands of the stopwatch complained about.
    pub fn complaints(&self) -> String {
        end_of(&self.path(&COMPLAINTS.to_string_lossy()), 1)
    }

    /// The supervisor as seen outside: PID 1, or where that is our `first`, its oldest child.
    pub fn supervisor(&self) -> i32 {
        if !process::is_ours(self.first) {
            return self.first;
        }
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.first));
        children.unwrap_or_default().split(' ').find_map(|pid| pid.trim().parse().ok()).unwrap_or(self.first)
    }

    pub fn signal(&self, pid: i32, signal: Signal) {
        if let Some(pid) = Pid::from_raw(pid) {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    pub fn pidfd(&self, pid: i32) -> Option<OwnedFd> {
        rustix::process::pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()
    }

    /// Waits for the end of the world's PID 1; the time of it.
    pub fn ended(&self, patience: Duration) -> Option<u64> {
        let Some(pidfd) = self.pidfd(self.first) else { return Some(clock::now()) };
        clock::wait_any(&[pidfd.as_fd()], PollFlags::IN, clock::after(patience))?;
        Some(clock::now())
    }
}

impl std::ops::Deref for World {
    type Target = Layout;

    fn deref(&self) -> &Layout {
        &self.layout
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::write(self.cgroup.join("cgroup.kill"), "1");
        if let Some((mut outer, _)) = self.outer.take() {
            let _ = outer.wait();
        }
        let deadline = clock::now() + 20_000_000_000;
        // The last step of an exit has no event: the directory goes when it can.
        while !remove_below(&self.cgroup) && clock::now() < deadline {
            std::thread::yield_now();
        }
        let _ = rustix::mount::unmount(self.root.join("run"), UnmountFlags::DETACH);
    }
}

/// Makes and removes FIFOs in a directory: ext4 gives out none of their inodes for a minute, and looks at each in turn.
fn remove_many(dir: &Path) -> io::Result<()> {
    let paths: Vec<PathBuf> = (0..HISTORY).map(|number| dir.join(format!("before-{number}"))).collect();
    paths.iter().try_for_each(|path| events::fifo(path))?;
    paths.iter().try_for_each(std::fs::remove_file)
}

/// The last lines of a file, in one, the last one first.
fn end_of(file: &Path, lines: usize) -> String {
    let text = std::fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    text.lines().rev().take(lines).collect::<Vec<_>>().join(" | ")
}

/// Removes a cgroup and what is below it; true when it is gone.
fn remove_below(cgroup: &Path) -> bool {
    for entry in std::fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&entry.path());
        }
    }
    std::fs::remove_dir(cgroup).is_ok() || !cgroup.exists()
}

/// A link where the file system allows, else a copy. Of a link to it the end.
fn place(program: &Path, target: &Path) -> io::Result<()> {
    let program = program.canonicalize()?;
    std::fs::hard_link(&program, target).or_else(|_| std::fs::copy(&program, target).map(drop))
}

pub fn cgroup_mount() -> io::Result<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    mounts
        .lines()
        .find_map(|line| {
            let (head, tail) = line.split_once(" - ")?;
            tail.starts_with("cgroup2 ").then(|| PathBuf::from(head.split(' ').nth(4).unwrap_or_default()))
        })
        .ok_or_else(|| io::Error::other("there is no cgroup2 mount"))
}

/// The command line of a mode of the test service.
pub fn service(words: &[&str]) -> Vec<String> {
    [SERVICE].iter().chain(words).map(|word| (*word).to_owned()).collect()
}
