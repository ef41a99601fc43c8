//! The order of the start. Up to the loop, an error refuses to start with one line; from the loop on, nothing ends
//! the process but its own orders.

use super::adoption::{Heritage, Inheritance, note_of};
use super::alone::alone;
use super::bring_up::say_first;
use super::clock::Clock;
use super::cmd::{Claims, command_of, judge_cmd};
use super::handover::{Handover, OURSELVES};
use super::identity::{Identity, Kinship};
use super::inbox::Inbox;
use super::late::{Late, Unfinished};
use super::launch::dev_null;
use super::listeners::Listeners;
use super::main_program::{MainProgram, NOT_FOUND};
use super::ownership::{Gateways, GivingWay, open_state};
use super::places::{host_name, listen, may_run_others, parent, prepare_home};
use super::preparation::Told;
use super::profile_life::ProfileLife;
use super::reaping::Unreaped;
use super::reconcile::{Reconciled, Task};
use super::refused::{Refusal as RefusedDefinition, Refusals, dormant};
use super::reload::{Found, Plan, Unreadable, discover, trust_of, watch_profiles};
use super::requests::Postponed;
use super::scanning::Scanning;
use super::sources::{Notifier, Room, Timer, containment_token, control_token, plain_token};
use super::starts::Starts;
use super::status::why_not_higher;
use super::topics::planned::PlannedStops;
use super::topics::readiness::Readiness;
use super::topics::requests::Requests;
use super::topics::scopes::Scopes;
use super::topics::shutdown::Shutdown;
use super::topics::upgrade::Upgrade;
use super::view::decide;
use super::{Mode, Notice, Options, Over, STORE, Supervisor, demo, fault, surface};
use crate::containment::{self, Containment, Home, Predecessor, Rung, Wish};
use crate::core::clock::LostTime;
use crate::core::farewell::Farewell;
use crate::core::fleet::Fleet;
use crate::core::name::ServiceName;
use crate::core::words::Stream;
use crate::definition::programs::Programs;
use crate::definition::{Reading, Surroundings};
use crate::hermes::boot_log;
use crate::hermes::command::Command;
use crate::hermes::profile_watch::ProfileWatch;
use crate::hermes::routing::{Route, route};
use crate::log::{Container, Logs, OwnLog};
use crate::store::claim::Bell;
use crate::store::{self, Change, StoreEvent};
use crate::sys::posture;
use crate::sys::signal::SignalFd;
use mio::unix::SourceFd;
use mio::{Interest, Poll, Registry};
use rustix::process::{Resource, Rlimit};
use slog::Drain;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How long a start waits for a disk before it goes on without what is on it.
const DISK_PATIENCE: Duration = Duration::from_secs(5);
/// How long the end waits for a disk or a reader to take the last words.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Boots, supervises, ends; returns the exit code. Call it on the first thread, before there is another.
pub fn run(mut options: Options, mode: Mode) -> u8 {
    std::panic::set_hook(Box::new(|info| {
        // A damaged database may make its reader panic; that is caught and reported where it happens.
        if !store::panic_is_expected() {
            let _ = rustix::io::write(std::io::stderr(), format!("hermes-sup: bug: {info}\n").as_bytes());
            // The loop's own panics end the loop.
            if std::thread::current().name() != Some("main")
                && let Some(loop_of_ours) = ALARM.get()
            {
                loop_of_ours.send(Notice::Panicked);
            }
        }
    }));
    let former = Handover::take(&mut options.environment);
    // A stop signal that arrives from here on is kept until the loop reads it.
    let signals = match SignalFd::block() {
        Ok(signals) => signals,
        Err(error) => return refuse(None, &format!("failed to block signals: {error}")),
    };
    // What we were before we became this program has raised our own limit already.
    let nofile = prepare_process(&signals);
    let nofile = former.as_ref().map_or(nofile, |former| former.nofile);
    let container = match Container::start() {
        Ok(container) => container,
        Err(error) => return refuse(None, &format!("failed to start its threads: {error}")),
    };
    let demo = match options.demo.then(|| demo::prepare(&mut options)).transpose() {
        Ok(demo) => demo,
        Err(error) => return refuse(Some(&container), &format!("the demo cannot be set up: {error}")),
    };
    let log = logger(&options, &mode, &container);
    if former.is_some() && options.s6_surface {
        surface::resume(&mut options);
    } else if options.s6_surface {
        let say = |line: &str| container.line(Stream::Err, format!("{line}\n").as_bytes());
        let aside =
            matches!(&mode, Mode::Init { command } if command_of(command, &options) == Command::Hermes);
        let told = Told { say: &say, quiet: has_terminal(), aside };
        if let Err(code) = surface::prepare(&mut options, &signals, nofile, told) {
            container.finish(LAST_WORDS);
            return code;
        }
    }
    let bare = former.as_ref().map(Handover::bare);
    let started =
        catch_unwind(AssertUnwindSafe(|| start(&options, &mode, former, signals, nofile, &container, &log)));
    let started = match (started, bare) {
        (Ok(Err(Refusal { line, code })), Some(bare)) => {
            slog::error!(log, "{line}");
            // Nothing can be supervised any more, but the container is its main program.
            container.finish(LAST_WORDS);
            return bare.main.map_or(code, |main| main_alone(main, &log));
        }
        (Ok(started), _) => started,
        (Err(_), Some(mut bare)) => {
            bare.panicked(Clock::start().now().0);
            return pass(bare, Path::new(OURSELVES), &[], &container);
        }
        (Err(_), None) => return BUG,
    };
    let code = match started {
        Ok(Start::Supervise(mut supervisor, mut poll)) => {
            if let Some(demo) = &demo {
                container.line(Stream::Out, demo.welcome().as_bytes());
            }
            match catch_unwind(AssertUnwindSafe(|| supervisor.run(&mut poll))) {
                Ok(Over::Ended(code)) => {
                    supervisor.say_goodbye();
                    code
                }
                Ok(Over::GivenUp) => {
                    let main = supervisor.main.take();
                    // The container goes on: nothing of ours stays in it.
                    supervisor.say_goodbye();
                    match (main, SignalFd::block()) {
                        (Some(main), Ok(signals)) => alone(main, &signals, &log),
                        (None, _) | (_, Err(_)) => BUG,
                    }
                }
                Ok(Over::Replaced(program)) => {
                    let (handover, keep) = supervisor.hand_over(LAST_WORDS);
                    return pass(handover, &program, &keep, &container);
                }
                // What was told on the way is all that there is to tell.
                Err(_) if options.demo => BUG,
                Err(_) => {
                    let (handover, keep) = rescue(supervisor);
                    return pass(handover, Path::new(OURSELVES), &keep, &container);
                }
            }
        }
        Ok(Start::Alone(main, signals)) => alone(main, &signals, &log),
        Err(Refusal { line, code }) => {
            slog::error!(log, "{line}");
            code
        }
    };
    drop(demo);
    drop(log);
    container.finish(LAST_WORDS);
    code
}

