//! What processes do: how each program reacts to what the supervisor does to it.

use super::callers::Who;
use super::conversations::is_marked;
use super::services::{Group, Kind, PROFILES, Reports, Spec, meaning};
use super::world::{Happening, World};
use crate::containment::IncarnationId;
use crate::containment::played::{Deed, Tree};
use crate::core::signal::Signal;
use crate::hermes::state_json;

const SUCCESS: i32 = 0;
const FAILURE: i32 = 1 << 8;

impl World {
    fn spec(&self, id: &IncarnationId) -> Option<Spec> {
        self.specs.get(id.name.as_str()).cloned()
    }

    /// What the supervisor has done has consequences.
    pub fn deeds(&mut self) {
        for deed in self.kernel.take_deeds() {
            super::rules::did(self, &deed);
            match deed {
                Deed::Made { id, program, pid, .. } => {
                    self.story.did(&format!("makes pid {pid} for life {} of {}: {program}", id.n, id.name));
                    self.figures.lives += 1;
                    self.made(&id, &program);
                }
                Deed::Signalled { id, signal, tree } => {
                    let whom = if tree { "all of" } else { "the main process of" };
                    self.story.did(&format!("sends {signal} to {whom} {}", id.name));
                    self.signalled(&id, signal, tree);
                }
                Deed::Killed(id) => {
                    self.story.did(&format!("kills all of {}", id.name));
                    let delay = if self.calm { 2 } else { self.dice.delay(20, 8000) };
                    self.later(delay, Happening::Dies(id));
                }
                Deed::Froze { id, frozen } => {
                    let delay = if self.calm { 1 } else { self.dice.delay(5, 500) };
                    self.later(delay, Happening::Frozen(id, frozen));
                }
                Deed::Hook { id, pid, program, .. } => self.hook_runs(id, pid, &program),
                Deed::HookEnded(id) => {
                    let hook = self.kernel.tree(&id).and_then(|tree| tree.hook);
                    if let Some(pid) = hook {
                        self.later(2, Happening::HookEnds(id, pid, Signal::KILL.number()));
                    }
                }
                Deed::Adopted(id) => self.story.did(&format!("takes over life {} of {}", id.n, id.name)),
                Deed::Scoped { id, name, pid, .. } => {
                    self.story.did(&format!("puts process {pid} of {} into {name}", id.name));
                }
                Deed::ScopeKilled { id, name } => {
                    self.story.did(&format!("kills all of {name} of {}", id.name));
                    let delay = if self.calm { 2 } else { self.scope_dice.delay(20, 8000) };
                    self.later(delay, Happening::ScopeDies(id, name));
                }
                Deed::Released { .. } | Deed::Limited { .. } => {}
            }
        }
    }

    fn made(&mut self, id: &IncarnationId, program: &str) {
        let fails = self.spec(id).map_or(0, |spec| spec.fails);
        let works = self.calm || !self.dice.chance(fails);
        let delay = if self.calm { 1 } else { self.dice.delay(5, 400) };
        self.later(delay, Happening::Exec(id.clone(), works));
        if !works {
            return;
        }
        let spec = self.spec(id);
        let (kind, reports) = match (&spec, meaning(program)) {
            (Some(spec), Some((_, None))) => (spec.kind, spec.reports),
            (None, Some((_, None))) => (Kind::Daemon, Reports::Nothing),
            // A hook in a tree of its own, which does its work and ends.
            _ => (Kind::Oneshot, Reports::Nothing),
        };
        match kind {
            Kind::Daemon => {
                let late = if self.calm { 100 } else { self.dice.delay(3000, 30_000) };
                match reports {
                    Reports::Nothing | Reports::Probe => {}
                    Reports::Pipe => self.later(delay + late, Happening::Ready(id.clone())),
                    Reports::Line => self.later(delay + late, Happening::Line(id.clone(), "ready\n")),
                }
                if spec.as_ref().is_some_and(Spec::is_root_gateway) {
                    self.speaks_later(id, delay + late);
                }
                self.live(id, delay, spec);
            }
            Kind::Oneshot | Kind::Scheduled => {
                let crashes = spec.map_or(0, |spec| spec.crashes);
                let fails = !self.calm && self.dice.chance(crashes);
                let status = if fails { FAILURE } else { SUCCESS };
                let work = if self.calm { 20 } else { self.dice.delay(500, 20_000) };
                self.later(delay + work, Happening::Ends(id.clone(), status, 0));
            }
        }
    }

