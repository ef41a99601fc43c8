//! How far a definition may be believed, judged from where it lies and who could have written it.
//!
//! A path is walked from `/`, one component at a time, and every directory on the way is looked at by its descriptor,
//! so what is judged is what is opened. What comes out is one of three:
//!
//! * [`Trust::Trusted`]: nobody but root (and we ourselves) can change it. It may name any user.
//! * [`Trust::Untrusted`]: the gateway user can change it too. It is read with that user's credentials and runs as that
//!   user, for whom it could as well have been written. Everything below the home directory is of this kind at most,
//!   also where another owns it: the owner of the volume's directories can rename our files and plant others.
//! * [`Trust::Stranger`]: somebody else can change it. It is refused, or it would give its writer the rights of the
//!   gateway user, who may be root.
//!
//! Two things make up for permissions. On a read-only mount the bits give nobody here anything, so only the owner
//! counts: Kubernetes mounts a ConfigMap as a directory that all could write. In a sticky directory nobody can replace
//! what somebody else owns, so there each entry is judged by itself.
//!
//! A symbolic link counts where only those who are trusted, or a read-only mount of root's, can have made it.

use super::stamp::Stamp;
use super::users::Surroundings;
use crate::sys::beneath::Beneath;
use crate::sys::credentials::Credentials;
use crate::sys::users::{self, User};
use rustix::buffer::spare_capacity;
use rustix::fs::{FileType, OFlags, Stat, StatVfsMountFlags};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

/// Links followed in one path before it counts as a loop; the kernel's own bound (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// Who can have written a source, besides root and ourselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// Nobody. It may name users and rights.
    Trusted,
    /// The user that it is read for. With the reason, as the end of a sentence about the file.
    Untrusted(String),
    /// Somebody else, likewise.
    Stranger(String),
}

impl Trust {
    /// Why it is not trusted; `None`: it is.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Trusted => None,
            Self::Untrusted(reason) | Self::Stranger(reason) => Some(reason),
        }
    }

    /// Of both, what is trusted less.
    fn and(self, other: Self) -> Self {
        match (&self, &other) {
            (Self::Trusted, _) | (Self::Untrusted(_), Self::Stranger(_)) => other,
            _ => self,
        }
    }
}

/// An open directory of definitions.
#[derive(Debug)]
pub struct Place {
    /// How it was reached, itself at the end; never empty.
    way: Vec<Step>,
}

impl Place {
    /// Opens the directory `path` (absolute).
    ///
    /// # Errors
    /// As openat(2); `PermissionDenied` for a link that others could have planted, and below home for a directory that
    /// neither the gateway user nor we own or that others can write.
    pub fn open(path: &Path, surroundings: &Surroundings) -> io::Result<Self> {
        let mut walk = Walk::new(surroundings, &surroundings.gateway, false);
        walk.walk_to(path)?;
        Ok(Self { way: walk.way })
    }

    fn last(&self) -> Option<&Step> {
        self.way.last()
    }

    pub fn trust(&self) -> &Trust {
        self.last().map_or(&Trust::Trusted, |step| &step.trust)
    }

    /// The open directory itself, for what is not a definition; who may use it is then the caller's matter.
    ///
    /// # Errors
    /// Never in practice: a place is a directory.
    pub fn into_dir(mut self) -> io::Result<Beneath> {
        self.way.pop().map(|step| step.dir).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Names in the directory, sorted.
    ///
    /// # Errors
    /// As getdents64(2).
    pub fn list(&self, surroundings: &Surroundings) -> io::Result<Vec<OsString>> {
        let step = self.last().ok_or(io::ErrorKind::NotFound)?;
        step.act(&surroundings.gateway.credentials(), || step.dir.list())
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
        let step = self.last().ok_or(io::ErrorKind::NotFound)?;
        let mut walk = Walk::new(surroundings, &surroundings.gateway, false);
        let (file, stat, trust) = match walk.open(step, name.as_os_str())? {
            Found::File(file, stat, trust) => (file, stat, trust),
            Found::Link(target) => {
                walk.way = self.way.iter().map(Step::duplicate).collect::<io::Result<_>>()?;
                walk.follow()?;
                walk.open_at(&target)?
            }
        };
        Ok((read_bounded(file, &stat, limit)?, trust, Stamp::of(&stat)))
    }
}

/// Whose rights open a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eyes {
    /// Those of the user that it is read for.
    Users,
    /// Ours, where nobody but root can have put it; elsewhere the user's.
    Ours,
}

