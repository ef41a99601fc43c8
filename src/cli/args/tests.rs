//! What the command line means, and what is said when it is wrong.

use super::*;
use crate::cli::logs::LogQuery;
use crate::control::protocol::{Code, Program, Registration, Request, SignalName, Targets, Until};
use crate::core::signal::Signal;
use crate::core::words::Stream;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

fn line(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

fn parsed(words: &[&str]) -> Result<Command, Early> {
    parse(&line(words), &|_| None)
}

fn request(words: &[&str]) -> Request {
    let words = [&["/usr/bin/hermes-sup", "ctl"], words].concat();
    match parsed(&words) {
        Ok(Command::Ctl(ctl)) => ctl.verb.request(),
        other => panic!("{words:?}: {other:?}"),
    }
}

fn names(list: &[&str]) -> Targets {
    Targets::Names(list.iter().map(|name| (*name).to_owned()).collect())
}

#[test]
fn init_takes_options_up_to_the_first_word_or_dashes() {
    let table: [(&[&str], &str, &[&str]); 12] = [
        (&["hermes-sup", "init"], "/opt/data", &[]),
        (&["hermes-sup", "init", "sleep", "1"], "/opt/data", &["sleep", "1"]),
        (&["hermes-sup", "init", "--home", "/x", "--", "cmd", "-x"], "/x", &["cmd", "-x"]),
        (
            &["hermes-sup", "init", "--home", "/x", "cmd", "-x", "--home", "/y"],
            "/x",
            &["cmd", "-x", "--home", "/y"],
        ),
        (
            &["hermes-sup", "init", "sh", "-c", "true", "--", "a"],
            "/opt/data",
            &["sh", "-c", "true", "--", "a"],
        ),
        (&["hermes-sup", "init", "--", "--version"], "/opt/data", &["--version"]),
        (&["hermes-sup", "init", "--", "a", "--", "b"], "/opt/data", &["a", "--", "b"]),
        (&["hermes-sup", "init", "hermes", "--help"], "/opt/data", &["hermes", "--help"]),
        (&["/init"], "/opt/data", &[]),
        (&["/init", "--version"], "/opt/data", &["--version"]),
        (&["/init", "--", "x"], "/opt/data", &["--", "x"]),
        (&["init", "--home", "/x", "run"], "/opt/data", &["--home", "/x", "run"]),
    ];
    for (words, home, expected) in table {
        match parsed(words) {
            Ok(Command::Init { settings, command }) => {
                assert_eq!(settings.home, Path::new(home), "{words:?}");
                assert_eq!(command, line(expected), "{words:?}");
            }
            other => panic!("{words:?}: {other:?}"),
        }
    }
}

#[test]
fn the_command_of_init_need_not_be_utf_8() {
    use std::os::unix::ffi::OsStringExt;
    let raw = OsString::from_vec(b"\xff".to_vec());
    for first in [&["hermes-sup", "init"][..], &["/init"]] {
        let words = [line(first), vec![raw.clone()]].concat();
        let Ok(Command::Init { command, .. }) = parse(&words, &|_| None) else { panic!("{words:?}") };
        assert_eq!(command, std::slice::from_ref(&raw));
    }
}

#[test]
fn options_and_environment_meet_in_the_settings() {
    let env = |name: &str| match name {
        "HERMES_SUP_DEMO" => Some(OsString::from("1")),
        "HERMES_HOME" => Some(OsString::from("/h")),
        _ => None,
    };
    let Ok(Command::Run(settings)) = parse(&line(&["hermes-sup", "run"]), &env) else { panic!() };
    assert!(settings.demo);
    assert_eq!(settings.home, Path::new("/h"));
    let words = [
        "hermes-sup",
        "run",
        "--services",
        "/a",
        "--services",
        "/b",
        "--controllers",
        "none",
        "--containment",
        "keeper-same-uid",
        "--stop-budget",
        "1500ms",
        "--log-format",
        "json",
        "--public-status",
    ];
    let Ok(Command::Run(settings)) = parsed(&words) else { panic!() };
    assert_eq!(settings.services, [Path::new("/a"), Path::new("/b")]);
    assert_eq!(settings.containment, Some(crate::core::words::Rung::KeeperSameUid));
    assert_eq!(settings.stop_budget, Duration::from_millis(1500));
    assert!(!settings.controllers && settings.public_status && !settings.demo);
    let Ok(Command::Init { settings, .. }) = parse(&line(&["/init"]), &env) else { panic!() };
    assert!(!settings.demo, "only run has it");
}

#[test]
fn each_verb_asks_for_what_was_typed() {
    let table: [(&[&str], Request); 31] = [
        (
            &["set", "a", "memory_max=1G", "oom=default", "--persist"],
            Request::Set {
                targets: names(&["a"]),
                limits: [("memory_max", "1G"), ("oom", "default")]
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .into(),
                persist: true,
            },
        ),
        (
            &["start", "a", "b"],
            Request::Start { targets: names(&["a", "b"]), timeout_ms: None, force: false },
        ),
        (
            &["start", "--all", "--timeout", "5", "--force"],
            Request::Start { targets: Targets::All, timeout_ms: Some(5000), force: true },
        ),
        (&["stop", "a"], Request::Stop { targets: names(&["a"]) }),
        (&["--json", "stop", "--all"], Request::Stop { targets: Targets::All }),
        (
            &["restart", "a", "--rolling", "2"],
            Request::Restart { targets: names(&["a"]), timeout_ms: None, rolling: Some(2) },
        ),
        (&["once", "a"], Request::Once { targets: names(&["a"]), timeout_ms: None }),
        (&["status"], Request::Status { targets: Targets::All }),
        (&["status", "a"], Request::Status { targets: names(&["a"]) }),
        (&["status", "--failed", "a*"], Request::Status { targets: names(&["a*"]) }),
        (&["healthcheck"], Request::Status { targets: Targets::All }),
        (&["healthcheck", "a"], Request::Status { targets: names(&["a"]) }),
        (&["list"], Request::List {}),
        (&["freeze", "a"], Request::Freeze { targets: names(&["a"]) }),
        (&["thaw", "--all"], Request::Thaw { targets: Targets::All }),
        (&["tree"], Request::Tree { targets: Targets::All }),
        (&["tree", "a"], Request::Tree { targets: names(&["a"]) }),
        (&["audit", "a"], Request::Audit { targets: names(&["a"]) }),
        (&["unregister", "a"], Request::Unregister { targets: names(&["a"]) }),
        (
            &["kill", "a"],
            Request::Kill { targets: names(&["a"]), signal: SignalName(Signal::TERM), tree: false },
        ),
        (
            &["kill", "a", "hup", "--tree"],
            Request::Kill { targets: names(&["a"]), signal: SignalName(Signal::HUP), tree: true },
        ),
        (
            &["wait", "a", "--ready", "--timeout", "1m"],
            Request::Wait { targets: names(&["a"]), until: Until::Ready, timeout_ms: Some(60_000) },
        ),
        (
            &["wait", "a", "--up"],
            Request::Wait { targets: names(&["a"]), until: Until::Up, timeout_ms: None },
        ),
        (
            &["wait", "--all", "--down"],
            Request::Wait { targets: Targets::All, until: Until::Down, timeout_ms: None },
        ),
        (&["reload"], Request::Reload { restart: false }),
        (&["reload", "--restart"], Request::Reload { restart: true }),
        (&["shutdown"], Request::Shutdown { code: None }),
        (&["shutdown", "--code", "3"], Request::Shutdown { code: Some(3) }),
        (&["upgrade"], Request::Upgrade { program: None }),
        (&["upgrade", "/new"], Request::Upgrade { program: Some("/new".into()) }),
        (&["logs", "a", "-f"], Request::LogPlaces { targets: names(&["a"]) }),
    ];
    for (words, expected) in table {
        assert_eq!(request(words), expected, "{words:?}");
    }
}

#[test]
fn register_takes_a_command_or_a_profile() {
    let plain = Registration {
        name: "a".to_owned(),
        user: None,
        env: BTreeMap::new(),
        down: false,
        program: Program::Argv(vec!["sleep".to_owned(), "--json".to_owned(), "--".to_owned()]),
    };
    assert_eq!(request(&["register", "a", "--", "sleep", "--json", "--"]), Request::Register(plain.clone()));
    assert_eq!(
        request(&[
            "register",
            "a",
            "--user",
            "u",
            "--env",
            "K=V=W",
            "--env",
            "E=",
            "--down",
            "--profile",
            "/p"
        ]),
        Request::Register(Registration {
            user: Some("u".to_owned()),
            env: [("K".to_owned(), "V=W".to_owned()), ("E".to_owned(), String::new())].into(),
            down: true,
            program: Program::Profile("/p".into()),
            ..plain
        })
    );
    let Request::Register(relative) = request(&["register", "a", "--profile", "p"]) else { panic!() };
    let Program::Profile(dir) = relative.program else { panic!() };
    assert!(dir.is_absolute() && dir.ends_with("p"), "the supervisor has another working directory");
}

#[test]
fn logs_knows_which_lines() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    let query = |words: &[&str]| match parsed(&[&["hermes-sup", "ctl", "logs", "a"], words].concat()) {
        Ok(Command::Ctl(ctl)) => ctl.verb.log_query(now),
        other => panic!("{other:?}"),
    };
    assert_eq!(query(&[]), Some(LogQuery::default()));
    assert_eq!(
        query(&["-f", "-n", "5", "--since", "1m", "--stream", "err"]),
        Some(LogQuery {
            last: Some(5),
            since: Some(now - Duration::from_secs(60)),
            stream: Some(Stream::Err),
            follow: true,
            ..LogQuery::default()
        })
    );
    // As everybody does: the end of it, not the whole history.
    let followed = LogQuery { last: Some(10), follow: true, ..LogQuery::default() };
    assert_eq!(query(&["-f"]), Some(followed));
    assert_eq!(query(&["-f", "--since", "1m"]).and_then(|query| query.last), None);
    let until = Some(now - Duration::from_secs(5));
    assert_eq!(query(&["--until", "5s"]), Some(LogQuery { until, ..LogQuery::default() }));
    assert!(parsed(&["hermes-sup", "ctl", "logs", "a", "-f", "--until", "5s"]).is_err());
    assert_eq!(Verb::List.log_query(now), None);
}

