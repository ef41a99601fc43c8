//! Users and groups from the C library: musl reads /etc/passwd and /etc/group itself, so a static binary needs no NSS.
//!
//! Looked up in the supervisor, at each use (an image may remap its user after we start), never between clone and
//! exec. What was found is remembered as long as the files are the ones that it was found in: a fleet that starts asks
//! for the same user thousands of times.
#![allow(unsafe_code)]

use super::credentials::Credentials;
use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// One line of the user database, with every group the user is in (the primary one included).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub groups: Arc<[u32]>,
    pub home: PathBuf,
    pub shell: PathBuf,
}

impl User {
    pub fn credentials(&self) -> Credentials {
        Credentials { uid: self.uid, gid: self.gid, groups: self.groups.clone() }
    }
}

/// The user called `name`; `None` if there is none.
///
/// # Errors
/// As getpwnam_r(3), for example when /etc/passwd cannot be read.
pub fn by_name(name: &str) -> io::Result<Option<User>> {
    found(settled_files(), Key::Name(name.to_owned()))
}

/// The user with this uid; `None` if the database has none.
///
/// # Errors
/// As getpwuid_r(3).
pub fn by_uid(uid: u32) -> io::Result<Option<User>> {
    found(settled_files(), Key::Uid(uid))
}

/// The user called `name`, or else the one with this uid, of the same moment.
///
/// # Errors
/// As [`by_name`].
pub fn by_name_or_uid(name: &str, uid: u32) -> io::Result<Option<User>> {
    let files = settled_files();
    match found(files, Key::Name(name.to_owned()))? {
        Some(user) => Ok(Some(user)),
        None => found(files, Key::Uid(uid)),
    }
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Name(String),
    Uid(u32),
}

impl Key {
    fn ask(&self) -> io::Result<Option<User>> {
        match self {
            Self::Name(name) => {
                let Ok(name) = CString::new(name.as_str()) else { return Ok(None) };
                // SAFETY: all pointers are live for the call; the callback passes buffer and length of one allocation.
                query(|entry, buffer, length, found| unsafe {
                    libc::getpwnam_r(name.as_ptr(), entry, buffer, length, found)
                })
            }
            Self::Uid(uid) => {
                // SAFETY: as above.
                query(|entry, buffer, length, found| unsafe {
                    libc::getpwuid_r(*uid, entry, buffer, length, found)
                })
            }
        }
    }
}

/// Which file it was: device, inode, length, and change time in seconds and nanoseconds.
type Identity = (u64, u64, u64, i64, i64);

/// Answers, and the files that they were read from.
#[derive(Debug, Default)]
struct Memory {
    files: Option<[Identity; 2]>,
    answers: HashMap<Key, Option<User>>,
}

/// Answers that are kept: users are few, but names that callers make up are not.
const REMEMBERED: usize = 64;
/// A file system that keeps no fractions of a second stamps whole seconds, or every other one.
const COARSE: Duration = Duration::from_secs(2);

impl Memory {
    fn known(&self, files: [Identity; 2], key: &Key) -> Option<Option<User>> {
        self.answers.get(key).filter(|_| self.files == Some(files)).cloned()
    }

    fn learn(&mut self, files: [Identity; 2], key: Key, answer: Option<User>) {
        if self.files != Some(files) || self.answers.len() >= REMEMBERED {
            *self = Self { files: Some(files), answers: HashMap::new() };
        }
        self.answers.insert(key, answer);
    }
}

/// The answer that is known of these files, or that of the database.
fn found(files: Option<[Identity; 2]>, key: Key) -> io::Result<Option<User>> {
    static MEMORY: Mutex<Option<Memory>> = Mutex::new(None);
    let lock = || MEMORY.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(files) = files else { return key.ask() };
    if let Some(answer) = lock().get_or_insert_default().known(files, &key) {
        return Ok(answer);
    }
    let answer = key.ask()?;
    // Read from the files as they were before and still are.
    if settled_files() == Some(files) {
        lock().get_or_insert_default().learn(files, key, answer.clone());
    }
    Ok(answer)
}