/// Exit code of a Rust program that panicked.
const BUG: u8 = 101;

/// The loop, for threads that panic.
static ALARM: OnceLock<Notifier> = OnceLock::new();

/// Waits for a main program that was started before; returns its code.
fn main_alone(main: i32, log: &slog::Logger) -> u8 {
    match (MainProgram::adopt(main), SignalFd::block()) {
        (Ok(main), Ok(signals)) => alone(main, &signals, log),
        (Err(_), _) | (_, Err(_)) => BUG,
    }
}

/// After a panic nothing is believed but what has to survive. Callers lose their connections: one of their requests may
/// be what we cannot bear.
fn rescue(supervisor: Box<Supervisor>) -> (Handover, Vec<OwnedFd>) {
    let mut bare = supervisor.bare_handover();
    bare.panicked(supervisor.clock.now().0);
    slog::error!(supervisor.log, "a bug was met: going on in a fresh process image"; "within a minute" => bare.panics.len());
    match catch_unwind(AssertUnwindSafe(|| supervisor.hand_over(LAST_WORDS))) {
        Ok((handover, mut keep)) => {
            keep.retain(|fd| Some(fd.as_raw_fd()) == handover.listener);
            (Handover { listener: handover.listener, begun: handover.begun, ..bare }, keep)
        }
        Err(_) => (bare, Vec::new()),
    }
}

