//! Every condition of `reload`, and who waits for a reading, as stories.

use super::*;
use crate::control::protocol::{Outcome, Part, Reply, Request, Targets};
use crate::control::server::{ConnId, Incoming};
use crate::core::event::{Command, Event, Ticket};
use crate::core::exit::Exit;
use crate::core::fleet::ServiceId;
use crate::core::words::{Cause, State};
use crate::daemon::services::{Gone, Service};
use crate::daemon::topics::Deadlines;
use crate::daemon::topics::definitions::found::Found;
use crate::daemon::topics::definitions::readings::Reloading;
use crate::daemon::topics::testing::{GATEWAY_UID, HOME, World};
use crate::definition::Template;
use crate::definition::diagnose::{About, Diagnostic};
use crate::definition::load::RefusedFile;
use crate::definition::resolved::{Origin, Record};
use crate::definition::trust::Trust;
use crate::hermes::state_json::Intent;
use crate::store::{Program, WantRow};
use crate::sys::peer::Peer;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn name(text: &str) -> ServiceName {
    ServiceName::new(text).unwrap()
}

/// What is on the disk, and what becomes of the services.
struct Story {
    world: World,
    definitions: Definitions,
    /// The definitions in files: name and command.
    files: BTreeMap<&'static str, &'static str>,
    /// Those of them that are malformed.
    malformed: BTreeMap<&'static str, &'static str>,
    profiles: Vec<&'static str>,
    /// Changes what is found beside files and profiles.
    also: fn(&mut Found),
    heard: Vec<String>,
    /// Readings that were begun, and requests that were served without waiting any longer.
    readings: Vec<u64>,
    served: Vec<u32>,
    log: Vec<String>,
    /// What became of services: `new NAME FIRST`, `restart NAME`, `gone NAME`, `late NAMES`.
    done: Vec<String>,
}

impl Default for Story {
    fn default() -> Self {
        let mut found = Found::without_home(&[], &World::default().around);
        let plan = found.plan(&BTreeMap::new(), &World::default().around);
        let rows = store::Opened::default();
        let definitions = Definitions::at_start(Some(Template::built_in()), &plan, &rows, false);
        Self {
            world: World::default(),
            definitions,
            files: BTreeMap::new(),
            malformed: BTreeMap::new(),
            profiles: Vec::new(),
            also: |_| {},
            heard: Vec::new(),
            readings: Vec::new(),
            served: Vec::new(),
            log: Vec::new(),
            done: Vec::new(),
        }
    }
}

fn file(of: &str) -> PathBuf {
    Path::new("/etc/hermes-sup/services").join(format!("{of}.toml"))
}

fn record(program: Program) -> RecordRow {
    RecordRow {
        registrant_uid: GATEWAY_UID,
        user: GATEWAY_UID.to_string(),
        program,
        env: BTreeMap::new(),
        registered_at_ms: 0,
    }
}

impl Story {
    fn with_files(files: &[(&'static str, &'static str)]) -> Self {
        let mut story = Self { files: files.iter().copied().collect(), ..Self::default() };
        story.reload(false);
        story.heard.clear();
        story.done.clear();
        story
    }

    fn of_file(&self, of: &str, command: &str) -> Definition {
        let argv = [command.to_owned()];
        let record = Record { name: &name(of), argv: &argv, env: &BTreeMap::new(), user: "10000" };
        let mut definition = Definition::from_record(record, &self.world.trust, &self.world.around).unwrap();
        definition.origin = Origin::File(file(of));
        definition.autostart = true;
        definition
    }

