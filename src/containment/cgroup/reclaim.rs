//! `memory.reclaim` of a life (Linux 5.19): the kernel takes back, once, what the life holds and has not used lately.

use crate::sys::kernel_text;
use rustix::fs::{Access, AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The cgroup of a life.
#[derive(Debug)]
pub struct Reclaim(OwnedFd);

impl Reclaim {
    /// # Errors
    /// `ENOENT` without the memory controller, and on a kernel that has no such file.
    pub fn open(tree: BorrowedFd<'_>, leaf: &str) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(tree, leaf, flags, Mode::empty())?;
        rustix::fs::accessat(&dir, "memory.reclaim", Access::WRITE_OK, AtFlags::EACCESS)?;
        Ok(Self(dir))
    }

    /// Takes back what is on the kernel's inactive lists, and blocks for as long as that takes: seconds, where it has to be
    /// written to a slow swap. Returns by how many bytes the life uses less then.
    ///
    /// # Errors
    /// Those of reading and writing the kernel's files; `ENOENT` when the life is gone.
    pub fn run(&self) -> io::Result<u64> {
        let before = self.current()?;
        let inactive = inactive(&kernel_text::read_at(&self.0, "memory.stat")?);
        if inactive == 0 {
            return Ok(0);
        }
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(self.0.as_fd(), "memory.reclaim", flags, Mode::empty())?;
        match rustix::io::write(&file, inactive.to_string().as_bytes()) {
            // EAGAIN: it was less than that (cgroup-v2.rst, "memory.reclaim").
            Ok(_) | Err(Errno::AGAIN) => Ok(before.saturating_sub(self.current()?)),
            Err(error) => Err(error.into()),
        }
    }

    fn current(&self) -> io::Result<u64> {
        let text = kernel_text::read_at(&self.0, "memory.current")?;
        text.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into())
    }
}

/// Bytes that have not been used lately, of files and, for the swap, of other memory.
fn inactive(stat: &str) -> u64 {
    let of = |key: &str| -> u64 {
        let value = stat.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        value.and_then(|value| value.parse().ok()).unwrap_or(0)
    };
    of("inactive_file").saturating_add(of("inactive_anon"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_lately_is_asked_back_and_nothing_where_there_is_no_controller() {
        let dir = tempfile::tempdir().unwrap();
        let tree = rustix::fs::open(dir.path(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let leaf = dir.path().join("svc.1");
        std::fs::create_dir(&leaf).unwrap();
        assert_eq!(Reclaim::open(tree.as_fd(), "svc.1").unwrap_err().kind(), io::ErrorKind::NotFound);
        let stat = "anon 9000\nfile 5000\ninactive_anon 100\nactive_anon 8900\ninactive_file 4000\n";
        for (name, text) in [("memory.reclaim", ""), ("memory.current", "14000\n"), ("memory.stat", stat)] {
            std::fs::write(leaf.join(name), text).unwrap();
        }
        let reclaim = Reclaim::open(tree.as_fd(), "svc.1").unwrap();
        assert_eq!(reclaim.run().unwrap(), 0, "no kernel takes anything from this one");
        assert_eq!(std::fs::read_to_string(leaf.join("memory.reclaim")).unwrap(), "4100");
        assert_eq!(inactive("inactive_file_x 7\n"), 0);
        std::fs::remove_file(leaf.join("memory.current")).unwrap();
        assert!(reclaim.run().is_err());
    }
}
