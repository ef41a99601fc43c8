//! A container in miniature, for the tests: `world` makes fresh pid, mount, cgroup, ipc and uts namespaces with a root
//! directory of its own and runs a command as PID 1 there; `enter` runs one more command in them, as `docker exec`
//! does; `hold` is the smallest PID 1, for commands that shall not be it; `seccomp` runs a command under the filter.
//!
//! `world` and `enter` stay outside as the command's parent and report on stdout, one line each:
//! `pid N` (as seen from outside), `exec` (the command's image is in place), then `exit N` or `signal N`.

use crate::tools::{complain, fork, quit, reap, say};
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// What Docker leaves in the bounding set: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP,
/// NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, MKNOD, AUDIT_WRITE, SETFCAP.
const DOCKER_CAPABILITIES: [u32; 14] = [0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31];
const LAST_CAPABILITY: u32 = 63;

#[derive(Default)]
struct Options {
    root: String,
    /// Directory of a cgroup2 hierarchy, as seen outside, that becomes the root inside.
    cgroup: String,
    /// rw, ro or absent.
    cgroup_mount: String,
    /// docker or all.
    capabilities: String,
    seccomp: bool,
    no_landlock: bool,
    uid: u32,
    stdin: Option<String>,
    stdout: Option<String>,
    stderr: Option<String>,
    tty: bool,
    quiet: bool,
    /// It stops itself before the command, and waits for a tracer.
    halt: bool,
    sigchld_ignored: bool,
    /// `tmpfs PATH SIZE`, `disk PATH IMAGE`, `bind PATH SOURCE`, `ro PATH` mounts inside the new root, made in this order.
    mounts: Vec<(String, String, String)>,
    target: i32,
    command: Vec<String>,
}

fn parse(args: &[String]) -> Options {
    let mut options =
        Options { capabilities: "docker".into(), cgroup_mount: "rw".into(), ..Options::default() };
    let mut args = args.iter().cloned();
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_default();
        match arg.as_str() {
            "--root" => options.root = value(),
            "--cgroup" => options.cgroup = value(),
            "--cgroup-mount" => options.cgroup_mount = value(),
            "--capabilities" => options.capabilities = value(),
            "--seccomp" => options.seccomp = true,
            "--no-landlock" => options.no_landlock = true,
            "--uid" => options.uid = value().parse().unwrap_or(0),
            "--stdin" => options.stdin = Some(value()),
            "--stdout" => options.stdout = Some(value()),
            "--stderr" => options.stderr = Some(value()),
            "--tty" => options.tty = true,
            "--quiet" => options.quiet = true,
            "--halt" => options.halt = true,
            "--sigchld-ignored" => options.sigchld_ignored = true,
            "--tmpfs" => options.mounts.push(("tmpfs".into(), value(), value())),
            "--disk" => options.mounts.push(("disk".into(), value(), value())),
            "--bind" => {
                let source = value();
                options.mounts.push(("bind".into(), value(), source));
            }
            "--read-only" => options.mounts.push(("ro".into(), value(), String::new())),
            "--target" => options.target = value().parse().unwrap_or(0),
            _ => {
                options.command = args.collect();
                break;
            }
        }
    }
    options
}

fn check(what: &str, result: io::Result<()>) {
    if let Err(error) = result {
        complain(&format!("adversary sandbox: {what}: {error}"));
        quit(125);
    }
}

fn call(what: &str, result: libc::c_int) {
    check(what, if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) });
}

fn text(string: &str) -> CString {
    CString::new(string).expect("a path without NUL")
}

fn path(string: &str) -> String {
    format!("/{}", string.trim_start_matches('/'))
}

/// `world --root DIR --cgroup DIR [OPTIONS] -- CMD…`
pub fn world(args: &[String]) -> i32 {
    let options = parse(args);
    die_with_parent();
    let home = join_cgroup(&options.cgroup);
    // A subtree is what `--cgroupns=host` with a bind mount of one directory shows.
    let cgroup_namespace = if options.cgroup_mount == "subtree" { 0 } else { libc::CLONE_NEWCGROUP };
    // SAFETY: flags only.
    call("unshare", unsafe { libc::unshare(libc::CLONE_NEWPID | cgroup_namespace) });
    run(&options, home, |options| {
        // SAFETY: flags only.
        call("unshare", unsafe {
            libc::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS)
        });
        build_root(options);
    })
}

