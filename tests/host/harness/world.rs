//! A world: a root directory, a cgroup and namespaces of its own, with the rights a container of some kind would have,
//! and the supervisor in it. Everything is gone when it is dropped.

use super::ctl::{self, Answer};
use super::launch::{End, Launched};
use super::layout::{adversary_program, cgroup_mount, lay_out};
use super::process::{self, Process};
use super::setup::{HERMES, Place, Rung, Setup};
use super::traces;
use super::wait::{self, PATIENCE};
use hermes_sup::control::protocol::{Part, Request, Targets};
use rustix::process::Signal;
use serde_json::Value;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const ADVERSARY: &str = "/adversary";

pub struct World {
    pub setup: Setup,
    dir: tempfile::TempDir,
    pub root: PathBuf,
    cgroup: PathBuf,
    /// Unique to this world: the last word of every command line that a test wants to count.
    pub mark: String,
    /// The PID 1 that only reaps, where the supervisor is not to be it.
    holder: Option<Launched>,
    /// A process inside, as seen outside; 0 before there is one.
    latest_pid: i32,
}

/// A running supervisor.
pub struct Supervisor {
    pub process: Launched,
}

impl World {
    /// Lays out the root directory and the cgroup; nothing runs yet.
    pub fn new(mut setup: Setup) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "the host tier makes namespaces and mounts: run it as root"
        );
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let id = format!("{}.{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = tempfile::Builder::new().prefix("hermes-sup-").tempdir().expect("a temporary directory");
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).expect("its mode");
        let root = dir.path().join("root");
        lay_out(&root);
        traces::ask_for(&mut setup, &root);
        let cgroup = cgroup_mount().join(format!("hermes-sup-test.{id}"));
        std::fs::create_dir(&cgroup).expect("a cgroup for the world");
        Self { setup, dir, root, cgroup, mark: format!("mark-{id}-"), holder: None, latest_pid: 0 }
    }

    /// A world with its supervisor running in it.
    pub fn started(setup: Setup) -> (Self, Supervisor) {
        let mut world = Self::new(setup);
        let supervisor = world.start();
        (world, supervisor)
    }

    // ---- files ----

    /// A path of the world as seen outside. Where the world has mounts of its own, through one of its processes.
    pub fn path(&self, inside: &str) -> PathBuf {
        let pid = self.latest_pid;
        let is_mounted = !self.setup.world.is_empty() || inside.starts_with("/dev");
        let base = if !is_mounted || pid == 0 {
            self.root.clone()
        } else {
            PathBuf::from(format!("/proc/{pid}/root"))
        };
        base.join(inside.trim_start_matches('/'))
    }

    /// A path outside the world's root, for pipes and images.
    pub fn outside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, inside: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(inside);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        std::fs::write(&path, content).expect("a file");
        path
    }

    /// The same, owned by the user of the volume.
    pub fn write_as_hermes(&self, inside: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.write(inside, content);
        let home = self.path("/opt/data");
        chown(&path, Some(HERMES), Some(HERMES)).expect("an owner");
        for level in path.ancestors().take_while(|level| level.starts_with(&home)) {
            chown(level, Some(HERMES), Some(HERMES)).expect("an owner");
        }
        path
    }

    pub fn read(&self, inside: &str) -> String {
        let bytes = std::fs::read(self.path(inside)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    // ---- definitions ----

    /// A definition in the system's directory: root's, so it may name a user.
    pub fn define(&self, name: &str, definition: &str) -> &Self {
        self.write(&format!("/etc/hermes-sup/services/{name}.toml"), definition);
        self
    }

    /// A service that runs an adversary, marked. `rest` is what follows the command in the definition.
    pub fn adversary(&self, name: &str, words: &str, rest: &str) -> &Self {
        let mut argv: Vec<String> = vec![ADVERSARY.into()];
        argv.extend(words.split_whitespace().map(str::to_owned));
        argv.push(self.mark.clone());
        self.define(name, &format!("command = {argv:?}\n{rest}\n"))
    }

    // ---- the supervisor ----

    fn launcher(&self, verb: &str) -> Command {
        let mut command = Command::new(adversary_program());
        command.arg(verb).arg("--cgroup").arg(self.cgroup.join(&self.setup.cgroup));
        if verb == "world" {
            let usual = if self.setup.rung == Rung::Cgroup { "rw" } else { "ro" };
            let mount = self.setup.cgroup_mount.unwrap_or(usual);
            command.arg("--root").arg(&self.root).args(["--cgroup-mount", mount]);
            command.args(&self.setup.world);
        }
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", "/root");
        command
    }

    /// What the container's engine gives everything in it, `docker exec` too.
    fn rights(&self) -> &'static [&'static str] {
        match (self.setup.bare, self.setup.rung) {
            (true, _) => &["--capabilities", "all"],
            (false, Rung::CgroupPrivate | Rung::Pidns) => &[],
            (false, Rung::Cgroup | Rung::Keeper | Rung::KeeperSameUid) => &["--seccomp"],
        }
    }

    /// Adds the rights of the rung and the streams of the supervisor.
    fn as_supervisor(&self, command: &mut Command) {
        command.args(self.rights()).args(&self.setup.launcher);
        if self.setup.rung == Rung::KeeperSameUid {
            command.args(["--uid", &HERMES.to_string()]);
        }
        command.arg("--stdout").arg(self.setup.stdout.clone().unwrap_or_else(|| self.outside("stdout")));
        command.arg("--stderr").arg(self.outside("stderr"));
        command.envs(self.setup.environment.iter().map(|(key, value)| (key, value)));
    }

    /// Starts the supervisor without waiting for it to answer.
    pub fn launch(&mut self) -> Launched {
        let mut command = match self.setup.place {
            Place::Pid1 => self.launcher("world"),
            Place::Child => {
                let holder = self.hold();
                let mut command = self.launcher("enter");
                command.args(["--target", &holder.to_string()]);
                command
            }
        };
        self.as_supervisor(&mut command);
        let usual = if self.setup.place == Place::Pid1 || !self.setup.main_program.is_empty() {
            "init"
        } else {
            "run"
        };
        let verb = self.setup.verb.unwrap_or(usual);
        command.args(["--", "/hermes-sup", verb]).args(&self.setup.supervisor);
        if !self.setup.main_program.is_empty() {
            command.arg("--").args(&self.setup.main_program);
        }
        let process = Launched::start(command);
        self.latest_pid = self.holder.as_ref().map_or(process.pid, |holder| holder.pid);
        process
    }

    /// Starts the supervisor and waits until it answers.
    pub fn start(&mut self) -> Supervisor {
        let mut process = self.launch();
        process.wait_exec();
        let mut supervisor = Supervisor { process };
        wait::until("the supervisor to answer", &self.path("/run/hermes-sup"), || {
            assert!(supervisor.process.running(), "the supervisor ended at once:\n{}", self.stderr());
            self.answers().then_some(())
        });
        supervisor
    }

    /// The same, of one that may be killed before it answers: `None`.
    pub fn start_if_it_lives(&mut self) -> Option<Supervisor> {
        let mut process = self.launch();
        process.wait_exec();
        let mut supervisor = Supervisor { process };
        wait::until("the supervisor to answer or to end", &self.path("/run/hermes-sup"), || {
            (!supervisor.process.running() || self.answers()).then_some(())
        });
        supervisor.process.running().then_some(supervisor)
    }

    /// The PID 1 that only reaps; returns its pid outside.
    fn hold(&mut self) -> i32 {
        if self.holder.is_none() {
            let mut command = self.launcher("world");
            command.args(["--", ADVERSARY, "hold"]);
            let mut holder = Launched::start(command);
            holder.wait_exec();
            self.holder = Some(holder);
        }
        self.holder.as_ref().expect("a holder").pid
    }

    /// Makes the world's namespaces and mounts before any supervisor, so that `path` leads into them.
    pub fn prepare(&mut self) {
        self.latest_pid = self.hold();
    }

    /// Starts a command in the world without any supervisor, its stdout in the file of the world.
    pub fn run_alone(&mut self, words: &[&str]) -> Launched {
        let holder = self.hold();
        let mut command = self.launcher("enter");
        command.args(["--target", &holder.to_string()]);
        command.arg("--stdout").arg(self.outside("stdout")).arg("--stderr").arg(self.outside("stderr"));
        command.arg("--").args(words);
        let mut process = Launched::start(command);
        process.wait_exec();
        process
    }

    /// Kills everything in the world's cgroup, PID 1 too, the kernel's way.
    pub fn cgroup_kill(&self) {
        std::fs::write(self.cgroup.join("cgroup.kill"), "1").expect("cgroup.kill");
    }

    /// Everything in the world stands still, PID 1 too, or goes on, as by `docker pause` and `docker unpause`.
    pub fn freeze(&self, frozen: bool) {
        let number = u8::from(frozen);
        std::fs::write(self.cgroup.join("cgroup.freeze"), number.to_string()).expect("cgroup.freeze");
        wait::until("the world to be frozen or thawed", &self.cgroup, || {
            let events = std::fs::read_to_string(self.cgroup.join("cgroup.events")).expect("cgroup.events");
            events.contains(&format!("frozen {number}\n")).then_some(())
        });
    }

    /// The command that starts the supervisor as PID 1 on whatever terminal it is itself started on.
    pub fn on_a_terminal(&mut self) -> Command {
        let mut command = self.launcher("world");
        command.args(["--tty", "--quiet", "--seccomp", "--", "/hermes-sup", "init"]);
        command.args(&self.setup.supervisor).arg("--").args(&self.setup.main_program).env("TERM", "dumb");
        command
    }

    /// Makes a cgroup beside the supervisor's for the next one to start in.
    pub fn move_to_cgroup(&mut self, name: &str) {
        std::fs::create_dir_all(self.cgroup.join(name)).expect("a cgroup");
        self.setup.cgroup = name.to_owned();
    }

    /// Runs a command inside the world beside the supervisor, as `docker exec` would, to its end.
    pub fn exec(&self, beside: &Supervisor, uid: u32, words: &[&str]) -> Answer {
        assert!(beside.process.pid > 0);
        self.inside(PATIENCE, uid, words)
    }

    /// The same without a supervisor that has answered yet, as root.
    pub fn inside_answer(&self, words: &[&str]) -> Answer {
        self.inside(PATIENCE, 0, words)
    }

    fn inside(&self, patience: Duration, uid: u32, words: &[&str]) -> Answer {
        Answer::of(self.inside_command(uid, words), patience)
    }

    /// The command that does it, for those that do not end by themselves.
    pub fn inside_command(&self, uid: u32, words: &[&str]) -> Command {
        let mut command = self.launcher("enter");
        command.args(["--target", &self.latest_pid.to_string(), "--quiet", "--uid", &uid.to_string()]);
        command.args(self.rights()).arg("--");
        command.args(words);
        command
    }

    /// `ctl` as another user, inside.
    pub fn ctl_as(&self, beside: &Supervisor, uid: u32, words: &[&str]) -> Answer {
        let mut command = vec!["/hermes-sup", "ctl"];
        command.extend_from_slice(words);
        self.exec(beside, uid, &command)
    }

    pub fn socket(&self) -> PathBuf {
        let usual = self.path("/run/hermes-sup/control.sock");
        if usual.exists() { usual } else { self.path("/opt/data/supervisor/control.sock") }
    }

    /// `ctl` as root.
    pub fn ctl(&self, words: &[&str]) -> Answer {
        self.ctl_within(PATIENCE, words)
    }

    /// Asked from outside over the shared socket, so that it outlives the world's PID 1; from inside where the client
    /// itself opens files.
    pub fn ctl_within(&self, patience: Duration, words: &[&str]) -> Answer {
        if matches!(words.first(), Some(&"logs" | &"status")) {
            let mut command = vec!["/hermes-sup", "ctl"];
            command.extend_from_slice(words);
            return self.inside(patience, 0, &command);
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_hermes-sup"));
        command.arg("ctl").arg("--socket").arg(self.socket()).args(words).env_remove("HERMES_SUP_SOCKET");
        Answer::of(command, patience)
    }

    // ---- what the supervisor says ----

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.outside("stderr")).unwrap_or_default()).into_owned()
    }

    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.outside("stdout")).unwrap_or_default()).into_owned()
    }

    #[track_caller]
    pub fn wait_stderr(&self, text: &str) {
        wait::until(&format!("{text:?} on stderr"), self.dir.path(), || {
            self.stderr().contains(text).then_some(())
        });
    }

    #[track_caller]
    pub fn wait_stdout(&self, text: &str) {
        wait::until(&format!("{text:?} on stdout"), self.dir.path(), || {
            self.stdout().contains(text).then_some(())
        });
    }

    /// The documents of `ctl events --json`.
    #[track_caller]
    pub fn events(&self) -> Vec<Value> {
        let lines = self.ctl(&["events", "--json"]).ok();
        lines.lines().map(|line| serde_json::from_str(line).expect("a document a line")).collect()
    }

    /// Whether a supervisor answers.
    pub fn answers(&self) -> bool {
        ctl::ask(&self.socket(), &Request::List {}).is_ok()
    }

    /// Services, as `ctl --json status` has them.
    #[track_caller]
    pub fn statuses(&self, targets: Targets) -> Vec<Value> {
        let parts = ctl::ask(&self.socket(), &Request::Status { targets }).expect("an answer");
        let services = parts.into_iter().filter_map(|part| match part {
            Part::Service(service) => Some(serde_json::to_value(service).expect("a document")),
            _ => None,
        });
        services.collect()
    }

    /// The one service `name`.
    #[track_caller]
    pub fn status(&self, name: &str) -> Value {
        let mut services = self.statuses(Targets::Names(vec![name.to_owned()]));
        assert_eq!(services.len(), 1, "{name}: {services:?}");
        services.remove(0)
    }

    #[track_caller]
    pub fn state(&self, name: &str) -> String {
        self.status(name)["state"].as_str().unwrap_or_default().to_owned()
    }

    #[track_caller]
    pub fn want(&self, name: &str) -> String {
        self.status(name)["want"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until `name` is in one of these states; returns its status.
    #[track_caller]
    pub fn wait_state(&self, name: &str, states: &[&str]) -> Value {
        wait::within(PATIENCE, self.dir.path(), || {
            let status = self.status(name);
            states.contains(&status["state"].as_str()?).then_some(status)
        })
        .unwrap_or_else(|| panic!("{name} never became {states:?}: {}\n{}", self.status(name), self.stderr()))
    }

    /// Waits until the health of `name` is this; returns its status.
    #[track_caller]
    pub fn wait_health(&self, name: &str, health: &str) -> Value {
        wait::within(PATIENCE, self.dir.path(), || {
            let status = self.status(name);
            (status["health"]["state"] == health).then_some(status)
        })
        .unwrap_or_else(|| panic!("{name} never {health}: {}\n{}", self.status(name), self.stderr()))
    }

    /// Nobody listens at this address now.
    pub fn free_address() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("its address").to_string()
    }

    // ---- logs of services ----

    pub fn log_dir(&self, name: &str) -> PathBuf {
        self.path(&format!("/opt/data/logs/gateways/{name}"))
    }

    /// Everything the service's log files hold, oldest first.
    pub fn log(&self, name: &str) -> String {
        let dir = self.log_dir(name);
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(&dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        files.retain(|file| {
            file.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with('@') || n == "current")
        });
        // TAI64N labels sort by time, and '@' sorts before 'c'.
        files.sort();
        files
            .iter()
            .map(|file| String::from_utf8_lossy(&std::fs::read(file).unwrap_or_default()).into_owned())
            .collect()
    }

    /// The lines of the service's log without time and stream.
    pub fn log_lines(&self, name: &str) -> Vec<String> {
        self.log(name).lines().map(|line| line.get(31..).unwrap_or(line).to_owned()).collect()
    }

    #[track_caller]
    pub fn wait_log(&self, name: &str, text: &str) {
        self.wait_log_times(name, text, 1);
    }

    /// Waits until `text` stands in the service's log at least `times` times.
    #[track_caller]
    pub fn wait_log_times(&self, name: &str, text: &str, times: usize) {
        let dir = self.log_dir(name);
        wait::within(PATIENCE, &dir, || (self.log(name).matches(text).count() >= times).then_some(()))
            .unwrap_or_else(|| {
                panic!(
                    "no {text:?} × {times} in the log of {name}:\n{}\nsupervisor:\n{}",
                    self.log(name),
                    self.stderr()
                )
            });
    }

    // ---- oracles ----

    /// PID 1 of the world, as seen outside, where the supervisor is not it.
    pub fn holder_pid(&self) -> i32 {
        self.holder.as_ref().map_or(0, |holder| holder.pid)
    }

    fn namespace_of(&self, supervisor: &Supervisor) -> PathBuf {
        let pid = self.holder.as_ref().map_or(supervisor.process.pid, |holder| holder.pid);
        process::pid_namespace(pid).expect("the world's pid namespace")
    }

    /// Every process of the world.
    pub fn processes(&self, supervisor: &Supervisor) -> Vec<Process> {
        process::in_namespace(&self.namespace_of(supervisor))
    }

    /// Processes alive whose command line carries the world's mark and, if given, `word` as one of its words.
    pub fn marked(&self, word: &str) -> Vec<Process> {
        process::marked(&self.mark)
            .into_iter()
            .filter(|process| word.is_empty() || process.command.split(' ').any(|each| each == word))
            .collect()
    }

    /// No process of any service of this world is alive, in any namespace.
    #[track_caller]
    pub fn assert_no_survivors(&self, when: &str) {
        let left = self.marked("");
        assert!(
            left.is_empty(),
            "{when}: {} survivors, such as {:?}\n{}",
            left.len(),
            left.first(),
            self.stderr()
        );
    }

    #[track_caller]
    pub fn assert_no_survivors_named(&self, word: &str) {
        assert!(self.marked(word).is_empty(), "{:?}", self.marked(word));
    }

    #[track_caller]
    pub fn assert_no_zombies(&self, supervisor: &Supervisor) {
        // The reaping of what has just died is one wake-up away: give it that.
        let left = wait::within(Duration::from_secs(5), Path::new("/"), || {
            let zombies =
                self.processes(supervisor).into_iter().filter(|process| process.state == 'Z').count();
            (zombies == 0).then_some(())
        });
        assert!(left.is_some(), "zombies stay unreaped: {:?}", self.processes(supervisor));
    }

    /// Whatever carries `word` stands still; returns it.
    ///
    /// The kernel counts a thread as frozen or stopped a moment before that thread leaves its processor for the last
    /// time (cgroup_enter_frozen() and do_signal_stop() both come before schedule()), so the first looks may differ. What
    /// runs differs every time: it would have to be given no processor during two round trips to the supervisor in a
    /// row, which needs one itself.
    #[track_caller]
    pub fn assert_stands(&self, word: &str, what: &str) -> Vec<Process> {
        const LOOKS: usize = 8;
        let mut seen = Vec::new();
        for _ in 0..LOOKS {
            let processes = self.marked(word);
            seen.push(process::turns(&processes));
            if let [.., first, second, third] = seen.as_slice()
                && first == second
                && second == third
            {
                return processes;
            }
            self.ctl(&["list"]).ok();
        }
        panic!("{what} ran while it was frozen: {seen:#?}\n{}", self.stderr());
    }

    /// The pids in the world's own cgroup, without those below it.
    pub fn cgroup_pids(&self) -> Vec<i32> {
        let text = std::fs::read_to_string(self.cgroup.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Directories that the supervisor has made below the world's cgroup.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        fn below(dir: &Path, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    below(&entry.path(), found);
                    found.push(entry.path());
                }
            }
        }
        let mut found = Vec::new();
        below(&self.cgroup, &mut found);
        found
    }
}

