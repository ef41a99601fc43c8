//! The end of everything, within one budget: services in reverse order, then whatever children are left.

use super::topics::Deadlines;
use super::{Over, Supervisor};
use crate::core::clock::Tick;
use crate::core::farewell::Farewell;
use crate::core::signal::Signal;
use crate::sys::mount;
use crate::sys::signal::Received;
use std::time::Duration;

/// How long children that belong to nobody may take to obey, once all services are gone.
const ORPHAN_GRACE: Duration = Duration::from_millis(500);
/// After the budget: how long what was killed may take to vanish before we end without it (a process in D state).
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// A shutdown under way.
#[derive(Debug)]
pub struct Closing {
    deadline: Tick,
    /// Asked for, or an essential service's: wins over the main program's.
    code: Option<u8>,
    /// The main program's, if it ended by itself.
    main_code: Option<u8>,
    /// Children exist that have not been reaped.
    pub children_left: bool,
    orphans: Orphans,
    hurried: bool,
    /// Only of the services: another container takes the state over, and the main program goes on here.
    gives_up: bool,
    farewell: Farewell,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Orphans {
    /// Services come first.
    Spared,
    Asked {
        until: Tick,
    },
    Killed,
}

impl Closing {
    /// The exit code that was asked for, and that of the main program if it ended by itself. `None`: the container goes on.
    pub fn codes(&self) -> Option<(Option<u8>, Option<u8>)> {
        (!self.gives_up).then_some((self.code, self.main_code))
    }
}

impl Deadlines for Closing {
    fn postpone(&mut self, by: Duration) {
        self.deadline = self.deadline.after(by);
        if let Orphans::Asked { until } = &mut self.orphans {
            *until = until.after(by);
        }
    }

    fn next_deadline(&self) -> Option<Tick> {
        match self.orphans {
            Orphans::Asked { until } => Some(until),
            Orphans::Spared if !self.hurried => Some(self.deadline),
            Orphans::Spared | Orphans::Killed => Some(self.deadline.after(LAST_PATIENCE)),
        }
    }
}

impl Supervisor {
    pub(super) fn take_signal(&mut self, received: Received) {
        match received.signal {
            Signal::CHLD => self.reap_told(received.pid),
            Signal::TERM | Signal::RTMIN_PLUS_3 | Signal::PWR => {
                self.stop_signal(received);
            }
            Signal::INT if self.main.is_none() => {
                self.stop_signal(received);
            }
            Signal::HUP if self.main.is_none() => {
                slog::info!(self.log, "SIGHUP received, reading definitions again");
                self.postponed.reload_on = self.next_scan();
            }
            // For a terminal's stop signals there is nobody to come back to.
            Signal::TSTP | Signal::TTIN | Signal::TTOU => {}
            signal => {
                if let Some(main) = &self.main {
                    main.signal(signal);
                }
            }
        }
    }

    /// The first asks everybody to end, the second kills.
    fn stop_signal(&mut self, received: Received) {
        let (signal, sender) = (received.signal, self.sender(received));
        let is_first = self.closing.as_ref().is_none_or(|closing| closing.gives_up);
        let code = sender.exit_code(signal, std::process::id() == 1).filter(|_| is_first);
        match code {
            Some(code) => {
                slog::warn!(self.log, "{signal} from {sender}: shutting down with exit code {code}");
            }
            None => slog::info!(self.log, "{signal} received, shutting down"; "from" => %sender),
        }
        if is_first {
            self.begin_shutdown(code);
        } else {
            self.hurry();
        }
    }

    fn hurry(&mut self) {
        let now = self.clock.now();
        if let Some(closing) = &mut self.closing {
            closing.hurried = true;
            closing.deadline = closing.deadline.min(now);
        }
        let gives_up = self.closing.as_ref().is_some_and(|closing| closing.gives_up);
        if let Some(main) = self.main.as_ref().filter(|_| !gives_up) {
            main.signal(Signal::KILL);
        }
        let effects = self.fleet.kill_all(now);
        self.execute(effects);
    }

    /// The main program ended by itself, or after our signal.
    pub(super) fn main_ended(&mut self, code: u8) {
        slog::debug!(self.log, "the main program ended"; "code" => code);
        if self.closing.as_ref().is_none_or(|closing| closing.gives_up) {
            self.begin_shutdown(None);
            if let Some(closing) = &mut self.closing {
                closing.main_code = Some(code);
            }
        }
    }

