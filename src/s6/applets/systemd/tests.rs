//! Command lines of `systemd-run` and `systemctl`, and what is said to those that are refused.

use super::ctl::{Control, properties, shown};
use super::run::{Run, bytes};
use super::*;
use crate::control::protocol::OomPolicy;
use crate::s6::applets::applet::tests::told;

fn words(text: &str) -> Vec<OsString> {
    text.split(' ').filter(|word| !word.is_empty()).map(OsString::from).collect()
}

fn run_of(text: &str) -> Result<Run, WordsError> {
    Run::parse(&words(text))
}

fn control_of(text: &str) -> Result<Control, WordsError> {
    Control::parse(&words(text))
}

#[test]
fn the_gateways_own_command_line_is_understood() {
    let run = run_of(
        "--user --scope --quiet --unit hermes-worker-proc_1 --collect --property MemoryAccounting=yes \
         --property MemoryMax=4294967296 --property OOMPolicy=kill -- /bin/bash -lic --user",
    )
    .unwrap();
    assert_eq!(run.unit.to_string(), "hermes-worker-proc_1.scope");
    assert!(run.quiet);
    assert_eq!(run.bounds.memory_max, Some(4 << 30));
    assert_eq!((run.bounds.swap_max, run.bounds.oom), (None, OomPolicy::Kill));
    assert_eq!(run.command, words("/bin/bash -lic --user"));
}

#[test]
fn the_other_spellings_of_the_same_are_understood() {
    let run = run_of(
        "--user --scope --unit=a.scope -pMemoryMax=2G -p MemorySwapMax=0 --property=OOMPolicy=continue \
         --description=x -p TimeoutStopSec=5s sleep 1 --quiet",
    )
    .unwrap();
    assert_eq!(run.unit.to_string(), "a.scope");
    assert!(!run.quiet, "what follows the command belongs to it");
    assert_eq!((run.bounds.memory_max, run.bounds.swap_max), (Some(2 << 30), Some(0)));
    assert_eq!(run.bounds.oom, OomPolicy::Continue);
    assert_eq!(run.command, words("sleep 1 --quiet"));
}

#[test]
fn everything_else_is_one_clear_line() {
    for (text, said) in [
        ("", "only 'systemd-run --user --scope"),
        ("--scope --unit a -- x", "only 'systemd-run --user --scope"),
        ("--user --unit a -- x", "only 'systemd-run --user --scope"),
        ("--user --scope -- x", "name the scope with --unit"),
        ("--user --scope --unit a", "the command is missing"),
        ("--user --scope --unit a --", "the command is missing"),
        ("--user --scope --unit a/b -- x", "'a/b' cannot be the name of a scope"),
        ("--user --scope --unit", "--unit needs a value"),
        ("--user=yes --scope --unit a -- x", "--user takes no value"),
        ("--user --scope --slice=b --unit a -- x", "--slice is not supported"),
        ("--user --scope -t --unit a -- x", "-t is not supported"),
        ("--user --scope --unit a -p CPUQuota=10% -- x", "property 'CPUQuota=10%' is not supported"),
        ("--user --scope --unit a -p MemoryMax=lots -- x", "use a number of bytes"),
        ("--user --scope --unit a -p MemoryMax=50% -- x", "use a number of bytes"),
        ("--user --scope --unit a -p MemoryMax=99999999T -- x", "use a number of bytes"),
        ("--user --scope --unit a -p MemoryMax -- x", "NAME=VALUE"),
        ("--user --scope --unit a -p OOMPolicy=panic -- x", "use kill, stop or continue"),
        ("--user --scope --unit a -p MemoryAccounting=perhaps -- x", "use yes or no"),
    ] {
        let line = run_of(text).unwrap_err().to_string();
        assert!(line.contains(said) && !line.contains('\n'), "{text}: {line}");
    }
    for text in [
        "",
        "--user",
        "stop a.scope",
        "--user restart hermes-gateway",
        "is-system-running",
        "--user is-system-running",
        "--user kill a.scope",
        "--user --now stop a.scope",
    ] {
        let line = control_of(text).unwrap_err().to_string();
        assert!(line.contains("not supported") && !line.contains('\n'), "{text}: {line}");
    }
    for text in ["--user stop", "--user stop a b"] {
        assert!(control_of(text).unwrap_err().to_string().contains("name one unit"), "{text}");
    }
}

