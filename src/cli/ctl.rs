//! `hermes-sup ctl`: asks, waits, shows one line for each service as its answer comes, and ends with the exit code
//! that says what came of it. Interrupted, it ends by the signal; what it asked for goes on without it.

use super::args::{Ctl, Verb};
use super::logs::{self, LogFiles};
use super::pattern::PatternError;
use super::render::{Console, printable};
use super::{audit, events, healthcheck, pattern, status, top, tree};
use crate::control::client::{Client, ClientError};
use crate::control::protocol::{
    Audit, AuditDocument, Code, Deadline, LogPlace, Outcome, Part, Refusal, RefusalKind, Request,
    ResultsDocument, ServiceStatus, StatusDocument, SupervisorStatus, Targets, Tree, TreesDocument, VERSION,
};
use crate::monitor::{chart, prometheus, verdict};
use crate::sys::localtime::Zone;
use serde::Serialize;
use std::ops::ControlFlow;
use std::time::{Duration, SystemTime};

/// How long the supervisor may take for anything that it need not wait for itself.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Log lines on a card.
const CARD_LINES: usize = 10;

/// Carries out one `ctl` command.
pub fn run(ctl: &Ctl, console: &mut Console<'_>, files: &dyn LogFiles) -> Code {
    let mut answer = Answer::default();
    let verb = &ctl.verb;
    if let Verb::Healthcheck { asked } = verb {
        return healthcheck::run(ctl, &asked.names, asked.profile.as_deref(), console);
    }
    if let Verb::Top { once, interval } = verb {
        return top::run(ctl, *once, *interval, console, files);
    }
    let called = Client::connect(&ctl.search).map_err(Unanswered::from).and_then(|mut client| {
        let request = meant(&mut client, verb)?;
        client.listen(&request, patience(&request), |part| {
            match &part {
                // The line for a service appears when its answer does; documents are shown as a whole at the end.
                Part::Outcome(outcome) if !outcome.ok || !ctl.json => show_outcome(console, outcome),
                Part::Event(event) => events::show(console, event, ctl.json),
                Part::Lost(lost) => events::show_lost(console, *lost, ctl.json),
                _ => {}
            }
            // What was asked for goes on, and has a result; a stream is nothing without its reader.
            let streams = matches!(part, Part::Event(_) | Part::Lost(_));
            answer.take(part);
            if streams && console.has_ended() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(())
    });
    // Nothing was asked for: there is nothing to show.
    let connected =
        !matches!(called, Err(Unanswered::Pattern(_) | Unanswered::Client(ClientError::NoSupervisor(_))));
    let mut codes: Vec<Code> = answer.results.iter().map(outcome_code).collect();
    if let Err(error) = &called {
        console.error(&error.to_string());
        codes.push(error.code());
    }
    if connected {
        codes.push(show(ctl, called.is_ok(), answer, console, files));
    }
    if console.failed() {
        codes.push(Code::Failed);
    }
    Code::common(codes)
}

/// Why there is no answer, or not all of it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Pattern(#[from] PatternError),
}

impl Unanswered {
    fn code(&self) -> Code {
        match self {
            Self::Client(error) => error.code(),
            Self::Pattern(error) => error.code(),
        }
    }
}

/// The request of a verb, with names for patterns.
fn meant(client: &mut Client, verb: &Verb) -> Result<Request, Unanswered> {
    let request = verb.request();
    let request = match request.targets() {
        Some(Targets::Names(words)) => {
            let targets = targets(client, words)?;
            request.about(targets)
        }
        Some(Targets::All) | None => request,
    };
    match verb {
        Verb::Tree { failed: true, .. } => {
            let mut names = Vec::new();
            let status = Request::Status { targets: request.targets().cloned().unwrap_or(Targets::All) };
            client.call(&status, Some(PATIENCE), |part| match part {
                Part::Service(service) if verdict::has_failed(&service) => names.push(service.name),
                _ => {}
            })?;
            Ok(request.about(Targets::Names(names)))
        }
        _ => Ok(request),
    }
}

/// What these words stand for. Only where there is a pattern among them, the supervisor is asked.
pub(super) fn targets(client: &mut Client, words: &[String]) -> Result<Targets, Unanswered> {
    if !words.iter().any(|word| pattern::is_pattern(word)) {
        return Ok(Targets::Names(words.to_vec()));
    }
    let mut known = Vec::new();
    client.call(&Request::List {}, Some(PATIENCE), |part| {
        if let Part::Name(name) = part {
            known.push(name);
        }
    })?;
    Ok(Targets::Names(pattern::expand(words, &known)?))
}

/// Everything that an answer can hold.
#[derive(Debug, Default)]
struct Answer {
    supervisor: Option<SupervisorStatus>,
    services: Vec<ServiceStatus>,
    results: Vec<Outcome>,
    names: Vec<String>,
    places: Vec<LogPlace>,
    trees: Vec<Tree>,
    audits: Vec<Audit>,
}

impl Answer {
    fn take(&mut self, part: Part) {
        match part {
            Part::Supervisor(supervisor) => self.supervisor = Some(*supervisor),
            Part::Service(service) => self.services.push(*service),
            Part::Outcome(outcome) => self.results.push(outcome),
            Part::Name(name) => self.names.push(name),
            Part::LogPlace(place) => self.places.push(place),
            Part::Tree(part) => tree::join(&mut self.trees, part),
            Part::Audit(audit) => self.audits.push(*audit),
            // They were shown as they came.
            Part::Event(_) | Part::Lost(_) => {}
            // It is asked for by its own call.
            Part::LogFile(_) => {}
            // No verb asks for one.
            Part::Scope(_) => {}
        }
    }
}

/// Shows what is left to show at the end. `complete`: the answer was.
fn show(
    ctl: &Ctl,
    complete: bool,
    mut answer: Answer,
    console: &mut Console<'_>,
    files: &dyn LogFiles,
) -> Code {
    let (verb, json) = (&ctl.verb, ctl.json);
    match verb {
        Verb::Status { names, failed } => {
            if *failed {
                answer.services.retain(verdict::has_failed);
            }
            return show_status(names, *failed, json, complete, answer, console, files);
        }
        Verb::Metrics => {
            if let Some(supervisor) = answer.supervisor.filter(|_| complete) {
                console.show(&prometheus::text(&supervisor, &answer.services));
            }
        }
        Verb::Boot { svg } => return show_boot(*svg, json, complete, &answer.services, console),
        Verb::Logs { .. } => return show_logs(ctl, &answer.places, console, files),
        Verb::Tree { .. } if json => {
            document(console, &TreesDocument { version: VERSION, services: answer.trees });
        }
        Verb::Tree { failed: true, .. } if answer.trees.is_empty() => console.line("nothing has failed"),
        Verb::Tree { .. } => console.show_rows(&tree::show(&answer.trees)),
        Verb::Audit { .. } if json => {
            document(console, &AuditDocument { version: VERSION, services: answer.audits });
        }
        Verb::Audit { .. } => console.show(&audit::show(&answer.audits, console.columns)),
        Verb::Events { .. } => {}
        Verb::List if json => document(console, &NamesDocument { version: VERSION, names: answer.names }),
        Verb::List => {
            let lines: String = answer.names.iter().map(|name| format!("{}\n", printable(name))).collect();
            console.show(&lines);
        }
        _ if json => document(console, &ResultsDocument { version: VERSION, results: answer.results }),
        Verb::Reload { .. } if complete && answer.results.is_empty() => console.line("nothing changed"),
        Verb::Shutdown { .. } if complete => console.line("shutting down"),
        Verb::Upgrade { .. } if complete => console.line("upgraded"),
        _ => {}
    }
    Code::Done
}

fn show_status(
    names: &[String],
    failed: bool,
    json: bool,
    complete: bool,
    answer: Answer,
    console: &mut Console<'_>,
    files: &dyn LogFiles,
) -> Code {
    let Some(supervisor) = answer.supervisor else {
        if complete {
            let refusal = Refusal::new(RefusalKind::Malformed, "the supervisor's answer has no status in it");
            console.error(&refusal.to_string());
            return Code::Failed;
        }
        return Code::Done;
    };
    let services = answer.services;
    let not_up =
        !names.is_empty() && !failed && services.iter().any(|service| !service.state.does_its_work());
    if json {
        document(console, &StatusDocument { version: VERSION, supervisor, services });
    } else {
        let header = status::header(&supervisor);
        match (names, &services[..]) {
            ([name], [service]) if !pattern::is_pattern(name) => {
                let tail = service.log.as_deref().map(|dir| files.tail(dir, CARD_LINES)).unwrap_or_default();
                console.show_rows(&header);
                console.show(&status::card(service, &tail, console.color, Zone::own(), console.columns));
            }
            // Named, and none found: the errors have said so.
            ([_, ..], []) if !failed => {}
            (_, []) if failed => console.show_rows(&(header + "nothing has failed\n")),
            _ => console.show_rows(&(header + &status::table(&services, console.color, console.columns))),
        }
    }
    if not_up { Code::NotUp } else { Code::Done }
}

fn show_boot(
    svg: bool,
    json: bool,
    complete: bool,
    services: &[ServiceStatus],
    console: &mut Console<'_>,
) -> Code {
    match chart::chart(services) {
        _ if !complete => {}
        None => {
            console.error("this supervisor has not started any service");
            return Code::Failed;
        }
        Some(chart) if json => document(console, &BootDocument { version: VERSION, boot: &chart }),
        Some(chart) if svg => console.show(&chart::svg(&chart)),
        Some(chart) => console.show_rows(&chart::text(&chart)),
    }
    Code::Done
}

#[derive(Serialize)]
struct BootDocument<'a> {
    version: u32,
    #[serde(flatten)]
    boot: &'a chart::Chart<'a>,
}

