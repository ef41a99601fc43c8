//! When something is to be done about each of many, the first of all at hand.

use crate::core::clock::Tick;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// One time for each key.
#[derive(Debug)]
pub struct Agenda<K> {
    times: BTreeMap<K, Tick>,
    order: BTreeSet<(Tick, K)>,
}

impl<K> Default for Agenda<K> {
    fn default() -> Self {
        Self { times: BTreeMap::new(), order: BTreeSet::new() }
    }
}

impl<K: Copy + Ord> Agenda<K> {
    /// In place of the time that it had.
    pub fn set(&mut self, key: K, at: Tick) {
        self.remove(key);
        self.times.insert(key, at);
        self.order.insert((at, key));
    }

    pub fn remove(&mut self, key: K) {
        if let Some(at) = self.times.remove(&key) {
            self.order.remove(&(at, key));
        }
    }

    pub fn has(&self, key: K) -> bool {
        self.times.contains_key(&key)
    }

    /// Takes one that is due out of it.
    pub fn take_due(&mut self, now: Tick) -> Option<K> {
        let (_, key) = *self.order.first().filter(|(at, _)| *at <= now)?;
        self.remove(key);
        Some(key)
    }

    pub fn next(&self) -> Option<Tick> {
        self.order.first().map(|(at, _)| *at)
    }

    pub fn postpone(&mut self, by: Duration) {
        self.times.values_mut().for_each(|at| *at = at.after(by));
        self.order = self.times.iter().map(|(key, at)| (*at, *key)).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_comes_in_its_order_and_once() {
        let mut agenda = Agenda::default();
        for (key, at) in [('a', 30), ('b', 10), ('c', 20), ('a', 5)] {
            agenda.set(key, Tick(at));
        }
        agenda.remove('c');
        assert_eq!((agenda.next(), agenda.take_due(Tick(4))), (Some(Tick(5)), None));
        agenda.postpone(Duration::from_millis(10));
        assert_eq!((agenda.take_due(Tick(20)), agenda.take_due(Tick(20))), (Some('a'), Some('b')));
        assert_eq!((agenda.take_due(Tick(20)), agenda.next()), (None, None));
    }
}
