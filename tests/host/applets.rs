//! The tools of s6, as an unmodified image calls them: by name, beside a supervisor.

use crate::harness::setup::{ALICE, HERMES};
use crate::harness::{Answer, Setup, Supervisor, World, wait};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, Instant};

const SLOTS: &str = "/run/service";

/// A world in which the binary has the names of the tools.
fn world() -> World {
    let world = World::new(Setup::plain());
    std::fs::create_dir_all(world.path("/command")).expect("a directory");
    for name in [
        "execlineb",
        "s6-log",
        "s6-setuidgid",
        "s6-sleep",
        "s6-svc",
        "s6-svscanctl",
        "s6-svstat",
        "s6-svwait",
        "with-contenv",
    ] {
        symlink("/hermes-sup", world.path(&format!("/command/{name}"))).expect("a link");
    }
    world
}

/// Calls a tool as a user; `words` in one text, the last one a slot where it begins with `@`.
fn call_as(world: &World, supervisor: &Supervisor, uid: u32, words: &str) -> Answer {
    let words = format!("/command/{}", words.replace('@', &format!("{SLOTS}/")));
    world.exec(supervisor, uid, &words.split(' ').collect::<Vec<_>>())
}

fn call(world: &World, supervisor: &Supervisor, words: &str) -> Answer {
    call_as(world, supervisor, HERMES, words)
}

/// What `s6-svstat` says, each number as `N`, which must be a number.
#[track_caller]
fn stat(world: &World, supervisor: &Supervisor, slot: &str) -> String {
    let line = call(world, supervisor, &format!("s6-svstat {slot}")).ok();
    let line = line.strip_suffix('\n').expect("a line");
    assert!(!line.contains('\n'), "{line}");
    let shape = |word: &str| {
        let bare = word.trim_end_matches(')');
        if bare.parse::<u64>().is_ok() { word.replace(bare, "N") } else { word.to_owned() }
    };
    line.split(' ').map(shape).collect::<Vec<_>>().join(" ")
}

fn field(world: &World, supervisor: &Supervisor, name: &str, slot: &str) -> String {
    call(world, supervisor, &format!("s6-svstat -o {name} {slot}")).ok().trim_end().to_owned()
}

/// The want as the image's own tests read it.
fn wants_up(line: &str) -> bool {
    if line.starts_with("up") { !line.contains("want down") } else { line.contains("want up") }
}

fn silent(answer: Answer) {
    assert_eq!((answer.code, answer.out.as_str(), answer.err.as_str()), (0, "", ""), "{answer:?}");
}

/// A failure: one line on stderr, in the form of s6.
#[track_caller]
fn fatal(answer: Answer, code: i32) -> String {
    assert_eq!(answer.out, "", "{answer:?}");
    let err = answer.fails(code);
    assert!(err.starts_with("s6-") && err.contains(": fatal: ") && err.lines().count() == 1, "{err}");
    err
}

/// Contract: 89, 96.
#[test]
fn up_and_down_by_the_gateway_user_and_what_svstat_says() {
    let mut world = world();
    world.adversary("coder", "pause", "autostart = false");
    let supervisor = world.start();
    assert_eq!(stat(&world, &supervisor, "@coder"), "down (not started yet) N seconds, normally up");

    silent(call(&world, &supervisor, "s6-svc -u @gateway-coder"));
    let pid = world.status("coder")["pid"].to_string();
    assert_eq!(stat(&world, &supervisor, "@gateway-coder"), "up (pid N) N seconds");
    assert_eq!(
        field(&world, &supervisor, "pid,up,wantedup,pgid", "@gateway-coder/"),
        format!("{pid} true true {pid}")
    );
    assert_eq!(call(&world, &supervisor, "s6-svstat -p @coder").ok(), format!("{pid}\n"));
    silent(call(&world, &supervisor, "s6-svc -u @gateway-coder"));
    assert_eq!(field(&world, &supervisor, "pid", "@coder"), pid, "up already: left alone");

    world.write("/run/service/gateway-coder/down", "");
    assert_eq!(stat(&world, &supervisor, "@gateway-coder"), "up (pid N) N seconds, normally down");

    silent(call(&world, &supervisor, "s6-svc -p @coder"));
    wait::until("the stopped process", &world.log_dir("coder"), || {
        stat(&world, &supervisor, "@coder").contains(", paused").then_some(())
    });
    silent(call(&world, &supervisor, "s6-svc -c @coder"));

    silent(call(&world, &supervisor, "s6-svc -d @gateway-coder"));
    world.assert_no_survivors("after s6-svc -d");
    let line = stat(&world, &supervisor, "@gateway-coder");
    assert!(line.starts_with("down (") && !line.contains("up") && line.contains(") N seconds"), "{line}");
    assert_eq!(field(&world, &supervisor, "pid,up", "@coder"), "-1 false");
    silent(call(&world, &supervisor, "s6-svc -d @gateway-coder"));
}