/// Reads a file that one particular user's service wants, with the rights that `eyes` says. Nobody but root and that user may
/// be able to change it. Below home that is the gateway user alone.
///
/// # Errors
/// As [`Place::read`]; `PermissionDenied` when somebody else could have written it.
pub fn read_private(
    path: &Path,
    user: &User,
    limit: u64,
    surroundings: &Surroundings,
    eyes: Eyes,
) -> io::Result<Vec<u8>> {
    let mut walk = Walk::new(surroundings, user, true);
    walk.eyes = eyes;
    let (file, stat, trust) = walk.open_at(path)?;
    match trust {
        Trust::Trusted | Trust::Untrusted(_) => read_bounded(file, &stat, limit),
        // Root has put it there, and nobody but its owner writes it: a secret of the world outside.
        Trust::Stranger(_) if eyes == Eyes::Ours && walk.is_roots_place() && writable(&file, &stat) == 0 => {
            read_bounded(file, &stat, limit)
        }
        Trust::Stranger(reason) => Err(denied(format!("may have been written by somebody else: {reason}"))),
    }
}

/// Whether nobody but root can put a file into this directory (absolute), nor another directory in its place.
pub fn is_roots_alone(path: &Path) -> bool {
    reached(path, 0).is_ok_and(|trust| trust == Trust::Trusted)
}

/// Whether nobody but root and the user `uid` can put a file into this directory (absolute), nor another directory in
/// its place. One that is not there counts if nobody else can make it.
pub fn is_filled_by(path: &Path, uid: u32) -> bool {
    let trust = reached(path, uid).or_else(|(error, trust)| match error.kind() {
        io::ErrorKind::NotFound => Ok(trust),
        _ => Err(error),
    });
    path.is_absolute() && trust.is_ok_and(|trust| trust == Trust::Trusted)
}

