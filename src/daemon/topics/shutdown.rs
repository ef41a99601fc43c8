//! The end of everything, within one budget: services in reverse order, then whatever children are left.
//!
//! A shutdown that only gives way to another container ends the services and leaves the main program alone. It becomes a whole
//! one when somebody asks for that meanwhile.

use crate::control::protocol::{Event, EventKind};
use crate::core::clock::Tick;
use crate::core::farewell::Farewell;
use crate::core::signal::Signal;
use crate::daemon::act::{Action, Actions};
use crate::daemon::topics::Deadlines;
use crate::daemon::view::View;
use std::time::Duration;

/// How long children that belong to nobody may take to obey, once all services are gone.
const ORPHAN_GRACE: Duration = Duration::from_millis(500);
/// After the budget: how long what was killed may take to vanish before we end without it (a process in D state).
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// A shutdown, if one is under way.
#[derive(Debug, Default)]
pub struct Shutdown(Option<Closing>);

#[derive(Debug)]
struct Closing {
    deadline: Tick,
    /// Asked for, or an essential service's: wins over the main program's.
    code: Option<u8>,
    /// The main program's, if it ended by itself.
    main_code: Option<u8>,
    /// Children exist that have not been reaped.
    children_left: bool,
    orphans: Orphans,
    /// The budget is over, or a second signal came.
    hurried: bool,
    /// Only of the services: another container takes the state over, and the main program goes on here.
    gives_way: bool,
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
    /// There are none. The kernel ends all other children with us.
    Absent,
}

/// How it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With this exit code. `left`: processes do not die, and nobody waits for them any longer.
    Exit { code: u8, left: bool },
    /// The services have ended, and the main program goes on.
    GivenWay { left: bool },
}

impl Deadlines for Shutdown {
    fn next_deadline(&self) -> Option<Tick> {
        let closing = self.0.as_ref()?;
        match closing.orphans {
            Orphans::Asked { until } => Some(until),
            Orphans::Spared if !closing.hurried => Some(closing.deadline),
            Orphans::Spared | Orphans::Killed | Orphans::Absent => {
                Some(closing.deadline.after(LAST_PATIENCE))
            }
        }
    }

    fn postpone(&mut self, by: Duration) {
        let Some(closing) = &mut self.0 else { return };
        closing.deadline = closing.deadline.after(by);
        if let Orphans::Asked { until } = &mut closing.orphans {
            *until = until.after(by);
        }
    }
}

impl Shutdown {
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// It has begun with the whole, not only with the services for another container.
    fn is_whole(&self) -> bool {
        self.0.as_ref().is_some_and(|closing| !closing.gives_way)
    }

    /// The exit code that was asked for, and that of the main program if it ended by itself. `None`: the container goes on.
    pub fn codes(&self) -> Option<(Option<u8>, Option<u8>)> {
        let closing = self.0.as_ref().filter(|closing| !closing.gives_way)?;
        Some((closing.code, closing.main_code))
    }

    /// What may be left to the kernel, since it ends the container.
    pub fn farewell(&self) -> Farewell {
        self.0.as_ref().map_or(Farewell::Host, |closing| closing.farewell)
    }

    /// Whether children are left that have not been reaped.
    pub fn children(&mut self, left: bool) {
        if let Some(closing) = &mut self.0 {
            closing.children_left = left;
        }
    }

    /// No child belongs to nobody, and the kernel ends what else there is with us: nothing is waited for any longer.
    pub fn no_orphans(&mut self) {
        if let Some(closing) = &mut self.0 {
            closing.orphans = Orphans::Absent;
        }
    }

    pub fn has_children(&self) -> bool {
        self.0.as_ref().is_some_and(|closing| closing.children_left)
    }

    /// Begins to end everything, with this exit code if it is asked for. `farewell`: what may be left to the kernel.
    pub fn begin(&mut self, code: Option<u8>, farewell: Farewell, view: &View<'_>) -> Actions {
        match &mut self.0 {
            // The services are on their way down already, within their budget.
            Some(closing) if closing.gives_way => {
                (closing.gives_way, closing.code) = (false, code);
                ask_main_to_end()
            }
            Some(closing) => {
                closing.code = closing.code.or(code);
                Actions::new()
            }
            None => {
                let ask = ask_main_to_end();
                ask.into_iter().chain(self.end_services(code, false, farewell, view)).collect()
            }
        }
    }