/// `enter --target PID --cgroup DIR [OPTIONS] -- CMD…`: PID is any process of a world, as seen outside.
pub fn enter(args: &[String]) -> i32 {
    let options = parse(args);
    die_with_parent();
    let space = |name: &str| File::open(format!("/proc/{}/ns/{name}", options.target));
    let spaces: Vec<(File, libc::c_int)> = [
        ("cgroup", libc::CLONE_NEWCGROUP),
        ("pid", libc::CLONE_NEWPID),
        ("ipc", libc::CLONE_NEWIPC),
        ("uts", libc::CLONE_NEWUTS),
        ("mnt", libc::CLONE_NEWNS),
    ]
    .into_iter()
    .filter_map(|(name, flag)| space(name).ok().map(|file| (file, flag)))
    .collect();
    if spaces.len() != 5 {
        complain("adversary enter: that world is gone");
        return 125;
    }
    let home = join_cgroup(&options.cgroup);
    let (mount, others) = spaces.split_last().expect("five namespaces");
    for (file, flag) in others {
        // SAFETY: a live namespace descriptor.
        call("setns", unsafe { libc::setns(file.as_raw_fd(), *flag) });
    }
    run(&options, home, |_| {
        // SAFETY: a live namespace descriptor. Root and working directory become those of the world.
        call("setns", unsafe { libc::setns(mount.0.as_raw_fd(), mount.1) });
    })
}

/// Forks, lets the child set up its place with `prepare` and become the command; reports until it ends.
fn run(options: &Options, home: Option<File>, prepare: impl FnOnce(&Options)) -> i32 {
    // Closed by the exec, which is how its moment is known.
    let (seen, until_exec) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
    let child = fork(|| {
        die_with_parent();
        // Opened before the root changes: these are paths of the outside.
        let streams = [
            open_stream(&options.stdin, 0),
            open_stream(&options.stdout, 1),
            open_stream(&options.stderr, 2),
        ];
        prepare(options);
        for (number, stream) in (0..).zip(&streams) {
            if let Some(stream) = stream {
                // SAFETY: two live descriptors.
                call("dup2", unsafe { libc::dup2(stream.as_raw_fd(), number) });
            }
        }
        become_command(options)
    });
    if child < 0 {
        return 125;
    }
    // Back out of the world's cgroup: it must hold the world's processes only.
    if let Some(mut home) = home {
        check("leave the cgroup", io::Write::write_all(&mut home, b"0"));
    }
    let report = |line: String| {
        if !options.quiet {
            say(&line);
        }
    };
    if options.tty {
        release_terminal();
    }
    report(format!("pid {child}"));
    drop(until_exec);
    let _ = rustix::io::read(&seen, &mut [0u8; 1][..]);
    report("exec".into());
    let status = reap(child);
    if libc::WIFSIGNALED(status) {
        report(format!("signal {}", libc::WTERMSIG(status)));
        128 + libc::WTERMSIG(status)
    } else {
        report(format!("exit {}", libc::WEXITSTATUS(status)));
        libc::WEXITSTATUS(status)
    }
}