/// Becomes another program. Returns only when not even our own can be executed.
fn pass(handover: Handover, program: &Path, keep: &[OwnedFd], container: &Container) -> u8 {
    container.finish(LAST_WORDS);
    let error = handover.pass(program, keep);
    refuse(None, &format!("failed to execute ourselves: {error}"))
}

/// Why it does not start; one line that says what to do.
pub(super) struct Refusal {
    pub line: String,
    pub code: u8,
}

impl From<String> for Refusal {
    fn from(line: String) -> Self {
        Self { line, code: 1 }
    }
}

enum Start {
    Supervise(Box<Supervisor>, Poll),
    /// Only the main program: the state is somebody else's.
    Alone(MainProgram, SignalFd),
}

fn refuse(container: Option<&Container>, line: &str) -> u8 {
    let text = format!("hermes-sup: {line}\n");
    match container {
        Some(container) => {
            container.line(Stream::Err, text.as_bytes());
            container.finish(LAST_WORDS);
        }
        None => drop(rustix::io::write(std::io::stderr(), text.as_bytes())),
    }
    1
}

/// So many descriptors fit into the table from the start: those of more than a thousand services, in 33 kB of the kernel's.
const ROOM: u64 = 4096;

/// What this process must be before it has children. Returns the limit of open files that children get back.
fn prepare_process(signals: &SignalFd) -> Option<(u64, u64)> {
    // Nobody of our uid may look into us or attach to us (ptrace(2)).
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    // As PID 1 orphans come to us anyway; elsewhere this makes them (prctl(2), PR_SET_CHILD_SUBREAPER).
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let _ = rustix::process::setrlimit(Resource::Nofile, raised);
    // A full table of descriptors is doubled, and where threads share it that waits for an RCU grace period (fs/file.c,
    // `expand_fdtable`): 5 to 20 ms in which the loop would stand still. There are no threads yet.
    let last = limit.maximum.map_or(ROOM, |most| ROOM.min(most)).saturating_sub(1);
    drop(rustix::io::fcntl_dupfd_cloexec(signals, i32::try_from(last).unwrap_or_default()));
    limit.current.zip(limit.maximum)
}

fn logger(options: &Options, mode: &Mode, container: &Container) -> slog::Logger {
    // While a main program has the terminal, only what it must not hide is written over it.
    let shares = matches!(mode, Mode::Init { .. }) && has_terminal();
    let level = if shares && options.log_level == slog::Level::Info {
        slog::Level::Warning
    } else {
        options.log_level
    };
    slog::Logger::root(OwnLog::new(container.clone(), level, options.log_format).fuse(), slog::o!())
}

/// The container was given a terminal, which then is the main program's.
pub(super) fn has_terminal() -> bool {
    use std::io::IsTerminal;
    std::io::stdout().is_terminal()
}

