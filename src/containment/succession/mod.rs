//! From one supervisor to the next: `record.rs` is what a supervisor writes down of its lives while it runs, `adopt.rs` how its
//! successor takes them over, `predecessor.rs` how the successor ends what it does not take over.

pub(super) mod adopt;
pub(super) mod predecessor;
pub(super) mod record;

use super::IncarnationId;
use super::held::{Held, Mechanism};
use super::hold::Containment;
use crate::core::gateway::Living;
use predecessor::{Predecessor, Spared};
use record::AdoptionRecord;
use std::io;

/// What an adoption record says of a life that its [`Held`] does not know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Recorded {
    living: Living,
    /// The [`adopt::birth`] of the main process.
    born: u64,
    definition: Option<u64>,
}

impl Containment {
    /// What must not be ended with a predecessor's remains.
    pub(super) fn spared(&self) -> Spared {
        let mut spared = Spared::default();
        // The fork server looks like one that was forked from it.
        spared.keepers.extend(self.spawner.pid());
        self.mechanisms().for_each(|mechanism| mechanism.spare(&mut spared));
        self.slots.iter().filter_map(|slot| slot.held.as_ref()).for_each(|held| held.spare(&mut spared));
        spared
    }

    /// Everything that is to be taken over has been: a successor finds it here.
    ///
    /// # Errors
    /// As rename(2).
    pub fn taken_over(&mut self) -> io::Result<()> {
        self.records.show()
    }

    /// Whether what [`Self::predecessor`] says has changed since the last call.
    pub fn was_made_again(&mut self) -> bool {
        self.mechanisms().any(Mechanism::was_made_again)
    }

    /// What the next supervisor on this state has to know to end all trees of this one.
    pub fn predecessor(&self) -> Predecessor {
        let mut note = Predecessor::of_this_boot(&self.instance, &self.runtime_dir);
        self.mechanisms().for_each(|mechanism| mechanism.describe(&mut note));
        note
    }

    /// Writes down that this life may be taken over, as it is now; `None`: no more. `definition`: the hash of the one that it was started with. A successor ends a life without a record, so
    /// where writing fails nothing is lost but a life that could have gone on.
    pub fn record(&mut self, id: &IncarnationId, living: Option<Living>, definition: Option<u64>) {
        let Some(number) = self.slot(id) else { return };
        let Some(slot) = self.slots.get_mut(number as usize) else { return };
        let Some(held) = &slot.held else { return };
        if slot.recorded.map(|recorded| recorded.living) == living {
            return;
        }
        // The number is its own while it is unreaped, by us or by its keeper.
        let born = |pid| slot.recorded.map_or_else(|| held.born(pid), |recorded| Some(recorded.born));
        slot.recorded =
            living.and_then(|living| Some(Recorded { living, born: born(living.pid)?, definition }));
        self.write_record(number);
    }

    /// What runs beside the main process is another program now: a successor has to end that.
    pub(super) fn record_beside(&mut self, number: u32) {
        let slot = self.slots.get(number as usize).filter(|slot| slot.recorded.is_some());
        if slot.and_then(|slot| slot.held.as_ref()?.beside()).is_some() {
            self.write_record(number);
        }
    }

    fn write_record(&mut self, number: u32) {
        let Some(slot) = self.slots.get_mut(number as usize) else { return };
        let Some(held) = &slot.held else { return };
        let record = slot.recorded.map(|Recorded { living, born, definition }| {
            let (name, tag, beside) = (held.id().name.clone(), held.tag(), held.beside());
            AdoptionRecord { name, living, born, tag, definition, beside }
        });
        if self.records.write(number, record.as_ref()).is_err() {
            slot.recorded = None;
        }
    }

    /// A life that was taken over is held from now on.
    pub(super) fn hold_adopted(&mut self, number: u32, record: &AdoptionRecord, held: Box<dyn Held>) {
        if let Some(slot) = self.slots.get_mut(number as usize) {
            // It may have been, and a thaw too many does no harm.
            slot.was_frozen = true;
            if self.records.write(number, Some(record)).is_ok() {
                let &AdoptionRecord { living, born, definition, .. } = record;
                slot.recorded = Some(Recorded { living, born, definition });
            }
        }
        self.hold(number, held);
    }
}
