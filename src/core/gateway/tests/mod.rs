//! Stories of single services: what the exhaustive search in `model` cannot see, times, counts and words.

mod around;
mod edges;
mod ends;
mod hooks;
mod orders;
mod runs;
mod successors;

use super::life::NOT_READY;
use super::*;
use crate::core::effect::Outcome;
use crate::core::event::{Command, Ticket};
use crate::core::exit::Exit;
use crate::core::policy::{BurstLimit, ExitRule, Kind, RestartPolicy};
use crate::core::signal::Signal;
use crate::core::words::State;
use proptest::prelude::*;
use std::collections::BTreeMap;

const START: Command = Command::Start { force: false };

struct Story {
    gateway: Gateway,
    now: Tick,
    log: Vec<Effect>,
}

impl Story {
    fn new(policy: Policy) -> Self {
        let mut story = Self { gateway: Gateway::new(policy, 1), now: Tick(1_000_000), log: Vec::new() };
        story.feed(Event::Boot(Restored {
            want: Want::Down,
            recorded: true,
            history: History::default(),
            living: None,
            finished: false,
            needed: None,
        }));
        story
    }

    fn feed(&mut self, event: Event) -> Vec<Effect> {
        let effects: Vec<Effect> = self.gateway.step(event, self.now).into_iter().collect();
        self.log.extend(effects.clone());
        effects
    }

    fn wait(&mut self, millis: u64) {
        self.now = Tick(self.now.0 + millis);
        self.feed(Event::Time);
    }

    fn command(&mut self, ticket: u64, command: Command) -> Vec<Effect> {
        let mut effects = self.feed(Event::Command { ticket: Ticket(ticket), command });
        let seq = effects.iter().find_map(|effect| match effect {
            Effect::Record { seq, .. } | Effect::Erase { seq } => Some(*seq),
            _ => None,
        });
        if let Some(seq) = seq {
            effects.extend(self.feed(Event::Recorded { seq }));
        }
        effects
    }

    fn n(&self) -> u64 {
        self.gateway.history().incarnation
    }

    fn spawned(&mut self) {
        let incarnation = self.n();
        self.feed(Event::Spawned { incarnation, pid: 100 });
    }

    fn ends(&mut self, exit: Exit) {
        let incarnation = self.n();
        self.feed(Event::MainExited { incarnation, exit });
        self.feed(Event::TreeEmpty { incarnation });
        self.feed(Event::LogsDrained { incarnation });
    }

    fn up(&mut self) {
        self.command(1, START);
        self.spawned();
        assert_eq!(self.gateway.state(), State::Up);
    }

    fn replies(&self) -> Vec<(u64, Outcome)> {
        let reply = |effect: &Effect| match effect {
            Effect::Reply { ticket, outcome } => Some((ticket.0, outcome.clone())),
            _ => None,
        };
        self.log.iter().filter_map(reply).collect()
    }
}

const DONE: Outcome = Outcome::Done { already: false, unrecorded: None };
const ALREADY: Outcome = Outcome::Done { already: true, unrecorded: None };
const CRASH: Exit = Exit::Code(1);