impl Supervisor {
    pub fn pid(&self) -> i32 {
        self.process.pid
    }

    pub fn terminate(mut self) -> End {
        self.process.signal(Signal::TERM);
        self.process.wait()
    }

    pub fn kill(mut self) -> End {
        self.process.signal(Signal::KILL);
        self.process.wait()
    }

    #[track_caller]
    pub fn ends(&mut self) -> End {
        self.process.wait()
    }
}

impl Drop for World {
    #[allow(clippy::disallowed_macros, reason = "the test harness captures it and shows it on demand")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = self.stderr();
            let from = said.lines().count().saturating_sub(40);
            let last: Vec<&str> = said.lines().skip(from).collect();
            eprintln!("the supervisor's last lines:\n{}", last.join("\n"));
        }
        // Supervisors end with their own handle; this ends the rest of the world with its PID 1.
        self.holder.take();
        let kill = self.cgroup.join("cgroup.kill");
        let _ = std::fs::write(kill, "1");
        wait::within(Duration::from_secs(10), Path::new("/"), || {
            for dir in self.cgroups() {
                let _ = std::fs::remove_dir(dir);
            }
            (std::fs::remove_dir(&self.cgroup).is_ok() || !self.cgroup.exists()).then_some(())
        });
        traces::take(&self.root, &self.mark);
    }
}
