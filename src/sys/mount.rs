//! Mounts of cgroup2: where they are, making one of ours writable, making one that nobody else sees.
//!
//! Read from /proc/self/mountinfo (proc(5)) by hand and not through the procfs crate, which leaves the octal escapes
//! of odd path names as they are.
#![allow(unsafe_code)]

use linux_raw_sys::general::{RAMFS_MAGIC, TMPFS_MAGIC};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags};
use rustix::thread::UnshareFlags;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Whether what is there is in no disk's file system, and goes with its mount.
pub fn is_in_memory(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|fs| matches!(u32::try_from(fs.f_type), Ok(TMPFS_MAGIC | RAMFS_MAGIC)))
}

/// One mount of the cgroup2 file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupMount {
    /// The directory of the hierarchy that the mount shows, as seen from our cgroup namespace (`/..` when above it).
    pub root: PathBuf,
    pub point: PathBuf,
    /// This mount refuses writes.
    pub read_only: bool,
    /// The file system behind it does, so no remount of the mount alone can help.
    pub read_only_below: bool,
}

/// All cgroup2 mounts in the order of mountinfo: a later one on the same point hides an earlier one.
///
/// # Errors
/// When /proc is not mounted or cannot be read.
pub fn cgroup2_mounts() -> io::Result<Vec<CgroupMount>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// [`cgroup2_mounts`], read again only when a mount has changed.
#[derive(Debug, Default)]
pub struct Mounts {
    /// Of mountinfo, with what was in it.
    known: Option<(File, Vec<CgroupMount>)>,
}

impl Mounts {
    /// Those of now. A change marks the open file with a priority event (proc(5), "/proc/pid/mounts"), once for each
    /// poll(2).
    ///
    /// # Errors
    /// As [`cgroup2_mounts`].
    pub fn now(&mut self) -> io::Result<&[CgroupMount]> {
        let same = self.known.as_ref().is_some_and(|(file, _)| {
            let mut changed = [PollFd::new(file, PollFlags::PRI)];
            rustix::event::poll(&mut changed, Some(&Timespec::default())) == Ok(0)
        });
        let (mut file, mut mounts) = match self.known.take() {
            Some(known) => known,
            None => (File::open("/proc/self/mountinfo")?, Vec::new()),
        };
        if !same {
            let mut text = Vec::with_capacity(4096);
            file.rewind()?;
            file.read_to_end(&mut text)?;
            mounts = parse(&text);
        }
        Ok(&self.known.insert((file, mounts)).1)
    }
}

/// The process sees cgroup2 on read-only mounts alone, unlike us: it has mounts of its own. Not so of one that is gone.
pub fn sees_cgroups_read_only(pid: i32) -> bool {
    let mounts = std::fs::read(format!("/proc/{pid}/mountinfo")).map(|text| parse(&text)).unwrap_or_default();
    !mounts.is_empty() && mounts.iter().all(|mount| mount.read_only)
}

fn parse(mountinfo: &[u8]) -> Vec<CgroupMount> {
    let mut mounts: Vec<CgroupMount> = Vec::new();
    for line in mountinfo.split(|byte| *byte == b'\n') {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let &[_, _, _, root, point, options, ref rest @ ..] = fields.as_slice() else { continue };
        let point = unescape(point);
        mounts.retain(|older| older.point != point);
        let mut tail = rest.iter().skip_while(|field| **field != b"-").skip(1);
        let (kind, _source, below) = (tail.next(), tail.next(), tail.next());
        if kind != Some(&&b"cgroup2"[..]) {
            continue;
        }
        let read_only = |options: &[u8]| options.split(|byte| *byte == b',').any(|option| option == b"ro");
        mounts.push(CgroupMount {
            root: unescape(root),
            point,
            read_only: read_only(options),
            read_only_below: below.is_some_and(|options| read_only(options)),
        });
    }
    mounts
}

/// Undoes `\040` and its kin.
fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] if first == b'\\' => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => {
                out.push(first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

/// Makes this one mount writable, nothing else: a remount of the bind, so that the options of the shared superblock
/// (`nsdelegate` above all) stay as the host set them.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN, with a locked flag (mount_namespaces(7)) or under AppArmor's `deny mount`.
pub fn remount_writable(point: &Path) -> io::Result<()> {
    let flags = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(rustix::mount::mount_remount(point, flags, "")?)
}

/// Mounts a /proc for our PID namespace, seen in our mount namespace only; mounts made outside still come in.
///
/// # Errors
/// `EPERM` in a user namespace where the visible /proc is covered in part, as container engines do
/// (mount_namespaces(7)).
pub fn own_proc() -> io::Result<()> {
    let below = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", below)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(rustix::mount::mount("proc", "/proc", "proc", flags, None)?)
}

/// What [`private_cgroup2`] does, for words about its failure. The number travels from the helper to the supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum MountStep {
    Namespaces = 1,
    Mount,
    Open,
}

impl MountStep {
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::Namespaces, Self::Mount, Self::Open].into_iter().find(|step| *step as u8 == byte)
    }

    pub fn words(self) -> &'static str {
        match self {
            Self::Namespaces => "a user namespace",
            Self::Mount => "mount of cgroup2",
            Self::Open => "open of the mount",
        }
    }
}