fn start(
    options: &Options,
    mode: &Mode,
    former: Option<Handover>,
    signals: SignalFd,
    nofile: Option<(u64, u64)>,
    container: &Container,
    log: &slog::Logger,
) -> Result<Start, Refusal> {
    let clock = Clock::start();
    let argv = match mode {
        Mode::Run => None,
        Mode::Init { command } => match route(command, |program| options.executable(program)) {
            Route::Exec(argv) => Some(argv),
            Route::Nothing => None,
            Route::NotFound(program) => {
                let line = format!("there is no program '{}' here", program.display());
                return Err(Refusal { line, code: NOT_FOUND });
            }
        },
    };
    let command = argv.as_deref().map(|argv| command_of(argv, options));
    if let (Some(argv), Some(Command::Dashboard)) = (&argv, command) {
        say_first(container, &boot_log::stdout_line(boot_log::DASHBOARD_CONTAINER));
        return alone_start(argv, options, nofile, signals);
    }
    let gateways = Gateways::of(options.gateways != Gateways::Off, command);
    if (gateways, command) == (Gateways::Off, Some(Command::Gateway)) {
        let line = "HERMES_SUP_GATEWAYS=off and 'gateway run' contradict each other: leave one of them out";
        return Err(line.to_owned().into());
    }
    let options = &Options { gateways, ..options.clone() };
    let around = Surroundings::now(options.home.clone(), options.gateway_user.as_deref())
        .map_err(|error| error.to_string())?;
    may_run_others(options, &around)?;
    let home = around.clone();
    match with_patience("home", move || prepare_home(&home)) {
        Some(prepared) => prepared?,
        None => slog::error!(log, "{} does not answer: its volume hangs", options.home.display()),
    }
    let poll = Poll::new().map_err(|error| format!("failed to make its loop: {error}"))?;
    let registry = poll.registry();
    let (notifier, notices) =
        Notifier::new(registry).map_err(|error| format!("failed to make its loop: {error}"))?;
    let timer = Timer::new(registry).map_err(|error| format!("failed to make a timer: {error}"))?;
    registry
        .register(&mut SourceFd(&signals.as_raw_fd()), plain_token(Room::Signals), Interest::READABLE)
        .map_err(|error| format!("failed to watch signals: {error}"))?;

    let _ = ALARM.set(notifier.clone());
    // Watched before it is read, so that nothing is missed.
    let scanning = options.s6_surface.then(|| {
        Scanning::watch(registry).unwrap_or_else(|error| {
            slog::warn!(log, "the scan directory is not watched"; "error" => %error);
            Scanning::default()
        })
    });
    let has_hermes = options.executable(OsStr::new("hermes"));
    let profile_life = ProfileLife::new(registry).unwrap_or_else(|error| {
        slog::warn!(log, "the home is not watched: what is moved or removed in it is seen at a reload"; "error" => %error);
        ProfileLife::default()
    });
    let finding = Finding::begin(options, &around, has_hermes, profile_life.watch.clone());
    let store_notifier = notifier.clone();
    let claims = Claims::of(command);
    let store_options = store::Options {
        home: options.home.clone(),
        dir: options.state.clone(),
        gid: around.gateway.gid,
        host: host_name(),
        patience: DISK_PATIENCE,
        gives_way: (claims == Claims::GivesWay).then_some(options.stop_budget),
    };
    let notify = move |event| store_notifier.send(Notice::Store(event));
    let (store, mut opened) = match (open_state(&store_options, claims, &signals, log, notify)?, &argv) {
        (Ok(opened), _) => opened,
        (Err(error), Some(argv))
            if error.is_of_another() && former.is_none() && claims == Claims::GivesWay =>
        {
            slog::warn!(log, "running the command without supervising services: {}", error.what());
            return alone_start(argv, options, nofile, signals);
        }
        (Err(error), _) => return Err(error.to_string().into()),
    };
    let giving_way = match claims {
        Claims::GivesWay => listen_for_claims(store_options, registry, log),
        Claims::Insists | Claims::Waits => GivingWay::default(),
    };
    // After the store, which makes the state directory: the socket may have to lie in it.
    let former_listener = former.as_ref().and_then(|former| posture::take_over(former.listener?).ok());
    let (server, socket) = listen(options, former_listener);
    let socket_dir = parent(&socket);
    let mut server = server.map_err(|error| error.to_string())?;
    server
        .register(registry, control_token)
        .map_err(|error| format!("failed to watch its socket: {error}"))?;

    let note = note_of(&opened, log);
    let Identity { instance, runtime_dir, alive, kinship } =
        Identity::settle(&opened, note.as_ref(), &options.state, socket_dir)?;
    if let Kinship::Stranger(why) = kinship {
        slog::warn!(
            log,
            "{} is a copy of another supervisor's state ({why}): it is an instance of its own from now on, and nothing of \
             the original is touched",
            options.state.display()
        );
    }
    let log_notifier = notifier.clone();
    let logs =
        Logs::start(&runtime_dir, container.clone(), move |event| log_notifier.send(Notice::Log(event)))
            .map_err(|error| format!("failed to start logging below {}: {error}", runtime_dir.display()))?;

    let (mut found, unfinished) = finding.end(options, &around, opened.home_unlocked, log);
    let also: Vec<Rung> = found.loaded.services.values().filter_map(|d| d.containment).collect();
    let wish = Wish {
        wanted: options.rung,
        also: &also,
        instance: &instance,
        runtime_dir: &runtime_dir,
        service_uid: around.gateway.uid,
    };
    let report = containment::probe(&wish).map_err(|error| error.to_string())?;
    let heritage = Heritage::of(note, kinship, &runtime_dir);
    let home = Home { instance: &instance, runtime_dir: &runtime_dir, controllers: options.controllers };
    let tokens = registry.try_clone().map_err(|error| format!("failed to share its loop: {error}"))?;
    let mut containment =
        Containment::open(report.clone(), home, heritage.place(), tokens, containment_token).map_err(
            |error| format!("failed to take possession of containment '{}': {error}", report.rung),
        )?;
    let gives_up = former.as_ref().is_some_and(Handover::gives_up);
    let plan = found.plan(&opened.records, &around);
    let adopted =
        heritage.claim(&mut containment, |name| !gives_up && plan.services.contains_key(name), log)?;
    if let Some(former) = &former {
        let mut begun = former.begun.clone();
        // Nobody is left to end the line of a life that is over.
        for (_, lines) in
            begun.iter_mut().filter(|(name, _)| !adopted.keys().any(|one| one.as_str() == *name))
        {
            lines.iter_mut().filter(|line| !line.is_empty()).for_each(|line| line.push(b'\n'));
        }
        logs.resume(begun);
    }
    let main = former.as_ref().and_then(|former| MainProgram::adopt(former.main?).ok());
    if gives_up {
        slog::error!(
            log,
            "a bug was met again and again: everything was stopped, and nothing is supervised any more"
        );
        return main.map(|main| Start::Alone(main, signals)).ok_or_else(|| Refusal {
            line: "start it again, and report what was said above".to_owned(),
            code: BUG,
        });
    }
    let task = Task::new(
        options,
        &around,
        &opened,
        &found,
        &adopted,
        argv.as_deref().unwrap_or_default(),
        clock.now().0 / 1000,
    );
    let given_up = task.given_up();
    let mut reconciled = with_patience("reconcile", move || task.run()).unwrap_or_else(|| {
        given_up.store(true, Ordering::Relaxed);
        Reconciled::default()
    });
    reconciled.complete(&mut found);
    for warning in &reconciled.warnings {
        slog::warn!(log, "{warning}");
    }
    slog::info!(log, "{}", first_line(&report); "version" => env!("CARGO_PKG_VERSION"), "pid" => std::process::id());
    fault::point();
    if let Ok(note) = serde_json::to_value(note_to_successor(&containment, options)) {
        // The first start of a service must not come before this is on disk; the store keeps the order.
        let mut changes = vec![Change::Boot(note)];
        if kinship != Kinship::Predecessor || opened.lies != opened.lay {
            changes.push(Change::Identity(instance.clone(), opened.lies));
        }
        store.commit(0, changes);
        for early in await_commit(&notices, 0) {
            notifier.send(early);
        }
    }

    let cmd = judge_cmd(argv, options);
    let mut warnings = Vec::new();
    for warning in opened.warnings.drain(..) {
        slog::warn!(log, "{warning}");
        // The one about a volatile store goes when it recovers.
        let topic =
            if opened.volatile.as_ref().is_some_and(|why| warning.contains(why)) { STORE } else { "state" };
        warnings.push((topic, warning));
    }
    let mut supervisor = Supervisor {
        options: options.clone(),
        log: log.clone(),
        clock,
        lost_time: LostTime::default(),
        registry: registry.try_clone().map_err(|error| format!("failed to share its loop: {error}"))?,
        notices,
        notifier,
        signals,
        timer,
        fleet: Fleet::default(),
        services: BTreeMap::new(),
        inbox: Inbox::default(),
        outbox: VecDeque::new(),
        starts: Starts::default(),
        unreaped: Unreaped::default(),
        surroundings: around,
        containment,
        report,
        container: container.clone(),
        logs,
        store,
        commits: HashMap::new(),
        next_commit: 0,
        server,
        requests: Requests::default(),
        postponed: Postponed::default(),
        readiness: Readiness::default(),
        listeners: Listeners::default(),
        topology: super::topology::Topology::default(),
        planned: PlannedStops::default(),
        scopes: Scopes::default(),
        recorded_limits: super::limits::Recorded::from_rows(&opened.limits),
        main,
        shutdown: Shutdown::default(),
        upgrade: Upgrade::default(),
        panics: former.as_ref().map(|former| former.panics.clone()).unwrap_or_default(),
        warnings,
        programs: Programs::default(),
        null: dev_null().map_err(|error| format!("failed to open /dev/null: {error}"))?,
        nofile,
        instance,
        _alive: alive,
        template: found.loaded.template.clone(),
        refused: refusals(&plan, &opened),
        dormant: dormant(&opened.records, &plan),
        state_trust: found.state_trust.clone(),
        runtime_dir,
        socket,
        has_hermes,
        scanning,
        late: None,
        looking: false,
        scan: 0,
        giving_way,
        looks: 0,
        profile_life,
    };
    let (goes_on, continued) = (heritage.goes_on, former.is_some());
    let inheritance = Inheritance { lives: adopted, goes_on, continued };
    let restored = supervisor.boot_services(plan, &opened, &found, &reconciled, inheritance, &cmd);
    if let Some(closing) = former.as_ref().and_then(|former| former.closing) {
        let farewell = supervisor.farewell_of_all();
        decide!(supervisor.shutdown.resume(closing, farewell));
    }
    // What was read is not needed any more: its memory is for what the services need.
    drop((found, reconciled));
    match unfinished {
        Some(unfinished) => {
            let late = Late { opened, cmd: cmd.clone(), goes_on, continued };
            supervisor.expect_late(late, unfinished);
        }
        None => drop(opened),
    }
    supervisor.boot_fleet(restored);
    supervisor.deal();
    // The first of them before the main program; of a small fleet, all.
    supervisor.start_some();
    match former {
        None => supervisor.boot_main(cmd)?,
        Some(former) => supervisor.go_on(former),
    }
    // Somebody may have claimed the state before we listened.
    supervisor.claimed();
    // Of those that were taken over, or that fell to us, some may have ended before there was anybody to hear of it.
    supervisor.reap();
    Ok(Start::Supervise(Box::new(supervisor), poll))
}

