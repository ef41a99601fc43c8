//! The system calls that are made to fail, and what each can answer.
//!
//! The errors are those of the man pages, as far as a kernel can give them to a program that makes no mistake: no `EBADF`, `EFAULT` or
//! `EINVAL`, and nothing is interrupted that does not wait. An error that would be a lie about the world (no such process, of one that lives) is left out too: nobody can act
//! rightly on a lie. What is never made to fail is in [`SPARED`], with the reason.

use rustix::io::Errno;

/// What a call is about, and in which argument that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A directory and a path relative to it, in the first two arguments.
    At,
    /// The same, with flags of open(2) in the third.
    Open,
    /// The same, with a `struct open_how`.
    OpenHow,
    /// A path in the first argument.
    Path,
    /// A descriptor in the first argument.
    Fd,
    /// A descriptor, and what is to be done with it.
    FdOp,
    /// The first argument says what is to be done.
    Op,
    /// Children are waited for, with options in the third argument.
    Wait,
    /// A limit is set where there is a third argument, else read.
    Limit,
    Bare,
}

/// What a descriptor or path is to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Cgroup,
    Proc,
    Pipe,
    Socket,
    /// eventfd, timerfd, epoll and their like.
    Event,
    Device,
    /// memfd_create(2).
    Memory,
    File,
}

impl Kind {
    fn of(object: &str) -> Self {
        match object {
            object if object.starts_with("/sys/fs/cgroup") => Self::Cgroup,
            object if object.starts_with("/proc/") => Self::Proc,
            object if object.starts_with("/dev/") && !object.starts_with("/dev/shm") => Self::Device,
            object if object.starts_with("/memfd:") => Self::Memory,
            object if object.starts_with("pipe:") => Self::Pipe,
            object if object.starts_with("socket:") => Self::Socket,
            object if object.starts_with("anon_inode:") => Self::Event,
            _ => Self::File,
        }
    }
}

/// A system call by number and name, and how to read what it is about.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    pub number: i64,
    pub name: &'static str,
    pub shape: Shape,
}

macro_rules! calls {
    ($($shape:ident: $($name:ident $number:ident),+;)+) => {
        &[$($(Call { number: libc::$number, name: stringify!($name), shape: Shape::$shape }),+),+]
    };
}

/// Those that are made to fail.
const CALLS: &[Call] = calls! {
    Open: openat SYS_openat;
    OpenHow: openat2 SYS_openat2;
    At: newfstatat SYS_newfstatat, statx SYS_statx, readlinkat SYS_readlinkat, mkdirat SYS_mkdirat, unlinkat SYS_unlinkat,
        renameat SYS_renameat, renameat2 SYS_renameat2, linkat SYS_linkat, mknodat SYS_mknodat, fchmodat SYS_fchmodat,
        fchmodat2 SYS_fchmodat2, fchownat SYS_fchownat, faccessat SYS_faccessat, faccessat2 SYS_faccessat2,
        utimensat SYS_utimensat, name_to_handle_at SYS_name_to_handle_at, execveat SYS_execveat, open_tree SYS_open_tree,
        mount_setattr SYS_mount_setattr;
    Path: open SYS_open, stat SYS_stat, lstat SYS_lstat, readlink SYS_readlink, mkdir SYS_mkdir, rmdir SYS_rmdir,
        unlink SYS_unlink, rename SYS_rename, link SYS_link, symlink SYS_symlink, chmod SYS_chmod, chown SYS_chown,
        lchown SYS_lchown, mknod SYS_mknod, access SYS_access, chdir SYS_chdir, statfs SYS_statfs, execve SYS_execve,
        truncate SYS_truncate, mount SYS_mount, umount2 SYS_umount2, fsopen SYS_fsopen, chroot SYS_chroot,
        memfd_create SYS_memfd_create;
    Fd: read SYS_read, pread64 SYS_pread64, readv SYS_readv, write SYS_write, pwrite64 SYS_pwrite64, writev SYS_writev,
        close SYS_close, fsync SYS_fsync, fdatasync SYS_fdatasync, ftruncate SYS_ftruncate, fallocate SYS_fallocate,
        fstat SYS_fstat, fstatfs SYS_fstatfs, getdents64 SYS_getdents64, fchmod SYS_fchmod, fchown SYS_fchown,
        fchdir SYS_fchdir, flock SYS_flock, bind SYS_bind, listen SYS_listen, accept SYS_accept, accept4 SYS_accept4,
        connect SYS_connect, sendmsg SYS_sendmsg, sendto SYS_sendto, recvmsg SYS_recvmsg, recvfrom SYS_recvfrom,
        getsockname SYS_getsockname, shutdown SYS_shutdown, epoll_wait SYS_epoll_wait, epoll_pwait SYS_epoll_pwait,
        inotify_add_watch SYS_inotify_add_watch, pidfd_send_signal SYS_pidfd_send_signal, pidfd_getfd SYS_pidfd_getfd,
        setns SYS_setns, fsmount SYS_fsmount, move_mount SYS_move_mount, dup3 SYS_dup3, dup SYS_dup, dup2 SYS_dup2,
        copy_file_range SYS_copy_file_range, tee SYS_tee, splice SYS_splice, sendfile SYS_sendfile,
        landlock_restrict_self SYS_landlock_restrict_self, syncfs SYS_syncfs;
    FdOp: fcntl SYS_fcntl, ioctl SYS_ioctl, epoll_ctl SYS_epoll_ctl, fsconfig SYS_fsconfig;
    Op: prctl SYS_prctl;
    Wait: wait4 SYS_wait4;
    Limit: prlimit64 SYS_prlimit64;
    Bare: socket SYS_socket, socketpair SYS_socketpair, pipe2 SYS_pipe2, eventfd2 SYS_eventfd2,
        timerfd_create SYS_timerfd_create, signalfd4 SYS_signalfd4, inotify_init1 SYS_inotify_init1,
        epoll_create1 SYS_epoll_create1, pidfd_open SYS_pidfd_open,
        clone SYS_clone, clone3 SYS_clone3, fork SYS_fork, vfork SYS_vfork, kill SYS_kill,
        tgkill SYS_tgkill, setsid SYS_setsid, setpgid SYS_setpgid, setuid SYS_setuid, setgid SYS_setgid,
        setresuid SYS_setresuid, setresgid SYS_setresgid, setgroups SYS_setgroups, capset SYS_capset,
        unshare SYS_unshare, poll SYS_poll, ppoll SYS_ppoll, getrandom SYS_getrandom, getcwd SYS_getcwd,
        landlock_create_ruleset SYS_landlock_create_ruleset, seccomp SYS_seccomp;
};

