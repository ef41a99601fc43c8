//! Signals to the supervisor, and what each asks for.

use crate::control::protocol::{Event, EventKind};
use crate::core::farewell::Farewell;
use crate::core::signal::Signal;
use crate::daemon::Supervisor;
use crate::daemon::view::decide;
use crate::sys::signal::Received;

impl Supervisor {
    pub(in crate::daemon) fn take_signal(&mut self, received: Received) {
        match received.signal {
            Signal::CHLD => self.reap_told(received.pid),
            Signal::TERM | Signal::RTMIN_PLUS_3 | Signal::PWR => {
                self.stop_signal(received);
            }
            Signal::INT if self.main.is_none() => {
                self.stop_signal(received);
            }
            Signal::HUP if self.main.is_none() => {
                self.happened(Event::info(EventKind::Reload, "SIGHUP received, reading definitions again"));
                decide!(self.definitions.ask_reload(None));
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
        let code = sender.exit_code(signal, std::process::id() == 1);
        let code = code.filter(|_| self.topics.shutdown.is_first_signal());
        match code {
            Some(code) => {
                let text = format!("{signal} from {sender}: shutting down with exit code {code}");
                self.happened(Event::warning(EventKind::Shutdown, text));
            }
            None => {
                let text = format!("{signal} from {sender}: shutting down");
                self.happened(Event::info(EventKind::Shutdown, text));
            }
        }
        let farewell = self.farewell_of_all();
        decide!(self.shutdown.signalled(code, farewell));
    }

    /// The main program ended by itself, or after our signal.
    pub(in crate::daemon) fn main_ended(&mut self, code: u8) {
        slog::debug!(self.log, "the main program ended"; "code" => code);
        let farewell = self.farewell_of_all();
        decide!(self.shutdown.main_ended(code, farewell));
    }

    pub(in crate::daemon) fn begin_shutdown(&mut self, code: Option<u8>) {
        let farewell = self.farewell_of_all();
        decide!(self.shutdown.begin(code, farewell));
    }

    /// What is left to the kernel where everything ends: it ends our PID namespace, and with it our cgroups.
    pub(in crate::daemon) fn farewell_of_all(&self) -> Farewell {
        if self.containment.ends_with_us() { Farewell::Container } else { Farewell::Host }
    }

    /// The same of what lies in the runtime directory.
    pub(in crate::daemon) fn farewell_of_names(&self) -> Farewell {
        if self.names_go_with_us { self.topics.shutdown.farewell() } else { Farewell::Host }
    }
}
