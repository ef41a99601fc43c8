//! Fourth step: what there is to do is known, and a successor knows of us. Nothing has been started yet.

use crate::containment::{self, Containment, Predecessor};
use crate::daemon::boot::cmd::{Cmd, judge_cmd};
use crate::daemon::boot::ownership::identity::Kinship;
use crate::daemon::boot::patience::{wait_for, with_patience};
use crate::daemon::boot::reading::reconcile::{Reconciled, Task};
use crate::daemon::boot::steps::contained::Contained;
use crate::daemon::boot::steps::opened::Opened;
use crate::daemon::boot::steps::prepared::Prepared;
use crate::daemon::show::status::why_not_higher;
use crate::daemon::sources::Wakeups;
use crate::daemon::{Notice, Options, fault};
use crate::store::{Change, StoreEvent};
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;

/// The ticket of the commit that holds the note to the next supervisor; those of the loop come after it.
const NOTE: u64 = 0;

pub(in crate::daemon::boot) struct Planned {
    pub reconciled: Reconciled,
    /// What becomes of the container's command.
    pub cmd: Cmd,
}

impl Planned {
    pub fn plan(prepared: &mut Prepared, opened: &Opened, contained: &mut Contained) -> Self {
        let (options, log) = (&prepared.given.options, &prepared.given.log);
        let task = Task::new(
            options,
            &prepared.around,
            &opened.rows,
            &contained.found,
            &contained.adopted,
            prepared.argv.as_deref().unwrap_or_default(),
            prepared.clock.now().0 / 1000,
        );
        let given_up = task.given_up();
        let mut reconciled = with_patience("reconcile", move || task.run()).unwrap_or_else(|| {
            given_up.store(true, Ordering::Relaxed);
            Reconciled::default()
        });
        reconciled.complete(&mut contained.found);
        for warning in &reconciled.warnings {
            slog::warn!(log, "{warning}");
        }
        fault::point();
        leave_note(prepared, opened, &contained.containment);
        Self { reconciled, cmd: judge_cmd(prepared.argv.take(), &prepared.given.options) }
    }
}

/// Tells the next supervisor on this state who we are. The answer is awaited before the first start: [`note_is_kept`].
pub(in crate::daemon::boot) fn leave_note(prepared: &Prepared, opened: &Opened, containment: &Containment) {
    let note = serde_json::to_value(note_to_successor(containment, &prepared.given.options));
    let mut changes: Vec<Change> = note.ok().map(Change::Boot).into_iter().collect();
    if opened.identity.kinship != Kinship::Predecessor || opened.rows.lies != opened.rows.lay {
        changes.push(Change::Identity(opened.identity.instance.clone(), opened.rows.lies));
    }
    opened.store.commit(NOTE, changes);
}

/// Waits, bounded, until the note to the next supervisor is on disk, or cannot be kept there. What else is heard meanwhile is
/// told again.
pub(super) fn note_is_kept(wakeups: &Wakeups) {
    for early in await_commit(&wakeups.notices, NOTE) {
        wakeups.notifier.send(early);
    }
}

/// The rung in force, why not a better one, and the flag that would give it.
pub(super) fn first_line(report: &containment::Report) -> String {
    let mut line = format!("containment '{}'", report.rung);
    if let Some(why) = why_not_higher(report) {
        line.push_str(&format!(" ({why})"));
    }
    if let Some(weakness) = report.weakness() {
        line.push_str(&format!("; {weakness}"));
    }
    if let Some(flag) = report.raise() {
        line.push_str(&format!("; better with {flag}"));
    }
    line
}

/// What the next supervisor on this state is told.
pub(in crate::daemon) fn note_to_successor(containment: &Containment, options: &Options) -> Predecessor {
    Predecessor { state: Some(options.state.clone()), ..containment.predecessor() }
}

/// Waits, bounded, until the commit is answered; returns what else was heard meanwhile.
fn await_commit(notices: &Receiver<Notice>, wanted: u64) -> Vec<Notice> {
    let mut early = Vec::new();
    loop {
        match wait_for(notices) {
            Some(Notice::Store(StoreEvent::Committed { ticket } | StoreEvent::Failed { ticket, .. }))
                if ticket == wanted =>
            {
                return early;
            }
            Some(notice) => early.push(notice),
            None => return early,
        }
    }
}
