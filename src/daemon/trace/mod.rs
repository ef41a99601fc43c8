//! Debug builds only: writes down what the core was told and what came of it, so that it can be replayed
//! (`core/model/replay.rs`). A release build has a plain [`Fleet`] in this place.
//!
//! `HERMES_SUP_TRACE=DIR` makes each supervisor write a file of its own below `DIR`, named by the identity of its state and the time
//! of its start: the order of the names is that of the supervisors on one state. A line is a [`Step`], written at once and before anything of it is carried out: of
//! a supervisor that is killed at most the last line is torn. What cannot be written ends the trace, and nothing else.

#[cfg(not(any(test, debug_assertions)))]
pub use crate::core::fleet::Fleet as Traced;
#[cfg(any(test, debug_assertions))]
pub use debug::Traced;
#[cfg(test)]
pub use debug::{keep, kept};

#[cfg(test)]
mod tests;

/// An empty fleet.
#[cfg(not(any(test, debug_assertions)))]
pub fn fleet(_: &str) -> Traced {
    Traced::default()
}

/// An empty fleet, of which a trace is written if that was asked for. `instance`: the identity of its state.
#[cfg(any(test, debug_assertions))]
pub fn fleet(instance: &str) -> Traced {
    Traced::begin(instance)
}

#[cfg(any(test, debug_assertions))]
mod debug {
    use crate::core::clock::Tick;
    use crate::core::event::Event;
    use crate::core::fleet::{Fleet, FleetEffects, Place, ServiceId};
    use crate::core::gateway::Restored;
    use crate::core::name::ServiceName;
    use crate::core::policy::Policy;
    use crate::core::trace::{Call, Step};
    use crate::daemon::topics::Deadlines;
    use std::collections::BTreeMap;
    use std::fs::File;
    use std::io::Write;
    use std::ops::Deref;
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    /// Names the directory.
    const VARIABLE: &str = "HERMES_SUP_TRACE";

    #[derive(Debug)]
    enum Tape {
        File(File),
        #[cfg(test)]
        Kept,
    }

    /// A fleet all of whose calls are written down. To read it is to read the fleet itself.
    #[derive(Debug, Default)]
    pub struct Traced {
        fleet: Fleet,
        tape: Option<Tape>,
        now: Tick,
    }

    impl Deref for Traced {
        type Target = Fleet;

        fn deref(&self) -> &Fleet {
            &self.fleet
        }
    }

    impl Traced {
        pub(super) fn begin(instance: &str) -> Self {
            #[cfg(test)]
            if kept::is_on() {
                kept::begin();
                return Self { tape: Some(Tape::Kept), ..Self::default() };
            }
            let dir = std::env::var_os(VARIABLE);
            Self {
                tape: dir.and_then(|dir| open(Path::new(&dir), instance)).map(Tape::File),
                ..Self::default()
            }
        }

        fn make(&mut self, call: Call, now: Tick) -> FleetEffects {
            self.now = now;
            if self.tape.is_none() {
                return call.make(&mut self.fleet, now);
            }
            let (effects, step) = Step::make(call, &mut self.fleet, now);
            if let Some(step) = step {
                self.write(step);
            }
            effects
        }

        fn write(&mut self, step: Step) {
            let done = match &mut self.tape {
                Some(Tape::File(file)) => line(&step).is_some_and(|line| file.write_all(&line).is_ok()),
                #[cfg(test)]
                Some(Tape::Kept) => kept::push(step),
                None => true,
            };
            if !done {
                self.tape = None;
            }
        }

        pub fn add(
            &mut self,
            name: ServiceName,
            policy: Arc<Policy>,
            after: Vec<ServiceName>,
            requires: Vec<ServiceName>,
            seed: u64,
        ) -> ServiceId {
            if self.tape.is_none() {
                return self.fleet.add(name, policy, after, requires, seed);
            }
            self.write(Step {
                at: self.now,
                call: Call::Add {
                    name: name.clone(),
                    policy: Arc::clone(&policy),
                    after: after.clone(),
                    requires: requires.clone(),
                    seed,
                },
                told: Vec::new(),
            });
            self.fleet.add(name, policy, after, requires, seed)
        }