fn show_logs(ctl: &Ctl, places: &[LogPlace], console: &mut Console<'_>, files: &dyn LogFiles) -> Code {
    let Some(query) = ctl.verb.log_query(SystemTime::now()).filter(|_| !places.is_empty()) else {
        return Code::Done;
    };
    // Where the way to the files is closed to a service's own user, the supervisor opens them.
    let mut handed = |place: &LogPlace| {
        let mut client = Client::connect(&ctl.search).map_err(std::io::Error::other)?;
        client.log_files(&place.name, Some(PATIENCE)).map_err(std::io::Error::other)
    };
    let kind = match logs::show(console, files, places, &query, &mut handed, ctl.json) {
        Ok(None) => return Code::Done,
        Ok(Some(kind)) => kind,
        Err(error) => {
            console.error(&format!("failed to read the log: {error}"));
            error.kind()
        }
    };
    match kind {
        std::io::ErrorKind::PermissionDenied => Code::NotPermitted,
        _ => Code::Failed,
    }
}

#[derive(Serialize)]
struct NamesDocument {
    version: u32,
    names: Vec<String>,
}

pub(super) fn document(console: &mut Console<'_>, document: &impl Serialize) {
    match serde_json::to_string(document) {
        Ok(text) => console.show(&format!("{text}\n")),
        Err(error) => console.error(&format!("cannot be put into JSON: {error}")),
    }
}

