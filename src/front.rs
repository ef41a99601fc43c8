//! From what was typed to the room that does it. The only place where the command line meets the rooms behind it.

use hermes_sup::cli::args::{self, Command};
use hermes_sup::cli::ctl;
use hermes_sup::cli::doctor::{self, HermesCli, Ksm, Row};
use hermes_sup::cli::logs::{self, Absent, LogFiles, LogQuery};
use hermes_sup::cli::render::Console;
use hermes_sup::cli::settings::{LogLevel, Settings};
use hermes_sup::cli::{check, generate, manual};
use hermes_sup::containment::{self, Rung, Wish};
use hermes_sup::control::protocol::LogPlace;
use hermes_sup::core::words::Stream;
use hermes_sup::daemon::{self, Gateways, Mode, Options};
use hermes_sup::definition::Surroundings;
use hermes_sup::import;
use hermes_sup::log::{self, Line, Query, Reader};
use hermes_sup::s6;
use hermes_sup::sys::localtime::Zone;
use hermes_sup::sys::samepage::{self, Merging};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// Does what was typed for the applet `name`; returns the exit code.
pub(crate) fn applet(name: &'static str) -> u8 {
    let argv: Vec<OsString> = std::env::args_os().collect();
    s6::applets::applet::run(name, &argv, &|variable| std::env::var_os(variable))
}

/// Does what was typed; returns the exit code. Not part of `main`, whose frame every keeper has on its stack.
#[inline(never)]
pub(crate) fn run() -> u8 {
    let argv: Vec<OsString> = std::env::args_os().collect();
    let env = |name: &str| std::env::var_os(name);
    let mut console = Console::stdio(&env);
    let code = match env(generate::COMPLETE) {
        Some(shell) => show(&mut console, generate::complete(&shell, &argv)),
        None => match args::parse(&argv, &env) {
            Ok(command) => carry_out(command, &mut console, &env),
            Err(early) => early.show(&mut console).number(),
        },
    };
    // Output that did not arrive is a failure, of whatever command.
    if console.failed() && code == 0 { 1 } else { code }
}

fn show(console: &mut Console<'_>, made: Result<Vec<u8>, args::Early>) -> u8 {
    match made {
        Ok(bytes) => {
            console.show_bytes(&bytes);
            0
        }
        Err(early) => early.show(console).number(),
    }
}

fn carry_out(command: Command, console: &mut Console<'_>, env: &import::Env<'_>) -> u8 {
    match command {
        Command::Init { settings, command } => supervise(&settings, Mode::Init { command }),
        Command::Run(settings) => supervise(&settings, Mode::Run),
        Command::Ctl(ctl) => ctl::run(&ctl, console, &Files).number(),
        Command::Check { paths, settings } => {
            let may_be_absent = paths.is_empty();
            let paths = if may_be_absent { settings.services.clone() } else { paths };
            let search = env("PATH");
            let what = check::What { paths, may_be_absent, search };
            with_surroundings(&settings, console, |console, around| {
                let (lines, good) = check::check(&what, around);
                for line in lines {
                    console.line(&line);
                }
                u8::from(!good)
            })
        }
        Command::Doctor(settings) => {
            with_surroundings(&settings, console, |console, around| examine(console, &settings, around))
        }
        Command::Import { paths, to } => bring_in(console, &paths, to.as_deref(), env),
        Command::Completions(shell) => show(console, generate::completions(shell)),
        Command::Man(words) => show(console, manual::page(&words)),
        Command::Schema => show(console, generate::schema()),
    }
}

/// `import`: the definitions to the output or into files, everything else to the error stream.
fn bring_in(console: &mut Console<'_>, paths: &[PathBuf], to: Option<&Path>, env: &import::Env<'_>) -> u8 {
    let outcome = import::import(paths, env);
    let mut failures = outcome.failures;
    for remark in &outcome.remarks {
        console.error(remark);
    }
    for service in &outcome.services {
        let Some(dir) = to else {
            let text = format!("# file: {}.toml\n{}\n", service.name, service.text);
            if console.terminal {
                // TOML allows some characters in its strings that a terminal would act on.
                text.lines().for_each(|line| console.line(line));
            } else {
                console.show(&text);
            }
            continue;
        };
        match import::write(dir, service) {
            Ok((path, true)) => console.line(&path.display().to_string()),
            Ok((path, false)) => console.line(&format!("{}: is there already", path.display())),
            Err(error) => failures.push(format!("{}/{}.toml: {error}", dir.display(), service.name)),
        }
    }
    for failure in &failures {
        console.error(failure);
    }
    u8::from(!failures.is_empty() || console.failed())
}

