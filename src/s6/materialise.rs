//! Makes what s6 and the Hermes CLI would have made: the scan directory, the supervisor's directories in a slot, and
//! the slot of a gateway.
//!
//! The scan directory belongs to the gateway user, so everything in it is made with that user's file credentials and
//! without following links: a planted link can at most make that user harm itself. A slot is built under a name that
//! begins with a dot and renamed into place, so no scan ever sees half of one.

use super::slot::{Run, SUPERVISOR_DIRS, SlotNameError, is_executable_file, slot_name, stat_beneath};
use crate::core::name::{GATEWAY_PREFIX, ServiceName};
use crate::sys::beneath::Beneath;
use crate::sys::bestow;
use crate::sys::credentials::Credentials;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// s6's own mode of a directory where anybody may plant a FIFO to be told of events, and nobody may remove another's.
const EVENT_MODE: u32 = 0o3730;
/// Depth to which a slot is removed: each level costs a descriptor. Deeper is no slot.
const DEEPEST: usize = 64;

/// What `run`, `finish` and `log/run` of a gateway's slot depend on.
#[derive(Debug, Clone, Copy)]
pub struct GatewaySlot<'a> {
    /// The service that is the gateway.
    pub profile: &'a ServiceName,
    /// The directory that is HOME and where it starts.
    pub home: &'a Path,
    /// The gateway user's name, for those who run the script as root.
    pub user: &'a str,
    /// Whether there is a file `down`.
    pub down: bool,
}

/// What became of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    New,
    /// There was something unusable of that name.
    Replaced,
    /// It was there; only its `down` was made to match.
    Kept,
}

/// Makes the scan directory `path` (0755, given to `owner`) with `.s6-svscan/control` (a FIFO, 0600) and
/// `.s6-svscan/lock` in it, owned by `owner`. Idempotent. One that somebody else made stays theirs, unless it is ours
/// and empty, as an interrupted call leaves it.
///
/// # Errors
/// As mkdirat(2), fchown(2), mknodat(2); ELOOP or ENOTDIR when the place is taken by a link or a file.
pub fn prepare(path: &Path, owner: &Credentials) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    std::fs::create_dir_all(parent)?;
    let parent = Beneath::open(parent)?;
    let mut scandir = parent.create_dirs(Path::new(name), 0o755)?;
    let stat = rustix::fs::fstat(&scandir)?;
    let own = Credentials::own();
    if stat.st_uid == own.uid && scandir.list()?.is_empty() {
        rustix::fs::fchmod(&scandir, Mode::from_raw_mode(0o755))?;
        if own.uid != owner.uid {
            let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
            match rustix::fs::fchown(&scandir, Some(uid), Some(gid)) {
                // Without CAP_CHOWN it is not given away, but made by its owner.
                Err(Errno::PERM) => {
                    rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR)?;
                    scandir = bestow::directory(&parent, name, 0o755, owner, &own)?;
                }
                given => given?,
            }
        }
    }
    // One that is root's alone has root's control directory.
    let writer = if rustix::fs::fstat(&scandir)?.st_uid == owner.uid { owner } else { &own };
    writer.on_files(|| {
        let control = directory(&scandir, ".s6-svscan", 0o755)?;
        fifo(&control, "control", 0o600)?;
        file(&control, "lock", b"", 0o644)
    })?
}

/// Makes `supervise` (0755) and `event` (03730) in a slot where they are missing: clients of s6 take a directory with
/// them for one that is supervised.
///
/// # Errors
/// As mkdirat(2).
pub fn make_supervise(slot: &Beneath, owner: &Credentials) -> io::Result<()> {
    owner.on_files(|| {
        directory(slot, "event", EVENT_MODE)?;
        directory(slot, "supervise", 0o755)?;
        Ok(())
    })?
}

/// Removes a slot that holds nothing but what [`make_supervise`] makes. False if it is there all the same.
pub fn remove_remains(scandir: &Beneath, slot: &OsStr, owner: &Credentials) -> bool {
    let removed = owner.on_files(|| -> io::Result<()> {
        let dir = scandir.dir(Path::new(slot))?;
        let names = dir.list()?;
        let ours = |name: &OsString| SUPERVISOR_DIRS.iter().any(|known| name == known);
        // An empty one is about to be filled.
        if names.is_empty() || !names.iter().all(ours) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        // Of these only empty ones: nobody else has put anything there yet.
        for name in SUPERVISOR_DIRS {
            let _ = rustix::fs::unlinkat(&dir, name, AtFlags::REMOVEDIR);
        }
        Ok(rustix::fs::unlinkat(scandir, slot, AtFlags::REMOVEDIR)?)
    });
    matches!(removed, Ok(Ok(())))
}