/// Those that are never made to fail.
const SPARED: &[(&str, &[i64])] = &[
    // The standard library ends a program that has no memory, as the kernel does.
    (
        "memory of the allocator and of threads",
        &[
            libc::SYS_mmap,
            libc::SYS_munmap,
            libc::SYS_mremap,
            libc::SYS_mprotect,
            libc::SYS_madvise,
            libc::SYS_brk,
        ],
    ),
    (
        "the kernel has no error for a program without mistakes",
        &[
            libc::SYS_getpid,
            libc::SYS_gettid,
            libc::SYS_getppid,
            libc::SYS_getuid,
            libc::SYS_geteuid,
            libc::SYS_getgid,
            libc::SYS_getegid,
            libc::SYS_getresuid,
            libc::SYS_getresgid,
            libc::SYS_getgroups,
            libc::SYS_getpgid,
            libc::SYS_getpgrp,
            libc::SYS_getsid,
            libc::SYS_capget,
            libc::SYS_getpriority,
            libc::SYS_umask,
            libc::SYS_uname,
            libc::SYS_sysinfo,
            libc::SYS_lseek,
            libc::SYS_setfsuid,
            libc::SYS_setfsgid,
            libc::SYS_rt_sigaction,
            libc::SYS_rt_sigprocmask,
            libc::SYS_sigaltstack,
            libc::SYS_set_tid_address,
            libc::SYS_set_robust_list,
            libc::SYS_arch_prctl,
            libc::SYS_rseq,
            libc::SYS_futex,
            libc::SYS_sched_yield,
            libc::SYS_sched_getaffinity,
            libc::SYS_clock_gettime,
            libc::SYS_clock_getres,
            libc::SYS_gettimeofday,
            libc::SYS_time,
            libc::SYS_timerfd_settime,
            libc::SYS_getsockopt,
            libc::SYS_setsockopt,
            libc::SYS_getpeername,
            libc::SYS_getitimer,
            libc::SYS_getrusage,
            libc::SYS_membarrier,
            libc::SYS_inotify_rm_watch,
            libc::SYS_close_range,
            libc::SYS_getcpu,
            // The standard library waits for a child of its own with it, and asks again.
            libc::SYS_waitid,
        ],
    ),
    (
        "it does not return, or returns to where a signal was",
        &[libc::SYS_exit, libc::SYS_exit_group, libc::SYS_rt_sigreturn, libc::SYS_restart_syscall],
    ),
    ("musl's only answer to an error is to wait again", &[libc::SYS_nanosleep, libc::SYS_clock_nanosleep]),
];

