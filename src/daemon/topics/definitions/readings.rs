//! When files are read again, and who waits for that.
//!
//! One reading at a time. What is asked for while one is under way may be newer than what that one sees, so it waits for the
//! next. A request that names something unknown waits too, but not for ever: the disk may hang.

use crate::control::protocol::RefusalKind;
use crate::control::server::{ConnId, Incoming};
use crate::core::clock::Tick;
use crate::daemon::act::{Action, Actions};
use crate::daemon::topics::Deadlines;
use crate::daemon::topics::definitions::Definitions;
use crate::daemon::topics::definitions::found::Found;
use crate::daemon::view::View;
use std::time::Duration;

/// How long a request with an unknown name waits for the profiles to be read.
const PARKED: Duration = Duration::from_secs(2);

/// Readings of files, and those who wait for one.
#[derive(Debug, Default)]
pub struct Readings {
    under_way: bool,
    /// Of the newest reading.
    number: u64,
    /// Requests that name something unknown, until the profiles were looked at again.
    parked: Vec<Parked>,
    /// Those who want what they have written to count.
    reloading: Vec<Reloading>,
    /// The reading that is for a reload, not only for new profiles.
    reload_on: Option<u64>,
}

#[derive(Debug)]
struct Parked {
    incoming: Incoming,
    /// The reading that will have seen what is on the disk now.
    reading: u64,
    until: Tick,
}

#[derive(Debug)]
pub struct Reloading {
    pub conn: ConnId,
    /// What is changed and runs is restarted.
    pub restart: bool,
}

impl Readings {
    pub fn is_busy(&self) -> bool {
        self.under_way || !self.parked.is_empty() || !self.reloading.is_empty()
    }

    /// The number of the reading that will have seen what is on the disk now, which is begun unless another is under way.
    fn next(&mut self) -> (u64, Actions) {
        if self.under_way {
            return (self.number + 1, Actions::new());
        }
        self.number += 1;
        self.under_way = true;
        (self.number, vec![Action::ReadDefinitions(self.number)])
    }

    pub fn caller_is_gone(&mut self, conn: ConnId) {
        self.parked.retain(|parked| parked.incoming.id != conn);
    }

    fn take_parked(&mut self, is_over: impl Fn(&Parked) -> bool) -> Actions {
        let (over, waiting) = std::mem::take(&mut self.parked).into_iter().partition(is_over);
        self.parked = waiting;
        let over: Vec<Parked> = over;
        over.into_iter().map(|parked| Action::Serve(parked.incoming)).collect()
    }
}

impl Deadlines for Definitions {
    fn next_deadline(&self) -> Option<Tick> {
        self.readings.parked.iter().map(|parked| parked.until).min()
    }

    fn postpone(&mut self, by: Duration) {
        self.readings.parked.iter_mut().for_each(|parked| parked.until = parked.until.after(by));
    }
}

impl Definitions {
    /// Something in `profiles/` is another.
    pub fn profiles_changed(&mut self, view: &View<'_>) -> Actions {
        if view.closing { Actions::new() } else { self.readings.next().1 }
    }

    /// A request that names something unknown waits for the profiles to be read.
    pub fn park(&mut self, incoming: Incoming, view: &View<'_>) -> Actions {
        let (reading, actions) = self.readings.next();
        self.readings.parked.push(Parked { incoming, reading, until: view.now.after(PARKED) });
        actions
    }

    /// Everything is to be read again; `by`: for this caller.
    pub fn ask_reload(&mut self, by: Option<Reloading>, view: &View<'_>) -> Actions {
        if view.closing {
            let refuse = |by: Reloading| {
                Action::refuse(by.conn, RefusalKind::Failed, "the supervisor is shutting down")
            };
            return by.map(refuse).into_iter().collect();
        }
        self.readings.reloading.extend(by);
        let (number, actions) = self.readings.next();
        self.readings.reload_on = Some(number);
        actions
    }

    /// The files were read: new profiles come in, a `reload` is carried out, parked requests are answered.
    pub fn found(&mut self, mut found: Found, view: &View<'_>) -> Actions {
        self.readings.under_way = false;
        if view.closing {
            return self.not_found("the supervisor is shutting down", view);
        }
        let mut actions = vec![Action::SayLate(found.late.clone())];
        let number = self.readings.number;
        if self.readings.reload_on.is_some_and(|reading| reading <= number) {
            self.readings.reload_on = None;
            let callers = std::mem::take(&mut self.readings.reloading);
            actions.extend(self.reload(found, &callers, view));
        } else if self.late.is_some() {
            actions.extend(self.reload(found, &[], view));
        } else {
            actions.extend(self.new_profiles(&mut found, view));
        }
        actions.extend(self.readings.take_parked(|parked| parked.reading <= number));
        // Asked for while this was being read: what was read may be older than the request.
        if self.readings.reload_on.is_some() || !self.readings.parked.is_empty() {
            actions.extend(self.readings.next().1);
        }
        actions
    }

    /// Some of what the reading of this number did without has come.
    pub fn late_came(&mut self, number: u64, found: Found, view: &View<'_>) -> Actions {
        if view.closing {
            return Actions::new();
        }
        if number == self.readings.number && !self.readings.under_way {
            let mut actions = vec![Action::SayLate(found.late.clone())];
            actions.extend(self.reload(found, &[], view));
            return actions;
        }
        // What else was read then is older than what is known.
        let (next, actions) = self.readings.next();
        self.readings.reload_on = self.readings.reload_on.max(Some(next));
        actions
    }

    /// They could not be read: nobody waits any longer.
    pub fn not_found(&mut self, why: &str, _: &View<'_>) -> Actions {
        self.readings.under_way = false;
        self.readings.reload_on = None;
        let refuse = |by: Reloading| {
            Action::refuse(by.conn, RefusalKind::Failed, format!("nothing was reloaded: {why}"))
        };
        let mut actions: Actions =
            std::mem::take(&mut self.readings.reloading).into_iter().map(refuse).collect();
        actions.extend(self.readings.take_parked(|_| true));
        actions
    }

    /// The profiles take too long to be read: these are answered with what is known.
    pub fn pass_time(&mut self, view: &View<'_>) -> Actions {
        self.readings.take_parked(|parked| parked.until <= view.now)
    }
}
