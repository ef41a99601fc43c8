//! The order of the start. Up to the loop, an error refuses to start with one line; from the loop on, nothing ends
//! the process but its own orders.

use super::clock::Clock;
use super::execute::{history, want};
use super::launch::rung_of;
use super::main_program::{MainProgram, NOT_FOUND};
use super::planned::PlannedStops;
use super::readiness::Readiness;
use super::reconcile::{Reconciled, Task};
use super::reload::{Found, Plan, discover, first_want, is_profile};
use super::requests::Requests;
use super::scanning::Scanning;
use super::slots;
use super::sources::{Notifier, Room, Timer, containment_token, control_token, plain_token};
use super::status::why_not_higher;
use super::{Mode, Notice, Options, STORE, Supervisor, demo, surface};
use crate::containment::{self, Containment, Home, Predecessor, Rung, Wish};
use crate::control::server::{ListenError, Server};
use crate::core::event::{Command, Event};
use crate::core::fleet::Fleet;
use crate::core::gateway::{Restored, Want};
use crate::core::name::ServiceName;
use crate::definition::Surroundings;
use crate::definition::template::DEFAULT_PROFILE;
use crate::hermes::boot_log::{self, Action, PriorExit};
use crate::hermes::redirect::{Redirect, breadcrumb, is_dashboard, redirect};
use crate::hermes::routing::{Route, route};
use crate::log::{Container, Kind, Logs, OwnLog};
use crate::store::{self, Change, OpenError, Opened, StoreEvent};
use crate::sys::beneath::Beneath;
use crate::sys::credentials::Credentials;
use crate::sys::localtime::Local;
use crate::sys::reap;
use crate::sys::signal::SignalFd;
use mio::unix::SourceFd;
use mio::{Interest, Poll};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::Access;
use rustix::process::{Resource, Rlimit};
use slog::Drain;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// How long a start waits for a disk before it goes on without what is on it.
const DISK_PATIENCE: Duration = Duration::from_secs(5);
/// How long a start may take to end what a killed supervisor left.
const PREDECESSOR_PATIENCE: Duration = Duration::from_secs(20);
/// How long the end waits for a disk or a reader to take the last words.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Where the control socket is by default, and with it everything of this boot.
pub(super) const RUNTIME_DIR: &str = "/run/hermes-sup";

