//! Stories of scheduled services: the real core, on clocks that stand where the test puts them.

use super::*;
use crate::core::effect::Effect;
use crate::core::event::{Command, Ticket};
use crate::core::exit::Exit;
use crate::core::fleet::FleetEffects;
use crate::core::gateway::Restored;
use crate::core::name::ServiceName;
use crate::core::policy::{Kind, Policy, RestartWhen};
use crate::core::words::State;
use crate::daemon::topics::testing::World;
use crate::definition::resolved::{Definition, Record};
use crate::definition::trust::Trust;

/// 2026-11-29 12:00:00 UTC.
const NOON: i64 = 1_795_953_600;

struct Story {
    world: World,
    schedules: Schedules,
    id: ServiceId,
    /// What the wall clock shows.
    wall: i64,
    /// How often it was started.
    runs: usize,
    told: Vec<String>,
}

impl Story {
    /// A oneshot that is wanted up since noon.
    fn new(schedule: Schedule) -> Self {
        let mut world = World { now: Tick(u64::try_from(NOON).unwrap() * 1000), ..World::default() };
        let id = world.add(definition(schedule, &world));
        let schedules = Schedules { zone: Some(Zone::utc()), ..Schedules::default() };
        let mut story = Self { world, schedules, id, wall: NOON, runs: 0, told: Vec::new() };
        story.command(Command::Start { force: false });
        story
    }

    fn cron(line: &str) -> Self {
        Self::new(Schedule::Cron(line.parse().unwrap()))
    }

    fn every(seconds: u64) -> Self {
        Self::new(Schedule::Every(Duration::from_secs(seconds)))
    }

    fn step(&mut self, event: Event) -> FleetEffects {
        let effects = self.world.step(self.id, event);
        for (_, effect) in &effects {
            match effect {
                Effect::Spawn { .. } => self.runs += 1,
                Effect::Report(incident) => self.told.push(format!("{incident:?}")),
                _ => {}
            }
        }
        let actions = self.schedules.changed(self.id, self.wall, &self.world.view());
        assert!(actions.is_empty());
        effects
    }

    fn command(&mut self, command: Command) {
        let asked = self.step(Event::Command { ticket: Ticket(1), command });
        for (_, effect) in asked {
            if let Effect::Record { seq, .. } = effect {
                self.step(Event::Recorded { seq });
            }
        }
    }

    /// Both clocks go on.
    fn wait(&mut self, seconds: i64) {
        self.world.after(Duration::from_secs(seconds.unsigned_abs()));
        self.wall += seconds;
        self.pass();
    }

    fn pass(&mut self) {
        for action in self.schedules.pass_time(self.wall, &self.world.view()) {
            match action {
                Action::Core(_, event) => drop(self.step(event)),
                Action::Tell(event) => self.told.push(event.to_string()),
                other => panic!("not expected: {other:?}"),
            }
        }
    }

    /// Somebody sets the wall clock.
    fn set_clock(&mut self, wall: i64) {
        self.wall = wall;
        let actions = self.schedules.clock_set(wall, &self.world.view());
        assert!(actions.is_empty());
        self.pass();
    }

    /// Waits for what is due next, and lets it run to its end.
    fn run(&mut self, exit: Exit) {
        let wait = match self.schedules.next(self.id).expect("a next run") {
            Moment::Tick(at) => i64::try_from(at.since(self.world.now).as_secs()).unwrap(),
            Moment::Wall(at) => at - self.wall,
        };
        self.wait(wait);
        self.spawned();
        self.ends(exit);
    }

    fn incarnation(&self) -> u64 {
        self.world.fleet.gateway(self.id).unwrap().history().incarnation
    }

    fn spawned(&mut self) {
        let incarnation = self.incarnation();
        self.step(Event::Spawned { incarnation, pid: 7 });
    }

    fn ends(&mut self, exit: Exit) {
        let incarnation = self.incarnation();
        self.step(Event::MainExited { incarnation, exit });
        self.step(Event::TreeEmpty { incarnation });
        self.step(Event::LogsDrained { incarnation });
    }

