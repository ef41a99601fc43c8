//! Where our own cgroup is among the mounts that we can see.
//!
//! The path in /proc/self/cgroup is relative to our cgroup namespace, the root of a mount likewise, and a container
//! may show us any part of the tree under any name. So a candidate counts only when its `cgroup.procs` lists us.

use super::private::PrivateMount;
use super::probe::Refusal;
use crate::sys::mount::{self, CgroupMount};
use std::collections::VecDeque;
use std::io;
use std::path::{Component, Path, PathBuf};

/// Our own cgroup, found and believed.
#[derive(Debug, Clone)]
pub struct Place {
    /// Where it is in the file system.
    pub dir: PathBuf,
    /// Its path in the hierarchy, as /proc/self/cgroup has it.
    pub cgroup: PathBuf,
    /// A limit of the kernel's own root is out of reach, so there we need not leave before enabling controllers.
    pub is_real_root: bool,
    /// Nobody but us sees the mount; `dir` leads into it while this lives.
    pub private: Option<PrivateMount>,
    /// Children can be born in a cgroup, and live: tried by the probe.
    pub born: bool,
}

impl Place {
    /// A directory in it for people. The path of a mount of our own says nothing to anybody.
    pub fn shown(&self, name: &str) -> String {
        match self.private {
            Some(_) => format!("its own mount of cgroup2/{name}"),
            None => self.dir.join(name).display().to_string(),
        }
    }
}

/// Why there is no place; a fragment for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    #[error("no cgroup v2 file system is mounted")]
    NoMount,
    #[error("the cgroup v2 mounts do not show our own cgroup {0}")]
    NotShown(String),
    #[error("{0} is mounted read-only")]
    ReadOnly(String),
    #[error("/proc cannot be read: {0}")]
    Proc(String),
    #[error("the mount does not show our own cgroup")]
    NotOurs,
}

/// The leaf into which the supervisor moves itself before it enables controllers.
pub const OWN_LEAF: &str = "supervisor";

/// `memory.events` of the nearest cgroup at or above ours that has one and can be seen; the kernel's own root has none.
pub fn own_memory_events() -> Option<PathBuf> {
    own_with("memory.events").into_iter().next().map(|dir| dir.join("memory.events"))
}

/// The directory of the cgroup that we and our services are in, where it has `cpu.pressure` and can be seen.
pub fn own_pressure() -> Option<PathBuf> {
    own_with("cpu.pressure").into_iter().find(|dir| dir.file_name().is_none_or(|name| name != OWN_LEAF))
}

/// The directories of the cgroups at or above ours that have `file` and can be seen, the nearest first.
pub fn own_with(file: &str) -> Vec<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let Some(cgroup) = own_cgroup(&text) else { return Vec::new() };
    let of = |mount: &CgroupMount| {
        let own = find_self(mount, &cgroup)?;
        let here = own.ancestors().take_while(|dir| dir.starts_with(&mount.point));
        Some(here.filter(|dir| dir.join(file).exists()).map(Path::to_owned).collect::<Vec<_>>())
    };
    let mounts = mount::cgroup2_mounts().unwrap_or_default();
    mounts.iter().filter_map(of).find(|dirs| !dirs.is_empty()).unwrap_or_default()
}

impl From<io::Error> for NoPlace {
    fn from(error: io::Error) -> Self {
        Self::Proc(error.to_string())
    }
}

/// Finds our cgroup on a writable mount, making a read-only one writable where that is ours to do.
///
/// # Errors
/// [`NoPlace`]: in words for `doctor`.
pub fn own_place() -> Result<Place, NoPlace> {
    let cgroup = own_cgroup(&std::fs::read_to_string("/proc/self/cgroup")?).ok_or(NoPlace::NoMount)?;
    let mut mounts = mount::cgroup2_mounts()?;
    if mounts.is_empty() {
        return Err(NoPlace::NoMount);
    }
    // Writable ones first.
    mounts.sort_by_key(|mount| mount.read_only);
    let mut refused = None;
    for mount in &mounts {
        let Some(dir) = find_self(mount, &cgroup) else { continue };
        if mount.read_only {
            let ours = mount::in_container() && !mount.read_only_below;
            if !ours || mount::remount_writable(&mount.point).is_err() {
                refused = Some(NoPlace::ReadOnly(mount.point.display().to_string()));
                continue;
            }
        }
        return Ok(above_own_leaf(Place {
            is_real_root: is_real_root(&dir),
            dir,
            cgroup,
            private: None,
            born: false,
        }));
    }
    Err(refused.unwrap_or_else(|| NoPlace::NotShown(cgroup.display().to_string())))
}

/// Our own cgroup on a mount of our own.
///
/// # Errors
/// [`Refusal::Place`] or [`Refusal::Mount`].
pub fn private_place() -> Result<Place, Refusal> {
    let text = std::fs::read_to_string("/proc/self/cgroup").map_err(NoPlace::from)?;
    let cgroup = own_cgroup(&text).ok_or(NoPlace::NoMount)?;
    let mount = PrivateMount::make()?;
    let dir = mount.path();
    if !lists_us(&dir) {
        return Err(NoPlace::NotOurs.into());
    }
    Ok(Place { is_real_root: is_real_root(&dir), dir, cgroup, private: Some(mount), born: false })
}

