//! An operator sees why: the reason of each failure, in `status` and in the log, from the first one on.

use crate::harness::setup::HERMES;
use crate::harness::{Place, Rung, Setup, World};
use rustix::process::Signal;
use serde_json::json;

/// A wait that no test outlives.
const SLOW: &str = "[restart]\nbackoff = { initial = \"1h\", max = \"1h\", jitter = 0.0 }\n";

/// `status` said "could not be started" and the log nothing else: only who had typed `ctl start` was told that the user did not
/// exist. Nobody types that at boot.
#[test]
fn a_start_that_fails_says_why_to_whoever_looks() {
    let mut world = World::new(Setup::plain());
    let cases = [
        ("program", "command = [\"/no/such/program\"]\n", "/no/such/program"),
        (
            "user",
            "command = [\"/adversary\", \"pause\"]\nuser = \"nobody-here\"\n",
            "there is no user 'nobody-here'",
        ),
        (
            "directory",
            "command = [\"/adversary\", \"pause\"]\nworking_dir = \"/no/such/dir\"\n",
            "/no/such/dir",
        ),
        ("environment", "command = [\"/adversary\", \"pause\"]\nenv_file = \"/etc/no.env\"\n", "/etc/no.env"),
    ];
    for (name, definition, _) in cases {
        world.define(name, &format!("{definition}{SLOW}"));
    }
    let _supervisor = world.start();
    for (name, _, cause) in cases {
        let status = world.wait_state(name, &["backoff"]);
        let reason = status["reason"].as_str().unwrap_or_default();
        assert!(reason.contains(cause), "{name}: {status}");
        assert!(!reason.contains("could not be started"), "{name}: {reason}");
        world.wait_stderr(&format!("{name}: backoff: {reason}"));
    }
    // It ran before, and cannot be started any more: the exit of an hour ago is not why.
    world.adversary("once-fine", "pause", SLOW);
    world.ctl(&["reload"]).ok();
    world.wait_log("once-fine", "ready");
    world.wait_state("once-fine", &["up"]);
    world.define("once-fine", &format!("command = [\"/gone/away\"]\n{SLOW}"));
    world.ctl(&["reload"]).ok();
    world.ctl(&["kill", "once-fine", "KILL"]).ok();
    let status = world.wait_state("once-fine", &["backoff"]);
    assert!(status["reason"].as_str().unwrap_or_default().contains("/gone/away"), "{status}");
    assert_eq!(status["last_exit"]["signal"], json!("SIGKILL"), "{status}");
}

/// A service that crashed and was back within a millisecond left no trace but a count; one that had to be killed at its stop
/// none at all; and nobody knew who had stopped it.
#[test]
fn crashes_kills_and_who_asked_are_a_line_each() {
    let mut world = World::new(Setup::plain());
    world.adversary("crasher", "pause", "");
    world.adversary("deaf", "ignore-term", "[stop]\ntimeout = \"50ms\"\n");
    let supervisor = world.start();
    for name in ["crasher", "deaf"] {
        world.wait_log(name, "ready");
        world.wait_state(name, &["up"]);
    }
    world.ctl_as(&supervisor, 0, &["kill", "crasher", "SEGV"]).ok();
    world.wait_stderr("crasher: killed by SIGSEGV unexpectedly, after ");
    world.wait_log_times("crasher", "ready", 2);
    world.ctl_as(&supervisor, 0, &["restart", "crasher"]).ok();
    world.wait_stderr("crasher: restart asked for by ");
    world.ctl_as(&supervisor, 0, &["stop", "deaf"]).ok();
    world.wait_stderr("deaf: stop asked for by ");
    assert_eq!(
        world.stderr().matches("(uid 0, pid ").count(),
        3,
        "kill, restart and stop: {}",
        world.stderr()
    );
    world.wait_stderr("deaf: did not stop within 50ms and is killed");
    let stderr = world.stderr();
    for line in ["unexpectedly", "did not stop within"] {
        assert_eq!(stderr.matches(line).count(), 1, "{stderr}");
    }
}