/// Boots, supervises, ends; returns the exit code. Call it on the first thread, before there is another.
pub fn run(mut options: Options, mode: Mode) -> u8 {
    std::panic::set_hook(Box::new(|info| {
        // A damaged database may make its reader panic; that is caught and reported where it happens.
        if !store::panic_is_expected() {
            let _ = rustix::io::write(std::io::stderr(), format!("hermes-sup: bug: {info}\n").as_bytes());
        }
    }));
    // A stop signal that arrives from here on is kept until the loop reads it.
    let signals = match SignalFd::block() {
        Ok(signals) => signals,
        Err(error) => return refuse(None, &format!("failed to block signals: {error}")),
    };
    let nofile = prepare_process();
    let container = match Container::start() {
        Ok(container) => container,
        Err(error) => return refuse(None, &format!("failed to start its threads: {error}")),
    };
    let demo = match options.demo.then(|| demo::prepare(&mut options)).transpose() {
        Ok(demo) => demo,
        Err(error) => return refuse(Some(&container), &format!("the demo cannot be set up: {error}")),
    };
    let log = logger(&options, &mode, &container);
    if options.s6_surface {
        let say = |line: &str| container.line(Kind::Err, format!("{line}\n").as_bytes());
        if let Err(code) = surface::prepare(&mut options, &signals, nofile, has_terminal(), &say) {
            container.finish(LAST_WORDS);
            return code;
        }
    }
    let code = match start(&options, &mode, signals, nofile, &container, &log) {
        Ok(Start::Supervise(mut supervisor, mut poll)) => {
            if let Some(demo) = &demo {
                container.line(Kind::Out, demo.welcome().as_bytes());
            }
            let code = supervisor.run(&mut poll);
            supervisor.say_goodbye();
            code
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

/// Why it does not start; one line that says what to do.
struct Refusal {
    line: String,
    code: u8,
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
            container.line(Kind::Err, text.as_bytes());
            container.finish(LAST_WORDS);
        }
        None => drop(rustix::io::write(std::io::stderr(), text.as_bytes())),
    }
    1
}

/// What this process must be before it has children. Returns the limit of open files that children get back.
fn prepare_process() -> Option<(u64, u64)> {
    // Nobody of our uid may look into us or attach to us (ptrace(2)).
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    // As PID 1 orphans come to us anyway; elsewhere this makes them (prctl(2), PR_SET_CHILD_SUBREAPER).
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let _ = rustix::process::setrlimit(Resource::Nofile, raised);
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
fn has_terminal() -> bool {
    use std::io::IsTerminal;
    std::io::stdout().is_terminal()
}

/// What becomes of the CMD.
enum Cmd {
    Main(Vec<OsString>),
    /// A gateway in the foreground; its service stays down.
    Foreground(Vec<OsString>, ServiceName),
    /// A gateway, supervised instead, with further arguments.
    Supervised(ServiceName, Vec<String>),
    None,
}

fn start(
    options: &Options,
    mode: &Mode,
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
                let line = format!(
                    "'{}' is no command here, and there is no hermes to give it to",
                    program.display()
                );
                return Err(Refusal { line, code: NOT_FOUND });
            }
        },
    };
    if let Some(argv) = argv.as_ref().filter(|argv| is_dashboard(argv)) {
        say_first(container, &boot_log::stdout_line(boot_log::DASHBOARD_CONTAINER));
        return alone_start(argv, options, nofile, signals);
    }
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

    let store_notifier = notifier.clone();
    let store_options = store::Options {
        home: options.home.clone(),
        dir: options.state.clone(),
        gid: around.gateway.gid,
        host: host_name(),
        patience: DISK_PATIENCE,
    };
    let opened = store::open(store_options, move |event| store_notifier.send(Notice::Store(event)));
    let (store, mut opened) = match (opened, &argv) {
        (Ok(opened), _) => opened,
        (Err(OpenError::Held { path, holder }), Some(argv)) if !is_gateway_run(argv, options) => {
            let holder = holder.map_or_else(String::new, |holder| format!(" ({holder})"));
            slog::warn!(
                log,
                "{} is in use by another supervisor{holder}: running the command without supervising gateways",
                path.display()
            );
            return alone_start(argv, options, nofile, signals);
        }
        (Err(error), _) => return Err(error.to_string().into()),
    };
    // After the store, which makes the state directory: the socket may have to lie in it.
    let (server, socket) = listen(options);
    let socket_dir = parent(&socket);
    let mut server = server.map_err(|error| error.to_string())?;
    server
        .register(registry, control_token)
        .map_err(|error| format!("failed to watch its socket: {error}"))?;

    let runtime_dir = private_dir(socket_dir, &opened.instance)?;
    let log_notifier = notifier.clone();
    let logs =
        Logs::start(&runtime_dir, container.clone(), move |event| log_notifier.send(Notice::Log(event)))
            .map_err(|error| format!("failed to start logging below {}: {error}", runtime_dir.display()))?;

    let scanning = options.s6_surface.then(|| {
        Scanning::watch(registry).unwrap_or_else(|error| {
            slog::warn!(log, "the scan directory is not watched"; "error" => %error);
            Scanning::default()
        })
    });
    let has_hermes = options.executable(OsStr::new("hermes"));
    let mut found = find(options, &around, has_hermes, log);
    let also: Vec<Rung> = found.loaded.services.values().filter_map(|d| rung_of(d.containment)).collect();
    let wish = Wish {
        wanted: options.rung,
        also: &also,
        instance: &opened.instance,
        runtime_dir: &runtime_dir,
        service_uid: around.gateway.uid,
    };
    let report = containment::probe(&wish).map_err(|error| error.to_string())?;
    end_predecessor(&opened, log)?;
    let task = Task::new(
        options,
        &around,
        &opened,
        &found,
        argv.as_deref().unwrap_or_default(),
        clock.now().0 / 1000,
    );
    let mut reconciled = with_patience("reconcile", move || task.run()).unwrap_or_default();
    reconciled.complete(&mut found);
    for warning in &reconciled.warnings {
        slog::warn!(log, "{warning}");
    }
    let home =
        Home { instance: &opened.instance, runtime_dir: &runtime_dir, controllers: options.controllers };
    let tokens = registry.try_clone().map_err(|error| format!("failed to share its loop: {error}"))?;
    let containment = Containment::open(report.clone(), home, tokens, containment_token)
        .map_err(|error| format!("failed to take possession of containment '{}': {error}", report.rung))?;
    slog::info!(log, "{}", first_line(&report); "version" => env!("CARGO_PKG_VERSION"), "pid" => std::process::id());
    if let Ok(note) = serde_json::to_value(containment.predecessor()) {
        // The first start of a service must not come before this is on disk; the store keeps the order.
        store.commit(0, vec![Change::Boot(note)]);
        for early in await_commit(&notices, 0) {
            notifier.send(early);
        }
    }

    let cmd = judge_cmd(argv, options, found.active.as_ref());
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
        registry: registry.try_clone().map_err(|error| format!("failed to share its loop: {error}"))?,
        notices,
        notifier,
        signals,
        timer,
        fleet: Fleet::default(),
        services: BTreeMap::new(),
        backlog: VecDeque::new(),
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
        readiness: Readiness::default(),
        planned: PlannedStops::default(),
        scopes: super::scopes::Waiting::default(),
        main: None,
        closing: None,
        warnings,
        nofile,
        instance: opened.instance.clone(),
        template: found.loaded.template.clone(),
        state_trust: found.state_trust.clone(),
        runtime_dir,
        socket,
        has_hermes,
        scanning,
        looking: false,
        scan: 0,
    };
    supervisor.boot_services(&opened, &found, &reconciled, &cmd);
    supervisor.boot_main(cmd)?;
    Ok(Start::Supervise(Box::new(supervisor), poll))
}