/// Writes the slot `gateway-<profile>` as the Hermes CLI does. One that can be run is left as it is, but for its file
/// `down`; anything else of that name is replaced as a whole.
///
/// # Errors
/// As openat(2), write(2), renameat(2), and `InvalidInput` for too long a name; what is unfinished has a name that begins with a dot and goes with the next call.
pub fn materialise(scandir: &Beneath, wanted: &GatewaySlot<'_>, owner: &Credentials) -> io::Result<Made> {
    let name = format!("{GATEWAY_PREFIX}{}", wanted.profile.profile());
    checked(&name)?;
    owner.on_files(|| {
        let there = exists(scandir, &name)?;
        if there && run_of(scandir, &name)? == Run::Executable {
            mark_down(&scandir.dir(Path::new(&name))?, wanted.down)?;
            return Ok(Made::Kept);
        }
        // Another name than the CLI's own, which may be building the same slot now.
        let building = format!(".{name}.new");
        remove(scandir, Path::new(&building))?;
        let slot = directory(scandir, &building, 0o755)?;
        fill(&slot, wanted)?;
        if there {
            remove(scandir, Path::new(&name))?;
        }
        match scandir.rename(Path::new(&building), Path::new(&name)) {
            Ok(()) => Ok(if there { Made::Replaced } else { Made::New }),
            Err(error) => {
                let _ = remove(scandir, Path::new(&building));
                // The CLI was faster, with the same slot.
                if run_of(scandir, &name).is_ok_and(|run| run == Run::Executable) {
                    mark_down(&scandir.dir(Path::new(&name))?, wanted.down)?;
                    return Ok(Made::Kept);
                }
                Err(error)
            }
        }
    })?
}

/// Makes or removes the file `down` of a slot.
///
/// # Errors
/// As openat(2) and unlinkat(2); `InvalidInput` for what is no name of a slot.
pub fn set_down(scandir: &Beneath, slot: &str, down: bool, owner: &Credentials) -> io::Result<()> {
    checked(slot)?;
    owner.on_files(|| mark_down(&scandir.dir(Path::new(slot))?, down))?
}

fn checked(slot: &str) -> io::Result<()> {
    let invalid = |error: SlotNameError| io::Error::new(io::ErrorKind::InvalidInput, error.to_string());
    slot_name(slot.as_ref()).map(drop).map_err(invalid)
}

fn fill(slot: &Beneath, wanted: &GatewaySlot<'_>) -> io::Result<()> {
    file(slot, "type", b"longrun\n", 0o644)?;
    file(slot, "run", &run_script(wanted), 0o755)?;
    file(slot, "finish", FINISH.as_bytes(), 0o755)?;
    let log = directory(slot, "log", 0o755)?;
    file(&log, "run", &log_script(wanted), 0o755)?;
    for dir in [slot, &log] {
        directory(dir, "event", EVENT_MODE)?;
        let supervise = directory(dir, "supervise", 0o755)?;
        directory(&supervise, "event", EVENT_MODE)?;
        fifo(&supervise, "control", 0o660)?;
    }
    mark_down(slot, wanted.down)
}

// ---- the scripts

/// An exit with 0 was meant, one with 78 (EX_CONFIG of sysexits(3)) would only happen again: 125 tells s6 to stay down.
const FINISH: &str = "\
#!/command/with-contenv sh
case \"$1\" in
  0 | 78) exit 125 ;;
esac
exit 0
";

fn run_script(wanted: &GatewaySlot<'_>) -> Vec<u8> {
    let GatewaySlot { profile, home, user, .. } = wanted;
    let home = quoted(home.as_os_str().as_bytes());
    let user = quoted(user.as_bytes());
    // Without -p it is the root profile; `-p default` would be one of that name.
    let mut command = b"hermes ".to_vec();
    if profile.profile() != "default" {
        command.extend(b"-p ");
        command.extend(quoted(profile.profile().as_bytes()));
        command.push(b' ');
    }
    command.extend(b"gateway run --replace");
    let mut script = b"#!/command/with-contenv sh\nset -e\nexport HOME=".to_vec();
    script.extend(&home);
    script.extend(b"\ncd ");
    script.extend(&home);
    script.extend(b"\nexport HERMES_S6_SUPERVISED_CHILD=1\nexport HERMES_SUPERVISED_CHILD=1\n");
    script.extend(b"[ \"$(id -u)\" = 0 ] || exec ");
    script.extend(&command);
    script.extend(b"\nexec s6-setuidgid ");
    script.extend(&user);
    script.push(b' ');
    script.extend(&command);
    script.push(b'\n');
    script
}

