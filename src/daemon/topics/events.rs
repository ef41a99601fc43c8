//! What has happened: kept for who asks later, told to who listens.
//!
//! Each event is one value, made where it happens. From it come the line of the supervisor's log, the line that the state keeps, and
//! what `ctl events` says, so that nothing is said in two places.

use crate::control::protocol::{Event, Level, Part, Reply, Request};
use crate::control::server::{ConnId, Incoming};
use crate::core::clock::Tick;
use crate::daemon::act::{Action, Actions};
use crate::daemon::clock::wall;
use crate::store::Note;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Events that are remembered, here and of former lives.
pub const REMEMBERED: usize = 1000;

impl Note for Event {
    fn write(&self, text: &mut Vec<u8>) {
        // Text and numbers: there is nothing that JSON could refuse.
        let _ = serde_json::to_writer(text, self);
    }
}

#[derive(Debug, Default)]
pub struct Events {
    past: VecDeque<Arc<Event>>,
    followers: Vec<ConnId>,
}

impl Events {
    /// What the state has kept of former lives, which is older than all that is here.
    pub fn remember(&mut self, journal: &[String]) {
        let room = REMEMBERED.saturating_sub(self.past.len());
        // A line that was torn or that another version has written is left out.
        let known = journal.iter().rev().filter_map(|line| serde_json::from_str(line).ok());
        known.take(room).for_each(|event| self.past.push_front(Arc::new(event)));
    }

    /// Something has happened. What passes by itself is told and not kept.
    pub fn take(&mut self, event: Event) -> Actions {
        let mut actions = Actions::new();
        if !self.followers.is_empty() {
            let part = Reply::Part(Part::Event(Box::new(event.clone())));
            actions.push(Action::Stream(self.followers.clone(), part));
        }
        if event.level == Level::Debug {
            return actions;
        }
        let event = Arc::new(event);
        actions.push(Action::Note(Arc::clone(&event)));
        self.past.push_back(event);
        if self.past.len() > REMEMBERED {
            self.past.pop_front();
        }
        actions
    }

    /// Answers `events`, which the caller may.
    pub fn serve(&mut self, incoming: &Incoming) -> Actions {
        let Request::Events { since_ms, last, follow } = incoming.request else { return Actions::new() };
        let since = wall(Tick(since_ms.unwrap_or(0)));
        let meant = self.past.iter().filter(|event| event.time.0 >= since);
        let skip = last.map_or(0, |last| meant.clone().count().saturating_sub(last as usize));
        let reply = |event: &Arc<Event>| {
            Action::Reply(incoming.id, Reply::Part(Part::Event(Box::new(Event::clone(event)))))
        };
        let mut actions: Actions = meant.skip(skip).map(reply).collect();
        if follow {
            self.followers.push(incoming.id);
        } else {
            actions.push(Action::Reply(incoming.id, Reply::End));
        }
        actions
    }

    pub fn caller_is_gone(&mut self, conn: ConnId) {
        self.followers.retain(|follower| *follower != conn);
    }

