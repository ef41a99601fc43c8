//! The container's environment as a directory with one file a variable, `/run/s6/container_environment`.
//!
//! Boot scripts add variables by writing files there; `with-contenv` gives all of them to a program. A value is the
//! file's content without one trailing newline, so a value that itself ends in a newline is written with one more.

use crate::sys::beneath::Beneath;
use crate::sys::credentials::Credentials;
use rustix::fs::{Gid, Mode, OFlags};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// Where s6-overlay keeps it.
pub const PLACE: &str = "/run/s6/container_environment";

/// Largest value: execve(2) takes no string longer than 32 pages (MAX_ARG_STRLEN), so a larger one can reach nobody.
const MOST_BYTES: u64 = 128 << 10;
/// Most variables that are read.
const MOST_VARIABLES: usize = 10_000;

/// Writes `env` into `dir`, which is made and then holds nothing else. The directory is 0750 and its files 0640, of our
/// user and the group `gid`, whose members may read what may be secrets; with group 0, which no service has, the
/// directory is 0755. Without root no group is given.
///
/// Gives back the names that cannot be those of files, and were left out.
///
/// # Errors
/// As mkdirat(2), openat(2), write(2), fchown(2).
pub fn dump(
    env: impl IntoIterator<Item = (OsString, OsString)>,
    dir: &Path,
    gid: u32,
) -> io::Result<Vec<OsString>> {
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    std::fs::create_dir_all(parent)?;
    let dir = Beneath::open(parent)?.create_dirs(Path::new(name), 0o755)?;
    let own = Credentials::own();
    let group = Some(Gid::from_raw(gid)).filter(|_| own.uid == 0);
    // In that group, root can give its files to it without CAP_CHOWN.
    let member = Credentials { gid: if own.uid == 0 { gid } else { own.gid }, ..own };
    member.as_group(|| fill(&dir, env, group, gid))
}

fn fill(
    dir: &Beneath,
    env: impl IntoIterator<Item = (OsString, OsString)>,
    group: Option<Gid>,
    gid: u32,
) -> io::Result<Vec<OsString>> {
    // A variable of the last start that is gone must not come back.
    for old in dir.list()? {
        match dir.remove_file(Path::new(&old)) {
            // A directory is no variable.
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => {}
            removed => removed?,
        }
    }
    let mut left_out = Vec::new();
    for (name, value) in env {
        if !is_file_name(&name) {
            left_out.push(name);
            continue;
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        let mut file = dir.open_file(Path::new(&name), flags, 0o640)?;
        file.write_all(value.as_bytes())?;
        if value.as_bytes().ends_with(b"\n") {
            file.write_all(b"\n")?;
        }
        rustix::fs::fchown(&file, None, group)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(0o640))?;
    }
    rustix::fs::fchown(dir, None, group)?;
    rustix::fs::fchmod(dir, Mode::from_raw_mode(if gid == 0 { 0o755 } else { 0o750 }))?;
    Ok(left_out)
}

/// The variables in `dir`. What is no regular file, cannot be read, has no name of a variable, or is too large for
/// execve(2) is skipped. A NUL in a value becomes a newline, as in every envdir since daemontools.
///
/// # Errors
/// When the directory itself cannot be read, `NotFound` if there is none.
pub fn load(dir: &Path) -> io::Result<BTreeMap<OsString, OsString>> {
    let dir = Beneath::open(dir)?;
    let mut env = BTreeMap::new();
    for name in dir.list()?.into_iter().take(MOST_VARIABLES) {
        if name.as_bytes().contains(&b'=') {
            continue;
        }
        let Ok(mut value) = dir.read(Path::new(&name), MOST_BYTES) else { continue };
        if value.ends_with(b"\n") {
            value.pop();
        }
        value.iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = b'\n');
        env.insert(name, OsString::from_vec(value));
    }
    Ok(env)
}

