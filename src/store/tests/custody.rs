//! Whose files they are, and who may use them: strangers' files gain nothing, a second supervisor is refused.

use super::*;
use crate::core::words::Want;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

const STRANGER: u32 = 10000;

/// Only root can plant somebody else's file.
fn root() -> bool {
    rustix::process::geteuid().is_root()
}

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn give_away(path: &Path) {
    chown(path, Some(STRANGER), Some(STRANGER)).unwrap();
}

fn with_wants() -> Home {
    let home = Home::new();
    let running = home.open();
    running.commit(1, vec![want("a", Want::Down), record("a")]).unwrap();
    running.close();
    home
}

#[test]
fn directory_and_files_are_ours_and_readable_by_the_group_of_the_gateway_user() {
    let home = Home::new();
    // A parent that hands down its group must not change that.
    std::fs::set_permissions(home.dir.path(), std::fs::Permissions::from_mode(0o2777)).unwrap();
    let gid = if root() { 4242 } else { home.options().gid };
    let options = Options { gid, ..home.options() };
    let running = home.open_on(options, disk::plain()).unwrap();
    running.commit(1, vec![want("a", Want::Up)]).unwrap();
    running.close();
    assert_eq!(mode(&home.state()), 0o750);
    assert_eq!(mode(&home.file("state.redb")), 0o640);
    assert_eq!(mode(&home.file("wants")), 0o640);
    assert_eq!(mode(&home.file("private")), 0o700, "who can open the lock could take it");
    for path in [home.state(), home.file("state.redb"), home.file("wants")] {
        let metadata = std::fs::metadata(&path).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (rustix::process::geteuid().as_raw(), gid));
    }
    // The group follows the gateway user, and a stricter mode is put right.
    std::fs::set_permissions(home.file("state.redb"), std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::set_permissions(home.state(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let opened = home.reopened();
    assert_eq!((opened.wants.len(), opened.warnings.len()), (1, 0));
    assert_eq!((mode(&home.state()), mode(&home.file("state.redb"))), (0o750, 0o640));
    assert_eq!(std::fs::metadata(home.file("state.redb")).unwrap().gid(), home.options().gid);
}

#[test]
fn a_planted_directory_is_set_aside_and_nothing_in_it_believed() {
    if !root() {
        return;
    }
    let home = with_wants();
    for file in ["state.redb", "wants", "private/lock"] {
        give_away(&home.file(file));
    }
    give_away(&home.state());
    let running = home.open();
    let opened = &running.opened;
    assert_eq!((opened.wants.len(), opened.records.len()), (0, 0));
    assert_eq!(opened.warnings.len(), 1);
    assert!(
        opened.warnings[0].contains("(it belongs to uid 10000, not 0): set aside as supervisor.foreign-")
    );
    assert_eq!(home.like(home.dir.path(), "supervisor.foreign-").len(), 1);
    assert_eq!(mode(&home.state()), 0o750);
    running.commit(1, vec![want("b", Want::Up)]).unwrap();
    running.close();
    assert_eq!(home.reopened().wants.keys().collect::<Vec<_>>(), [&name("b")]);
}

#[test]
fn a_planted_database_mirror_or_lock_gains_nothing() {
    if !root() {
        return;
    }
    let home = with_wants();
    give_away(&home.file("state.redb"));
    let opened = home.reopened();
    assert_eq!((opened.wants.len(), opened.records.len()), (1, 0), "{:?}", opened.warnings);
    assert_eq!(home.like(&home.state(), "state.redb.foreign-").len(), 1);
    assert!(opened.warnings.iter().any(|line| line.contains("nothing in it was believed")));

    std::fs::remove_file(home.file("state.redb")).unwrap();
    give_away(&home.file("wants"));
    assert_eq!(home.reopened().wants.len(), 0);
    assert_eq!(home.like(&home.state(), "wants.foreign-").len(), 1);

    // A lock file of another's, even if he holds the lock.
    give_away(&home.file("private/lock"));
    let theirs = std::fs::File::open(home.file("private/lock")).unwrap();
    rustix::fs::flock(&theirs, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    let opened = home.reopened();
    assert!(opened.warnings[0].contains("lock is not as hermes-sup left it"), "{:?}", opened.warnings);
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn what_others_could_have_written_is_foreign_too() {
    let home = with_wants();
    set_mode(&home.file("state.redb"), 0o642);
    let opened = home.reopened();
    assert_eq!((opened.wants.len(), opened.records.len()), (1, 0));
    assert!(opened.warnings[0].contains("(it has mode 0642, not 0640)"), "{:?}", opened.warnings);
    set_mode(&home.state(), 0o757);
    let opened = home.reopened();
    assert_eq!(opened.wants.len(), 0);
    assert!(opened.warnings[0].contains("(it has mode 0757, not 0750)"), "{:?}", opened.warnings);
    assert!(home.like(home.dir.path(), ".hermes-sup-probe").is_empty());
    if root() {
        // Another group than the gateway user's.
        std::fs::remove_dir_all(home.state()).unwrap();
        let running = home.open();
        running.commit(1, vec![want("a", Want::Down)]).unwrap();
        running.close();
        chown(home.state(), None, Some(STRANGER)).unwrap();
        set_mode(&home.state(), 0o770);
        let opened = home.reopened();
        assert_eq!(opened.wants.len(), 0);
        assert!(opened.warnings[0].contains("(it has mode 0770, not 0750)"), "{:?}", opened.warnings);
    }
}

/// kubelet makes a volume with `fsGroup` writable for that group, with setgid on directories, at each start of a pod. The
/// whole state was set aside then, each time, and with it what was registered, limited, failed or waiting.
#[test]
fn what_fs_group_does_to_a_volume_is_put_right_with_one_warning_and_believed() {
    let home = with_wants();
    for path in ["", "private"] {
        set_mode(&home.file(path), 0o2770);
    }
    for path in ["state.redb", "wants", "private/lock"] {
        set_mode(&home.file(path), 0o660);
    }
    let running = home.open();
    assert_eq!((running.opened.wants.len(), running.opened.records.len()), (1, 1));
    let [warning] = &running.opened.warnings[..] else { panic!("{:?}", running.opened.warnings) };
    assert!(warning.contains("fsGroup") && warning.contains("believed"), "{warning}");
    assert_eq!((mode(&home.state()), mode(&home.file("private"))), (0o750, 0o700));
    assert_eq!((mode(&home.file("state.redb")), mode(&home.file("private/lock"))), (0o640, 0o600));
    running.close();
    assert_eq!(home.reopened().warnings, Vec::<String>::new());
    assert!(home.like(home.dir.path(), "supervisor.").is_empty());
}

#[test]
fn what_is_set_aside_is_bounded_in_number() {
    let home = with_wants();
    for _ in 0..6 {
        set_mode(&home.file("state.redb"), 0o666);
        home.reopened();
        set_mode(&home.state(), 0o777);
        home.reopened();
    }
    assert_eq!(home.like(home.dir.path(), "supervisor.foreign-").len(), 3);
    for aside in home.like(home.dir.path(), "supervisor.foreign-") {
        assert!(home.like(&home.dir.path().join(aside), "state.redb.foreign-").len() <= 3);
    }
}

/// The owner of home may have put anything under such a name, also what only root can remove.
#[test]
fn nothing_is_removed_beside_the_state_that_the_owner_of_home_could_not_remove() {
    if !root() {
        return;
    }
    let home = Home::new();
    give_away(home.dir.path());
    let precious = home.dir.path().join("supervisor.foreign-1");
    std::fs::create_dir(&precious).unwrap();
    std::fs::write(precious.join("root's"), "").unwrap();
    for _ in 0..5 {
        std::fs::create_dir_all(home.state()).unwrap();
        give_away(&home.state());
        home.reopened();
        std::fs::remove_dir_all(home.state()).unwrap();
    }
    assert!(precious.join("root's").exists());
}

/// The gateway user owns home: it cannot remove a directory of ours, nor move it elsewhere, but give it another name.
#[test]
fn a_state_that_was_renamed_is_found_again_and_said_loudly() {
    let home = with_wants();
    let hidden = home.dir.path().join(".cache");
    std::fs::rename(home.state(), &hidden).unwrap();
    // What is put in its place changes nothing.
    std::fs::create_dir(home.state()).unwrap();
    set_mode(&home.state(), 0o777);
    let opened = home.reopened();
    assert_eq!((opened.wants[&name("a")].want, opened.records.len()), (Want::Down, 1));
    assert!(opened.warnings.iter().any(|line| line.contains("had renamed it to")), "{:?}", opened.warnings);
    assert!(!hidden.exists());

    // The state of another path is not taken for it.
    let other = Options { dir: home.dir.path().join("other"), ..home.options() };
    let running = home.open_on(other, disk::plain()).unwrap();
    assert_eq!(running.opened.wants.len(), 0);
    assert!(home.state().exists());
}

/// The search ended after a hundred thousand names. hermes made more, hid the directory behind them, and what root had
/// stopped was up after the next boot.
#[test]
fn a_renamed_state_is_found_behind_any_number_of_names() {
    const OTHERS: usize = 120_000;
    let home = with_wants();
    let beside = |name: String| home.dir.path().join(name);
    for number in 0..OTHERS {
        std::fs::File::create_new(beside(format!("flood{number}"))).unwrap();
    }
    // Some filesystems list by a hash of the name, so the attacker tries names until one comes late.
    let place_of = |wanted: &str| {
        let mut names = std::fs::read_dir(home.dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        names.position(|name| name == *wanted)
    };
    let mut hidden = home.state();
    for number in 0..1000 {
        let name = format!("hidden{number}");
        std::fs::rename(&hidden, beside(name.clone())).unwrap();
        hidden = beside(name.clone());
        if place_of(&name) > Some(100_000) {
            break;
        }
    }
    let opened = home.reopened();
    assert_eq!((opened.wants[&name("a")].want, opened.records.len()), (Want::Down, 1));
    assert!(!hidden.exists());
}

/// hermes moved the state directory away, and `ctl stop` of root's service was acknowledged all the same; after the next
/// boot the service was up.
#[test]
fn what_is_acknowledged_is_where_the_next_boot_looks_for_it() {
    let home = with_wants();
    let aside = home.dir.path().join("aside");
    let damages: [&dyn Fn(); 4] = [
        &|| std::fs::rename(home.state(), &aside).unwrap(),
        &|| std::fs::remove_dir_all(home.state()).unwrap(),
        &|| std::fs::remove_file(home.file("state.redb")).unwrap(),
        &|| {
            std::fs::rename(home.state(), &aside).unwrap();
            symlink(&aside, home.state()).unwrap();
        },
    ];
    for (count, damage) in damages.iter().enumerate() {
        let running = home.open();
        running.commit(1, vec![want("a", Want::Up), record("a")]).unwrap();
        damage();
        running.store.commit(2, vec![want("a", Want::Down)]);
        let (done, said) = running.answer(2);
        done.unwrap_or_else(|error| panic!("{count}: {error}"));
        drop(running);
        let loud = |event: &StoreEvent| matches!(event, StoreEvent::Warning { text } if text.contains("moved or removed"));
        assert!(said.iter().any(loud), "{count}: {said:?}");
        let opened = home.reopened();
        assert_eq!((opened.wants[&name("a")].want, opened.records.len()), (Want::Down, 1), "{count}");
        let _ = std::fs::remove_dir_all(&aside);
    }
}

/// The directory was moved away while it was in use, and taken back: its own database was set aside as damaged.
#[test]
fn what_comes_back_to_its_place_is_our_own() {
    let home = with_wants();
    let aside = home.dir.path().join("aside");
    let running = home.open();
    std::fs::rename(home.state(), &aside).unwrap();
    running.commit(2, vec![want("b", Want::Up)]).unwrap();
    assert!(!aside.exists(), "it is where it was");
    assert_eq!(home.like(&home.state(), "state.redb.corrupt-"), [""; 0]);
    let instance = running.opened.instance.clone();
    running.close();
    let opened = home.reopened();
    assert_eq!((opened.wants[&name("a")].want, opened.records.len()), (Want::Down, 1));
    assert_eq!((opened.wants[&name("b")].want, opened.instance), (Want::Up, instance));

    // That of another instance is kept for people to look at.
    let running = home.open();
    std::fs::rename(home.state(), &aside).unwrap();
    std::fs::rename(with_wants().state(), home.state()).unwrap();
    running.commit(3, vec![want("b", Want::Down)]).unwrap();
    assert_eq!(home.like(&home.state(), "state.redb.corrupt-").len(), 1);
}

#[test]
fn what_cannot_be_put_where_the_next_boot_looks_is_not_acknowledged() {
    let home = with_wants();
    let running = home.open();
    std::fs::rename(home.dir.path(), home.dir.path().with_extension("gone")).unwrap();
    std::fs::write(home.dir.path(), "a file").unwrap();
    let refused = running.commit(2, vec![want("a", Want::Up)]);
    std::fs::remove_file(home.dir.path()).unwrap();
    std::fs::rename(home.dir.path().with_extension("gone"), home.dir.path()).unwrap();
    assert!(refused.is_err(), "acknowledged");
    running.commit(3, vec![want("b", Want::Up)]).unwrap();
    running.close();
    assert!(home.reopened().wants.contains_key(&name("b")));
}

#[test]
fn links_are_never_followed() {
    let home = Home::new();
    let elsewhere = with_wants();
    symlink(elsewhere.state(), home.state()).unwrap();
    let opened = home.reopened();
    assert_eq!(opened.wants.len(), 0);
    assert!(opened.warnings[0].contains("is not a directory"), "{:?}", opened.warnings);
    for file in ["state.redb", "wants", "private/lock"] {
        std::fs::remove_file(home.file(file)).unwrap();
        symlink(elsewhere.file(file), home.file(file)).unwrap();
    }
    let before = std::fs::read(elsewhere.file("state.redb")).unwrap();
    let opened = home.reopened();
    assert_eq!((opened.wants.len(), opened.records.len()), (0, 0));
    assert_eq!(opened.warnings.iter().filter(|line| line.contains("is not a regular file")).count(), 3);
    assert_eq!(std::fs::read(elsewhere.file("state.redb")).unwrap(), before);

    // On the way below the home a link is refused; what leads to the home is the operator's.
    let third = Home::new();
    symlink(elsewhere.dir.path(), third.dir.path().join("link")).unwrap();
    let dir = third.dir.path().join("link/supervisor");
    let running = third.open_on(Options { dir: dir.clone(), ..third.options() }, disk::plain()).unwrap();
    assert!(running.opened.volatile.is_some() && running.opened.wants.is_empty());
    drop(running);
    let home = dir.parent().unwrap().to_owned();
    let running = third.open_on(Options { home, dir, ..third.options() }, disk::plain()).unwrap();
    assert_eq!(running.opened.wants.len(), 1);
}

#[test]
fn a_directory_is_made_where_it_is_missing_and_an_impossible_one_is_no_obstacle() {
    let home = Home::new();
    let dir = home.dir.path().join("x/y/state");
    let running = home.open_on(Options { dir: dir.clone(), ..home.options() }, disk::plain()).unwrap();
    running.commit(1, vec![want("a", Want::Up)]).unwrap();
    assert!(dir.join("state.redb").exists());
    running.close();
    let elsewhere = home.dir.path().join("new/home");
    let options = Options { home: elsewhere.clone(), dir: elsewhere.join("s"), ..home.options() };
    assert_eq!(home.open_on(options, disk::plain()).unwrap().opened.volatile, None);

    for dir in ["/proc/hermes-sup-test", "/", ".."] {
        let options = Options { dir: dir.into(), ..home.options() };
        let running = home.open_on(options, disk::plain()).unwrap();
        assert!(running.opened.volatile.is_some(), "{dir}");
        assert!(running.commit(1, vec![want("a", Want::Up)]).is_err(), "{dir}");
        assert!(running.store.close(SOON).is_err(), "the lock of home is free again");
    }
}

#[test]
fn a_second_supervisor_is_refused_with_pid_host_and_since() {
    let home = Home::new();
    let first = home.open();
    let Err(OpenError::Held { path, holder: Some(holder) }) = home.try_open().map(|_| ()) else {
        panic!("let in")
    };
    assert_eq!((&path, holder.pid, holder.host.as_str()), (&home.state(), std::process::id(), "box"));
    assert!(humantime::parse_rfc3339(&holder.since).is_ok(), "{holder:?}");
    let message = OpenError::Held { path, holder: Some(holder.clone()) }.to_string();
    let expected = format!(
        "{} is in use by another supervisor (pid {} on host \"box\" since {:?}), which supervises the services of this \
         home: stop that one, or use another --home",
        home.state().display(),
        std::process::id(),
        holder.since
    );
    assert_eq!(message, expected);
    first.commit(1, vec![want("a", Want::Up)]).unwrap();
    first.close();
    assert_eq!(home.reopened().wants.len(), 1);
}

/// A supervisor that was killed between clone and exec leaves a child that holds a copy of the lock's descriptor until
/// it notices: its successor was refused then.
#[test]
fn a_lock_that_is_let_go_in_a_moment_is_waited_for() {
    let home = with_wants();
    let dying = std::fs::File::open(home.file("private/lock")).unwrap();
    dying.lock().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let moment = rustix::event::Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
            let _ = rustix::event::poll(&mut [], Some(&moment));
            dying.unlock().unwrap();
        });
        let running = home.open();
        assert_eq!(running.opened.wants.len(), 1);
        running.close();
    });
}

#[test]
fn a_lock_file_that_was_left_behind_is_no_obstacle() {
    let home = with_wants();
    for text in ["{\"pid\":1,\"host\":\"gone\",\"since\":\"2020-01-01T00:00:00Z\"}\n", "", "\u{fffd}{]"] {
        std::fs::write(home.file("private/lock"), text).unwrap();
        let running = home.open();
        assert_eq!((running.opened.wants.len(), running.opened.warnings.len()), (1, 0), "{text:?}");
        let held = home.try_open().err().unwrap().to_string();
        assert!(held.contains("on host \"box\""), "{held}");
        running.close();
    }
}
