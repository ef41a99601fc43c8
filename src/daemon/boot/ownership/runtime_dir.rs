//! The runtime directory of an instance: FIFOs, the sockets of keepers without a supervisor, the roster, the sign that we live.
//!
//! It lies in memory where there is any, which is found by trying: beside the control socket if that is in memory, else in
//! /dev/shm. On a disk each FIFO is an inode, and the loop would wait for the journal to make it and again to remove it: in a
//! plain `docker run`, /run is on overlay.
//!
//! Everybody may write to /dev/shm, and several containers may share it. So the directory has the name of the instance there,
//! which no two states have; what has that name and is not ours, or could be entered by others, or is a link, is left alone and
//! our place is beside the socket. Others cannot rename ours: /dev/shm is sticky and root's, or it is not used.
//!
//! A predecessor of this boot may have chosen otherwise, as another release or with another socket. Its choice holds while what
//! it left may go on: FIFOs are not moved.

use crate::daemon::boot::ownership::identity::Kinship;
use crate::daemon::boot::steps::start_error::StartError;
use crate::sys::mount;
use rustix::fs::{Mode, OFlags};
use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Where every system has memory by a name: shm_overview(7).
pub(in crate::daemon) const SHARED_MEMORY: &str = "/dev/shm";
/// Room for the roster of two thousand lives; a FIFO or a socket has no pages.
const ROOM: u64 = 1 << 20;
/// Inodes that must be free: those of two thousand services.
const INODES: u64 = 4096;

/// The places where a runtime directory may be.
#[derive(Debug, Clone, Copy)]
pub(in crate::daemon) struct Places<'a> {
    /// The directory of the control socket.
    pub socket_dir: &'a Path,
    pub memory: &'a Path,
}

/// The directory that is ours, and those of this instance that are not used any more.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::daemon) struct Settled {
    pub dir: PathBuf,
    pub left: Vec<PathBuf>,
}

impl Places<'_> {
    /// Where `instance` can have its directory.
    pub fn of(self, instance: &str) -> [PathBuf; 2] {
        let name = instance.get(..12).unwrap_or(instance);
        [self.socket_dir.join(name), self.memory.join(format!("hermes-sup-{name}"))]
    }

    /// Chooses and makes the directory of `instance`. `known`: that of the last supervisor on its state, if that was in this boot
    /// and among the processes that we see.
    ///
    /// # Errors
    /// It cannot be had beside the socket either.
    pub fn settle(
        self,
        instance: &str,
        known: Option<&Path>,
        kinship: Kinship,
    ) -> Result<Settled, StartError> {
        let goes_on = known.filter(|dir| kinship == Kinship::Predecessor && is_ours(dir));
        let [beside, memory] = self.of(instance);
        let dir = match goes_on {
            Some(dir) => dir.to_owned(),
            None if mount::is_in_memory(self.socket_dir) => make(&beside)?,
            None if self.has_memory() && make(&memory).is_ok() => memory.clone(),
            None => make(&beside)?,
        };
        let ended = known.filter(|_| kinship == Kinship::Replaced).map(Path::to_owned);
        let others = [beside, memory].into_iter().chain(ended);
        let left = others.filter(|other| *other != dir && is_ours(other)).collect();
        Ok(Settled { dir, left })
    }

    /// There is memory of that name with room in it, and nobody but root can give our directory there another name.
    fn has_memory(self) -> bool {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(dir) = rustix::fs::open(self.memory, flags, Mode::empty()) else { return false };
        let own = rustix::process::geteuid().as_raw();
        let is_kept = rustix::fs::fstat(&dir).is_ok_and(|stat| {
            let mode = Mode::from_raw_mode(stat.st_mode);
            let shared = mode.intersects(Mode::WGRP | Mode::WOTH);
            (stat.st_uid == 0 || stat.st_uid == own) && (!shared || mode.contains(Mode::SVTX))
        });
        // No blocks, no inodes: without a bound.
        let has_room = rustix::fs::fstatvfs(&dir).is_ok_and(|fs| {
            let bytes = fs.f_bavail.saturating_mul(fs.f_frsize);
            (fs.f_blocks == 0 || bytes >= ROOM) && (fs.f_files == 0 || fs.f_favail >= INODES)
        });
        is_kept && has_room && mount::is_in_memory(self.memory)
    }
}

/// Made, or there and ours.
fn make(dir: &Path) -> Result<PathBuf, StartError> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => Ok(dir.to_owned()),
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(StartError::RuntimeDirectory { dir: dir.to_owned(), what: "made", error })
        }
        Err(_) if is_ours(dir) => Ok(dir.to_owned()),
        Err(_) => Err(StartError::InTheWay(dir.to_owned())),
    }
}

/// A directory, and no link to one, that only we can enter.
pub(in crate::daemon) fn is_ours(dir: &Path) -> bool {
    std::fs::symlink_metadata(dir).is_ok_and(|meta| {
        meta.is_dir() && meta.uid() == rustix::process::geteuid().as_raw() && meta.mode() & 0o077 == 0
    })
}

/// Removes directories of ours, on a thread of its own: they may lie on a disk. What cannot be removed is in nobody's way.
pub(in crate::daemon) fn remove(dirs: Vec<PathBuf>) {
    if dirs.is_empty() {
        return;
    }
    let work = move || dirs.iter().for_each(|dir| drop(std::fs::remove_dir_all(dir)));
    let _ = std::thread::Builder::new().name("left-overs".to_owned()).spawn(work);
}

