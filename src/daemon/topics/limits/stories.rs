//! Limits, as stories: what callers hear, what is recorded, and what the log has of it.

use super::*;
use crate::control::protocol::{Code, Outcome};
use crate::core::event::{Command, Event, Ticket};
use crate::daemon::Commit;
use crate::daemon::topics::testing::{GATEWAY_UID, World};
use crate::definition::resolved::Hooks;
use crate::store::Change;

const OURS: Inherited = Inherited { nofile: 1024, nproc: u64::MAX, core: 0, oom_score_adj: 0 };

fn limits(pairs: &[(Key, &str)]) -> Limits {
    pairs.iter().map(|(key, text)| (*key, key.parse(text).unwrap())).collect()
}

/// One gateway, `coder`, whose definition gives it 64 processes.
struct Story {
    world: World,
    limits: ServiceLimits,
    id: ServiceId,
    /// What the containment cannot put into force.
    refuses: Vec<Key>,
    /// Why nothing can be put on disk.
    disk_fails: Option<&'static str>,
    /// The text of each answer, behind its code where it is a failure.
    answers: Vec<String>,
    log: Vec<String>,
    /// What was put on disk; nothing: the row is gone.
    rows: Vec<Option<BTreeMap<String, String>>>,
    done: Vec<String>,
}

impl Default for Story {
    fn default() -> Self {
        let mut world = World::default();
        let id = world.gateway("coder");
        world.services.get_mut(&id).unwrap().definition.limits = limits(&[(Key::PidsMax, "64")]);
        Self {
            world,
            limits: ServiceLimits::default(),
            id,
            refuses: Vec::new(),
            disk_fails: None,
            answers: Vec::new(),
            log: Vec::new(),
            rows: Vec::new(),
            done: Vec::new(),
        }
    }
}

impl Story {
    /// Runs, within the limits that a start gets now.
    fn running() -> (Self, IncarnationId) {
        let mut story = Self::default();
        let life = story.start();
        (story, life)
    }

    fn start(&mut self) -> IncarnationId {
        let life = self.world.up(self.id, 77);
        self.world.trees.held.insert(life.clone());
        let (asked, refused) = self.at_start();
        let said = self.limits.begun(self.id, asked, refused, &self.world.view());
        self.act(said);
        life
    }

    fn at_start(&self) -> (Limits, Vec<NotInForce>) {
        self.limits.of(&self.world.services[&self.id], &self.world.trust, || OURS)
    }

    fn set(&mut self, uid: u32, pairs: &[(&str, &str)], persist: bool) {
        let limits = pairs.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
        let asked = Asked { ticket: Ticket(1), id: self.id, uid, limits, persist };
        let actions = self.limits.set(&asked, &OURS, &self.world.view());
        self.act(actions);
    }

    fn act(&mut self, actions: Actions) {
        for action in actions {
            match action {
                Action::Answer(_, Outcome { ok: true, message, .. }) => self.answers.extend(message),
                Action::Answer(_, Outcome { code, message, .. }) => {
                    self.answers.push(format!("[{:?}] {}", code, message.unwrap()));
                }
                Action::Tell(event) => self.log.push(event.to_string()),
                Action::Log(_, text) => self.log.push(text),
                Action::Commit(Commit::Limits(setting), changes) => {
                    for change in changes {
                        let Change::Limits(_, row) = change else { panic!("not expected: {change:?}") };
                        self.rows.push(row.map(|row| row.limits));
                    }
                    let error = self.disk_fails.map(str::to_owned);
                    let told = self.limits.recorded(*setting, error, &self.world.view());
                    self.act(told);
                }
                Action::PutLimits(life, in_force) => {
                    let no_luck = |(key, value)| NotInForce { key, value, why: "no such luck".to_owned() };
                    let refused = in_force.now().iter().filter(|(key, _)| self.refuses.contains(key));
                    let left: Vec<NotInForce> = refused.map(no_luck).collect();
                    let told = self.limits.put(&life, &in_force, &left, &self.world.view());
                    self.act(told);
                }
                Action::EndForOom(life) => self.done.push(format!("end {}", life.name)),
                Action::RunMemoryHigh { argv, .. } => {
                    self.done.push(format!("{MEMORY_HIGH}: {}", argv.join(" ")))
                }
                Action::ReadProcessLimits(life, pid) => self.done.push(format!("read {} {pid}", life.name)),
                other => panic!("not expected: {other:?}"),
            }
        }
    }

