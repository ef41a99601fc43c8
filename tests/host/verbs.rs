//! What an operator types, and what comes back.

use crate::harness::setup::{ALICE, HERMES, Place};
use crate::harness::{Setup, World, wait};
use serde_json::{Value, json};

crate::on_every_rung!(a_service_goes_through_its_life);

fn a_service_goes_through_its_life(setup: Setup) {
    let rung = setup.rung.name();
    let first_in_container = setup.place == Place::Pid1 && rung.starts_with("cgroup");
    let mut world = World::new(setup);
    world.adversary("coder", "pause", "autostart = false");
    let supervisor = world.start();

    let down = world.status("coder");
    assert_eq!((&down["want"], &down["state"], &down["pid"]), (&json!("down"), &json!("down"), &Value::Null));
    world.assert_no_survivors("before any start");

    world.ctl(&["start", "coder"]).ok();
    let up = world.status("coder");
    assert_eq!((&up["want"], &up["state"]), (&json!("up"), &json!("up")));
    assert_eq!(up["containment"], json!(rung), "{}", world.stderr());
    assert_eq!(world.marked("pause").len(), 1);
    let inner = world.marked("pause")[0].inner;
    assert_eq!(up["pid"], json!(inner));
    assert_eq!(world.marked("pause")[0].uid, HERMES);
    assert!(world.ctl(&["start", "coder"]).ok().contains("already"));
    assert_eq!(world.status("coder")["pid"], json!(inner), "already up means untouched");

    world.ctl(&["restart", "coder"]).ok();
    assert_eq!(world.marked("pause").len(), 1);
    assert_ne!(world.status("coder")["pid"], json!(inner));

    world.ctl(&["stop", "coder"]).ok();
    world.assert_no_survivors("after stop");
    assert!(world.ctl(&["stop", "coder"]).ok().contains("already"));
    assert_eq!((world.want("coder"), world.state("coder")), ("down".into(), "down".into()));

    world.ctl(&["restart", "coder"]).ok();
    assert_eq!(
        (world.want("coder"), world.state("coder")),
        ("up".into(), "up".into()),
        "restart of what is down starts it"
    );

    world.ctl(&["shutdown"]).ok();
    let mut supervisor = supervisor;
    assert_eq!(supervisor.ends(), crate::harness::End::Code(0), "{}", world.stderr());
    world.assert_no_survivors("after shutdown");
    // As the first process of a container with a cgroup of its own, it leaves the empty directories to the engine that removes that.
    let is_left = |dir: &std::path::PathBuf| {
        let events = std::fs::read_to_string(dir.join("cgroup.events")).unwrap_or_default();
        !first_in_container || !events.contains("populated 0")
    };
    let mut left = world.cgroups().into_iter().filter(|dir| dir.to_string_lossy().contains("coder."));
    assert_eq!(left.find(is_left), None);
}

#[test]
fn names_several_names_and_all() {
    let mut world = World::new(Setup::plain());
    for name in ["alpha", "beta", "gamma"] {
        world.adversary(name, "pause", "autostart = false");
    }
    let _supervisor = world.start();
    assert_eq!(world.ctl(&["list"]).ok(), "alpha\nbeta\ngamma\n");

    let lines = world.ctl(&["start", "alpha", "gateway-beta"]).ok();
    assert_eq!(lines.lines().count(), 2, "one line a service: {lines}");
    assert_eq!(["alpha", "beta", "gamma"].map(|name| world.state(name)), ["up", "up", "down"]);

    let table = world.ctl(&["status"]).ok();
    let table: Vec<_> = table.lines().skip_while(|line| !line.starts_with("NAME")).collect();
    let head: Vec<_> = table.first().map(|head| head.split_whitespace().collect()).unwrap_or_default();
    assert_eq!(head, ["NAME", "WANT", "STATE", "PID", "UPTIME", "RESTARTS", "MEMORY", "REASON"]);
    assert_eq!(table.len(), 4, "a line for each");

    world.ctl(&["stop", "--all"]).ok();
    world.assert_no_survivors("after stop --all");
    world.ctl(&["start", "--all"]).ok();
    assert_eq!(world.marked("pause").len(), 3);

    let mixed = world.ctl(&["stop", "alpha", "nobody"]);
    assert_eq!(mixed.code, 4, "the failures' common code: {mixed:?}");
    assert_eq!(world.state("alpha"), "down", "the others are done all the same");
}

