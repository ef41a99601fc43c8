//! A program beside the main process, in the keeper: made on order, told of when it has ended, and ended with all that it has
//! started.

use super::wire::HookEnd;
use crate::containment::processes::leader::Leader;
use crate::sys::spawn::clone::{self, Progress, Report};
use crate::sys::spawn::plan::ChildPlan;
use std::io;

/// Milliseconds from a step to the next.
const FIRST_WAIT: u32 = 5;
const LONGEST_WAIT: u32 = 500;

pub struct Hook {
    pub pid: i32,
    report: Report,
    /// It is being ended, and how long the next step waits.
    ending: Option<(Leader, u32)>,
    /// The supervisor that asked for it is gone.
    forgotten: bool,
}

impl Hook {
    /// # Errors
    /// As [`clone::spawn`].
    pub fn make(plan: &mut ChildPlan) -> io::Result<Self> {
        let child = clone::spawn(plan, None)?;
        Ok(Self { pid: child.pid, report: child.report, ending: None, forgotten: false })
    }

    /// It was reaped: what there is to say of that.
    pub fn ended(mut self, status: i32) -> Option<HookEnd> {
        let end = match self.report.read() {
            Progress::Failed(failure) => HookEnd::Failed { step: failure.step as u8, errno: failure.errno },
            Progress::Pending | Progress::Executed | Progress::Killed => HookEnd::Exited { status },
        };
        (!self.forgotten).then_some(end)
    }

    /// Begins its end: [`Self::step`] follows.
    pub fn end(&mut self) {
        if self.ending.is_none() {
            // Not reaped yet, so the number is its own.
            self.ending = Leader::of(self.pid).map(|leader| (leader, FIRST_WAIT));
        }
    }

    /// Nobody waits for it, nor would anybody end it.
    pub fn forget(&mut self) {
        self.forgotten = true;
        self.end();
    }

    /// One step towards its end, if it is being ended.
    pub fn step(&mut self) {
        if let Some((leader, wait)) = &mut self.ending {
            leader.end(false);
            *wait = (*wait * 2).min(LONGEST_WAIT);
        }
    }

    /// How long the next step waits, in milliseconds; `None`: there is none.
    pub fn wait(&self) -> Option<u32> {
        self.ending.as_ref().map(|(_, wait)| *wait)
    }
}