/// What the tables know of a number.
pub enum Known {
    Fails(&'static Call),
    Spared,
    Unheard,
}

pub fn known(number: i64) -> Known {
    if let Some(call) = CALLS.iter().find(|call| call.number == number) {
        Known::Fails(call)
    } else if SPARED.iter().any(|(_, numbers)| numbers.contains(&number)) {
        Known::Spared
    } else {
        Known::Unheard
    }
}

pub fn named(name: &str) -> Option<&'static Call> {
    CALLS.iter().find(|call| call.name == name)
}

/// close(2) of Linux has released the descriptor also where it reports an error.
pub fn is_done_all_the_same(call: &Call) -> bool {
    call.number == libc::SYS_close
}

/// What stands behind an object that is non-blocking.
pub const NONBLOCKING: char = '!';

/// What `call` on `object` can answer.
pub fn errors(call: &str, object: &str) -> Vec<Errno> {
    // A binary that is not static is loaded by somebody else's code, and a trace is no part of the product.
    if ["/lib", "/usr/lib", "/etc/ld.so", "/traces"].iter().any(|no_part| object.starts_with(no_part)) {
        return Vec::new();
    }
    let mut errors = all_errors(call, object);
    if object.ends_with(NONBLOCKING) {
        errors.retain(|errno| *errno != Errno::INTR);
    }
    errors
}

