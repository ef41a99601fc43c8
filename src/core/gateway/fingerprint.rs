//! What the exhaustive search sees of a service.

use super::life::{Life, Readiness};
use super::{Ending, Gateway, Phase};
use crate::core::clock::Tick;
use std::fmt::Debug;
use std::hash::Hash;

impl Gateway {
    pub(in crate::core) fn is_needed(&self) -> bool {
        self.needed.is_some()
    }

    /// For the exhaustive search: everything that decides what happens next, without absolute times and numbers.
    pub(in crate::core) fn fingerprint(&self) -> impl Debug + Hash {
        let waiters: Vec<_> =
            self.orders.waiters.iter().map(|w| (w.command, self.fingerprint_seq(w.seq))).collect();
        let of = |life: Option<&Life>| {
            let readiness = |life: &Life| match life.readiness {
                Readiness::Awaited(_) => Readiness::Awaited(Tick::default()),
                Readiness::Reported(_) => Readiness::Reported(Tick::default()),
                other => other,
            };
            let beside = |l: &Life| l.hook.map(|(hook, until)| (hook, until.is_some()));
            let hooks = |l: &Life| (l.preparing.is_some(), l.doomed.is_some(), beside(l));
            life.map(|l| {
                (
                    l.exit,
                    l.spawn_error.is_some(),
                    l.empty,
                    l.up_since.is_some(),
                    l.unhealthy.is_some(),
                    readiness(l),
                    hooks(l),
                )
            })
        };
        (
            (self.want, self.gate.clone(), of(self.life.as_ref()), of(self.ended.as_deref())),
            (
                self.orders.pending.as_ref().map(|p| (p.command, p.patience.is_some())),
                self.orders.erasing.is_some(),
                waiters,
                self.orders.unrecorded.is_some(),
                self.orders.unsure,
                self.orders.retiring,
                self.orders.seq == self.orders.acted,
            ),
            (
                self.once,
                self.again,
                self.needed.is_some(),
                self.unjudged.is_some(),
                self.condemned.is_some(),
                self.closing.is_some(),
            ),
            (self.history.row.min(2), self.history.failures.len()),
        )
    }

    /// Its phase, whenever that is over.
    pub(in crate::core) fn fingerprint_phase(&self) -> Phase {
        match self.phase {
            Phase::Ending(ending) => Phase::Ending(Ending { until: Tick::default(), ..ending }),
            Phase::Backoff { .. } => Phase::Backoff { until: Tick::default() },
            other => other,
        }
    }

    /// Where a number stands: newest command, newest that acts, or older.
    pub(in crate::core) fn fingerprint_seq(&self, seq: u64) -> (bool, bool, bool, bool) {
        (
            seq == self.orders.seq,
            seq <= self.orders.acted,
            self.orders.pending.as_ref().is_some_and(|p| p.seq == seq),
            self.orders.erasing == Some(seq),
        )
    }
}
