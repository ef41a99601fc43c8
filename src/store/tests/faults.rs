//! Disks that are full, broken, read-only or silent: callers are never blocked, answers are true, recovery is by itself.

use super::*;
use crate::core::words::Want;

const ALWAYS: usize = usize::MAX;
const ENOSPC: i32 = rustix::io::Errno::NOSPC.raw_os_error();
const EIO: i32 = rustix::io::Errno::IO.raw_os_error();
const EROFS: i32 = rustix::io::Errno::ROFS.raw_os_error();

#[test]
fn on_a_full_disk_commits_fail_with_the_reason_and_recover_when_space_returns() {
    let home = Home::new();
    let disk = TestDisk::new();
    let running = home.open_with(&disk);
    running.commit(1, vec![want("a", Want::Up)]).unwrap();
    disk.fail_write(ENOSPC, ALWAYS);
    running.store.commit_lazily(vec![Change::Run(name("a"), run_row(4))]);
    let reason = running.commit(2, vec![want("a", Want::Down)]).unwrap_err();
    let expected = format!(
        "no space for {}: free some on its volume, recording then goes on by itself",
        home.file("state.redb").display()
    );
    assert_eq!(reason, expected);
    assert_eq!(running.event(), StoreEvent::Degraded { reason: expected });
    assert!(running.commit(3, vec![want("b", Want::Up)]).is_err());
    disk.heal();
    running.commit(4, vec![want("c", Want::Up)]).unwrap();
    assert_eq!(running.event(), StoreEvent::Recovered { opened: None });
    running.close();
    let opened = home.reopened();
    let wants: Vec<_> = opened.wants.iter().map(|(name, row)| (name.as_str(), row.want)).collect();
    assert_eq!(wants, [("a", Want::Up), ("c", Want::Up)], "what failed is not adopted");
    assert_eq!(opened.runs[&name("a")].restarts, 4, "history waits for better times");
}

/// A service that was given up while the disk was full was no failure any more for the next supervisor: nobody waited for the row, so
/// nobody wrote it again.
#[test]
fn what_is_written_at_once_is_written_later_where_the_disk_refuses_it() {
    let home = Home::new();
    let disk = TestDisk::new();
    let running = home.open_with(&disk);
    disk.fail_write(ENOSPC, ALWAYS);
    running.store.commit_soon(vec![Change::Run(name("a"), run_row(4))]);
    assert!(matches!(running.event(), StoreEvent::Degraded { .. }));
    disk.heal();
    assert_eq!(running.event(), StoreEvent::Recovered { opened: None });
    running.close();
    assert_eq!(home.reopened().runs[&name("a")].restarts, 4);
}

/// The first want of a service was not on record after a stop of it had been refused: what nobody waits for went with what somebody
/// did.
#[test]
fn a_commit_that_fails_takes_nothing_along_that_came_before_it() {
    let home = Home::new();
    let disk = TestDisk::new();
    let running = home.open_with(&disk);
    disk.fail_write(ENOSPC, ALWAYS);
    running.store.commit_lazily(vec![want("a", Want::Up)]);
    running.commit(1, vec![want("a", Want::Down)]).unwrap_err();
    running.commit(2, vec![want("a", Want::Down)]).unwrap_err();
    disk.heal();
    running.commit(3, vec![want("b", Want::Up)]).unwrap();
    running.close();
    let wants = home.reopened().wants;
    assert_eq!((wants[&name("a")].want, wants.len()), (Want::Up, 2));
}

#[test]
fn recovery_needs_no_command() {
    let home = Home::new();
    let disk = TestDisk::new();
    let running = home.open_with(&disk);
    disk.fail_write(ENOSPC, ALWAYS);
    running.commit(1, vec![want("a", Want::Up)]).unwrap_err();
    assert!(matches!(running.event(), StoreEvent::Degraded { .. }));
    disk.heal();
    assert_eq!(running.event(), StoreEvent::Recovered { opened: None });
}