/// A queue worker that ends after each batch, well, ended for good after eleven of them: `failed`.
#[test]
fn a_worker_that_recycles_itself_is_no_failure() {
    let mut world = World::new(Setup::plain());
    let quick = "[restart]\nbackoff = { initial = \"1ms\" }\nlimit = { burst = 2, interval = \"1h\" }\n";
    world.adversary("worker", "exit 0", quick);
    let _supervisor = world.start();
    world.wait_log_times("worker", "ready exit", 6);
    world.wait_stderr("worker: exited with code 0, after ");
    world.ctl(&["stop", "worker"]).ok();
    let status = world.status("worker");
    assert!(status["restarts"].as_u64() >= Some(5), "{status}");
    assert_eq!(status["state"], json!("down"), "{status}");
    // Nor does a failure without a limit ever become `failed`.
    world.adversary(
        "stubborn",
        "exit 1",
        "[restart]\nbackoff = { initial = \"1ms\", max = \"1ms\" }\nlimit = \"none\"\n",
    );
    world.ctl(&["reload"]).ok();
    world.wait_log_times("stubborn", "ready exit", 14);
}

/// `check` printed a literal `\n` where the line and the caret belong, failed in an image without the default directories, and
/// called a file fine that the supervisor refused.
#[test]
fn check_shows_the_place_and_fails_for_what_would_be_refused() {
    let mut world = World::new(Setup::plain());
    world.prepare();
    let check =
        |world: &World, words: &[&str]| world.inside_answer(&[&["/hermes-sup", "check"], words].concat());
    std::fs::remove_dir_all(world.path("/etc/hermes-sup")).expect("an image without definitions");
    let answer = check(&world, &[]);
    assert_eq!(answer.ok(), "0 services defined, 0 errors, 0 warnings\n");
    world.define("web", "command = [\"/adversary\"]\nuser = \"nobody-here\"\numask = 22\n");
    let answer = check(&world, &["/etc/hermes-sup/services"]);
    assert_eq!(answer.code, 1, "{answer:?}");
    let place =
        "web.toml:3:9: 'umask' is an integer; write a text in quotes\n  3 | umask = 22\n    |         ^^\n";
    assert!(answer.out.contains(place), "{}", answer.out);
    world.define("web", "command = [\"/adversary\"]\nuser = \"nobody-here\"\n");
    let answer = check(&world, &["/etc/hermes-sup/services/web.toml"]).ok();
    assert!(answer.contains("web.toml:2:8: warning: there is no user 'nobody-here'"), "{answer}");
    // The owner of the volume may name nobody else.
    world.write_as_hermes("/opt/data/services/other.toml", "command = [\"/adversary\"]\nuser = \"root\"\n");
    let answer = check(&world, &["/opt/data/services"]);
    assert!(answer.code == 1 && answer.out.contains("0 services defined, 1 error"), "{answer:?}");
}