/// What the plan could not read, with what the database wants of it.
pub(super) fn refusals(plan: &Plan, opened: &store::Opened) -> Refusals {
    let wanted = |name: &str| {
        let row = ServiceName::new(name).ok().and_then(|name| opened.wants.get(&name));
        row.map(|row| row.want)
    };
    let refusal = |(name, unreadable): (&String, &Unreadable)| {
        (name.clone(), RefusedDefinition::new(unreadable.clone(), wanted(name)))
    };
    plan.refused.iter().map(refusal).collect()
}

/// The rung in force, why not a better one, and the flag that would give it.
fn first_line(report: &containment::Report) -> String {
    let mut line = format!("containment '{}'", report.rung);
    if let Some(why) = why_not_higher(report) {
        line.push_str(&format!(" ({why})"));
    }
    if let Some(weakness) = report.weakness() {
        line.push_str(&format!("; {weakness}"));
    }
    if let Some(flag) = report.raise() {
        line.push_str(&format!("; better with {flag}"));
    }
    line
}

/// What the next supervisor on this state is told.
pub(super) fn note_to_successor(containment: &Containment, options: &Options) -> Predecessor {
    Predecessor { state: Some(options.state.clone()), ..containment.predecessor() }
}

/// Waits, bounded, until the commit is answered; returns what else was heard meanwhile.
fn await_commit(notices: &Receiver<Notice>, wanted: u64) -> Vec<Notice> {
    let mut early = Vec::new();
    loop {
        match wait_for(notices) {
            Some(Notice::Store(StoreEvent::Committed { ticket } | StoreEvent::Failed { ticket, .. }))
                if ticket == wanted =>
            {
                return early;
            }
            Some(notice) => early.push(notice),
            None => return early,
        }
    }
}

