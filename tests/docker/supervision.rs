//! What the image's gateways get from their supervisor (items 89 to 106 of the image's contract), and what hurts the
//! users of s6 there and must not come back (P2 to P21 of its pains). Crashes and restarts of gateways: `gateways`;
//! signals to the container's program: `entrypoint`; a second gateway container on one volume: `volumes`.

use serde_json::{Value, json};

use crate::harness::*;
use crate::world::{World, await_gateway_state, boot_line, booted, gateway_state, on_both_mounts};

on_both_mounts! {
    items_89_to_91_a_slot_of_our_own
    item_93_a_stopped_process_is_stopped
    item_94_a_gateway_has_its_own_session
    items_97_to_100_each_gets_one_sigterm
    item_97_no_grace_is_waited_for
    items_102_and_103_signals_and_exit_codes
    items_104_to_106_plans_and_accidents
    p2_nothing_of_a_deleted_profile_stays
    p3_commands_are_done_when_they_return
    p4_what_hermes_plants_runs_as_hermes
    p5_a_remapped_user_rules_its_gateways
    p21_nothing_keeps_an_empty_place
}

/// Plants the slot `name` with these files as hermes, and has it found.
#[track_caller]
fn plant(container: &Container, name: &str, files: &[(&str, &str)]) {
    let files = files
        .iter()
        .map(|(file, text)| format!("cat >.new/{file} <<'END'\n{text}\nEND\nchmod 755 .new/{file}\n"));
    let script = format!(
        "cd /run/service; mkdir .new; {}mv .new {name}; /command/s6-svscanctl -a .",
        files.collect::<String>()
    );
    container.sh(&script).ok();
}

#[track_caller]
fn await_file(container: &Container, path: &str, content: &str) {
    let mut last = String::new();
    let written = || {
        last = container.exec_as("hermes", &["cat", path]).out;
        (last == content).then_some(())
    };
    eventually(&format!("{path} holds {content:?}"), written);
}

/// Starts wanted up without `down`, ends with its words told to `finish`, and 125 is for ever.
fn items_89_to_91_a_slot_of_our_own(world: &World) {
    let container = world.idle();
    let run = "#!/bin/sh\necho one >>/tmp/lives\n[ $(wc -l </tmp/lives) -gt 2 ] || kill -KILL $$\nexit 3";
    let finish = "#!/bin/sh\necho \"$1 $2 $3 $(pwd)\" >>/tmp/ends\n[ $1 = 256 ] || exit 125";
    plant(container, "finishing", &[("run", run), ("finish", finish)]);
    let killed = "256 9 finishing /run/service/finishing\n";
    let own = "3 0 finishing /run/service/finishing\n";
    await_file(container, "/tmp/ends", &format!("{killed}{killed}{own}"));
    let status = container.await_svstat("finishing", "down (exitcode 3)");
    assert!(!status.contains("want up"), "{status}");

    // `down` is the first want, and neither verb touches it.
    container.sh("mkdir /run/service/.idle; cd /run/service/.idle; touch down; echo '#!/bin/sh' >run").ok();
    container
        .sh("cd /run/service; echo 'exec sleep 6000' >>.idle/run; chmod 755 .idle/run; mv .idle idle")
        .ok();
    container.sh("/command/s6-svscanctl -a /run/service").ok();
    assert!(container.svstat("idle").starts_with("down (not started yet)"), "{}", container.svstat("idle"));
    container.exec_as("hermes", &["/command/s6-svc", "-u", "/run/service/idle"]).ok();
    container.await_svstat("idle", "up ");
    assert!(container.has("-e", "/run/service/idle/down"));
    container.exec_as("hermes", &["/command/s6-svc", "-d", "/run/service/idle"]).ok();
    container.await_svstat("idle", "down ");
    assert!(!container.has("-e", "/run/service/finishing/down"), "neither does a failure");
}

/// -d continues what is stopped, so that it can obey.
fn item_93_a_stopped_process_is_stopped(world: &World) {
    let container = world.idle();
    let run = "#!/bin/sh\ntrap 'echo obeyed >/tmp/obeyed; exit 0' TERM\nwhile :; do sleep 0.05; done";
    plant(container, "halted", &[("run", run)]);
    let pid = container.await_up(&["halted"]);
    container.exec_as("hermes", &["kill", "-STOP", &pid.to_string()]).ok();
    container.exec_as("hermes", &["/command/s6-svc", "-wD", "-d", "/run/service/halted"]).ok();
    await_file(container, "/tmp/obeyed", "obeyed\n");
}

