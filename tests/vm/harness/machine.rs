//! A running machine: qemu, its console, and the second serial port, over which commands are executed inside.

use super::patience::{Patience, SLICE, stood_still};
use super::setup::{Setup, Volume, mark};
use super::{Disk, asleep, provided};
use serde_json::Value;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// When PID 1 ends the kernel panics and names its status; with `panic=-1` it then resets at once, which ends qemu. At boot
/// it counts timer interrupts against the processor's clock, and gives up ("IO-APIC + timer doesn't work") where a busy
/// machine below let too few through in that time: `no_timer_check` takes it at its word. To move itself to a random
/// address (`nokaslr` keeps it from that) takes an emulated one seconds and tests nothing of ours.
const KERNEL: &str = "console=ttyS0 quiet panic=-1 no_timer_check nokaslr";

/// What a command inside printed and how it ended.
#[derive(Debug)]
pub struct Answer {
    /// Minus the signal's number when one ended it.
    pub code: i64,
    pub out: String,
    pub err: String,
}

impl Answer {
    /// The output of a command that must have succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:#?}");
        self.out
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

/// A command under way inside.
pub struct Pending {
    asked: String,
    answer: Receiver<Answer>,
    /// Of the machine.
    pid: u32,
}

impl Pending {
    /// What came of it; `None` if the machine ended first.
    ///
    /// # Panics
    /// When it is not over in time.
    #[track_caller]
    pub fn wait(self) -> Option<Answer> {
        let came = Patience::with(self.pid).until(|slice| match self.answer.recv_timeout(slice) {
            Ok(answer) => Some(Some(answer)),
            Err(RecvTimeoutError::Disconnected) => Some(None),
            Err(RecvTimeoutError::Timeout) => None,
        });
        came.unwrap_or_else(|| panic!("no end of {}", self.asked))
    }
}

/// How a machine ended by itself.
#[derive(Debug)]
pub struct End {
    /// The exit code of PID 1.
    pub code: i64,
    pub after: Duration,
}

/// What the machine has printed so far, and whether there can be more.
#[derive(Default)]
struct Console {
    state: Mutex<(Vec<String>, bool)>,
    changed: Condvar,
}

/// Without KVM both processors of a machine can wait for each other for ever in its kernel: seen once in some hundred boots, with
/// another process on each. What the supervisor did to the kernel would be seen each time.
const ATTEMPTS: usize = 2;

/// With what the machine has said.
struct LockedUp(String);

/// Those who wait for an answer; gone with the machine.
type Asked = Arc<Mutex<Option<HashMap<u64, Sender<Answer>>>>>;

pub struct Machine {
    qemu: Child,
    disk: Disk,
    console: Arc<Console>,
    port: Mutex<UnixStream>,
    asked: Asked,
    next: AtomicU64,
}

impl Machine {
    /// Until the supervisor answers; `None`: the power failed before.
    #[track_caller]
    pub(super) fn start(setup: &Setup, volume: &Volume, initramfs: &Path, command: &str) -> Option<Self> {
        let mut attempts = 0;
        while attempts < ATTEMPTS {
            let still = stood_still();
            match Self::attempt(setup, volume, initramfs, command) {
                Ok(machine) => return machine,
                // To its kernel the clock has leapt.
                Err(LockedUp(_)) if stood_still() > still => {}
                Err(LockedUp(console)) => {
                    attempts += 1;
                    super::figure(&format!(
                        "boot {attempts} of a machine ended in a locked up kernel:\n{console}"
                    ));
                }
            }
        }
        panic!("the emulated kernel locked up in each of {ATTEMPTS} boots");
    }

