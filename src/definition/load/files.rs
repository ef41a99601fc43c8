//! The directories and files that hold definitions: listed and read, not yet understood.

use crate::definition::diagnose::About;
use crate::definition::stamp::Stamp;
use crate::definition::trust::{Place, Trust};
use crate::definition::users::Surroundings;
use rustix::io::Errno;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest definition, in bytes. The time to parse a hostile one grows with the square of the size: 0.2 s for this.
pub const MOST_BYTES: u64 = 64 << 10;
/// Most definitions of one directory.
pub(super) const MOST_FILES: usize = 10_000;

/// What is said of a file that is not there yet.
pub const LATE: &str = "is still being read: it is taken when its volume has answered";

/// A file that has been read, or could not be, and has not yet been understood.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub(super) path: PathBuf,
    pub(super) trust: Trust,
    pub(super) text: Result<String, Unread>,
    /// `None`: it could not be read.
    pub(super) stamp: Option<Stamp>,
}

/// Why there is no text.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Unread {
    #[error("{0}")]
    Failed(Arc<io::Error>),
    #[error("is not UTF-8 text")]
    NotText,
    #[error("{LATE}")]
    Late,
}

impl Unread {
    pub(super) fn about(&self) -> About {
        match self {
            // An error without a number is our own judgement of what lies there.
            Self::Failed(error)
                if error.raw_os_error().is_some_and(|code| code != Errno::NOENT.raw_os_error()) =>
            {
                About::Unread
            }
            Self::Failed(_) | Self::NotText => About::Text,
            Self::Late => About::Late,
        }
    }
}

/// A directory of definitions and the names in it, none of them read yet.
#[derive(Debug)]
pub struct Listed {
    pub place: Place,
    /// Paths, sorted.
    pub files: Vec<PathBuf>,
    /// There are more than are read.
    pub cut: bool,
}

/// What was found in one directory.
#[derive(Debug)]
pub struct Directory {
    pub path: PathBuf,
    pub read: Result<Vec<Candidate>, UnreadDirectory>,
    /// There are more than are read.
    pub cut: bool,
}

/// Why it is not known what is in a directory.
#[derive(Debug, thiserror::Error)]
pub enum UnreadDirectory {
    #[error("the directory is still being read")]
    Late,
    /// With what the system said.
    #[error("the directory cannot be read: {0}")]
    Failed(String),
}

/// The definitions in `dir` (absolute), without reading them. Blocks on the file system.
///
/// # Errors
/// As openat(2) and getdents64(2), and [`Place::open`]; `NotFound`: it does not exist.
pub fn list(dir: &Path, surroundings: &Surroundings) -> io::Result<Listed> {
    let place = Place::open(dir, surroundings)?;
    let mut names = place.list(surroundings)?;
    // Editors keep their copies and locks under names that begin with a dot.
    names.retain(|name| {
        let bytes = name.as_encoded_bytes();
        bytes.ends_with(b".toml") && !bytes.starts_with(b".")
    });
    let cut = names.len() > MOST_FILES;
    names.truncate(MOST_FILES);
    let files = names.iter().map(|name| dir.join(name)).collect();
    Ok(Listed { place, files, cut })
}

impl Directory {
    /// One that could not be listed.
    pub fn unread(path: PathBuf, error: &io::Error) -> Self {
        let read = match error.kind() {
            io::ErrorKind::NotFound => Ok(Vec::new()),
            _ => Err(UnreadDirectory::Failed(error.to_string())),
        };
        Self { path, read, cut: false }
    }

    /// One that is still being read.
    pub fn late(path: PathBuf) -> Self {
        Self { path, read: Err(UnreadDirectory::Late), cut: false }
    }
}

impl Candidate {
    /// Reads one file of a directory. Blocks on the file system.
    pub fn read(place: &Place, path: PathBuf, surroundings: &Surroundings) -> Self {
        let name = Path::new(path.file_name().unwrap_or_default());
        match place.read(name, MOST_BYTES, surroundings) {
            Ok((bytes, trust, stamp)) => {
                let text = String::from_utf8(bytes).map_err(|_| Unread::NotText);
                Self { path, trust, text, stamp: Some(stamp) }
            }
            Err(error) => {
                let text = Err(Unread::Failed(Arc::new(error)));
                Self { path, trust: place.trust().clone(), text, stamp: None }
            }
        }
    }

    /// Why the system did not give its text, if that is so.
    pub fn unread(&self) -> Option<&io::Error> {
        match &self.text {
            Err(Unread::Failed(error)) => Some(error),
            Ok(_) | Err(Unread::NotText | Unread::Late) => None,
        }
    }

    /// One that is still being read. Its name is taken: what it hides must not come up in its place.
    pub fn late(place: &Place, path: PathBuf) -> Self {
        Self { path, trust: place.trust().clone(), text: Err(Unread::Late), stamp: None }
    }
}