fn item_94_a_gateway_has_its_own_session(world: &World) {
    let container = world.gateway();
    let pid = container.await_up(&["default"]).to_string();
    let session = container.exec_as("hermes", &["ps", "-o", "sid=,tty=", "-p", &pid]).ok();
    assert_eq!(session.split_whitespace().collect::<Vec<_>>(), [&pid, "?"]);
}

/// What a docker stop leaves: one signal each (under s6 up to three), no plan, and the wish to run. All are signalled at
/// once, where s6 ends the services of the image first.
fn items_97_to_100_each_gets_one_sigterm(world: &World) {
    let profiles = ["coder", "writer"];
    let volume = Volume::with_gateways(&profiles);
    let container = booted(world.run().volume(&volume).cmd(&["sleep", "infinity"]).supervised(), "writer");
    container.await_up(&profiles);
    for profile in profiles {
        await_gateway_state(&container, profile, "running");
    }
    // Lingers, so that a second signal would be seen.
    let counter = "#!/bin/sh\ntrap 'echo term >>/opt/data/terms; last=1' TERM
        while [ -z \"$last\" ]; do sleep 0.02; done; sleep 0.5";
    plant(&container, "counter", &[("run", counter)]);
    container.await_up(&["counter"]);

    container.stop();

    assert_eq!(container.wait(), 0, "{}", container.logs());
    assert_eq!(volume.sh("hermes", "cat terms"), "term\n");
    for profile in profiles {
        let words = format!(
            "cd profiles/{profile}; cat gateway_state.json; ls -A; cat /opt/data/logs/gateways/{profile}/current"
        );
        let left = volume.sh("hermes", &words);
        assert_eq!(left.matches("signal=SIGTERM").count(), 1, "{profile}: {left}");
        assert!(!left.contains(".gateway-planned-stop.json"), "{profile}: {left}");
        let state: Value =
            serde_json::Deserializer::from_str(&left).into_iter().next().expect("JSON").expect("JSON");
        assert_eq!(state["gateway_state"], "running", "{profile}: {state}");
    }
}

/// s6 waits three seconds in full, also when all have ended. Nothing here takes time to end.
fn item_97_no_grace_is_waited_for(world: &World) {
    one_stop_is_quick(|| {
        let container = world.run().cmd(&["sleep", "infinity"]).supervised();
        plant(&container, "quick", &[("run", "#!/bin/sh\nexec sleep 6000")]);
        container.await_up(&["quick"]);
        let took = container.stop();
        assert_eq!(container.wait(), 0, "{}", container.logs());
        took
    });
}

fn items_102_and_103_signals_and_exit_codes(world: &World) {
    let container = world.idle();
    container.hermes(&["profile", "create", "signalled"]).ok();
    container.hermes(&["-p", "signalled", "gateway", "start"]).ok();
    await_gateway_state(container, "signalled", "running");
    let first = container.await_up(&["signalled"]);
    let signal = |name: &str, pid: u64| {
        container.exec_as("hermes", &["kill", &format!("-{name}"), &pid.to_string()]).ok();
    };
    // The restart that the gateway asks for is none that it waits for.
    signal("USR1", first);
    let second = eventually("another life", || container.pid("signalled").filter(|pid| *pid != first));
    let service = container.service("signalled");
    assert_eq!((&service["last_exit"]["code"], &service["restarts"]), (&json!(75), &json!(1)), "{service}");
    await_gateway_state(container, "signalled", "running");
    // A clean end is its own wish.
    signal("INT", second);
    let service = container.await_state("signalled", "finished");
    assert_eq!((&service["last_exit"]["code"], &service["want"]), (&json!(0), &json!("up")), "{service}");
}

fn items_104_to_106_plans_and_accidents(world: &World) {
    let container = booted(world.run().cmd(&["sleep", "infinity"]).supervised(), "default");
    for profile in ["planned", "kept"] {
        container.hermes(&["profile", "create", profile]).ok();
        container.hermes(&["-p", profile, "gateway", "start"]).ok();
    }
    for profile in ["planned", "kept"] {
        await_gateway_state(&container, profile, "running");
    }
    container.hermes(&["-p", "planned", "gateway", "stop"]).ok();
    let service = container.service("planned");
    assert_eq!(service["last_exit"]["code"], 0, "{service}");
    assert_eq!(gateway_state(&container, "planned")["gateway_state"], "stopped");

    container.restart();

    container.await_up(&["kept"]);
    let line = boot_line(&container, "kept").expect("a line");
    assert!(line.contains("prior_state=running") && line.contains("action=started"), "{line}");
    let line = boot_line(&container, "planned").expect("a line");
    assert!(line.contains("prior_state=stopped") && line.contains("action=registered"), "{line}");
    assert!(container.svstat("gateway-planned").starts_with("down "));
}

/// Under s6 each deleted profile leaves two supervisors and a logger, and the next of that name has two writers.
fn p2_nothing_of_a_deleted_profile_stays(world: &World) {
    let container = booted(world.run().cmd(&["sleep", "infinity"]).supervised(), "default");
    let processes = || {
        let all = container.exec(&["ps", "-eo", "args="]).ok();
        let mut all: Vec<String> =
            all.lines().filter(|line| !line.starts_with("ps ")).map(String::from).collect();
        all.sort();
        all
    };
    let before = processes();
    // As the commands do, without the time that a new interpreter takes.
    let cycles = "
import io, contextlib
from hermes_cli.profiles import create_profile, delete_profile
from hermes_cli.service_manager import S6ServiceManager
manager = S6ServiceManager()
for _ in range(10):
    with contextlib.redirect_stdout(io.StringIO()):
        create_profile('leaky', no_alias=True, no_skills=True)
        manager.unregister_profile_gateway('leaky')
        manager.register_profile_gateway('leaky', start_now=True)
        delete_profile('leaky', yes=True)
create_profile('leaky', no_alias=True, no_skills=True)";
    container.exec_as("hermes", &["/opt/hermes/.venv/bin/python", "-c", cycles]).ok();
    let leaky = container.service("leaky");
    assert_eq!((&leaky["want"], &leaky["state"]), (&json!("down"), &json!("down")), "{leaky}");
    assert_eq!(processes(), before);

    container.hermes(&["-p", "leaky", "gateway", "start"]).ok();
    await_gateway_state(&container, "leaky", "running");
    let gateways = container.pgrep("hermes -p leaky gateway");
    assert_eq!(gateways.lines().count(), 1, "{gateways}");
    // A second writer would write what the first has written too.
    let log = "/opt/data/logs/gateways/leaky";
    let banners = |text: &str| text.matches("Gateway Starting").count();
    eventually("the file tells of each start once", || {
        let current = container.exec_as("hermes", &["cat", &format!("{log}/current")]).ok();
        (banners(&current) == banners(&container.logs())).then_some(())
    });
    assert!(!container.has("-e", &format!("{log}/lock")));
}

/// Contract: 73, 92.
fn p3_commands_are_done_when_they_return(world: &World) {
    let container = world.idle();
    container.hermes(&["profile", "create", "obedient"]).ok();
    // Under s6 a restart of a stopped gateway does nothing and yet is remembered.
    container.hermes(&["-p", "obedient", "gateway", "restart"]).ok();
    let first = container.pid("obedient").expect("it runs");
    await_gateway_state(container, "obedient", "running");
    container.hermes(&["-p", "obedient", "gateway", "restart"]).ok();
    assert!(container.pid("obedient").is_some_and(|pid| pid != first), "another life");
    container.hermes(&["-p", "obedient", "gateway", "stop"]).ok();
    assert_eq!(container.state("obedient"), "down");
    assert_eq!(container.pgrep("hermes -p obedient"), "");
}

fn p4_what_hermes_plants_runs_as_hermes(world: &World) {
    let container = world.idle();
    let look = "#!/bin/sh\nid -u >>/tmp/planted-ids; grep -E 'Cap(Prm|Eff)|^Groups' /proc/self/status >/tmp/planted-status";
    plant(
        container,
        "planted",
        &[("run", &format!("{look}\nexit 1")), ("finish", "#!/bin/sh\nid -u >>/tmp/planted-ids\nexit 125")],
    );
    await_file(container, "/tmp/planted-ids", "10000\n10000\n");
    let status = container.exec_as("hermes", &["cat", "/tmp/planted-status"]).ok();
    for line in status.lines().filter(|line| line.starts_with("Cap")) {
        assert!(line.ends_with("0000000000000000"), "{status}");
    }
    // The slot of a gateway that was replaced is no better.
    container.hermes(&["profile", "create", "replaced"]).ok();
    let run = "#!/bin/sh\nid -u >/tmp/replaced\nexec sleep 6000";
    container.sh("rm -r /run/service/gateway-replaced").ok();
    plant(container, "gateway-replaced", &[("run", run)]);
    container.exec_as("hermes", &["/command/s6-svc", "-u", "/run/service/gateway-replaced"]).ok();
    await_file(container, "/tmp/replaced", "10000\n");
}

/// s6's slots belong to 10000, whatever uid hermes has by now.
fn p5_a_remapped_user_rules_its_gateways(world: &World) {
    let flags = ["--env=PUID=1000", "--env=PGID=1001"];
    let container = booted(world.run().flags(&flags).cmd(&["sleep", "infinity"]).supervised(), "default");
    container.hermes(&["profile", "create", "mine"]).ok();
    let owner = container.exec_as("hermes", &["stat", "-c", "%u:%g", "/run/service/gateway-default"]).ok();
    assert_eq!(owner.trim(), "1000:1001");
    container.hermes(&["-p", "mine", "gateway", "start"]).ok();
    let pid = container.await_up(&["mine"]).to_string();
    let ids = container.exec_as("hermes", &["ps", "-o", "uid=,gid=", "-p", &pid]).ok();
    assert_eq!(ids.split_whitespace().collect::<Vec<_>>(), ["1000", "1001"]);
    container.hermes(&["-p", "mine", "gateway", "stop"]).ok();
    assert_eq!(container.state("mine"), "down");
    container.hermes(&["profile", "delete", "mine", "--yes"]).ok();
    assert_eq!(container.ctl(&["status", "mine"]).code, 4);
}

/// Contract: 58.
fn p21_nothing_keeps_an_empty_place(world: &World) {
    let container = world.gateway();
    eventually("the redirect's own place", || (container.heartbeats() == 1).then_some(()));
    let sleeping = container.pgrep("^sleep infinity");
    assert_eq!(sleeping.lines().count(), 1, "{sleeping}");
    assert!(container.svstat("main-hermes").starts_with("up "));
}

/// Behind another init the CLI takes the container for none of s6's, so the redirect is ours, and the applets serve.
#[test]
fn p8_behind_another_init() {
    let container = booted(Run::new().variant(&INIT).cmd(&["gateway", "run"]).supervised(), "default");
    container.await_log("gateway 'default' now runs under supervision");
    let first = container.await_up(&["default"]);
    assert_eq!(container.pgrep("^sleep"), "", "our redirect needs none");
    let doctor = container.exec(&["hermes-sup", "doctor"]).ok();
    assert!(doctor.contains("/opt/hermes/bin/hermes hands 'gateway start'"), "{doctor}");
    container.exec_as("hermes", &["kill", "-KILL", &first.to_string()]).ok();
    eventually("another process runs", || container.pid("default").filter(|pid| *pid != first));
    container.exec_as("hermes", &["/command/s6-svc", "-wD", "-d", "/run/service/gateway-default"]).ok();
    assert!(container.svstat("gateway-default").starts_with("down "));
    container.exec_as("hermes", &["/command/s6-svc", "-wu", "-u", "/run/service/gateway-default"]).ok();
    assert!(container.wants_up("gateway-default"));
    container.stop();
    assert_eq!(container.wait(), 0, "{}", container.logs());
}

#[test]
fn p9_as_hermes_without_capabilities() {
    hardened(&["--user=10000:10000", "--cap-drop=ALL"]);
}

/// Docker mounts the tmpfs without exec, and slots lie there.
#[test]
fn p9_on_a_read_only_root() {
    hardened(READ_ONLY.flags);
}

#[test]
fn p9_all_at_once() {
    hardened(&[
        "--user=10000:10000",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
        "--read-only",
        "--tmpfs=/run:uid=10000,gid=10000",
    ]);
}

#[track_caller]
fn hardened(flags: &[&str]) {
    let container = booted(Run::new().flags(flags).cmd(&["gateway", "run"]).supervised(), "default");
    container.await_log("s6 supervision");
    let first = container.await_up(&["default"]);
    await_gateway_state(&container, "default", "running");
    container.exec_as("hermes", &["kill", "-KILL", &first.to_string()]).ok();
    eventually("another process runs", || container.pid("default").filter(|pid| *pid != first));
    container.hermes(&["profile", "create", "coder"]).ok();
    container.hermes(&["-p", "coder", "gateway", "start"]).ok();
    container.await_up(&["coder"]);
    container.hermes(&["-p", "coder", "gateway", "stop"]).ok();
    assert!(container.svstat("gateway-coder").starts_with("down "));
    container.hermes(&["profile", "delete", "coder", "--yes"]).ok();
    // A slot that is no gateway, with a finish script.
    let files = [("run", "#!/bin/sh\nexit 3"), ("finish", "#!/bin/sh\necho $1 >/opt/data/ended\nexit 125")];
    plant(&container, "ending", &files);
    await_file(&container, "/opt/data/ended", "3\n");
    container.stop();
    assert_eq!(container.wait(), 0, "{}", container.logs());
}

/// The runtime directory is root's and we are not: nothing can be shown there, and all else works.
#[test]
fn p9_without_a_place_for_the_surface() {
    let flags = ["--user=10000:10000", "--cap-drop=ALL"];
    let run = Run::new().flags(&flags).flags(READ_ONLY.flags).cmd(&["gateway", "run"]);
    let container = booted(run.supervised(), "default");
    container.await_log("gateway 'default' now runs under supervision");
    container.await_up(&["default"]);
    container.exec_as("hermes", &["hermes-sup", "ctl", "restart", "default"]).ok();
    container.stop();
    assert_eq!(container.wait(), 0, "{}", container.logs());
}

/// The volume is another container's: the program runs, the CLI says in words what it cannot do, and the log has one
/// writer.
/// Contract: 72.
#[test]
fn p12_a_second_container_on_the_volume() {
    let volume = Volume::with_gateways(&["coder"]);
    let holder = booted(Run::new().volume(&volume).cmd(&["sleep", "infinity"]).supervised(), "coder");
    let pid = holder.await_up(&["coder"]);
    let second = Run::new().volume(&volume).cmd(&["sleep", "infinity"]).detach();
    eventually("its program runs", || second.pgrep("^sleep infinity").contains("sleep").then_some(()));
    let refused = second.hermes(&["-p", "coder", "gateway", "start"]);
    assert_eq!(refused.code, 1, "{refused:#?}");
    assert!(refused.out.starts_with("✗ "), "{refused:#?}");
    assert!(!refused.err.contains("Traceback"), "{refused:#?}");
    assert_eq!(second.pgrep("gateway run"), "");
    second.stop();
    assert_eq!(holder.pid("coder"), Some(pid), "the holder's gateway was touched");
    assert!(!second.logs().contains("unable to lock"), "{}", second.logs());
}

/// The exit code of a program that has the terminal, beside a gateway that has none.
#[test]
fn p18_terminal_and_exit_code() {
    let volume = Volume::with_gateways(&["coder"]);
    let script = "read -r line; echo \"got $line\"; exit 42";
    let (container, mut session) = Run::new().volume(&volume).terminal(script);
    eventually("the container runs", || (container.ctl(&["list"]).code == 0).then_some(()));
    container.await_up(&["coder"]);
    session.send_line("through").expect("sent");
    session.exp_string("got through").expect("the answer");
    session.exp_string("client ended with 42").expect("the exit code");
}

/// `docker pause` in the middle of a stop. To the supervisor the stop's timeout was over when the container went on, though
/// the service had not run either: it was killed while it was about to obey.
#[test]
fn a_pause_of_the_container_is_nobodys_timeout() {
    let container = Run::new().cmd(&["sleep", "6000"]).supervised();
    let script = "trap 'echo >/tmp/asked; read go </tmp/go; echo obeyed >/tmp/ended; exit 0' TERM\\nwhile :; do sleep 0.05; done";
    let definition =
        format!("command = [\"sh\", \"-c\", \"{script}\"]\nuser = \"hermes\"\n[stop]\ntimeout = \"10s\"");
    let write = "mkfifo -m 666 /tmp/go; mkdir -p /etc/hermes-sup/services; printf '%s' \"$1\" >/etc/hermes-sup/services/slow.toml";
    container.exec(&["sh", "-euc", write, "sh", &definition]).ok();
    container.ctl(&["reload"]).ok();
    container.await_up(&["slow"]);
    std::thread::scope(|scope| {
        let stop = scope.spawn(|| container.ctl(&["stop", "slow"]));
        await_file(&container, "/tmp/asked", "\n");
        docker(&["pause", &container.id()]).ok();
        // The pause itself, longer than the timeout.
        let pause = std::process::Command::new("sleep").arg("13").status();
        docker(&["unpause", &container.id()]).ok();
        assert!(pause.expect("sleep").success());
        // The first answer shows that the supervisor runs, the second that it has looked at the time meanwhile.
        let states = [(); 2].map(|()| container.state("slow"));
        assert_eq!(states, ["stopping", "stopping"], "{}", container.logs());
        container.exec(&["sh", "-c", "echo >/tmp/go"]).ok();
        stop.join().expect("docker exec").ok();
    });
    await_file(&container, "/tmp/ended", "obeyed\n");
    assert!(container.logs().contains("the supervisor did not run for"), "{}", container.logs());
}