    /// Switches it on. The second is the answer of its first stage.
    #[track_caller]
    pub(super) fn switch_on(
        setup: &Setup,
        volume: &Volume,
        initramfs: &Path,
        command: &str,
        words: &[String],
        wakes: bool,
    ) -> (Self, Pending) {
        volume.disk.switch_on();
        let socket = volume.path("port");
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).expect("a socket");
        // It must not outlive a test that is killed.
        let mut qemu = Command::new("setpriv");
        qemu.args([
            "--pdeathsig",
            "KILL",
            "qemu-system-x86_64",
            "-accel",
            "tcg",
            "-cpu",
            "max",
            "-nodefaults",
        ])
        .args(["-display", "none", "-no-reboot"])
        .args(["-smp", &setup.processors.to_string(), "-m", &setup.mebibytes.to_string()])
        .args(["-kernel", &provided("HERMES_SUP_VM_KERNEL")])
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", &format!("{KERNEL} rdinit=/adversary -- machine {command}")])
        .args(["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"])
        .args(["-chardev", &format!("socket,id=port,path={}", socket.display()), "-serial", "chardev:port"])
        // Nothing is kept here of what the guest writes: the disk has a cache of its own, and the guest flushes it.
        .arg("-drive")
        .arg(format!(
            "file=nbd+unix:///?socket={},if=virtio,format=raw,cache=writeback",
            volume.socket().display()
        ))
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
        let mut qemu = qemu.spawn().expect("setpriv(1) is installed");
        let console = Arc::new(Console::default());
        listen(qemu.stderr.take().expect("piped"), Arc::clone(&console), false);
        listen(qemu.stdout.take().expect("piped"), Arc::clone(&console), true);
        let pid = qemu.id();
        let port = accept(&listener, &console, pid);
        let asked: Asked = Arc::new(Mutex::new(Some(HashMap::new())));
        let (sender, ready) = channel();
        asked.lock().expect("a lock").as_mut().expect("new").insert(0, sender);
        hear(port.try_clone().expect("a descriptor"), Arc::clone(&asked), wakes);
        let disk = volume.disk.clone();
        let machine = Self { qemu, disk, console, port: Mutex::new(port), asked, next: AtomicU64::new(1) };
        (machine, Pending { asked: "its first stage".into(), answer: ready, pid })
    }

    #[track_caller]
    fn attempt(
        setup: &Setup,
        volume: &Volume,
        initramfs: &Path,
        command: &str,
    ) -> Result<Option<Self>, LockedUp> {
        let words = setup.asleep.iter().flat_map(|asleep| asleep.words()).collect::<Vec<_>>();
        let (machine, mut pending) =
            Self::switch_on(setup, volume, initramfs, command, &words, setup.asleep.is_some());
        let pid = pending.pid;
        let mut patience = Patience::with(pid);
        loop {
            match pending.answer.recv_timeout(SLICE) {
                Ok(answer) if pending.asked.ends_with("list") && answer.code == 0 => {
                    return Ok(Some(machine));
                }
                Ok(_) => pending = machine.send(&["/hermes-sup", "ctl", "list"]),
                Err(RecvTimeoutError::Timeout) => {
                    if machine.disk.is_off() {
                        return Ok(None);
                    }
                    let console = machine.console();
                    if console.contains("BUG: soft lockup") {
                        return Err(LockedUp(console));
                    }
                }
                Err(RecvTimeoutError::Disconnected) => panic!("it ended at once:\n{}", machine.console()),
            }
            assert!(!patience.is_over(), "no end of {}\n{}", pending.asked, machine.console());
        }
    }

    /// How long it is waited for.
    pub fn patience(&self) -> Patience {
        Patience::with(self.qemu.id())
    }

    // ---- commands inside ----

    /// Starts a command inside.
    pub fn send(&self, argv: &[&str]) -> Pending {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = channel();
        let asked = argv.join(" ");
        if let Some(waiting) = self.asked.lock().expect("a lock").as_mut() {
            waiting.insert(id, sender);
        }
        // A machine that is gone is told by the answer that never comes.
        let line = format!("{}\n", serde_json::json!([id, argv]));
        let _ = self.port.lock().expect("a lock").write_all(line.as_bytes());
        Pending { asked, answer, pid: self.qemu.id() }
    }

    /// Runs a command inside to its end.
    #[track_caller]
    pub fn run(&self, argv: &[&str]) -> Answer {
        self.send(argv).wait().unwrap_or_else(|| panic!("it ended during {argv:?}:\n{}", self.console()))
    }

    #[track_caller]
    pub fn ctl(&self, args: &[&str]) -> Answer {
        self.run(&[&["/hermes-sup", "ctl"], args].concat())
    }

