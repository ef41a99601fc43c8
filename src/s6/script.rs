//! A slot's scripts on a file system that forbids executing, as the tmpfs of `docker run --read-only --tmpfs /run` does:
//! the interpreter lies elsewhere, and is executed with the script as the kernel would have done (execve(2),
//! "Interpreter scripts").
//!
//! Invariant: of a script only its first line is read, and what it says is done by the process that would have run the script.

use crate::sys::beneath::Beneath;
use crate::sys::credentials::Credentials;
use rustix::fs::{OFlags, StatVfsMountFlags};
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What the kernel looks at (BINPRM_BUF_SIZE since Linux 5.1).
const LONGEST_LINE: u64 = 256;

/// The command that runs the script `name` of the slot `dir`, which is its working directory, read with the rights of
/// `user`. Where executing is allowed, and for what is no script, it is the file itself, and the caller will find it to
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

/// The word with which a gateway takes over from the one that runs.
const TAKEOVER: &str = " --replace";
/// A rendered script is far smaller.
const LONGEST_SCRIPT: u64 = 64 * 1024;

/// With the word before it, only of a gateway of the same home: since Hermes 0.21.4 `--replace` means the gateway of the whole
/// machine, and is refused (exit code 1) for ever where that is another profile's own. Hermes 0.19 and later know the word.
const OF_ITS_HOME: &str = " --force";

/// The command that runs the script `run` of a gateway's slot, but with another `gateway run --replace`: since Hermes 0.21.4
/// that of a named profile ends the gateway that serves it together with all others, so it goes; that of the root profile is
/// kept to its home. `None`: the script does not say so, is none of a shell's, or may not be executed, and then the kernel's
/// refusal is told. Blocks as [`command`] does.
pub fn with_its_own_takeover(dir: &Path, user: &Credentials, named: bool) -> Option<Vec<OsString>> {
    let (text, mode) = user.on_files(|| text(dir)).ok()?.ok()?;
    let run = "gateway run";
    let takeover = format!("{run}{TAKEOVER}");
    let mut words = interpreter(text.as_bytes());
    let is_shell = words.last().and_then(|word| word.to_str()).is_some_and(|word| {
        let first = words.iter().rev().find(|word| !word.as_encoded_bytes().starts_with(b"-"));
        let name = first.and_then(|word| Path::new(word).file_name()?.to_str()).unwrap_or(word);
        ["sh", "bash", "dash"].contains(&name)
    });
    if !is_shell || mode & 0o111 == 0 || !text.contains(&takeover) {
        return None;
    }
    let instead = if named { run.to_owned() } else { format!("{takeover}{OF_ITS_HOME}") };
    words.extend(["-c".into(), text.replace(&takeover, &instead).into()]);
    Some(words)
}

/// Whether the script `run` is what Hermes or we make of a profile: nothing in it is anybody's own, so that the operator's
/// template can take its place.
pub fn is_rendered(dir: &Path, user: &Credentials) -> bool {
    let known = ["#", "set -e", "export ", "cd ", ". ", "[ \"$(id -u)\" = 0 ] || exec "];
    let Ok(Ok((text, _))) = user.on_files(|| text(dir)) else { return false };
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let last = lines.next_back().unwrap_or_default();
    let starts = last.strip_suffix(TAKEOVER).unwrap_or(last).ends_with(" gateway run");
    starts
        && last.starts_with("exec s6-setuidgid ")
        && lines.all(|line| known.iter().any(|known| line.starts_with(known)))
}

/// The script `run`, with its mode.
fn text(dir: &Path) -> io::Result<(String, u32)> {
    let mut text = String::new();
    let script = Beneath::open(dir)?.open_file(Path::new("run"), OFlags::RDONLY, 0)?;
    let mode = script.metadata()?.mode();
    script.take(LONGEST_SCRIPT).read_to_string(&mut text)?;
    Ok((text, mode))
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
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

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

    /// The script that Hermes 0.22 makes of the profile `work`.
    const RENDERED: &str = "\
#!/command/with-contenv sh
# shellcheck shell=sh
set -e
export HOME=/opt/data
cd /opt/data
export API_SERVER_PORT=8650
export HERMES_S6_SUPERVISED_CHILD=1
export HERMES_SUPERVISED_CHILD=1
[ \"$(id -u)\" = 0 ] || exec hermes -p work gateway run --replace
exec s6-setuidgid hermes hermes -p work gateway run --replace
";

    #[test]
    fn a_named_gateway_takes_over_from_nobody_whoever_made_its_slot() {
        let dir = tempfile::tempdir().unwrap();
        let run = |text: &str| {
            let path = dir.path().join("run");
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
            with_its_own_takeover(dir.path(), &Credentials::own(), true)
        };
        let command = run(RENDERED).unwrap();
        let (text, shell) = command.split_last().unwrap();
        assert_eq!(shell, ["/command/with-contenv", "sh", "-c"]);
        assert_eq!(text.to_str().unwrap(), RENDERED.replace(" --replace", ""));
        assert_eq!(
            run("#!/bin/sh -e\nexec hermes gateway run --replace -v\n").unwrap()[..3],
            ["/bin/sh", "-e", "-c"]
        );
        assert_eq!(run("#!/bin/sh\nexec hermes gateway run\n"), None);
        assert_eq!(run("#!/usr/bin/python3\n# gateway run --replace\n"), None);
        assert_eq!(run(""), None);
        // What may not be executed is not read to a shell instead: its owner is told.
        run(RENDERED).unwrap();
        std::fs::set_permissions(dir.path().join("run"), Permissions::from_mode(0o644)).unwrap();
        assert_eq!(with_its_own_takeover(dir.path(), &Credentials::own(), true), None);
    }

    #[test]
    fn the_root_gateway_takes_over_in_its_home_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        std::fs::write(&path, RENDERED.replace("-p work ", "")).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        let command = with_its_own_takeover(dir.path(), &Credentials::own(), false).unwrap();
        let text = command.last().unwrap().to_str().unwrap();
        assert!(text.ends_with("exec s6-setuidgid hermes hermes gateway run --replace --force\n"), "{text}");
        assert_eq!(text.matches("--replace --force").count(), text.matches("--replace").count());
    }

    #[test]
    fn a_script_with_a_line_of_its_own_is_not_rendered() {
        let dir = tempfile::tempdir().unwrap();
        let rendered = |text: &str| {
            std::fs::write(dir.path().join("run"), text).unwrap();
            is_rendered(dir.path(), &Credentials::own())
        };
        assert!(rendered(RENDERED));
        assert!(rendered(&RENDERED.replace("set -e", ". /opt/hermes/.venv/bin/activate")));
        assert!(rendered(&RENDERED.replace(" --replace", "")));
        assert!(!rendered(&RENDERED.replace("set -e", "ulimit -n 100")));
        assert!(!rendered(&RENDERED.replace("gateway run", "chat")));
        assert!(!rendered("#!/bin/sh\nexec sleep 1000\n"));
        assert!(!rendered(""));
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