/// Contract: 75.
#[test]
fn a_start_that_fails_is_told_and_what_was_given_up_is_not_wanted_up() {
    let mut world = world();
    world.define("missing", "command = [\"/no/such/program\"]\nautostart = false\n");
    world.adversary(
        "broken",
        "exit 3",
        "autostart = false\n[restart]\npolicy = \"on-failure\"\nlimit = { burst = 1, interval = \"1m\" }",
    );
    world.adversary(
        "waiting",
        "exit 3",
        "autostart = false\n[restart]\nbackoff = { initial = \"1h\", max = \"1h\" }",
    );
    let supervisor = world.start();

    let why = fatal(call(&world, &supervisor, "s6-svc -u @gateway-missing"), 1);
    assert!(why.contains("/no/such/program"), "{why}");

    call(&world, &supervisor, "s6-svc -u @broken");
    world.wait_state("broken", &["failed"]);
    let line = stat(&world, &supervisor, "@broken");
    assert_eq!(line, "down (exitcode N) N seconds, normally up");
    assert!(!wants_up(&line));
    assert_eq!(field(&world, &supervisor, "exitcode,signal,signum,wantedup", "@broken"), "3 NA -1 false");
    let why = fatal(call(&world, &supervisor, "s6-svwait -u @broken"), 1);
    assert!(why.contains("will not come up"), "{why}");

    call(&world, &supervisor, "s6-svc -u @waiting");
    world.wait_state("waiting", &["backoff"]);
    let line = stat(&world, &supervisor, "@waiting");
    assert_eq!(line, "down (exitcode N) N seconds, normally up, want up");
    assert!(wants_up(&line));
}

/// `s6-svc -t` of s6 does nothing on a slot that is down, and the CLI, whose `restart` it is, records that it runs. Here a
/// gateway starts.
/// Contract: 92.
#[test]
fn a_term_is_a_restart_for_a_gateway_and_a_signal_for_the_rest() {
    let mut world = world();
    world.adversary("coder", "pause", "autostart = false");
    let supervisor = world.start();
    let pid = || field(&world, &supervisor, "pid", "@coder");

    silent(call(&world, &supervisor, "s6-svc -t @coder"));
    silent(call(&world, &supervisor, "s6-svc -r @coder"));
    assert_eq!((pid().as_str(), world.want("coder").as_str()), ("-1", "down"), "a signal for nobody");

    silent(call(&world, &supervisor, "s6-svc -t @gateway-coder"));
    let first = pid();
    assert_ne!(first, "-1", "a gateway that is down starts");
    silent(call(&world, &supervisor, "s6-svc -t @gateway-coder"));
    let second = pid();
    assert!(second != "-1" && second != first);
    silent(call(&world, &supervisor, "s6-svc -r @coder"));
    let third = pid();
    assert!(third != "-1" && third != second);

    silent(call(&world, &supervisor, "s6-svc -wr -T 60000 -k @coder"));
    let fourth = pid();
    assert!(fourth != "-1" && fourth != third, "returned when another life had begun");
    assert_eq!(world.want("coder"), "up", "a signal changes no want");
}