#[test]
fn exit_codes_are_the_documented_ones() {
    let mut world = World::new(Setup::plain());
    world.adversary("tipo", "pause", "autostart = false");
    world.define("missing", "command = [\"/no/such/program\"]\nautostart = false\n");
    world.adversary("deaf", "ignore-term", "autostart = false\n[stop]\ntimeout = \"500ms\"");
    let supervisor = world.start();

    let unknown = world.ctl(&["start", "typo"]).fails(4);
    assert_eq!(
        unknown,
        "hermes-sup: no such service 'typo' (did you mean 'tipo'?): define it in typo.toml, then 'hermes-sup ctl reload', \
         or 'hermes-sup ctl register typo -- COMMAND'\n"
    );
    assert_eq!(world.ctl(&["status", "tipo"]).code, 3);
    world.ctl(&["start", "tipo"]).ok();
    assert_eq!(world.ctl(&["status", "tipo"]).code, 0);
    world.ctl(&["frobnicate"]).fails(2);
    world.ctl(&["start"]).fails(2);
    assert!(world.ctl(&["start", "missing"]).fails(1).contains("/no/such/program"));
    world.ctl(&["wait", "missing", "--up", "--timeout", "100ms"]).fails(7);
    world.ctl(&["kill", "tipo", "NOSUCHSIGNAL"]).fails(2);
    for bad in ["Ty po", "../x", "UPPER", ""] {
        let answer = world.ctl(&["start", bad]);
        assert!([2, 4].contains(&answer.code), "{answer:?}");
    }
    for reserved in ["supervisor", "gateway", "main-hermes", "dashboard"] {
        assert!(world.ctl(&["register", reserved, "--", "/bin/true"]).fails(1).contains(reserved));
    }

    let no_one = world.exec(&supervisor, 0, &["/hermes-sup", "ctl", "--socket", "/tmp/none.sock", "list"]);
    no_one.fails(5);
    world.ctl(&["start", "deaf"]).ok();
    world.wait_log("deaf", "ready");
    world.ctl(&["stop", "deaf"]).ok();
    assert_eq!(world.state("deaf"), "down", "an end after our own signal is no failure");
}

#[test]
fn json_has_the_documented_shape() {
    let mut world = World::new(Setup::plain());
    world.adversary("alpha", "pause", "").adversary("beta", "pause", "autostart = false");
    let _supervisor = world.start();
    world.ctl(&["wait", "alpha", "--up"]).ok();

    let document = world.ctl(&["--json", "status"]).json();
    assert_eq!(document["version"], json!(1));
    assert!(document["supervisor"].is_object());
    assert_eq!(document["services"].as_array().map(Vec::len), Some(2));
    let one = world.ctl(&["--json", "status", "beta"]);
    assert_eq!(one.code, 3);
    assert_eq!(one.json()["services"].as_array().map(Vec::len), Some(1), "always an array");

    let service = world.status("alpha");
    for key in [
        "name",
        "kind",
        "want",
        "state",
        "reason",
        "pid",
        "since",
        "ready_since",
        "uptime_ms",
        "restarts",
        "next_retry_ms",
        "last_exit",
        "containment",
        "procs",
        "memory_bytes",
        "memory_peak_bytes",
        "cpu_ms",
        "io",
        "pressure",
        "log",
        "limits",
        "definition",
    ] {
        assert!(service.get(key).is_some(), "{key} is there, if only as null: {service}");
    }
    assert_eq!(service["procs"], json!(1));
    assert!(service["memory_bytes"].as_u64().is_some_and(|bytes| bytes > 4096), "{service}");
    let since = service["since"].as_str().unwrap_or_default();
    assert!(since.ends_with('Z') && since.contains('T'), "RFC 3339 in UTC: {since}");
    assert!(service["uptime_ms"].is_u64());

    let results = world.ctl(&["--json", "stop", "alpha", "nobody"]);
    let results = results.json();
    assert_eq!(results["version"], json!(1));
    let outcomes = results["results"].as_array().cloned().unwrap_or_default();
    let find =
        |name: &str| outcomes.iter().find(|each| each["name"] == json!(name)).cloned().unwrap_or_default();
    assert_eq!((&find("alpha")["ok"], &find("alpha")["code"]), (&json!(true), &json!(0)));
    assert_eq!((&find("nobody")["ok"], &find("nobody")["code"]), (&json!(false), &json!(4)));
    assert_eq!(find("alpha")["state"], json!("down"));
}

