//! Whether all is well: the answer of `healthcheck`, and what `status --failed` shows. Pure.

use crate::control::protocol::{Kind, ServiceStatus, State, Want};
use serde::Serialize;
use std::fmt;

/// What is wrong with a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// It is wanted and does not do its work.
    NotUp,
    /// It runs and has yet to say that it is ready.
    NotReady,
    /// It runs, and its health check says that it does not do its work.
    Unhealthy,
    /// It is up, and all of it stands still by order.
    Frozen,
}

/// A service that is not as it should be.
#[derive(Debug, Clone, Copy)]
pub struct Trouble<'a> {
    pub service: &'a ServiceStatus,
    pub fault: Fault,
}

impl fmt::Display for Trouble<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, fault } = self;
        write!(f, "{}: {}", service.name, service.state)?;
        match fault {
            Fault::NotReady => f.write_str(", not ready yet")?,
            // The reason has it.
            Fault::NotUp | Fault::Unhealthy | Fault::Frozen => {}
        }
        match &service.reason {
            Some(reason) => write!(f, ", {reason}"),
            None => Ok(()),
        }
    }
}

/// What is wrong with a service, if anything. `asked_for`: it is expected to do its work, whatever is wanted of it.
pub fn fault(service: &ServiceStatus, asked_for: bool) -> Option<Fault> {
    if service.want == Want::Down && !asked_for {
        return None;
    }
    let is_scheduled = service.schedule.is_some() && service.want == Want::Up;
    match service.state {
        State::Served | State::Parked => None,
        // It has its time, or its run is about to begin or to end.
        State::Down | State::Starting | State::Stopping | State::Finished if is_scheduled => None,
        State::Finished if service.kind == Kind::Oneshot => None,
        State::Up | State::Ready if service.frozen => Some(Fault::Frozen),
        State::Up if service.awaits_ready => Some(Fault::NotReady),
        State::Up | State::Ready if service.is_unhealthy() => Some(Fault::Unhealthy),
        State::Up | State::Ready => None,
        State::Down
        | State::Starting
        | State::Stopping
        | State::Backoff
        | State::Failed
        | State::Finished
        | State::Refused => Some(Fault::NotUp),
    }
}

/// It has failed, in whatever way: an operator has to look at it.
pub fn has_failed(service: &ServiceStatus) -> bool {
    match service.state {
        State::Failed | State::Backoff | State::Refused => true,
        State::Down
        | State::Starting
        | State::Up
        | State::Ready
        | State::Stopping
        | State::Finished
        | State::Served
        | State::Parked => false,
    }
}

/// What there is, in numbers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Verdict<'a> {
    /// The one to tell of: what has failed before what is on its way.
    pub first: Option<Trouble<'a>>,
    pub troubles: usize,
    pub services: usize,
}

impl Verdict<'_> {
    pub fn is_well(&self) -> bool {
        self.troubles == 0
    }
}