#[test]
fn import_takes_paths_and_where_to_write() {
    let paths = vec![PathBuf::from("a"), PathBuf::from("/b")];
    let expected = Command::Import { paths: paths.clone(), to: None };
    assert_eq!(parsed(&["hermes-sup", "import", "a", "/b"]), Ok(expected));
    let expected = Command::Import { paths, to: Some(PathBuf::from("d")) };
    assert_eq!(parsed(&["hermes-sup", "import", "a", "/b", "--to", "d"]), Ok(expected));
    assert_eq!(parsed(&["hermes-sup", "import"]).unwrap_err().code, Code::Usage);
}

#[test]
fn ctl_options_may_stand_on_either_side_of_the_verb() {
    for words in [
        &["hermes-sup", "ctl", "--socket", "/s", "--json", "stop", "a"][..],
        &["hermes-sup", "ctl", "stop", "a", "--socket", "/s", "--json"],
    ] {
        let Ok(Command::Ctl(ctl)) = parsed(words) else { panic!("{words:?}") };
        assert_eq!((ctl.search.explicit, ctl.json), (Some("/s".into()), true), "{words:?}");
    }
}

#[test]
fn a_plain_command_means_what_the_parser_makes_of_it() {
    use std::os::unix::ffi::OsStringExt;
    let names: [&[&str]; 10] = [
        &[],
        &["a"],
        &["a", "b"],
        &[""],
        &["help"],
        &["stop"],
        &["a=b"],
        &["-a"],
        &["a", "--all"],
        &["a", "--"],
    ];
    // Before the verb and at the end.
    let options: [[&[&str]; 2]; 13] = [
        [&[], &[]],
        [&["--json"], &[]],
        [&[], &["--json"]],
        [&["--json"], &["--json"]],
        [&["--socket", "/s"], &[]],
        [&[], &["--socket", "/s"]],
        [&["--socket=/s"], &["--json"]],
        [&["--socket=/s"], &["--socket=/s"]],
        [&["--socket"], &[]],
        [&[], &["--socket"]],
        [&["--socket="], &[]],
        [&["--socket", ""], &[]],
        [&["--socket", "--json"], &[]],
    ];
    let verbs = definition().find_subcommand("ctl").unwrap().clone();
    let verbs: Vec<&str> = verbs.get_subcommands().map(clap::Command::get_name).chain(["x", "-x"]).collect();
    let mut understood = std::collections::BTreeSet::new();
    let compare = |words: Vec<OsString>| {
        let Some(plain) = plain::command(&words) else { return false };
        match read(&words, &|_| None) {
            Ok(Command::Ctl(Ctl { search, json, verb })) => {
                assert_eq!(plain, Plain { socket: search.explicit, json, verb }, "{words:?}");
            }
            other => panic!("{words:?}: {other:?}"),
        }
        true
    };
    for (verb, [before, after]) in verbs.iter().flat_map(|verb| options.map(|options| (*verb, options))) {
        for names in names {
            if compare(line(&[&["ctl"], before, &[verb], names, after].concat())) {
                understood.insert(verb);
            }
        }
    }
    assert_eq!(Vec::from_iter(understood), ["healthcheck", "list", "restart", "start", "status", "stop"]);
    for [_, after] in options {
        compare(line(&[&["healthcheck"], after].concat()));
    }
    for plain in [
        &["healthcheck"][..],
        &["healthcheck", "--json"],
        &["ctl", "--socket", "/s", "--json", "status", "a"],
        &["ctl", "stop", "a", "b", "--socket=/s"],
    ] {
        assert!(compare(line(plain)), "{plain:?}");
    }
    for other in [&["run", "status", "a"][..], &["ctl"], &[]] {
        assert!(!compare(line(other)), "{other:?}");
    }
    assert!(!compare([line(&["ctl", "stop"]), vec![OsString::from_vec(b"\xff".to_vec())]].concat()));
}

