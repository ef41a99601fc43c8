//! Gateways that take over from each other are told apart from gateways that crash, and one of them is given up.

use crate::core::clock::Tick;
use crate::core::event::Event;
use crate::core::fleet::ServiceId;
use crate::core::gateway::Phase;
use crate::daemon::Supervisor;

impl Supervisor {
    /// A gateway ended although nobody had asked it to, after a life since `since`. Of two that fight, the root gateway stays.
    pub(in crate::daemon) fn look_for_a_fight(&mut self, id: ServiceId, since: Tick) {
        let running = |(id, _): (&ServiceId, _)| {
            let gateway = self.fleet.gateway(*id).filter(|gateway| gateway.phase() == Phase::Up)?;
            self.is_gateway(*id).then(|| (*id, gateway.since()))
        };
        let others: Vec<(ServiceId, Tick)> = self.services.iter().filter_map(running).collect();
        let Some(other) = self.topics.fights.ended(id, since, others, self.clock.now()) else { return };
        let root = self.root_gateway();
        // Which of two named ones is left does not matter, as long as it is always the same.
        let (winner, loser) = match (root == Some(id), root == Some(other)) {
            (true, _) => (id, other),
            (_, true) => (other, id),
            _ if self.fleet.name(id) < self.fleet.name(other) => (id, other),
            _ => (other, id),
        };
        let Some(name) = self.fleet.name(winner) else { return };
        let reason = format!("fights with '{name}': each start of the one ended the other");
        // After the end that is being told.
        self.inbox.core(loser, Event::GiveUp { reason });
    }

    pub(in crate::daemon) fn is_gateway(&self, id: ServiceId) -> bool {
        let service = self.services.get(&id);
        service.is_some_and(|service| service.gateway_directory(&self.options.home).is_some())
    }
}