    /// Ends the services for another container, which takes the state over.
    pub fn give_way(&mut self, view: &View<'_>) -> Actions {
        if self.is_on() { Actions::new() } else { self.end_services(None, true, Farewell::Host, view) }
    }

    /// A signal that asks us to end: the first asks everybody, the second kills.
    pub fn signalled(&mut self, code: Option<u8>, farewell: Farewell, view: &View<'_>) -> Actions {
        if self.is_whole() { self.hurry(view) } else { self.begin(code, farewell, view) }
    }

    /// Whether the next signal is the first.
    pub fn is_first_signal(&self) -> bool {
        !self.is_whole()
    }

    /// The main program ended by itself, or after our signal.
    pub fn main_ended(&mut self, code: u8, farewell: Farewell, view: &View<'_>) -> Actions {
        if self.is_whole() {
            return Actions::new();
        }
        let actions = self.begin(None, farewell, view);
        if let Some(closing) = &mut self.0 {
            closing.main_code = Some(code);
        }
        actions
    }

    /// Our former self had begun one; its budget begins anew.
    pub fn resume(
        &mut self,
        (code, main_code): (Option<u8>, Option<u8>),
        farewell: Farewell,
        view: &View<'_>,
    ) -> Actions {
        let actions = self.begin(code, farewell, view);
        if let Some(closing) = &mut self.0 {
            closing.main_code = main_code;
        }
        actions
    }

    fn end_services(
        &mut self,
        code: Option<u8>,
        gives_way: bool,
        farewell: Farewell,
        view: &View<'_>,
    ) -> Actions {
        let deadline = view.now.after(view.options.stop_budget);
        self.0 = Some(Closing {
            deadline,
            code,
            main_code: None,
            children_left: true,
            orphans: Orphans::Spared,
            hurried: false,
            gives_way,
            farewell,
        });
        vec![Action::EndServices { deadline, farewell }]
    }

    fn hurry(&mut self, view: &View<'_>) -> Actions {
        let Some(closing) = &mut self.0 else { return Actions::new() };
        closing.hurried = true;
        closing.deadline = closing.deadline.min(view.now);
        let main = (!closing.gives_way).then_some(Action::MainProgram(Signal::KILL));
        main.into_iter().chain([Action::KillServices]).collect()
    }

    /// Takes the shutdown as far as it goes now. `main`: the main program runs.
    pub fn pass_time(&mut self, main: bool, view: &View<'_>) -> Actions {
        let mut actions = Actions::new();
        let Some(closing) = &mut self.0 else { return actions };
        if closing.deadline <= view.now && !closing.hurried {
            let late = view.fleet.ids().filter_map(|id| view.name(id).zip(view.fleet.gateway(id)));
            actions.extend(late.filter(|(_, gateway)| gateway.has_tree()).map(|(name, _)| {
                let text = "used up the stop budget and is killed";
                Action::Tell(Event::warning(EventKind::Killed, text).about(name))
            }));
            actions.extend(self.hurry(view));
        }
        let over = view.fleet.is_empty_handed() && !main;
        let Some(closing) = self.0.as_mut().filter(|closing| !closing.gives_way && over) else {
            return actions;
        };
        match closing.orphans {
            Orphans::Spared => {
                let until = view.now.after(ORPHAN_GRACE).min(closing.deadline.max(view.now));
                closing.orphans = Orphans::Asked { until };
                actions.push(Action::Orphans(Signal::TERM));
            }
            Orphans::Asked { until } if until <= view.now => {
                closing.orphans = Orphans::Killed;
                actions.push(Action::Orphans(Signal::KILL));
            }
            Orphans::Asked { .. } | Orphans::Absent => {}
            // A killed one's children fall to us: they are killed as they appear.
            Orphans::Killed => actions.push(Action::Orphans(Signal::KILL)),
        }
        actions
    }

