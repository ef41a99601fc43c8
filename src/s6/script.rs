//! A slot's scripts on a file system that forbids executing, as the tmpfs of `docker run --read-only --tmpfs /run` does:
//! the interpreter lies elsewhere, and is executed with the script as the kernel would have done (execve(2),
//! "Interpreter scripts").
//!
//! Invariant: of a script only its first line is read, and what it says is done by whoever would have run the script.

use crate::sys::beneath::Beneath;
use crate::sys::credentials::Credentials;
use rustix::fs::{OFlags, StatVfsMountFlags};
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

/// What the kernel looks at (BINPRM_BUF_SIZE since Linux 5.1).
const LONGEST_LINE: u64 = 256;

/// The command that runs the script `name` of the slot `dir`, which is its working directory, read with the rights of
/// `user`. Where executing is allowed, and for what is no script, it is the file itself, which whoever tries will find to
/// work or not. Blocks on the file system, never on a FIFO.
pub fn command(dir: &Path, name: &str, user: &Credentials) -> Vec<OsString> {
    let itself = OsString::from(format!("./{name}"));
    let forbidden =
        rustix::fs::statvfs(dir).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::NOEXEC));
    let mut words = Vec::new();
    if forbidden && let Ok(Ok(start)) = user.on_files(|| first_bytes(dir, name)) {
        words = interpreter(&start);
    }
    words.push(itself);
    words
}

fn first_bytes(dir: &Path, name: &str) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    let script = Beneath::open(dir)?.open_file(Path::new(name), OFlags::RDONLY, 0)?;
    script.take(LONGEST_LINE).read_to_end(&mut start)?;
    Ok(start)
}

/// The interpreter that the start of a script names, and its only argument, if it has one.
fn interpreter(start: &[u8]) -> Vec<OsString> {
    let Some(rest) = start.strip_prefix(b"#!") else { return Vec::new() };
    let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let trimmed = line.trim_ascii();
    let end = trimmed.iter().position(is_blank).unwrap_or(trimmed.len());
    let (program, argument) = trimmed.split_at(end);
    [program, argument.trim_ascii()]
        .into_iter()
        .filter(|word| !word.is_empty())
        .map(|word| OsString::from_vec(word.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_names_a_program_and_one_argument() {
        for (start, words) in [
            ("#!/bin/sh\necho", &["/bin/sh"][..]),
            ("#! /command/with-contenv sh -e \nx y", &["/command/with-contenv", "sh -e"]),
            ("#!/command/execlineb\t-P", &["/command/execlineb", "-P"]),
            ("#!\n/bin/sh", &[]),
            ("echo #!/bin/sh", &[]),
            ("", &[]),
        ] {
            assert_eq!(interpreter(start.as_bytes()), words, "{start:?}");
        }
    }

    #[test]
    fn where_executing_is_allowed_the_script_is_executed_itself() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("run"), "#!/bin/sh\n").unwrap();
        assert_eq!(command(dir.path(), "run", &Credentials::own()), ["./run"]);
        assert_eq!(command(Path::new("/nonexistent"), "finish", &Credentials::own()), ["./finish"]);
    }

    #[test]
    fn what_the_file_system_does_not_execute_is_read() {
        // /proc is mounted without exec wherever it is mounted by the book; elsewhere there is nothing to see.
        let proc = Path::new("/proc/self");
        if !rustix::fs::statvfs(proc).unwrap().f_flag.contains(StatVfsMountFlags::NOEXEC) {
            return;
        }
        assert_eq!(command(proc, "comm", &Credentials::own()), ["./comm"], "no script");
        rustix::thread::set_name(c"#!/bin/sh -e").unwrap();
        let thread = std::fs::canonicalize("/proc/thread-self").unwrap();
        assert_eq!(command(&thread, "comm", &Credentials::own()), ["/bin/sh", "-e", "./comm"]);
    }
}