/// Mounts cgroup2 in fresh user, mount and cgroup namespaces and returns its root, which is the caller's own cgroup.
/// Needs no capability: who makes a user namespace has all of them in it (user_namespaces(7)).
///
/// For a process made for this alone: it is left in those namespaces, and may have no other threads.
///
/// # Errors
/// The step, and the errno of unshare(2), fsmount(2), mount(2) or open(2).
pub fn private_cgroup2() -> Result<OwnedFd, (MountStep, i32)> {
    let at = |step| move |errno: Errno| (step, errno.raw_os_error());
    let fresh = UnshareFlags::NEWUSER | UnshareFlags::NEWNS | UnshareFlags::NEWCGROUP;
    // SAFETY: none of these flags changes what the descriptors of this process mean (that would be `FILES`).
    unsafe { rustix::thread::unshare_unsafe(fresh) }.map_err(at(MountStep::Namespaces))?;
    let made = rustix::mount::fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC).and_then(|context| {
        rustix::mount::fsconfig_create(&context)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    });
    match made {
        Ok(root) => Ok(root),
        // Kernels before 5.2, and filters that know only the older call. The point is any directory: nobody looks
        // through it, and the descriptor keeps the mount when this process and its namespaces are gone.
        Err(Errno::NOSYS | Errno::PERM) => {
            let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
            rustix::mount::mount("cgroup2", "/proc", "cgroup2", flags, None).map_err(at(MountStep::Mount))?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open("/proc", flags, Mode::empty()).map_err(at(MountStep::Open))
        }
        Err(errno) => Err((MountStep::Mount, errno.raw_os_error())),
    }
}

/// Whether we live in a container: our PID or our cgroup namespace is not the machine's first one, whose inode
/// numbers are fixed (include/linux/proc_ns.h, PROC_PID_INIT_INO and PROC_CGROUP_INIT_INO).
pub fn in_container() -> bool {
    let differs = |kind: &str, first: &str| {
        std::fs::read_link(format!("/proc/self/ns/{kind}"))
            .is_ok_and(|link| link.as_os_str().as_bytes() != format!("{kind}:[{first}]").as_bytes())
    };
    differs("pid", "4026531836") || differs("cgroup", "4026531835")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_that_comes_or_changes_is_seen_and_else_nothing_is_read() {
        let mut mounts = Mounts::default();
        let now = cgroup2_mounts().unwrap();
        assert_eq!(mounts.now().unwrap(), now);
        // What is known is believed as long as the kernel says nothing.
        let Some((_, known)) = &mut mounts.known else { panic!("nothing is known") };
        known.clear();
        assert_eq!(mounts.now().unwrap(), []);
        if !rustix::process::geteuid().is_root() {
            return; // Only root can mount; the host tier runs this as root.
        }
        let seen = std::thread::spawn(|| {
            // SAFETY: a mount namespace changes nothing about descriptors; this thread alone gets it.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }.ok()?;
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            rustix::mount::mount_change("/", private).ok()?;
            let dir = tempfile::tempdir().ok()?;
            let mut mounts =
                Mounts { known: Some((File::open("/proc/thread-self/mountinfo").ok()?, Vec::new())) };
            let mut points = || {
                let found = mounts.now().unwrap().iter();
                found
                    .filter(|mount| mount.point == dir.path())
                    .map(|mount| mount.read_only)
                    .collect::<Vec<_>>()
            };
            let before = points();
            rustix::mount::mount("cgroup2", dir.path(), "cgroup2", MountFlags::empty(), None).ok()?;
            let mounted = points();
            let read_only = MountFlags::BIND | MountFlags::RDONLY;
            rustix::mount::mount_remount(dir.path(), read_only, "").ok()?;
            let changed = points();
            rustix::mount::unmount(dir.path(), rustix::mount::UnmountFlags::empty()).ok()?;
            Some([before, mounted, changed, points()])
        });
        if let Some(seen) = seen.join().unwrap() {
            assert_eq!(seen, [vec![], vec![false], vec![true], vec![]]);
        }
    }

    /// Why mounts are read by hand.
    #[test]
    fn the_crate_does_not_read_odd_names() {
        use procfs::FromBufRead;
        let line = |point: &[u8]| [b"50 31 0:38 / ", point, b" ro,nosuid - cgroup2 none rw\n"].concat();
        let of_the_crate = |line: &[u8]| procfs::process::MountInfos::from_buf_read(line);
        let escaped = of_the_crate(&line(b"/mnt/x\\134y")).unwrap();
        let point = escaped.into_iter().next().unwrap().mount_point;
        assert_eq!(point, Path::new("/mnt/x\\134y"), "the crate undoes escapes now");
        assert!(of_the_crate(&line(b"/mnt/\xff")).is_err(), "the crate reads any name now");
        assert_eq!(parse(&line(b"/mnt/\xff"))[0].point.as_os_str().as_bytes(), b"/mnt/\xff");
    }

    #[test]
    fn mounts_are_found_beside_v1_with_odd_names_and_a_hidden_one_is_not() {
        let text = b"31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
            32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:1 master:2 - cgroup2 cgroup2 rw,nsdelegate\n\
            50 31 0:38 /a\\040b /mnt/x\\134y ro,nosuid - cgroup2 none rw\n\
            51 31 0:38 / /hidden rw - cgroup2 none rw\n\
            52 51 0:40 / /hidden rw - tmpfs none rw\n\
            short line\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 2, "{mounts:?}");
        assert_eq!(mounts[0].point, Path::new("/sys/fs/cgroup/unified"));
        assert!(!mounts[0].read_only);
        assert_eq!(mounts[1].root, Path::new("/a b"));
        assert_eq!(mounts[1].point, Path::new("/mnt/x\\y"));
        assert!(mounts[1].read_only && !mounts[1].read_only_below);
    }
}
