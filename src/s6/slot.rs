//! One s6 service directory ("slot"), as servicedir(7) of s6 describes it, read from an open directory.
//!
//! The owner of a slot may be hostile: nothing in it is followed, executed or waited for, and of a file only a few bytes
//! are read. What is malformed is a warning and counts as absent, as s6-supervise does it: a service must not stay down
//! because of a typing error in an optional file. No warning shows any content, because a hard link can make somebody
//! else's file part of a slot.

use crate::core::name::{GATEWAY_PREFIX, MAX_SLOT_LEN, RESERVED};
use crate::core::signal::Signal;
use crate::sys::beneath::Beneath;
use rustix::fs::{AtFlags, FileType, Stat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long `./finish` may take without a `timeout-finish`.
pub const FINISH_TIMEOUT: Duration = Duration::from_millis(5000);

/// Largest content of a one-line file, in bytes: a number or a word has far fewer.
const MOST_BYTES: u64 = 4096;
/// Highest notification descriptor: the usual soft limit of open files is 1024.
const HIGHEST_FD: u32 = 1023;
/// How deep and how far ownership is looked into before a slot counts as too large to be trusted.
const DEEPEST: usize = 8;
const MOST_ENTRIES: usize = 1000;
/// The supervisor's own directories in a slot: nothing in them is executed or believed, and `event` is made writable
/// for its group.
pub(super) const SUPERVISOR_DIRS: [&str; 2] = ["supervise", "event"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// There is a file `down`: not to be started on first sight.
    pub down: bool,
    pub run: Run,
    /// `None` without an executable `./finish`.
    pub finish: Option<FinishTimeout>,
    /// How long after the stop signal the kill comes; `None`: never.
    pub timeout_kill: Option<Duration>,
    /// What stops it instead of SIGTERM.
    pub down_signal: Option<Signal>,
    /// Where the service writes a newline when it is ready; 3 to 1023.
    pub notification_fd: Option<u32>,
    /// There is a `log/run`.
    pub logger: bool,
    pub kind: Kind,
    /// The directory and everything in it belongs to root, is not writable by anybody else, and there is no link: what
    /// it executes is what root put there. Only then may it run as root, if that also holds for where it lies.
    pub root_owned: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    Executable,
    /// Also when it is no regular file.
    NotExecutable,
    Missing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishTimeout {
    After(Duration),
    /// `timeout-finish` is 0.
    Never,
}

/// The file `type` of s6-rc. s6-supervise itself knows long-runs only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Longrun,
    Oneshot,
    Bundle,
}

/// What is malformed in a slot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {what}", file.display())]
pub struct SlotWarning {
    /// Absolute.
    pub file: PathBuf,
    what: String,
}

/// Reads the slot `dir`, and says what in it is malformed. Never waits.
///
/// # Errors
/// As fstat(2) of the directory itself.
pub fn read(dir: &Beneath) -> io::Result<(Slot, Vec<SlotWarning>)> {
    let mut reader = Reader { dir, warnings: Vec::new() };
    let slot = Slot {
        down: reader.stat("down").is_some(),
        run: reader.run(),
        finish: reader.finish(),
        timeout_kill: reader.millis("timeout-kill").filter(|limit| !limit.is_zero()),
        down_signal: reader.down_signal(),
        notification_fd: reader.notification_fd(),
        logger: reader.stat("log/run").is_some(),
        kind: reader.kind(),
        root_owned: is_root_owned(dir)?,
    };
    Ok((slot, reader.warnings))
}

/// Why a name is not that of a slot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlotNameError {
    #[error("a slot's name must not be empty")]
    Empty,
    #[error("'{0}' begins with a dot: such names are not slots; rename it")]
    Dotted(String),
    #[error("'{0}' contains a slash: name a slot, not a path")]
    Slash(String),
    #[error("'{0}…' is longer than {MAX_SLOT_LEN} bytes: choose a shorter name")]
    TooLong(String),
    #[error("'{0}' is not UTF-8 text: rename it")]
    NotText(String),
    #[error("'{0}' contains a control character: rename it")]
    Control(String),
}