    /// The whole `ctl --json status`.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.ctl(&["--json", "status"]).json()
    }

    /// One service of it.
    #[track_caller]
    pub fn service(&self, name: &str) -> Value {
        let status = self.status();
        let services = status["services"].as_array().cloned().unwrap_or_default();
        services
            .into_iter()
            .find(|each| each["name"] == name)
            .unwrap_or_else(|| panic!("no {name}: {status:#}"))
    }

    #[track_caller]
    pub fn await_state(&self, name: &str, state: &str) -> Value {
        self.eventually(&format!("{name} is {state}"), || {
            let service = self.service(name);
            (service["state"] == state).then_some(service)
        })
    }

    /// Waits until `text` is in the log of a service.
    #[track_caller]
    pub fn await_log(&self, name: &str, text: &str) {
        self.eventually(&format!("{name} says {text:?}"), || {
            self.ctl(&["logs", name]).out.contains(text).then_some(())
        });
    }

    /// What a file inside holds, or the names in a directory.
    #[track_caller]
    pub fn show(&self, path: &str) -> String {
        self.run(&["/adversary", "show", path]).ok()
    }

    /// Asks again until there is an answer. Each question is a command inside, which is pause enough.
    #[track_caller]
    pub fn eventually<T>(&self, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
        let came = self.patience().until(|_| ask());
        came.unwrap_or_else(|| panic!("never happened: {what}\n{}", self.console()))
    }

    // ---- the oracle ----

    /// Processes of a service that are alive, and zombies of anybody.
    #[track_caller]
    pub fn census(&self, service: &str) -> (u64, u64) {
        let text = self.run(&["/adversary", "census", &mark(service)]).ok();
        let mut counts = text.split_whitespace().filter_map(|word| word.parse().ok());
        (counts.next().expect("the living"), counts.next().expect("the zombies"))
    }

    /// No process of `service` is alive now; its zombies are reaped and the cgroups of its lives removed. The directories go a
    /// tenth of a second after the end, so the last two are waited for.
    #[track_caller]
    pub fn assert_nothing_left_of(&self, service: &str) {
        assert_eq!(self.census(service).0, 0, "survivors of {service}\n{}", self.console());
        self.eventually("zombies are reaped", || (self.census(service).1 == 0).then_some(()));
        let lives = format!("/{service}.");
        self.eventually("cgroups of ended lives are removed", || {
            (!self.cgroups().iter().any(|dir| dir.contains(&lives))).then_some(())
        });
    }

    /// The directory `<name>.<n>` of the present life of a service.
    #[track_caller]
    pub fn cgroup(&self, service: &str) -> String {
        let pid = self.service(service)["pid"].as_u64().expect("what is up has a pid");
        let line = self.show(&format!("/proc/{pid}/cgroup"));
        let path = line.trim().strip_prefix("0::").expect("a path of cgroup v2");
        let part = format!("/{service}.");
        let start = path.find(&part).unwrap_or_else(|| panic!("{service} is in {path}")) + part.len();
        let end = path[start..].find('/').map_or(path.len(), |length| start + length);
        format!("/sys/fs/cgroup{}", &path[..end])
    }

    /// One value of a file of that directory that has a key and a value a line.
    #[track_caller]
    pub fn counter(&self, service: &str, file: &str, key: &str) -> u64 {
        let text = self.show(&format!("{}/{file}", self.cgroup(service)));
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("no {key} in {file}: {text}"))
    }

    /// Every cgroup, as a path below the mount.
    #[track_caller]
    pub fn cgroups(&self) -> Vec<String> {
        let text = self.run(&["/adversary", "cgroups"]).ok();
        text.lines().map(str::to_owned).collect()
    }

    // ---- the console ----

    /// Everything printed so far.
    pub fn console(&self) -> String {
        self.console.state.lock().expect("a lock").0.join("\n")
    }

    /// Waits for a line that holds `text`, printed already or not.
    #[track_caller]
    pub fn await_line(&self, text: &str) -> String {
        self.console
            .find(text, self.patience())
            .unwrap_or_else(|| panic!("no line with {text:?}:\n{}", self.console()))
    }

    // ---- ends ----

    /// Has the supervisor end everything; returns when the machine is off.
    #[track_caller]
    pub fn shutdown(self, code: u8) -> End {
        let start = Instant::now();
        // The answer may be overtaken by the end.
        drop(self.send(&["/hermes-sup", "ctl", "shutdown", "--code", &code.to_string()]));
        self.ends(start)
    }

    /// Waits until qemu has ended by itself.
    #[track_caller]
    pub(super) fn wait(&mut self) {
        let patience = self.patience();
        let ended = patience.until(|slice| {
            let state = self.console.state.lock().expect("a lock");
            let (state, _) =
                self.console.changed.wait_timeout_while(state, slice, |state| !state.1).expect("a lock");
            state.1.then_some(())
        });
        assert!(ended.is_some(), "no end of qemu\n{}", self.console());
        let _ = self.qemu.wait();
    }

    /// Waits for the machine to end by itself.
    #[track_caller]
    pub fn ends(mut self, since: Instant) -> End {
        let words = "Attempted to kill init! exitcode=0x";
        let line = self.await_line(words);
        let after = since.elapsed();
        let status = line.split(words).nth(1).unwrap_or_default();
        let status = status.split(|each: char| !each.is_ascii_hexdigit()).next().unwrap_or_default();
        let status = i64::from_str_radix(status, 16).expect("a wait status");
        let _ = self.qemu.wait();
        End { code: if status & 0x7f == 0 { status >> 8 } else { -(status & 0x7f) }, after }
    }

    pub fn is_cut(&self) -> bool {
        self.disk.is_off()
    }

    /// Pulls the plug: what was not flushed is lost, wholly or in part. Also while others wait for answers, who get none.
    pub fn cut(&self) {
        // First, so that nobody is answered for what the disk has lost.
        self.disk.cut();
        let qemu = rustix::process::Pid::from_child(&self.qemu);
        rustix::process::kill_process(qemu, rustix::process::Signal::KILL).expect("SIGKILL");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

impl Console {
    fn add(&self, line: &[u8]) {
        let line = String::from_utf8_lossy(line).trim_end().to_owned();
        self.state.lock().expect("a lock").0.push(line);
        self.changed.notify_all();
    }

    fn close(&self) {
        self.state.lock().expect("a lock").1 = true;
        self.changed.notify_all();
    }

    fn find(&self, text: &str, patience: Patience) -> Option<String> {
        let found = |lines: &[String]| lines.iter().find(|line| line.contains(text)).cloned();
        let come = patience.until(|slice| {
            let state = self.state.lock().expect("a lock");
            let more = |state: &mut (Vec<String>, bool)| !state.1 && found(&state.0).is_none();
            let (state, _) = self.changed.wait_timeout_while(state, slice, more).expect("a lock");
            found(&state.0).map(Some).or_else(|| state.1.then_some(None))
        });
        come.flatten()
    }
}

fn listen(stream: impl Read + Send + 'static, console: Arc<Console>, is_last: bool) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            console.add(&line);
        }
        if is_last {
            console.close();
        }
    });
}

