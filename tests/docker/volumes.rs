//! The data volume: what survives a container, who may use it, and what happens when two want it.

use crate::harness::*;
use std::time::{Duration, Instant};

fn supervised(volume: &Volume) -> Container {
    Run::new().volume(volume).cmd(&["sleep", "infinity"]).supervised()
}

#[test]
fn wants_survive_the_container() {
    let volume = Volume::with_gateways(&["coder", "writer"]);
    let container = supervised(&volume);
    container.await_up(&["coder", "writer"]);
    container.ctl(&["stop", "coder"]).ok();
    drop(container);

    // That was `docker rm --force`: the lock it left is no obstacle.
    let container = supervised(&volume);
    container.await_up(&["writer"]);
    assert_eq!(container.state("coder"), "down");
}

/// The boot read files of hermes's as root, to their end: one of 3 GB without a byte in it, or a FIFO, kept the container from
/// ever starting.
#[test]
fn a_boot_is_not_kept_waiting_by_what_lies_on_the_volume() {
    let read = "config.yaml .env .install_method SOUL.md auth.json active_profile gateway.lock gateway_state.json \
                services/planted.toml services/gateway.toml profiles/coder/gateway_state.json profiles/coder/gateway.lock \
                profiles/odd/SOUL.md logs/gateways/coder/current logs/container-boot.log";
    let makes = ["truncate -s 3G", "mkfifo", "ln -s /dev/zero", "ln -s /proc/kmsg", "mkdir"];
    for make in makes {
        let volume = Volume::new();
        volume.sh(
            "hermes",
            &format!(
                "mkdir -p services profiles/coder profiles/odd logs/gateways/coder; : >profiles/coder/SOUL.md
                 for file in {read}; do {make} $file; done"
            ),
        );
        let begun = Instant::now();
        let flags = [
            "--env=HERMES_GATEWAY_BOOTSTRAP_STATE=running",
            "--env=HERMES_AUTH_JSON_BOOTSTRAP={}",
            "--env=HERMES_SUP_GATEWAYS=off",
        ];
        let container = Run::new().volume(&volume).flags(&flags).cmd(&["sleep", "infinity"]).supervised();
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(60), "{make}: {took:?}\n{}", container.logs());
        let peak = container.exec(&["grep", "VmHWM", "/proc/1/status"]).ok();
        let kilobytes: u64 = peak.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).expect("a size");
        assert!(kilobytes < 64 << 10, "{make}: {peak}");
        // Nothing of root's is held up, and the container ends as ever.
        let took = container.stop();
        assert!(took < Duration::from_secs(10), "{make}: {took:?}");
    }
}

/// Contract: 106.
#[test]
fn a_signal_changes_no_want() {
    let volume = Volume::with_gateways(&["coder"]);
    let container = supervised(&volume);
    container.await_up(&["coder"]);
    for signal in ["TERM", "RTMIN+3", "KILL"] {
        container.signal(signal);
        container.wait();
        docker(&["start", &container.id()]).ok();
        container.await_supervisor();
        container.await_up(&["coder"]);
    }
}

/// Contract: 54, 55.
#[test]
fn the_boot_is_told_for_each_profile() {
    let volume = Volume::with_gateways(&["coder"]);
    let container = supervised(&volume);
    let boot = container.exec_as("hermes", &["cat", "/opt/data/logs/container-boot.log"]).ok();
    let line = |profile: &str| {
        let found = boot.lines().find(|line| line.contains(&format!("profile={profile} ")));
        found.unwrap_or_else(|| panic!("no line for {profile}: {boot}")).to_string()
    };
    assert!(
        line("coder").contains("prior_state=running") && line("coder").contains("action=started"),
        "{boot}"
    );
    assert!(
        line("default").contains("prior_state=None") && line("default").contains("action=registered"),
        "{boot}"
    );
    assert!(container.logs().contains("profile=coder"), "{}", container.logs());
}