/// How far `path` is trusted when all that count are root and `uid`; with an error, how far that is which was reached.
fn reached(path: &Path, uid: u32) -> Result<Trust, (io::Error, Trust)> {
    let user = users::nameless(uid, uid);
    let around = Surroundings { home: PathBuf::new(), gateway: user.clone(), own_uid: uid };
    let mut walk = Walk::new(&around, &user, false);
    let walked = walk.walk_to(path);
    let nowhere = Trust::Stranger("it leads nowhere".to_owned());
    let trust = walk.way.last().map_or(nowhere, |step| step.trust.clone());
    walked.map_err(|error| (error, trust.clone())).map(|()| trust)
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

fn denied(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

/// A directory on the way.
#[derive(Debug)]
struct Step {
    dir: Beneath,
    trust: Trust,
    /// It is the home directory or lies below it.
    in_home: bool,
    /// Only somebody who is trusted can have made the links in it.
    links: bool,
}

impl Step {
    fn duplicate(&self) -> io::Result<Self> {
        let dir = self.dir.dir(Path::new(""))?;
        Ok(Self { dir, trust: self.trust.clone(), in_home: self.in_home, links: self.links })
    }

    /// Runs `work` with the credentials that fit this directory: where it is trusted ours, else, and where ours do not
    /// suffice (root without CAP_DAC_OVERRIDE), those of `user`.
    fn act<T>(&self, user: &Credentials, work: impl Fn() -> io::Result<T>) -> io::Result<T> {
        if self.trust == Trust::Trusted {
            match work() {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                done => return done,
            }
        }
        user.on_files(work)?
    }
}

/// What a name in a directory is.
enum Found {
    File(File, Stat, Trust),
    /// A link that counts, with its target.
    Link(PathBuf),
}

/// A walk along a path. `..` goes back to the directory we came through.
struct Walk<'a> {
    around: &'a Surroundings,
    /// Whom it is read for: may change it, short of naming somebody else.
    user: &'a User,
    credentials: Credentials,
    /// Only for that user's own eyes: its own links count.
    private: bool,
    /// Of a private one.
    eyes: Eyes,
    home: Option<Stat>,
    way: Vec<Step>,
    links: usize,
    /// What is behind a link is not trusted more than the link.
    least: Trust,
}

impl<'a> Walk<'a> {
    fn new(around: &'a Surroundings, user: &'a User, private: bool) -> Self {
        let credentials = user.credentials();
        let (way, links, least) = (Vec::new(), 0, Trust::Trusted);
        Self { around, user, credentials, private, eyes: Eyes::Users, home: None, way, links, least }
    }

    /// Goes to the directory `path`: absolute, or from where we are.
    fn walk_to(&mut self, path: &Path) -> io::Result<()> {
        let mut left = self.begin(path)?;
        while let Some(name) = left.pop_front() {
            if name == ".." {
                self.back()?;
            } else if let Some(target) = self.enter(&name)? {
                let mut further = self.begin(&target)?;
                further.append(&mut left);
                left = further;
            }
        }
        Ok(())
    }

    /// Opens the file `path`: absolute, or from where we are.
    fn open_at(&mut self, path: &Path) -> io::Result<(File, Stat, Trust)> {
        let mut path = path.to_owned();
        loop {
            let name = path.file_name().ok_or_else(|| denied("is not a file".to_owned()))?.to_owned();
            self.walk_to(path.parent().unwrap_or(Path::new("")))?;
            let step = self.way.last().ok_or(io::ErrorKind::NotFound)?;
            match self.open(step, &name)? {
                Found::File(file, stat, trust) => return Ok((file, stat, trust)),
                Found::Link(target) => path = target,
            }
            self.follow()?;
        }
    }

    /// Where `path` begins, entered, and the names that are left of it.
    fn begin(&mut self, path: &Path) -> io::Result<VecDeque<OsString>> {
        if !path.is_absolute() {
            return Ok(names(path));
        }
        self.way.clear();
        let home = &self.around.home;
        if home.is_absolute()
            && let Ok(below) = path.strip_prefix(home)
        {
            self.home()?;
            return Ok(names(below));
        }
        self.home = self.home.or_else(|| rustix::fs::stat(home).ok());
        let dir = Beneath::open(Path::new("/"))?;
        self.judged(dir, "directory /".to_owned())?;
        Ok(names(path))
    }

    /// The home directory by its name, which is the operator's and may lead through links.
    fn home(&mut self) -> io::Result<()> {
        let home = &self.around.home;
        if self.user.uid == 0 && self.around.gateway.uid == 0 {
            // A user that can put another directory in its place could have anything run as root.
            let outside = Surroundings { home: PathBuf::new(), ..self.around.clone() };
            let mut walk = Walk::new(&outside, self.user, self.private);
            walk.walk_to(home)?;
            if let Some(Trust::Stranger(reason)) = walk.way.last().map(|step| &step.trust) {
                return Err(denied(format!("--home may be replaced by somebody else: {reason}")));
            }
        }
        self.push_home(Beneath::open(home)?)
    }

    fn push_home(&mut self, dir: Beneath) -> io::Result<()> {
        if self.user.uid != self.around.gateway.uid {
            let gateway = &self.around.gateway.name;
            return Err(denied(format!("lies below --home, where only services of '{gateway}' may read it")));
        }
        let reason = format!("this one is below --home {}", self.around.home.display());
        let trust = self.least.clone().and(Trust::Untrusted(reason));
        self.way.push(Step { dir, trust, in_home: true, links: false });
        Ok(())
    }

    fn back(&mut self) -> io::Result<()> {
        match self.way.as_slice() {
            // The parent of / is / itself.
            [root] if !root.in_home => Ok(()),
            [_] => Err(denied("leads out of --home".to_owned())),
            _ => {
                self.way.pop();
                Ok(())
            }
        }
    }

    /// Enters a directory; or the target of the link that it is, if it counts.
    fn enter(&mut self, name: &OsStr) -> io::Result<Option<PathBuf>> {
        let step = self.way.last().ok_or(io::ErrorKind::NotFound)?;
        let dir = match step.act(&self.credentials, || step.dir.dir(Path::new(name))) {
            Ok(dir) => dir,
            Err(error) => {
                // O_DIRECTORY with O_NOFOLLOW answers ENOTDIR to a link as to a file: only readlink tells.
                let Ok(target) = self.target(step, name) else { return Err(error) };
                let link = step.dir.path().join(name);
                if !step.links {
                    let reason = step.trust.reason().unwrap_or_default();
                    let shown = link.display();
                    return Err(denied(format!(
                        "{shown} is a symbolic link that others may have planted: {reason}"
                    )));
                }
                self.follow()?;
                return Ok(Some(target));
            }
        };
        let stat = rustix::fs::fstat(&dir)?;
        let is_home = |home: &Stat| (home.st_dev, home.st_ino) == (stat.st_dev, stat.st_ino);
        if step.in_home {
            belongs_to_home(&dir, &stat, self.around, dir.path())?;
            let links = is_frozen(&dir, &stat);
            let trust = self.least.clone().and(step.trust.clone());
            self.way.push(Step { dir, trust, in_home: true, links });
        } else if self.home.as_ref().is_some_and(is_home) {
            self.push_home(dir)?;
        } else {
            let what = format!("directory {}", dir.path().display());
            self.judged(dir, what)?;
        }
        Ok(None)
    }

    /// Pushes a directory outside home.
    fn judged(&mut self, dir: Beneath, what: String) -> io::Result<()> {
        let stat = rustix::fs::fstat(&dir)?;
        let parent = self.way.last();
        let before = parent.map_or(self.least.clone(), |step| self.least.clone().and(step.trust.clone()));
        let own = self.around.is_trusted_owner(stat.st_uid) || (self.private && stat.st_uid == self.user.uid);
        let closed = own && writable(&dir, &stat) == 0;
        let links = (closed && parent.is_none_or(|step| step.links)) || is_frozen(&dir, &stat);
        let trust = before.and(self.judge(&dir, &stat, &what));
        self.way.push(Step { dir, trust, in_home: false, links });
        Ok(())
    }

    /// Opens the file `name` of a directory.
    fn open(&self, step: &Step, name: &OsStr) -> io::Result<Found> {
        let open = || step.dir.open_known_file(Path::new(name), OFlags::RDONLY, 0);
        let opened = match self.private && self.eyes == Eyes::Users {
            true => self.credentials.on_files(open).and_then(|opened| opened),
            false => step.act(&self.credentials, open),
        };
        let (file, stat) = match opened {
            Ok(opened) => opened,
            Err(error) if Errno::from_io_error(&error) == Some(Errno::LOOP) => {
                if !step.links {
                    return Err(denied("is a symbolic link; put the file itself here".to_owned()));
                }
                return self.target(step, name).map(Found::Link);
            }
            Err(error) => return Err(error),
        };
        let mut trust = self.least.clone().and(step.trust.clone());
        if step.in_home {
            belongs_to_home(&file, &stat, self.around, &step.dir.path().join(name))?;
        } else {
            trust = trust.and(self.judge(&file, &stat, "this file"));
        }
        Ok(Found::File(file, stat, trust))
    }

    /// Nobody but root can put a file where we are.
    fn is_roots_place(&self) -> bool {
        self.least == Trust::Trusted && self.way.last().is_some_and(|step| step.trust == Trust::Trusted)
    }

    /// Where a link leads.
    fn target(&self, step: &Step, name: &OsStr) -> io::Result<PathBuf> {
        let read = || Ok(rustix::fs::readlinkat(&step.dir, Path::new(name), Vec::new())?);
        Ok(PathBuf::from(OsString::from_vec(step.act(&self.credentials, read)?.into_bytes())))
    }

    /// Counts a link of where we are.
    fn follow(&mut self) -> io::Result<()> {
        self.links += 1;
        if self.links > MOST_LINKS {
            return Err(Errno::LOOP.into());
        }
        if let Some(step) = self.way.last() {
            self.least = self.least.clone().and(step.trust.clone());
        }
        Ok(())
    }

    /// Who can change it? A group's right to write shows ACLs too: its bits are their mask (acl(5)).
    fn judge(&self, file: impl AsFd, stat: &Stat, what: &str) -> Trust {
        // A simulation is its user's own, wherever in memory it lies.
        #[cfg(test)]
        if crate::sys::time::played::is_on() {
            return Trust::Trusted;
        }
        let owner = stat.st_uid;
        let by_owner = format!("{what} is owned by uid {owner}");
        let by_owner = match owner {
            _ if self.around.is_trusted_owner(owner) => Trust::Trusted,
            // Nobody in here can be a user of the world outside.
            _ if owner == self.user.uid || users::is_unmapped(owner) => Trust::Untrusted(by_owner),
            _ => Trust::Stranger(by_owner),
        };
        let bits = writable(file, stat);
        let mode = stat.st_mode & 0o777;
        let by_others = format!("{what} can be written by others (mode {mode:03o})");
        let others = match bits {
            0 => Trust::Trusted,
            _ if is_sticky(stat) => Trust::Untrusted(by_others),
            0o020 if is_own_group(self.user, stat.st_gid) => Trust::Untrusted(by_others),
            _ => Trust::Stranger(by_others),
        };
        by_owner.and(others)
    }
}

/// The components that matter for a walk.
fn names(path: &Path) -> VecDeque<OsString> {
    let relevant = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(relevant).collect()
}

/// The bits that let others than the owner write, as far as they have an effect.
fn writable(file: impl AsFd, stat: &Stat) -> u32 {
    let bits = stat.st_mode & 0o022;
    if bits != 0 && is_on_read_only_mount(file) { 0 } else { bits }
}

/// Root's, on a read-only mount.
fn is_frozen(dir: &Beneath, stat: &Stat) -> bool {
    stat.st_uid == 0 && is_on_read_only_mount(dir)
}

fn is_on_read_only_mount(file: impl AsFd) -> bool {
    rustix::fs::fstatvfs(file).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// A directory in which only the owner of an entry, its own and root can rename or remove the entry.
fn is_sticky(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory && stat.st_mode & 0o1000 != 0
}

/// What the members of this group can write, the user can. For root that is not enough: others are in its group, as in
/// OpenShift, where every container's user is.
fn is_own_group(user: &User, gid: u32) -> bool {
    user.uid != 0 && (gid == user.gid || user.groups.contains(&gid))
}

/// Refuses what somebody else than the gateway user, root and we can have put below home. The group may write if the
/// gateway user is in it: Kubernetes sets volumes up so (fsGroup).
fn belongs_to_home(file: impl AsFd, stat: &Stat, surroundings: &Surroundings, path: &Path) -> io::Result<()> {
    let gateway = &surroundings.gateway;
    let denied = |why: String| Err(denied(format!("{} {why}", path.display())));
    if stat.st_uid != gateway.uid && !surroundings.is_trusted_owner(stat.st_uid) {
        let owner = stat.st_uid;
        return denied(format!(
            "belongs to uid {owner}, not to '{}': chown it, if you trust it",
            gateway.name
        ));
    }
    match writable(file, stat) {
        0 => Ok(()),
        0o020 if is_own_group(gateway, stat.st_gid) => Ok(()),
        _ => denied("can be written by others: chmod go-w it, if you trust it".to_owned()),
    }
}
