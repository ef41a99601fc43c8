//! When a service is ready: by a line on a pipe that it was given (`notification-fd` of s6), or, of a Hermes gateway, by the
//! state file of its profile.
//!
//! Invariant: only the life that is awaited can report; what an earlier one left in a file or a pipe counts for nothing.

use crate::core::event::{Event, Incarnation};
use crate::core::fleet::ServiceId;
use crate::daemon::Notice;
use crate::daemon::act::{Action, Actions, FileWork};
use crate::daemon::view::View;
use crate::definition::resolved::Ready;
use crate::hermes::state_json;
use crate::hermes::state_watch::StateWatch;
use crate::sys::beneath::Beneath;
use crate::sys::credentials::Credentials;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// What a listener heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// The service wrote its line.
    Line,
    /// It never will: its end of the pipe is closed.
    Closed,
    /// Its state file may be another one.
    FileChanged,
}

/// What was seen of a gateway's state file.
#[derive(Debug)]
pub struct Seen {
    pub id: ServiceId,
    pub incarnation: Incarnation,
    /// With the first look.
    pub watch: Option<StateWatch>,
    pub running: Result<bool, String>,
}

/// The gateways whose state files are being looked at, with the life that is awaited.
#[derive(Debug, Default)]
pub struct Readiness(BTreeMap<ServiceId, Incarnation>);

impl Readiness {
    /// Nothing more is expected of this service.
    pub fn forget(&mut self, id: ServiceId, _: &View<'_>) -> Actions {
        self.0.remove(&id);
        vec![Action::StopListening(id)]
    }

    /// A listener has news of this life.
    pub fn heard(
        &mut self,
        id: ServiceId,
        incarnation: Incarnation,
        heard: Heard,
        view: &View<'_>,
    ) -> Actions {
        match heard {
            Heard::Line => self.ready(id, incarnation, view),
            Heard::Closed => self.forget(id, view),
            Heard::FileChanged => look(id, incarnation, false, view).into_iter().collect(),
        }
    }

    fn ready(&mut self, id: ServiceId, incarnation: Incarnation, view: &View<'_>) -> Actions {
        let mut actions = self.forget(id, view);
        actions.push(Action::Core(id, Event::ReadyReported { incarnation }));
        actions
    }

    /// The service is in another state: a gateway that runs is looked at from now on.
    pub fn changed(&mut self, id: ServiceId, view: &View<'_>) -> Actions {
        let Some((service, gateway)) = view.service(id).zip(view.fleet.gateway(id)) else {
            return Actions::new();
        };
        let incarnation = gateway.history().incarnation;
        let awaits = service.definition.ready == Ready::GatewayState && gateway.awaits_ready();
        if !awaits || self.0.get(&id) == Some(&incarnation) {
            return Actions::new();
        }
        let look = look(id, incarnation, true, view);
        if look.is_some() {
            self.0.insert(id, incarnation);
        }
        look.into_iter().collect()
    }

    /// A state file was looked at.
    pub fn seen(&mut self, seen: Seen, view: &View<'_>) -> Actions {
        let Seen { id, incarnation, watch, running } = seen;
        if self.0.get(&id) != Some(&incarnation) {
            return Actions::new();
        }
        let mut actions = Actions::new();
        match running {
            Ok(true) => return self.ready(id, incarnation, view),
            Ok(false) => {}
            Err(error) => {
                let name = view.name(id).map(ToString::to_string).unwrap_or_default();
                let text = format!("{name}: its gateway_state.json cannot tell that it is ready: {error}");
                actions.push(Action::Log(slog::Level::Warning, text));
            }
        }
        actions.extend(watch.map(|watch| Action::ListenToStateFile { id, incarnation, watch }));
        actions
    }
}