#[test]
fn a_program_runs_beside_the_container_that_holds_the_state() {
    let volume = Volume::with_gateways(&["coder"]);
    let holder = supervised(&volume);
    let pid = holder.await_up(&["coder"]);

    let chat = Run::new().volume(&volume).cmd(&["chat", "--help"]).output();

    assert_eq!(chat.code, 0, "{chat:?}");
    assert!(chat.out.contains("usage: hermes chat"), "{chat:?}");
    assert_eq!(
        chat.err.lines().filter(|line| line.contains("without supervising services")).count(),
        1,
        "{chat:?}"
    );
    assert_eq!(holder.pid("coder"), Some(pid), "the holder's gateway was touched");
}

#[test]
fn a_second_gateway_container_is_refused_and_told_by_whom() {
    let volume = Volume::with_gateways(&["coder"]);
    let holder =
        Run::new().volume(&volume).flags(&["--hostname=holder"]).cmd(&["gateway", "run"]).supervised();
    let pid = holder.await_up(&["default"]);

    let second = Run::new().volume(&volume).cmd(&["gateway", "run"]).output();

    assert_eq!(second.code, 1, "{second:?}");
    assert!(second.err.contains("holder"), "{second:?}");
    assert_eq!(holder.pid("default"), Some(pid), "the holder's gateway was touched");
}

#[test]
fn a_foreign_owner_is_one_clear_error() {
    let volume = Volume::new();
    volume.sh("root", "chown 4242:4242 .; chmod 755 .; touch theirs");
    let refused = Run::new().variant(&USER_10000).volume(&volume).cmd(&["gateway", "run"]).output();
    assert_eq!(refused.code, 1, "{refused:?}");
    let errors: Vec<&str> = refused.err.lines().filter(|line| line.contains("belongs to uid 4242")).collect();
    assert_eq!(errors.len(), 1, "{refused:?}");
    assert!(!refused.err.contains("panicked"), "{refused:?}");
}

#[test]
fn the_gateway_user_rules_its_gateways_and_others_do_not() {
    let volume = Volume::with_gateways(&["coder"]);
    let container = supervised(&volume);
    let pid = container.await_up(&["coder"]);

    let stranger = container.exec_as("4242:4242", &["hermes-sup", "ctl", "stop", "coder"]);
    assert_eq!(stranger.code, 6, "{stranger:?}");
    assert_eq!(container.pid("coder"), Some(pid));

    container.exec_as("hermes", &["hermes-sup", "ctl", "stop", "coder"]).ok();
    assert_eq!(container.state("coder"), "down");
    let typo = container.ctl(&["start", "codr"]);
    assert_eq!(typo.code, 4, "{typo:?}");
    assert!(typo.err.contains("did you mean 'coder'"), "{typo:?}");
}

/// A NAS gives its share to another user, or other ids are asked for: hermes's own services stayed those of the old uid, and were
/// refused. `chown -R` takes the state from root, too: nothing in it is believed then, and what helps is in the documentation.
#[test]
fn another_uid_of_hermes_keeps_its_services_and_what_was_wanted() {
    let volume = Volume::new();
    volume.sh(
        "hermes",
        "mkdir services; for each in runs rests; do echo 'command = [\"sleep\", \"1000\"]' >services/$each.toml; done",
    );
    let run = |uid: u32| {
        let ids = [format!("--env=HERMES_UID={uid}"), format!("--env=HERMES_GID={uid}")];
        let flags = ids.each_ref().map(|flag| &**flag);
        let container = Run::new().volume(&volume).flags(&flags).cmd(&["sleep", "infinity"]).supervised();
        let pid = container.await_up(&["runs"]).to_string();
        assert_eq!(container.exec(&["ps", "-o", "uid=", "-p", &pid]).ok().trim(), uid.to_string());
        container
    };
    run(2000).ctl(&["stop", "rests"]).ok();
    assert_eq!(run(3000).state("rests"), "down");
    volume.sh("root", "chown -R 4000:4000 /opt/data");
    run(4000).await_log("set aside as supervisor.foreign-");
    volume.sh(
        "root",
        "chown -R root:4000 supervisor.foreign-*; rm -r supervisor; mv supervisor.foreign-* supervisor",
    );
    let container = run(4000);
    assert_eq!(container.state("rests"), "down");
    assert!(!container.logs().contains("set aside"), "{}", container.logs());
}