/// Root without the capabilities to be, and to signal, the users it is asked to run.
fn may_run_others(options: &Options, around: &Surroundings) -> Result<(), Refusal> {
    use caps::{CapSet, Capability};
    let others = around.gateway.uid != 0 || options.main_user.as_deref().is_some_and(|user| user != "root");
    if around.own_uid != 0 || !others {
        return Ok(());
    }
    let needed = [
        (Capability::CAP_SETUID, "SETUID"),
        (Capability::CAP_SETGID, "SETGID"),
        (Capability::CAP_KILL, "KILL"),
    ];
    let missing: Vec<String> = needed
        .iter()
        .filter(|(capability, _)| !caps::has_cap(None, CapSet::Effective, *capability).unwrap_or(true))
        .map(|(_, name)| format!("--cap-add {name}"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!(
        "root cannot run anything as '{}' here: start the container with {}, or with --user {}:{}",
        around.gateway.name,
        missing.join(" "),
        around.gateway.uid,
        around.gateway.gid
    )
    .into())
}

/// Home is there, and the gateway user can use it.
fn prepare_home(around: &Surroundings) -> Result<(), Refusal> {
    use std::os::unix::fs::MetadataExt;
    let (home, gateway) = (&around.home, &around.gateway);
    let shown = home.display();
    match std::fs::metadata(home) {
        Ok(meta) if !meta.is_dir() => Err(format!("{shown} is not a directory: name another --home").into()),
        Ok(meta) if around.own_uid == 0 && meta.uid() != gateway.uid => Err(format!(
            "{shown} belongs to uid {}, but gateways run as '{}' (uid {}): 'chown -R {}:{} {shown}' once, or name \
             its owner with --gateway-user",
            meta.uid(),
            gateway.name,
            gateway.uid,
            gateway.uid,
            gateway.gid
        )
        .into()),
        // A read-only volume is another matter: then services run all the same, and nothing is recorded.
        Ok(meta)
            if around.own_uid != 0
                && rustix::fs::access(home, Access::WRITE_OK | Access::EXEC_OK)
                    == Err(rustix::io::Errno::ACCESS) =>
        {
            Err(format!(
                "{shown} belongs to uid {} and cannot be written by uid {}: 'chown -R {} {shown}' once, or start as \
                 its owner",
                meta.uid(),
                around.own_uid,
                around.own_uid
            )
            .into())
        }
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let made = std::fs::create_dir_all(home)
                .and_then(|()| std::os::unix::fs::lchown(home, Some(gateway.uid), Some(gateway.gid)));
            made.map_err(|error| format!("{shown} cannot be made: {error}: name another --home").into())
        }
        Err(error) => Err(format!("{shown} cannot be used: {error}: name another --home").into()),
    }
}