    /// What a reading finds now.
    fn found(&self) -> Found {
        let mut found = Found::without_home(&[], &self.world.around);
        found.profiles_unread = false;
        found.state_trust = Trust::Trusted;
        found.profiles = self.profiles.iter().copied().map(name).collect();
        for (of, command) in &self.files {
            if let Some(wrong) = self.malformed.get(of) {
                let wrong = Diagnostic::whole(&file(of), About::Text, *wrong);
                found.loaded.diagnostics.push(wrong.clone());
                found.loaded.broken.insert(name(of));
                found
                    .loaded
                    .refused
                    .insert((*of).to_owned(), RefusedFile { wrong, says: Default::default() });
            } else {
                found.loaded.services.insert(name(of), self.of_file(of, command));
            }
        }
        (self.also)(&mut found);
        found
    }

    fn ask(&mut self, conn: u32, restart: bool) {
        let by = Reloading { conn: ConnId { slot: conn, generation: 0 }, restart };
        let actions = self.definitions.ask_reload(Some(by), &self.world.view());
        self.act(actions);
    }

    fn read(&mut self) {
        let actions = self.definitions.found(self.found(), &self.world.view());
        self.act(actions);
    }

    /// `reload`, and all that comes of it.
    fn reload(&mut self, restart: bool) {
        self.ask(1, restart);
        self.read();
    }

    fn id(&self, of: &str) -> ServiceId {
        self.world.fleet.id(of).unwrap()
    }

    fn service(&mut self, of: &str) -> &mut Service {
        let id = self.id(of);
        self.world.services.get_mut(&id).unwrap()
    }

    /// Runs, with the definition that it has.
    fn up(&mut self, of: &str) -> ServiceId {
        let id = self.id(of);
        self.world.up(id, 77);
        let service = self.service(of);
        service.in_force = Some(service.definition.hash);
        id
    }

    fn park(&mut self, conn: u32) {
        let peer = Peer { pid: Some(1), uid: 0, gid: 0 };
        let request = Request::Status { targets: Targets::All };
        let incoming = Incoming { id: ConnId { slot: conn, generation: 0 }, peer, request };
        let actions = self.definitions.park(incoming, &self.world.view());
        self.act(actions);
    }

    fn act(&mut self, actions: Actions) {
        for action in actions {
            match action {
                Action::Define(define) => self.define(define),
                Action::OwnCommand(id, command) => {
                    let of = self.world.fleet.name(id).unwrap();
                    assert_eq!(command, Command::Restart);
                    self.done.push(format!("restart {of}"));
                }
                Action::Reply(conn, Reply::Part(Part::Outcome(outcome))) => {
                    self.heard.push(format!("{}: {}", conn.slot, words(&outcome)));
                }
                Action::Reply(conn, Reply::End) => self.heard.push(format!("{}: end", conn.slot)),
                Action::Reply(conn, Reply::Refused(refusal)) => {
                    self.heard.push(format!("{}: {}", conn.slot, refusal.message));
                }
                Action::Reloaded(report) => {
                    let told = self.definitions.reloaded(report, &self.world.view());
                    self.act(told);
                }
                Action::ReadDefinitions(number) => self.readings.push(number),
                Action::Serve(incoming) => self.served.push(incoming.id.slot),
                Action::Tell(event) => self.log.push(event.to_string()),
                Action::Log(_, text) => self.log.push(text),
                Action::BootLate(plan, _) => {
                    let names: Vec<&str> = plan.services.keys().map(ServiceName::as_str).collect();
                    self.done.push(format!("late {}", names.join(" ")));
                    for (_, (definition, _)) in plan.services {
                        self.world.add(definition);
                    }
                }
                Action::Trust(trust) => self.world.trust = trust,
                Action::SayLate(_) | Action::ShowGateway(..) | Action::Scan => {}
                other => panic!("not expected: {other:?}"),
            }
        }
    }