fn show_outcome(console: &mut Console<'_>, outcome: &Outcome) {
    let name = &outcome.name;
    let state = outcome.state.map_or("done", |state| state.as_str());
    match (outcome.ok, outcome.message.as_deref()) {
        (true, words) => console.line(&format!("{name}: {}", words.unwrap_or(state))),
        // It names the service itself.
        (false, Some(sentence)) => console.error(sentence),
        (false, None) => console.error(&format!("'{name}': not done, it is {state}")),
    }
}

fn outcome_code(outcome: &Outcome) -> Code {
    match (outcome.ok, outcome.code) {
        (true, _) => Code::Done,
        (false, Code::Done) => Code::Failed,
        (false, code) => code,
    }
}

/// How long to bear the supervisor's silence: longer than it waits itself, as it gives up first and says why. What ends when
/// process trees end has no bound.
fn patience(request: &Request) -> Option<Duration> {
    let waits = match request.deadline() {
        Deadline::AtOnce => Some(Duration::ZERO),
        Deadline::Never | Deadline::CallersEach(_) => None,
        deadline @ (Deadline::After(_) | Deadline::Callers(_)) => deadline.after(request.timeout()),
    };
    waits.map(|waits| waits.saturating_add(PATIENCE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Command, parse};
    use crate::cli::logs::{Absent, LogQuery};
    use crate::control::codec::{FrameBuffer, decode_request, encode_reply};
    use crate::control::protocol::{Reply, State, samples};
    use crate::core::line::Line;
    use crate::core::words::Stream;
    use std::ffi::OsString;
    use std::io::{self, Read, Write};
    use std::os::unix::net::UnixListener;
    use std::path::Path;

    /// What one `ctl` command did against a supervisor that answers with given replies.
    struct Told {
        code: Code,
        out: String,
        err: String,
        asked: Option<Request>,
    }

    struct NoFiles;

    impl LogFiles for NoFiles {
        fn tail(&self, dir: &Path, lines: usize) -> Vec<String> {
            vec![format!("last {lines} of {}", dir.display())]
        }
        fn read(
            &self,
            places: &[LogPlace],
            query: &LogQuery,
            _: &mut dyn FnMut(usize) -> io::Result<Vec<logs::Handed>>,
            _: &mut dyn FnMut(usize, Absent),
            each: &mut dyn FnMut(Line<'_>) -> io::Result<()>,
        ) -> io::Result<()> {
            assert_eq!(query.last, Some(1));
            for source in 0..places.len() {
                let (begins, ends) = (true, true);
                each(Line { source, time: "t", stream: Stream::Out, text: b"hello", begins, ends })?;
            }
            Ok(())
        }
    }

    fn tell(words: &[&str], replies: Vec<Reply>) -> Told {
        tell_on(None, words, replies)
    }

    /// On a terminal of that width.
    fn tell_on(columns: Option<usize>, words: &[&str], replies: Vec<Reply>) -> Told {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut input, mut chunk) = (FrameBuffer::default(), [0; 512]);
            let request = loop {
                if let Some(frame) = input.next_frame().unwrap() {
                    break decode_request(frame).unwrap();
                }
                let got = stream.read(&mut chunk).unwrap();
                assert_eq!(input.push(&chunk[..got]), got);
            };
            for reply in replies {
                stream.write_all(&encode_reply(&reply).unwrap()).unwrap();
            }
            request
        });
        let mut told = alone_on(columns, words, &path);
        told.asked = Some(server.join().unwrap());
        told
    }

    fn alone(words: &[&str], socket: &Path) -> Told {
        alone_on(None, words, socket)
    }

    fn alone_on(columns: Option<usize>, words: &[&str], socket: &Path) -> Told {
        let words = [&["hermes-sup", "ctl", "--socket", socket.to_str().unwrap()], words].concat();
        let words: Vec<OsString> = words.into_iter().map(OsString::from).collect();
        let Ok(Command::Ctl(ctl)) = parse(&words, &|_| None) else { panic!("{words:?}") };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut console = Console::new(&mut out, &mut err);
        console.columns = columns;
        let code = run(&ctl, &mut console, &NoFiles);
        drop(console);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Told { code, out: text(out), err: text(err), asked: None }
    }

    fn outcome(outcome: Outcome) -> Reply {
        Reply::Part(Part::Outcome(outcome))
    }

    fn supervisor() -> Reply {
        Reply::Part(Part::Supervisor(Box::new(samples::supervisor())))
    }

    fn service(service: ServiceStatus) -> Reply {
        Reply::Part(Part::Service(Box::new(service)))
    }

    const HEADER: &str = "supervisor pid 1, up 2h13m, containment keeper ('hermes-sup doctor' says more)\n";

    #[test]
    fn a_verb_prints_a_line_for_each_service_and_ends_with_their_common_code() {
        let unknown = crate::control::naming::unknown("typo", ["tipo"], true);
        let told = tell(
            &["start", "a", "b", "c", "typo"],
            vec![
                outcome(Outcome::done("a", State::Up, None)),
                outcome(Outcome::done("b", State::Ready, Some("already ready".to_owned()))),
                outcome(Outcome::failed("typo", Code::NoSuchService, None, unknown)),
                outcome(Outcome::failed(
                    "c",
                    Code::TimedOut,
                    Some(State::Starting),
                    "'c': not up after 30 s:\nsee 'ctl status c'",
                )),
                Reply::End,
            ],
        );
        assert_eq!(told.out, "a: up\nb: already ready\n");
        assert_eq!(
            told.err,
            "hermes-sup: no such gateway 'typo' (did you mean 'tipo'?): register it with \
             'hermes profile create typo' or 'hermes-sup ctl register typo -- COMMAND'\n\
             hermes-sup: 'c': not up after 30 s:\\nsee 'ctl status c'\n"
        );
        assert_eq!(told.code, Code::Failed, "4 and 7 have nothing in common");
        assert!(matches!(told.asked, Some(Request::Start { .. })));
    }

    #[test]
    fn the_common_code_of_like_failures_is_theirs() {
        let failed = |name: &str| {
            outcome(Outcome::failed(name, Code::TimedOut, Some(State::Down), format!("'{name}': late")))
        };
        let done = outcome(Outcome::done("c", State::Up, None));
        let told = tell(&["wait", "a", "b", "c", "--up"], vec![failed("a"), done, failed("b"), Reply::End]);
        assert_eq!((told.code, told.out.as_str()), (Code::TimedOut, "c: up\n"));
        assert_eq!(told.err, "hermes-sup: 'a': late\nhermes-sup: 'b': late\n");
    }

    #[test]
    fn json_of_a_verb_is_one_document_and_errors_stay_on_stderr() {
        let told = tell(
            &["stop", "--all", "--json"],
            vec![
                outcome(Outcome::done("a", State::Down, None)),
                outcome(Outcome::failed(
                    "b",
                    Code::Failed,
                    Some(State::Down),
                    "'b' is stopped, but not recorded: disk full",
                )),
                Reply::End,
            ],
        );
        assert_eq!(
            told.out,
            concat!(
                r#"{"version":1,"results":[{"name":"a","ok":true,"code":0,"state":"down","message":null},"#,
                r#"{"name":"b","ok":false,"code":1,"state":"down","message":"'b' is stopped, but not recorded: disk full"}]}"#,
                "\n"
            )
        );
        assert_eq!(told.err, "hermes-sup: 'b' is stopped, but not recorded: disk full\n");
        assert_eq!(told.code, Code::Failed);
        assert_eq!(told.asked, Some(Request::Stop { targets: Targets::All }));
    }

    #[test]
    fn a_refusal_is_its_line_and_its_code() {
        let refusal = Refusal::new(RefusalKind::NotPermitted, "not permitted to reload: you are uid 7");
        let told = tell(&["reload"], vec![Reply::Refused(refusal)]);
        assert_eq!((told.code, told.out.as_str()), (Code::NotPermitted, ""));
        assert_eq!(told.err, "hermes-sup: not permitted to reload: you are uid 7\n");
    }

    #[test]
    fn nobody_answers() {
        let dir = tempfile::tempdir().unwrap();
        for words in [&["status"][..], &["--json", "stop", "a"]] {
            let told = alone(words, &dir.path().join("s"));
            assert_eq!((told.code, told.out.as_str()), (Code::NoSupervisor, ""));
            assert_eq!(
                told.err,
                format!(
                    "hermes-sup: no supervisor answers at {}/s: start one with 'hermes-sup run', or name its socket \
                     with --socket\n",
                    dir.path().display()
                )
            );
        }
    }

    #[test]
    fn a_supervisor_that_ends_in_the_middle_is_an_error_after_what_was_told() {
        let told = tell(&["stop", "a", "b"], vec![outcome(Outcome::done("a", State::Down, None))]);
        assert_eq!((told.code, told.out.as_str()), (Code::Failed, "a: down\n"));
        assert!(told.err.contains("ended the connection before the answer was complete"), "{}", told.err);
    }

    #[test]
    fn status_of_all_is_a_table_and_ends_with_0_whatever_is_down() {
        let told = tell(
            &["status"],
            vec![supervisor(), service(samples::service("coder")), service(samples::down("b")), Reply::End],
        );
        assert_eq!(
            told.out,
            [
                HEADER,
                "NAME   WANT  STATE  PID  UPTIME  RESTARTS  MEMORY  REASON\n",
                "coder  up    up      42    1m5s         2   12.3M  -\n",
                "b      down  down     -       -         0       -  -\n",
            ]
            .concat()
        );
        assert_eq!((told.code, told.err.as_str()), (Code::Done, ""));
    }

    #[test]
    fn status_of_one_is_a_card_with_the_end_of_its_log_and_3_unless_up() {
        let told =
            tell(&["status", "coder"], vec![supervisor(), service(samples::service("coder")), Reply::End]);
        assert!(told.out.starts_with(&format!("{HEADER}coder: up for 1m5s, want up\n")), "{}", told.out);
        assert!(told.out.ends_with("    last 10 of /opt/data/logs/gateways/coder\n"), "{}", told.out);
        assert_eq!(told.code, Code::Done);

        let told = tell(&["status", "b"], vec![supervisor(), service(samples::down("b")), Reply::End]);
        assert_eq!(told.out, [HEADER, "b: down, want down\n  restarts     0\n"].concat());
        assert_eq!((told.code, told.err.as_str()), (Code::NotUp, ""));
    }

    #[test]
    fn status_of_nobody_is_4_and_its_line_only() {
        let line = crate::control::naming::unknown("typo", [], true);
        let told = tell(
            &["status", "typo"],
            vec![
                supervisor(),
                outcome(Outcome::failed("typo", Code::NoSuchService, None, line.clone())),
                Reply::End,
            ],
        );
        assert_eq!((told.code, told.out.as_str()), (Code::NoSuchService, ""));
        assert_eq!(told.err, format!("hermes-sup: {line}\n"));
    }

    #[test]
    fn json_status_is_the_document() {
        let told =
            tell(&["--json", "status", "b"], vec![supervisor(), service(samples::down("b")), Reply::End]);
        let document: StatusDocument = serde_json::from_str(&told.out).unwrap();
        assert_eq!(document.services, [samples::down("b")]);
        assert_eq!((document.version, document.supervisor), (1, samples::supervisor()));
        assert_eq!(told.code, Code::NotUp);
    }

    #[test]
    fn a_tree_that_came_in_parts_is_shown_as_one() {
        let whole = samples::tree();
        let (first, rest) = whole.processes.split_at(1);
        let part = |processes: &[_], left_out| {
            let name = whole.name.clone();
            Reply::Part(Part::Tree(Tree { name, processes: processes.to_vec(), left_out }))
        };
        let parts = || vec![part(first, 0), part(rest, 7), Reply::End];
        let told = tell(&["tree", "coder"], parts());
        assert_eq!(
            told.out,
            concat!(
                "coder\n",
                "PID  USER    S   RSS  COMMAND\n",
                " 42  hermes  S  1.0M  sh -c x\n",
                " 43  hermes  S  1.0M  ├─ cat\n",
                " 44  hermes  S  1.0M  └─ sleep 1  (hermes-worker-1.scope)\n",
                "and 7 more\n",
            )
        );
        let document: TreesDocument = serde_json::from_str(&tell(&["--json", "tree"], parts()).out).unwrap();
        assert_eq!(document.services, [Tree { left_out: 7, ..whole }]);
    }

    /// A command of 200 characters broke the lines of a tree in the middle, and the first line of `status` was three.
    #[test]
    fn on_a_terminal_whatever_is_shown_fits() {
        let mut tree = samples::tree();
        tree.processes[1].command = "python3 -c ".to_owned() + &"x".repeat(200);
        for columns in [80, 50, 20] {
            let words = |name: &str| Reply::Part(Part::Tree(Tree { name: name.to_owned(), ..tree.clone() }));
            let audit = Reply::Part(Part::Audit(Box::new(samples::audit("coder"))));
            let all = || {
                vec![
                    supervisor(),
                    service(samples::service("coder")),
                    service(samples::down("b")),
                    Reply::End,
                ]
            };
            for (verb, replies) in [
                (&["tree"][..], vec![words("coder"), Reply::End]),
                (&["audit"], vec![audit, Reply::End]),
                (&["status"], all()),
            ] {
                let told = tell_on(Some(columns), verb, replies.clone());
                let longest = told.out.lines().map(|line| line.chars().count()).max().unwrap_or(0);
                assert!(longest <= columns, "{columns}:\n{}", told.out);
                let whole = tell(verb, replies);
                assert!(!whole.out.contains('…'), "whatever is no terminal has it all");
            }
        }
    }

    #[test]
    fn list_reload_shutdown_and_logs() {
        let name = |name: &str| Reply::Part(Part::Name(name.to_owned()));
        assert_eq!(tell(&["list"], vec![name("a"), name("b"), Reply::End]).out, "a\nb\n");
        let told = tell(&["list", "--json"], vec![name("a"), name("b"), Reply::End]);
        assert_eq!(told.out, "{\"version\":1,\"names\":[\"a\",\"b\"]}\n");
        assert_eq!(tell(&["reload"], vec![Reply::End]).out, "nothing changed\n");
        assert_eq!(tell(&["shutdown"], vec![Reply::End]).out, "shutting down\n");
        let place = |name: &str| {
            Reply::Part(Part::LogPlace(LogPlace { name: name.to_owned(), dir: "/l".into(), tz: None }))
        };
        let told = tell(&["logs", "a", "bb", "-n", "1"], vec![place("a"), place("bb"), Reply::End]);
        assert_eq!((told.code, told.out.as_str()), (Code::Done, "a  | t  hello\nbb | t  hello\n"));
    }

    #[test]
    fn what_has_no_bound_of_its_own_is_waited_for_without_one() {
        let targets = || Targets::All;
        assert_eq!(patience(&Request::Stop { targets: targets() }), None);
        assert_eq!(patience(&Request::Status { targets: targets() }), Some(Duration::from_secs(10)));
        let start = |timeout_ms| Request::Start { targets: targets(), timeout_ms, force: false };
        assert_eq!(patience(&start(None)), Some(Duration::from_secs(40)));
        assert_eq!(patience(&start(Some(1000))), Some(Duration::from_secs(11)));
        assert!(patience(&start(Some(u64::MAX))).is_some(), "no overflow");
    }
}
