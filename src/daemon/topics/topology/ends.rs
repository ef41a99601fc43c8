//! Ends of gateways that mean something about another one: it serves the profile, is needed for it, or fights with it.

use super::{Topology, named_profile, root_gateway};
use crate::core::clock::Tick;
use crate::core::event::{Event, Incarnation};
use crate::core::exit::Exit;
use crate::core::fleet::ServiceId;
use crate::core::gateway::{Gateway, Phase};
use crate::core::words::Want;
use crate::daemon::Notice;
use crate::daemon::act::{Action, Actions, FileWork};
use crate::daemon::topics::topology::About;
use crate::daemon::view::View;
use crate::definition::template::DEFAULT_PROFILE;
use crate::hermes::topology::{self, Doubt};
use crate::sys::beneath::Beneath;
use crate::sys::credentials::Credentials;
use std::path::PathBuf;
use std::sync::Arc;

impl Topology {
    /// A gateway is about to be judged by its exit code; what that means depends on the root gateway.
    pub fn exited(
        &mut self,
        id: ServiceId,
        incarnation: Incarnation,
        exit: Exit,
        view: &View<'_>,
    ) -> Actions {
        let current =
            |gateway: &&Gateway| gateway.phase() == Phase::Up && gateway.history().incarnation == incarnation;
        let Some(gateway) = view.fleet.gateway(id).filter(current).filter(|_| !view.closing) else {
            return Actions::new();
        };
        let mut actions = Actions::new();
        if is_gateway(id, view) {
            actions.extend(self.look_for_a_fight(id, gateway.since(), view));
        }
        let Some(profile) = named_profile(id, view) else { return actions };
        match topology::doubt(exit, self.root(view), profile.as_str(), self.root_may_be_needed(view)) {
            Some(Doubt::Rescan) => {
                self.asking.insert(id);
                actions.push(self.converse(About::Rescan(Some(id))));
            }
            Some(Doubt::WhyItEnded) => {
                let directory =
                    view.service(id).and_then(|service| service.gateway_directory(&view.options.home));
                let pid = gateway.pid().and_then(|pid| u32::try_from(pid).ok());
                let Some((pid, directory)) = pid.zip(directory) else { return actions };
                self.asking.insert(id);
                actions.push(look_why_it_ended(id, pid, directory, view));
            }
            None => return actions,
        }
        actions.extend(self.place_of(id, &profile, view).map(|place| Action::Place(id, place)));
        actions
    }

    /// Nobody wants it, and nothing speaks against it.
    fn root_may_be_needed(&self, view: &View<'_>) -> bool {
        let root = root_gateway(view).and_then(|id| view.fleet.gateway(id));
        root.is_some_and(|gateway| gateway.want() == Want::Down && gateway.phase() == Phase::Down)
            && !self.fold_refused
    }

    /// Whether a gateway that ended with 78 had begun to work.
    pub fn ended(&mut self, id: ServiceId, began: bool, view: &View<'_>) -> Actions {
        if !self.asking.remove(&id) {
            return Actions::new();
        }
        self.moved = true;
        let Some(name) = view.name(id).filter(|_| !began && self.root_may_be_needed(view)) else {
            return Actions::new();
        };
        let text = format!(
            "{name}: this version of Hermes has one gateway for all profiles: '{DEFAULT_PROFILE}' is started for it"
        );
        self.folded.insert(id);
        std::iter::once(Action::Log(slog::Level::Info, text)).chain(self.settle_need(view)).collect()
    }

    /// What the status of a gateway says beside its state: why no other one serves it.
    pub fn unserved(&self, id: ServiceId, view: &View<'_>) -> Option<String> {
        let gateway = view.fleet.gateway(id)?;
        let profile = named_profile(id, view).filter(|_| gateway.phase() == Phase::Failed)?;
        let (exit, _) = gateway.history().last_exit?;
        topology::unserved(exit, self.root(view), profile.as_str())
    }

    /// A gateway ended although nobody had asked it to, after a life since `since`. Gateways that take over from each other are
    /// told apart from gateways that crash, and one of them is given up; of two that fight, the root gateway stays.
    fn look_for_a_fight(&mut self, id: ServiceId, since: Tick, view: &View<'_>) -> Option<Action> {
        let running = |id: &ServiceId| {
            let gateway = view.fleet.gateway(*id).filter(|gateway| gateway.phase() == Phase::Up)?;
            is_gateway(*id, view).then(|| (*id, gateway.since()))
        };
        let others: Vec<(ServiceId, Tick)> = view.services.keys().filter_map(running).collect();
        let other = self.fights.ended(id, since, others, view.now)?;
        let root = root_gateway(view);
        // Which of two named ones is left does not matter, as long as it is always the same.
        let (winner, loser) = match (root == Some(id), root == Some(other)) {
            (true, _) => (id, other),
            (_, true) => (other, id),
            _ if view.name(id) < view.name(other) => (id, other),
            _ => (other, id),
        };
        let name = view.name(winner)?;
        let reason = format!("fights with '{name}': each start of the one ended the other");
        // After the end that is being told.
        Some(Action::Core(loser, Event::GiveUp { reason }))
    }
}

fn is_gateway(id: ServiceId, view: &View<'_>) -> bool {
    view.service(id).is_some_and(|service| service.gateway_directory(&view.options.home).is_some())
}

fn look_why_it_ended(id: ServiceId, pid: u32, directory: PathBuf, view: &View<'_>) -> Action {
    let (home, user) = (view.options.home.clone(), view.around.gateway.credentials());
    let work = move || topology::wrote_state(&Beneath::open(&home)?, &user, &directory, pid);
    let told = move |began| Notice::GatewayEnded { id, began };
    Action::Files(FileWork {
        credentials: Credentials::own(),
        work: Box::new(move || told(work().unwrap_or(true))),
        refused: Arc::new(move |_| told(true)),
    })
}