    fn define(&mut self, define: Define) {
        match define {
            Define::Same { id, stamp, record } => {
                let service = self.world.services.get_mut(&id).unwrap();
                service.definition.stamp = stamp;
                service.record = record.map(Box::new);
            }
            Define::Changed { id, definition, record } => {
                let service = self.world.services.get_mut(&id).unwrap();
                service.definition = *definition;
                service.record = record.map(Box::new);
                self.done.push(format!("redefine {}", service.name));
            }
            Define::Back(id) => self.world.services.get_mut(&id).unwrap().gone = Gone::No,
            Define::Gone(id) => {
                let service = self.world.services.get_mut(&id).unwrap();
                service.gone = Gone::Yes;
                self.done.push(format!("gone {}", service.name));
            }
            Define::OneTooMany(id) => {
                let service = self.world.services.get_mut(&id).unwrap();
                service.gone = Gone::Yes;
                self.done.push(format!("too many {}", service.name));
            }
            Define::New(new) => {
                let New { definition, record, first, .. } = *new;
                self.done.push(format!("new {} {first:?}", definition.name));
                let id = self.world.add(definition);
                self.world.services.get_mut(&id).unwrap().record = record.map(Box::new);
            }
        }
    }

    fn hears(&mut self, expected: &[&str]) {
        assert_eq!(std::mem::take(&mut self.heard), expected);
    }

    fn does(&mut self, expected: &[&str]) {
        assert_eq!(std::mem::take(&mut self.done), expected);
    }

    fn command(&self, of: &str) -> &str {
        &self.world.services[&self.id(of)].definition.command[0]
    }

    fn record(&self, of: &str) -> Option<&RecordRow> {
        self.world.services[&self.id(of)].record.as_deref()
    }
}

fn words(outcome: &Outcome) -> String {
    let state = outcome.state.map(|state| format!("{state} ")).unwrap_or_default();
    let verdict = if outcome.ok { "" } else { "[failed] " };
    format!("{} {state}{verdict}{}", outcome.name, outcome.message.clone().unwrap_or_default())
}

#[test]
fn what_is_new_is_added_what_is_gone_is_dropped_and_the_rest_is_not_touched() {
    let mut story = Story::with_files(&[("a", "/bin/a"), ("b", "/bin/b")]);
    story.up("b");
    story.files = [("a", "/bin/a"), ("c", "/bin/c")].into();
    story.reload(true);
    story.hears(&["1: b up definition gone: dropped once it is stopped", "1: c down added", "1: end"]);
    story.does(&["gone b", "new c Seen(Up, FirstBoot)"]);
    // It is told once.
    story.reload(true);
    story.hears(&["1: end"]);
    // Its file is back before it has stopped.
    story.files = [("a", "/bin/a"), ("b", "/bin/b"), ("c", "/bin/c")].into();
    story.reload(false);
    story.hears(&["1: end"]);
    assert_eq!(story.service("b").gone, Gone::No);
}

#[test]
fn what_runs_has_a_changed_definition_from_its_next_start_on_and_a_reload_with_restart_makes_one() {
    let mut story = Story::with_files(&[("a", "/bin/a"), ("b", "/bin/b")]);
    story.up("a");
    story.files = [("a", "/bin/new"), ("b", "/bin/new")].into();
    story.reload(false);
    story.hears(&["1: a up changed: takes effect at its next start", "1: b down changed", "1: end"]);
    story.does(&["redefine a", "redefine b"]);
    assert_eq!((story.command("a"), story.command("b")), ("/bin/new", "/bin/new"));
    // What is not in force is remembered: it is said again, and a restart comes to it though nothing else has changed.
    story.reload(false);
    story.hears(&["1: a up changed: takes effect at its next start", "1: end"]);
    story.does(&[]);
    story.reload(true);
    story.hears(&["1: a up changed: restarting", "1: end"]);
    story.does(&["restart a"]);
    // It is as it was when it was started: there is nothing to do.
    story.files = [("a", "/bin/a"), ("b", "/bin/new")].into();
    story.reload(true);
    story.hears(&["1: a up changed", "1: end"]);
    story.does(&["redefine a"]);
}

#[test]
fn nobody_starts_what_an_operator_has_stopped() {
    let mut story = Story::with_files(&[("a", "/bin/a")]);
    let id = story.up("a");
    story.world.step(id, Event::Command { ticket: Ticket(1), command: Command::Stop });
    story.world.step(id, Event::Recorded { seq: 1 });
    story.files = [("a", "/bin/new")].into();
    story.reload(true);
    story.hears(&["1: a stopping changed: takes effect at its next start", "1: end"]);
    story.does(&["redefine a"]);
}