/// Checks the name of a slot: not beginning with a dot, no slash, at most 251 bytes (s6-svscan's rules), and text that
/// can be shown.
///
/// # Errors
/// [`SlotNameError`], free of control characters itself.
pub fn slot_name(name: &OsStr) -> Result<&str, SlotNameError> {
    let shown = |text: &str| -> String {
        text.chars().map(|c| if c.is_control() { '?' } else { c }).take(64).collect()
    };
    let Some(text) = name.to_str() else {
        return Err(SlotNameError::NotText(shown(&name.to_string_lossy())));
    };
    match text {
        "" => Err(SlotNameError::Empty),
        _ if text.len() > MAX_SLOT_LEN => Err(SlotNameError::TooLong(shown(text))),
        _ if text.starts_with('.') => Err(SlotNameError::Dotted(shown(text))),
        _ if text.contains('/') => Err(SlotNameError::Slash(shown(text))),
        _ if text.contains(char::is_control) => Err(SlotNameError::Control(shown(text))),
        _ => Ok(text),
    }
}

/// The service that a slot is: `gateway-X` is the gateway of the profile X, any other name is itself. `None`: that profile
/// can have none.
pub fn service_of(slot: &str) -> Option<&str> {
    match slot.strip_prefix(GATEWAY_PREFIX) {
        None | Some("") => Some(slot),
        Some(word) if RESERVED.contains(&word) => Some(slot),
        Some(profile) => {
            let taken = profile.strip_prefix(GATEWAY_PREFIX).is_some_and(|word| RESERVED.contains(&word));
            (!taken).then_some(profile)
        }
    }
}

/// What is at `path` below the open directory, links not followed anywhere but named; `None` if there is nothing.
///
/// # Errors
/// As openat(2) and fstatat(2) otherwise, for example when a link or a file is on the way.
pub(super) fn stat_beneath(dir: &Beneath, path: &Path) -> io::Result<Option<Stat>> {
    let (parent, name) = (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default());
    let found = dir
        .dir(parent)
        .and_then(|parent| Ok(rustix::fs::statat(&parent, Path::new(name), AtFlags::SYMLINK_NOFOLLOW)?));
    match found {
        Ok(stat) => Ok(Some(stat)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn is_executable_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_mode & 0o111 != 0
}

struct Reader<'a> {
    dir: &'a Beneath,
    warnings: Vec<SlotWarning>,
}

impl Reader<'_> {
    fn warn(&mut self, file: &str, what: &str) {
        self.warnings.push(SlotWarning { file: self.dir.path().join(file), what: what.to_owned() });
    }

    fn stat(&mut self, file: &str) -> Option<Stat> {
        stat_beneath(self.dir, Path::new(file)).unwrap_or_else(|error| {
            let what = match Errno::from_io_error(&error) {
                // O_DIRECTORY with O_NOFOLLOW answers ENOTDIR to a link on the way as to a file.
                Some(Errno::LOOP | Errno::NOTDIR) => {
                    "is not reached through directories; links are not followed".to_owned()
                }
                _ => format!("cannot be looked at: {error}"),
            };
            self.warn(file, &what);
            None
        })
    }

    fn run(&mut self) -> Run {
        let Some(stat) = self.stat("run") else { return Run::Missing };
        if is_executable_file(&stat) {
            return Run::Executable;
        }
        self.warn("run", not_executable(&stat));
        Run::NotExecutable
    }

    fn finish(&mut self) -> Option<FinishTimeout> {
        let stat = self.stat("finish")?;
        if !is_executable_file(&stat) {
            self.warn("finish", not_executable(&stat));
            return None;
        }
        Some(match self.millis("timeout-finish") {
            None => FinishTimeout::After(FINISH_TIMEOUT),
            Some(Duration::ZERO) => FinishTimeout::Never,
            Some(limit) => FinishTimeout::After(limit),
        })
    }

    fn down_signal(&mut self) -> Option<Signal> {
        let text = self.first_line("down-signal")?;
        let signal = Signal::parse(&text);
        if signal.is_none() {
            self.warn("down-signal", "is not a signal; write a name as in SIGINT or INT, or a number");
        }
        signal
    }

    fn notification_fd(&mut self) -> Option<u32> {
        let fd = self.number("notification-fd")?;
        if (3..=HIGHEST_FD).contains(&fd) {
            return Some(fd);
        }
        self.warn("notification-fd", "names a descriptor that cannot be used; allowed: 3 to 1023");
        None
    }

    fn kind(&mut self) -> Kind {
        match self.first_line("type").as_deref() {
            None | Some("longrun") => Kind::Longrun,
            Some("oneshot") => Kind::Oneshot,
            Some("bundle") => Kind::Bundle,
            Some(_) => {
                self.warn("type", "is not known and counts as longrun; allowed: longrun, oneshot, bundle");
                Kind::Longrun
            }
        }
    }

    fn millis(&mut self, file: &str) -> Option<Duration> {
        self.number(file).map(|millis| Duration::from_millis(millis.into()))
    }

    /// An unsigned 32-bit number, as s6-supervise scans it.
    fn number(&mut self, file: &str) -> Option<u32> {
        let text = self.first_line(file)?;
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|_| digits);
        if number.is_none() {
            self.warn(file, "is not a number; write one in decimal digits, at most 4294967295");
        }
        number
    }

    /// The first line without white space around it: all that s6 reads of such a file.
    fn first_line(&mut self, file: &str) -> Option<String> {
        match self.dir.read(Path::new(file), MOST_BYTES) {
            Ok(bytes) => {
                let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
                Some(String::from_utf8_lossy(line).trim().to_owned())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                let what = match Errno::from_io_error(&error) {
                    Some(Errno::LOOP) => "is a symbolic link; put the file itself here".to_owned(),
                    _ if error.kind() == io::ErrorKind::InvalidInput => "is not a regular file".to_owned(),
                    _ if error.kind() == io::ErrorKind::FileTooLarge => {
                        format!("is larger than {MOST_BYTES} bytes")
                    }
                    _ => format!("cannot be read: {error}"),
                };
                self.warn(file, &what);
                None
            }
        }
    }
}