/// A definition with a mistake made its service vanish from `status`, and the advice was `hermes profile create`.
#[test]
fn a_refused_definition_stays_a_row_with_file_line_and_sentence() {
    let mut world = World::new(Setup::plain());
    world.define("web", "command = [\"/adversary\", \"pause\"]\numask = 22\n");
    world.define("Bad.Name", "command = [\"/adversary\", \"pause\"]\n");
    world.adversary("fine", "pause", "");
    let _supervisor = world.start();
    let place = "/etc/hermes-sup/services/web.toml:2:9: 'umask' is an integer";
    let status = world.status("web");
    assert_eq!(status["state"], json!("refused"), "{status}");
    assert_eq!(status["definition"], json!("/etc/hermes-sup/services/web.toml"), "{status}");
    assert!(status["reason"].as_str().unwrap_or_default().starts_with(place), "{status}");
    let table = world.ctl(&["status"]).ok();
    let rows = |state: &str| table.lines().filter(|line| line.contains(state)).count();
    assert_eq!(rows("refused"), 2, "{table}");
    let card = world.ctl(&["status", "web"]);
    assert!(card.code == 3 && card.out.contains(place), "{card:?}");
    assert_eq!(world.ctl(&["list"]).ok(), "Bad.Name\nfine\nweb\n");
    for verb in ["start", "stop", "restart"] {
        let why = world.ctl(&[verb, "web"]).fails(1);
        assert!(why.contains(place) && why.contains("hermes-sup ctl reload"), "{verb}: {why}");
    }
    let unknown = world.ctl(&["start", "wbe"]).fails(4);
    assert!(unknown.contains("no such service 'wbe'"), "{unknown}");
    assert!(!unknown.contains("profile") && !unknown.contains("gateway"), "no Hermes here: {unknown}");

    // Corrected, it is a service; broken again, it runs on and says so.
    world.adversary("web", "pause", "");
    world.ctl(&["reload"]);
    world.wait_state("web", &["up"]);
    world.define("web", "command = [\"/adversary\"\n");
    world.ctl(&["reload"]).fails(1);
    let status = world.status("web");
    assert_eq!(status["state"], json!("up"), "{status}");
    let reason = status["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("is refused: /etc/hermes-sup/services/web.toml:1:"), "{status}");
    world.adversary("web", "pause", "");
    world.ctl(&["reload"]);
    assert_eq!(world.status("web")["reason"], json!(null));
}

/// `reload` and then `reload --restart` said that nothing had changed while the old definition ran on; an edit without a reload
/// was nowhere to be seen, and a restart started what had been read before without a word.
#[test]
fn what_is_not_in_force_yet_is_remembered_and_taken_by_the_next_restart() {
    let mut world = World::new(Setup::plain());
    world.adversary("web", "pause", "");
    let supervisor = world.start();
    world.wait_state("web", &["up"]);
    let before = world.status("web")["pid"].clone();
    world.adversary("web", "pause", "umask = \"0077\"\n");
    let edited =
        "/etc/hermes-sup/services/web.toml was changed since it was read: 'hermes-sup ctl reload' reads it";
    assert_eq!(world.status("web")["reason"], json!(edited));
    let restarted = world.ctl_as(&supervisor, 0, &["restart", "web"]).ok();
    assert!(restarted.contains(edited), "{restarted}");
    assert_ne!(world.status("web")["pid"], before);

    let waits = "takes effect at its next start";
    let told = world.ctl(&["reload"]).ok();
    assert!(told.contains(waits), "{told}");
    let reason = "its changed definition is not in force: restart it";
    assert_eq!(world.status("web")["reason"], json!(reason));
    let again = world.ctl(&["reload"]).ok();
    assert!(again.contains(waits), "it is still so: {again}");
    let before = world.status("web")["pid"].clone();
    let told = world.ctl(&["reload", "--restart"]).ok();
    assert!(told.contains("changed: restarting"), "{told}");
    world.wait_log_times("web", "ready", 3);
    let status = world.wait_state("web", &["up"]);
    assert_ne!(status["pid"], before);
    assert_eq!(status["reason"], json!(null), "{status}");
    assert!(!world.ctl(&["reload", "--restart"]).ok().contains("web"), "nothing is left to do");

    // The volume's own definitions are looked at where a disk may hang.
    world.write_as_hermes("/opt/data/services/own.toml", "command = [\"/adversary\", \"pause\"]\n");
    world.ctl(&["reload"]).ok();
    world.wait_state("own", &["up"]);
    assert_eq!(world.status("own")["reason"], json!(null));
    world.write_as_hermes("/opt/data/services/own.toml", "command = [\"/adversary\", \"pause\", \"more\"]\n");
    let status = world.status("own");
    assert!(status["reason"].as_str().unwrap_or_default().contains("own.toml was changed"), "{status}");
    world.ctl(&["reload"]).ok();
    world.ctl(&["restart", "own"]).ok();
    assert_eq!(world.status("own")["reason"], json!(null), "any restart takes it");
}

/// A registered service whose record cannot be believed any more was a row that nothing could be done about: `unregister` told to
/// correct a file that there is not, and after a `reload` the row was gone until the next boot. And a user without Hermes was told
/// of a gateway user.
#[test]
fn a_refused_record_can_be_unregistered_or_comes_back_as_it_was_wanted() {
    let mut world = World::new(Setup::plain().supervisor_option(&["--state", "/srv/kept/state"]));
    let owner = |world: &World, uid| {
        std::os::unix::fs::chown(world.path("/srv/kept"), Some(uid), Some(uid)).expect("an owner");
    };
    std::fs::create_dir_all(world.path("/srv/kept")).expect("a place for the state");
    let supervisor = world.start();
    for name in ["job", "mended"] {
        world.ctl(&["register", name, "--user", "65534", "--", "/adversary", "pause"]).ok();
    }
    world.ctl(&["register", "resting", "--down", "--user", "65534", "--", "/adversary", "pause"]).ok();
    let mut supervisor = supervisor;
    supervisor.process.signal(Signal::TERM);
    supervisor.process.wait();

    // The owner of the place of the state could have written another user into it.
    owner(&world, 10_000);
    let supervisor = world.start();
    let row = world.status("job");
    assert_eq!((&row["state"], &row["want"]), (&json!("refused"), &json!("up")), "{row}");
    assert_eq!(world.status("resting")["want"], json!("down"));
    let why = row["reason"].as_str().unwrap_or_default();
    assert!(why.contains("may name another user than the default one"), "{why}");
    for text in [why, &world.stderr()] {
        assert!(!text.contains("gateway"), "no Hermes here: {text}");
    }
    // It stays a row, and its name stays taken.
    world.ctl(&["reload"]).fails(1);
    assert_eq!(world.status("job")["state"], json!("refused"));
    let taken = world.ctl(&["register", "job", "--", "/adversary", "exit"]).fails(1);
    assert!(taken.contains("'hermes-sup ctl unregister job' first"), "{taken}");
    world.ctl_as(&supervisor, 65_533, &["unregister", "job"]).fails(6);
    assert_eq!(world.ctl(&["unregister", "job"]).ok(), "job: unregistered\n");
    world.ctl(&["status", "job"]).fails(4);
    world.ctl(&["register", "job", "--", "/adversary", "pause"]).ok();
    world.ctl(&["unregister", "job"]).ok();

    owner(&world, 0);
    world.ctl(&["reload"]).ok();
    world.wait_state("mended", &["up"]);
    world.wait_state("resting", &["down"]);
    let mut supervisor = supervisor;
    supervisor.process.signal(Signal::TERM);
    supervisor.process.wait();
    let _supervisor = world.start();
    assert_eq!(world.ctl(&["list"]).ok(), "mended\nresting\n", "what was unregistered does not come back");
}

/// The row of a refused definition was a daemon that nobody wants, whatever the file said; and once the file was mended its service
/// was started or not by `autostart`, whatever its operator had decided before.
#[test]
fn a_refused_row_says_what_its_file_says_and_its_want_is_kept() {
    let mut world = World::new(Setup::plain());
    world.adversary("stopped", "pause", "");
    let mut supervisor = world.start();
    world.ctl(&["stop", "stopped"]).ok();
    supervisor.process.signal(Signal::TERM);
    supervisor.process.wait();
    world.adversary("stopped", "pause", "umask = 22\n");
    let _supervisor = world.start();
    assert_eq!(world.status("stopped")["want"], json!("down"));
    let broken = "umask = 22\n";
    for (name, rest) in [("task", "type = \"oneshot\"\nautostart = false\n"), ("web", "")] {
        world.adversary(name, "pause", &format!("{rest}{broken}"));
    }
    world.define("garbled", "type = \"oneshot\"\ncommand = [");
    world.ctl(&["reload"]).fails(1);
    for (name, kind, want) in
        [("task", "oneshot", "down"), ("web", "daemon", "up"), ("garbled", "daemon", "up")]
    {
        let row = world.status(name);
        assert_eq!(
            (&row["state"], &row["kind"], &row["want"]),
            (&json!("refused"), &json!(kind), &json!(want)),
            "{row}"
        );
    }
    world.adversary("stopped", "pause", "");
    world.adversary("web", "pause", "");
    world.adversary("task", "pause", "type = \"oneshot\"\nautostart = false\n");
    world.ctl(&["reload"]).fails(1);
    world.wait_state("web", &["up"]);
    world.wait_state("task", &["down"]);
    world.wait_state("stopped", &["down"]);
}

/// What is missing is nobody's mistake in a definition: no inode, no process, no cgroup more, or a capability that the container does
/// not have. Each was "could not be started" where nobody had typed `ctl start`.
#[test]
fn what_the_kernel_refuses_is_named_at_the_first_time() {
    let mut world = World::new(Setup::plain().world_option(&["--tmpfs", "/run", "nr_inodes=100,mode=755"]));
    let later = format!("autostart = false\n{SLOW}");
    world.adversary("occupant", "tree 3", "user = \"20001\"");
    world.adversary("processes", "pause", &format!("user = \"20001\"\n{later}[limits]\nnproc = 1\n"));
    world.adversary(
        "capability",
        "pause",
        &format!("user = \"20002\"\n{later}[security]\nambient = [\"CAP_SYS_ADMIN\"]\n"),
    );
    for name in ["inodes", "cgroups"] {
        world.adversary(name, "pause", &later);
    }
    let _supervisor = world.start();
    world.wait_log("occupant", "ready tree");
    let fails = |name: &str, causes: &[&str]| {
        drop(world.ctl(&["start", name, "--timeout", "1s"]));
        let status = world.wait_state(name, &["backoff", "failed"]);
        let reason = status["reason"].as_str().unwrap_or_default();
        for cause in causes {
            assert!(reason.contains(cause), "{name}: {status}");
        }
        assert_eq!(status["restarts"], json!(1), "the first time: {status}");
        world.wait_stderr(&format!("{name}: {}: {reason}", status["state"].as_str().unwrap_or_default()));
        world.ctl(&["stop", name]).ok();
    };
    fails("processes", &["its user has as many processes as its limit nproc allows"]);
    fails("capability", &["CAP_SYS_ADMIN, which the supervisor does not have", "--cap-add SYS_ADMIN"]);
    let fillers = (0..).map(|n| world.path(&format!("/run/filler-{n}")));
    let made: Vec<_> = fillers.map_while(|path| std::fs::write(&path, "").ok().map(|()| path)).collect();
    fails("inodes", &["in /run/hermes-sup/", "there is no space or no inode left"]);
    for path in made {
        std::fs::remove_file(path).expect("an inode is free again");
    }
    let cap = world.path("/sys/fs/cgroup/cgroup.max.descendants");
    std::fs::write(&cap, "0").expect("a cap on cgroups");
    fails("cgroups", &["the limit on cgroups is reached (cgroup.max.descendants"]);
    std::fs::write(&cap, "max").expect("no cap");
}

/// `docker run --user 10000 --ulimit nproc=…`: the supervisor itself, and what makes its children, may make no more.
#[test]
fn a_start_beyond_the_users_own_limit_of_processes_names_it() {
    let mut world = World::new(Setup::new(Rung::KeeperSameUid, Place::Child));
    world.adversary("web", "pause", &format!("autostart = false\n{SLOW}"));
    let supervisor = world.start();
    // The same user may do that, as the limit that the container began with would.
    let limit = "for each in /proc/[0-9]*; do
        [ ${each#/proc/} = $$ ] || prlimit --pid=${each#/proc/} --nproc=1:1 2>/dev/null || :
    done";
    world.exec(&supervisor, HERMES, &["/bin/sh", "-c", limit]).ok();
    drop(world.ctl(&["start", "web", "--timeout", "1s"]));
    let status = world.wait_state("web", &["backoff"]);
    let reason = status["reason"].as_str().unwrap_or_default();
    assert!(
        reason.contains("uid 10000 has as many processes and threads as its limit nproc=1 allows"),
        "{status}"
    );
    assert_eq!(status["restarts"], json!(1), "the first time: {status}");
    world.wait_stderr(&format!("web: backoff: {reason}"));
}