fn all_errors(call: &str, object: &str) -> Vec<Errno> {
    let kind = Kind::of(object);
    let new_descriptor = [Errno::MFILE, Errno::NFILE, Errno::NOMEM];
    let written = object.ends_with("+w") || object.ends_with("+c");
    let mut errors = match (call, kind) {
        ("openat" | "openat2" | "open", kind) => {
            let mut errors = vec![Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::ACCESS];
            match kind {
                Kind::File => errors.push(Errno::IO),
                Kind::Cgroup if written => errors.extend([Errno::NODEV, Errno::ROFS]),
                Kind::Pipe | Kind::Device => errors.push(Errno::INTR),
                Kind::Cgroup | Kind::Proc | Kind::Socket | Kind::Event | Kind::Memory => {}
            }
            if written && kind == Kind::File {
                errors.extend([Errno::ROFS, Errno::INTR]);
            }
            if object.ends_with("+c") {
                errors.extend([Errno::NOSPC, Errno::DQUOT]);
            }
            errors
        }
        ("read" | "pread64" | "readv", Kind::File) => vec![Errno::IO, Errno::INTR],
        ("read" | "pread64" | "readv", Kind::Memory) => vec![],
        ("read" | "pread64" | "readv", Kind::Proc) => vec![Errno::NOMEM],
        ("read" | "pread64" | "readv", Kind::Cgroup) => vec![Errno::NODEV, Errno::NOMEM],
        ("read" | "readv", _) => vec![Errno::INTR],
        ("write" | "pwrite64" | "writev", Kind::File) => {
            vec![Errno::NOSPC, Errno::IO, Errno::DQUOT, Errno::ROFS, Errno::INTR]
        }
        ("write" | "writev", Kind::Cgroup) => {
            vec![Errno::BUSY, Errno::NODEV, Errno::PERM, Errno::NOMEM, Errno::INTR]
        }
        ("write" | "writev" | "pwrite64" | "ftruncate", Kind::Memory) => vec![Errno::NOMEM, Errno::INTR],
        ("write" | "writev", Kind::Proc) => vec![Errno::PERM, Errno::NOMEM],
        ("write" | "writev", Kind::Pipe) => vec![Errno::INTR],
        ("write" | "writev", Kind::Socket) => {
            vec![Errno::PIPE, Errno::AGAIN, Errno::INTR, Errno::NOBUFS, Errno::CONNRESET]
        }
        ("write" | "writev", Kind::Event | Kind::Device) => vec![Errno::INTR],
        // What was written to it and could not be kept: NFS, quotas.
        ("close", Kind::File) if object.contains("+w") && object.starts_with("/opt/data") => {
            vec![Errno::IO, Errno::INTR, Errno::NOSPC]
        }
        ("close", _) => vec![Errno::INTR],
        ("fsync" | "fdatasync" | "syncfs", _) => vec![Errno::IO, Errno::NOSPC, Errno::DQUOT],
        ("ftruncate" | "truncate", _) => vec![Errno::IO, Errno::INTR, Errno::ROFS],
        ("fallocate", _) => vec![Errno::NOSPC, Errno::IO, Errno::INTR, Errno::OPNOTSUPP, Errno::DQUOT],
        ("fstat" | "fstatfs", Kind::File) => vec![Errno::IO, Errno::NOMEM],
        ("fstat" | "fstatfs" | "getsockname", _) => vec![Errno::NOMEM],
        ("newfstatat" | "statx" | "stat" | "lstat" | "statfs", _) => {
            vec![Errno::ACCESS, Errno::IO, Errno::NOMEM]
        }
        ("faccessat" | "faccessat2" | "access", _) => vec![Errno::ACCESS, Errno::IO, Errno::ROFS],
        ("readlinkat" | "readlink", _) => vec![Errno::ACCESS, Errno::IO, Errno::NOMEM],
        ("getdents64", Kind::File) => vec![Errno::IO, Errno::NOMEM],
        ("getdents64", _) => vec![Errno::NOMEM],
        ("mkdirat" | "mkdir", Kind::Cgroup) => {
            vec![Errno::AGAIN, Errno::NOMEM, Errno::ACCESS, Errno::NODEV, Errno::NOSPC, Errno::ROFS]
        }
        ("mkdirat" | "mkdir" | "mknodat" | "mknod" | "linkat" | "link" | "symlink", _) => {
            vec![Errno::NOSPC, Errno::ROFS, Errno::ACCESS, Errno::IO, Errno::NOMEM, Errno::DQUOT]
        }
        ("unlinkat" | "rmdir" | "unlink", Kind::Cgroup) => vec![Errno::BUSY, Errno::ACCESS, Errno::ROFS],
        ("unlinkat" | "rmdir" | "unlink", _) => vec![Errno::BUSY, Errno::IO, Errno::ROFS, Errno::ACCESS],
        ("renameat" | "renameat2" | "rename", _) => {
            vec![Errno::NOSPC, Errno::IO, Errno::ROFS, Errno::ACCESS, Errno::DQUOT]
        }
        ("fchmod" | "fchmodat" | "fchmodat2" | "chmod" | "fchown" | "fchownat" | "chown" | "lchown", _) => {
            vec![Errno::PERM, Errno::ROFS, Errno::IO]
        }
        ("utimensat", _) => vec![Errno::PERM, Errno::ROFS, Errno::ACCESS],
        ("name_to_handle_at", _) => vec![Errno::OPNOTSUPP],
        ("chdir" | "fchdir" | "chroot" | "getcwd", _) => vec![Errno::ACCESS, Errno::NOENT],
        ("flock", _) => vec![Errno::INTR, Errno::NOLCK],
        ("fcntl", _) => fcntl(object),
        ("ioctl", _) => vec![Errno::NOTTY],
        ("socket" | "socketpair", _) => vec![Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM],
        ("bind", _) => vec![Errno::ADDRINUSE, Errno::ACCESS, Errno::ROFS, Errno::NOMEM],
        ("listen", _) => vec![Errno::ADDRINUSE],
        ("accept" | "accept4", _) => vec![
            Errno::MFILE,
            Errno::NFILE,
            Errno::NOBUFS,
            Errno::NOMEM,
            Errno::CONNABORTED,
            Errno::INTR,
            Errno::PERM,
        ],
        ("connect", _) => vec![Errno::CONNREFUSED, Errno::AGAIN, Errno::INTR, Errno::ACCESS],
        // A packet of ours to ours: that the other one is gone would be a lie.
        ("sendmsg", _) => vec![Errno::AGAIN, Errno::INTR, Errno::NOBUFS, Errno::NOMEM],
        ("sendto", _) => {
            vec![Errno::AGAIN, Errno::INTR, Errno::NOBUFS, Errno::NOMEM, Errno::PIPE, Errno::CONNRESET]
        }
        ("recvmsg", _) => vec![Errno::INTR],
        ("recvfrom", _) => vec![Errno::INTR, Errno::CONNRESET],
        ("shutdown", _) => vec![Errno::NOTCONN],
        ("epoll_wait" | "epoll_pwait", _) => vec![Errno::INTR],
        ("epoll_ctl", _) if object.contains(",1") => vec![Errno::NOMEM, Errno::NOSPC],
        // EPOLL_CTL_DEL and EPOLL_CTL_MOD of what is registered have none.
        ("epoll_ctl", _) => vec![],
        ("inotify_add_watch", _) => vec![Errno::NOSPC, Errno::NOMEM, Errno::ACCESS],
        ("poll" | "ppoll", _) => vec![Errno::INTR, Errno::NOMEM],
        (
            "pipe2" | "eventfd2" | "timerfd_create" | "signalfd4" | "inotify_init1" | "epoll_create1"
            | "memfd_create" | "pidfd_open" | "pidfd_getfd",
            _,
        ) => new_descriptor.to_vec(),
        ("dup" | "dup2" | "dup3", _) => vec![Errno::MFILE, Errno::INTR],
        ("clone" | "fork" | "vfork", _) => vec![Errno::AGAIN, Errno::NOMEM],
        ("clone3", _) => vec![Errno::AGAIN, Errno::NOMEM, Errno::NOSYS, Errno::BUSY, Errno::ACCESS],
        ("execve" | "execveat", _) => {
            vec![Errno::ACCESS, Errno::NOMEM, Errno::TXTBSY, Errno::AGAIN, Errno::IO, Errno::NOENT]
        }
        ("wait4", _) => vec![Errno::INTR],
        ("kill" | "tgkill" | "pidfd_send_signal", _) => vec![Errno::PERM, Errno::AGAIN],
        ("prctl", _) => prctl(object),
        ("prlimit64", _) if object == "read" => vec![],
        ("setsid" | "setpgid" | "setgid" | "setresgid" | "capset" | "prlimit64", _) => vec![Errno::PERM],
        ("setgroups", _) => vec![Errno::PERM, Errno::NOMEM],
        ("setuid" | "setresuid", _) => vec![Errno::PERM, Errno::AGAIN],
        ("unshare" | "setns" | "mount" | "umount2", _) => vec![Errno::PERM, Errno::NOMEM, Errno::NOSPC],
        ("fsopen" | "fsmount" | "fsconfig" | "move_mount" | "open_tree" | "mount_setattr", _) => {
            vec![Errno::PERM, Errno::NOMEM, Errno::MFILE]
        }
        ("landlock_create_ruleset", _) => vec![Errno::NOSYS, Errno::OPNOTSUPP, Errno::MFILE],
        ("landlock_restrict_self", _) => vec![Errno::PERM, Errno::TOOBIG],
        ("seccomp", _) => vec![Errno::ACCESS, Errno::NOMEM],
        ("getrandom", _) => vec![Errno::INTR, Errno::NOSYS],
        ("copy_file_range" | "tee" | "splice" | "sendfile", _) => vec![Errno::IO, Errno::NOMEM, Errno::AGAIN],
        _ => vec![],
    };
    errors.dedup();
    errors
}