/// What is in it goes by itself when the container ends. /dev/shm may be that of a machine, or of other containers.
pub(in crate::daemon) fn goes_with_the_container(dir: &Path) -> bool {
    !dir.starts_with(SHARED_MEMORY) && mount::is_in_memory(dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    const INSTANCE: &str = "0123456789abcdef0123456789abcdef";

    /// A directory on a disk, and one in memory with the mode of /dev/shm.
    struct Ground {
        disk: tempfile::TempDir,
        memory: tempfile::TempDir,
    }

    impl Ground {
        /// `None` where there is no disk, or no memory.
        fn new() -> Option<Self> {
            let memory = tempfile::tempdir_in(SHARED_MEMORY).ok()?;
            fs::set_permissions(memory.path(), PermissionsExt::from_mode(0o1777)).unwrap();
            let disk = tempfile::tempdir().unwrap();
            let differ = mount::is_in_memory(memory.path()) && !mount::is_in_memory(disk.path());
            differ.then_some(Self { disk, memory })
        }

        fn places(&self) -> Places<'_> {
            Places { socket_dir: self.disk.path(), memory: self.memory.path() }
        }

        fn settle(&self, known: Option<&Path>, kinship: Kinship) -> Settled {
            self.places().settle(INSTANCE, known, kinship).unwrap()
        }

        fn chosen(&self) -> PathBuf {
            self.settle(None, Kinship::Predecessor).dir
        }

        fn mode(&self, mode: u32) {
            fs::set_permissions(self.memory.path(), PermissionsExt::from_mode(mode)).unwrap();
        }
    }

    #[test]
    fn it_is_in_memory_and_closed_and_found_again() {
        let Some(ground) = Ground::new() else { return };
        let [_, memory] = ground.places().of(INSTANCE);
        assert_eq!(ground.chosen(), memory);
        assert_eq!(fs::metadata(&memory).unwrap().mode() & 0o7777, 0o700);
        fs::write(memory.join("roster"), "").unwrap();
        assert_eq!(ground.chosen(), memory);
        assert!(memory.join("roster").exists(), "what a predecessor left in it is still there");
        // A socket in memory has it beside it.
        let places = Places { socket_dir: ground.memory.path(), memory: ground.memory.path() };
        let beside = places.settle(INSTANCE, None, Kinship::Predecessor).unwrap();
        assert_eq!(beside, Settled { dir: places.of(INSTANCE)[0].clone(), left: vec![memory] });
    }

    /// Everybody may write to /dev/shm, and the name can be guessed from the arguments of a keeper.
    #[test]
    fn what_is_in_the_way_in_memory_is_neither_entered_nor_followed() {
        let Some(ground) = Ground::new() else { return };
        let [beside, memory] = ground.places().of(INSTANCE);
        let victim = ground.disk.path().join("victim");
        DirBuilder::new().mode(0o700).create(&victim).unwrap();
        symlink(&victim, &memory).unwrap();
        assert_eq!(ground.settle(None, Kinship::Predecessor), Settled { dir: beside.clone(), left: vec![] });
        assert!(memory.is_symlink() && fs::read_dir(&victim).unwrap().next().is_none());
        fs::remove_file(&memory).unwrap();
        fs::write(&memory, "").unwrap();
        assert_eq!(ground.chosen(), beside);
        fs::remove_file(&memory).unwrap();
        fs::create_dir(&memory).unwrap();
        fs::set_permissions(&memory, PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(ground.chosen(), beside, "others can enter it");
        if rustix::process::geteuid().is_root() {
            fs::set_permissions(&memory, PermissionsExt::from_mode(0o700)).unwrap();
            std::os::unix::fs::chown(&memory, Some(65534), None).unwrap();
            assert_eq!(ground.settle(None, Kinship::Predecessor), Settled { dir: beside, left: vec![] });
        }
    }

    #[test]
    fn memory_where_anybody_can_rename_ours_is_none() {
        let Some(ground) = Ground::new() else { return };
        let [beside, memory] = ground.places().of(INSTANCE);
        for mode in [0o777, 0o775] {
            ground.mode(mode);
            assert_eq!(ground.chosen(), beside, "{mode:o}");
        }
        ground.mode(0o755);
        assert_eq!(ground.chosen(), memory);
        let nowhere = Places { memory: Path::new("/nowhere"), ..ground.places() };
        assert_eq!(nowhere.settle(INSTANCE, None, Kinship::Predecessor).unwrap().dir, beside);
        let disk = Places { memory: ground.disk.path(), ..ground.places() };
        assert_eq!(disk.settle(INSTANCE, None, Kinship::Predecessor).unwrap().dir, beside);
    }

    /// Of another release, or with another socket: its FIFOs are where its services write.
    #[test]
    fn a_predecessors_choice_holds_while_what_it_left_may_go_on() {
        let Some(ground) = Ground::new() else { return };
        let [beside, memory] = ground.places().of(INSTANCE);
        make(&beside).unwrap();
        let known = Some(beside.as_path());
        assert_eq!(ground.settle(known, Kinship::Predecessor), Settled { dir: beside.clone(), left: vec![] });
        // In another boot nothing of it lives: ours is in memory, and what is left of it is in nobody's way.
        let settled = Settled { dir: memory.clone(), left: vec![beside.clone()] };
        assert_eq!(ground.settle(None, Kinship::Predecessor), settled);
        // Under the old id there is nothing that goes on.
        let other = "f".repeat(32);
        let settled = ground.places().settle(&other, known, Kinship::Replaced).unwrap();
        assert_eq!(settled, Settled { dir: ground.places().of(&other)[1].clone(), left: vec![beside] });
    }
}