/// Directories in which the cgroup with this path (as [`Place::cgroup`]) may be visible now, and what keeps them so. If
/// it can be written nowhere, a mount of our own comes first.
pub fn visible(cgroup: &Path) -> Vec<(PathBuf, Option<PrivateMount>)> {
    let mounts = mount::cgroup2_mounts().unwrap_or_default();
    let shown = |mount: &CgroupMount| map(mount, cgroup).filter(|dir| dir.exists());
    let writable = mounts.iter().any(|mount| !mount.read_only && shown(mount).is_some());
    let private = || {
        let place = private_place().ok()?;
        let dir = place.dir.join(cgroup.strip_prefix(&place.cgroup).ok()?);
        Some((dir, place.private))
    };
    let private = if writable { None } else { private() };
    private.into_iter().chain(mounts.iter().filter_map(|mount| Some((shown(mount)?, None)))).collect()
}

/// A supervisor that was started inside the leaf of an earlier life of itself makes its directories beside that leaf.
fn above_own_leaf(place: Place) -> Place {
    let is_leaf = place.cgroup.file_name().is_some_and(|name| name == OWN_LEAF)
        && place.dir.file_name().is_some_and(|name| name == OWN_LEAF);
    match (place.dir.parent(), place.cgroup.parent()) {
        (Some(dir), Some(cgroup)) if is_leaf => Place {
            is_real_root: is_real_root(dir),
            dir: dir.to_owned(),
            cgroup: cgroup.to_owned(),
            private: None,
            born: false,
        },
        _ => place,
    }
}

/// Only the kernel's root has no `cgroup.events` (cgroup-v2.rst, "Core Interface Files").
pub fn is_real_root(dir: &Path) -> bool {
    !dir.join("cgroup.events").exists()
}

/// The `0::` line; a " (deleted)" cgroup is no place.
fn own_cgroup(text: &str) -> Option<PathBuf> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    (!path.ends_with(" (deleted)")).then(|| PathBuf::from(path))
}

fn map(mount: &CgroupMount, cgroup: &Path) -> Option<PathBuf> {
    if escapes(&mount.root) || escapes(cgroup) {
        return None;
    }
    Some(mount.point.join(cgroup.strip_prefix(&mount.root).ok()?))
}

fn escapes(path: &Path) -> bool {
    path.components().any(|part| part == Component::ParentDir)
}

fn find_self(mount: &CgroupMount, cgroup: &Path) -> Option<PathBuf> {
    map(mount, cgroup).filter(|dir| lists_us(dir)).or_else(|| search(&mount.point))
}

/// Breadth first: with `--cgroupns=host` and one subtree mounted under another name no prefix fits, but we are in it.
fn search(point: &Path) -> Option<PathBuf> {
    const MOST: usize = 2000;
    let mut queue = VecDeque::from([point.to_owned()]);
    let mut looked_at = 0;
    while let Some(dir) = queue.pop_front() {
        if lists_us(&dir) {
            return Some(dir);
        }
        looked_at += 1;
        let room = MOST.saturating_sub(looked_at + queue.len());
        let below = std::fs::read_dir(&dir).into_iter().flatten().flatten();
        let dirs = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        queue.extend(dirs.take(room).map(|entry| entry.path()));
    }
    None
}

fn lists_us(dir: &Path) -> bool {
    let own = std::process::id().to_string();
    std::fs::read_to_string(dir.join("cgroup.procs")).is_ok_and(|list| list.lines().any(|pid| pid == own))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(root: &str) -> CgroupMount {
        CgroupMount {
            root: root.into(),
            point: "/sys/fs/cgroup".into(),
            read_only: false,
            read_only_below: false,
        }
    }

    #[test]
    fn the_path_is_mapped_through_whole_private_and_partial_mounts() {
        let at = |root, cgroup: &str| map(&mount(root), Path::new(cgroup));
        assert_eq!(at("/", "/"), Some("/sys/fs/cgroup/".into()));
        assert_eq!(at("/", "/docker/abc"), Some("/sys/fs/cgroup/docker/abc".into()));
        assert_eq!(at("/docker/abc", "/docker/abc/x"), Some("/sys/fs/cgroup/x".into()));
        assert_eq!(at("/docker/other", "/docker/abc"), None);
        assert_eq!(at("/..", "/"), None, "a mount from above our namespace has to be searched");
        assert_eq!(at("/", "/../x"), None);
    }

    #[test]
    fn the_unified_line_is_found_among_those_of_v1() {
        assert_eq!(own_cgroup("9:name=systemd:/a\n0::/b/c\n"), Some("/b/c".into()));
        assert_eq!(own_cgroup("9:name=systemd:/a\n"), None);
        assert_eq!(own_cgroup("0::/b (deleted)\n"), None);
    }
}