    fn hears(&mut self, expected: &[&str]) {
        assert_eq!(std::mem::take(&mut self.answers), expected);
    }

    fn logged(&mut self, expected: &[&str]) {
        assert_eq!(std::mem::take(&mut self.log), expected);
    }

    fn shown(&self) -> Vec<String> {
        let (held, left) = self.limits.shown(self.id);
        held.into_iter().map(|(key, value)| format!("{key}={value}")).chain(left).collect()
    }
}

#[test]
fn what_is_set_holds_at_once_and_the_next_start_has_the_definitions_again() {
    let (mut story, _) = Story::running();
    story.set(GATEWAY_UID, &[("pids_max", "16")], false);
    story.hears(&["pids_max=16"]);
    story.logged(&["coder: limits are set by uid 10000: pids_max=16"]);
    assert_eq!(story.shown(), ["pids_max=16"]);
    assert!(story.rows.is_empty());
    story.start();
    assert_eq!(story.shown(), ["pids_max=64"]);
}

#[test]
fn what_is_to_last_is_recorded_first_and_the_next_start_has_it() {
    let (mut story, _) = Story::running();
    story.set(0, &[("memory_max", "1G"), ("nofile", "512")], true);
    story.hears(&["memory_max=1G; nofile=512 from its next start on"]);
    assert_eq!(story.rows.len(), 1);
    story.start();
    assert_eq!(story.shown(), ["memory_max=1G", "nofile=512", "pids_max=64"]);
    // A key goes back to what the definition says; of nothing no row is left.
    story.set(0, &[("memory_max", "default"), ("nofile", "default")], true);
    assert_eq!(story.rows.last(), Some(&None));
    story.start();
    assert_eq!(story.shown(), ["pids_max=64"]);
}

#[test]
fn what_cannot_be_recorded_is_not_set() {
    let (mut story, _) = Story::running();
    story.disk_fails = Some("no space left on device");
    story.set(0, &[("pids_max", "16")], true);
    story.hears(&[
        "[Failed] 'coder': limits are not set, because they are not recorded: no space left on device",
    ]);
    assert_eq!(story.shown(), ["pids_max=64"]);
    story.start();
    assert_eq!(story.shown(), ["pids_max=64"]);
}

#[test]
fn only_root_raises_a_limit_whoever_has_set_it() {
    let (mut story, _) = Story::running();
    story.set(0, &[("pids_max", "16")], false);
    story.hears(&["pids_max=16"]);
    story.set(GATEWAY_UID, &[("pids_max", "17")], false);
    story.hears(&[
        "[NotPermitted] not permitted to give 'coder' more than pids_max=16: you are uid 10000, and only root may raise a \
         limit",
    ]);
    story.set(GATEWAY_UID, &[("pids_max", "default")], false);
    assert!(story.answers[0].starts_with("[NotPermitted] "), "{:?}", story.answers);
    story.answers.clear();
    story.set(0, &[("pids_max", "max")], false);
    story.hears(&["pids_max=max"]);
    // What it would have at its next start is not raised either.
    story.set(GATEWAY_UID, &[("pids_max", "65")], true);
    assert!(story.answers[0].starts_with("[NotPermitted] "), "{:?}", story.answers);
}

/// The first is not in force yet when the second is asked: it counts all the same.
#[test]
fn a_limit_that_is_being_lowered_is_not_raised_again_meanwhile() {
    let (mut story, _) = Story::running();
    let asked = |uid, text: &str| Asked {
        ticket: Ticket(1),
        id: story.id,
        uid,
        limits: [("pids_max".to_owned(), text.to_owned())].into(),
        persist: false,
    };
    let (first, second) = (asked(0, "8"), asked(GATEWAY_UID, "64"));
    drop(story.limits.set(&first, &OURS, &story.world.view()));
    let refused = story.limits.set(&second, &OURS, &story.world.view());
    story.act(refused);
    assert!(story.answers[0].starts_with("[NotPermitted] "), "{:?}", story.answers);
}