#[test]
fn what_takes_long_is_answered_in_time_and_waited_for_on_request() {
    let mut world = world();
    world.adversary("deaf", "ignore-term", "autostart = false\n[stop]\ntimeout = \"1h\"");
    let supervisor = world.start();
    silent(call(&world, &supervisor, "s6-svc -wu -u @deaf"));
    world.wait_log("deaf", "ready");

    // The caller's own limit. A slow moment of the machine costs one try.
    let in_time = (0..3).any(|_| {
        let asked = Instant::now();
        silent(call(&world, &supervisor, "s6-svc -d @gateway-deaf"));
        asked.elapsed() < Duration::from_secs(5)
    });
    assert!(in_time, "longer than the caller waits");
    let line = stat(&world, &supervisor, "@deaf");
    assert_eq!(line, "up (pid N) N seconds, want down");
    assert!(!wants_up(&line));
    fatal(call(&world, &supervisor, "s6-svwait -D -t 50 @deaf"), 99);
    fatal(call(&world, &supervisor, "s6-svc -dwD -T 50 @deaf"), 99);

    silent(call(&world, &supervisor, "s6-svc -K @deaf"));
    silent(call(&world, &supervisor, "s6-svwait -D -t 60000 @deaf"));
    world.assert_no_survivors("after s6-svwait -D");
}

#[test]
fn several_slots_and_one_of_them() {
    let mut world = world();
    world.adversary("a", "pause", "autostart = false").adversary("b", "pause", "autostart = false");
    world.adversary("given-up", "exit 0", "[restart]\npolicy = \"never\"");
    let supervisor = world.start();
    world.wait_state("given-up", &["finished", "failed"]);
    silent(call(&world, &supervisor, "s6-svc -u @a"));
    silent(call(&world, &supervisor, "s6-svwait -o -u @a @b"));
    fatal(call(&world, &supervisor, "s6-svwait -a -u -t 50 @a @b"), 99);
    let why = fatal(call(&world, &supervisor, "s6-svc -u @nobody @b"), 102);
    assert!(why.contains("/run/service/nobody"), "{why}");
    assert_eq!(world.state("b"), "up", "the others are done all the same");
    silent(call(&world, &supervisor, "s6-svwait -u @a @b @main-hermes"));
    silent(call(&world, &supervisor, "s6-svwait -o -u @given-up @a"));
}

#[test]
fn the_file_down_goes_with_the_capital_letters() {
    let mut world = world();
    world.adversary("coder", "pause", "autostart = false");
    world.write("/run/service/coder/down", "");
    let supervisor = world.start();
    silent(call_as(&world, &supervisor, 0, "s6-svc -U @coder"));
    assert!(!world.path("/run/service/coder/down").exists());
    assert_eq!(world.state("coder"), "up");
    silent(call_as(&world, &supervisor, 0, "s6-svc -D @coder"));
    assert!(world.path("/run/service/coder/down").exists());
    assert_eq!((world.state("coder"), world.want("coder")), ("down".into(), "down".into()));
    // Root's slot: its file is not hermes's to remove, and that is said, but the service starts.
    fatal(call(&world, &supervisor, "s6-svc -U @coder"), 111);
    assert_eq!(world.state("coder"), "up");
}