/// The control socket: the one that was named, else the first default place where it can be.
fn listen(options: &Options) -> (Result<Server, ListenError>, PathBuf) {
    if let Some(path) = &options.socket {
        // A missing directory is made; if that fails, the bind says why.
        let _ = std::fs::create_dir_all(parent(path));
        return (Server::listen(path, 0o666), path.clone());
    }
    let run = Path::new(RUNTIME_DIR);
    let usable = std::fs::create_dir_all(run).is_ok()
        && rustix::fs::access(run, Access::WRITE_OK | Access::EXEC_OK).is_ok();
    if usable {
        let path = run.join("control.sock");
        return (Server::listen(&path, 0o666), path);
    }
    let path = options.state.join("control.sock");
    (Server::listen(&path, 0o660), path)
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// A directory of this instance's own for FIFOs and keepers: several supervisors may share the place of the sockets.
fn private_dir(socket_dir: &Path, instance: &str) -> Result<PathBuf, Refusal> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};
    let dir = socket_dir.join(instance.get(..12).unwrap_or(instance));
    let shown = dir.display();
    match std::fs::DirBuilder::new().mode(0o700).create(&dir) {
        Ok(()) => return Ok(dir),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => {
            return Err(format!("{shown} cannot be made: {error}: choose a place with --socket").into());
        }
    }
    let meta = std::fs::symlink_metadata(&dir).map_err(|error| format!("{shown} cannot be used: {error}"))?;
    let ours = meta.is_dir() && meta.uid() == rustix::process::geteuid().as_raw() && meta.mode() & 0o077 == 0;
    if ours {
        Ok(dir)
    } else {
        Err(format!("{shown} is in the way: remove it, or choose another place with --socket").into())
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Whatever a supervisor that was killed left on this state ends before anything starts.
fn end_predecessor(opened: &Opened, log: &slog::Logger) -> Result<(), Refusal> {
    let Some(note) = &opened.boot else { return Ok(()) };
    let predecessor: Predecessor = match serde_json::from_value(note.clone()) {
        Ok(predecessor) => predecessor,
        Err(error) => {
            slog::warn!(log, "the note of the last supervisor cannot be read"; "error" => %error);
            return Ok(());
        }
    };
    let ended =
        containment::end_predecessor(&predecessor, PREDECESSOR_PATIENCE).map_err(|e| e.to_string())?;
    if ended.cgroups + ended.keepers + ended.strays > 0 {
        slog::warn!(log, "the last supervisor was killed: ended what it left";
            "cgroups" => ended.cgroups, "keepers" => ended.keepers, "strays" => ended.strays);
    }
    while reap::next().is_ok() {}
    Ok(())
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
    if let Some(raise) = report.raise() {
        line.push_str(&format!("; better with {}", raise.docker));
    }
    line
}

/// Waits, bounded, until the commit is answered; returns what else was heard meanwhile.
fn await_commit(notices: &Receiver<Notice>, wanted: u64) -> Vec<Notice> {
    let mut early = Vec::new();
    loop {
        match notices.recv_timeout(DISK_PATIENCE) {
            Ok(Notice::Store(StoreEvent::Committed { ticket } | StoreEvent::Failed { ticket, .. }))
                if ticket == wanted =>
            {
                return early;
            }
            Ok(notice) => early.push(notice),
            Err(_) => return early,
        }
    }
}

/// Does `work`, which may hang with a disk, on a thread of its own. `None`: it did not end in time, and goes on alone.
fn with_patience<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, receiver) = channel();
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || drop(sender.send(work())));
    thread.ok().and_then(|_| receiver.recv_timeout(DISK_PATIENCE).ok())
}

