//! Nobody supervises what another supervisor does, however late that is learnt.

use super::*;
use crate::core::words::Want;

fn held(home: &Home, options: Options) -> String {
    match home.open_on(options, disk::plain()) {
        Err(error @ OpenError::Held { .. }) => error.to_string(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("let in"),
    }
}

/// Our own advice, another --state, gave two living gateways of each profile.
#[test]
fn the_gateways_of_a_home_have_one_supervisor_wherever_the_state_is() {
    let home = Home::new();
    let places = ["supervisor", "elsewhere", "x/y"].map(|dir| home.dir.path().join(dir));
    let outside = tempfile::tempdir().unwrap();
    let places = places.into_iter().chain([outside.path().join("state")]);
    let all: Vec<Options> = places.map(|dir| Options { dir, ..home.options() }).collect();
    for first in &all {
        let running = home.open_on(first.clone(), disk::plain()).unwrap();
        assert_eq!((&running.opened.volatile, running.opened.home_unlocked), (&None, false));
        for second in &all {
            let error = held(&home, second.clone());
            assert!(error.contains("another --home") && error.contains("on host \"box\""), "{error}");
        }
        running.close();
    }
    // Another home is another matter.
    let other = Home::new();
    let _first = home.open();
    other.open().close();
}

/// A volume that was read-only when it was first looked at: nobody could have a lock there, so services were begun.
#[test]
fn who_learns_late_that_another_has_the_state_is_told_to_end() {
    let home = Home::new();
    let obstacle = home.dir.path().join("x");
    std::fs::write(&obstacle, "no directory can be made below this").unwrap();
    let options = Options { dir: obstacle.join("state"), ..home.options() };
    let late = home.open_on(options.clone(), disk::plain()).unwrap();
    assert!(late.opened.volatile.is_some());
    std::fs::remove_file(&obstacle).unwrap();
    let other = Home::new();
    let first = other.open_on(Options { home: other.options().home, ..options }, disk::plain()).unwrap();
    late.store.commit(1, vec![want("a", Want::Up)]);
    let reason = loop {
        match late.event() {
            StoreEvent::Held { reason } => break reason,
            StoreEvent::Warning { .. } | StoreEvent::Degraded { .. } => {}
            event => panic!("{event:?}"),
        }
    };
    assert!(reason.contains("is in use by another supervisor"), "{reason}");
    assert!(late.answer(1).0.unwrap_err().contains("another supervisor"));
    first.close();
}

/// A paused container, NFS: the second supervisor's patience was over before it had looked at the lock, and it began.
#[test]
fn without_an_answer_about_the_lock_nothing_is_begun_however_long_it_takes() {
    let home = Home::new();
    let _first = home.open();
    let options = Options { patience: Duration::ZERO, ..home.options() };
    for _ in 0..20 {
        assert!(held(&home, options.clone()).contains("pid "));
    }
    let notify = || Box::new(|_: StoreEvent| {});
    let refused = begin_on(options, notify(), disk::plain()).unwrap().wait(|| false).map(|_| ());
    assert!(matches!(refused, Err(OpenError::Silent { .. } | OpenError::Held { .. })), "{refused:?}");
}