/// The files of users and groups; `None` when one cannot be looked at or has only just changed, and when there is
/// a name service cache, which knows users that no file has (musl asks it).
fn settled_files() -> Option<[Identity; 2]> {
    if std::fs::symlink_metadata("/var/run/nscd/socket").is_ok() {
        return None;
    }
    let now = stamp_now()?;
    let identity = |path: &str| {
        let file = std::fs::metadata(path).ok()?;
        let changed =
            Duration::new(u64::try_from(file.ctime()).ok()?, u32::try_from(file.ctime_nsec()).ok()?);
        is_settled(now, changed)
            .then(|| (file.dev(), file.ino(), file.size(), file.ctime(), file.ctime_nsec()))
    };
    Some([identity("/etc/passwd")?, identity("/etc/group")?])
}

/// The clock that the kernel stamps files with, since the epoch (fs/inode.c, `current_time`): it goes on with each tick.
fn stamp_now() -> Option<Duration> {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    Some(Duration::new(u64::try_from(now.tv_sec).ok()?, u32::try_from(now.tv_nsec).ok()?))
}

/// A file that was stamped with `changed` gets another stamp when it changes again: the clock has gone on since.
fn is_settled(now: Duration, changed: Duration) -> bool {
    match changed.subsec_nanos() {
        0 => now.checked_sub(changed).is_some_and(|age| age >= COARSE),
        _ => now > changed,
    }
}

/// A user name or a number. A number without an entry is a user with that gid, no other groups and home `/`.
///
/// # Errors
/// As [`by_name`].
pub fn resolve(text: &str) -> io::Result<Option<User>> {
    if let Some(user) = by_name(text)? {
        return Ok(Some(user));
    }
    let Some(uid) = id(text) else { return Ok(None) };
    Ok(Some(by_uid(uid)?.unwrap_or_else(|| nameless(uid, uid))))
}

/// -1, by which the calls that change an id are told to leave it as it is (setresuid(2), chown(2)): nobody's.
pub const NO_ID: u32 = u32::MAX;

/// A uid or gid in decimal digits; `None` for anything else and for [`NO_ID`].
pub fn id(text: &str) -> Option<u32> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|id| is_plain && *id != NO_ID)
}

/// Whether a file of this owner belongs to somebody whom our user namespace does not know (user_namespaces(7),
/// "Unmapped user and group IDs"): then nobody in it can be that user.
pub fn is_unmapped(uid: u32) -> bool {
    static OVERFLOW: OnceLock<Option<u32>> = OnceLock::new();
    let overflow = || {
        let text = std::fs::read_to_string("/proc/sys/kernel/overflowuid").ok()?;
        let uid = text.trim().parse().ok()?;
        let map = std::fs::read_to_string("/proc/self/uid_map").ok()?;
        (!maps(&map, uid)).then_some(uid)
    };
    *OVERFLOW.get_or_init(overflow) == Some(uid)
}

/// Whether an id is in a map of user_namespaces(7): lines of first inside, first outside, count.
fn maps(map: &str, id: u32) -> bool {
    map.lines().any(|line| {
        let mut words = line.split_ascii_whitespace().map(str::parse::<u64>);
        let (Some(Ok(first)), Some(Ok(_)), Some(Ok(count))) = (words.next(), words.next(), words.next())
        else {
            return false;
        };
        (first..first.saturating_add(count)).contains(&u64::from(id))
    })
}

/// A user that no database knows, as `docker run --user 12345` makes.
pub fn nameless(uid: u32, gid: u32) -> User {
    User {
        name: uid.to_string(),
        uid,
        gid,
        groups: [gid].into(),
        home: PathBuf::from("/"),
        shell: PathBuf::from("/bin/sh"),
    }
}