#[test]
fn what_has_failed_tries_again_with_its_new_definition() {
    let mut story = Story::with_files(&[("a", "/bin/a")]);
    let id = story.id("a");
    let mut policy = (*story.world.services[&id].definition.policy).clone();
    policy.restart.when = crate::core::policy::RestartWhen::Never;
    let now = story.world.now;
    story.world.fleet.redefine(id, policy.into(), Vec::new(), Vec::new(), now);
    let life = story.world.up(id, 77);
    for event in [
        Event::MainExited { incarnation: life.n, exit: Exit::Code(3) },
        Event::TreeEmpty { incarnation: life.n },
        Event::LogsDrained { incarnation: life.n },
    ] {
        story.world.step(id, event);
    }
    assert_eq!(story.world.view().state(id), Some(State::Failed));
    story.reload(false);
    story.does(&[]);
    story.files = [("a", "/bin/mended")].into();
    story.reload(false);
    story.does(&["redefine a", "restart a"]);
}

#[test]
fn a_malformed_definition_leaves_the_service_the_one_that_it_has() {
    let mut story = Story::with_files(&[("a", "/bin/a"), ("b", "/bin/b")]);
    story.up("a");
    story.malformed = [("a", "a comma is missing")].into();
    story.files.insert("b", "/bin/new");
    story.reload(true);
    let line = "/etc/hermes-sup/services/a.toml: a comma is missing";
    story.hears(&["1: b down changed", &format!("1: reload [failed] {line}"), "1: end"]);
    assert_eq!(story.service("a").gone, Gone::No);
    assert_eq!(story.command("a"), "/bin/a");
    assert_eq!(story.log, [line]);
    let since = story.definitions.refused_since(&name("a"));
    assert_eq!(since.as_deref(), Some(&*format!("a definition of it is refused: {line}")));
    story.malformed.clear();
    story.reload(false);
    assert_eq!(story.definitions.refused_since(&name("a")), None);
}

#[test]
fn a_name_whose_definition_is_malformed_is_known_and_gets_what_was_wanted_of_it_once_it_is_mended() {
    let mut story = Story::default();
    let want = |want| WantRow {
        want,
        asked_by_uid: None,
        asked_at_ms: 0,
        cause: Cause::Operator,
        definition_hash: None,
    };
    story.files = [("a", "/bin/a"), ("b", "/bin/b")].into();
    story.malformed = [("a", "no"), ("b", "no")].into();
    let rows = store::Opened { wants: [(name("a"), want(Want::Down))].into(), ..store::Opened::default() };
    let plan = story.found().plan(&BTreeMap::new(), &story.world.around);
    story.definitions = Definitions::at_start(Some(Template::built_in()), &plan, &rows, false);
    let fleet = &story.world.fleet;
    assert!(story.definitions.is_refused("a", fleet) && !story.definitions.is_refused("c", fleet));
    assert_eq!(story.definitions.shown_names(fleet), ["a", "b"]);
    // Two reloads: what was wanted is remembered as long as it is refused.
    story.reload(false);
    story.malformed.clear();
    story.reload(false);
    story.does(&["new a Recorded(Down, None)", "new b Seen(Up, FirstBoot)"]);
    assert!(!story.definitions.is_refused("a", &story.world.fleet));
}

/// A reload that took away what nobody could read said that nothing changed.
#[test]
fn a_malformed_definition_that_is_removed_is_told() {
    let mut story = Story::with_files(&[("a", "/bin/a")]);
    story.files.insert("typo", "/bin/b");
    story.malformed = [("typo", "no")].into();
    story.reload(false);
    story.heard.clear();
    story.files.remove("typo");
    story.also = |found| found.loaded.unread.push("/etc/hermes-sup/services".into());
    let mut unread = story.definitions.refused.clone();
    story.reload(false);
    story.hears(&["1: end"]);
    std::mem::swap(&mut story.definitions.refused, &mut unread);
    story.also = |_| {};
    story.heard.clear();
    story.reload(false);
    story.hears(&["1: typo down definition gone", "1: end"]);
}

