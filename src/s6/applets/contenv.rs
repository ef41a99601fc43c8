//! `with-contenv`: executes a command with the container's environment, as the boot has written it down.
//!
//! One file a variable: the name is the file's, the value its content without one newline at its end. What is there
//! overrides what was inherited; without the directory the environment is left as it is.

use super::applet::{Call, SYSTEM};
use super::exec::exec;
use crate::sys::beneath::Beneath;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

const USAGE: &str = "with-contenv COMMAND...";
/// Where s6-overlay keeps it.
const DIR: &str = "/run/s6/container_environment";
/// More than the kernel lets an environment variable have (MAX_ARG_STRLEN, execve(2)).
const LARGEST: u64 = 1 << 20;

pub fn main(call: &mut Call<'_>) -> u8 {
    let words = call.words;
    if words.is_empty() {
        return call.usage("there is no command to execute", USAGE);
    }
    match read(Path::new(DIR)) {
        Ok(changes) => exec(call, words, changes),
        Err(error) => call.fatal(SYSTEM, &format!("unable to read {DIR}: {error}")),
    }
}

fn read(dir: &Path) -> io::Result<Vec<(OsString, OsString)>> {
    let dir = match Beneath::open(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened?,
    };
    let mut variables = Vec::new();
    for name in dir.list()? {
        // Neither a name that the environment cannot hold nor a file that is still being written.
        if name.as_bytes().contains(&b'=') || name.as_bytes().starts_with(b".") {
            continue;
        }
        match dir.read(Path::new(&name), LARGEST) {
            Ok(value) => variables.push((name, chomped(value)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(about(&name, &error)),
        }
    }
    Ok(variables)
}

fn about(name: &OsStr, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", name.display()))
}

fn chomped(mut value: Vec<u8>) -> io::Result<OsString> {
    if value.last() == Some(&b'\n') {
        value.pop();
    }
    if value.contains(&0) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a value has a NUL in it"));
    }
    Ok(OsString::from_vec(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s6::applets::applet::tests::told;

    #[test]
    fn values_are_verbatim_but_for_one_newline() {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in [
            ("A", &b"plain"[..]),
            ("B", b"with newline\n"),
            ("C", b"two\n\n"),
            ("D", b""),
            ("E", b" spaces and\nlines \xff "),
            (".hidden", b"x"),
            ("no=name", b"x"),
        ] {
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        let read: Vec<_> =
            read(dir.path()).unwrap().into_iter().map(|(name, value)| (name, value.into_vec())).collect();
        let expected = [
            ("A", &b"plain"[..]),
            ("B", b"with newline"),
            ("C", b"two\n"),
            ("D", b""),
            ("E", b" spaces and\nlines \xff "),
        ];
        assert_eq!(read, expected.map(|(name, value)| (OsString::from(name), value.to_vec())));
    }

    #[test]
    fn no_directory_is_no_change_and_what_cannot_be_read_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(&dir.path().join("none")).unwrap().is_empty());
        std::fs::create_dir(dir.path().join("SUB")).unwrap();
        assert!(read(dir.path()).unwrap_err().to_string().starts_with("SUB: "));
        std::fs::remove_dir(dir.path().join("SUB")).unwrap();
        std::fs::write(dir.path().join("NUL"), b"a\0b").unwrap();
        assert!(read(dir.path()).is_err());
    }

    #[test]
    fn without_a_command_it_is_wrong_usage() {
        assert_eq!(told(main, "with-contenv", &[], &|_| None).0, 100);
    }
}