/// A look at the file, where it may hang; `first`: from then on it is watched.
fn look(id: ServiceId, incarnation: Incarnation, first: bool, view: &View<'_>) -> Option<Action> {
    let pid = u32::try_from(view.fleet.gateway(id)?.pid()?).ok()?;
    let directory = view.service(id)?.gateway_directory(&view.options.home)?;
    let (home, user) = (view.options.home.clone(), view.around.gateway.credentials());
    let work = move || -> io::Result<(Option<StateWatch>, bool)> {
        let home = Beneath::open(&home)?;
        // What was written before the watch is seen by the look, what comes later by the watch.
        let watch = first.then(|| StateWatch::new(&home, &user, &directory)).transpose()?;
        Ok((watch, state_json::says_running(&home, &user, &directory, pid)?))
    };
    let told = move |watch, running| Notice::Seen(Seen { id, incarnation, watch, running });
    Some(Action::Files(FileWork {
        credentials: Credentials::own(),
        work: Box::new(move || match work() {
            Ok((watch, running)) => told(watch, Ok(running)),
            Err(error) => told(None, Err(error.to_string())),
        }),
        refused: Arc::new(move |why| told(None, Err(why))),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::policy::Policy;
    use crate::daemon::topics::testing::World;
    use std::time::Duration;

    /// A gateway that runs and has yet to say that it is ready.
    fn awaited(world: &mut World) -> (ServiceId, Incarnation) {
        let id = world.gateway("coder");
        if let Some(service) = world.services.get_mut(&id) {
            service.definition.ready = Ready::GatewayState;
        }
        let policy = Policy { ready: Some(Duration::from_secs(60)), ..Policy::default() };
        world.fleet.redefine(id, policy.into(), Vec::new(), Vec::new(), world.now);
        let life = world.up(id, 77);
        (id, life.n)
    }

    fn says(id: ServiceId, incarnation: Incarnation, running: Result<bool, String>) -> Seen {
        Seen { id, incarnation, watch: None, running }
    }

    fn reported(actions: &Actions) -> Option<Incarnation> {
        actions.iter().find_map(|action| match action {
            Action::Core(_, Event::ReadyReported { incarnation }) => Some(*incarnation),
            _ => None,
        })
    }

    fn looks(actions: &Actions) -> usize {
        actions.iter().filter(|action| matches!(action, Action::Files(_))).count()
    }

    #[test]
    fn a_gateway_is_looked_at_once_and_again_whenever_its_file_changes_until_it_says_that_it_runs() {
        let (mut world, mut readiness) = (World::default(), Readiness::default());
        let (id, n) = awaited(&mut world);
        assert_eq!(looks(&readiness.changed(id, &world.view())), 1);
        assert_eq!(looks(&readiness.changed(id, &world.view())), 0, "it is being looked at");
        assert_eq!(reported(&readiness.seen(says(id, n, Ok(false)), &world.view())), None);
        assert_eq!(looks(&readiness.heard(id, n, Heard::FileChanged, &world.view())), 1);
        let ready = readiness.seen(says(id, n, Ok(true)), &world.view());
        assert_eq!(reported(&ready), Some(n));
        assert!(matches!(ready[0], Action::StopListening(of) if of == id));
        assert!(readiness.seen(says(id, n, Ok(true)), &world.view()).is_empty(), "it is said once");
    }

    #[test]
    fn what_is_seen_of_another_life_counts_for_nothing() {
        let (mut world, mut readiness) = (World::default(), Readiness::default());
        let (id, n) = awaited(&mut world);
        readiness.changed(id, &world.view());
        assert!(readiness.seen(says(id, n + 1, Ok(true)), &world.view()).is_empty());
        readiness.forget(id, &world.view());
        assert!(readiness.seen(says(id, n, Ok(true)), &world.view()).is_empty());
    }

    #[test]
    fn a_file_that_cannot_be_read_is_told_and_looked_at_again() {
        let (mut world, mut readiness) = (World::default(), Readiness::default());
        let (id, n) = awaited(&mut world);
        readiness.changed(id, &world.view());
        let told = readiness.seen(says(id, n, Err("permission denied".to_owned())), &world.view());
        assert!(matches!(&told[0], Action::Log(_, text) if text.ends_with("permission denied")), "{told:?}");
        assert_eq!(looks(&readiness.heard(id, n, Heard::FileChanged, &world.view())), 1);
    }

    #[test]
    fn a_line_on_the_pipe_is_the_report_and_its_end_is_not() {
        let (mut world, mut readiness) = (World::default(), Readiness::default());
        let id = world.gateway("coder");
        let life = world.up(id, 77);
        let closed = readiness.heard(id, life.n, Heard::Closed, &world.view());
        assert_eq!((reported(&closed), closed.len()), (None, 1));
        assert_eq!(reported(&readiness.heard(id, life.n, Heard::Line, &world.view())), Some(life.n));
        assert!(readiness.changed(id, &world.view()).is_empty(), "it has no state file to look at");
    }
}