/// Definitions and profiles. When the disk under home hangs, only what lies elsewhere.
fn find(options: &Options, around: &Surroundings, has_hermes: bool, log: &slog::Logger) -> Found {
    let (dirs, state, home) = (options.services.clone(), options.state.clone(), around.clone());
    let (s6_surface, env) = (options.s6_surface, options.environment.clone());
    let found =
        with_patience("definitions", move || discover(&dirs, &state, &home, has_hermes, s6_surface, &env));
    found.unwrap_or_else(|| {
        slog::error!(
            log,
            "{} does not answer: its definitions and profiles are not there",
            options.home.display()
        );
        let elsewhere = options.services.iter().filter(|dir| !dir.starts_with(&options.home)).cloned();
        Found::without_home(&elsewhere.collect::<Vec<_>>(), around)
    })
}

fn is_gateway_run(argv: &[OsString], options: &Options) -> bool {
    matches!(
        redirect(argv, |name| options.variable(name), None),
        Redirect::Supervise { .. } | Redirect::Foreground { .. }
    )
}

fn judge_cmd(argv: Option<Vec<OsString>>, options: &Options, active: Option<&ServiceName>) -> Cmd {
    let Some(argv) = argv else { return Cmd::None };
    match redirect(&argv, |name| options.variable(name), active) {
        Redirect::NotAGateway => Cmd::Main(argv),
        Redirect::Foreground { hold_down } => Cmd::Foreground(argv, hold_down),
        // The unmodified `hermes` sees an s6 and hands the gateway over itself.
        Redirect::Supervise { .. } if options.s6_surface && surface::is_visible() => Cmd::Main(argv),
        Redirect::Supervise { profile, extra_args } => Cmd::Supervised(profile, extra_args),
    }
}

impl Supervisor {
    /// All services become known and go where the database wants them.
    fn boot_services(&mut self, opened: &Opened, found: &Found, reconciled: &Reconciled, cmd: &Cmd) {
        let Plan { services, complaints } = found.plan(&opened.records, &self.surroundings);
        for complaint in complaints {
            slog::warn!(self.log, "{complaint}");
        }
        let now = self.clock.now();
        let mut restored = BTreeMap::new();
        let mut first_seen = Vec::new();
        let mut boot_lines = Vec::new();
        let mut gateways = Vec::new();
        for (name, (mut definition, record)) in services {
            let row = opened.wants.get(&name);
            let mirrored = opened.mirrored.get(&name);
            let intent = found.intent(&definition, record.as_ref(), &self.surroundings);
            let supervised = match cmd {
                Cmd::Supervised(profile, extra) if *profile == name => Some(extra),
                Cmd::Supervised(..) | Cmd::Main(_) | Cmd::Foreground(..) | Cmd::None => None,
            };
            let (mut wanted, mut cause) = match row {
                Some(row) => (want(row), None),
                None => {
                    let (first, cause) = first_want(&definition, intent);
                    (first, Some(cause))
                }
            };
            let wish = row.and_then(|row| found.outside_wish(row, mirrored, intent));
            if let Some(extra) = supervised {
                definition.command.extend(extra.iter().cloned());
                if row.is_none_or(|_| wanted == Want::Down) {
                    cause = Some("gateway run");
                }
                wanted = Want::Up;
            } else if let Some(wish) = wish {
                (wanted, cause) = (wish, Some("gateway-state"));
                let word = if wish == Want::Up { "up" } else { "down" };
                slog::info!(
                    self.log,
                    "{name}: its gateway_state.json was changed: it is wanted {word} from now on"
                );
            }
            let foreground = matches!(cmd, Cmd::Foreground(_, held) if *held == name);
            let held_back = supervised.is_none() && self.stays_down(&definition, record.as_ref());
            let in_force = if held_back { Want::Down } else { wanted };
            if is_profile(&definition) || intent.is_some() {
                let prior = found.intents.get(&name).and_then(|intent| intent.state.as_deref());
                let action =
                    if in_force == Want::Up && !foreground { Action::Started } else { Action::Registered };
                let exit = reconciled.exits.get(&name).copied().unwrap_or_default();
                // The root profile comes first, as those who read the file know it.
                let place = if name.as_str() == DEFAULT_PROFILE { 0 } else { boot_lines.len() };
                boot_lines.insert(place, (boot_log::line(&name, prior, action), exit));
                if record.is_none() {
                    let shown = if action == Action::Started { Want::Up } else { Want::Down };
                    gateways.push((name.clone(), shown));
                }
            }
            let hash = definition.hash;
            let id = self.add_service(definition, record);
            if let Some((service, extra)) = self.services.get_mut(&id).zip(supervised) {
                service.extra_args.clone_from(extra);
            }
            if foreground {
                let reason = "it runs in the foreground, as the container's main program".to_owned();
                let effects = self.fleet.hold(id, reason, now);
                self.execute(effects);
            }
            if let Some(cause) = cause {
                first_seen.push(Change::Want(name.clone(), self.want_row(id, wanted, cause)));
            }
            let known = self.know_mirror(id, wanted, mirrored, intent);
            first_seen.extend(known.map(|row| Change::Mirrored(name.clone(), row)));
            let history = opened.runs.get(&name).map(|row| history(row, hash)).unwrap_or_default();
            restored.insert(id, Restored { want: in_force, recorded: in_force == wanted, history });
        }
        if !first_seen.is_empty() {
            self.store.commit_lazily(first_seen);
        }
        if self.options.s6_surface {
            self.show_at_boot(gateways);
        }
        // An image that makes the slots of its gateways itself has told so itself, too.
        if found.surface.slots.as_ref().is_none_or(|slots| slots.gateways.is_empty()) {
            self.tell_boot(boot_lines);
        }
        let effects = self.fleet.boot(restored, now);
        self.execute(effects);
    }