    fn state(&self) -> State {
        self.world.view().state(self.id).unwrap()
    }

    /// Of the next run, in seconds after noon.
    fn next(&self) -> Option<i64> {
        self.schedules.next(self.id).map(|next| match next {
            Moment::Tick(at) => i64::try_from(at.0 / 1000).unwrap() - NOON,
            Moment::Wall(at) => at - NOON,
        })
    }

    /// Another supervisor takes over, so many seconds later, with what the database has.
    fn succeeded(mut self, seconds: i64) -> Self {
        let history = self.world.fleet.gateway(self.id).unwrap().history().clone();
        let schedule = self.world.services[&self.id].definition.schedule.clone().unwrap();
        self.wall += seconds;
        let mut next = Self::new((*schedule).clone());
        (next.wall, next.told, next.runs) = (self.wall, Vec::new(), 0);
        next.world.now = Tick(u64::try_from(self.wall).unwrap() * 1000);
        next.schedules = Schedules { zone: Some(Zone::utc()), ..Schedules::default() };
        let restored = Restored { history, ..Restored::at_rest(Want::Up, true) };
        next.world.fleet.boot([(next.id, restored)].into(), next.world.now);
        let actions = next.schedules.boot(next.wall, &next.world.view());
        assert!(actions.is_empty());
        next.pass();
        next
    }
}

fn definition(schedule: Schedule, world: &World) -> Definition {
    let name = ServiceName::new("nightly").unwrap();
    let (argv, env) = (["backup".to_owned()], Default::default());
    let record = Record { name: &name, argv: &argv, env: &env, user: "10000" };
    let trust = Trust::Untrusted("a test".to_owned());
    let mut policy = Policy { kind: Kind::Scheduled, ..Policy::default() };
    policy.restart.when = RestartWhen::Never;
    Definition {
        schedule: Some(Arc::new(schedule)),
        policy: policy.into(),
        ..Definition::from_record(record, &trust, &world.around).unwrap()
    }
}

const DONE: Exit = Exit::Code(0);

#[test]
fn a_line_runs_at_its_times_and_an_interval_after_its_starts() {
    let mut story = Story::cron("*/5 * * * *");
    assert_eq!((story.next(), story.schedules.next_tick(), story.runs), (Some(300), None, 0));
    story.wait(299);
    assert_eq!(story.runs, 0);
    story.run(DONE);
    assert_eq!((story.runs, story.state(), story.next()), (1, State::Finished, Some(600)));
    story.run(Exit::Code(3));
    assert_eq!((story.runs, story.state(), story.next()), (2, State::Failed, Some(900)));
    story.run(DONE);
    assert_eq!((story.runs, story.state()), (3, State::Finished));

    let mut story = Story::every(90);
    assert_eq!((story.next(), story.schedules.next_wall()), (Some(90), None));
    story.run(DONE);
    story.wait(10);
    story.command(Command::Once);
    assert_eq!((story.runs, story.next()), (2, Some(190)), "it counts from the last start");
}

#[test]
fn a_run_that_takes_too_long_is_not_joined_by_another() {
    for mut story in [Story::cron("* * * * *"), Story::every(60)] {
        story.wait(60);
        story.spawned();
        story.wait(60);
        story.wait(60);
        assert_eq!((story.runs, story.state()), (1, State::Up));
        let skipped = "RunSkipped(\"the one before it has not ended\")";
        assert_eq!(story.told, ["RunDue", skipped]);
        story.ends(DONE);
        story.run(DONE);
        assert_eq!((story.runs, story.next()), (2, Some(300)));
        let history = story.world.fleet.gateway(story.id).unwrap().history().clone();
        assert_eq!(history.runs.map(|runs| runs.skipped), Some(2));
    }
}

#[test]
fn nothing_is_due_while_it_is_wanted_down_or_everything_ends() {
    let mut story = Story::every(60);
    story.command(Command::Stop);
    assert_eq!((story.next(), story.schedules.is_empty()), (None, true));
    story.wait(600);
    story.command(Command::Start { force: false });
    assert_eq!((story.runs, story.next()), (0, Some(660)));
    story.world.closing = true;
    story.step(Event::Shutdown { deadline: story.world.now });
    assert_eq!(story.next(), None);
}