/// A test that is killed must leave nothing behind: the outer process dies with the test, the inner one with the outer.
fn die_with_parent() {
    // SAFETY: plain numbers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

/// Moves this process into `dir`; returns the opened `cgroup.procs` of where it was.
fn join_cgroup(dir: &str) -> Option<File> {
    if dir.is_empty() {
        return None;
    }
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/").to_owned();
    // `dir` is <mount>/<name> with the mount point given by the harness; our own path is relative to the same mount.
    let mount = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mount = mount.lines().find_map(|line| {
        let (head, tail) = line.split_once(" - ")?;
        let point = head.split(' ').nth(4)?;
        (tail.starts_with("cgroup2 ") && dir.starts_with(point)).then(|| point.to_owned())
    })?;
    let home = OpenOptions::new().write(true).open(format!("{mount}{own}/cgroup.procs"));
    check("join the cgroup", std::fs::write(format!("{dir}/cgroup.procs"), "0"));
    match home {
        Ok(file) => Some(file),
        Err(error) => {
            complain(&format!("adversary sandbox: own cgroup: {error}"));
            quit(125)
        }
    }
}

fn mount(source: &str, target: &str, kind: &str, flags: libc::c_ulong, data: &str) {
    let (from, to, fstype, options) = (text(source), text(target), text(kind), text(data));
    // SAFETY: four live C strings.
    let done =
        unsafe { libc::mount(from.as_ptr(), to.as_ptr(), fstype.as_ptr(), flags, options.as_ptr().cast()) };
    call(&format!("mount {source} on {target}"), done);
}

/// Makes `options.root` the root directory, with the system's programs, /dev, /proc and the chosen view of cgroups.
fn build_root(options: &Options) {
    let root = &options.root;
    mount("none", "/", "", libc::MS_REC | libc::MS_PRIVATE, "");
    mount(root, root, "", libc::MS_BIND | libc::MS_REC, "");
    for dir in ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/usr"] {
        // On merged systems all but /usr are links, which the harness has put into the root itself.
        if std::fs::symlink_metadata(dir).is_ok_and(|meta| meta.is_dir()) {
            let _ = std::fs::create_dir(format!("{root}{dir}"));
            mount(dir, &format!("{root}{dir}"), "", libc::MS_BIND | libc::MS_REC, "");
            mount(
                "none",
                &format!("{root}{dir}"),
                "",
                libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY,
                "",
            );
        }
    }
    mount("/dev", &format!("{root}/dev"), "", libc::MS_BIND | libc::MS_REC, "");
    let shared = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    mount("shm", &format!("{root}/dev/shm"), "tmpfs", shared, "mode=1777,size=64m");
    mount("proc", &format!("{root}/proc"), "proc", 0, "");
    let cgroup = format!("{root}/sys/fs/cgroup");
    let usual = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    match options.cgroup_mount.as_str() {
        "absent" => {}
        "hybrid" => {
            mount("tmpfs", &cgroup, "tmpfs", usual, "mode=755");
            check("mkdir", std::fs::create_dir(format!("{cgroup}/unified")));
            mount("cgroup2", &format!("{cgroup}/unified"), "cgroup2", usual, "");
        }
        "subtree" => mount(&options.cgroup, &cgroup, "", libc::MS_BIND, ""),
        _ => mount("cgroup2", &cgroup, "cgroup2", usual, ""),
    }
    if options.cgroup_mount == "ro" {
        // Of this mount only: the superblock is shared with the machine.
        mount("none", &cgroup, "", libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY, "");
    }
    for (kind, target, value) in &options.mounts {
        let target = format!("{root}{}", path(target));
        match kind.as_str() {
            "tmpfs" => mount("tmpfs", &target, "tmpfs", 0, value),
            "bind" => mount(value, &target, "", libc::MS_BIND, ""),
            "disk" => {
                let loop_mount =
                    std::process::Command::new("mount").args(["-o", "loop", value, &target]).status();
                if !loop_mount.is_ok_and(|status| status.success()) {
                    complain("adversary sandbox: the disk image cannot be mounted");
                    quit(125);
                }
            }
            _ => {
                mount(&target, &target, "", libc::MS_BIND, "");
                mount("none", &target, "", libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY, "");
            }
        }
    }
    let dot = text(".");
    check("chdir", std::env::set_current_dir(root));
    // SAFETY: live C strings. With both arguments "." the old root ends up on top of the new one (pivot_root(2)).
    unsafe {
        call("pivot_root", libc::syscall(libc::SYS_pivot_root, dot.as_ptr(), dot.as_ptr()) as libc::c_int);
        call("umount the old root", libc::umount2(dot.as_ptr(), libc::MNT_DETACH));
    }
    check("chdir", std::env::set_current_dir("/"));
}

fn open_stream(path: &Option<String>, number: i32) -> Option<OwnedFd> {
    let path = path.as_ref()?;
    let mut options = OpenOptions::new();
    let opened = match number {
        0 => options.read(true).open(path),
        _ => options.append(true).create(true).open(path),
    };
    match opened {
        Ok(file) => Some(file.into()),
        Err(error) => {
            complain(&format!("adversary sandbox: {path}: {error}"));
            quit(125)
        }
    }
}