#[test]
fn what_makes_no_sense_is_refused_and_says_what_would() {
    let mut story = Story::default();
    story.set(0, &[("pids_max", "16")], false);
    story.hears(&["[Failed] 'coder': it is not running; add --persist to set it for its starts"]);
    story.start();
    story.set(0, &[], false);
    story.hears(&["[Failed] 'coder': nothing to set; write KEY=VALUE"]);
    story.set(0, &[("nofile", "16")], false);
    story.hears(&["[Failed] 'coder': nofile holds from a start on; add --persist, then restart it"]);
    story.set(0, &[("oom_score_adj", "most")], true);
    story.hears(&["[Failed] 'coder': oom_score_adj: 'most' is not an adjustment; allowed: -1000 to 1000"]);
    story.set(0, &[("colour", "red")], false);
    assert!(
        story.answers[0].starts_with("[Failed] 'coder': there is no limit 'colour'; allowed: memory_max, ")
    );
}

/// Who can put another database into the place of ours gives nobody more than a definition does.
#[test]
fn a_record_that_could_be_anybodys_gives_no_more_than_the_definition() {
    let (mut story, _) = Story::running();
    story.set(0, &[("pids_max", "128"), ("memory_max", "1G")], true);
    story.answers.clear();
    story.world.trust = Trust::Untrusted("the gateway user owns it".to_owned());
    story.set(0, &[("pids_max", "256")], true);
    assert!(
        story.answers[0].starts_with("[Failed] 'coder': pids_max cannot be recorded above"),
        "{:?}",
        story.answers
    );
    story.log.clear();
    story.start();
    let line = "pids_max=128 is not in force: it was set, and would give more than the definition; the gateway user owns it";
    assert_eq!(story.shown(), ["memory_max=1G", "pids_max=64", line]);
    story.logged(&[&format!("coder: {line}")]);
    story.start();
    story.logged(&[]);
}

#[test]
fn what_the_kernel_does_not_take_is_told_and_changes_nothing() {
    let (mut story, _) = Story::running();
    story.refuses = vec![Key::PidsMax];
    story.set(0, &[("pids_max", "16"), ("memory_max", "1G")], false);
    story.hears(&["memory_max=1G; pids_max=16 is not in force: no such luck"]);
    // That it did not hold was shown as long as the service ran, in the place of what it had.
    assert_eq!(story.shown(), ["memory_max=1G", "pids_max=64"]);
    story.set(0, &[("pids_max", "17")], false);
    story.hears(&["[Failed] 'coder': pids_max=17 is not in force: no such luck"]);
    assert_eq!(story.shown(), ["memory_max=1G", "pids_max=64"]);
    story.set(0, &[("memory_high", "1G")], false);
    story.refuses.push(Key::MemoryHigh);
    story.set(0, &[("memory_high", "2G")], false);
    assert_eq!(story.shown(), ["memory_high=1G", "memory_max=1G", "pids_max=64"]);
    // On record it holds from the next start on, if the kernel takes it then.
    story.set(0, &[("memory_high", "3G")], true);
    let not_now = "memory_high=3G is not in force: no such luck";
    assert_eq!(story.shown(), ["memory_max=1G", "pids_max=64", not_now]);
    story.refuses.clear();
    story.set(0, &[("pids_max", "18")], false);
    assert_eq!(story.shown(), ["memory_max=1G", "pids_max=18", not_now]);
}

#[test]
fn of_two_that_are_on_their_way_the_second_knows_the_first() {
    let name = ServiceName::new("a").unwrap();
    let (first, second) =
        (limits(&[(Key::PidsMax, "5")]), limits(&[(Key::PidsMax, "5"), (Key::Oom, "service")]));
    let mut recorded = Recorded::default();
    recorded.pending.insert(name.clone(), first.clone());
    assert_eq!(recorded.newest(&name), first);
    recorded.pending.insert(name.clone(), second.clone());
    recorded.keep(&name, first);
    assert_eq!(recorded.newest(&name), second, "what is newer is still on its way");
    recorded.keep(&name, second.clone());
    assert!(recorded.pending.is_empty() && recorded.on_disk[&name] == second);
    recorded.forget(&name);
    assert!(recorded.newest(&name).is_empty());
}

