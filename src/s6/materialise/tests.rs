//! What is made, in real directories.

use super::scripts::{FINISH, log_script, run_script};
use super::*;
use crate::s6::slot;
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
        let wanted = GatewaySlot { profile: &profile, home: Path::new("/opt/data"), user: "hermes", down };
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
