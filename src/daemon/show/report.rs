//! What the log says of single services beside their states: what happened to them unasked, and who asked for what.
//!
//! The sentences are pure functions of what they are about; only the two methods write.

use crate::core::effect::Incident;
use crate::core::fleet::ServiceId;
use crate::core::name::ServiceName;
use crate::daemon::Supervisor;
use crate::daemon::show::first_of;
use crate::sys::peer::Peer;
use crate::sys::users;
use std::time::Duration;

/// So many services are named in one line; of the rest their number.
const NAMED: usize = 20;

impl Supervisor {
    /// Something happened that no state tells.
    pub(in crate::daemon) fn report(&self, name: &ServiceName, incident: &Incident) {
        match incident {
            Incident::Ended { exit, .. } if exit.is_success() => {
                slog::info!(self.log, "{name}: {}", sentence(incident));
            }
            Incident::Ended { .. }
            | Incident::NotStarted(_)
            | Incident::StopTimedOut { .. }
            | Incident::FinishTimedOut { .. } => slog::warn!(self.log, "{name}: {}", sentence(incident)),
        }
    }

    /// A caller asked for something to be done to services. One line, however many they are.
    pub(in crate::daemon) fn asked(&self, verb: &str, ids: &[ServiceId], peer: &Peer) {
        if ids.is_empty() {
            return;
        }
        let names = ids.iter().filter_map(|id| self.fleet.name(*id)).map(ServiceName::as_str);
        let who = users::by_uid(peer.uid).ok().flatten().map(|user| user.name);
        slog::info!(self.log, "{}", request(verb, names, who.as_deref(), peer));
    }
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
        Incident::FinishTimedOut { after } => {
            format!("its finish program did not end within {} and is killed", words(*after))
        }
    }
}

/// Who asked for what: `stop of web, db asked for by root (uid 0, pid 42)`.
fn request<'a>(verb: &str, names: impl Iterator<Item = &'a str>, who: Option<&str>, peer: &Peer) -> String {
    let user = who.map(|who| format!("{who} ")).unwrap_or_default();
    let pid = peer.pid.map_or_else(|| "of another container".to_owned(), |pid| format!("pid {pid}"));
    format!("{verb} of {} asked for by {user}(uid {}, {pid})", first_of(NAMED, names), peer.uid)
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
        let peer = Peer { pid: Some(42), uid: 1000, gid: 1000 };
        assert_eq!(
            request("stop", ["web", "db"].into_iter(), Some("deploy"), &peer),
            "stop of web, db asked for by deploy (uid 1000, pid 42)"
        );
        let many: Vec<String> = (0..23).map(|n| format!("n{n}")).collect();
        let line = request("restart", many.iter().map(String::as_str), None, &peer);
        assert!(line.ends_with(", n19 and 3 more asked for by (uid 1000, pid 42)"), "{line}");
    }
}
