//! A document as a directory, and the place where it is laid out.
//!
//! ```text
//! -- web/run *
//! #!/bin/sh
//! -- web/down
//! -- web/log -> ../log
//! -- web/supervise |
//! ```
//!
//! `*` is a program, `->` a symbolic link, `|` a FIFO, `/` a directory. What leads out of the directory is left out. A document
//! that does not begin so is the content of one file.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Names of the place: the directory that `tests/lib/fuzz` removes afterwards.
pub const VARIABLE: &str = "HERMES_SUP_FUZZ_PLACE";
/// Files of one document, and names on the way to one.
const MOST_FILES: usize = 40;
const DEEPEST: usize = 6;

/// An empty directory, for one input; removed when it is dropped.
pub struct Place(PathBuf);

impl Place {
    pub fn new() -> Self {
        Self::below(in_memory())
    }

    /// Where only root can write, if we are root: what lies there is trusted, as the directories of an image are.
    pub fn of_root() -> Self {
        Self::below(if rustix::process::geteuid().is_root() { PathBuf::from("/run") } else { in_memory() })
    }

    fn below(parent: PathBuf) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let parent = std::env::var_os(VARIABLE).map_or(parent, PathBuf::from);
        let path = parent.join(format!("hermes-sup-fuzz.{}.{number}", std::process::id()));
        // Of an earlier process of this number, which was killed.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).expect("a directory for an input");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("its mode");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes the directory `name`, and in it what the document says; `file`: what a document is that is no directory.
    pub fn lay(&self, name: &str, document: &[u8], file: &str) -> PathBuf {
        let dir = self.0.join(name);
        std::fs::create_dir_all(&dir).expect("a directory of the document");
        if !document.starts_with(b"-- ") {
            std::fs::write(dir.join(file), document).expect("the document");
            return dir;
        }
        for (head, content) in entries(document).into_iter().take(MOST_FILES) {
            // What cannot be made (a file below a file, a name that is too long) is not there.
            let _ = make(&dir, head, content);
        }
        dir
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// In memory, where it can be had.
fn in_memory() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}

/// Heads of files with their contents.
fn entries(document: &[u8]) -> Vec<(&str, &[u8])> {
    let mut entries = Vec::new();
    let mut rest = document.strip_prefix(b"-- ");
    while let Some(text) = rest {
        let (head, after) = split(text, b"\n");
        // The end of a file is the line before the next head; a file without lines has none.
        let (content, next) = match after.strip_prefix(b"-- ") {
            Some(next) => (&after[..0], Some(next)),
            None => {
                let (content, next) = split(after, b"\n-- ");
                let whole = content.len() < after.len();
                (&after[..content.len() + usize::from(whole)], whole.then_some(next))
            }
        };
        if let Ok(head) = std::str::from_utf8(head) {
            entries.push((head, content));
        }
        rest = next;
    }
    entries
}

fn split<'a>(text: &'a [u8], by: &[u8]) -> (&'a [u8], &'a [u8]) {
    match text.windows(by.len()).position(|window| window == by) {
        Some(at) => (&text[..at], &text[at + by.len()..]),
        None => (text, &[]),
    }
}

fn make(dir: &Path, head: &str, content: &[u8]) -> std::io::Result<()> {
    let (path, link) = head.split_once(" -> ").map_or((head, None), |(path, target)| (path, Some(target)));
    let (path, program) = path.strip_suffix(" *").map_or((path, false), |path| (path, true));
    let (path, fifo) = path.strip_suffix(" |").map_or((path, false), |path| (path, true));
    if !stays_inside(path) {
        return Ok(());
    }
    let whole = dir.join(path);
    if path.ends_with('/') {
        return std::fs::create_dir_all(whole);
    }
    std::fs::create_dir_all(whole.parent().unwrap_or(dir))?;
    if let Some(target) = link {
        return if stays_inside(target) { symlink(target, whole) } else { Ok(()) };
    }
    if fifo {
        let mode = rustix::fs::Mode::from_raw_mode(0o644);
        return Ok(rustix::fs::mknodat(rustix::fs::CWD, whole, rustix::fs::FileType::Fifo, mode, 0)?);
    }
    // Through a link it would be written elsewhere.
    if std::fs::symlink_metadata(&whole).is_ok() || whole.parent().is_some_and(|way| !is_plain(dir, way)) {
        return Ok(());
    }
    std::fs::write(&whole, content)?;
    let mode = if program { 0o755 } else { 0o644 };
    std::fs::set_permissions(&whole, std::fs::Permissions::from_mode(mode))
}

/// No link is on the way.
fn is_plain(dir: &Path, way: &Path) -> bool {
    way.ancestors()
        .take_while(|above| *above != dir)
        .all(|above| std::fs::symlink_metadata(above).is_ok_and(|stat| stat.is_dir()))
}

fn stays_inside(path: &str) -> bool {
    let parts: Vec<Component<'_>> = Path::new(path).components().collect();
    let normal = |part: &Component<'_>| matches!(part, Component::Normal(_));
    !parts.is_empty() && parts.len() <= DEEPEST && parts.iter().all(normal) && !path.contains('\0')
}
