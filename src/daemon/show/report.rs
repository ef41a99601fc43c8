//! The events of services, and who asked for what: each a pure function of what it is about, told by [`Supervisor::happened`].

use crate::control::protocol::{Asker, Event, EventKind, Level, Utc};
use crate::core::effect::Incident;
use crate::core::fleet::ServiceId;
use crate::core::name::ServiceName;
use crate::core::words::State;
use crate::daemon::Supervisor;
use crate::daemon::clock::wall;
use crate::daemon::services::Told;
use crate::daemon::show::first_of;
use crate::sys::peer::Peer;
use crate::sys::users;
use std::borrow::Cow;
use std::time::Duration;

/// So many services are named in one line; of the rest their number.
const NAMED: usize = 20;

impl Supervisor {
    /// Something has happened: the log gets its line, and the event goes to those who keep it and who listen.
    pub(in crate::daemon) fn happened(&mut self, event: Event) {
        let event = Event { time: Utc(wall(self.clock.now())), ..event };
        match (event.level, event.pid) {
            (Level::Debug, _) => slog::debug!(self.log, "{event}"),
            (Level::Info, None) => slog::info!(self.log, "{event}"),
            (Level::Info, Some(pid)) => slog::info!(self.log, "{event}"; "pid" => pid),
            (Level::Warning, _) => slog::warn!(self.log, "{event}"),
            (Level::Error, _) => slog::error!(self.log, "{event}"),
        }
        let actions = self.topics.events.take(event);
        self.carry_out(actions);
    }

    /// Something happened that no state tells.
    pub(in crate::daemon) fn report(&mut self, name: &ServiceName, incident: &Incident) {
        self.happened(incident_event(incident).about(name));
    }

    /// A caller asked for something to be done to services. One line, however many they are.
    pub(in crate::daemon) fn asked(&mut self, verb: &str, ids: &[ServiceId], peer: &Peer) {
        let names: Vec<&ServiceName> = ids.iter().filter_map(|id| self.fleet.name(*id)).collect();
        let by = asker(peer);
        let event = match names[..] {
            [] => return,
            [name] => request(verb, &by).about(name),
            _ => {
                let what =
                    format!("{verb} of {}", first_of(NAMED, names.into_iter().map(ServiceName::as_str)));
                request(&what, &by)
            }
        };
        self.happened(event.by(by));
    }

    /// A caller asked for something to be done to the supervisor.
    pub(in crate::daemon) fn asked_of_us(&mut self, what: &str, peer: &Peer) {
        let by = asker(peer);
        self.happened(request(what, &by).by(by));
    }
}

/// A service is in another state. What passes by itself, and what was told already, is for those who listen. `is_routine`: it comes
/// again and again, and nothing is wrong.
pub(in crate::daemon) fn state(now: &Told, is_routine: bool) -> Event {
    let message = match now.reason.as_str() {
        "" => Cow::Borrowed(now.state.as_str()),
        _ => now.to_string().into(),
    };
    let event = Event::info(EventKind::State, message);
    let level = match now.state {
        State::Backoff | State::Up if is_routine => Level::Debug,
        State::Failed | State::Backoff => Level::Warning,
        State::Starting | State::Stopping => Level::Debug,
        State::Down
        | State::Up
        | State::Ready
        | State::Refused
        | State::Finished
        | State::Served
        | State::Parked => Level::Info,
    };
    Event { level, state: Some(now.state), pid: now.pid.and_then(|pid| u32::try_from(pid).ok()), ..event }
}

fn incident_event(incident: &Incident) -> Event {
    let text = sentence(incident);
    match incident {
        Incident::Ended { exit, .. } => {
            let event = match exit.is_success() {
                true => Event::info(EventKind::Exit, text),
                false => Event::warning(EventKind::Exit, text),
            };
            Event { exit_code: Some(exit.shell_code()), ..event }
        }
        Incident::NotStarted(_) => Event::warning(EventKind::StartFailed, text),
        Incident::StopTimedOut { .. } | Incident::HookTimedOut { .. } | Incident::FinishTimedOut { .. } => {
            Event::warning(EventKind::Killed, text)
        }
        Incident::RunDue => Event::info(EventKind::Schedule, text),
        Incident::RunSkipped(_) => Event::warning(EventKind::Schedule, text),
    }
}