/// F_DUPFD and F_DUPFD_CLOEXEC make a descriptor, F_OFD_SETLK and F_SETLK a lock; the others read or set a flag.
fn fcntl(object: &str) -> Vec<Errno> {
    match object.rsplit_once(',').map_or("", |(_, operation)| operation) {
        "0" | "1030" => vec![Errno::MFILE],
        "6" | "7" | "37" | "38" => vec![Errno::NOLCK, Errno::INTR],
        "1031" => vec![Errno::PERM, Errno::BUSY],
        _ => vec![],
    }
}

/// Of what the supervisor asks, only this can be refused: PR_CAPBSET_DROP, PR_SET_SECUREBITS, PR_CAP_AMBIENT.
fn prctl(object: &str) -> Vec<Errno> {
    match object {
        ",24" | ",28" | ",47" => vec![Errno::PERM],
        _ => vec![],
    }
}

/// The errors by name: as they are written in a replay and shown in the table.
macro_rules! names {
    ($($constant:ident $name:ident),+ $(,)?) => {
        const NAMES: &[(Errno, &str)] = &[$((Errno::$constant, stringify!($name))),+];
    };
}

names! {
    ACCESS EACCES, ADDRINUSE EADDRINUSE, AGAIN EAGAIN, BUSY EBUSY, CONNABORTED ECONNABORTED, CONNREFUSED ECONNREFUSED,
    CONNRESET ECONNRESET, DQUOT EDQUOT, INTR EINTR, IO EIO, MFILE EMFILE, NFILE ENFILE, NOBUFS ENOBUFS, NODEV ENODEV,
    NOENT ENOENT, NOLCK ENOLCK, NOMEM ENOMEM, NOSPC ENOSPC, NOSYS ENOSYS, NOTCONN ENOTCONN, NOTTY ENOTTY,
    OPNOTSUPP EOPNOTSUPP, PERM EPERM, PIPE EPIPE, ROFS EROFS, TOOBIG E2BIG, TXTBSY ETXTBSY,
}

pub fn name(errno: Errno) -> &'static str {
    NAMES.iter().find(|(known, _)| *known == errno).map_or("?", |(_, name)| name)
}

pub fn by_name(name: &str) -> Option<Errno> {
    NAMES.iter().find(|(_, known)| *known == name).map(|(errno, _)| *errno)
}