fn with_surroundings(
    settings: &Settings,
    console: &mut Console<'_>,
    work: impl FnOnce(&mut Console<'_>, &Surroundings) -> u8,
) -> u8 {
    match Surroundings::now(settings.home.clone(), settings.gateway_user.as_deref()) {
        Ok(around) => work(console, &around),
        Err(error) => {
            console.error(&error.to_string());
            1
        }
    }
}

fn supervise(settings: &Settings, mode: Mode) -> u8 {
    let options = Options {
        home: settings.home.clone(),
        services: settings.services.clone(),
        state: settings.state.clone(),
        socket: settings.socket.clone(),
        rung: settings.containment,
        controllers: settings.controllers,
        gateways: if settings.gateways { Gateways::Wanted } else { Gateways::Off },
        gateway_user: settings.gateway_user.clone(),
        main_user: settings.main_user.clone(),
        stop_budget: settings.stop_budget,
        s6_surface: settings.s6_surface,
        public_status: settings.public_status,
        metrics: settings.metrics,
        demo: settings.demo,
        parallel_starts: settings.parallel_starts,
        environment: std::env::vars_os().collect(),
        log_level: match settings.log_level {
            LogLevel::Error => slog::Level::Error,
            LogLevel::Warning => slog::Level::Warning,
            LogLevel::Info => slog::Level::Info,
            LogLevel::Debug => slog::Level::Debug,
        },
        log_format: settings.log_format,
        log_prefix: settings.log_prefix,
    };
    daemon::run(options, mode)
}

/// `doctor`: the ladder, tried here and now in a place of its own.
fn examine(console: &mut Console<'_>, settings: &Settings, around: &Surroundings) -> u8 {
    let name = format!("hermes-sup-doctor.{}", std::process::id());
    // With a read-only root, /run is often the only place.
    let places = [std::env::temp_dir(), PathBuf::from("/run")].map(|dir| dir.join(&name));
    let [first, second] = &places;
    let place = if std::fs::create_dir(first).is_ok() { first } else { second };
    if place == second
        && let Err(error) = std::fs::create_dir(place)
    {
        console.error(&format!(
            "{} cannot be made: {error}: set TMPDIR to a directory that can be written",
            place.display()
        ));
        return 1;
    }
    let wish = Wish {
        wanted: settings.containment,
        also: &Rung::ALL,
        instance: "doctor",
        runtime_dir: place,
        service_uid: around.gateway.uid,
    };
    let found = containment::probe(&wish, containment::Begun::default());
    let _ = std::fs::remove_dir_all(place);
    match found {
        Ok(report) => {
            let row = |(rung, result): (Rung, Result<&'static str, &containment::Refusal>)| Row {
                rung: rung.to_string(),
                available: result.is_ok(),
                // What is below the best that works need not be had.
                flags: if result.is_err() && (rung < report.rung || rung.on_request()) {
                    containment::flags(rung)
                } else {
                    &[]
                },
                why: result.map_or_else(ToString::to_string, ToOwned::to_owned),
            };
            let rows: Vec<Row> = report.attempts().map(row).collect();
            console.show(&doctor::platform(&doctor::Platform::of(&marks()), &rows));
            console.show(&doctor::report(Some(report.rung.as_str()), &rows, console.columns));
            console.show(&doctor::ksm(&match samepage::merging() {
                Merging::Works => Ksm::Works,
                Merging::Unseen => Ksm::Unseen,
                Merging::Not(why) => Ksm::Not(why),
            }));
            // Only the image with the surface of s6 is one that Hermes asks for a supervisor.
            if let Some(found) = hermes_cli().filter(|_| settings.s6_surface) {
                console.show(&doctor::hermes_cli(&found));
            }
            0
        }
        Err(error) => {
            console.error(&error.to_string());
            1
        }
    }
}

/// What the platform has left here.
fn marks() -> doctor::Marks {
    let is_set = |variable: &str| std::env::var_os(variable).is_some();
    doctor::Marks {
        docker: Path::new("/.dockerenv").exists(),
        podman: Path::new("/run/.containerenv").exists(),
        kubernetes: is_set("KUBERNETES_SERVICE_HOST"),
        nomad: is_set("NOMAD_ALLOC_ID"),
        fly: is_set("FLY_APP_NAME"),
        container: std::env::var("container").ok().filter(|name| !name.is_empty()),
    }
}

/// The Hermes CLI on PATH, and what it takes for the init.
fn hermes_cli() -> Option<HermesCli> {
    let path = std::env::var_os("PATH")?;
    let program = std::env::split_paths(&path).map(|dir| dir.join("hermes")).find(|file| file.is_file())?;
    let mut start = Vec::new();
    File::open(&program).and_then(|file| file.take(SHIM_BYTES).read_to_end(&mut start)).ok()?;
    let init = std::fs::read_to_string("/proc/1/comm").ok()?.trim().to_owned();
    let is_shim = String::from_utf8_lossy(&start).contains("hermes-sup ctl");
    Some(HermesCli { init, program, is_shim })
}

/// Of a program, bytes that are looked at: the shim is far smaller.
const SHIM_BYTES: u64 = 64 << 10;

/// The log files, read by the client itself with the caller's own rights.
struct Files;

/// Of each log, bytes that are looked at for the last lines of a card.
const TAIL_BYTES: u64 = 8 << 20;
/// Of each line, bytes that a card shows.
const TAIL_LINE: usize = 400;

impl LogFiles for Files {
    fn tail(&self, dir: &Path, lines: usize) -> Vec<String> {
        let (home, below) = below_home(&[dir.to_owned()]);
        let query = Query { last: Some(lines), within: Some(TAIL_BYTES), ..Query::default() };
        let mut tail = Tail::default();
        // A service that never wrote has no tail.
        let _ = Reader::open(&home, &below, query, &Zone::utc(), &mut |_, _| {}).and_then(|mut reader| {
            reader.read(false, &mut |line| {
                tail.take(line);
                Ok(())
            })
        });
        tail.lines
    }

    fn read(
        &self,
        places: &[LogPlace],
        query: &LogQuery,
        handed: &mut dyn FnMut(usize) -> io::Result<Vec<logs::Handed>>,
        absent: &mut dyn FnMut(usize, Absent),
        each: &mut dyn FnMut(Line<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let dirs: Vec<PathBuf> = places.iter().map(|place| place.dir.clone()).collect();
        log::with_access(&below_home(&dirs).0, &dirs, || hand_over(places, query, handed, absent, each))
    }
}

/// Gives all that is found in the logs to `each`.
fn hand_over(
    places: &[LogPlace],
    query: &LogQuery,
    handed: &mut dyn FnMut(usize) -> io::Result<Vec<logs::Handed>>,
    absent: &mut dyn FnMut(usize, Absent),
    each: &mut dyn FnMut(Line<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let wanted = Query {
        last: query.last,
        within: None,
        since: query.since,
        until: query.until,
        stream: query.stream,
    };
    let dirs: Vec<PathBuf> = places.iter().map(|place| place.dir.clone()).collect();
    let (home, below) = below_home(&dirs);
    let zone = logs::zone(places);
    let mut closed = Vec::new();
    let mut reader = Reader::open(&home, &below, wanted, &zone, &mut |source, why| match why {
        Absent::Unreadable(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            closed.push((source, error));
        }
        why => absent(source, why),
    })?;
    for (source, error) in closed {
        match handed(source) {
            Ok(files) => {
                if !reader.hand(source, files)? {
                    absent(source, Absent::Empty);
                }
            }
            // Why it could not be opened is what the caller can do something about.
            Err(_) => absent(source, Absent::Unreadable(error)),
        }
    }
    reader.read(query.follow, each)?;
    if query.follow {
        let stdout = io::stdout();
        reader.follow(Some(stdout.as_fd()), &mut |source| handed(source).unwrap_or_default(), each)?;
    }
    Ok(())
}

/// All are `<home>/logs/gateways/NAME`. Below home no link is followed, for it is the gateways' to plant them.
fn below_home(dirs: &[PathBuf]) -> (PathBuf, Vec<PathBuf>) {
    let home = dirs.first().and_then(|dir| dir.ancestors().nth(3)).unwrap_or(Path::new("/"));
    let below = dirs.iter().map(|dir| dir.strip_prefix(home).unwrap_or(dir).to_owned()).collect();
    (home.to_owned(), below)
}

/// The last lines for a card, each cut where it would flood it.
#[derive(Default)]
struct Tail {
    lines: Vec<String>,
    /// Bytes of the line under the hand.
    length: usize,
}

impl Tail {
    fn take(&mut self, line: Line<'_>) {
        if line.begins {
            let mark = if line.stream == Stream::Err { " !" } else { "  " };
            let head = if line.time.is_empty() { String::new() } else { format!("{}{mark}", line.time) };
            let text = String::from_utf8_lossy(line.text.get(..TAIL_LINE).unwrap_or(line.text));
            self.lines.push(format!("{head}{text}"));
            self.length = 0;
        }
        self.length += line.text.len();
        if line.ends
            && self.length > TAIL_LINE
            && let Some(last) = self.lines.last_mut()
        {
            last.push_str(&format!("… (a line of {} bytes)", self.length));
        }
    }
}