/// Does `work`, which may hang with a disk, on a thread of its own. `None`: it did not end in time, and goes on alone.
pub(super) fn with_patience<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    wait_for(&begin(name, work))
}

/// Waits for [`DISK_PATIENCE`] in which we run: while we were stopped, or the machine slept, the disk had no time either.
fn wait_for<T>(what: &Receiver<T>) -> Option<T> {
    const SLICE: Duration = Duration::from_millis(100);
    for _ in 0..DISK_PATIENCE.as_millis() / SLICE.as_millis() {
        match what.recv_timeout(SLICE) {
            Err(RecvTimeoutError::Timeout) => {}
            answered => return answered.ok(),
        }
    }
    None
}

/// Does `work` on a thread of its own and sends what comes of it; nothing, if there is no such thread.
fn begin<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
    let (sender, receiver) = channel();
    let _ = std::thread::Builder::new().name(name.to_owned()).spawn(move || drop(sender.send(work())));
    receiver
}

/// The reading of definitions and profiles, which goes on while the database is opened.
struct Finding {
    found: Receiver<Found>,
    reading: Reading,
    /// Dropped when the database is open: only then there surely is a directory of it to be judged.
    opening: Sender<()>,
}

impl Finding {
    fn begin(
        options: &Options,
        around: &Surroundings,
        has_hermes: bool,
        watch: Option<Arc<ProfileWatch>>,
    ) -> Self {
        let (dirs, state, around) = (options.services.clone(), options.state.clone(), around.clone());
        let (s6_surface, env) = (options.s6_surface, options.environment.clone());
        let (opening, opened) = channel::<()>();
        let reading = Reading::default();
        let place = reading.clone();
        let work = move || {
            let trust = || {
                let _ = opened.recv();
                trust_of(&state, &around)
            };
            watch_profiles(watch.as_deref(), &around);
            discover(&dirs, trust, &around, has_hermes, s6_surface, &env, &place)
        };
        Self { found: begin("definitions", work), reading, opening }
    }

