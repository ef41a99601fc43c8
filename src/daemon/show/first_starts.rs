//! How the first start of each service went, for `ctl boot`. What was taken over from an earlier supervisor has none.

use crate::control::protocol::FirstStart;
use crate::core::clock::Tick;
use crate::core::gateway::Phase;

/// Kept for as long as the service is: small.
#[derive(Debug, Clone, Copy)]
struct Times {
    begun: Tick,
    /// In milliseconds after that.
    up: Option<u32>,
    ready: Option<u32>,
}

/// The first start of one service, if it was here.
#[derive(Debug, Clone, Copy, Default)]
pub struct First(Option<Times>);

impl First {
    /// The service is in this phase since `since`, and ready since `ready`.
    pub fn changed(&mut self, phase: Phase, since: Tick, ready: Option<Tick>) {
        let Some(times) = &mut self.0 else {
            if phase == Phase::Starting {
                self.0 = Some(Times { begun: since, up: None, ready: None });
            }
            return;
        };
        let after = |at: Tick| u32::try_from(at.since(times.begun).as_millis()).unwrap_or(u32::MAX);
        match phase {
            Phase::Up => {
                times.up = times.up.or(Some(after(since)));
                times.ready = times.ready.or(ready.map(after));
            }
            Phase::Finished => times.ready = times.ready.or(Some(after(since))),
            Phase::Down
            | Phase::Held
            | Phase::Starting
            | Phase::Ending(_)
            | Phase::Backoff { .. }
            | Phase::Failed => {}
        }
    }

    /// `started`: when the supervisor was.
    pub fn shown(&self, started: Tick) -> Option<FirstStart> {
        let times = self.0?;
        let begun_ms = u64::try_from(times.begun.since(started).as_millis()).unwrap_or(u64::MAX);
        let after = |millis: u32| begun_ms.saturating_add(u64::from(millis));
        Some(FirstStart { begun_ms, up_ms: times.up.map(after), ready_ms: times.ready.map(after) })
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
        let mut start = First::default();
        start.changed(Phase::Held, at(1), None);
        start.changed(Phase::Up, at(1), None);
        assert_eq!(start.shown(at(0)), None);
        start.changed(Phase::Starting, at(2), None);
        start.changed(Phase::Up, at(5), None);
        start.changed(Phase::Up, at(5), Some(at(9)));
        let first = FirstStart { begun_ms: 1, up_ms: Some(4), ready_ms: Some(8) };
        assert_eq!(start.shown(at(1)), Some(first));
        for (phase, at) in [(Phase::Down, at(20)), (Phase::Starting, at(30)), (Phase::Up, at(40))] {
            start.changed(phase, at, Some(at));
        }
        assert_eq!(start.shown(at(1)), Some(first));
    }
}