#[test]
fn a_directory_that_cannot_be_read_takes_nobodys_definition_away() {
    let mut story = Story::with_files(&[("a", "/bin/a")]);
    story.up("a");
    story.files.clear();
    story.also = |found| found.loaded.unread.push("/etc/hermes-sup/services".into());
    story.reload(true);
    story.hears(&["1: end"]);
    story.does(&[]);
}

#[test]
fn a_profile_that_cannot_be_looked_at_keeps_its_gateway() {
    let mut story = Story { profiles: vec!["coder"], ..Story::default() };
    story.reload(false);
    story.does(&["new coder Seen(Down, FirstBoot)"]);
    story.profiles.clear();
    let unread: [fn(&mut Found); 3] = [
        |found| found.profiles_unread = true,
        |found| found.late_profiles.push(name("coder")),
        |found| found.loaded.template = None,
    ];
    for also in unread {
        story.also = also;
        story.reload(false);
        story.does(&[]);
    }
    story.also = |_| {};
    story.reload(false);
    story.does(&["gone coder"]);
}

#[test]
fn what_a_new_profiles_state_file_says_is_its_first_want() {
    let mut story = Story { profiles: vec!["coder"], ..Story::default() };
    story.also = |found| {
        let intent = Intent { state: Some("running".to_owned()), desired: true, ..Intent::default() };
        found.intents.insert(name("coder"), intent);
    };
    story.reload(false);
    story.does(&["new coder Seen(Up, GatewayState)"]);
}

#[test]
fn a_registered_service_stays_what_it_is_whatever_files_say() {
    let mut story = Story { profiles: vec!["coder"], ..Story::default() };
    let argv = record(Program::Argv(vec!["/bin/r".to_owned()]));
    let gateway = record(Program::Profile(format!("{HOME}/profiles/coder")));
    let rows = store::Opened {
        records: [(name("r"), argv.clone()), (name("second"), gateway.clone())].into(),
        ..store::Opened::default()
    };
    let recalled = story.definitions.recall(&rows, &story.world.view());
    story.act(recalled);
    story.does(&["new r Down { recorded: false }", "new second Down { recorded: false }"]);
    story.reload(true);
    story.does(&["new coder Seen(Down, FirstBoot)"]);
    story.hears(&["1: coder down added", "1: end"]);
    // Another template is another definition of the gateway, and still the same registration.
    story.service("second").definition.hash += 1;
    for _ in 0..2 {
        story.reload(true);
        assert_eq!(story.record("r"), Some(&argv));
        assert_eq!(story.record("second"), Some(&gateway));
    }
    story.does(&["redefine second"]);
}

/// `instances = 4` became `instances = 2`: nobody will ever stop the two others one by one.
#[test]
fn an_instance_too_many_is_stopped_and_one_whose_file_cannot_be_read_stays() {
    let mut story = Story::with_files(&[("worker@1", "/bin/w"), ("worker@a", "/bin/w")]);
    // The first is of worker.toml, the other has a file of its own.
    story.service("worker@1").definition.origin = Origin::File(file("worker"));
    story.files = [("worker", "(")].into();
    story.malformed = [("worker", "no")].into();
    story.reload(false);
    story.does(&["gone worker@a"]);
    story.malformed.clear();
    story.files.clear();
    story.also = |found| drop(found.loaded.groups.insert(name("worker"), Vec::new()));
    story.heard.clear();
    story.reload(false);
    story.does(&["too many worker@1"]);
    assert!(story.heard[0].contains("worker@1 down one instance too many"), "{:?}", story.heard);
}