fn not_executable(stat: &Stat) -> &'static str {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => "is not executable; chmod +x it",
        FileType::Symlink => "is a symbolic link; put the file itself here",
        _ => "is not a regular file; put an executable here",
    }
}

/// Nobody but root can change it. A group's right to write shows ACLs too: its bits are their mask (acl(5)).
fn only_root_writes(stat: &Stat) -> bool {
    stat.st_uid == 0 && stat.st_mode & 0o022 == 0
}

fn is_root_owned(dir: &Beneath) -> io::Result<bool> {
    if !only_root_writes(&rustix::fs::fstat(dir)?) {
        return Ok(false);
    }
    // What cannot be looked at cannot be trusted.
    Ok(root_owns_content(dir, 0, &mut 0).unwrap_or(false))
}

fn root_owns_content(dir: &Beneath, depth: usize, seen: &mut usize) -> io::Result<bool> {
    for name in dir.list()? {
        *seen += 1;
        if *seen > MOST_ENTRIES {
            return Ok(false);
        }
        let name = Path::new(&name);
        let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let in_slot = depth == 0 || (depth == 1 && dir.path().ends_with("log"));
        if is_dir && stat.st_uid == 0 && in_slot && SUPERVISOR_DIRS.iter().any(|own| name == Path::new(own)) {
            continue;
        }
        if !only_root_writes(&stat) {
            return Ok(false);
        }
        // A link's own mode says nothing, and it may lead anywhere.
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            return Ok(false);
        }
        if is_dir && (depth >= DEEPEST || !root_owns_content(&dir.dir(name)?, depth + 1, seen)?) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, Mode};
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt, symlink};

    struct Made {
        dir: tempfile::TempDir,
    }

    impl Made {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
            Self { dir }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn file(self, name: &str, text: impl AsRef<[u8]>, mode: u32) -> Self {
            let path = self.path(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            self
        }

        fn fifo(self, name: &str) -> Self {
            rustix::fs::mknodat(CWD, self.path(name), FileType::Fifo, Mode::from_raw_mode(0o755), 0).unwrap();
            self
        }

        fn read(&self) -> (Slot, Vec<String>) {
            let (slot, warnings) = read(&Beneath::open(self.dir.path()).unwrap()).unwrap();
            let prefix = format!("{}/", self.dir.path().display());
            let short = |warning: &SlotWarning| warning.to_string().strip_prefix(&prefix).unwrap().to_owned();
            (slot, warnings.iter().map(short).collect())
        }
    }

    /// Contract: 90, 93.
    #[test]
    fn every_file_of_a_slot_is_read() {
        let made = Made::new()
            .file("run", "", 0o755)
            .file("finish", "", 0o755)
            .file("down", "", 0o644)
            .file("timeout-finish", "0\n", 0o644)
            .file("timeout-kill", "1500\nmore lines are for people", 0o644)
            .file("down-signal", "sigint\n", 0o644)
            .file("notification-fd", "3", 0o644)
            .file("type", "longrun\n", 0o644)
            .file("log/run", "", 0o755);
        let expected = Slot {
            down: true,
            run: Run::Executable,
            finish: Some(FinishTimeout::Never),
            timeout_kill: Some(Duration::from_millis(1500)),
            down_signal: Some(Signal::INT),
            notification_fd: Some(3),
            logger: true,
            kind: Kind::Longrun,
            root_owned: rustix::process::geteuid().is_root(),
        };
        assert_eq!(made.read(), (expected, vec![]));
    }

    #[test]
    fn an_empty_directory_is_a_slot_with_the_defaults_of_s6() {
        let (slot, warnings) = Made::new().read();
        assert_eq!((slot.run, slot.finish, slot.timeout_kill), (Run::Missing, None, None));
        assert_eq!((slot.down_signal, slot.notification_fd, slot.kind), (None, None, Kind::Longrun));
        assert!(!slot.down && !slot.logger && warnings.is_empty());
        let (slot, _) = Made::new().file("finish", "", 0o755).file("timeout-kill", "0", 0o644).read();
        assert_eq!(slot.finish, Some(FinishTimeout::After(FINISH_TIMEOUT)));
        assert_eq!(slot.timeout_kill, None, "0 is never");
    }

    #[test]
    fn what_is_malformed_is_named_and_counts_as_absent() {
        let made = Made::new()
            .file("run", "", 0o644)
            .file("finish", "", 0o755)
            .file("timeout-finish", "5s", 0o644)
            .file("timeout-kill", "-1", 0o644)
            .file("down-signal", "SIGNOPE", 0o644)
            .file("notification-fd", "2", 0o644)
            .file("type", "short", 0o644);
        let (slot, warnings) = made.read();
        assert_eq!(slot.run, Run::NotExecutable);
        assert_eq!(slot.finish, Some(FinishTimeout::After(FINISH_TIMEOUT)));
        assert_eq!((slot.timeout_kill, slot.down_signal, slot.notification_fd), (None, None, None));
        let named: Vec<&str> = warnings.iter().filter_map(|line| line.split(':').next()).collect();
        assert_eq!(
            named,
            ["run", "timeout-finish", "timeout-kill", "down-signal", "notification-fd", "type"]
        );
        for big in ["4294967296", "1024"] {
            let (slot, warnings) = Made::new().file("notification-fd", big, 0o644).read();
            assert_eq!((slot.notification_fd, warnings.len()), (None, 1), "{big}");
        }
    }

    #[test]
    fn fifos_links_directories_and_huge_files_neither_block_nor_lead_away() {
        let made = Made::new().fifo("run").fifo("timeout-kill").file("down-signal", vec![b'9'; 5000], 0o644);
        symlink("/etc/hostname", made.path("type")).unwrap();
        symlink("/bin/sh", made.path("finish")).unwrap();
        symlink("/etc", made.path("log")).unwrap();
        std::fs::create_dir(made.path("notification-fd")).unwrap();
        let (slot, warnings) = made.read();
        assert_eq!((slot.run, slot.finish, slot.logger), (Run::NotExecutable, None, false));
        assert_eq!((slot.down_signal, slot.timeout_kill, slot.notification_fd), (None, None, None));
        assert!(!slot.root_owned);
        assert_eq!(warnings.len(), 7, "{warnings:#?}");
        assert!(warnings.contains(&"type: is a symbolic link; put the file itself here".to_owned()));
        assert!(warnings.contains(&"timeout-kill: is not a regular file".to_owned()));
        assert!(warnings.contains(&"down-signal: is larger than 4096 bytes".to_owned()));
    }

    #[test]
    fn a_slot_is_roots_only_if_everything_in_it_is() {
        if !rustix::process::geteuid().is_root() {
            return; // Only root can give files away; the host tier runs this as root.
        }
        let sound =
            || Made::new().file("run", "", 0o755).file("log/run", "", 0o755).file("data/a/b", "", 0o644);
        assert!(sound().read().0.root_owned);
        let chown =
            |made: &Made, name: &str| std::os::unix::fs::chown(made.path(name), Some(65534), None).unwrap();
        for name in ["", "run", "log", "log/run", "data/a", "data/a/b"] {
            let made = sound();
            chown(&made, name);
            assert!(!made.read().0.root_owned, "{name} belongs to somebody else");
        }
        for (name, mode) in [("", 0o1777), ("run", 0o775), ("data/a/b", 0o666)] {
            let made = sound();
            std::fs::set_permissions(made.path(name), PermissionsExt::from_mode(mode)).unwrap();
            assert!(!made.read().0.root_owned, "{name} can be written by others");
        }
        let made = sound();
        symlink("b", made.path("data/a/link")).unwrap();
        assert!(!made.read().0.root_owned, "a link");
        // The supervisor's own directories do not count, but in their own places only.
        let made = sound();
        for own in ["event", "supervise", "log/event", "log/supervise"] {
            std::fs::create_dir(made.path(own)).unwrap();
            std::fs::set_permissions(made.path(own), PermissionsExt::from_mode(0o3730)).unwrap();
        }
        assert!(made.read().0.root_owned);
        std::fs::create_dir(made.path("data/event")).unwrap();
        std::fs::set_permissions(made.path("data/event"), PermissionsExt::from_mode(0o3730)).unwrap();
        assert!(!made.read().0.root_owned, "data/event");
        // Too much to look at is not trusted.
        let made = sound();
        std::fs::create_dir_all(made.path(&"d/".repeat(DEEPEST + 2))).unwrap();
        assert!(!made.read().0.root_owned, "too deep");
    }

    /// Contract: 66.
    #[test]
    fn slot_names_are_those_of_s6_and_text() {
        let longest = "x".repeat(MAX_SLOT_LEN);
        for good in ["a", "gateway-default", "A b", "ü", "a.b", &longest] {
            assert_eq!(slot_name(OsStr::new(good)), Ok(good));
        }
        let long = "x".repeat(MAX_SLOT_LEN + 1);
        for bad in ["", ".", "..", ".s6-svscan", "a/b", "a\nb", "a\x1b[2J", &long] {
            let error = slot_name(OsStr::new(bad)).unwrap_err().to_string();
            assert!(!error.contains(char::is_control), "{error:?}");
        }
        assert!(matches!(slot_name(OsStr::from_bytes(b"a\xff")), Err(SlotNameError::NotText(_))));
    }

    #[test]
    fn the_slot_of_a_gateway_is_its_service() {
        let pairs = [
            ("gateway-coder", "coder"),
            ("web", "web"),
            ("gateway-", "gateway-"),
            ("gateway", "gateway"),
            ("gateway-dashboard", "gateway-dashboard"),
        ];
        for (slot, service) in pairs {
            assert_eq!(service_of(slot), Some(service));
        }
        assert_eq!(service_of("gateway-gateway-dashboard"), None);
    }
}