/// Gives up the terminal so that the command can have it as its own, as a container's PID 1 does.
fn release_terminal() {
    // SAFETY: plain numbers; the SIGHUP that follows is for us and our process group, which lives on.
    unsafe {
        libc::signal(libc::SIGHUP, libc::SIG_IGN);
        libc::ioctl(0, libc::TIOCNOTTY);
    }
}

fn become_command(options: &Options) -> i32 {
    // SAFETY: plain numbers.
    unsafe {
        libc::setsid();
        // By number: the libc crate has no function for it on musl.
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
        libc::umask(0o022);
    }
    default_signals();
    if options.tty {
        take_terminal();
    }
    if options.sigchld_ignored {
        // SAFETY: SIG_IGN is no function of ours.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    }
    if options.seccomp {
        check("seccomp", crate::seccomp::like_docker(!options.no_landlock));
    }
    if options.capabilities == "docker" {
        for capability in 0..=LAST_CAPABILITY {
            if !DOCKER_CAPABILITIES.contains(&capability) {
                // SAFETY: plain numbers; EINVAL beyond the kernel's last one is of no interest.
                unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
            }
        }
    }
    // SAFETY: an empty list, then plain numbers.
    unsafe { call("setgroups", libc::setgroups(0, std::ptr::null())) };
    if options.uid != 0 {
        // SAFETY: plain numbers.
        unsafe {
            call("setgid", libc::setresgid(options.uid, options.uid, options.uid));
            call("setuid", libc::setresuid(options.uid, options.uid, options.uid));
        }
    }
    // A change of user clears it.
    die_with_parent();
    if options.halt {
        // SAFETY: plain numbers.
        unsafe { libc::raise(libc::SIGSTOP) };
    }
    execute(&options.command)
}

/// The runner of the tests may ignore signals; a container runtime hands over none. The raw call also reaches the two
/// that the C library keeps for itself (32 and 33).
fn default_signals() {
    // The kernel's struct sigaction: handler, flags, restorer, mask; all zero is SIG_DFL.
    let default = [0u64; 4];
    for signal in 1..=64 {
        // SAFETY: one live struct of the kernel's size; SIGKILL and SIGSTOP answer EINVAL.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), std::ptr::null::<u64>(), 8)
        };
    }
}

fn take_terminal() {
    // The parent lets go of it at about this moment; there is no event for that.
    for _ in 0..1_000_000 {
        // SAFETY: plain numbers.
        if unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } == 0 {
            return;
        }
        std::thread::yield_now();
    }
    call("take the terminal", -1);
}

fn execute(command: &[String]) -> i32 {
    let arguments: Vec<CString> = command.iter().map(|argument| text(argument)).collect();
    let mut pointers: Vec<*const libc::c_char> = arguments.iter().map(|argument| argument.as_ptr()).collect();
    pointers.push(std::ptr::null());
    let Some(program) = arguments.first() else {
        complain("adversary: no command");
        return 127;
    };
    // SAFETY: a NULL-ended vector of live C strings.
    unsafe { libc::execvp(program.as_ptr(), pointers.as_ptr()) };
    complain(&format!("adversary: {}: {}", command.join(" "), io::Error::last_os_error()));
    127
}

/// PID 1 that only reaps. SIGTERM ends it, and with it the world.
pub fn hold() -> i32 {
    // SAFETY: the set is initialised before use; the descriptor is owned by nobody else.
    let signals = unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGCHLD, libc::SIGTERM] {
            libc::sigaddset(&raw mut set, signal);
        }
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        OwnedFd::from_raw_fd(libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC))
    };
    let mut record = [0u8; 128];
    loop {
        // The first word of struct signalfd_siginfo is the number.
        if rustix::io::read(&signals, &mut record[..]).is_ok() && i32::from(record[0]) == libc::SIGTERM {
            return 0;
        }
        // SAFETY: no status wanted.
        while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } > 0 {}
    }
}

/// `seccomp [--] CMD…`: the filter for anybody, at the price of no_new_privs.
pub fn under_seccomp(args: &[String]) -> i32 {
    // SAFETY: plain numbers.
    call("no_new_privs", unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) });
    check("seccomp", crate::seccomp::like_docker(true));
    let command = args.strip_prefix(&["--".to_owned()]).unwrap_or(args);
    execute(command)
}