#[test]
fn once_runs_without_restart_and_leaves_want_alone() {
    let mut world = World::new(Setup::plain());
    world.adversary("job", "exit-after 50 3", "autostart = false");
    let _supervisor = world.start();
    world.ctl(&["once", "job"]).ok();
    world.wait_log("job", "ready");
    let after = world.wait_state("job", &["down", "failed", "finished"]);
    assert_eq!(after["want"], json!("down"));
    assert_eq!(after["last_exit"]["code"], json!(3), "{after}");
    assert_eq!(world.log("job").matches("ready").count(), 1);
}

#[test]
fn register_keeps_a_record_and_unregister_takes_it_away() {
    let mut world = World::new(Setup::plain());
    let supervisor = world.start();
    let mark = world.mark.clone();
    let register = |rest: &[&str]| {
        let mut words = vec!["register", "worker", "--user", "hermes", "--env", "COLOUR=blue"];
        words.extend_from_slice(rest);
        world.ctl(&words)
    };
    register(&["--", "/adversary", "print-env", &mark]).ok();
    world.ctl(&["wait", "worker", "--up"]).ok();
    world.wait_log("worker", "ready");
    assert!(world.log_lines("worker").contains(&"env COLOUR=blue".to_owned()), "{}", world.log("worker"));
    assert_eq!(world.marked("print-env")[0].uid, HERMES);

    register(&["--", "/adversary", "print-env", &mark]).ok();
    assert_eq!(world.marked("print-env").len(), 1, "the same again changes nothing");
    assert!(register(&["--", "/adversary", "pause", &mark]).fails(1).contains("unregister"));

    assert_eq!(supervisor.terminate(), crate::harness::End::Code(0));
    world.assert_no_survivors("after the shutdown");
    let _supervisor = world.start();
    world.ctl(&["wait", "worker", "--up"]).ok();
    assert_eq!(world.marked("print-env").len(), 1, "the record outlives the supervisor");

    world.ctl(&["unregister", "worker"]).ok();
    world.assert_no_survivors("after unregister");
    world.ctl(&["status", "worker"]).fails(4);
    let mark = world.mark.clone();
    world.ctl(&["register", "worker", "--down", "--user", "hermes", "--", "/adversary", "pause", &mark]).ok();
    assert_eq!((world.want("worker"), world.state("worker")), ("down".into(), "down".into()));
}

#[test]
fn unregister_of_a_definition_is_refused_and_kills_nothing() {
    let mut world = World::new(Setup::plain());
    world.adversary("coder", "pause", "");
    let _supervisor = world.start();
    world.ctl(&["wait", "coder", "--up"]).ok();
    world.ctl(&["unregister", "coder"]).fails(1);
    assert_eq!(world.marked("pause").len(), 1);
}

