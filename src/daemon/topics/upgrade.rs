//! When `ctl upgrade` takes place: between two moves.
//!
//! What is being started, ended or recorded comes to its end first, and requests that arrive meanwhile wait. So all that has to
//! be handed over is what stands still: lives that are up, and callers.

use crate::control::protocol::{Event, EventKind, RefusalKind, Request};
use crate::control::server::{ConnId, Incoming};
use crate::core::clock::Tick;
use crate::core::gateway::Stage;
use crate::daemon::act::{Action, Actions};
use crate::daemon::topics::Deadlines;
use crate::daemon::view::View;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// How long what is under way may take to come to its end.
const PATIENCE: Duration = Duration::from_secs(30);

/// An upgrade, if one was asked for.
#[derive(Debug, Default)]
pub struct Upgrade(Option<Asked>);

/// Why a program cannot take our place.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error("our own program cannot be found: {0}")]
    NoOwn(io::Error),
    #[error("{}: {error}", program.display())]
    Unfit { program: PathBuf, error: io::Error },
    /// The next one has only the files to know it by.
    #[error(
        "'{service}' is up and would be ended, because its definition is refused: {why}; correct it first"
    )]
    WouldEnd { service: String, why: String },
    #[error("no thread: {0}")]
    NoThread(io::Error),
}

#[derive(Debug)]
struct Asked {
    by: Incoming,
    /// `None`: it is being looked at.
    program: Option<PathBuf>,
    deadline: Tick,
    /// What was asked since.
    held: Vec<Incoming>,
}

impl Deadlines for Upgrade {
    fn next_deadline(&self) -> Option<Tick> {
        self.0.as_ref().map(|asked| asked.deadline)
    }

    fn postpone(&mut self, by: Duration) {
        if let Some(asked) = &mut self.0 {
            asked.deadline = asked.deadline.after(by);
        }
    }
}

impl Upgrade {
    pub fn is_asked(&self) -> bool {
        self.0.is_some()
    }

    /// Begins one, or says why not.
    pub fn begin(&mut self, incoming: Incoming, view: &View<'_>) -> Actions {
        let Request::Upgrade { program } = &incoming.request else { return Actions::new() };
        let refusal = match view.options.demo {
            _ if view.closing => Some("the supervisor is shutting down"),
            true => Some("a demo is not upgraded: end it and start it again"),
            false => None,
        };
        if let Some(why) = refusal {
            return vec![Action::refuse(incoming.id, RefusalKind::Failed, why)];
        }
        let check = Action::CheckProgram(program.clone());
        let deadline = view.now.after(PATIENCE);
        self.0 = Some(Asked { by: incoming, program: None, deadline, held: Vec::new() });
        vec![check]
    }

    /// The program was looked at.
    pub fn checked(&mut self, checked: Result<PathBuf, CheckError>, _: &View<'_>) -> Actions {
        match (checked, &mut self.0) {
            (Ok(program), Some(asked)) => {
                asked.program = Some(program);
                Actions::new()
            }
            (Err(why), Some(_)) => self.give_up(&why.to_string()),
            (_, None) => Actions::new(),
        }
    }

    /// Takes a request that has to wait for an upgrade; `None`: it need not.
    pub fn hold(&mut self, incoming: &Incoming) -> Option<Actions> {
        let asked = self.0.as_mut()?;
        if let Request::Upgrade { .. } = incoming.request {
            let why = "another upgrade is under way: try again when it is over";
            return Some(vec![Action::refuse(incoming.id, RefusalKind::Failed, why)]);
        }
        asked.held.push(incoming.clone());
        Some(Actions::new())
    }

    /// The caller has gone.
    pub fn caller_is_gone(&mut self, conn: ConnId) {
        if let Some(asked) = &mut self.0 {
            asked.held.retain(|incoming| incoming.id != conn);
        }
    }

    /// The program to become, if everything stands still. `busy`: something else than a service is under way.
    pub fn due(&self, busy: bool, view: &View<'_>) -> Option<PathBuf> {
        let program = self.0.as_ref()?.program.as_ref()?;
        (!view.closing && moving(busy, view).is_none()).then(|| program.clone())
    }

    /// Gives it up where it cannot take place any more, or not in its time.
    pub fn pass_time(&mut self, busy: bool, view: &View<'_>) -> Actions {
        let Some(asked) = &self.0 else { return Actions::new() };
        let late = asked.deadline <= view.now;
        let why = match moving(busy, view) {
            _ if view.closing => Some("the supervisor is shutting down".to_owned()),
            Some(Moving { what, for_ever }) if for_ever || late => {
                Some(format!("{what}: nothing was changed, try again when that is over"))
            }
            None if asked.program.is_none() && late => {
                Some("the program does not say what it is, asked for its --version".to_owned())
            }
            Some(_) | None => None,
        };
        why.map(|why| self.give_up(&why)).unwrap_or_default()
    }