impl fmt::Display for Verdict<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first {
            None => write!(f, "healthy: {} service{}", self.services, plural(self.services)),
            Some(first) => {
                write!(f, "unhealthy: {first}")?;
                match self.troubles - 1 {
                    0 => Ok(()),
                    more => write!(f, " (and {more} more: 'hermes-sup ctl status')"),
                }
            }
        }
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// The verdict on these services; `asked_for` as in [`fault`].
pub fn judge(services: &[ServiceStatus], asked_for: bool) -> Verdict<'_> {
    let mut verdict = Verdict { services: services.len(), ..Verdict::default() };
    for service in services {
        let Some(fault) = fault(service, asked_for) else { continue };
        verdict.troubles += 1;
        let worse = verdict.first.is_none_or(|first| !has_failed(first.service) && has_failed(service));
        if worse {
            verdict.first = Some(Trouble { service, fault });
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::{Health, HealthState, Schedule, samples};

    fn with(state: State, change: impl FnOnce(&mut ServiceStatus)) -> ServiceStatus {
        let mut service = ServiceStatus { state, kind: Kind::Daemon, ..samples::service("web") };
        change(&mut service);
        service
    }

    /// A HEALTHCHECK that listed names was broken by each oneshot, which ends, and by each profile that another gateway serves.
    #[test]
    fn what_is_wanted_must_do_its_work_and_what_is_done_is_fine() {
        let well = [
            with(State::Up, |_| {}),
            with(State::Ready, |_| {}),
            with(State::Served, |_| {}),
            with(State::Parked, |_| {}),
            with(State::Finished, |service| service.kind = Kind::Oneshot),
            with(State::Down, |service| service.want = Want::Down),
            with(State::Failed, |service| service.want = Want::Down),
        ];
        for service in &well {
            assert_eq!(fault(service, false), None, "{service:?}");
        }
        for state in
            [State::Down, State::Starting, State::Stopping, State::Backoff, State::Failed, State::Refused]
        {
            assert_eq!(fault(&with(state, |_| {}), false), Some(Fault::NotUp), "{state}");
        }
        assert_eq!(
            fault(&with(State::Finished, |_| {}), false),
            Some(Fault::NotUp),
            "a daemon does not finish"
        );
        let unready = with(State::Up, |service| service.awaits_ready = true);
        assert_eq!(fault(&unready, false), Some(Fault::NotReady));
        for (state, expected) in [
            (HealthState::Starting, None),
            (HealthState::Healthy, None),
            (HealthState::Unhealthy, Some(Fault::Unhealthy)),
        ] {
            let health = Health { state, failures: 1, reason: None, quarantine: None };
            let checked = with(State::Ready, |service| service.health = Some(health.clone()));
            assert_eq!(fault(&checked, false), expected, "{state}");
        }
        for state in [State::Up, State::Ready] {
            assert_eq!(fault(&with(state, |service| service.frozen = true), false), Some(Fault::Frozen));
        }
    }

    #[test]
    fn a_oneshot_with_a_schedule_is_well_until_a_run_of_it_fails() {
        let scheduled = |state| {
            with(state, |service| {
                service.kind = Kind::Oneshot;
                let schedule =
                    Schedule { when: "@daily".to_owned(), last_run: None, next_run: None, skipped: 0 };
                service.schedule = Some(schedule);
            })
        };
        for state in [State::Down, State::Starting, State::Up, State::Stopping, State::Finished] {
            assert_eq!(fault(&scheduled(state), true), None, "{state}");
        }
        for state in [State::Failed, State::Backoff, State::Refused] {
            assert_eq!(fault(&scheduled(state), false), Some(Fault::NotUp), "{state}");
        }
        let unwanted = ServiceStatus { want: Want::Down, ..scheduled(State::Down) };
        assert_eq!((fault(&unwanted, false), fault(&unwanted, true)), (None, Some(Fault::NotUp)));
    }

    #[test]
    fn what_is_asked_for_by_name_must_be_up_whatever_is_wanted() {
        let down = samples::down("web");
        assert_eq!(fault(&down, true), Some(Fault::NotUp));
        assert_eq!(judge(&[down], true).to_string(), "unhealthy: web: down");
    }

    #[test]
    fn one_line_says_which_and_why_and_failures_come_first() {
        let starting = with(State::Starting, |service| service.name = "a".to_owned());
        let failed = with(State::Backoff, |service| service.reason = Some("exited with code 1".to_owned()));
        let services = [starting, failed, with(State::Up, |_| {})];
        let verdict = judge(&services, false);
        assert!(!verdict.is_well());
        assert_eq!(
            verdict.to_string(),
            "unhealthy: web: backoff, exited with code 1 (and 1 more: 'hermes-sup ctl status')"
        );
        let unready = [with(State::Up, |service| service.awaits_ready = true)];
        assert_eq!(judge(&unready, false).to_string(), "unhealthy: web: up, not ready yet");
        assert_eq!(judge(&services[2..], false).to_string(), "healthy: 1 service");
        assert!(judge(&[], false).is_well());
    }
}