#[test]
fn a_changed_schedule_holds_at_once() {
    let mut story = Story::every(60);
    story.run(DONE);
    let id = story.id;
    let service = story.world.services.get_mut(&id).unwrap();
    service.definition.schedule = Some(Arc::new(Schedule::Every(Duration::from_secs(600))));
    story.schedules.changed(id, story.wall, &story.world.view());
    assert_eq!(story.next(), Some(660), "from the last start on");
    story.world.services.get_mut(&id).unwrap().definition.schedule = None;
    story.schedules.changed(id, story.wall, &story.world.view());
    assert_eq!(story.next(), None);
}

/// A laptop that was closed, or a paused container: one job, not as many as there would have been.
#[test]
fn what_nobody_could_run_in_its_time_is_told_and_not_made_up() {
    for mut story in [Story::cron("*/5 * * * *"), Story::every(300)] {
        story.wait(3 * 3600 + 7);
        assert_eq!((story.runs, story.next()), (0, Some(3 * 3600 + 300)));
        assert_eq!(story.told, ["nightly: its run was due 2h 55m 7s ago and is not made up"]);
        story.run(DONE);
        assert_eq!(story.runs, 1);
        // Late, but not too late.
        story.wait(345);
        assert_eq!(story.runs, 2);
    }
}

#[test]
fn a_step_of_the_wall_clock_moves_a_line_and_no_interval() {
    let mut story = Story::cron("0 13 * * *");
    story.set_clock(NOON + 3590);
    assert_eq!((story.runs, story.next()), (0, Some(3600)));
    // Over it, by less than a minute: it runs, once.
    story.set_clock(NOON + 3605);
    assert_eq!((story.runs, story.next()), (1, Some(3600 + 86_400)));
    story.spawned();
    story.ends(DONE);
    story.set_clock(NOON + 3300);
    story.wait(1000);
    assert_eq!(story.runs, 1, "what was set back repeats nothing");
    // To another day, over the next one: that is missed, and told.
    story.set_clock(NOON + 3 * 86_400);
    assert_eq!((story.runs, story.next()), (1, Some(3 * 86_400 + 3600)));
    assert!(
        story.told.last().is_some_and(|told| told.contains("ago and is not made up")),
        "{:?}",
        story.told
    );
    // Back to the first one.
    story.set_clock(NOON - 86_400);
    assert_eq!(story.next(), Some(3600 - 86_400));

    let mut story = Story::every(600);
    story.set_clock(NOON + 86_400);
    assert_eq!((story.runs, story.next()), (0, Some(600)));
    story.wait(600);
    assert_eq!(story.runs, 1);
}

/// A supervisor that is killed, upgraded or comes with another container goes on where the one before it was.
#[test]
fn a_later_supervisor_keeps_the_schedule() {
    let mut story = Story::every(600);
    story.run(DONE);
    let next = story.succeeded(240);
    assert_eq!((next.runs, next.next()), (0, Some(1200)), "from the last start, not from the boot");
    let late = next.succeeded(3 * 3600);
    assert_eq!(
        (late.runs, late.next(), late.told.len()),
        (0, Some(12_000), 0),
        "what was missed is not made up"
    );

    let mut story = Story::cron("*/5 * * * *");
    story.run(DONE);
    let mut next = story.succeeded(320);
    assert_eq!((next.runs, next.next()), (1, Some(900)), "twenty seconds late");
    next.spawned();
    next.ends(Exit::Code(1));
    let last = next.succeeded(10);
    assert_eq!((last.runs, last.next()), (0, Some(900)), "it ran, and once");
    assert_eq!(last.state(), State::Failed);
    assert_eq!(
        Story::cron("*/5 * * * *").succeeded(320).runs,
        0,
        "it has never run: nobody knows since when it waits"
    );
}
