//! How far a definition may be believed, judged from where it lies and who could have written it.
//!
//! A path is walked from `/`, one component at a time, and every directory on the way is looked at by its descriptor,
//! so what is judged is what is opened. A symbolic link counts only in a directory that nobody but the owner of
//! everything here can write; elsewhere it is refused.
//!
//! Trusted is what nobody but root (and we ourselves) can change: such a file may name any user. Everything else is
//! read with the gateway user's credentials and runs as that user, because whoever can change it could as well have
//! written it. Below the home directory nothing is trusted, whoever owns it: the owner of the volume's directories can
//! rename our files and plant others. A file there still has to belong to that user, or it would give *its* writer the
//! gateway user's rights.

use super::stamp::Stamp;
use super::users::Surroundings;
use crate::sys::beneath::Beneath;
use crate::sys::users::User;
use rustix::buffer::spare_capacity;
use rustix::fs::{OFlags, Stat};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

/// Links followed in one path before it counts as a loop; the kernel's own bound (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// May this source name users and rights?
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    Trusted,
    /// With the reason, as the end of a sentence about the file.
    Untrusted(String),
}

/// An open directory of definitions.
#[derive(Debug)]
pub struct Place {
    dir: Beneath,
    trust: Trust,
    /// It is the home directory or lies below it.
    in_home: bool,
}

impl Place {
    /// Opens the directory `path` (absolute).
    ///
    /// # Errors
    /// As openat(2); `PermissionDenied` for a link that others could have planted, and below home for a directory that
    /// neither the gateway user nor we own or that others can write.
    pub fn open(path: &Path, surroundings: &Surroundings) -> io::Result<Self> {
        if let Ok(below) = path.strip_prefix(&surroundings.home) {
            return Self::open_in_home(below, surroundings);
        }
        let home = rustix::fs::stat(&surroundings.home).ok();
        let owners = |uid| surroundings.is_trusted_owner(uid);
        match walk(path, home.as_ref(), &owners)? {
            Walked::Home { below } => Self::open_in_home(&below, surroundings),
            Walked::Elsewhere { dir, trust } => Ok(Self { dir, trust, in_home: false }),
        }
    }

    fn open_in_home(below: &Path, surroundings: &Surroundings) -> io::Result<Self> {
        let home = Beneath::open(&surroundings.home)?;
        let dir = surroundings.gateway.credentials().on_files(|| -> io::Result<Beneath> {
            let mut dir = home;
            for component in below.components() {
                dir = dir.dir(Path::new(&component))?;
                belongs_to_home(&rustix::fs::fstat(&dir)?, surroundings, dir.path())?;
            }
            Ok(dir)
        })??;
        let reason = format!("this one is below --home {}", surroundings.home.display());
        Ok(Self { dir, trust: Trust::Untrusted(reason), in_home: true })
    }

    /// Runs `work` with the credentials that fit this place: ours where it is trusted, else the gateway user's.
    fn act<T>(&self, surroundings: &Surroundings, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self.trust {
            Trust::Trusted => work(),
            Trust::Untrusted(_) => surroundings.gateway.credentials().on_files(work)?,
        }
    }

    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The open directory itself, for what is not a definition; who may use it is then the caller's matter.
    pub fn into_dir(self) -> Beneath {
        self.dir
    }

    /// Names in the directory, sorted.
    ///
    /// # Errors
    /// As getdents64(2).
    pub fn list(&self, surroundings: &Surroundings) -> io::Result<Vec<OsString>> {
        self.act(surroundings, || self.dir.list())
    }

    /// The content of the regular file `name`, at most `limit` bytes, how far it is to be believed, and which file it was.
    ///
    /// # Errors
    /// As openat(2) with O_NOFOLLOW; `FileTooLarge`; `PermissionDenied` as in [`Place::open`].
    pub fn read(
        &self,
        name: &Path,
        limit: u64,
        surroundings: &Surroundings,
    ) -> io::Result<(Vec<u8>, Trust, Stamp)> {
        let opened = self.act(surroundings, || self.dir.open_known_file(name, OFlags::RDONLY, 0));
        let (file, stat) = opened.map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::LOOP) => {
                let why = "is a symbolic link; put the file itself here";
                io::Error::new(io::ErrorKind::PermissionDenied, why)
            }
            _ => error,
        })?;
        let trust = if self.in_home {
            belongs_to_home(&stat, surroundings, &self.dir.path().join(name))?;
            self.trust.clone()
        } else {
            let owners = |uid| surroundings.is_trusted_owner(uid);
            self.trust.clone().and(judge(&stat, &owners, "this file"))
        };
        Ok((read_bounded(file, &stat, limit)?, trust, Stamp::of(&stat)))
    }
}