#[test]
fn a_mistake_is_one_line_with_a_hint_and_code_2() {
    let table: [(&[&str], &str); 17] = [
        (&["hermes-sup"], "a command is missing: try 'hermes-sup --help'"),
        (&["hermes-sup", "ctl"], "a command is missing: try 'hermes-sup ctl --help'"),
        (&["hermes-sup", "stat"], "unrecognized subcommand 'stat': try 'hermes-sup --help'"),
        (
            &["hermes-sup", "ctl", "staus"],
            "unrecognized subcommand 'staus' (some similar subcommands exist: 'start', 'status'): try 'hermes-sup ctl --help'",
        ),
        (
            &["hermes-sup", "init", "--bogus", "sleep"],
            "unexpected argument '--bogus' found (to pass '--bogus' as a value, use '-- --bogus'): \
             try 'hermes-sup init --help'",
        ),
        (
            &["hermes-sup", "init", "--demo"],
            "unexpected argument '--demo' found (to pass '--demo' as a value, use '-- --demo'): \
             try 'hermes-sup init --help'",
        ),
        (&["hermes-sup", "run", "extra"], "unexpected argument 'extra' found: try 'hermes-sup run --help'"),
        (
            &["hermes-sup", "run", "--stop-budget", "soon"],
            "invalid value 'soon' for '--stop-budget <DURATION>': use a duration as in 500ms, 30s or 1h30m: \
             try 'hermes-sup run --help'",
        ),
        (
            &["hermes-sup", "run", "--containment", "jail"],
            "invalid value 'jail' for '--containment <RUNG>' [possible values: auto, cgroup, cgroup-private, pidns, \
             keeper, keeper-same-uid]: try 'hermes-sup run --help'",
        ),
        (
            &["hermes-sup", "ctl", "stop"],
            "the following required arguments were not provided: <NAME>...: try 'hermes-sup ctl stop --help'",
        ),
        (
            &["hermes-sup", "ctl", "stop", "a", "--all"],
            "the argument '[NAME]...' cannot be used with '--all': try 'hermes-sup ctl stop --help'",
        ),
        (
            &["hermes-sup", "ctl", "wait", "a"],
            "the following required arguments were not provided: <--up|--ready|--down>: \
             try 'hermes-sup ctl wait --help'",
        ),
        (
            &["hermes-sup", "ctl", "wait", "a", "--up", "--down"],
            "the argument '--up' cannot be used with '--down': try 'hermes-sup ctl wait --help'",
        ),
        (
            &["hermes-sup", "ctl", "register", "a"],
            "the following required arguments were not provided: --profile <DIR>: \
             try 'hermes-sup ctl register --help'",
        ),
        (
            &["hermes-sup", "ctl", "kill", "a", "BANG"],
            "invalid value 'BANG' for '[SIG]': use a signal as in SIGTERM, TERM or 15: \
             try 'hermes-sup ctl kill --help'",
        ),
        (
            &["hermes-sup", "ctl", "shutdown", "--code", "256"],
            "invalid value '256' for '--code <N>': 256 is not in 0..=255: \
             try 'hermes-sup ctl shutdown --help'",
        ),
        (&["hermes-sup", "ctl", "restart", "a", "--rolling", "0"], "invalid value '0' for '--rolling <N>'"),
    ];
    let mut wrong = Vec::new();
    for (words, text) in table {
        let early = parsed(words).unwrap_err();
        assert_eq!(early.code, Code::Usage, "{words:?}");
        assert!(!early.text.contains('\n'), "{:?}", early.text);
        if !early.text.starts_with(text) {
            wrong.push(format!("{words:?}:\n  {}\n  {text}", early.text));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn help_and_version_are_no_mistakes() {
    for (words, text) in [
        (&["hermes-sup", "--version"][..], concat!("hermes-sup ", env!("CARGO_PKG_VERSION"), "\n")),
        (&["hermes-sup", "--help"], "Keeps gateways running as their owner wants"),
        (&["hermes-sup", "ctl", "stop", "--help"], "Want down, and wait until every process is gone"),
    ] {
        let early = parsed(words).unwrap_err();
        assert_eq!(early.code, Code::Done);
        assert!(early.text.starts_with(text), "{}", early.text);
    }
}

#[test]
fn clap_finds_no_fault_in_the_definitions() {
    parser().debug_assert();
}
