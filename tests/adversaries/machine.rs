//! The inside of the virtual machine of tests/vm: what the kernel starts first, and the hand that acts inside.
//!
//! `machine CMD…` is the first stage of PID 1. It loads the modules in /modules, mounts what an init finds mounted and
//! the volume, forks `serve`, and becomes CMD. A first stage that fails says why on the console and ends, which ends
//! the machine.
//!
//! `serve` reads a command a line from the second serial port, as JSON `[ID, ARGV]`, runs all of them at once and
//! answers `[ID, CODE, STDOUT, STDERR]` as each ends. It is no service: to the supervisor it is what a `docker exec` is.
//!
//! `census`, `show`, `cgroups`, `write`, `kill-nine`, `fill`, `remove`, `freeze` and `thaw` are what a shell would be asked if there were one.

use crate::tools::{complain, fork, quit, say};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, mount};
use std::ffi::CString;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

const VOLUME: &str = "/opt/data";
const PORT: &str = "/dev/ttyS1";

/// `machine [--asleep] CMD…`
pub fn machine(words: &[String]) -> i32 {
    let (is_asleep, command) = match words.split_first() {
        Some((first, rest)) if first == "--asleep" => (true, rest),
        _ => (false, words),
    };
    let done = prepare(is_asleep).and_then(|()| {
        fork(|| serve().map_or_else(|error| failed("the second serial port", &error), |()| 0));
        let (program, args) = command.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
        Err(Command::new(program)
            .args(args)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/")
            .env("HOME", "/root")
            .exec())
    });
    done.map_or_else(|error: std::io::Error| failed("the first stage", &error), |()| 0)
}

fn failed(what: &str, error: &std::io::Error) -> i32 {
    complain(&format!("adversary machine: {what}: {error}"));
    125
}

fn prepare(is_asleep: bool) -> std::io::Result<()> {
    let none = None::<&std::ffi::CStr>;
    for (kind, place) in [
        ("devtmpfs", "/dev"),
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("cgroup2", "/sys/fs/cgroup"),
        ("tmpfs", "/run"),
        ("tmpfs", "/tmp"),
    ] {
        std::fs::create_dir_all(place)?;
        mount(kind, place, kind, MountFlags::empty(), none)?;
    }
    // The kernel may have found no /dev/console in the file system that it started from.
    let console = rustix::fs::open("/dev/console", OFlags::RDWR | OFlags::NOCTTY, Mode::empty())?;
    for stream in [rustix::stdio::dup2_stdin, rustix::stdio::dup2_stdout, rustix::stdio::dup2_stderr] {
        stream(&console)?;
    }
    if is_asleep {
        sleep()?;
    }
    let mut modules: Vec<_> = std::fs::read_dir("/modules")?
        .collect::<Result<Vec<_>, _>>()?
        .iter()
        .map(std::fs::DirEntry::path)
        .collect();
    // Their names begin with their place in the order.
    modules.sort();
    for module in modules {
        rustix::system::finit_module(&File::open(module)?, c"", 0)?;
    }
    // The kernel's first file system is a tmpfs that everybody may write to, and nothing below such a directory is trusted.
    std::fs::set_permissions("/", PermissionsExt::from_mode(0o755))?;
    std::fs::create_dir_all(VOLUME)?;
    mount("/dev/vda", VOLUME, "ext4", MountFlags::empty(), none)?;
    Ok(())
}