/// qemu connects first thing. When it cannot start it never does, and its own words are all there is.
fn accept(listener: &UnixListener, console: &Console, pid: u32) -> UnixStream {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut patience = Patience::with(pid);
    listener.set_nonblocking(true).expect("a mode");
    loop {
        let short = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        let _ = poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&short));
        if let Ok((port, _)) = listener.accept() {
            port.set_nonblocking(false).expect("a mode");
            return port;
        }
        let state = console.state.lock().expect("a lock");
        assert!(!state.1 && !patience.is_over(), "qemu does not start: {}", state.0.join("\n"));
    }
}

/// Passes answers to those who asked, until the machine ends.
/// Where it wakes the machine, it does so once.
fn hear(mut port: UnixStream, asked: Asked, mut wakes: bool) {
    let lines = BufReader::new(port.try_clone().expect("a descriptor"));
    std::thread::spawn(move || {
        let is_woken_here = wakes;
        for line in lines.split(b'\n').map_while(Result::ok) {
            let Ok((id, code, out, err)) = serde_json::from_slice::<(u64, i64, String, String)>(&line) else {
                continue;
            };
            if is_woken_here && id == 0 && out == asleep::WORD {
                if std::mem::take(&mut wakes) {
                    let _ = port.write_all(asleep::wake().as_bytes());
                }
                continue;
            }
            let waiting = asked.lock().expect("a lock").as_mut().and_then(|waiting| waiting.remove(&id));
            if let Some(sender) = waiting {
                let _ = sender.send(Answer { code, out, err });
            }
        }
        asked.lock().expect("a lock").take();
    });
}