    /// What was found. When that takes too long, or the gateways of home may be another supervisor's, only what lies
    /// elsewhere; the rest may be waited for.
    fn end(
        self,
        options: &Options,
        around: &Surroundings,
        unlocked: bool,
        log: &slog::Logger,
    ) -> (Found, Option<Unfinished>) {
        drop(self.opening);
        let elsewhere = || {
            let dirs = options.services.iter().filter(|dir| !dir.starts_with(&options.home)).cloned();
            Found::without_home(&dirs.collect::<Vec<_>>(), around)
        };
        if unlocked {
            slog::error!(
                log,
                "{} does not answer: what is defined below it is not there",
                options.home.display()
            );
            return (elsewhere(), None);
        }
        match wait_for(&self.found) {
            Some(found) => (found, None),
            None => (elsewhere(), Some(Unfinished { found: self.found, reading: self.reading })),
        }
    }
}

impl Supervisor {
    /// What was told to gateways' state files on the way out; unknown, it would hide the next wish in them.
    pub(super) fn take_last_mirrors(&mut self) {
        while let Ok(notice) = self.notices.try_recv() {
            if let Notice::Mirrored { id, name, written } = notice {
                self.mirrored(id, &name, written);
            }
        }
    }

    /// After the loop: what was written is written out, what was made is removed.
    fn say_goodbye(mut self: Box<Self>) {
        if !self.logs.finish(LAST_WORDS) {
            slog::error!(self.log, "the last log lines could not be written");
        }
        self.take_last_mirrors();
        // The disk takes what is known of the last ends while the rest is done.
        self.store.begin_to_close();
        let farewell = self.shutdown.farewell();
        let Self { mut containment, store, server, log, runtime_dir, .. } = *self;
        containment.close();
        drop(server);
        // Everything that wrote into the FIFOs has ended and was read.
        if farewell == Farewell::Host
            && let Err(error) = std::fs::remove_dir_all(&runtime_dir)
        {
            slog::debug!(log, "the runtime directory stays"; "error" => %error);
        }
        if let Err(why) = store.close(LAST_WORDS) {
            slog::error!(log, "{why}");
        }
    }
}

/// Where the bell cannot be hung the state stays here, and whoever claims it is refused after a while.
fn listen_for_claims(options: store::Options, registry: &Registry, log: &slog::Logger) -> GivingWay {
    let hung = with_patience("claims", move || Bell::hang(&options));
    let hung = hung.unwrap_or_else(|| Err(std::io::ErrorKind::TimedOut.into()));
    hung.and_then(|bell| GivingWay::listen(bell, registry)).unwrap_or_else(|error| {
        slog::warn!(log, "another container cannot take over from this one"; "error" => %error);
        GivingWay::default()
    })
}

fn alone_start(
    argv: &[OsString],
    options: &Options,
    nofile: Option<(u64, u64)>,
    signals: SignalFd,
) -> Result<Start, Refusal> {
    Ok(Start::Alone(MainProgram::start(argv, options, nofile)?, signals))
}