    /// Shows the gateways in the scan directory before anything can look for them there, and makes their slots what they
    /// run in.
    fn show_at_boot(&mut self, gateways: Vec<(ServiceName, Want)>) {
        let around = self.surroundings.clone();
        let shown = with_patience("slots", move || slots::show(&gateways, &around));
        let shown = match shown.unwrap_or_else(|| Err(std::io::ErrorKind::TimedOut.into())) {
            Ok(shown) => shown,
            Err(error) => return slog::warn!(self.log, "gateways are not shown to 'hermes': {error}"),
        };
        for warning in shown.warnings {
            slog::warn!(self.log, "{warning}");
        }
        for (name, (slot, _)) in shown.gateways {
            let service = self.fleet.id(name.as_str()).and_then(|id| self.services.get_mut(&id));
            if let Some(service) = service.filter(|service| is_profile(&service.definition)) {
                // A slot takes no further arguments.
                if service.record.is_none() && service.extra_args.is_empty() {
                    slots::run_in(&mut service.definition, slot);
                }
            }
        }
    }

    /// One line a profile on stdout and in the boot log.
    fn tell_boot(&self, lines: Vec<(String, PriorExit)>) {
        if lines.is_empty() {
            return;
        }
        let shown: String = lines.iter().map(|(line, _)| boot_log::stdout_line(line)).collect();
        say_first(&self.container, &shown);
        let lines: Vec<String> = lines.iter().map(|(line, exit)| boot_log::file_line(line, *exit)).collect();
        let (home, user) = (self.options.home.clone(), self.surroundings.gateway.credentials());
        let unix = i64::try_from(self.clock.now().0 / 1000).unwrap_or(i64::MAX);
        let log = self.log.clone();
        let write = move || {
            let time = Local::at(unix)?.iso8601();
            boot_log::append(&Beneath::open(&home)?, &user, &time, &lines)
        };
        let done = move |result: std::io::Result<std::io::Result<()>>| {
            if let Err(error) = result.and_then(|written| written) {
                slog::warn!(log, "the boot log was not written"; "error" => %error);
            }
        };
        if let Err(refused) = self.logs.files().run(Credentials::own(), write, done) {
            slog::warn!(self.log, "the boot log was not written"; "error" => %refused);
        }
    }