impl Trust {
    fn and(self, other: Self) -> Self {
        if self == Self::Trusted { other } else { self }
    }
}

/// Reads a file that one particular user's service wants, and that nobody but root or that user can have written.
/// Nothing below home qualifies: that is for services of the gateway user.
///
/// # Errors
/// As [`Place::read`]; `PermissionDenied` when somebody else could have written it.
pub fn read_private(
    path: &Path,
    user: &User,
    limit: u64,
    surroundings: &Surroundings,
) -> io::Result<Vec<u8>> {
    let denied = |why: String| io::Error::new(io::ErrorKind::PermissionDenied, why);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(denied("is not a file".to_owned()));
    };
    let below_home = || {
        denied(format!(
            "lies below --home, where only services of '{}' may read it",
            surroundings.gateway.name
        ))
    };
    if path.starts_with(&surroundings.home) {
        return Err(below_home());
    }
    let owners = |uid| uid == user.uid || surroundings.is_trusted_owner(uid);
    let home = rustix::fs::stat(&surroundings.home).ok();
    let Walked::Elsewhere { dir, trust } = walk(parent, home.as_ref(), &owners)? else {
        return Err(below_home());
    };
    let opened = user.credentials().on_files(|| dir.open_known_file(Path::new(name), OFlags::RDONLY, 0));
    let (file, stat) = opened??;
    match trust.and(judge(&stat, &owners, "the file")) {
        Trust::Trusted => read_bounded(file, &stat, limit),
        Trust::Untrusted(reason) => Err(denied(format!("may have been written by somebody else: {reason}"))),
    }
}

/// Reads a file of the gateway user. Below home no link is followed; elsewhere links lead where that user may go.
///
/// # Errors
/// As [`Place::read`].
pub fn read_as_gateway(path: &Path, limit: u64, surroundings: &Surroundings) -> io::Result<Vec<u8>> {
    let home = &surroundings.home;
    let (real, real_home) = if path.starts_with(home) {
        (path.to_owned(), home.clone())
    } else {
        let real = surroundings.gateway.credentials().on_files(|| std::fs::canonicalize(path))??;
        (real, std::fs::canonicalize(home).unwrap_or_else(|_| home.clone()))
    };
    if let Ok(below) = real.strip_prefix(real_home) {
        let parent = below.parent().unwrap_or(Path::new(""));
        let name = below.file_name().unwrap_or_default();
        let place = Place::open_in_home(parent, surroundings)?;
        return Ok(place.read(Path::new(name), limit, surroundings)?.0);
    }
    let (parent, name) = (real.parent().unwrap_or(Path::new("/")), real.file_name().unwrap_or_default());
    let parent = Beneath::open(parent)?;
    surroundings.gateway.credentials().on_files(|| parent.read(Path::new(name), limit))?
}

/// The size in `stat` only spares the buffer its growing, and a second read that would find the end where the first one
/// ended: the file may be another by now.
fn read_bounded(file: File, stat: &Stat, limit: u64) -> io::Result<Vec<u8>> {
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let mut bytes = Vec::with_capacity(usize::try_from(size.min(limit) + 1).unwrap_or(0));
    let first = rustix::io::retry_on_intr(|| rustix::io::read(&file, spare_capacity(&mut bytes)))? as u64;
    if first != size {
        file.take(limit + 1 - first).read_to_end(&mut bytes)?;
    }
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("is larger than {limit} bytes")));
    }
    Ok(bytes)
}

/// Where a path led.
enum Walked {
    /// Into the home directory, with this much of it left.
    Home {
        below: PathBuf,
    },
    Elsewhere {
        dir: Beneath,
        trust: Trust,
    },
}

