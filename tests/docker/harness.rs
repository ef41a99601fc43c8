//! What the tests of this tier stand on: the docker command with a deadline, containers and volumes that are
//! removed when they go out of scope, and waits that end on an event or on a deadline, never on a fixed sleep.
//!
//! Everything made here carries the label `hermes-sup-tests`, by which `tests/run` removes what a killed test left.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use rexpect::session::PtySession;
use serde_json::Value;

/// Beyond this a wait has failed. Generous: a slow machine is not a defect.
pub const DEADLINE: Duration = Duration::from_secs(180);

/// One way to run the image; every promise of the lifecycle holds in each.
pub struct Variant {
    pub flags: &'static [&'static str],
    /// The rung of containment this way allows, as `status` names it.
    pub rung: &'static str,
}

pub const PLAIN: Variant = Variant { flags: &[], rung: "keeper" };
pub const CGROUP_RW: Variant =
    Variant { flags: &["--cgroupns=host", "-v=/sys/fs/cgroup:/sys/fs/cgroup:rw"], rung: "cgroup" };
pub const USER_10000: Variant =
    Variant { flags: &["--user=10000:10000", "--cap-drop=ALL"], rung: "keeper-same-uid" };
pub const INIT: Variant = Variant { flags: &["--init"], rung: "keeper" };
pub const READ_ONLY: Variant = Variant { flags: &["--read-only", "--tmpfs=/run"], rung: "keeper" };

/// What a finished command left.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Outcome {
    /// The standard output of a command that must have succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:#?}");
        self.out
    }
}

/// Runs the docker command to its end, or to the deadline, which is exit code 124.
pub fn docker<S: AsRef<str>>(args: &[S]) -> Outcome {
    let output = Command::new("timeout")
        .args(["--kill-after=5", &DEADLINE.as_secs().to_string(), "docker"])
        .args(args.iter().map(AsRef::as_ref))
        .stdin(Stdio::null())
        .output()
        .expect("timeout(1) and docker are installed");
    Outcome {
        code: output.status.code().expect("timeout(1) is not killed"),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Asks again until there is an answer. Each question is a command of its own, which is pause enough.
#[track_caller]
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < DEADLINE, "never happened: {what}");
    }
}

/// One of a few stops takes less than the three seconds that s6 waits in full. A slow moment of the machine delays one of
/// them, a grace that is waited for delays each.
#[track_caller]
pub fn one_stop_is_quick(stop: impl FnMut() -> Duration) {
    let mut took = Vec::new();
    for each in std::iter::repeat_with(stop).take(3) {
        took.push(each);
        if each < Duration::from_secs(3) {
            return;
        }
    }
    panic!("{took:?}");
}

fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("hermes-sup-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// What `docker/build` has made.
fn image() -> String {
    std::env::var("HERMES_SUP_IMAGE").unwrap_or_else(|_| "hermes-sup:latest".into())
}

/// What `docker/build --binary` has made.
pub fn binary_image() -> String {
    std::env::var("HERMES_SUP_BINARY_IMAGE").unwrap_or_else(|_| "hermes-sup:binary".into())
}

/// A named volume for `/opt/data`.
pub struct Volume(String);

impl Volume {
    pub fn new() -> Self {
        let name = unique();
        docker(&["volume", "create", "--label=hermes-sup-tests", &name]).ok();
        Self(name)
    }

    /// A volume with these profiles, each wanted up by the state file that the real gateway writes.
    pub fn with_gateways(profiles: &[&str]) -> Self {
        let volume = Self::new();
        let states = profiles.iter().map(|profile| {
            format!(
                "mkdir -p profiles/{profile}; echo 'You are {profile}.' >profiles/{profile}/SOUL.md
                 echo '{{\"gateway_state\":\"running\"}}' >profiles/{profile}/gateway_state.json\n"
            )
        });
        volume.sh("hermes", &states.collect::<String>());
        volume
    }

    /// Runs a shell script in the volume as `user`, without the supervisor; returns what it printed.
    #[track_caller]
    pub fn sh(&self, user: &str, script: &str) -> String {
        Run::new()
            .volume(self)
            .flags(&["--workdir=/opt/data", "--entrypoint=sh", "--user", user])
            .cmd(&["-euc", script])
            .output()
            .ok()
    }

    /// Has the gateway of `profile` execute `python` when it starts, through the hooks that it has for its user.
    pub fn hook(&self, profile: &str, python: &str) {
        self.sh(
            "hermes",
            &format!(
                "mkdir -p profiles/{profile}/hooks/test; cd profiles/{profile}/hooks/test
                 printf 'name: test\\nevents: [\"gateway:startup\"]\\n' >HOOK.yaml
                 cat >handler.py <<'END'\n{python}\nasync def handle(event, context):\n    pass\nEND"
            ),
        );
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        docker(&["volume", "rm", "--force", &self.0]);
    }
}

/// A `docker run` in the making. No test needs a network.
pub struct Run {
    image: String,
    flags: Vec<String>,
    cmd: Vec<String>,
}

impl Run {
    pub fn new() -> Self {
        Self::of(&image())
    }

    /// A container of another image than that of Hermes.
    pub fn of(image: &str) -> Self {
        let flags = ["--network=none", "--label=hermes-sup-tests"];
        Self { image: image.to_owned(), flags: flags.map(String::from).to_vec(), cmd: Vec::new() }
    }

    pub fn variant(self, variant: &Variant) -> Self {
        self.flags(variant.flags)
    }

    pub fn volume(self, volume: &Volume) -> Self {
        self.flags(&[&format!("--volume={}:/opt/data", volume.0)])
    }

    pub fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(ToString::to_string));
        self
    }

    pub fn cmd(mut self, cmd: &[&str]) -> Self {
        self.cmd.extend(cmd.iter().map(ToString::to_string));
        self
    }

    fn args(&self, mode: &[&str]) -> Vec<String> {
        let mut args = vec!["run".to_string()];
        args.extend(mode.iter().map(ToString::to_string));
        args.extend(self.flags.iter().cloned());
        args.push(self.image.clone());
        args.extend(self.cmd.iter().cloned());
        args
    }

    /// Runs it in the foreground to its end.
    pub fn output(self) -> Outcome {
        docker(&self.args(&["--rm"]))
    }

    /// The same as a command, for a test that feeds or reads its streams itself. The container outlives a client
    /// that is killed: it ends with the guard.
    pub fn attached(self, mode: &[&str]) -> (Container, Command) {
        let name = unique();
        let mut client = Command::new("docker");
        client.args(self.args(&[&["--rm", "--name", &name], mode].concat()));
        (Container(name), client)
    }

    /// Runs a shell script as [`Self::in_terminal`].
    pub fn terminal(self, script: &str) -> (Container, PtySession) {
        self.cmd(&["sh", "-c", script]).in_terminal()
    }

    /// Runs it in a terminal of 37 rows and 123 columns, and tells at the end how the client ended.
    pub fn in_terminal(self) -> (Container, PtySession) {
        let (container, client) = self.attached(&["--interactive", "--tty"]);
        let mut command = Command::new("sh");
        command.args(["-c", "stty rows 37 cols 123; docker \"$@\"; echo client ended with $?", "sh"]);
        command.args(client.get_args());
        let deadline = DEADLINE.as_millis().try_into().expect("fits");
        (container, rexpect::session::spawn_command(command, Some(deadline)).expect("a pseudoterminal"))
    }

    /// Starts it in the background.
    pub fn detach(self) -> Container {
        let name = unique();
        docker(&self.args(&["--detach", "--name", &name])).ok();
        Container(name)
    }

    /// Starts it in the background and waits until its supervisor answers.
    pub fn supervised(self) -> Container {
        let container = self.detach();
        container.await_supervisor();
        container
    }

    /// The same for several tests, none of which may drop it: it ends with this process, however that ends.
    pub fn shared(self) -> Container {
        // What a static holds is never dropped. The end of the pipe tells the remover that we are gone.
        static REMOVERS: Mutex<Vec<Child>> = Mutex::new(Vec::new());
        let container = self.detach();
        let remover = Command::new("sh")
            .args(["-c", "cat; exec docker rm --force --volumes \"$1\"", "sh", &container.0])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C is for us alone.
            .process_group(0)
            .spawn()
            .expect("sh");
        REMOVERS.lock().expect("no test panics with it").push(remover);
        container.await_supervisor();
        container
    }
}

/// A container, removed with everything in it when dropped.
pub struct Container(String);

impl Container {
    #[track_caller]
    pub fn await_supervisor(&self) {
        eventually("the supervisor answers", || {
            let answer = self.ctl(&["list"]);
            if answer.code != 0 {
                assert_eq!(self.inspect("{{.State.Status}}"), "running", "{answer:#?}\n{}", self.logs());
            }
            (answer.code == 0).then_some(())
        });
    }

    pub fn id(&self) -> String {
        self.0.clone()
    }

    pub fn exec(&self, cmd: &[&str]) -> Outcome {
        docker(&[&["exec", &self.0], cmd].concat())
    }