/// Only a real s6-supervise runs it: our own logger takes its place.
fn log_script(wanted: &GatewaySlot<'_>) -> Vec<u8> {
    let mut script = b"#!/command/with-contenv sh\nset -e\n: \"${HERMES_HOME:=".to_vec();
    // Inside the quotes of an expansion only these four mean something.
    for byte in wanted.home.as_os_str().as_bytes() {
        if b"\"\\$`}".contains(byte) {
            script.push(b'\\');
        }
        script.push(*byte);
    }
    script.extend(b"}\"\nlogs=\"$HERMES_HOME\"/logs/gateways/");
    script.extend(quoted(wanted.profile.as_str().as_bytes()));
    script.extend(b"\nas=\n[ \"$(id -u)\" != 0 ] || as='s6-setuidgid '");
    script.extend(quoted(wanted.user.as_bytes()));
    script.extend(
        b"\n$as mkdir -p \"$logs\"\n$as rm -f \"$logs/lock\"\nexec $as s6-log 1 n10 s1000000 T \"$logs\"\n",
    );
    script
}

/// As one word of a POSIX shell; plain words stay as they are.
fn quoted(text: &[u8]) -> Vec<u8> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-".contains(byte);
    if !text.is_empty() && text.iter().all(plain) {
        return text.to_vec();
    }
    let mut word = vec![b'\''];
    for byte in text {
        match byte {
            b'\'' => word.extend(b"'\\''"),
            _ => word.push(*byte),
        }
    }
    word.push(b'\'');
    word
}

// ---- below the open directory, without following links

fn exists(dir: &Beneath, name: &str) -> io::Result<bool> {
    Ok(stat_beneath(dir, Path::new(name))?.is_some())
}

/// Of what may not even be a directory.
fn run_of(scandir: &Beneath, name: &str) -> io::Result<Run> {
    let slot = match stat_beneath(scandir, Path::new(name))? {
        Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
            scandir.dir(Path::new(name))?
        }
        Some(_) | None => return Ok(Run::Missing),
    };
    Ok(match stat_beneath(&slot, Path::new("run"))? {
        None => Run::Missing,
        Some(stat) if is_executable_file(&stat) => Run::Executable,
        Some(_) => Run::NotExecutable,
    })
}

fn mark_down(slot: &Beneath, down: bool) -> io::Result<()> {
    let name = Path::new("down");
    match stat_beneath(slot, name)? {
        // Whatever it is: s6 asks only whether it is there.
        Some(_) if down => Ok(()),
        None if !down => Ok(()),
        Some(_) => remove(slot, name),
        None => file(slot, "down", b"", 0o644),
    }
}

/// Makes it where it is missing, with exactly this mode whatever the umask.
fn directory(parent: &Beneath, name: &str, mode: u32) -> io::Result<Beneath> {
    let name = Path::new(name);
    match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(mode)) {
        Ok(()) => {
            let dir = parent.dir(name)?;
            rustix::fs::fchmod(&dir, Mode::from_raw_mode(mode))?;
            Ok(dir)
        }
        Err(Errno::EXIST) => parent.dir(name),
        Err(error) => Err(error.into()),
    }
}