#[test]
fn what_a_process_does_not_have_is_told_with_what_it_has() {
    let asked =
        limits(&[(Key::Nofile, "1024"), (Key::Nproc, "max"), (Key::Core, "0"), (Key::MemoryMax, "1G")]);
    assert_eq!(missed(&asked, &OURS), []);
    let (mut story, life) = Story::running();
    let said = story.limits.spawned(&life, 77, &story.world.view());
    assert!(said.is_empty(), "it has none that a process bears");
    let asked = limits(&[(Key::Nofile, "4096"), (Key::OomScoreAdj, "-5")]);
    story.limits.begun(story.id, asked, Vec::new(), &story.world.view());
    let read = story.limits.spawned(&life, 77, &story.world.view());
    story.act(read);
    assert_eq!(story.done, ["read coder 77"]);
    let said = story.limits.read(&life, &OURS, &story.world.view());
    story.act(said);
    let lines = [
        "nofile=4096 is not in force: it is 1024; to go beyond that takes CAP_SYS_RESOURCE",
        "oom_score_adj=-5 is not in force: it is 0; to go below that takes CAP_SYS_RESOURCE",
    ];
    assert_eq!(story.shown(), lines);
    let other = IncarnationId { n: life.n + 1, ..life };
    assert!(story.limits.read(&other, &OURS, &story.world.view()).is_empty(), "that is another life");
}

#[test]
fn an_oom_kill_is_told_and_ends_the_service_only_where_that_is_asked_for() {
    let (mut story, life) = Story::running();
    let own = Shortage::MemoryMax(48 << 20);
    for (main, policy, ends) in [(true, "process", 0), (false, "process", 0), (false, "service", 1)] {
        story.limits.begun(story.id, limits(&[(Key::Oom, policy)]), Vec::new(), &story.world.view());
        let told = story.limits.oom_killed(&life, 3, main, own, &story.world.view());
        story.act(told);
        assert_eq!(std::mem::take(&mut story.done).len(), ends, "{main} {policy}");
    }
    story.logged(&[
        "coder: out of memory at its limit memory_max=48M: the kernel killed its main process",
        "coder: out of memory at its limit memory_max=48M: the kernel killed a process of it, 3 in this life; the rest goes on",
        "coder: out of memory at its limit memory_max=48M: the kernel killed a process of it, 3 in this life; it ends with that",
    ]);
}

#[test]
fn a_failure_at_the_limit_of_processes_says_that_it_was_there() {
    let (mut story, life) = Story::running();
    let said = story.limits.main_failed(&life, &story.world.view());
    assert!(said.is_empty(), "the kernel refused it nothing");
    story.world.trees.pids_refused.insert(life.clone(), 5);
    let said = story.limits.main_failed(&life, &story.world.view());
    story.act(said);
    story.logged(&["coder: it was at its limit pids_max=64: the kernel refused it 5 processes or threads"]);
}

#[test]
fn what_the_kernel_says_all_the_time_is_said_and_hooked_once_a_minute() {
    let (mut story, life) = Story::running();
    let definition = &mut story.world.services.get_mut(&story.id).unwrap().definition;
    let memory_high = Some(vec!["/bin/shed".to_owned(), "load".to_owned()]);
    definition.hooks = Some(Box::new(Hooks { memory_high, ..Hooks::default() }));
    story.limits.begun(story.id, limits(&[(Key::MemoryHigh, "64M")]), Vec::new(), &story.world.view());
    for _ in 0..130 {
        let told = story.limits.memory_high(&life, &story.world.view());
        story.act(told);
        story.world.after(Duration::from_secs(1));
    }
    let line =
        "coder: its memory is at memory_high=64M: the kernel takes back what it can, and slows it down";
    story.logged(&[line; 3]);
    assert_eq!(story.done, ["memory_high: /bin/shed load"; 3]);
    assert_eq!(story.limits.high_at(story.id), Some(Tick(story.world.now.0 - 1000)));
    // What is on its way out gets no hook.
    story.done.clear();
    story.world.after(HIGH_INTERVAL);
    story.world.step(story.id, Event::Command { ticket: Ticket(1), command: Command::Stop });
    story.world.step(story.id, Event::Recorded { seq: 1 });
    let told = story.limits.memory_high(&life, &story.world.view());
    story.act(told);
    assert_eq!((story.log.len(), story.done.len()), (1, 0));
}

#[test]
fn a_service_that_is_gone_is_told_of_and_leaves_nothing() {
    let (mut story, _) = Story::running();
    story.set(0, &[("pids_max", "16")], true);
    story.answers.clear();
    let name = story.world.services[&story.id].name.clone();
    story.limits.forget(story.id, &name);
    assert_eq!(story.at_start(), (limits(&[(Key::PidsMax, "64")]), Vec::new()));
    assert_eq!(story.shown(), Vec::<String>::new());
    story.id = ServiceId(99);
    story.set(0, &[("pids_max", "16")], false);
    story.hears(&[&format!("[{:?}] the service is gone", Code::NoSuchService)]);
}