/// The gid of a group name or a number; `None` for a name that no group has.
///
/// # Errors
/// As getgrnam_r(3), for example when /etc/group cannot be read.
pub fn group(text: &str) -> io::Result<Option<u32>> {
    let Ok(name) = CString::new(text) else { return Ok(None) };
    // A group may have many members, and their names have to fit.
    let mut buffer = vec![0u8; 1024];
    loop {
        let mut entry = std::mem::MaybeUninit::<libc::group>::uninit();
        let mut found = std::ptr::null_mut();
        // SAFETY: all pointers are live for the call; buffer and length are of one allocation.
        let result = unsafe {
            let (start, length) = (buffer.as_mut_ptr().cast(), buffer.len());
            libc::getgrnam_r(name.as_ptr(), entry.as_mut_ptr(), start, length, &raw mut found)
        };
        match result {
            // SAFETY: the call succeeded and `found` points to `entry`.
            0 if !found.is_null() => return Ok(Some(unsafe { (*found).gr_gid }).filter(|gid| *gid != NO_ID)),
            libc::ERANGE if buffer.len() < 1 << 20 => buffer.resize(buffer.len() * 2, 0),
            0 | libc::ENOENT | libc::ESRCH => return Ok(id(text)),
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

fn query(
    call: impl Fn(*mut libc::passwd, *mut libc::c_char, usize, *mut *mut libc::passwd) -> libc::c_int,
) -> io::Result<Option<User>> {
    let mut buffer = vec![0u8; 1024];
    loop {
        let mut entry = std::mem::MaybeUninit::<libc::passwd>::uninit();
        let mut found = std::ptr::null_mut();
        match call(entry.as_mut_ptr(), buffer.as_mut_ptr().cast(), buffer.len(), &raw mut found) {
            0 if found.is_null() => return Ok(None),
            // SAFETY: the call succeeded and `found` points to `entry`, whose strings live in `buffer`.
            0 => return read_entry(unsafe { &*found }),
            libc::ERANGE if buffer.len() < 1 << 20 => buffer.resize(buffer.len() * 2, 0),
            // Some systems answer a missing user with an error (getpwnam_r(3), "RETURN VALUE").
            libc::ENOENT | libc::ESRCH => return Ok(None),
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

/// `None` for an entry with an id that is none. Without a home it gets `/`, as login(1) gives it, and without a shell
/// `/bin/sh` (passwd(5)).
fn read_entry(entry: &libc::passwd) -> io::Result<Option<User>> {
    let text = |pointer: *const libc::c_char| -> &[u8] {
        if pointer.is_null() {
            return b"";
        }
        // SAFETY: the C library fills these fields with NUL-terminated strings that live as long as `entry`.
        unsafe { CStr::from_ptr(pointer) }.to_bytes()
    };
    if entry.pw_uid == NO_ID || entry.pw_gid == NO_ID {
        return Ok(None);
    }
    let name = String::from_utf8_lossy(text(entry.pw_name)).into_owned();
    let path = |bytes: &[u8], otherwise: &str| match bytes {
        b"" => PathBuf::from(otherwise),
        bytes => PathBuf::from(OsStr::from_bytes(bytes)),
    };
    let mut groups = groups_of(entry.pw_name, entry.pw_gid)?;
    groups.retain(|group| *group != NO_ID);
    Ok(Some(User {
        groups: groups.into(),
        name,
        uid: entry.pw_uid,
        gid: entry.pw_gid,
        home: path(text(entry.pw_dir), "/"),
        shell: path(text(entry.pw_shell), "/bin/sh"),
    }))
}

fn groups_of(name: *const libc::c_char, gid: u32) -> io::Result<Vec<u32>> {
    let mut groups = vec![0u32; 32];
    loop {
        let mut count = libc::c_int::try_from(groups.len()).map_err(io::Error::other)?;
        // SAFETY: `name` is a NUL-terminated string; `count` says how many entries `groups` has room for.
        let done = unsafe { libc::getgrouplist(name, gid, groups.as_mut_ptr(), &raw mut count) };
        let filled = usize::try_from(count).unwrap_or(0);
        if done >= 0 {
            groups.truncate(filled);
            return Ok(groups);
        }
        if filled <= groups.len() || filled > 1 << 16 {
            return Err(io::Error::other("the group database gave no usable list"));
        }
        groups.resize(filled, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_is_known_until_a_file_is_another() {
        let (mut memory, key, user) = (Memory::default(), || Key::Name("a".into()), Some(nameless(7, 8)));
        let (files, edited) = ([(1, 2, 3, 4, 5); 2], [(1, 2, 3, 4, 5), (1, 2, 3, 4, 6)]);
        memory.learn(files, key(), user.clone());
        memory.learn(files, Key::Uid(9), None);
        assert_eq!(memory.known(files, &key()), Some(user.clone()));
        assert_eq!(memory.known(files, &Key::Uid(9)), Some(None));
        assert_eq!(memory.known(edited, &key()), None);
        memory.learn(edited, key(), None);
        assert_eq!((memory.known(edited, &key()), memory.known(files, &key())), (Some(None), None));
        for uid in 0..1000 {
            memory.learn(edited, Key::Uid(uid), None);
        }
        assert!(memory.answers.len() <= REMEMBERED);
    }

    #[test]
    fn a_file_is_settled_when_the_clock_of_its_stamps_has_gone_on() {
        let (changed, whole) = (Duration::new(1000, 1), Duration::from_secs(1000));
        for (changed, after, settled) in [
            (changed, Duration::ZERO, false),
            (changed, Duration::from_millis(4), true),
            (whole, Duration::from_millis(1999), false),
            (whole, Duration::from_secs(2), true),
        ] {
            assert_eq!(is_settled(changed + after, changed), settled, "{after:?}");
        }
        assert!(!is_settled(Duration::ZERO, changed), "the clock was set back");
    }

    /// Two changes within one tick have one stamp: what was read between them must not be kept.
    #[test]
    fn what_changes_again_within_a_tick_is_not_settled_in_between() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passwd");
        for n in 0..200 {
            std::fs::write(&path, format!("{n}")).unwrap();
            let file = std::fs::metadata(&path).unwrap();
            let stamp = |file: &std::fs::Metadata| {
                Duration::new(file.ctime().unsigned_abs(), u32::try_from(file.ctime_nsec()).unwrap())
            };
            let settled = is_settled(stamp_now().unwrap(), stamp(&file));
            std::fs::write(&path, format!("{n}!")).unwrap();
            let again = stamp(&std::fs::metadata(&path).unwrap());
            assert!(!settled || again != stamp(&file), "{again:?}");
        }
    }

    /// An entry as getpwnam_r(3) gives it. The group database has no such user.
    fn entry(uid: u32, home: &CStr, shell: &CStr) -> io::Result<Option<User>> {
        let name = c"no-such-user-here".as_ptr().cast_mut();
        read_entry(&libc::passwd {
            pw_name: name,
            pw_passwd: name,
            pw_uid: uid,
            pw_gid: uid,
            pw_gecos: name,
            pw_dir: home.as_ptr().cast_mut(),
            pw_shell: shell.as_ptr().cast_mut(),
        })
    }

    #[test]
    fn an_entry_without_a_home_has_the_root_directory_and_one_with_the_id_that_is_none_is_no_user() {
        let user = entry(7, c"", c"").unwrap().unwrap();
        assert_eq!((user.home, user.shell), (PathBuf::from("/"), PathBuf::from("/bin/sh")));
        let user = entry(7, c"/home/of/it", c"/bin/false").unwrap().unwrap();
        assert_eq!((user.home, user.shell), (PathBuf::from("/home/of/it"), PathBuf::from("/bin/false")));
        assert_eq!(entry(NO_ID, c"/", c"/bin/sh").unwrap(), None);
    }

    #[test]
    fn a_map_says_who_is_known() {
        let map = "         0     100000      65536\n     70000          5          1\n";
        for (id, known) in [(0, true), (65534, true), (65536, false), (70000, true), (70001, false)] {
            assert_eq!(maps(map, id), known, "{id}");
        }
        assert!(maps("0 0 4294967295", 65534) && !maps("", 0));
    }

    #[test]
    fn root_is_found_by_name_and_by_number_and_an_unknown_number_is_itself() {
        assert_eq!(by_name("root").unwrap().unwrap().uid, 0);
        assert_eq!(by_uid(0).unwrap().unwrap().name, "root");
        assert_eq!(by_name("no-such-user-here").unwrap(), None);
        assert_eq!(resolve("4123456789").unwrap().unwrap().gid, 4_123_456_789);
        assert_eq!(resolve("no-such-user-here").unwrap(), None);
        assert_eq!(resolve("a\0b").unwrap(), None);
        for text in ["4294967295", "-1", "+5", "4294967296", ""] {
            assert_eq!((resolve(text).unwrap(), group(text).unwrap()), (None, None), "{text}");
        }
        assert_eq!(by_uid(NO_ID).unwrap(), None);
        assert_eq!(group("root").unwrap(), Some(0));
        assert_eq!(group("4123456789").unwrap(), Some(4_123_456_789));
        assert_eq!(group("no-such-group-here").unwrap(), None);
        assert_eq!(group("a\0b").unwrap(), None);
    }
}