    /// The main program, if the CMD is one.
    fn boot_main(&mut self, cmd: Cmd) -> Result<(), Refusal> {
        let argv = match cmd {
            Cmd::Main(argv) | Cmd::Foreground(argv, _) => argv,
            Cmd::Supervised(profile, _) => {
                let line = format!("{}\n", breadcrumb(&profile));
                self.container.line(Kind::Err, line.as_bytes());
                self.want_up_after_boot(&profile);
                return Ok(());
            }
            Cmd::None => return Ok(()),
        };
        let main = MainProgram::start(&argv, &self.options, self.nofile)?;
        self.containment.other_child(main.pid());
        main.register(&self.registry)
            .map_err(|error| format!("failed to watch the main program: {error}"))?;
        self.logs.container_stream(!has_terminal());
        self.main = Some(main);
        Ok(())
    }

    /// `gateway run` is an operator's start: a service that had failed tries again.
    fn want_up_after_boot(&mut self, profile: &ServiceName) {
        match self.fleet.id(profile.as_str()) {
            Some(id) => {
                let ticket = self.requests.own_ticket();
                self.backlog
                    .push_back((id, Event::Command { ticket, command: Command::Start { force: false } }));
            }
            None => {
                let text = format!(
                    "there is no profile '{profile}': create it with 'hermes profile create {profile}'"
                );
                self.warn("command", text);
            }
        }
    }

    /// After the loop: what was written is written out, what was made is removed.
    fn say_goodbye(self: Box<Self>) {
        let Self { containment, store, logs, server, log, runtime_dir, .. } = *self;
        containment.close();
        drop(server);
        if !logs.finish(LAST_WORDS) {
            slog::error!(log, "the last log lines could not be written");
        }
        // Everything that wrote into the FIFOs has ended and was read.
        if let Err(error) = std::fs::remove_dir_all(&runtime_dir) {
            slog::debug!(log, "the runtime directory stays"; "error" => %error);
        }
        if let Err(why) = store.close(LAST_WORDS) {
            slog::error!(log, "{why}");
        }
    }
}

/// A few lines on stdout that must not come after the first ones of the main program.
fn say_first(container: &Container, text: &str) {
    let stdout = std::io::stdout();
    let patience = Timespec { tv_sec: 1, tv_nsec: 0 };
    let mut writable = [PollFd::new(&stdout, PollFlags::OUT)];
    let free = rustix::event::poll(&mut writable, Some(&patience)).is_ok_and(|ready| ready == 1)
        && writable.iter().all(|fd| fd.revents() == PollFlags::OUT);
    // A writable pipe takes this many bytes at once (pipe(7), PIPE_BUF); the rest is the stream thread's.
    let now = if free { text.len().min(4096) } else { 0 };
    let written = rustix::io::write(&stdout, text.as_bytes().get(..now).unwrap_or_default()).unwrap_or(0);
    if let Some(rest) = text.as_bytes().get(written..).filter(|rest| !rest.is_empty()) {
        container.line(Kind::Out, rest);
    }
}

fn alone_start(
    argv: &[OsString],
    options: &Options,
    nofile: Option<(u64, u64)>,
    signals: SignalFd,
) -> Result<Start, Refusal> {
    Ok(Start::Alone(MainProgram::start(argv, options, nofile)?, signals))
}

/// An init and nothing else: signals go to the main program, children are reaped, its exit code is ours.
fn alone(mut main: MainProgram, signals: &SignalFd, log: &slog::Logger) -> u8 {
    use crate::core::signal::Signal;
    let mut asked = false;
    loop {
        while let Ok(reaped) = reap::next() {
            if let Some(Some(code)) = main.ended(reaped, None) {
                return code;
            }
        }
        let mut wait = [PollFd::new(signals, PollFlags::IN)];
        let _ = rustix::event::poll(&mut wait, None);
        while let Ok(Some(received)) = signals.read() {
            match received.signal {
                Signal::CHLD | Signal::TSTP | Signal::TTIN | Signal::TTOU => {}
                Signal::TERM | Signal::RTMIN_PLUS_3 | Signal::PWR => {
                    main.signal(if asked { Signal::KILL } else { Signal::TERM });
                    asked = true;
                }
                signal => main.signal(signal),
            }
        }
        if let Some(words) = main.reported(None) {
            slog::error!(log, "{words}");
        }
    }
}