    /// The root gateway serves all profiles, some, or only its own.
    fn speaks_later(&mut self, id: &IncarnationId, delay: u64) {
        let gateways = self.specs.values().filter(|spec| spec.group == Group::Gateway);
        let names: Vec<String> = gateways.map(|spec| spec.name.to_string()).collect();
        let served = match self.dice.between(0, 3) {
            0 => Vec::new(),
            1 => names.into_iter().filter(|name| *name != PROFILES[0]).collect(),
            _ => names,
        };
        self.later(delay, Happening::Serves(id.clone(), served));
    }

    /// Its state file, in which another process may have put a wish.
    pub fn speaks(&mut self, id: &IncarnationId, served: &[String]) {
        let Some(pid) = self.kernel.tree(id).map(|tree| tree.main) else { return };
        self.story.tell(&format!("{} says that it serves {served:?}", id.name));
        let path = self.stage.home().join(state_json::FILE);
        let old = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let mut keys: serde_json::Map<String, serde_json::Value> = old.unwrap_or_default();
        keys.insert("pid".to_owned(), pid.into());
        keys.insert("gateway_state".to_owned(), "running".into());
        keys.insert("served_profiles".to_owned(), served.into());
        std::fs::write(path, serde_json::Value::Object(keys).to_string()).expect("a state file");
        self.ledger.spoken(id, served);
    }

    /// What a daemon does of its own accord.
    fn live(&mut self, id: &IncarnationId, from: u64, spec: Option<Spec>) {
        let Some(spec) = spec.filter(|_| !self.calm) else { return };
        if self.dice.chance(spec.leaves) {
            let (at, others) = (self.dice.between(1, 2000), self.dice.index(4) + 1);
            self.later(from + at, Happening::Forks(id.clone(), others));
        }
        if self.dice.chance(30) {
            let at = self.dice.between(1, 3000);
            self.later(from + at, Happening::Line(id.clone(), "a word\n"));
        }
        if self.dice.chance(spec.crashes) {
            let status = [SUCCESS, FAILURE, 75 << 8, Signal::from_number(11).map_or(9, Signal::number)];
            let status = status[self.dice.index(status.len())];
            let leaves = if self.dice.chance(spec.leaves) { self.dice.index(4) } else { 0 };
            let after = if self.dice.chance(50) {
                self.dice.between(0, 500)
            } else {
                self.dice.between(500, 120_000)
            };
            self.later(from + after, Happening::Ends(id.clone(), status, leaves));
        }
    }

    fn hook_runs(&mut self, id: IncarnationId, pid: i32, program: &str) {
        let word = meaning(program).and_then(|(_, word)| word);
        let is_probe = matches!(word, Some("ready" | "health"));
        let crashes = self.spec(&id).map_or(0, |spec| spec.crashes);
        let fails = !self.calm && self.dice.chance(if is_probe { crashes / 2 } else { crashes });
        let time = if self.calm { 5 } else { self.dice.delay(200, 12_000) };
        if word != Some("ready") && word != Some("health") {
            self.story.did(&format!("runs {} of {}", word.unwrap_or("a hook"), id.name));
        }
        self.later(time, Happening::HookEnds(id, pid, if fails { FAILURE } else { SUCCESS }));
    }

    fn signalled(&mut self, id: &IncarnationId, signal: Signal, tree: bool) {
        if signal == Signal::KILL {
            self.later(1, Happening::Ends(id.clone(), Signal::KILL.number(), 0));
            return;
        }
        if signal != Signal::TERM && signal != Signal::INT {
            return;
        }
        self.signalled.insert(id.clone());
        let Some(spec) = self.spec(id) else {
            let time = if self.calm { 5 } else { self.dice.delay(50, 3000) };
            return self.later(time, Happening::Ends(id.clone(), SUCCESS, 0));
        };
        if !self.calm && self.dice.chance(spec.deaf) {
            return;
        }
        let time = if self.calm { 5 } else { self.dice.delay(50, 15_000) };
        let status = if self.dice.chance(50) { SUCCESS } else { signal.number() };
        let leaves = if !self.calm && self.dice.chance(spec.leaves) { self.dice.index(3) } else { 0 };
        self.later(time, Happening::Ends(id.clone(), status, leaves));
        if tree {
            for _ in 0..4 {
                let time = self.dice.between(1, 800);
                self.later(time, Happening::OtherEnds(id.clone()));
            }
        }
    }