/// NAME_MAX of Linux is 255 bytes.
fn is_file_name(name: &OsStr) -> bool {
    let bytes = name.as_bytes();
    let dots_only = bytes.iter().all(|byte| *byte == b'.');
    (1..=255).contains(&bytes.len()) && !dots_only && !bytes.contains(&b'/') && !bytes.contains(&b'=')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rustix::fs::{CWD, FileType};
    use std::os::unix::fs::{MetadataExt, symlink};

    fn pairs(list: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        list.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect()
    }

    #[test]
    fn what_was_written_is_read_back_and_names_of_no_file_are_left_out() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("s6/container_environment");
        let good =
            pairs(&[("PATH", "/bin"), ("EMPTY", ""), ("NL", "a\n\n"), (".hidden", "x"), ("b.tmp", "y")]);
        let long = "x".repeat(256);
        let bad = pairs(&[("a/b", "1"), ("..", "2"), ("", "3"), (&long, "4")]);
        let left_out = dump(good.iter().chain(&bad).cloned(), &dir, 0).unwrap();
        assert_eq!(left_out, bad.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>());
        assert_eq!(load(&dir).unwrap(), good.into_iter().collect());
        assert_eq!(std::fs::read(dir.join("PATH")).unwrap(), b"/bin", "verbatim: scripts cat these files");
        assert_eq!(std::fs::read(dir.join("NL")).unwrap(), b"a\n\n\n");
    }

    #[test]
    fn a_second_dump_leaves_nothing_of_the_first() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("e");
        dump(pairs(&[("OLD", "1"), ("BOTH", "long value")]), &dir, 0).unwrap();
        symlink("/etc/hostname", dir.join("LINK")).unwrap();
        std::fs::create_dir(dir.join("DIR")).unwrap();
        dump(pairs(&[("BOTH", "2"), ("LINK", "3")]), &dir, 0).unwrap();
        assert_eq!(load(&dir).unwrap(), pairs(&[("BOTH", "2"), ("LINK", "3")]).into_iter().collect());
    }

    #[test]
    fn only_the_group_may_read_it() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("e");
        let (gid, shown) =
            if Credentials::own().uid == 0 { (65534, 65534) } else { (1, Credentials::own().gid) };
        dump(pairs(&[("A", "secret")]), &dir, gid).unwrap();
        for (path, mode) in [(dir.clone(), 0o750), (dir.join("A"), 0o640)] {
            let stat = std::fs::metadata(&path).unwrap();
            assert_eq!((stat.gid(), stat.mode() & 0o7777), (shown, mode), "{}", path.display());
        }
        dump(pairs(&[]), &dir, 0).unwrap();
        assert_eq!(std::fs::metadata(&dir).unwrap().mode() & 0o7777, 0o755);
    }

    #[test]
    fn what_scripts_left_there_is_read_as_envdirs_do_and_what_is_no_value_is_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &[u8]| std::fs::write(dir.path().join(name), text).unwrap();
        put("ECHOED", b"value\n");
        put("PRINTED", b"value");
        put("NUL", b"a\0b");
        put("A=B", b"x");
        put("HUGE", &vec![b'x'; MOST_BYTES as usize + 1]);
        std::fs::create_dir(dir.path().join("DIR")).unwrap();
        symlink("/etc/hostname", dir.path().join("LINK")).unwrap();
        rustix::fs::mknodat(CWD, dir.path().join("FIFO"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let expected = pairs(&[("ECHOED", "value"), ("PRINTED", "value"), ("NUL", "a\nb")]);
        assert_eq!(load(dir.path()).unwrap(), expected.into_iter().collect());
        assert_eq!(load(&dir.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_environment_comes_back(
            env in prop::collection::btree_map("[A-Za-z_.ü -]{1,8}", "[^\0]{0,20}\n{0,3}", 0..8)
        ) {
            let dir = tempfile::tempdir().unwrap();
            let env: BTreeMap<OsString, OsString> =
                env.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
            let dir = dir.path().join("e");
            let left_out = dump(env.clone(), &dir, 0).unwrap();
            let mut expected = env;
            expected.retain(|name, _| !left_out.contains(name));
            prop_assert_eq!(load(&dir).unwrap(), expected);
        }
    }
}