    /// Our former self had begun one; its budget begins anew.
    pub(super) fn resume_shutdown(&mut self, (code, main_code): (Option<u8>, Option<u8>)) {
        self.begin_shutdown(code);
        if let Some(closing) = &mut self.closing {
            closing.main_code = main_code;
        }
    }

    pub(super) fn begin_shutdown(&mut self, code: Option<u8>) {
        match &mut self.closing {
            // The services are on their way down already, within their budget.
            Some(closing) if closing.gives_up => (closing.gives_up, closing.code) = (false, code),
            Some(closing) => {
                closing.code = closing.code.or(code);
                return;
            }
            None => return self.begin_to_end(code, false),
        }
        self.ask_main_to_end();
    }

    fn ask_main_to_end(&self) {
        if let Some(main) = &self.main {
            main.signal(Signal::TERM);
            main.signal(Signal::CONT);
        }
    }

    /// Ends the services for who takes the state over.
    pub(super) fn begin_to_give_way(&mut self) {
        if self.closing.is_none() {
            self.begin_to_end(None, true);
        }
    }

    fn begin_to_end(&mut self, code: Option<u8>, gives_up: bool) {
        let now = self.clock.now();
        let deadline = now.after(self.options.stop_budget);
        let goes = !gives_up && self.containment.ends_with_us() && mount::is_in_memory(&self.runtime_dir);
        let farewell = if goes { Farewell::Container } else { Farewell::Host };
        self.closing = Some(Closing {
            deadline,
            code,
            main_code: None,
            children_left: true,
            orphans: Orphans::Spared,
            hurried: false,
            gives_up,
            farewell,
        });
        if !gives_up {
            self.ask_main_to_end();
        }
        self.containment.begin_to_close(farewell);
        let effects = self.fleet.shutdown(deadline, now);
        self.execute(effects);
    }

    pub(super) fn farewell(&self) -> Farewell {
        self.closing.as_ref().map_or(Farewell::Host, |closing| closing.farewell)
    }

    /// Takes the shutdown as far as it goes now.
    pub(super) fn push_shutdown(&mut self, now: Tick) {
        let Some(closing) = &self.closing else { return };
        if closing.deadline <= now && !closing.hurried {
            for id in self.fleet.ids().collect::<Vec<_>>() {
                if let Some((name, gateway)) = self.fleet.name(id).zip(self.fleet.gateway(id))
                    && gateway.has_tree()
                {
                    slog::warn!(self.log, "{name} used up the stop budget and is killed");
                }
            }
            self.hurry();
        }
        let over = self.fleet.is_empty_handed() && self.main.is_none();
        let Some(closing) = self.closing.as_mut().filter(|closing| !closing.gives_up) else { return };
        if !over {
            return;
        }
        match closing.orphans {
            Orphans::Spared => {
                closing.orphans =
                    Orphans::Asked { until: now.after(ORPHAN_GRACE).min(closing.deadline.max(now)) };
                self.reap();
                // Most have none.
                if self.closing.as_ref().is_some_and(|closing| closing.children_left) {
                    self.signal_orphans(Signal::TERM);
                }
            }
            Orphans::Asked { until } if until <= now => {
                closing.orphans = Orphans::Killed;
                self.signal_orphans(Signal::KILL);
            }
            Orphans::Asked { .. } => {}
            // A killed one's children fall to us: they are killed as they appear.
            Orphans::Killed => self.signal_orphans(Signal::KILL),
        }
    }

    /// How it ends, once everything has ended or the last patience is over.
    pub(super) fn ended(&self) -> Option<Over> {
        let closing = self.closing.as_ref()?;
        let services = self.fleet.is_empty_handed();
        let over = services && (closing.gives_up || (self.main.is_none() && !closing.children_left));
        let enough = closing.deadline.after(LAST_PATIENCE) <= self.clock.now();
        if enough && !over {
            slog::error!(self.log, "ending although processes are left that do not die");
        }
        let end = || match closing.gives_up {
            true => Over::GivenUp,
            false => Over::Ended(closing.code.or(closing.main_code).unwrap_or(0)),
        };
        (over || enough).then(end)
    }

    fn signal_orphans(&self, signal: Signal) {
        for pid in crate::containment::children_of_ours() {
            if let Ok(orphan) = crate::sys::pidfd::Pidfd::open(pid) {
                let _ = orphan.send(signal);
            }
        }
    }
}