    /// Of a process that was there before it became calm: it does from now on what is expected of it.
    pub fn befriend(&mut self, id: &IncarnationId) {
        let of = |tree: &Tree| (tree.runs, tree.ended.is_some(), tree.others, tree.hook, tree.killed);
        let Some((runs, ended, others, hook, killed)) = self.kernel.tree(id).as_deref().map(of) else {
            return;
        };
        if killed {
            return self.later(2, Happening::Dies(id.clone()));
        }
        if let Some(pid) = hook {
            self.later(5, Happening::HookEnds(id.clone(), pid, SUCCESS));
        }
        for _ in 0..others {
            self.later(5, Happening::OtherEnds(id.clone()));
        }
        let mut members = self.kernel.tree(id).map(|tree| tree.members.processes()).unwrap_or_default();
        members.retain(|pid| !self.waits(id, *pid));
        for pid in members {
            self.later(5, Happening::MemberEnds(id.clone(), pid));
        }
        if ended {
            return;
        }
        if !runs {
            self.later(1, Happening::Exec(id.clone(), true));
        }
        let spec = self.spec(id);
        let works = spec.as_ref().is_none_or(|spec| spec.kind == Kind::Daemon) && self.is_service(id);
        if self.signalled.contains(id) || !works {
            self.later(20, Happening::Ends(id.clone(), SUCCESS, 0));
        } else {
            self.later(100, Happening::Ready(id.clone()));
            self.later(100, Happening::Line(id.clone(), "ready\n"));
            if spec.is_some_and(|spec| spec.is_root_gateway()) && !self.ledger.has_spoken(id) {
                self.speaks_later(id, 100);
            }
        }
    }

    /// One of its processes waits for an answer of the supervisor.
    fn waits(&self, id: &IncarnationId, pid: i32) -> bool {
        let who = Who::Inside(id.clone(), pid);
        self.insiders.iter().any(|number| self.callers[*number].who == who && self.callers[*number].waits())
    }

    /// What runs is the service itself, not a hook in a tree of its own.
    fn is_service(&self, id: &IncarnationId) -> bool {
        self.ledger
            .program(id)
            .is_some_and(|program| meaning(program).is_some_and(|(_, hook)| hook.is_none()))
    }

    /// Something happens to a tree of processes; false: it is something else that happens.
    pub fn happens_to_a_tree(&mut self, what: &Happening) -> bool {
        let kernel = self.kernel.clone();
        let is_up = |id: &IncarnationId| kernel.tree(id).is_some_and(|tree| tree.is_up());
        match what {
            Happening::Exec(id, works) => {
                if !works {
                    self.story.tell(&format!("{} cannot be executed", id.name));
                }
                kernel.exec(id, *works);
            }
            Happening::Ready(id) => {
                kernel.report_ready(id);
                self.ledger.ready.insert(id.clone());
            }
            Happening::Line(id, line) if is_up(id) => {
                kernel.write(id, line);
                self.ledger.ready.insert(id.clone());
            }
            Happening::Line(..) => {}
            Happening::Serves(id, served) if is_up(id) => {
                let home = self.stage.home();
                let served: Vec<String> =
                    served.iter().filter(|name| !is_marked(&home, name)).cloned().collect();
                self.speaks(id, &served);
            }
            Happening::Serves(..) => {}
            Happening::Ends(id, ..) if kernel.tree(id).is_some_and(|tree| tree.frozen && !tree.killed) => {
                self.later(100, what.clone());
            }
            Happening::Ends(id, status, leaves) if is_up(id) => {
                self.story
                    .tell(&format!("the main process of {} ends ({status}), leaving {leaves}", id.name));
                kernel.end_main(id, *status, *leaves);
                super::rules::ended(self, id, *status);
                if self.calm {
                    (0..*leaves).for_each(|_| self.later(5, Happening::OtherEnds(id.clone())));
                }
            }
            Happening::Ends(..) => {}
            Happening::Forks(id, others) => kernel.fork(id, *others),
            Happening::OtherEnds(id) => kernel.end_other(id),
            Happening::HookEnds(id, pid, status) => {
                if kernel.tree(id).is_some_and(|tree| tree.hook == Some(*pid)) {
                    kernel.end_hook(id, *status);
                }
            }
            Happening::MemberEnds(id, pid) => kernel.end_member(id, *pid),
            Happening::ScopeForks(id, name) => kernel.fork_within(id, name),
            Happening::ScopeDies(id, name) => kernel.scope_dies(id, name),
            Happening::Dies(id) => kernel.die(id),
            Happening::Frozen(id, frozen) => kernel.set_frozen(id, *frozen),
            Happening::OutOfMemory(id, main) if is_up(id) => {
                self.figures.faults += 1;
                let whom = if *main { "the main process" } else { "a process" };
                self.story.tell(&format!("out of memory: the kernel kills {whom} of {}", id.name));
                kernel.out_of_memory(id, *main);
            }
            Happening::OutOfMemory(..) => {}
            _ => return false,
        }
        true
    }
}