/// Returns once the machine is woken. Whoever saved it saved the time and the random numbers to come, too.
fn sleep() -> std::io::Result<()> {
    /// What was written when the machine was saved is not heard by those who wake it.
    const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    /// linux/random.h, RNDRESEEDCRNG.
    const RESEED: libc::Ioctl = 0x5207;
    let mut port = port()?;
    let mut is_woken = false;
    while !is_woken {
        port.write_all(format!("{}\n", serde_json::json!([0, 0, "asleep", ""])).as_bytes())?;
        is_woken = poll(&mut [PollFd::new(&port, PollFlags::IN)], Some(&PAUSE))? > 0;
    }
    let mut line = String::new();
    BufReader::new(port).read_line(&mut line)?;
    let (now, seed): (u64, [u8; 32]) = serde_json::from_str(&line)?;
    let now =
        Timespec { tv_sec: (now / 1000).cast_signed(), tv_nsec: (now % 1000 * 1_000_000).cast_signed() };
    rustix::time::clock_settime(rustix::time::ClockId::Realtime, now)?;
    let mut random = File::options().write(true).open("/dev/random")?;
    random.write_all(&seed)?;
    // SAFETY: it takes no argument.
    if unsafe { libc::ioctl(random.as_raw_fd(), RESEED) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}

/// The second serial port, which hands over every byte as it is.
fn port() -> std::io::Result<File> {
    let port = File::from(rustix::fs::open(PORT, OFlags::RDWR | OFlags::NOCTTY, Mode::empty())?);
    let mut settings = rustix::termios::tcgetattr(&port)?;
    settings.make_raw();
    rustix::termios::tcsetattr(&port, rustix::termios::OptionalActions::Now, &settings)?;
    Ok(port)
}

/// Answers until the machine ends.
fn serve() -> std::io::Result<()> {
    // The supervisor's end, and a signal to its process group, are not meant for us.
    rustix::process::setsid()?;
    let port = port()?;
    let answers = Arc::new(Mutex::new(port.try_clone()?));
    answer(&answers, &serde_json::json!([0, 0, "ready", ""]));
    for line in BufReader::new(port).lines() {
        let line = line?;
        let Ok((id, argv)) = serde_json::from_str::<(u64, Vec<String>)>(&line) else {
            complain(&format!("adversary serve: not a request: {line}"));
            continue;
        };
        let answers = Arc::clone(&answers);
        std::thread::spawn(move || {
            let (code, out, err) = execute(&argv);
            answer(&answers, &serde_json::json!([id, code, out, err]));
        });
    }
    Ok(())
}

fn execute(argv: &[String]) -> (i32, String, String) {
    let Some((program, args)) = argv.split_first() else { return (127, String::new(), String::new()) };
    match Command::new(program).args(args).stdin(Stdio::null()).output() {
        Ok(done) => (
            done.status.code().unwrap_or_else(|| -done.status.signal().unwrap_or(0)),
            String::from_utf8_lossy(&done.stdout).into_owned(),
            String::from_utf8_lossy(&done.stderr).into_owned(),
        ),
        Err(error) => (127, String::new(), format!("{program}: {error}")),
    }
}

fn answer(answers: &Mutex<File>, document: &serde_json::Value) {
    if let Ok(mut port) = answers.lock() {
        let _ = port.write_all(format!("{document}\n").as_bytes());
    }
}

/// `census MARK`: how many processes whose command line carries MARK are alive, and how many zombies there are at all,
/// as `ALIVE ZOMBIES`. The most that ten looks find, because one can miss what forks meanwhile.
pub fn census(mark: &str) -> i32 {
    let own = std::process::id().to_string();
    let mut most = (0, 0);
    for _ in 0..10 {
        let (mut alive, mut zombies) = (0, 0);
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        for pid in entries.filter_map(|entry| entry.file_name().into_string().ok()) {
            if pid == own || !pid.starts_with(|first: char| first.is_ascii_digit()) {
                continue;
            }
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let zombie = stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z"));
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&command).contains(mark) {
                alive += 1;
            } else if zombie {
                // A leader whose threads live on looks like one and has no command line; its threads betray it.
                let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
                if threads > 1 { alive += 1 } else { zombies += 1 }
            }
        }
        most = (most.0.max(alive), most.1.max(zombies));
    }
    say(&format!("{} {}", most.0, most.1));
    0
}

