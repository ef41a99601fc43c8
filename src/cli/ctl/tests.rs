//! `ctl` against a supervisor that answers as the test says.

use super::*;

use crate::cli::args::{Command, parse};
use crate::cli::logs::{self, Absent, LogQuery};
use crate::control::codec::{FrameBuffer, decode_request, encode_reply};
use crate::control::protocol::{
    LogPlace, Refusal, RefusalKind, Reply, Request, ServiceStatus, State, StatusDocument, Targets, Tree,
    TreesDocument, samples,
};
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
    let told = tell(&["status", "coder"], vec![supervisor(), service(samples::service("coder")), Reply::End]);
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
    let told = tell(&["--json", "status", "b"], vec![supervisor(), service(samples::down("b")), Reply::End]);
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
            vec![supervisor(), service(samples::service("coder")), service(samples::down("b")), Reply::End]
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
    let one = || Targets::Names(vec!["a".to_owned()]);
    let start = |timeout_ms| Request::Start { targets: one(), timeout_ms, force: false };
    assert_eq!(patience(&start(None)), Some(Duration::from_secs(40)));
    assert_eq!(patience(&start(Some(1000))), Some(Duration::from_secs(11)));
    assert!(patience(&start(Some(u64::MAX))).is_some(), "no overflow");
    let of_all = Request::Start { targets: targets(), timeout_ms: None, force: false };
    assert_eq!(
        patience(&of_all),
        None,
        "they may start in turns, of which the caller does not know the number"
    );
}