fn asker(peer: &Peer) -> Asker {
    let user = users::by_uid(peer.uid).ok().flatten().map(|user| user.name);
    Asker { uid: peer.uid, user, pid: peer.pid }
}

fn request(what: &str, by: &Asker) -> Event {
    Event::info(EventKind::Command, format!("{what} asked for by {by}"))
}

/// What happened, without the name of the service.
fn sentence(incident: &Incident) -> String {
    match incident {
        Incident::Ended { exit, ran } if exit.is_success() => format!("{exit}, after {}", words(*ran)),
        Incident::Ended { exit, ran } => format!("{exit} unexpectedly, after {}", words(*ran)),
        Incident::NotStarted(why) => format!("could not be started: {why}"),
        Incident::StopTimedOut { after, main: true } => {
            format!("did not stop within {} and is killed", words(*after))
        }
        Incident::StopTimedOut { after, main: false } => {
            format!("processes that it left did not end within {} and are killed", words(*after))
        }
        Incident::HookTimedOut { hook } => {
            format!("its hook {} did not end in its time and is killed", hook.as_str())
        }
        Incident::FinishTimedOut { after } => {
            format!("its finish program did not end within {} and is killed", words(*after))
        }
        Incident::RunDue => "its run is due".to_owned(),
        Incident::RunSkipped(why) => format!("its run is due and skipped: {why}"),
    }
}

/// To the second, or to the millisecond where it is less than one.
fn words(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let rounded = if millis < 1000 { millis } else { millis / 1000 * 1000 };
    humantime::format_duration(Duration::from_millis(rounded)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::exit::Exit;
    use crate::core::signal::Signal;

    #[test]
    fn what_happened_is_said_with_its_cause_and_how_long_it_took() {
        let seconds = Duration::from_secs;
        for (incident, expected) in [
            (
                Incident::Ended { exit: Exit::Code(3), ran: Duration::from_millis(61_234) },
                "exited with code 3 unexpectedly, after 1m 1s",
            ),
            (
                Incident::Ended { exit: Exit::Signal { signal: Signal::QUIT, core: true }, ran: seconds(0) },
                "killed by SIGQUIT, core dumped unexpectedly, after 0s",
            ),
            (
                Incident::Ended { exit: Exit::Code(0), ran: Duration::from_millis(250) },
                "exited with code 0, after 250ms",
            ),
            (Incident::NotStarted("no user".to_owned()), "could not be started: no user"),
            (
                Incident::StopTimedOut { after: seconds(10), main: true },
                "did not stop within 10s and is killed",
            ),
            (
                Incident::StopTimedOut { after: seconds(10), main: false },
                "processes that it left did not end within 10s and are killed",
            ),
        ] {
            assert_eq!(sentence(&incident), expected);
        }
    }

    #[test]
    fn who_asked_is_one_line_however_many_are_meant() {
        let by = Asker { uid: 1000, user: Some("deploy".to_owned()), pid: Some(42) };
        let what = format!("stop of {}", first_of(NAMED, ["web", "db"].into_iter()));
        assert_eq!(request(&what, &by).to_string(), "stop of web, db asked for by deploy (uid 1000, pid 42)");
        assert_eq!(
            request("stop", &by).about("web").to_string(),
            "web: stop asked for by deploy (uid 1000, pid 42)"
        );
        let many: Vec<String> = (0..23).map(|n| format!("n{n}")).collect();
        let line = first_of(NAMED, many.iter().map(String::as_str));
        assert!(line.ends_with(", n19 and 3 more"), "{line}");
    }

    #[test]
    fn a_state_is_told_with_its_weight() {
        let told = |state, reason: &str, pid| {
            let event = super::state(&Told { state, reason: reason.to_owned(), pid }, false);
            (event.level, event.message, event.pid)
        };
        assert_eq!(told(State::Up, "", Some(7)), (Level::Info, "up".into(), Some(7)));
        assert_eq!(told(State::Failed, "why", None), (Level::Warning, "failed: why".into(), None));
        assert_eq!(told(State::Starting, "", None).0, Level::Debug);
        let waits = Told { state: State::Backoff, reason: String::new(), pid: None };
        assert_eq!(
            (super::state(&waits, true).level, super::state(&waits, false).level),
            (Level::Debug, Level::Warning)
        );
        let up = Told { state: State::Up, reason: String::new(), pid: Some(7) };
        assert_eq!(super::state(&up, true).level, Level::Debug, "that a run was due has been told");
    }
}