#[test]
fn kill_sends_the_signal_to_the_main_process_or_to_the_tree() {
    let mut world = World::new(Setup::plain());
    world.adversary("ears", "echo-signals", "").adversary("wood", "tree 5", "");
    let _supervisor = world.start();
    world.wait_log("ears", "ready");
    world.wait_log("wood", "ready");
    world.ctl(&["kill", "ears", "USR1"]).ok();
    world.wait_log("ears", "got signal 10");
    world.ctl(&["kill", "ears"]).ok();
    world.wait_log("ears", "got signal 15");
    assert_eq!(world.want("ears"), "up", "a signal is no wish");
    let before: Vec<_> = world.marked("tree").iter().map(|process| process.outer).collect();
    assert_eq!(before.len(), 6);
    world.ctl(&["kill", "--tree", "wood", "KILL"]).ok();
    world.wait_log_times("wood", "ready", 2);
    let after = world.marked("tree");
    assert!(after.iter().all(|process| !before.contains(&process.outer)), "all of the first tree are dead");
    assert_eq!(after.len(), 6);
}

#[test]
fn wait_returns_when_all_are_there() {
    let mut world = World::new(Setup::plain());
    world.adversary("alpha", "pause", "autostart = false").adversary("beta", "pause", "autostart = false");
    let _supervisor = world.start();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| world.ctl(&["wait", "alpha", "beta", "--up", "--timeout", "50s"]));
        world.ctl(&["start", "alpha"]).ok();
        assert!(!waiter.is_finished(), "beta is still down");
        world.ctl(&["start", "beta"]).ok();
        waiter.join().expect("the waiter").ok();
        let waiter = scope.spawn(|| world.ctl(&["wait", "--down", "alpha", "beta", "--timeout", "50s"]));
        world.ctl(&["stop", "--all"]).ok();
        waiter.join().expect("the waiter").ok();
    });
}

#[test]
fn logs_are_shown_merged_and_followed() {
    let mut world = World::new(Setup::plain());
    world.adversary("both", "both-streams 5", "").adversary("clock", "tick 20", "");
    let _supervisor = world.start();
    world.wait_log("both", "ready");
    world.wait_log("clock", "tick 3");
    let all = world.ctl(&["logs", "both"]).ok();
    for count in 1..=5 {
        assert!(all.contains(&format!("out {count}")) && all.contains(&format!("err {count}")), "{all}");
    }
    let err = world.ctl(&["logs", "both", "--stream", "err"]).ok();
    assert!(err.contains("err 5") && !err.contains("out "), "{err}");
    let last = world.ctl(&["logs", "both", "-n", "2"]).ok();
    assert_eq!(last.lines().count(), 2, "{last}");
    let merged = world.ctl(&["logs", "both", "clock"]).ok();
    assert!(merged.contains("out 1") && merged.contains("tick 1"), "{merged}");

    let mut follower = world.inside_command(0, &["/hermes-sup", "ctl", "logs", "-f", "clock"]);
    let mut follower = follower.stdout(std::process::Stdio::piped()).spawn().expect("a follower");
    let lines = std::io::BufRead::lines(std::io::BufReader::new(follower.stdout.take().expect("stdout")));
    let latest = lines
        .map_while(Result::ok)
        .filter_map(|line| line.rsplit_once("tick ")?.1.parse::<u64>().ok())
        .find(|count| *count > 30);
    let _ = follower.kill();
    let _ = follower.wait();
    assert!(latest.is_some(), "follows what is written while it runs");
}

