//! Whose state this is: the original's, or a copy of it that somebody restored, or tries something on, beside it.
//!
//! A copy has the instance id of the original, and with it the names of its cgroups, the marks of its processes and the
//! directory of its FIFOs. So a copy gets an id of its own before anything is looked for, and nothing that the note names is
//! touched. Two things tell it: where the state lies, and whether the supervisor that the note names is alive, which cannot
//! be, as we hold the lock of its state.

use crate::containment::Predecessor;
use crate::daemon::boot::ownership::runtime_dir::{Places, SHARED_MEMORY, Settled, is_ours};
use crate::daemon::boot::steps::start_error::StartError;
use crate::store::{self, Lies, Opened};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Who we are, and how far what the note of the last supervisor names is ours.
#[derive(Debug)]
pub(in crate::daemon) struct Identity {
    pub instance: String,
    /// Ours alone, for FIFOs and keepers.
    pub runtime_dir: PathBuf,
    /// Those that nothing of ours will be in, once a predecessor's processes have ended.
    pub left: Vec<PathBuf>,
    /// Held as long as we live: it tells others of this instance that we do.
    pub alive: Option<File>,
    pub kinship: Kinship,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::daemon) enum Kinship {
    /// The last supervisor on this very state, which is dead: what it left is ours.
    Predecessor,
    /// The state at this path was replaced, by a backup or by a filesystem that numbers its files anew; who had it is dead.
    /// What it left is to end, but nothing of it goes on.
    Replaced,
    /// Another supervisor's: nothing of it is ours.
    Stranger(Copied),
    /// That of a supervisor that is alive, although we have the lock: somebody has removed the file that it had locked, or there
    /// are no locks here.
    InUse,
}

/// What shows that a state is a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::daemon) enum Copied {
    #[error("the supervisor that it names is alive")]
    Lives,
    #[error("it lies elsewhere")]
    Elsewhere,
}

/// What is known of the supervisor that the note names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::daemon) struct Named {
    /// It runs, and it is not we.
    pub lives: bool,
    /// It was among the processes that we see, in this boot, and had its state at the path of ours.
    pub was_here: bool,
}

pub(in crate::daemon) fn judge(lies: Option<&Lies>, lay: Option<&Lies>, named: Named) -> Kinship {
    let elsewhere = lies.zip(lay).is_some_and(|(now, then)| !now.is_same(then));
    let same = lies.zip(lay).is_some_and(|(now, then)| now.is_same(then));
    match (named.lives, elsewhere) {
        (true, _) if same => Kinship::InUse,
        (true, _) => Kinship::Stranger(Copied::Lives),
        (false, false) => Kinship::Predecessor,
        (false, true) if named.was_here => Kinship::Replaced,
        (false, true) => Kinship::Stranger(Copied::Elsewhere),
    }
}

impl Identity {
    /// Finds out, and takes possession of a runtime directory. `note` is of the last supervisor on the state at `state`.
    ///
    /// # Errors
    /// The runtime directory cannot be had.
    pub fn settle(
        opened: &Opened,
        note: Option<&Predecessor>,
        state: &Path,
        socket_dir: &Path,
    ) -> Result<Self, StartError> {
        let places = Places { socket_dir, memory: Path::new(SHARED_MEMORY) };
        // Of somebody who sees other processes, a directory of that name is another one.
        let named = note.filter(|note| note.is_here()).map(|note| note.runtime_dir.as_path());
        let own = places.of(&opened.instance);
        let lives = own.iter().map(PathBuf::as_path).chain(named).any(is_alive)
            || note.is_some_and(Predecessor::lives);
        let was_here = note.is_some_and(|note| note.is_here() && note.state.as_deref() == Some(state));
        let kinship = judge(opened.lies.as_ref(), opened.lay.as_ref(), Named { lives, was_here });
        let instance = match kinship {
            Kinship::Predecessor => opened.instance.clone(),
            Kinship::Replaced | Kinship::Stranger(_) => store::new_instance(),
            Kinship::InUse => {
                let pid = note.and_then(|note| note.pid).map(|(pid, _)| pid);
                return Err(StartError::Unlocked { state: state.to_owned(), pid });
            }
        };
        let Settled { dir: runtime_dir, left } = places.settle(&instance, named, kinship)?;
        let alive = claim(&runtime_dir);
        Ok(Self { instance, runtime_dir, left, alive, kinship })
    }
}

/// The file in a runtime directory that its supervisor has locked.
const ALIVE: &str = "alive";

/// Says that we live here. `None`: there are no locks.
fn claim(runtime_dir: &Path) -> Option<File> {
    let open = File::options().write(true).create(true).truncate(false).open(runtime_dir.join(ALIVE));
    open.ok().filter(|file| store::lock_alone(file).unwrap_or(false))
}

/// Whether a supervisor lives there. In a directory of somebody else's there may be anything under that name.
fn is_alive(runtime_dir: &Path) -> bool {
    is_ours(runtime_dir)
        && File::open(runtime_dir.join(ALIVE)).is_ok_and(|file| matches!(store::lock_alone(&file), Ok(false)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEAD: Named = Named { lives: false, was_here: false };
    const HERE: Named = Named { lives: false, was_here: true };
    const ALIVE_THERE: Named = Named { lives: true, was_here: false };
    const ALIVE_HERE: Named = Named { lives: true, was_here: true };

    fn at(inode: u64, born_ns: Option<u64>) -> Lies {
        Lies { inode, born_ns }
    }

    /// An ordinary restart, also after a remount, and the first start of a program that knows of places.
    #[test]
    fn a_state_that_lies_where_it_lay_is_the_original_if_nobody_has_it() {
        let here = at(7, Some(1));
        for (now, then) in [
            (Some(here), Some(here)),
            (Some(here), None),
            (None, Some(here)),
            (Some(at(7, None)), Some(here)),
        ] {
            for named in [DEAD, HERE] {
                assert_eq!(
                    judge(now.as_ref(), then.as_ref(), named),
                    Kinship::Predecessor,
                    "{now:?} {then:?}"
                );
            }
        }
    }

    #[test]
    fn what_lies_elsewhere_is_a_copy_and_so_is_what_names_a_living_one() {
        let (here, there) = (at(7, Some(1)), at(8, Some(1)));
        // Two filesystems may give the same number.
        for then in [there, at(7, Some(2))] {
            assert_eq!(judge(Some(&here), Some(&then), DEAD), Kinship::Stranger(Copied::Elsewhere));
            assert_eq!(judge(Some(&here), Some(&then), HERE), Kinship::Replaced);
        }
        for named in [ALIVE_THERE, ALIVE_HERE] {
            for then in [None, Some(&there)] {
                assert_eq!(judge(Some(&here), then, named), Kinship::Stranger(Copied::Lives));
            }
            assert_eq!(judge(Some(&here), Some(&here), named), Kinship::InUse);
        }
    }

    #[test]
    fn a_runtime_directory_belongs_to_one_supervisor_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        assert!(!is_alive(dir.path()), "nobody was there");
        let first = claim(dir.path());
        assert!(first.is_some() && is_alive(dir.path()));
        assert!(claim(dir.path()).is_none());
        drop(first);
        assert!(!is_alive(dir.path()));
        let again = claim(dir.path());
        assert!(again.is_some());
        // Who can open the directory can hold the lock as well.
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        assert!(!is_alive(dir.path()));
    }
}