#[test]
fn a_file_hides_a_record_of_its_name_and_the_record_comes_back_when_the_file_goes() {
    let mut story = Story::default();
    let row = record(Program::Argv(vec!["/bin/r".to_owned()]));
    let rows = store::Opened { records: [(name("r"), row.clone())].into(), ..store::Opened::default() };
    let recalled = story.definitions.recall(&rows, &story.world.view());
    story.act(recalled);
    story.files = [("r", "/bin/file")].into();
    story.reload(false);
    assert_eq!((story.command("r"), story.record("r")), ("/bin/file", None));
    assert_eq!(story.definitions.dormant(&name("r")), Some(&row));
    assert!(
        story.heard.iter().any(|line| line.contains("the registered 'r' is hidden by a definition file"))
    );
    story.files.clear();
    story.reload(false);
    assert_eq!((story.command("r"), story.record("r")), ("/bin/r", Some(&row)));
    assert_eq!(story.definitions.dormant(&name("r")), None);
}

#[test]
fn a_record_that_stands_for_nothing_is_kept_and_told_of() {
    let mut story = Story::default();
    let row = record(Program::Profile("relative".to_owned()));
    let rows = store::Opened { records: [(name("r"), row.clone())].into(), ..store::Opened::default() };
    let recalled = story.definitions.recall(&rows, &story.world.view());
    story.act(recalled);
    assert_eq!(story.log, ["'r': 'relative' is not an absolute path of a profile"]);
    story.reload(false);
    assert_eq!(story.definitions.refused_record("r", &story.world.fleet), Some((&name("r"), &row)));
    // Dropped from the disk, it is no more.
    let told = story.definitions.record_dropped(&name("r"), Ticket(1), None, &story.world.view());
    assert!(matches!(&told[..], [Action::Answer(_, Outcome { ok: true, .. })]), "{told:?}");
    assert!(!story.definitions.is_refused("r", &story.world.fleet));
}

#[test]
fn arguments_of_the_containers_command_stay_with_the_gateway() {
    let mut story = Story::with_files(&[("a", "/bin/a")]);
    let service = story.service("a");
    service.extra_args = vec!["--verbose".to_owned()];
    service.definition.command.push("--verbose".to_owned());
    story.files = [("a", "/bin/new")].into();
    story.reload(false);
    assert_eq!(story.service("a").definition.command, ["/bin/new", "--verbose"]);
}

#[test]
fn what_the_start_did_without_is_booted_when_it_comes_and_said_to_nobody() {
    let mut story = Story::default();
    story.definitions.late = Some([(name("b"), Want::Down)].into());
    story.files = [("a", "/bin/a"), ("b", "/bin/b")].into();
    story.malformed = [("b", "no")].into();
    story.also = |found| found.late.push("/etc/hermes-sup/services/c.toml".into());
    let came = story.definitions.late_came(0, story.found(), &story.world.view());
    story.act(came);
    story.does(&["late a"]);
    story.hears(&[]);
    // The last of it; what is malformed was wanted down, and a later reload knows that.
    story.also = |_| {};
    story.files.insert("c", "/bin/c");
    let came = story.definitions.late_came(0, story.found(), &story.world.view());
    story.act(came);
    story.does(&["late c"]);
    story.malformed.clear();
    story.reload(false);
    story.does(&["new b Recorded(Down, None)"]);
}

fn on_record(wants: &[(&str, Want)]) -> store::Opened {
    let row = |want| WantRow {
        want,
        asked_by_uid: None,
        asked_at_ms: 0,
        cause: Cause::Operator,
        definition_hash: None,
    };
    let wants = wants.iter().map(|(of, want)| (name(of), row(*want))).collect();
    store::Opened { wants, ..store::Opened::default() }
}