#[test]
fn reload_says_what_changed_and_stops_nothing() {
    let mut world = World::new(Setup::plain());
    for name in ["same", "changed", "removed", "broken"] {
        world.adversary(name, "pause", "");
    }
    let _supervisor = world.start();
    world.ctl(&["wait", "--all", "--up"]).ok();
    let before: Vec<_> =
        ["same", "changed", "removed", "broken"].map(|name| world.status(name)["pid"].clone()).into();
    world.adversary("changed", "tree 2", "").adversary("added", "pause", "");
    std::fs::remove_file(world.path("/etc/hermes-sup/services/removed.toml")).expect("a definition");
    world.define("broken", "command = 7\n");
    let said = world.ctl(&["reload"]);
    let said = format!("{}{}", said.out, said.err);
    for name in ["changed", "added", "removed"] {
        assert!(said.contains(name), "{said}");
    }
    assert!(said.contains("broken.toml:1:"), "file, line and column: {said}");
    let after: Vec<_> =
        ["same", "changed", "removed", "broken"].map(|name| world.status(name)["pid"].clone()).into();
    assert_eq!(before, after, "reload alone restarts nothing");
    world.ctl(&["wait", "added", "--up"]).ok();
    assert!(world.ctl(&["status", "removed"]).ok().contains("definition gone"));
    world.ctl(&["stop", "removed"]).ok();
    world.ctl(&["status", "removed"]).fails(4);

    world.adversary("changed", "tree 3", "");
    world.ctl(&["reload", "--restart"]);
    world.wait_log("changed", "ready tree");
    assert_eq!(world.marked("tree").len(), 4);
    assert_eq!(world.status("same")["pid"], before[0], "what did not change is left alone");
}

#[test]
fn who_may_do_what() {
    let mut world = World::new(Setup::plain());
    world.adversary("theirs", "pause", "").adversary("hers", "pause", "user = \"alice\"");
    world.adversary("roots", "pause", "user = \"root\"");
    let supervisor = world.start();
    world.ctl(&["wait", "--all", "--up"]).ok();
    let pids = || ["theirs", "roots"].map(|name| world.status(name)["pid"].clone());
    let before = pids();
    for words in [
        &["stop", "theirs"][..],
        &["restart", "roots"],
        &["start", "roots"],
        &["once", "theirs"],
        &["kill", "theirs"],
        &["unregister", "theirs"],
        &["register", "new", "--user", "root", "--", "/bin/sh"],
        &["register", "new", "--user", "hermes", "--", "/bin/sh"],
        &["reload"],
        &["shutdown"],
    ] {
        let refused = world.ctl_as(&supervisor, ALICE, words);
        assert_eq!(refused.code, 6, "{refused:?}");
    }
    assert_eq!(before, pids());
    assert_eq!(["theirs", "roots"].map(|name| world.want(name)), ["up", "up"]);
    assert!(!world.ctl(&["list"]).ok().contains("new"));

    world.ctl_as(&supervisor, ALICE, &["restart", "hers"]).ok();
    world.ctl_as(&supervisor, ALICE, &["status"]).ok();
    let mark = world.mark.clone();
    // A record lies under --home, where nothing may name another user than the gateway user: registering for oneself is
    // for that user, and a caller who is refused must not find the command running as somebody.
    let refused =
        world.ctl_as(&supervisor, ALICE, &["register", "own", "--", "/adversary", "print-ids", &mark]);
    assert_ne!(refused.code, 0, "{refused:?}");
    assert!(world.marked("print-ids").is_empty());
    world.ctl_as(&supervisor, HERMES, &["register", "own", "--", "/adversary", "print-ids", &mark]).ok();
    world.ctl(&["wait", "own", "--up"]).ok();
    assert!(world.marked("print-ids").iter().all(|process| process.uid == HERMES));
    assert_eq!(world.marked("print-ids").len(), 1);
    let stranger = world.ctl_as(&supervisor, 65534, &["status"]);
    assert_eq!(stranger.code, 6, "owns nothing, so reads nothing: {stranger:?}");
}

#[test]
fn a_service_restarts_itself_from_inside_its_own_tree() {
    let mut world = World::new(Setup::plain());
    let script = format!(
        "echo life; [ -e /tmp/done ] && exec /adversary pause {}; touch /tmp/done; /hermes-sup ctl restart self; echo not reached",
        world.mark
    );
    world.define("self", &format!("command = [\"/bin/sh\", \"-c\", {script:?}]\n"));
    let _supervisor = world.start();
    world.wait_log_times("self", "life", 2);
    world.wait_log("self", "ready pause");
    assert_eq!(world.want("self"), "up");
    assert!(!world.log("self").contains("not reached"));
}

