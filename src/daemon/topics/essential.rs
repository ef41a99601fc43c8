//! A service of role `essential` that has failed ends the container, with its exit code.

use crate::core::exit::Exit;
use crate::core::gateway::Gateway;
use crate::core::policy::Role;
use crate::core::words::State;

/// The exit code with which the container ends because of this service; `None`: it does not. Never 0: something has failed.
pub fn ends_with(gateway: &Gateway) -> Option<u8> {
    let failed = gateway.policy().role == Role::Essential && gateway.state() == State::Failed;
    let exit = gateway.history().last_exit.map(|(exit, _)| exit);
    failed.then(|| exit.map_or(1, Exit::shell_code).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::clock::Tick;
    use crate::core::event::Event;
    use crate::core::gateway::{History, Restored};
    use crate::core::policy::{Policy, RestartWhen};
    use crate::core::signal::Signal;
    use crate::core::words::Want;

    /// A service that has ended so once, with `policy = "never"`; `None`: it could not be started.
    fn ended(role: Role, exit: Option<Exit>) -> Gateway {
        let mut policy = Policy { role, ..Policy::default() };
        policy.restart.when = RestartWhen::Never;
        let mut gateway = Gateway::new(policy, 0);
        let history = History::default();
        let restored =
            Restored { want: Want::Up, recorded: true, history, living: None, finished: false, needed: None };
        let _ = gateway.step(Event::Boot(restored), Tick(1));
        let incarnation = gateway.history().incarnation;
        let end = match exit {
            Some(exit) => Event::MainExited { incarnation, exit },
            None => Event::SpawnFailed { incarnation, reason: "no such file".to_owned() },
        };
        let events = [
            Event::Spawned { incarnation, pid: 7 },
            end,
            Event::TreeEmpty { incarnation },
            Event::LogsDrained { incarnation },
        ];
        for event in events.into_iter().skip(usize::from(exit.is_none())) {
            let _ = gateway.step(event, Tick(2));
        }
        gateway
    }

    #[test]
    fn only_an_essential_service_that_has_failed_ends_the_container_and_never_with_success() {
        let killed = Exit::Signal { signal: Signal::KILL, core: false };
        for (role, exit, state, code) in [
            (Role::Essential, Some(Exit::Code(3)), State::Failed, Some(3)),
            (Role::Essential, Some(killed), State::Failed, Some(137)),
            (Role::Essential, None, State::Failed, Some(1)),
            (Role::Essential, Some(Exit::Code(0)), State::Finished, None),
            (Role::Auxiliary, Some(Exit::Code(3)), State::Failed, None),
        ] {
            let gateway = ended(role, exit);
            assert_eq!((gateway.state(), ends_with(&gateway)), (state, code), "{role:?} {exit:?}");
        }
    }
}