/// Contract: 58, 74.
#[test]
fn nobody_there_no_slot_and_no_permission_have_the_codes_of_s6() {
    let mut world = world();
    world.adversary("coder", "pause", "autostart = false");
    let supervisor = world.start();
    fatal(call(&world, &supervisor, "s6-svc -u @typo"), 102);
    fatal(call(&world, &supervisor, "s6-svc -u /elsewhere/coder"), 102);
    fatal(call(&world, &supervisor, "s6-svc -O @coder"), 100);
    assert_eq!(
        fatal(call(&world, &supervisor, "s6-svstat @typo"), 1),
        "s6-svstat: fatal: unable to read status for /run/service/typo: s6-supervise not running\n"
    );
    fatal(call(&world, &supervisor, "s6-svwait -u @typo"), 102);
    for words in
        ["s6-svc -u @coder", "s6-svc -t @gateway-coder", "s6-svstat @coder", "s6-svscanctl -a /run/service"]
    {
        let why = fatal(call_as(&world, &supervisor, ALICE, words), 111);
        assert!(why.contains("not permitted"), "{why}");
    }
    assert_eq!(world.state("coder"), "down");
    fatal(call(&world, &supervisor, "s6-svscanctl -a /tmp"), 100);
    let why = fatal(call(&world, &supervisor, "s6-svscanctl -t /run/service"), 111);
    assert!(why.contains("not permitted to shutdown"), "{why}");

    assert_eq!(stat(&world, &supervisor, "@main-hermes"), "up (pid N) N seconds");
    silent(call(&world, &supervisor, "s6-svc -d @main-hermes"));

    silent(call_as(&world, &supervisor, 0, "s6-svscanctl -t /run/service"));
    let mut supervisor = supervisor;
    supervisor.ends();
    for (words, code) in [
        ("s6-svc -u @coder", 102),
        ("s6-svstat @coder", 1),
        ("s6-svwait -D @coder", 102),
        ("s6-svscanctl -a /run/service", 100),
    ] {
        fatal(call(&world, &supervisor, words), code);
    }
}

fn script(world: &World, path: &str, text: &str) {
    let path = world.write(path, text);
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("a mode");
}

/// Contract: 19.
#[test]
fn with_contenv_is_an_interpreter_that_brings_the_containers_environment() {
    let mut world = world();
    script(&world, "/show", "#!/command/with-contenv sh\necho \"$COLOUR,$HOME,$1\"\n");
    let supervisor = world.start();
    assert_eq!(
        world.exec(&supervisor, HERMES, &["/show", "x y"]).ok(),
        ",/root,x y\n",
        "nothing written down"
    );
    world.write("/run/s6/container_environment/COLOUR", "deep red\n");
    world.write("/run/s6/container_environment/HOME", "/opt/data");
    assert_eq!(world.exec(&supervisor, HERMES, &["/show", "x y"]).ok(), "deep red,/opt/data,x y\n");
    // Whom it is hidden from goes on with what was inherited.
    let dir = world.path("/run/s6/container_environment");
    std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o700)).expect("a mode");
    assert_eq!(world.exec(&supervisor, HERMES, &["/show", "x y"]).ok(), ",/root,x y\n");
    std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o755)).expect("a mode");
    // The program is looked for with the new PATH.
    script(&world, "/bins/only-there", "#!/bin/sh\necho found\n");
    world.write("/run/s6/container_environment/PATH", "/bins:/usr/bin:/bin");
    assert_eq!(world.exec(&supervisor, HERMES, &["/command/with-contenv", "only-there"]).ok(), "found\n");
    assert_eq!(world.exec(&supervisor, HERMES, &["/command/with-contenv", "nowhere"]).code, 127);
}

