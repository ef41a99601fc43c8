//! How the first start of each service went, for `ctl boot`. What was taken over from an earlier supervisor has none.

use crate::control::protocol::FirstStart;
use crate::core::clock::Tick;
use crate::core::fleet::ServiceId;
use crate::core::gateway::Phase;
use std::collections::HashMap;

#[derive(Debug, Clone, Copy)]
struct Times {
    begun: Tick,
    up: Option<Tick>,
    ready: Option<Tick>,
}

#[derive(Debug, Default)]
pub struct FirstStarts(HashMap<ServiceId, Times>);

impl FirstStarts {
    /// The service is in this phase since `since`, and ready since `ready`.
    pub fn changed(&mut self, id: ServiceId, phase: Phase, since: Tick, ready: Option<Tick>) {
        let Some(times) = self.0.get_mut(&id) else {
            if phase == Phase::Starting {
                self.0.insert(id, Times { begun: since, up: None, ready: None });
            }
            return;
        };
        match phase {
            Phase::Up => {
                times.up = times.up.or(Some(since));
                times.ready = times.ready.or(ready);
            }
            Phase::Finished => times.ready = times.ready.or(Some(since)),
            Phase::Down
            | Phase::Held
            | Phase::Starting
            | Phase::Ending(_)
            | Phase::Backoff { .. }
            | Phase::Failed => {}
        }
    }

    pub fn forget(&mut self, id: ServiceId) {
        self.0.remove(&id);
    }

    /// `started`: when the supervisor was.
    pub fn of(&self, id: ServiceId, started: Tick) -> Option<FirstStart> {
        let times = self.0.get(&id)?;
        let millis = |at: Tick| u64::try_from(at.since(started).as_millis()).unwrap_or(u64::MAX);
        Some(FirstStart {
            begun_ms: millis(times.begun),
            up_ms: times.up.map(millis),
            ready_ms: times.ready.map(millis),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// A restart an hour later must not be the boot's last.
    #[test]
    fn the_first_start_counts_and_what_was_taken_over_has_none() {
        let at = |millis| Tick::default().after(Duration::from_millis(millis));
        let (mut starts, id) = (FirstStarts::default(), ServiceId(1));
        starts.changed(id, Phase::Held, at(1), None);
        starts.changed(id, Phase::Up, at(1), None);
        assert_eq!(starts.of(id, at(0)), None);
        starts.changed(id, Phase::Starting, at(2), None);
        starts.changed(id, Phase::Up, at(5), None);
        starts.changed(id, Phase::Up, at(5), Some(at(9)));
        let first = FirstStart { begun_ms: 1, up_ms: Some(4), ready_ms: Some(8) };
        assert_eq!(starts.of(id, at(1)), Some(first));
        for (phase, at) in [(Phase::Down, at(20)), (Phase::Starting, at(30)), (Phase::Up, at(40))] {
            starts.changed(id, phase, at, Some(at));
        }
        assert_eq!(starts.of(id, at(1)), Some(first));
        starts.forget(id);
        assert_eq!(starts.of(id, at(1)), None);
    }
}