    /// Who follows goes on with the next supervisor: with what happens there, as everything until now was told.
    pub fn take_followers(&mut self, now: Tick) -> Vec<(ConnId, Request)> {
        let since = now.after(Duration::from_millis(1));
        let again = Request::Events { since_ms: Some(since.0), last: None, follow: true };
        std::mem::take(&mut self.followers).into_iter().map(|conn| (conn, again.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::{EventKind, Utc};
    use crate::sys::peer::Peer;

    fn conn(slot: u32) -> ConnId {
        ConnId { slot, generation: 0 }
    }

    fn asks(slot: u32, since_ms: Option<u64>, last: Option<u32>, follow: bool) -> Incoming {
        let peer = Peer { pid: Some(1), uid: 0, gid: 0 };
        Incoming { id: conn(slot), peer, request: Request::Events { since_ms, last, follow } }
    }

    fn at(ms: u64, level: Level) -> Event {
        let event = Event::info(EventKind::State, format!("at {ms}")).about("web");
        Event { time: Utc(wall(Tick(ms))), level, ..event }
    }

    fn messages(actions: &Actions) -> Vec<&str> {
        let message = |action| match action {
            &Action::Reply(_, Reply::Part(Part::Event(ref event)))
            | &Action::Stream(_, Reply::Part(Part::Event(ref event))) => Some(&*event.message),
            _ => None,
        };
        actions.iter().filter_map(message).collect()
    }

    fn ends(actions: &Actions) -> bool {
        matches!(actions.last(), Some(Action::Reply(_, Reply::End)))
    }

    fn three() -> Events {
        let mut events = Events::default();
        [1, 2, 3].into_iter().for_each(|ms| drop(events.take(at(ms, Level::Info))));
        events
    }

    #[test]
    fn who_asks_gets_what_is_kept_and_an_end() {
        let mut events = three();
        let all = events.serve(&asks(1, None, None, false));
        assert_eq!((messages(&all), ends(&all)), (vec!["at 1", "at 2", "at 3"], true));
        assert_eq!(messages(&events.serve(&asks(1, Some(2), None, false))), ["at 2", "at 3"]);
        assert_eq!(messages(&events.serve(&asks(1, None, Some(1), false))), ["at 3"]);
        assert_eq!(messages(&events.serve(&asks(1, Some(1), Some(9), false))).len(), 3);
        let after = events.take(at(4, Level::Info));
        assert!(messages(&after).is_empty(), "nobody listens any more");
    }

    #[test]
    fn who_follows_hears_what_happens_until_it_leaves() {
        let mut events = three();
        let begun = events.serve(&asks(1, None, Some(2), true));
        assert_eq!((messages(&begun), ends(&begun)), (vec!["at 2", "at 3"], false));
        events.serve(&asks(2, Some(99), None, true));
        let told = events.take(at(4, Level::Info));
        assert!(matches!(&told[0], Action::Stream(to, _) if *to == [conn(1), conn(2)]));
        events.caller_is_gone(conn(1));
        assert!(matches!(&events.take(at(5, Level::Info))[0], Action::Stream(to, _) if *to == [conn(2)]));
    }

    #[test]
    fn what_passes_by_itself_is_told_and_not_kept() {
        let mut events = three();
        events.serve(&asks(1, Some(99), None, true));
        let told = events.take(at(4, Level::Debug));
        assert_eq!((messages(&told), told.len()), (vec!["at 4"], 1), "there is nothing for the state");
        assert_eq!(messages(&events.serve(&asks(2, None, None, false))).last(), Some(&"at 3"));
    }

    #[test]
    fn the_state_gives_back_what_it_was_given_before_what_is_newer() {
        let mut events = Events::default();
        let kept = |action: Action| match action {
            Action::Note(event) => serde_json::to_string(&*event).unwrap(),
            other => panic!("{other:?}"),
        };
        let mut journal: Vec<String> =
            [1, 2].into_iter().flat_map(|ms| events.take(at(ms, Level::Warning))).map(kept).collect();
        journal.insert(1, "{\"torn".to_owned());
        let mut next = Events::default();
        next.take(at(3, Level::Info));
        next.remember(&journal);
        assert_eq!(messages(&next.serve(&asks(1, None, None, false))), ["at 1", "at 2", "at 3"]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut events = Events::default();
        (0..REMEMBERED as u64 + 5).for_each(|ms| drop(events.take(at(ms, Level::Info))));
        events.remember(&[serde_json::to_string(&at(0, Level::Info)).unwrap()]);
        let all = events.serve(&asks(1, None, None, false));
        assert_eq!((messages(&all).len(), messages(&all)[0]), (REMEMBERED, "at 5"));
    }

    /// Who follows sees an upgrade and goes on: nothing twice, nothing missing.
    #[test]
    fn followers_are_the_next_supervisors() {
        let mut events = three();
        events.serve(&asks(1, None, None, true));
        events.serve(&asks(2, None, None, false));
        let carried = events.take_followers(Tick(3));
        assert_eq!(carried, [(conn(1), asks(1, Some(4), None, true).request)]);
        assert!(messages(&three().serve(&asks(1, Some(4), None, true))).is_empty());
    }
}