    /// How it ends, once everything has ended or the last patience is over. `main`: the main program runs.
    pub fn end(&self, main: bool, view: &View<'_>) -> Option<End> {
        let closing = self.0.as_ref()?;
        let services = view.fleet.is_empty_handed();
        let waits = closing.children_left && closing.orphans != Orphans::Absent;
        let over = services && (closing.gives_way || (!main && !waits));
        let enough = closing.deadline.after(LAST_PATIENCE) <= view.now;
        let left = !over;
        let end = || match closing.gives_way {
            true => End::GivenWay { left },
            false => End::Exit { code: closing.code.or(closing.main_code).unwrap_or(0), left },
        };
        (over || enough).then(end)
    }
}

/// A stopped one would not hear it.
fn ask_main_to_end() -> Actions {
    vec![Action::MainProgram(Signal::TERM), Action::MainProgram(Signal::CONT)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::event;
    use crate::core::exit::Exit;
    use crate::daemon::topics::testing::World;

    const BUDGET: Duration = Duration::from_secs(9);

    fn begun(world: &World) -> Shutdown {
        let mut shutdown = Shutdown::default();
        shutdown.begin(None, Farewell::Host, &world.view());
        shutdown
    }

    /// What is done, without the words.
    fn done(actions: &Actions) -> Vec<String> {
        let word = |action: &Action| match action {
            Action::MainProgram(signal) => Some(format!("main {signal}")),
            Action::EndServices { .. } => Some("end services".to_owned()),
            Action::KillServices => Some("kill services".to_owned()),
            Action::Orphans(signal) => Some(format!("orphans {signal}")),
            _ => None,
        };
        actions.iter().filter_map(word).collect()
    }

    fn killed(world: &mut World, id: crate::core::fleet::ServiceId, n: u64) {
        let exit = Exit::Signal { signal: Signal::KILL, core: false };
        world.step(id, event::Event::MainExited { incarnation: n, exit });
        world.step(id, event::Event::TreeEmpty { incarnation: n });
        world.step(id, event::Event::LogsDrained { incarnation: n });
    }

    #[test]
    fn everybody_is_asked_then_killed_when_the_budget_is_over_and_the_rest_is_not_waited_for() {
        let mut world = World::default();
        let id = world.gateway("coder");
        world.up(id, 7);
        let mut shutdown = Shutdown::default();
        let actions = shutdown.begin(None, Farewell::Host, &world.view());
        assert_eq!(done(&actions), ["main SIGTERM", "main SIGCONT", "end services"]);
        assert_eq!(shutdown.next_deadline(), Some(world.now.after(BUDGET)));
        assert!(done(&shutdown.pass_time(true, &world.view())).is_empty());
        world.after(BUDGET);
        let late = shutdown.pass_time(true, &world.view());
        assert!(
            matches!(&late[0], Action::Tell(event) if event.to_string() == "coder: used up the stop budget and is killed")
        );
        assert_eq!(done(&late), ["main SIGKILL", "kill services"]);
        assert_eq!(shutdown.end(true, &world.view()), None);
        world.after(LAST_PATIENCE);
        assert_eq!(shutdown.end(true, &world.view()), Some(End::Exit { code: 0, left: true }));
    }

    #[test]
    fn children_that_belong_to_nobody_are_asked_and_killed_when_all_services_are_gone() {
        let mut world = World::default();
        let id = world.gateway("coder");
        let life = world.up(id, 7);
        let mut shutdown = begun(&world);
        let deadline = world.now.after(BUDGET);
        world.fleet.shutdown(deadline, world.now);
        assert!(done(&shutdown.pass_time(false, &world.view())).is_empty(), "services come first");
        killed(&mut world, id, life.n);
        assert!(done(&shutdown.pass_time(true, &world.view())).is_empty(), "so does the main program");
        assert_eq!(done(&shutdown.pass_time(false, &world.view())), ["orphans SIGTERM"]);
        world.after(ORPHAN_GRACE);
        assert_eq!(done(&shutdown.pass_time(false, &world.view())), ["orphans SIGKILL"]);
        // What falls to us from those.
        assert_eq!(done(&shutdown.pass_time(false, &world.view())), ["orphans SIGKILL"]);
        assert_eq!(shutdown.end(false, &world.view()), None);
        shutdown.children(false);
        assert_eq!(shutdown.end(false, &world.view()), Some(End::Exit { code: 0, left: false }));
    }

    #[test]
    fn what_the_kernel_ends_with_us_is_not_waited_for() {
        let world = World::default();
        let mut shutdown = begun(&world);
        assert_eq!(done(&shutdown.pass_time(false, &world.view())), ["orphans SIGTERM"]);
        shutdown.children(true);
        assert_eq!(shutdown.end(false, &world.view()), None);
        shutdown.no_orphans();
        assert_eq!(shutdown.end(true, &world.view()), None, "the main program runs");
        assert_eq!(shutdown.end(false, &world.view()), Some(End::Exit { code: 0, left: false }));
        assert!(done(&shutdown.pass_time(false, &world.view())).is_empty());
    }

    #[test]
    fn a_second_signal_kills_and_a_second_order_does_not() {
        let world = World::default();
        let mut shutdown = Shutdown::default();
        assert!(shutdown.is_first_signal());
        shutdown.signalled(None, Farewell::Host, &world.view());
        assert!(shutdown.begin(None, Farewell::Host, &world.view()).is_empty());
        assert!(!shutdown.is_first_signal());
        let actions = shutdown.signalled(None, Farewell::Host, &world.view());
        assert_eq!(done(&actions), ["main SIGKILL", "kill services"]);
    }

    #[test]
    fn the_code_that_was_asked_for_wins_over_the_main_programs_and_the_first_over_the_second() {
        let world = World::default();
        let end = |shutdown: &mut Shutdown| {
            shutdown.children(false);
            shutdown.end(false, &world.view())
        };
        let code = |code| Some(End::Exit { code, left: false });
        let mut by_main = Shutdown::default();
        by_main.main_ended(3, Farewell::Host, &world.view());
        assert_eq!((end(&mut by_main), by_main.codes()), (code(3), Some((None, Some(3)))));
        by_main.begin(Some(7), Farewell::Host, &world.view());
        assert_eq!(end(&mut by_main), code(7));
        by_main.begin(Some(8), Farewell::Host, &world.view());
        assert_eq!(end(&mut by_main), code(7));
        // It ended because we asked it to.
        let mut asked = begun(&world);
        asked.main_ended(143, Farewell::Host, &world.view());
        assert_eq!(end(&mut asked), code(0));
        let mut resumed = Shutdown::default();
        resumed.resume((None, Some(4)), Farewell::Host, &world.view());
        assert_eq!(end(&mut resumed), code(4));
    }

    /// Another container takes the state over: the services end, the main program is left alone. Unless it ends meanwhile, or
    /// somebody stops the container.
    #[test]
    fn a_container_that_gives_way_goes_on_unless_it_is_to_end_as_well() {
        let mut world = World::default();
        let id = world.gateway("coder");
        let life = world.up(id, 7);
        let mut shutdown = Shutdown::default();
        assert_eq!(done(&shutdown.give_way(&world.view())), ["end services"]);
        assert!(shutdown.give_way(&world.view()).is_empty(), "it is at it");
        assert_eq!(shutdown.codes(), None);
        world.after(BUDGET);
        assert_eq!(done(&shutdown.pass_time(true, &world.view())), ["kill services"], "not the main program");
        world.fleet.shutdown(world.now, world.now);
        killed(&mut world, id, life.n);
        assert_eq!(shutdown.end(true, &world.view()), Some(End::GivenWay { left: false }));
        let ends = shutdown.signalled(Some(143), Farewell::Host, &world.view());
        assert_eq!(done(&ends), ["main SIGTERM", "main SIGCONT"]);
        shutdown.children(false);
        assert_eq!(shutdown.end(false, &world.view()), Some(End::Exit { code: 143, left: false }));
    }

    #[test]
    fn time_that_was_lost_is_added_to_the_budget() {
        let mut world = World::default();
        let mut shutdown = begun(&world);
        shutdown.postpone(Duration::from_secs(60));
        world.after(BUDGET + LAST_PATIENCE);
        assert_eq!(done(&shutdown.pass_time(true, &world.view())), Vec::<String>::new());
        assert_eq!(shutdown.end(true, &world.view()), None);
    }
}
