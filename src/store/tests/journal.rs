//! The journal: kept over restarts, bounded, and never in the way of a commit.

use super::*;

impl Note for String {
    fn write(&self, text: &mut Vec<u8>) {
        text.extend_from_slice(self.as_bytes());
    }
}

fn noted(running: &Running, lines: impl IntoIterator<Item = String>) {
    lines.into_iter().for_each(|line| running.store.note(Arc::new(line)));
}

#[test]
fn lines_are_there_after_a_restart_in_their_order() {
    let home = Home::new();
    let running = home.open();
    assert!(running.opened.journal.is_empty());
    noted(&running, ["first".to_owned(), "second".to_owned()]);
    running.commit(1, vec![want("a", Want::Up)]).unwrap();
    noted(&running, ["last words".to_owned()]);
    running.close();
    let running = home.open();
    assert_eq!(running.opened.journal, ["first", "second", "last words"]);
    noted(&running, ["of the next".to_owned()]);
    running.close();
    assert_eq!(home.reopened().journal.last().map(String::as_str), Some("of the next"));
}

#[test]
fn what_is_kept_is_bounded_and_the_newest() {
    let home = Home::new();
    let running = home.open();
    for round in 0..10 {
        noted(&running, (0..500).map(|n| format!("{round} {n} {}", "x".repeat(150))));
        running.commit(round, vec![want("a", Want::Up)]).unwrap();
    }
    running.close();
    let bytes: u64 =
        ["events", "events.1"].map(|name| std::fs::metadata(home.file(name)).unwrap().len()).iter().sum();
    assert!(bytes < 1 << 20, "{bytes}");
    let kept = home.reopened().journal;
    assert!(kept.len() > 1000 && kept.last().unwrap().starts_with("9 499 "), "{}", kept.len());
}

/// Nothing waits for it: what stands in its place, or cannot be read, costs the lines and no want.
#[test]
fn what_is_in_its_place_hinders_no_commit() {
    let home = Home::new();
    home.open().close();
    std::fs::remove_file(home.file("events")).unwrap();
    std::fs::create_dir(home.file("events")).unwrap();
    let running = home.open();
    noted(&running, ["lost or not".to_owned()]);
    running.commit(1, vec![want("a", Want::Up)]).unwrap();
    running.close();
    assert_eq!(home.reopened().wants.len(), 1);
}