#[test]
fn a_start_overtaken_by_a_stop_says_so() {
    let mut world = World::new(Setup::plain());
    // Starting has to wait for the old tree, which is deaf, until somebody kills it: time enough for a stop to overtake.
    world.adversary("slow", "ignore-term", "[stop]\ntimeout = \"1h\"");
    let _supervisor = world.start();
    world.wait_log("slow", "ready");
    std::thread::scope(|scope| {
        let restart = scope.spawn(|| world.ctl(&["restart", "slow"]));
        world.wait_state("slow", &["stopping"]);
        let stop = scope.spawn(|| world.ctl(&["stop", "slow"]));
        wait::until("the stop to overtake", &world.root, || (world.want("slow") == "down").then_some(()));
        world.ctl(&["kill", "slow", "KILL"]).ok();
        stop.join().expect("stop").ok();
        let overtaken = restart.join().expect("restart");
        assert_eq!(overtaken.code, 1, "{overtaken:?}");
        assert!(overtaken.err.contains("stop"), "{overtaken:?}");
    });
    assert_eq!((world.want("slow"), world.state("slow")), ("down".into(), "down".into()));
    world.assert_no_survivors("after the stop");
}

#[test]
fn repeated_requests_coalesce() {
    let mut world = World::new(Setup::plain());
    world.adversary("coder", "pause", "autostart = false");
    let _supervisor = world.start();
    std::thread::scope(|scope| {
        let starts: Vec<_> = (0..20).map(|_| scope.spawn(|| world.ctl(&["start", "coder"]))).collect();
        for start in starts {
            start.join().expect("a start").ok();
        }
    });
    assert_eq!(world.marked("pause").len(), 1);
    world.wait_log("coder", "ready");
    assert_eq!(world.log("coder").matches("ready").count(), 1);
    assert_eq!(world.state("coder"), "up");
}

#[test]
fn check_names_file_line_and_column() {
    let mut world = World::new(Setup::plain());
    world.write("/tmp/defs/good.toml", "command = [\"/bin/true\"]\n");
    world.write("/tmp/defs/bad.toml", "command = [\"/bin/true\"]\n\n  colour = \"blue\"\n");
    let never = "command = [\"/bin/true\"]\ntype = \"oneshot\"\nschedule = \"0 0 30 2 *\"\n";
    world.write("/tmp/defs/never.toml", never);
    let supervisor = world.start();
    let checked = world.exec(&supervisor, 0, &["/hermes-sup", "check", "/tmp/defs"]);
    assert_eq!(checked.code, 1, "{checked:?}");
    let said = format!("{}{}", checked.out, checked.err);
    assert!(said.contains("bad.toml:3:3") && said.contains("colour"), "{said}");
    assert!(said.contains("never.toml:3:12") && said.contains("a day that none of its months has"), "{said}");
    assert!(!said.contains("good.toml:"), "{said}");
    world.exec(&supervisor, 0, &["/hermes-sup", "check", "/tmp/defs/good.toml"]).ok();
}

/// A release that does not start must not take down one instance after the other.
#[test]
fn a_rolling_restart_ends_at_the_first_that_does_not_come_up() {
    let mut world = World::new(Setup::plain());
    for name in ["a", "b", "c"] {
        world.adversary(name, "pause", "");
    }
    let _supervisor = world.start();
    world.ctl(&["wait", "--all", "--up"]).ok();
    let before = world.status("b")["pid"].clone();
    world.define("a", "command = [\"/no/such/program\"]\n");
    world.ctl(&["reload"]).ok();
    let answer = world.ctl(&["restart", "--rolling", "1", "a", "b", "c"]);
    assert_eq!(answer.code, 1, "{answer:?}");
    assert!(answer.err.contains("'b' is not restarted: an earlier one failed"), "{answer:?}");
    assert_eq!(world.status("b")["pid"], before);
}