/// Walks an absolute path to a directory. `..` goes back to the directory we came through.
fn walk(path: &Path, home: Option<&Stat>, owners: &dyn Fn(u32) -> bool) -> io::Result<Walked> {
    let mut links = 0;
    let mut left: VecDeque<OsString> = names(path);
    let mut passed: Vec<(Beneath, Trust)> = Vec::new();
    loop {
        let (dir, trust) = match passed.pop() {
            Some(deepest) => deepest,
            None => {
                let root = Beneath::open(Path::new("/"))?;
                let trust = judge(&rustix::fs::fstat(&root)?, owners, "directory /");
                (root, trust)
            }
        };
        let Some(name) = left.pop_front() else { return Ok(Walked::Elsewhere { dir, trust }) };
        if name == ".." {
            continue;
        }
        match dir.dir(Path::new(&name)) {
            Ok(next) => {
                let stat = rustix::fs::fstat(&next)?;
                if home.is_some_and(|home| (home.st_dev, home.st_ino) == (stat.st_dev, stat.st_ino)) {
                    return Ok(Walked::Home { below: left.into_iter().collect() });
                }
                let what = format!("directory {}", next.path().display());
                let next_trust = trust.clone().and(judge(&stat, owners, &what));
                passed.push((dir, trust));
                passed.push((next, next_trust));
            }
            Err(error) => {
                // O_DIRECTORY with O_NOFOLLOW answers ENOTDIR to a link as to a file: only readlink tells.
                let Ok(target) = rustix::fs::readlinkat(&dir, Path::new(&name), Vec::new()) else {
                    return Err(error);
                };
                let link = dir.path().join(&name);
                links += 1;
                if let Trust::Untrusted(reason) = &trust {
                    let why = format!(
                        "{} is a symbolic link that others may have planted: {reason}",
                        link.display()
                    );
                    return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
                }
                if links > MOST_LINKS {
                    return Err(Errno::LOOP.into());
                }
                let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                if target.is_absolute() {
                    passed.clear();
                } else {
                    passed.push((dir, trust));
                }
                for name in names(&target).into_iter().rev() {
                    left.push_front(name);
                }
            }
        }
    }
}

/// The components that matter for a walk from `/`.
fn names(path: &Path) -> VecDeque<OsString> {
    let relevant = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(relevant).collect()
}

/// Whether nobody but root can put a file into this directory (absolute), nor another directory in its place.
pub fn is_roots_alone(path: &Path) -> bool {
    let walked = walk(path, None, &|uid| uid == 0);
    matches!(walked, Ok(Walked::Elsewhere { trust: Trust::Trusted, .. }))
}

/// Can nobody but these owners change it? A group's right to write shows ACLs too: its bits are their mask (acl(5)).
fn judge(stat: &Stat, owners: &dyn Fn(u32) -> bool, what: &str) -> Trust {
    if !owners(stat.st_uid) {
        return Trust::Untrusted(format!("{what} is owned by uid {}", stat.st_uid));
    }
    if stat.st_mode & 0o022 != 0 {
        return Trust::Untrusted(format!(
            "{what} can be written by others (mode {:03o})",
            stat.st_mode & 0o777
        ));
    }
    Trust::Trusted
}

/// Refuses what somebody else than the gateway user, root and we can have put below home. The group may write if the
/// gateway user is in it: Kubernetes sets volumes up so (fsGroup).
fn belongs_to_home(stat: &Stat, surroundings: &Surroundings, path: &Path) -> io::Result<()> {
    let gateway = &surroundings.gateway;
    let denied = |why: String| {
        Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("{} {why}", path.display())))
    };
    if stat.st_uid != gateway.uid && !surroundings.is_trusted_owner(stat.st_uid) {
        let owner = stat.st_uid;
        return denied(format!(
            "belongs to uid {owner}, not to '{}': chown it, if you trust it",
            gateway.name
        ));
    }
    let own_group = stat.st_gid == gateway.gid || gateway.groups.contains(&stat.st_gid);
    if stat.st_mode & 0o002 != 0 || (stat.st_mode & 0o020 != 0 && !own_group) {
        return denied("can be written by others: chmod go-w it, if you trust it".to_owned());
    }
    Ok(())
}