/// `show FILE…`: their content; a directory is the names in it, one a line.
pub fn show(files: &[String]) -> i32 {
    let mut code = 0;
    for file in files {
        let content = if Path::new(file).is_dir() {
            std::fs::read_dir(file).map(|entries| {
                let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
                names.collect::<Vec<_>>().join("\n") + "\n"
            })
        } else {
            std::fs::read_to_string(file)
        };
        match content {
            Ok(text) => crate::tools::write_all(libc::STDOUT_FILENO, text.as_bytes()),
            Err(error) => code = failed(file, &error),
        }
    }
    code
}

/// `cgroups`: every cgroup of the machine, as a path below the mount.
pub fn cgroups() -> i32 {
    fn below(dir: &Path) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                say(&entry.path().to_string_lossy()["/sys/fs/cgroup".len()..]);
                below(&entry.path());
            }
        }
    }
    below(Path::new("/sys/fs/cgroup"));
    0
}

/// `remove FILE`
pub fn remove(path: &str) -> i32 {
    std::fs::remove_file(path).map_or_else(|error| failed(path, &error), |()| 0)
}

/// `in-cgroup NAME CMD…`: CMD where a container would be: in a cgroup that has a memory controller, unlike the root.
pub fn in_cgroup(words: &[String]) -> i32 {
    let Some(([name], command)) = words.split_first_chunk() else { return 2 };
    let dir = Path::new("/sys/fs/cgroup").join(name);
    let joined = std::fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory +pids +cpu +io")
        .and_then(|()| std::fs::create_dir(&dir))
        .and_then(|()| std::fs::write(dir.join("cgroup.procs"), "0"));
    let Some((program, args)) = command.split_first() else { return 2 };
    match joined {
        Ok(()) => failed(program, &Command::new(program).args(args).exec()),
        Err(error) => failed(name, &error),
    }
}

/// `write FILE TEXT`
pub fn write(path: &str, text: &str) -> i32 {
    std::fs::write(path, text).map_or_else(|error| failed(path, &error), |()| 0)
}

/// `kill-nine PID`
pub fn kill_nine(pid: u64) -> i32 {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    let Some(pid) = pid else { return 2 };
    let killed = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    killed.map_or_else(|error| failed("kill", &error.into()), |()| 0)
}

/// `fill FILE`: takes all that is left on its file system, to the last block.
pub fn fill(path: &str) -> i32 {
    let Ok(mut file) = File::create(path) else { return 1 };
    for size in [1 << 20, 4096, 1] {
        let piece = vec![b'x'; size];
        // Synced, because ext4 finds out late what it has no room for.
        while file.write_all(&piece).and_then(|()| if size == 1 { Ok(()) } else { file.sync_data() }).is_ok()
        {
        }
    }
    0
}

/// `freeze DIR` and `thaw DIR`: every write to its file system waits, uninterruptibly, from the one to the other.
pub fn freeze(dir: &str, thaw: bool) -> i32 {
    // <linux/fs.h>: _IOWR('X', 119, int) and 120.
    const FIFREEZE: libc::Ioctl = 0xc004_5877_u32 as libc::Ioctl;
    const FITHAW: libc::Ioctl = 0xc004_5878_u32 as libc::Ioctl;
    let path = CString::new(dir).unwrap_or_default();
    // SAFETY: a live C string; the ioctls take no pointer.
    let done = unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_DIRECTORY);
        libc::ioctl(fd, if thaw { FITHAW } else { FIFREEZE }, 0)
    };
    if done < 0 { failed(dir, &std::io::Error::last_os_error()) } else { quit(0) }
}

/// `writes FILE`: adds a line to it again and again; says `ready` after the first, and what went wrong after that.
pub fn writes(path: &str) -> i32 {
    let Ok(mut file) = File::options().create(true).append(true).open(path) else { return 1 };
    say("ready writes");
    loop {
        if file.write_all(b"line\n").and_then(|()| file.sync_data()).is_err() {
            return 1;
        }
    }
}