/// After a failed fsync the kernel forgets the pages: the same file would sync without an error and still lack them.
#[test]
fn a_file_whose_sync_failed_is_replaced_and_the_caller_notices_nothing() {
    use std::os::unix::fs::MetadataExt;
    let home = Home::new();
    let disk = TestDisk::new();
    let running = home.open_with(&disk);
    running.commit(1, vec![want("a", Want::Up), record("a")]).unwrap();
    let before = std::fs::metadata(home.file("state.redb")).unwrap().ino();
    disk.fail_sync(EIO, 1);
    running.commit(2, vec![want("b", Want::Up)]).unwrap();
    assert_ne!(std::fs::metadata(home.file("state.redb")).unwrap().ino(), before);
    running.close();
    let opened = home.reopened();
    assert_eq!((opened.wants.len(), opened.records.len()), (2, 1));
}

#[test]
fn on_a_broken_disk_what_failed_is_taken_back_even_if_its_bytes_arrived() {
    let home = Home::new();
    let disk = TestDisk::new();
    let running = home.open_with(&disk);
    running.commit(1, vec![want("a", Want::Up)]).unwrap();
    disk.fail_sync(EIO, ALWAYS);
    let reason = running.commit(2, vec![want("a", Want::Down), want("b", Want::Up)]).unwrap_err();
    assert!(reason.starts_with("the disk of ") && !reason.contains('\n'), "{reason}");
    disk.heal();
    running.commit(3, vec![want("c", Want::Up)]).unwrap();
    running.close();
    let wants = home.reopened().wants;
    assert_eq!(wants.keys().map(ServiceName::as_str).collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!(wants[&name("a")].want, Want::Up);
}

#[test]
fn on_a_read_only_volume_what_is_known_is_read_and_the_rest_is_said() {
    let home = Home::new();
    let running = home.open();
    running.commit(1, vec![want("a", Want::Down), record("a")]).unwrap();
    running.close();
    let disk = TestDisk::new();
    disk.fail_open(EROFS, ALWAYS);
    let running = home.open_with(&disk);
    let opened = &running.opened;
    assert_eq!((opened.wants[&name("a")].want, opened.records.len()), (Want::Down, 1));
    let reason = format!(
        "{} is on a read-only volume: mount it writable, recording then goes on by itself",
        home.file("state.redb").display()
    );
    assert_eq!(opened.volatile.as_ref().map(Unwritten::to_string).as_ref(), Some(&reason));
    let line = format!("nothing is recorded, wants are kept in memory only: {reason}");
    assert_eq!((&opened.warnings, opened.unrecorded()), (&vec![], Some(line)));
    assert_eq!(running.commit(2, vec![want("b", Want::Up)]), Err(reason));
    disk.heal();
    running.commit(3, vec![want("c", Want::Up)]).unwrap();
    assert_eq!(running.event(), StoreEvent::Recovered { opened: None });
    running.close();
    let opened = home.reopened();
    assert_eq!((opened.wants.len(), opened.records.len()), (2, 1));
}

#[test]
fn a_full_disk_at_the_very_first_start_is_no_obstacle_to_starting() {
    let home = Home::new();
    let disk = TestDisk::new();
    disk.fail_write(ENOSPC, ALWAYS);
    let running = home.open_with(&disk);
    let StoreEvent::Degraded { reason } = running.event() else { panic!("not said") };
    assert!(reason.starts_with("no space for "), "{reason}");
    disk.heal();
    running.commit(1, vec![want("a", Want::Up)]).unwrap();
    let instance = running.opened.instance.clone();
    running.close();
    let opened = home.reopened();
    assert_eq!((opened.instance, opened.wants.len(), opened.warnings.len()), (instance, 1, 0));
    assert!(home.like(&home.state(), "state.redb.").is_empty());
}

#[test]
fn a_disk_that_hangs_at_start_delays_it_no_longer_than_allowed_and_is_heard_later() {
    let home = Home::new();
    let running = home.open();
    running.commit(1, vec![want("a", Want::Down)]).unwrap();
    running.close();
    let disk = TestDisk::new();
    disk.hold();
    let patience = Duration::from_millis(50);
    let began = Instant::now();
    let running = home.open_on(Options { patience, ..home.options() }, disk.wrap()).unwrap();
    assert!(began.elapsed() < SOON / 2);
    assert!(running.opened.volatile.as_ref().unwrap().to_string().contains("has not answered for 50ms"));
    assert!(running.store.busy_since().is_some());
    assert_eq!(running.opened.wants.len(), 0);
    running.store.commit(2, vec![want("b", Want::Up)]);
    disk.release();
    let StoreEvent::Recovered { opened: Some(opened) } = running.event() else { panic!("not told") };
    assert_eq!((opened.wants[&name("a")].want, opened.volatile), (Want::Down, None));
    assert_eq!(running.answer(2), (Ok(()), vec![]));
    running.close();
    assert_eq!(home.reopened().wants.len(), 2);
}

#[test]
fn what_is_late_and_cannot_be_written_is_told_once_it_can() {
    let home = Home::new();
    let running = home.open();
    running.commit(1, vec![want("a", Want::Down)]).unwrap();
    running.close();
    let disk = TestDisk::new();
    disk.hold();
    disk.fail_open(EIO, ALWAYS);
    let options = Options { patience: Duration::from_millis(1), ..home.options() };
    let running = home.open_on(options, disk.wrap()).unwrap();
    disk.release();
    assert!(matches!(running.event(), StoreEvent::Degraded { .. }));
    assert!(running.commit(2, vec![want("b", Want::Up)]).is_err());
    disk.fail_open(0, 0);
    // It opens now, but the commit that comes with it still fails.
    disk.fail_sync(EIO, ALWAYS);
    assert!(running.commit(3, vec![want("b", Want::Up)]).is_err());
    disk.heal();
    running.store.commit(4, vec![want("c", Want::Up)]);
    running.answer(4).0.unwrap();
    let StoreEvent::Recovered { opened: Some(opened) } = running.event() else { panic!("not told") };
    assert_eq!(opened.wants.keys().collect::<Vec<_>>(), [&name("a")]);
}

#[test]
fn a_disk_that_hangs_blocks_no_caller_and_too_much_is_refused() {
    let home = Home::new();
    let disk = TestDisk::new();
    let running = home.open_with(&disk);
    disk.hold();
    running.store.commit(0, vec![want("a", Want::Up)]);
    disk.wait_until_held();
    let many = u64::try_from(MAX_PENDING).unwrap();
    for ticket in 1..=many {
        running.store.commit(ticket, vec![want("a", Want::Up)]);
        running.store.commit_lazily(vec![Change::Run(name("a"), run_row(ticket))]);
    }
    let StoreEvent::Failed { ticket, reason } = running.event() else { panic!("not refused") };
    assert!(ticket > many / 2 && reason.contains("does not keep up"), "{ticket} {reason}");
    let Running { store, events, .. } = running;
    let error = store.close(Duration::from_millis(20)).unwrap_err();
    assert!(error.to_string().contains("not closed within 20ms"), "{error}");
    disk.release();
    // Unattended it still writes all that it had accepted.
    drop(store);
    let answered = events.iter().filter(|event| matches!(event, StoreEvent::Committed { .. })).count();
    assert!(answered > MAX_PENDING / 2);
    assert_eq!(home.reopened().runs[&name("a")].restarts, many);
}

/// `stop --all` of 5000 was refused in part while the history of their starts waited, too.
#[test]
fn one_command_for_five_thousand_services_fits() {
    let home = Home::new();
    let disk = TestDisk::new();
    let running = home.open_with(&disk);
    disk.hold();
    running.store.commit(0, vec![want("a", Want::Up)]);
    disk.wait_until_held();
    for ticket in 1..=5000 {
        let service = format!("s{ticket}");
        running.store.commit_lazily(vec![Change::Run(name(&service), run_row(1))]);
        running.store.commit(ticket, vec![want(&service, Want::Down)]);
    }
    disk.release();
    let Running { store, events, .. } = running;
    store.close(Duration::from_secs(60)).unwrap();
    drop(store);
    let answered = events.iter().filter(|event| matches!(event, StoreEvent::Committed { .. })).count();
    assert_eq!(answered, 5001);
}

#[test]
fn a_mirror_that_cannot_be_written_is_said_and_made_up_for() {
    let home = Home::new();
    let running = home.open();
    // A directory in its place cannot be renamed over.
    std::fs::remove_file(home.file("wants")).unwrap();
    std::fs::create_dir(home.file("wants")).unwrap();
    running.commit(1, vec![want("a", Want::Up)]).unwrap();
    let StoreEvent::Degraded { reason } = running.event() else { panic!("not said") };
    assert!(reason.starts_with("the wants are recorded, but their readable copy "), "{reason}");
    std::fs::remove_dir(home.file("wants")).unwrap();
    assert_eq!(running.event(), StoreEvent::Recovered { opened: None });
    assert!(std::fs::read_to_string(home.file("wants")).unwrap().contains("\na "));
}

/// The state had been moved away, and could not be made again at once. A moment later an empty one was found in its place, and took
/// the place of what was acknowledged.
#[test]
fn a_state_that_cannot_be_made_again_at_once_is_made_again_later_with_all_of_it() {
    let home = Home::new();
    let running = home.open();
    running.commit(1, vec![want("a", Want::Up), record("a")]).unwrap();
    let (place, away) = (home.dir.path().to_owned(), home.dir.path().with_extension("away"));
    std::fs::rename(&place, &away).unwrap();
    std::fs::write(&place, "no directory").unwrap();
    running.commit(2, vec![want("b", Want::Up)]).unwrap_err();
    std::fs::remove_file(&place).unwrap();
    std::fs::create_dir(&place).unwrap();
    running.store.commit(3, vec![want("c", Want::Up)]);
    running.answer(3).0.unwrap();
    running.close();
    let opened = home.reopened();
    assert_eq!(opened.wants.keys().map(ServiceName::as_str).collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!(opened.records.len(), 1);
    std::fs::remove_dir_all(away).unwrap();
}

/// What a short write leaves: a part of it is there, and then there is no room.
#[test]
fn a_write_that_is_cut_short_is_taken_back() {
    let home = Home::new();
    let disk = TestDisk::new();
    let running = home.open_with(&disk);
    running.commit(1, vec![want("a", Want::Up), record("a")]).unwrap();
    for (ticket, written) in (2..).zip([0, 1, 7, 100, 511, 512, 4095]) {
        disk.cut_writes_short(written);
        let reason = running.commit(ticket, vec![want("a", Want::Down), want("b", Want::Up)]).unwrap_err();
        assert!(reason.starts_with("no space for "), "{reason}");
        disk.heal();
        // What is found by one that comes after a kill at that moment.
        let copy = Home::new();
        copy.reopened();
        std::fs::copy(home.file("state.redb"), copy.file("state.redb")).unwrap();
        let found = copy.reopened();
        assert_eq!((found.wants[&name("a")].want, found.wants.len()), (Want::Up, 1), "{written}");
    }
    running.commit(99, vec![want("c", Want::Up)]).unwrap();
    running.close();
    let wants = home.reopened().wants;
    assert_eq!(wants.keys().map(ServiceName::as_str).collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!(wants[&name("a")].want, Want::Up);
}

/// The callers of the commit in which it was met were never answered, and the thread was no more.
#[test]
fn after_a_bug_every_caller_has_an_answer_and_the_store_goes_on() {
    let home = Home::new();
    let disk = TestDisk::new();
    let running = home.open_with(&disk);
    running.commit(1, vec![want("a", Want::Up)]).unwrap();
    disk.hold();
    running.store.commit(2, vec![want("a", Want::Down)]);
    disk.wait_until_held();
    // The sync of the first fails, so that a new file is opened; the others share the next commit.
    disk.fail_sync(EIO, 1);
    disk.panic_at_open(2);
    for ticket in 3..6 {
        running.store.commit(ticket, vec![want(&format!("s{ticket}"), Want::Up)]);
    }
    disk.release();
    let bug = "a bug was met while it was written (met at the opening): ask again, and please report it";
    for ticket in 2..6 {
        let (answer, before) = running.answer(ticket);
        assert_eq!(answer, Err(bug.to_owned()));
        let degraded = [StoreEvent::Degraded { reason: bug.to_owned() }];
        assert_eq!(before, if ticket == 3 { &degraded[..] } else { &[] }, "it is told once");
    }
    running.store.commit(6, vec![want("b", Want::Up)]);
    let (answer, mut said) = running.answer(6);
    answer.unwrap();
    // It may have found its way back before it was asked again.
    if said.is_empty() {
        said.push(running.event());
    }
    assert_eq!(said, [StoreEvent::Recovered { opened: None }]);
    running.close();
    let wants = home.reopened().wants.into_iter().map(|(name, row)| (name.to_string(), row.want));
    let acknowledged = [("a".to_owned(), Want::Up), ("b".to_owned(), Want::Up)];
    assert_eq!(wants.collect::<Vec<_>>(), acknowledged);
}

/// A start waited for ever for what would not come.
#[test]
fn a_bug_at_the_first_opening_refuses_the_start() {
    let home = Home::new();
    home.open().close();
    let disk = TestDisk::new();
    disk.panic_at_open(1);
    let error = home.open_on(home.options(), disk.wrap()).err().unwrap();
    assert!(error.to_string().ends_with("the store's thread has failed: restart the supervisor"), "{error}");
    home.open().close();
}

/// The syncs of a new file were in the way of a container's first start.
#[test]
fn a_new_state_keeps_nobody_waiting_and_is_made_before_the_first_answer() {
    let home = Home::new();
    let disk = TestDisk::new();
    disk.hold();
    let running = home.open_on(home.options(), disk.wrap()).unwrap();
    assert_eq!((&running.opened.volatile, running.opened.warnings.len()), (&None, 0));
    running.store.commit(1, vec![want("a", Want::Up)]);
    disk.wait_until_held();
    assert!(running.events.try_recv().is_err(), "nothing is acknowledged that is not on the disk");
    disk.release();
    running.answer(1).0.unwrap();
    let instance = running.opened.instance.clone();
    running.close();
    let opened = home.reopened();
    assert_eq!((opened.instance, opened.wants.len(), opened.warnings.len()), (instance, 1, 0));
}

/// Else what was begun before a SIGKILL would be another supervisor's for the next: the id of the state is how it is found.
#[test]
fn who_leaves_services_behind_waits_for_the_file_of_a_new_state() {
    let home = Home::new();
    let disk = TestDisk::new();
    disk.hold();
    let options = Options { is_init: false, patience: Duration::from_millis(50), ..home.options() };
    let running = home.open_on(options, disk.wrap()).unwrap();
    let reason = running.opened.volatile.as_ref().unwrap().to_string();
    assert!(reason.contains("has not answered for 50ms"), "{reason}");
    disk.release();
}

#[test]
fn a_bug_in_the_making_of_a_new_state_is_said() {
    let home = Home::new();
    let disk = TestDisk::new();
    disk.panic_at_open(1);
    let running = home.open_on(home.options(), disk.wrap()).unwrap();
    let StoreEvent::Degraded { reason } = running.event() else { panic!("not said") };
    assert!(reason.contains("the store's thread has failed"), "{reason}");
    home.open().close();
}