    pub fn exec_as(&self, user: &str, cmd: &[&str]) -> Outcome {
        docker(&[&["exec", "--user", user, &self.0], cmd].concat())
    }

    /// The Hermes CLI as its own user.
    pub fn hermes(&self, args: &[&str]) -> Outcome {
        self.exec_as("hermes", &[&["hermes"], args].concat())
    }

    /// A shell script as hermes.
    pub fn sh(&self, script: &str) -> Outcome {
        self.exec_as("hermes", &["sh", "-euc", script])
    }

    pub fn ctl(&self, args: &[&str]) -> Outcome {
        self.exec(&[&["hermes-sup", "ctl"], args].concat())
    }

    /// One service as `status --json` shows it.
    #[track_caller]
    pub fn service(&self, name: &str) -> Value {
        let answer = self.ctl(&["--json", "status", name]);
        // 3 says that it is not up, which is no failure here.
        assert!(matches!(answer.code, 0 | 3), "{answer:#?}\n{}", self.logs());
        let status: Value = serde_json::from_str(&answer.out).expect("one JSON document");
        let services = status["services"].as_array().expect("an array of services");
        assert_eq!(services.len(), 1, "{status}");
        services[0].clone()
    }

    #[track_caller]
    pub fn state(&self, name: &str) -> String {
        self.service(name)["state"].as_str().expect("a state").to_string()
    }

    /// Waits for a state that `ctl wait` has no word for.
    #[track_caller]
    pub fn await_state(&self, name: &str, state: &str) -> Value {
        eventually(&format!("{name} is {state}"), || {
            let service = self.service(name);
            (service["state"] == state).then_some(service)
        })
    }

    /// Waits until the services are up and returns the pid of the first.
    #[track_caller]
    pub fn await_up(&self, names: &[&str]) -> u64 {
        // Inside the deadline of the command, so that it is the supervisor that says what is not up.
        let waited = self.ctl(&[&["wait"], names, &["--up", "--timeout", "150s"]].concat());
        assert_eq!(waited.code, 0, "{waited:#?}\n{}", self.logs());
        self.pid(names[0]).expect("what is up has a pid")
    }

    #[track_caller]
    pub fn pid(&self, name: &str) -> Option<u64> {
        self.service(name)["pid"].as_u64()
    }

    /// The processes whose command line matches, one a line.
    pub fn pgrep(&self, pattern: &str) -> String {
        self.exec(&["pgrep", "--list-full", "--full", pattern]).out
    }

    pub fn inspect(&self, format: &str) -> String {
        docker(&["inspect", "--format", format, &self.0]).ok().trim().to_string()
    }

    /// Standard output and standard error so far.
    pub fn logs(&self) -> String {
        let logs = docker(&["logs", &self.0]);
        logs.out + &logs.err
    }

    /// Waits for a line that holds `needle`, in what the container has printed or will print.
    #[track_caller]
    pub fn await_log(&self, needle: &str) -> String {
        Streams::of(Command::new("docker").args(["logs", "--follow", &self.0])).await_line(needle)
    }

    #[track_caller]
    pub fn restart(&self) {
        docker(&["restart", &self.0]).ok();
        self.await_supervisor();
    }

    /// Stops it as `docker stop` does and says how long that took.
    #[track_caller]
    pub fn stop(&self) -> Duration {
        let start = Instant::now();
        docker(&["stop", &self.0]).ok();
        start.elapsed()
    }

    #[track_caller]
    pub fn signal(&self, signal: &str) {
        docker(&["kill", "--signal", signal, &self.0]).ok();
    }

    /// The exit code, once it has ended.
    #[track_caller]
    pub fn wait(&self) -> i32 {
        docker(&["wait", &self.0]).ok().trim().parse().expect("an exit code")
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        docker(&["rm", "--force", "--volumes", &self.0]);
    }
}

/// A running command with both streams read line by line.
pub struct Streams {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Streams {
    pub fn of(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("spawn");
        let (sender, lines) = channel();
        pass_lines(child.stdout.take().expect("piped"), sender.clone());
        pass_lines(child.stderr.take().expect("piped"), sender);
        Self { child, lines, seen: Vec::new() }
    }

    #[track_caller]
    pub fn await_line(&mut self, needle: &str) -> String {
        let start = Instant::now();
        loop {
            let left = DEADLINE.saturating_sub(start.elapsed());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.contains(needle) => return line,
                Ok(line) => self.seen.push(line),
                Err(error) => panic!("no line with {needle:?}: {error}\n{}", self.seen.join("\n")),
            }
        }
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pass_lines(stream: impl Read + Send + 'static, lines: Sender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            if lines.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
}