/// Contract: 14.
#[test]
fn setuidgid_becomes_a_user_with_its_groups_and_leaves_signals_fresh() {
    let mut world = world();
    let supervisor = world.start();
    let ids = "echo $(id -u) $(id -g) $(id -G)";
    let become_it = |uid, user: &str| {
        world.exec(&supervisor, uid, &["/command/s6-setuidgid", user, "/bin/sh", "-c", ids])
    };
    assert_eq!(become_it(0, "hermes").ok(), "10000 10000 10000 20000\n");
    assert_eq!(become_it(0, "alice").ok(), "10001 10001 10001\n");
    assert_eq!(become_it(0, "10001:helpers").ok(), "10001 20000 20000\n");
    assert_eq!(become_it(HERMES, "hermes").ok(), "10000 10000 10000\n", "already: no privilege is needed");
    let why = fatal(become_it(ALICE, "hermes"), 111);
    assert!(why.contains("unable to become 'hermes'"), "{why}");
    fatal(become_it(HERMES, "root"), 111);
    // The word that makes a keeper of this binary is an unknown user here.
    assert!(fatal(become_it(0, "keeper"), 100).contains("unknown user: keeper"));
    let ignored = world.exec(
        &supervisor,
        0,
        &["/command/s6-setuidgid", "hermes", "grep", "SigIgn\\|SigBlk", "/proc/self/status"],
    );
    let ignored = ignored.ok();
    assert_eq!(ignored.matches("0000000000000000").count(), 2, "{ignored}");
    assert_eq!(become_it(0, "no-such").code, 100);
    assert_eq!(world.exec(&supervisor, 0, &["/command/s6-setuidgid", "hermes", "/nowhere"]).code, 127);
    assert_eq!(world.exec(&supervisor, 0, &["/command/s6-setuidgid", "hermes", "/etc/passwd"]).code, 126);
}

#[test]
fn execlineb_runs_the_simplest_scripts_and_refuses_the_rest() {
    let mut world = world();
    script(&world, "/simple", "#!/command/execlineb -P\n# a comment\n/bin/echo \"a  b\" c # and another\n");
    script(&world, "/nap", "#!/command/execlineb -P\n/command/s6-sleep -m 1\n");
    script(&world, "/block", "#!/command/execlineb -P\nif { true }\n/bin/echo never\n");
    let supervisor = world.start();
    assert_eq!(world.exec(&supervisor, HERMES, &["/simple"]).ok(), "a  b c\n");
    world.exec(&supervisor, HERMES, &["/nap"]).ok();
    let refused = world.exec(&supervisor, HERMES, &["/block"]);
    assert_eq!(refused.out, "");
    assert!(refused.fails(100).contains("line 2: blocks are not supported"));
}

/// s6-log ends where another has the lock of its directory; here there is none to be had.
/// Contract: 64, 72.
#[test]
fn s6_log_writes_what_ctl_logs_reads() {
    let mut world = world();
    world.adversary("coder", "pause", "autostart = false");
    world.write_as_hermes("/opt/data/logs/gateways/coder/lock", "");
    let supervisor = world.start();
    let shell = |script: &str| world.exec(&supervisor, HERMES, &["/bin/sh", "-c", script]);
    let dir = "/opt/data/logs/gateways/coder";

    // 200 lines of 60 bytes: 90 with their heads, so more than four files of 4096.
    let script = format!(
        "i=0; while [ $i -lt 200 ]; do printf '%059d\\n' $i; i=$((i+1)); done | /command/s6-log 1 n3 s4096 T {dir}"
    );
    let raw = shell(&script).ok();
    assert_eq!(raw.lines().count(), 200);
    assert!(raw.lines().all(|line| line.len() == 59), "stdout gets the lines as they are");
    let read = world.ctl(&["logs", "coder"]).ok();
    let texts: Vec<&str> = read.lines().map(|line| line.rsplit(' ').next().unwrap_or_default()).collect();
    assert!(texts.len() < 200 && texts.len() > 3 * 40, "three archives and current: {}", texts.len());
    let kept: Vec<&str> = raw.lines().skip(200 - texts.len()).collect();
    assert_eq!(texts, kept, "in order, none missing");

    // A writer that stays: SIGTERM ends the logger, with what was written so far and the line that was begun.
    let script = format!(
        "mkfifo /tmp/lines; /command/s6-log -t 50 T {dir} </tmp/lines & exec 3>/tmp/lines; \
         printf 'whole\\nbegun' >&3; until grep -q whole {dir}/current; do :; done; kill -TERM $!; wait $!; echo $?"
    );
    assert_eq!(shell(&script).ok(), "0\n");
    let log = world.read(&format!("{dir}/current"));
    assert!(log.ends_with("  begun\n") && log.contains("  whole\n"), "{log}");
}