/// A volume that was mounted after the start, then `reload`: what was stopped was started, for nobody knew of it any more.
#[test]
fn what_was_away_at_the_start_is_wanted_as_it_was_when_it_comes() {
    let mut rows = on_record(&[("a", Want::Down), ("coder", Want::Up)]);
    rows.runs.insert(name("a"), store::RunRow { restarts: 7, ..Default::default() });
    let plan = Plan::default();
    let definitions = Definitions::at_start(Some(Template::built_in()), &plan, &rows, false);
    let mut story = Story { definitions, ..Story::default() };
    story.files = [("a", "/bin/a"), ("b", "/bin/b")].into();
    story.reload(false);
    let past = format!("Some({:?})", rows.runs[&name("a")]);
    story.does(&[&format!("new a Recorded(Down, {past})"), "new b Seen(Up, FirstBoot)"]);
    // A profile has its want with it, or is a new one.
    story.profiles = vec!["coder"];
    story.reload(false);
    story.does(&["new coder Seen(Down, FirstBoot)"]);
}

/// What is erased has no want that could come back.
#[test]
fn what_is_on_record_counts_once() {
    let rows = on_record(&[("a", Want::Down)]);
    let definitions = Definitions::at_start(Some(Template::built_in()), &Plan::default(), &rows, false);
    let mut story = Story { definitions, ..Story::default() };
    story.files = [("a", "/bin/a")].into();
    story.reload(false);
    story.does(&["new a Recorded(Down, None)"]);
    let id = story.id("a");
    story.world.services.remove(&id);
    drop(story.world.fleet.remove(id, story.world.now));
    story.reload(false);
    story.does(&["new a Seen(Up, FirstBoot)"]);
}

#[test]
fn what_comes_late_is_read_again_where_a_newer_reading_has_begun() {
    let mut story = Story::with_files(&[]);
    story.readings.clear();
    let old = story.found();
    story.files = [("a", "/bin/a")].into();
    let came = story.definitions.late_came(0, old, &story.world.view());
    story.act(came);
    assert_eq!(story.readings, [2]);
    story.read();
    story.does(&["new a Seen(Up, FirstBoot)"]);
}

#[test]
fn who_asks_during_a_reading_waits_for_the_next_one() {
    let mut story = Story::default();
    story.park(1);
    story.ask(2, false);
    story.park(3);
    assert_eq!(story.readings, [1], "one at a time");
    story.files = [("a", "/bin/a")].into();
    story.profiles = vec!["coder"];
    story.read();
    assert_eq!(story.served, [1]);
    story.does(&["new coder Seen(Down, FirstBoot)"]);
    story.hears(&[]);
    assert_eq!(story.readings, [1, 2]);
    story.read();
    assert_eq!(story.served, [1, 3]);
    story.hears(&["2: a down added", "2: end"]);
    assert!(!story.definitions.readings.is_busy());
}

#[test]
fn a_disk_that_hangs_keeps_no_request_and_one_that_fails_is_told() {
    let mut story = Story::default();
    story.park(1);
    story.park(2);
    story.ask(3, true);
    story.definitions.readings.caller_is_gone(ConnId { slot: 1, generation: 0 });
    story.world.after(Duration::from_secs(2));
    assert_eq!(story.definitions.next_deadline(), Some(story.world.now));
    let due = story.definitions.pass_time(&story.world.view());
    story.act(due);
    assert_eq!((story.served.as_slice(), story.definitions.next_deadline()), (&[2][..], None));
    story.park(4);
    let failed = story.definitions.not_found("no more threads", &story.world.view());
    story.act(failed);
    assert_eq!(story.served, [2, 4]);
    story.hears(&["3: nothing was reloaded: no more threads"]);
    assert!(!story.definitions.readings.is_busy());
}

#[test]
fn nothing_is_reloaded_in_a_shutdown() {
    let mut story = Story::default();
    story.ask(1, false);
    story.world.closing = true;
    story.ask(2, false);
    story.files = [("a", "/bin/a")].into();
    story.read();
    story.hears(&[
        "2: the supervisor is shutting down",
        "1: nothing was reloaded: the supervisor is shutting down",
    ]);
    story.does(&[]);
}