    fn give_up(&mut self, why: &str) -> Actions {
        let Some(asked) = self.0.take() else { return Actions::new() };
        let text = format!("not upgraded: {why}");
        let said = [
            Action::Tell(Event::warning(EventKind::Upgrade, text.clone())),
            Action::refuse(asked.by.id, RefusalKind::Failed, text),
        ];
        said.into_iter().chain(asked.held.into_iter().map(Action::Request)).collect()
    }

    /// Everybody who is owed an answer by the next supervisor.
    pub fn take_callers(&mut self) -> Vec<Incoming> {
        self.0.take().map(|asked| asked.held.into_iter().chain([asked.by]).collect()).unwrap_or_default()
    }
}

/// Something that is under way.
#[derive(Debug, PartialEq, Eq)]
struct Moving {
    what: String,
    /// It will not end by itself.
    for_ever: bool,
}

fn moving(busy: bool, view: &View<'_>) -> Option<Moving> {
    for id in view.fleet.ids() {
        let Some((name, gateway)) = view.name(id).zip(view.fleet.gateway(id)) else { continue };
        if gateway.stage() == Some(Stage::Stuck) {
            return Some(Moving { what: format!("remains of '{name}' cannot be killed"), for_ever: true });
        }
        let by_pipe = view.service(id).is_some_and(|service| service.reports_by_pipe());
        if by_pipe && gateway.may_report() && !gateway.awaits_ready() {
            let what = format!("'{name}' would be ended, because it has not reported that it is ready");
            return Some(Moving { what, for_ever: true });
        }
        if !gateway.is_settled() {
            return Some(Moving { what: format!("'{name}' is {}", gateway.state()), for_ever: false });
        }
    }
    busy.then(|| Moving { what: "other commands are under way".to_owned(), for_ever: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::{Refusal, Reply, Targets};
    use crate::core::event::{self, Command, Ticket};
    use crate::core::gateway::KILL_PATIENCE;
    use crate::core::name::ServiceName;
    use crate::core::policy::Policy;
    use crate::daemon::topics::testing::World;
    use crate::definition::Template;
    use crate::definition::resolved::Ready;
    use crate::definition::template::Profile;
    use crate::sys::peer::Peer;

    fn incoming(slot: u32, request: Request) -> Incoming {
        let peer = Peer { pid: Some(1), uid: 0, gid: 0 };
        Incoming { id: ConnId { slot, generation: 0 }, peer, request }
    }

    fn asked(slot: u32) -> Incoming {
        incoming(slot, Request::Upgrade { program: None })
    }

    fn status(slot: u32) -> Incoming {
        incoming(slot, Request::Status { targets: Targets::All })
    }

    fn refusals(actions: &Actions) -> Vec<(u32, String)> {
        let refused = |action: &Action| match action {
            Action::Reply(conn, Reply::Refused(Refusal { message, .. })) => {
                Some((conn.slot, message.clone()))
            }
            _ => None,
        };
        actions.iter().filter_map(refused).collect()
    }

    fn released(actions: &Actions) -> Vec<u32> {
        let released = |action: &Action| match action {
            Action::Request(incoming) => Some(incoming.id.slot),
            _ => None,
        };
        actions.iter().filter_map(released).collect()
    }

    fn begun(world: &World) -> Upgrade {
        let mut upgrade = Upgrade::default();
        let actions = upgrade.begin(asked(1), &world.view());
        assert!(actions.iter().any(|action| matches!(action, Action::CheckProgram(None))));
        upgrade
    }

    fn ready(world: &World) -> Upgrade {
        let mut upgrade = begun(world);
        assert!(upgrade.checked(Ok("/new".into()), &world.view()).is_empty());
        upgrade
    }

    #[test]
    fn it_takes_place_when_nothing_moves_and_the_program_is_known() {
        let mut world = World::default();
        let id = world.gateway("coder");
        world.up(id, 7);
        let upgrade = begun(&world);
        assert_eq!(upgrade.due(false, &world.view()), None, "it is being looked at");
        let upgrade = ready(&world);
        assert_eq!(upgrade.due(true, &world.view()), None, "somebody waits for an answer");
        assert_eq!(upgrade.due(false, &world.view()), Some("/new".into()));
        world.step(id, event::Event::Command { ticket: Ticket(1), command: Command::Stop });
        assert_eq!(upgrade.due(false, &world.view()), None, "a stop is being recorded");
    }

    #[test]
    fn what_moves_for_too_long_is_named_and_those_who_waited_are_served() {
        let mut world = World::default();
        let id = world.gateway("coder");
        world.up(id, 7);
        let mut upgrade = ready(&world);
        assert!(upgrade.hold(&status(2)).is_some_and(|actions| actions.is_empty()));
        assert!(upgrade.hold(&status(3)).is_some());
        upgrade.caller_is_gone(ConnId { slot: 3, generation: 0 });
        world.step(id, event::Event::Command { ticket: Ticket(1), command: Command::Stop });
        assert!(upgrade.pass_time(false, &world.view()).is_empty());
        world.after(PATIENCE);
        let over = upgrade.pass_time(false, &world.view());
        assert_eq!((refusals(&over).len(), refusals(&over)[0].0), (1, 1));
        assert!(refusals(&over)[0].1.starts_with("not upgraded: 'coder' is "), "{:?}", refusals(&over));
        assert_eq!((released(&over), upgrade.next_deadline()), (vec![2], None));
        assert!(upgrade.hold(&status(4)).is_none(), "nothing is held any more");
    }

    #[test]
    fn remains_that_cannot_be_killed_are_not_waited_for() {
        let mut world = World::default();
        let id = world.gateway("coder");
        world.up(id, 7);
        let mut upgrade = ready(&world);
        world.step(id, event::Event::Command { ticket: Ticket(1), command: Command::Stop });
        world.step(id, event::Event::Recorded { seq: 1 });
        world.step(id, event::Event::KillNow);
        world.after(KILL_PATIENCE);
        world.fleet.pass_time(world.now);
        let over = upgrade.pass_time(false, &world.view());
        assert!(
            refusals(&over)[0].1.contains("remains of 'coder' cannot be killed"),
            "{:?}",
            refusals(&over)
        );
    }

    /// It was begun anew, and with it whatever it had open: nobody was told.
    #[test]
    fn a_service_that_could_not_report_to_the_next_supervisor_is_not_ended() {
        let mut world = World::default();
        let late = ServiceName::new("late").unwrap();
        let template = Template::built_in();
        let mut definition = template.gateway(&late, &Profile::named(&late), &world.around).unwrap();
        definition.ready = Ready::Fd(3);
        let patience = Duration::from_secs(20);
        definition.policy = Policy { ready: Some(patience), ..Policy::default() }.into();
        let id = world.add(definition);
        world.up(id, 7);
        let mut upgrade = ready(&world);
        assert_eq!(upgrade.due(false, &world.view()), None);
        assert!(upgrade.pass_time(false, &world.view()).is_empty(), "it has time left");
        world.after(patience);
        world.fleet.pass_time(world.now);
        assert_eq!(upgrade.due(false, &world.view()), None);
        let over = upgrade.pass_time(false, &world.view());
        assert!(refusals(&over)[0].1.starts_with("not upgraded: 'late' would be ended"), "{over:?}");
    }

    #[test]
    fn what_cannot_be_upgraded_says_so() {
        let mut world = World::default();
        world.options.demo = true;
        let refused =
            |upgrade: &mut Upgrade, world: &World| refusals(&upgrade.begin(asked(1), &world.view()));
        assert!(refused(&mut Upgrade::default(), &world)[0].1.contains("a demo is not upgraded"));
        world.closing = true;
        assert!(refused(&mut Upgrade::default(), &world)[0].1.contains("shutting down"));
        let world = World::default();
        let mut upgrade = begun(&world);
        let second = upgrade.hold(&asked(2)).unwrap_or_default();
        assert_eq!(refusals(&second).first().map(|(conn, _)| *conn), Some(2));
        let unfit = CheckError::Unfit { program: "/new".into(), error: io::Error::other("no such file") };
        let bad = upgrade.checked(Err(unfit), &world.view());
        assert_eq!(refusals(&bad), [(1, "not upgraded: /new: no such file".to_owned())]);
        assert!(upgrade.checked(Ok("/late".into()), &world.view()).is_empty());
    }

    #[test]
    fn a_program_that_says_nothing_and_a_shutdown_end_it() {
        let mut world = World::default();
        let mut upgrade = begun(&world);
        world.after(PATIENCE);
        let over = upgrade.pass_time(false, &world.view());
        assert!(refusals(&over)[0].1.contains("does not say what it is"));
        let mut upgrade = ready(&world);
        world.closing = true;
        assert_eq!(upgrade.due(false, &world.view()), None);
        assert!(refusals(&upgrade.pass_time(false, &world.view()))[0].1.contains("shutting down"));
    }

    #[test]
    fn everybody_who_was_held_is_the_next_supervisors_and_so_is_the_one_who_asked() {
        let world = World::default();
        let mut upgrade = ready(&world);
        assert!(upgrade.hold(&status(2)).is_some());
        let slots: Vec<u32> = upgrade.take_callers().iter().map(|incoming| incoming.id.slot).collect();
        assert_eq!(slots, [2, 1]);
    }
}
