//! `[hooks]`: what runs before and after a start and a stop, with the rights of the service and within its time.

use crate::harness::{Setup, World};
use crate::on_every_rung;

on_every_rung!(
    before_the_start_and_after_the_end,
    beside_the_main_process_when_it_is_up_and_before_it_is_told_to_end,
    a_start_fails_with_the_sentence_of_its_hook_and_nothing_of_it_is_left,
    a_hook_that_hangs_before_a_stop_takes_half_of_its_time,
    a_probe_makes_room_for_the_hook_before_a_stop,
    a_stop_by_a_word_to_the_main_process,
);

fn shell(script: &str) -> String {
    format!("[\"/bin/sh\", \"-c\", {script:?}]")
}

/// A migration before each start, and a word about the end after it: both on every rung, as the service's user.
fn before_the_start_and_after_the_end(setup: Setup) {
    let mut world = World::new(setup);
    world.write("/etc/web.env", "PASSWORD=s3cret\n");
    let before = shell("echo $HERMES_SUP_HOOK of $HERMES_SUP_SERVICE, $PASSWORD");
    let after = shell(
        "echo $HERMES_SUP_HOOK: $HERMES_SUP_EXIT_REASON [$HERMES_SUP_EXIT_CODE/$HERMES_SUP_EXIT_SIGNAL]",
    );
    let rest = format!("env_file = \"/etc/web.env\"\n[hooks]\npre_start = {before}\npost_stop = {after}\n");
    world.adversary("web", "pause", &rest);
    let _supervisor = world.start();
    world.wait_state("web", &["up"]);
    world.wait_log("web", "ready");
    world.ctl(&["stop", "web"]).ok();
    world.wait_log("web", "post_stop: killed by SIGTERM [/SIGTERM]");
    let lines = world.log_lines("web");
    assert_eq!(lines.first().map(String::as_str), Some("pre_start of web, s3cret"), "{lines:#?}");
    assert_eq!(
        lines.last().map(String::as_str),
        Some("post_stop: killed by SIGTERM [/SIGTERM]"),
        "{lines:#?}"
    );
    world.assert_no_survivors("after the stop");
}

/// The word before the signal, and the one after the start, are beside the main process.
fn beside_the_main_process_when_it_is_up_and_before_it_is_told_to_end(setup: Setup) {
    let mut world = World::new(setup);
    let say = shell("echo $HERMES_SUP_HOOK of $(kill -0 $HERMES_SUP_MAIN_PID && echo the living)");
    world.adversary("web", "pause", &format!("[hooks]\npost_start = {say}\npre_stop = {say}\n"));
    let _supervisor = world.start();
    world.wait_log("web", "post_start of the living");
    world.wait_stderr("web: its hook post_start has run");
    world.ctl(&["stop", "web"]).ok();
    world.wait_log("web", "pre_stop of the living");
    assert_eq!(world.status("web")["last_exit"]["signal"], "SIGTERM");
    let told = world.events();
    let hooks = told.iter().filter(|one| one["event"] == "hook").filter_map(|one| one["message"].as_str());
    let hooks: Vec<&str> = hooks.collect();
    assert!(
        matches!(hooks[..], [first, second] if first.contains("post_start has run") && second.contains("pre_stop has run")),
        "{told:#?}"
    );
}

fn a_start_fails_with_the_sentence_of_its_hook_and_nothing_of_it_is_left(setup: Setup) {
    let mut world = World::new(setup);
    let slow = "[restart]\nbackoff = { initial = \"1h\", max = \"1h\" }\n";
    let mark = world.mark.clone();
    for (name, hook, patience) in [
        ("fails", shell("exit 3"), "1h"),
        ("missing", "[\"/no/such/hook\"]".to_owned(), "1h"),
        ("hangs", format!("[\"/adversary\", \"ignore-term\", {mark:?}]"), "300ms"),
    ] {
        let rest =
            format!("autostart = false\n{slow}[hooks]\npre_start = {hook}\ntimeout = \"{patience}\"\n");
        world.adversary(name, "pause", &rest);
    }
    let _supervisor = world.start();
    for (name, words) in [
        ("fails", "its hook pre_start exited with code 3"),
        ("missing", "its hook pre_start: "),
        ("hangs", "its hook pre_start did not end in its time and is killed"),
    ] {
        let said = world.ctl(&["start", name]).fails(1);
        assert!(said.contains(words), "{said}");
        let status = world.wait_state(name, &["backoff"]);
        assert!(status["reason"].as_str().unwrap_or_default().contains(words), "{status}");
        assert!(!world.log(name).contains("ready pause"), "it was never made: {}", world.log(name));
    }
    world.assert_no_survivors("after hooks that failed");
}

/// As `nginx -s quit` and `kill -QUIT $MAINPID` of systemd units do it. The signal is the hook's: the main process is gone before
/// its own stop signal comes.
fn a_stop_by_a_word_to_the_main_process(setup: Setup) {
    let mut world = World::new(setup);
    let quit = shell(
        "kill -QUIT $HERMES_SUP_MAIN_PID; while kill -0 $HERMES_SUP_MAIN_PID 2>/dev/null; do sleep 0.01; done",
    );
    world.adversary("web", "pause", &format!("[hooks]\npre_stop = {quit}\n"));
    let _supervisor = world.start();
    world.wait_log("web", "ready");
    world.ctl(&["stop", "web"]).ok();
    assert_eq!(world.status("web")["last_exit"]["signal"], "SIGQUIT", "{}", world.stderr());
    world.assert_no_survivors("after the stop");
}

/// A hook that hangs would hold up every stop of its service.
fn a_hook_that_hangs_before_a_stop_takes_half_of_its_time(setup: Setup) {
    let mut world = World::new(setup);
    let hang = shell("echo hanging; exec sleep 100000");
    // An hour of its own, of which a stop leaves it a second.
    let before = format!("[stop]\ntimeout = \"2s\"\n[hooks]\npre_stop = {hang}\ntimeout = \"1h\"\n");
    world.adversary("before", "pause", &before);
    world.adversary("after", "pause", &format!("[hooks]\npost_stop = {hang}\ntimeout = \"1s\"\n"));
    let _supervisor = world.start();
    for (name, words) in [
        ("before", "before: its hook pre_stop did not end in its time and is killed"),
        ("after", "after: its finish program did not end within "),
    ] {
        world.wait_log(name, "ready");
        world.ctl(&["stop", name]).ok();
        world.wait_stderr(words);
        let status = world.status(name);
        assert_eq!(
            (status["state"].as_str(), status["last_exit"]["signal"].as_str()),
            (Some("down"), Some("SIGTERM"))
        );
    }
}

/// A probe that hangs would keep the word from the load balancer.
fn a_probe_makes_room_for_the_hook_before_a_stop(setup: Setup) {
    let mut world = World::new(setup);
    let (hang, say) = (shell("echo probing; exec sleep 1000"), shell("echo $HERMES_SUP_HOOK is said"));
    let rest =
        format!("[health]\nkind = \"exec\"\ncommand = {hang}\ntimeout = \"1h\"\n[hooks]\npre_stop = {say}\n");
    world.adversary("web", "pause", &rest);
    let _supervisor = world.start();
    world.wait_log("web", "probing");
    world.ctl(&["stop", "web"]).ok();
    world.wait_log("web", "pre_stop is said");
    world.wait_stderr("web: its hook pre_stop has run");
    assert_eq!(world.status("web")["last_exit"]["signal"], "SIGTERM");
    world.assert_no_survivors("after the stop");
}