        pub fn hold(&mut self, id: ServiceId, reason: String, now: Tick) -> FleetEffects {
            self.make(Call::Hold { id, reason }, now)
        }

        pub fn unhold(&mut self, id: ServiceId, now: Tick) -> FleetEffects {
            self.make(Call::Unhold(id), now)
        }

        pub fn place(&mut self, id: ServiceId, place: Place, now: Tick) -> FleetEffects {
            self.make(Call::Place { id, place }, now)
        }

        pub fn redefine(
            &mut self,
            id: ServiceId,
            policy: Arc<Policy>,
            after: Vec<ServiceName>,
            requires: Vec<ServiceName>,
            now: Tick,
        ) -> FleetEffects {
            self.make(Call::Redefine { id, policy, after, requires }, now)
        }

        pub fn remove(&mut self, id: ServiceId, now: Tick) -> FleetEffects {
            self.make(Call::Remove(id), now)
        }

        pub fn boot(&mut self, restored: BTreeMap<ServiceId, Restored>, now: Tick) -> FleetEffects {
            self.make(Call::Boot(restored), now)
        }

        pub fn step(&mut self, id: ServiceId, event: Event, now: Tick) -> FleetEffects {
            self.make(Call::Step { id, event }, now)
        }

        pub fn pass_time(&mut self, now: Tick) -> FleetEffects {
            self.make(Call::Time, now)
        }

        pub fn shutdown(&mut self, deadline: Tick, now: Tick) -> FleetEffects {
            self.make(Call::Shutdown { deadline }, now)
        }

        pub fn kill_all(&mut self, now: Tick) -> FleetEffects {
            self.make(Call::KillAll, now)
        }

        pub fn limit_starts(&mut self, places: Option<usize>) {
            let _ = self.make(Call::Places(places), self.now);
        }

        pub fn note_use(&mut self, id: ServiceId, at: Tick) {
            let _ = self.make(Call::Used { id, at }, self.now);
        }

        pub fn in_turn(&mut self, ids: impl Iterator<Item = ServiceId>, now: Tick) -> FleetEffects {
            self.make(Call::InTurn(ids.collect()), now)
        }

        pub fn at_once(&mut self, ids: impl Iterator<Item = ServiceId>, now: Tick) -> FleetEffects {
            self.make(Call::AtOnce(ids.collect()), now)
        }
    }

    impl Deadlines for Traced {
        fn next_deadline(&self) -> Option<Tick> {
            self.fleet.next_deadline()
        }

        fn postpone(&mut self, by: Duration) {
            let _ = self.make(Call::Postpone(by), self.now);
        }
    }

    /// A file that nobody else writes.
    fn open(dir: &Path, instance: &str) -> Option<File> {
        let nanos = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
        let path = dir.join(format!("{instance}.{nanos:020}.jsonl"));
        std::fs::OpenOptions::new().append(true).create_new(true).mode(0o644).open(path).ok()
    }

    fn line(step: &Step) -> Option<Vec<u8>> {
        let mut line = serde_json::to_vec(step).ok()?;
        line.push(b'\n');
        Some(line)
    }

    #[cfg(test)]
    pub use kept::{keep, kept};

    /// In tests the traces of a thread's supervisors are kept in memory.
    #[cfg(test)]
    mod kept {
        use super::Step;
        use std::cell::RefCell;

        thread_local! {
            static KEPT: RefCell<Option<Vec<Vec<Step>>>> = const { RefCell::new(None) };
        }

        /// From now on.
        pub fn keep() {
            KEPT.set(Some(Vec::new()));
        }

        /// The traces so far, one a supervisor; no more are kept.
        pub fn kept() -> Vec<Vec<Step>> {
            KEPT.take().unwrap_or_default()
        }

        pub(super) fn is_on() -> bool {
            KEPT.with_borrow(Option::is_some)
        }

        pub(super) fn begin() {
            KEPT.with_borrow_mut(|kept| kept.iter_mut().for_each(|kept| kept.push(Vec::new())));
        }

        pub(super) fn push(step: Step) -> bool {
            KEPT.with_borrow_mut(|kept| {
                kept.iter_mut().flat_map(|kept| kept.last_mut()).for_each(|trace| trace.push(step.clone()))
            });
            true
        }
    }
}