#[test]
fn what_fails_is_one_line_and_the_exit_code() {
    let env = |name: &str| (name == "HERMES_SUP_SOCKET").then(|| "/no/such/socket".into());
    for (main, name, words, code, line) in [
        (
            systemd_run as fn(&mut Call<'_>) -> u8,
            "systemd-run",
            &["--user", "--scope", "--unit", "a", "--", "x"][..],
            1,
            "systemd-run: no supervisor answers at /no/such/socket",
        ),
        (systemd_run, "systemd-run", &["--user"], 1, "systemd-run: only 'systemd-run --user --scope"),
        (
            systemctl,
            "systemctl",
            &["--user", "stop", "a.scope"],
            1,
            "systemctl: failed to stop a.scope: no supervisor answers",
        ),
        (
            systemctl,
            "systemctl",
            &["--user", "stop", "a.service"],
            5,
            "systemctl: failed to stop a.service: Unit a.service not loaded.",
        ),
        (
            systemctl,
            "systemctl",
            &["is-system-running"],
            1,
            "systemctl: 'is-system-running' is not supported",
        ),
    ] {
        let (got, out, err) = told(main, name, words, &env);
        assert_eq!((got, out.as_str()), (code, ""), "{words:?}: {err}");
        assert!(err.starts_with(line) && err.lines().count() == 1, "{words:?}: {err}");
    }
    let show = ["--user", "show", "a.service", "--property", "LoadState"];
    let (code, out, err) = told(systemctl, "systemctl", &show, &env);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "LoadState=not-found\n", ""));
}

#[test]
fn no_error_can_be_taken_for_a_scope_that_is_gone() {
    let none = Search { explicit: Some("/no/such/socket".into()), state: "/".into() };
    let silent = Client::connect(&none).unwrap_err().to_string();
    let other = control_of("--user restart x").unwrap_err().to_string();
    for line in [silent, other] {
        for word in ["not loaded", "not found", "does not exist"] {
            assert!(!line.to_lowercase().contains(word), "{line}");
        }
    }
}

#[test]
fn options_of_systemctl_may_stand_anywhere() {
    assert_eq!(control_of("--user stop a.scope"), Ok(Control::Stop { unit: "a.scope".to_owned() }));
    let show = Control::Show {
        unit: "a".to_owned(),
        properties: vec!["LoadState".to_owned(), "ActiveState".to_owned(), "ControlGroup".to_owned()],
        value_only: true,
    };
    assert_eq!(
        control_of("show --user --property LoadState,ActiveState a -p ControlGroup --value --no-pager"),
        Ok(show)
    );
}

#[test]
fn what_is_shown_is_what_was_asked_for() {
    let scope = ScopeStatus {
        unit: "w.scope".to_owned(),
        service: "coder".to_owned(),
        stopping: false,
        control_group: Some("/c".to_owned()),
        procs: 3,
        memory_bytes: None,
        memory_max: Some(5),
        swap_max: None,
        not_in_force: Vec::new(),
        adopt_orphans: false,
    };
    let all = properties("w", Some(&scope));
    let wanted = words("MemoryMax Nonsense LoadState MemorySwapMax MemoryCurrent");
    let wanted: Vec<String> = wanted.into_iter().map(|word| word.into_string().unwrap()).collect();
    assert_eq!(
        shown(&all, &wanted, false),
        "MemoryMax=5\nLoadState=loaded\nMemorySwapMax=infinity\nMemoryCurrent=[not set]\n"
    );
    assert_eq!(shown(&all, &["ControlGroup".to_owned()], true), "/c\n");
    assert_eq!(shown(&all, &[], false).lines().count(), all.len());
    let ending = properties("w", Some(&ScopeStatus { stopping: true, ..scope }));
    assert!(shown(&ending, &[], false).contains("ActiveState=deactivating\n"));
    let none = shown(&properties("x.scope", None), &[], false);
    assert!(none.starts_with(
        "Id=x.scope\nLoadState=not-found\nActiveState=inactive\nSubState=dead\nControlGroup=\n"
    ));
}

#[test]
fn sizes_are_base_1024() {
    assert_eq!(bytes("0"), Some(Some(0)));
    assert_eq!(bytes("512M"), Some(Some(512 << 20)));
    assert_eq!(bytes("1T"), Some(Some(1 << 40)));
    assert_eq!(bytes("infinity"), Some(None));
    for wrong in ["", "-1", "1.5G", "M", "1Q", "0x10", "18446744073709551616"] {
        assert_eq!(bytes(wrong), None, "{wrong}");
    }
}