/// Writes a file that is not there yet; one that is there stays.
fn file(dir: &Beneath, name: &str, content: &[u8], mode: u32) -> io::Result<()> {
    match dir.open_file(Path::new(name), OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, mode) {
        Ok(mut file) => {
            file.write_all(content)?;
            Ok(rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

fn fifo(dir: &Beneath, name: &str, mode: u32) -> io::Result<()> {
    let path = Path::new(name);
    if let Some(stat) = stat_beneath(dir, path)? {
        if FileType::from_raw_mode(stat.st_mode) == FileType::Fifo {
            return Ok(());
        }
        remove(dir, path)?;
    }
    rustix::fs::mknodat(dir, path, FileType::Fifo, Mode::from_raw_mode(mode), 0)?;
    // The umask may have taken bits; an open for reading does not wait with O_NONBLOCK.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, path, flags, Mode::empty())?;
    Ok(rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode))?)
}

/// Removes whatever `name` is, links themselves and not what they lead to. Nothing there is no error.
///
/// # Errors
/// As unlinkat(2); EISDIR for a directory that is nested too deeply.
pub fn remove(dir: &Beneath, name: &Path) -> io::Result<()> {
    remove_tree(dir, name, 0)
}

/// The same where `name` may be a directory of somebody else's, and our rights do not suffice (root without
/// CAP_DAC_OVERRIDE): then its owner empties it.
///
/// # Errors
/// As [`remove`].
pub fn remove_anybodys(dir: &Beneath, name: &Path) -> io::Result<()> {
    let removed = remove(dir, name);
    if !matches!(&removed, Err(error) if error.kind() == io::ErrorKind::PermissionDenied) {
        return removed;
    }
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let parent = rustix::fs::fstat(dir)?;
    for owner in [&stat, &parent] {
        let owner = Credentials { uid: owner.st_uid, gid: owner.st_gid, groups: [owner.st_gid].into() };
        if owner.on_files(|| remove(dir, name)).is_ok_and(|removed| removed.is_ok()) {
            return Ok(());
        }
    }
    remove(dir, name)
}

fn remove_tree(dir: &Beneath, name: &Path, depth: usize) -> io::Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // unlink(2) of a directory: EISDIR on Linux, EPERM in POSIX.
        Err(Errno::ISDIR | Errno::PERM) if depth < DEEPEST => {}
        Err(error) => return Err(error.into()),
    }
    let inside = dir.dir(name)?;
    let names: Vec<OsString> = inside.list()?;
    for entry in names {
        remove_tree(&inside, Path::new(&entry), depth + 1)?;
    }
    match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::slot;
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::PathBuf;
    use std::process::Command;

    struct Scan {
        _dir: tempfile::TempDir,
        path: PathBuf,
        owner: Credentials,
    }

    /// As root, the owner is somebody else, so that what is done with the wrong credentials shows.
    fn owner() -> Credentials {
        match Credentials::own() {
            own if own.uid == 0 => Credentials { uid: 65534, gid: 65534, groups: [65534].into() },
            own => own,
        }
    }

    fn prepared() -> Scan {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let scan = Scan { path: dir.path().join("run/service"), _dir: dir, owner: owner() };
        prepare(&scan.path, &scan.owner).unwrap();
        scan
    }

    impl Scan {
        fn beneath(&self) -> Beneath {
            Beneath::open(&self.path).unwrap()
        }

        fn make(&self, profile: &str, down: bool) -> io::Result<Made> {
            let profile = ServiceName::new(profile).unwrap();
            let wanted =
                GatewaySlot { profile: &profile, home: Path::new("/opt/data"), user: "hermes", down };
            materialise(&self.beneath(), &wanted, &self.owner)
        }

        fn read(&self, name: &str) -> slot::Slot {
            let (slot, warnings) = slot::read(&Beneath::open(&self.path.join(name)).unwrap()).unwrap();
            assert_eq!(warnings, []);
            slot
        }
    }

    fn mode(path: PathBuf) -> u32 {
        std::fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    /// Contract: 46.
    #[test]
    fn the_scan_directory_is_the_owners_and_preparing_it_again_changes_nothing() {
        let scan = prepared();
        for (name, expected) in
            [("", 0o755), (".s6-svscan", 0o755), (".s6-svscan/control", 0o600), (".s6-svscan/lock", 0o644)]
        {
            let path = scan.path.join(name);
            assert_eq!(std::fs::symlink_metadata(&path).unwrap().uid(), scan.owner.uid, "{name}");
            assert_eq!(mode(path), expected, "{name}");
        }
        std::fs::write(scan.path.join(".s6-svscan/lock"), "kept").unwrap();
        prepare(&scan.path, &scan.owner).unwrap();
        assert_eq!(std::fs::read(scan.path.join(".s6-svscan/lock")).unwrap(), b"kept");
        // A link in its place is refused, not followed.
        let elsewhere = tempfile::tempdir().unwrap();
        let link = elsewhere.path().join("service");
        symlink(&scan.path, &link).unwrap();
        assert!(prepare(&link, &scan.owner).is_err());
    }

    #[test]
    fn a_planted_control_directory_leads_nowhere() {
        let scan = prepared();
        let outside = tempfile::tempdir().unwrap();
        std::fs::remove_dir_all(scan.path.join(".s6-svscan")).unwrap();
        symlink(outside.path(), scan.path.join(".s6-svscan")).unwrap();
        assert!(prepare(&scan.path, &scan.owner).is_err());
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    /// Contract: 61, 62.
    #[test]
    fn a_slot_has_everything_that_the_cli_would_have_made() {
        let scan = prepared();
        assert_eq!(scan.make("coder", true).unwrap(), Made::New);
        let slot = scan.read("gateway-coder");
        assert!(slot.down && slot.logger && !slot.root_owned);
        assert_eq!((slot.run, slot.kind), (Run::Executable, slot::Kind::Longrun));
        assert_eq!(slot.finish, Some(slot::FinishTimeout::After(slot::FINISH_TIMEOUT)));
        let dir = scan.path.join("gateway-coder");
        for (name, expected) in [
            ("", 0o755),
            ("run", 0o755),
            ("finish", 0o755),
            ("log/run", 0o755),
            ("type", 0o644),
            ("down", 0o644),
            ("event", 0o3730),
            ("supervise", 0o755),
            ("supervise/event", 0o3730),
            ("supervise/control", 0o660),
            ("log/event", 0o3730),
            ("log/supervise/control", 0o660),
        ] {
            let path = dir.join(name);
            assert_eq!(std::fs::symlink_metadata(&path).unwrap().uid(), scan.owner.uid, "{name}");
            assert_eq!(mode(path), expected, "{name}");
        }
        assert_eq!(std::fs::read_to_string(dir.join("type")).unwrap(), "longrun\n");
        let run = std::fs::read_to_string(dir.join("run")).unwrap();
        assert_eq!(
            run,
            "#!/command/with-contenv sh\nset -e\nexport HOME=/opt/data\ncd /opt/data\n\
             export HERMES_S6_SUPERVISED_CHILD=1\nexport HERMES_SUPERVISED_CHILD=1\n\
             [ \"$(id -u)\" = 0 ] || exec hermes -p coder gateway run --replace\n\
             exec s6-setuidgid hermes hermes -p coder gateway run --replace\n"
        );
        scan.make("default", false).unwrap();
        let run = std::fs::read_to_string(scan.path.join("gateway-default/run")).unwrap();
        assert!(run.contains("exec hermes gateway run --replace\n"), "{run}");
    }

    /// The scripts, run by the shell they name (without its with-contenv), with tools that only say what was asked.
    /// Contract: 62, 63, 64.
    #[test]
    fn the_scripts_do_what_they_say() {
        let scan = prepared();
        let home = scan.path.join("a home's \"$x\"");
        std::fs::create_dir(&home).unwrap();
        let profile = ServiceName::new("coder").unwrap();
        let wanted = GatewaySlot { profile: &profile, home: &home, user: "hermes", down: false };
        let bin = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("id", "#!/bin/sh\necho ${FAKE_UID}\n"),
            ("hermes", "#!/bin/sh\necho hermes \"$@\" in \"$PWD\" $HERMES_S6_SUPERVISED_CHILD\n"),
            ("s6-setuidgid", "#!/bin/sh\necho as \"$1\"; shift; exec \"$@\"\n"),
            ("s6-log", "#!/bin/sh\necho s6-log \"$@\"\n"),
        ] {
            std::fs::write(bin.path().join(name), text).unwrap();
            std::fs::set_permissions(bin.path().join(name), PermissionsExt::from_mode(0o755)).unwrap();
        }
        let path = format!("{}:{}", bin.path().display(), std::env::var("PATH").unwrap());
        let run = |script: &[u8], uid: &str, argument: &str| {
            let file = bin.path().join("script");
            std::fs::write(&file, script).unwrap();
            let mut shell = Command::new("sh");
            shell.arg(&file).arg(argument).env("PATH", &path).env("FAKE_UID", uid).env_remove("HERMES_HOME");
            let done = shell.output().unwrap();
            (String::from_utf8(done.stdout).unwrap(), done.status.code())
        };
        let home = home.display();
        let gateway = format!("hermes -p coder gateway run --replace in {home} 1\n");
        assert_eq!(run(&run_script(&wanted), "10000", "").0, gateway);
        let hostile = ServiceName::of_slot("$(id);'x").unwrap();
        let quoted = GatewaySlot { profile: &hostile, ..wanted };
        let shown = format!("hermes -p $(id);'x gateway run --replace in {home} 1\n");
        assert_eq!(run(&run_script(&quoted), "10000", "").0, shown);
        let shown = format!("s6-log 1 n10 s1000000 T {home}/logs/gateways/$(id);'x\n");
        assert_eq!(run(&log_script(&quoted), "10000", "").0, shown);
        assert_eq!(run(&run_script(&wanted), "0", "").0, format!("as hermes\n{gateway}"));
        let log = format!("s6-log 1 n10 s1000000 T {home}/logs/gateways/coder\n");
        assert_eq!(run(&log_script(&wanted), "10000", "").0, log);
        assert!(run(&log_script(&wanted), "0", "").0.ends_with(&format!("as hermes\n{log}")));
        for (code, expected) in [("0", 125), ("78", 125), ("1", 0), ("75", 0), ("256", 0)] {
            assert_eq!(run(FINISH.as_bytes(), "0", code).1, Some(expected), "exit code {code}");
        }
    }

    #[test]
    fn a_slot_that_can_be_run_is_kept_and_its_down_made_to_match() {
        let scan = prepared();
        scan.make("coder", false).unwrap();
        let run = scan.path.join("gateway-coder/run");
        std::fs::write(&run, "#!/bin/sh\nours\n").unwrap();
        for down in [true, true, false, false] {
            assert_eq!(scan.make("coder", down).unwrap(), Made::Kept);
            assert_eq!(scan.read("gateway-coder").down, down);
        }
        assert_eq!(std::fs::read_to_string(run).unwrap(), "#!/bin/sh\nours\n");
        for down in [true, false] {
            set_down(&scan.beneath(), "gateway-coder", down, &scan.owner).unwrap();
            assert_eq!(scan.read("gateway-coder").down, down);
        }
        for bad in ["..", ".s6-svscan", "a/b", "missing"] {
            assert!(set_down(&scan.beneath(), bad, true, &scan.owner).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_slot_is_replaced_as_a_whole_and_links_are_not_followed() {
        let scan = prepared();
        let outside = tempfile::tempdir().unwrap();
        std::fs::set_permissions(outside.path(), PermissionsExt::from_mode(0o777)).unwrap();
        std::fs::write(outside.path().join("precious"), "").unwrap();
        let own = |path: &Path| std::os::unix::fs::lchown(path, Some(scan.owner.uid), None).unwrap();
        let at = scan.path.join("gateway-coder");
        // What an interrupted call left.
        let left = scan.path.join(".gateway-coder.new");
        std::fs::create_dir(&left).unwrap();
        own(&left);
        symlink(outside.path(), &at).unwrap();
        own(&at);
        assert_eq!(scan.make("coder", false).unwrap(), Made::Replaced);
        std::fs::remove_file(at.join("run")).unwrap();
        symlink("/bin/sh", at.join("run")).unwrap();
        symlink(outside.path(), at.join("data")).unwrap();
        assert_eq!(scan.make("coder", true).unwrap(), Made::Replaced);
        assert_eq!(scan.read("gateway-coder").run, Run::Executable);
        assert!(!at.join("data").exists() && outside.path().join("precious").exists());
        let names: Vec<_> = scan.beneath().list().unwrap();
        assert_eq!(names, [".s6-svscan", "gateway-coder"]);
    }

    #[test]
    fn the_supervisors_directories_are_made_where_they_are_missing() {
        let scan = prepared();
        scan.make("coder", false).unwrap();
        let at = scan.path.join("gateway-coder");
        std::fs::remove_dir(at.join("event")).unwrap();
        std::fs::set_permissions(at.join("supervise"), PermissionsExt::from_mode(0o700)).unwrap();
        let slot = Beneath::open(&at).unwrap();
        for _ in 0..2 {
            make_supervise(&slot, &scan.owner).unwrap();
        }
        assert!(!remove_remains(&scan.beneath(), "gateway-coder".as_ref(), &scan.owner), "it holds more");
        assert_eq!(mode(at.join("event")), 0o3730);
        assert_eq!(mode(at.join("supervise")), 0o700, "what is there stays");
        let bare = scan.path.join("bare");
        std::fs::create_dir(&bare).unwrap();
        std::os::unix::fs::lchown(&bare, Some(scan.owner.uid), None).unwrap();
        assert!(!remove_remains(&scan.beneath(), "bare".as_ref(), &scan.owner), "it is about to be filled");
        make_supervise(&Beneath::open(&bare).unwrap(), &scan.owner).unwrap();
        std::fs::write(bare.join("supervise/kept"), "").unwrap();
        assert!(
            !remove_remains(&scan.beneath(), "bare".as_ref(), &scan.owner),
            "something of somebody's is in it"
        );
        std::fs::remove_file(bare.join("supervise/kept")).unwrap();
        assert!(remove_remains(&scan.beneath(), "bare".as_ref(), &scan.owner) && !bare.exists());
    }
}
