//! The image around the supervisor: what an image of Hermes promises its users before a service runs. The numbers are
//! those of the image's contract, one test each.
//!
//! Most tests are one container: a script prepares it as root, the real ENTRYPOINT boots, and the CMD, as hermes, looks
//! at what became of it.

use crate::harness::*;

const WRAPPER: &str = "/opt/hermes/docker/main-wrapper.sh";
const LOOK: &str = "-- what the CMD saw";

/// A boot: what it printed before the CMD ran, and what the CMD printed.
struct Boot {
    log: String,
    seen: String,
}

/// `prepare` runs as root in the container, then it boots and `look` runs in a shell as its CMD.
#[track_caller]
fn boot(flags: &[&str], prepare: &str, look: &str) -> Boot {
    let script = format!("{prepare}\nexec /init {WRAPPER} \"$@\"");
    let look = format!("echo '{LOOK}'\n{look}");
    let output = Run::new()
        .flags(flags)
        .flags(&["--entrypoint=/bin/sh"])
        .cmd(&["-euc", &script, "sh", "/bin/sh", "-euc", &look])
        .output();
    let printed = format!("{output:#?}");
    let out = output.ok();
    let (log, seen) = out.split_once(&format!("{LOOK}\n")).unwrap_or_else(|| panic!("no CMD: {printed}"));
    Boot { log: log.to_string(), seen: seen.trim_end().to_string() }
}

/// The lines of `text` that hold `needle`.
fn lines_with<'a>(text: &'a str, needle: &str) -> Vec<&'a str> {
    text.lines().filter(|line| line.contains(needle)).collect()
}

/// A command in the image without its ENTRYPOINT.
fn bare(flags: &[&str], cmd: &[&str]) -> Outcome {
    let entrypoint = format!("--entrypoint={}", cmd[0]);
    Run::new().flags(flags).flags(&[&entrypoint]).cmd(&cmd[1..]).output()
}

fn config(format: &str) -> String {
    Run::new().cmd(&["sleep", "infinity"]).detach().inspect(format)
}

#[test]
fn item_1_hermes_is_10000_and_the_image_starts_as_root() {
    let user = bare(&[], &["getent", "passwd", "hermes"]).ok();
    assert!(user.starts_with("hermes:x:10000:10000:"), "{user}");
    assert!(user.contains(":/opt/data:"), "{user}");
    assert_eq!(bare(&[], &["id", "-u"]).ok().trim(), "0");
}

#[test]
fn item_2_hermes_cannot_change_the_install_tree() {
    let look = "find /opt/hermes /command /etc/cont-init.d /etc/s6-overlay ! -type l \\( -writable -o ! -user root \\) | head";
    assert_eq!(bare(&["--user=hermes"], &["sh", "-c", look]).ok(), "");
}

#[test]
fn items_3_and_4_the_environment_of_the_image() {
    let env = bare(&[], &["env"]).ok();
    for line in [
        "HERMES_DISABLE_LAZY_INSTALLS=1",
        "HERMES_HOME=/opt/data",
        "HERMES_LAZY_INSTALL_TARGET=/opt/data/lazy-packages",
        "HERMES_TUI_DIR=/opt/hermes/ui-tui",
        "HERMES_WEB_DIST=/opt/hermes/hermes_cli/web_dist",
        "HERMES_WRITE_SAFE_ROOT=/opt/data",
        "PLAYWRIGHT_BROWSERS_PATH=/opt/hermes/.playwright",
        "PYTHONDONTWRITEBYTECODE=1",
        "PYTHONUNBUFFERED=1",
        "npm_config_install_links=false",
    ] {
        assert!(env.lines().any(|found| found == line), "{line} is not in\n{env}");
    }
    let path = lines_with(&env, "PATH=/opt/hermes/bin:/opt/hermes/.venv/bin:/opt/data/.local/bin:/usr");
    assert_eq!(path.len(), 1, "{env}");
    assert!(!path[0].contains("/command"), "only what /init starts has it: {path:?}");
}

#[test]
fn items_5_and_6_the_configuration_of_the_image() {
    for (format, expected) in [
        ("{{json .Config.Entrypoint}}", r#"["/opt/hermes/docker/entrypoint-dispatch.sh"]"#),
        ("{{json .Config.Volumes}}", r#"{"/opt/data":{}}"#),
        ("{{.Config.WorkingDir}}", "/opt/hermes"),
        ("{{.Config.ExposedPorts}} {{.Config.StopSignal}}", "map[] "),
        // The image of s6 has none; this one says how its services are.
        ("{{json .Config.Healthcheck.Test}}", r#"["CMD","/usr/local/bin/hermes-sup","healthcheck"]"#),
    ] {
        assert_eq!(config(format).trim(), expected.trim(), "{format}");
    }
}

/// Another init of the container is in front: supervision works all the same.
#[test]
fn item_7_the_dispatcher_supervises_behind_another_init() {
    let dispatch = "--entrypoint=/opt/hermes/docker/entrypoint-dispatch.sh";
    let container = Run::new().flags(&["--init", dispatch]).cmd(&["sleep", "infinity"]).supervised();
    assert!(!container.exec(&["ps", "-p", "1", "-o", "args="]).ok().contains(WRAPPER));
    container.ctl(&["start", "default"]).ok();
    container.await_up(&["default"]);
}

#[test]
fn item_8_tini_hands_on_without_its_options() {
    let echo = "--env=HERMES_TINI_SHIM_TARGET=/bin/echo";
    for (args, handed_on) in [
        ("", ""),
        ("-g --", ""),
        ("-g -- gateway run", " gateway run"),
        ("-s -vvv -w -p SIGTERM -e 143 --unknown -- chat -q hi", " chat -q hi"),
        ("-g sleep 1", " sleep 1"),
        ("-- --version", " --version"),
        ("-g -- /init chat", " chat"),
        ("-g -- /opt/hermes/docker/main-wrapper.sh chat", " chat"),
        ("-g -- /init /opt/hermes/docker/main-wrapper.sh chat", " chat"),
        ("-p", ""),
    ] {
        let cmd: Vec<&str> = ["/usr/bin/tini"].into_iter().chain(args.split_whitespace()).collect();
        assert_eq!(bare(&[echo], &cmd).ok().trim_end(), format!("{WRAPPER}{handed_on}"), "{args}");
    }
    assert!(bare(&[], &["/usr/bin/tini", "-g", "--", "--version"]).ok().contains("Hermes Agent"));
    let script = "head -c 2 /usr/bin/tini; [ ! -L /usr/bin/tini ] && [ -x /usr/bin/tini ]";
    assert_eq!(bare(&[], &["sh", "-c", script]).ok(), "#!");
}

#[test]
fn item_9_the_old_entry_point_prepares_and_runs_nothing() {
    let old = bare(&[], &["/opt/hermes/docker/entrypoint.sh", "echo", "ran"]);
    assert!(old.err.contains("deprecated"), "{old:?}");
    assert!(!old.out.contains("ran"), "{old:?}");
    assert!(old.ok().contains("[stage2] Setup complete"));
}

#[test]
fn item_10_hermes_in_an_exec_as_root_runs_as_hermes() {
    let container = Run::new().cmd(&["sleep", "infinity"]).detach();
    container.await_log("[stage2] Setup complete");
    let owner = |env: &[&str]| {
        container.exec(&["rm", "-f", "/opt/data/config.yaml"]).ok();
        let env = env.iter().map(|value| format!("HERMES_DOCKER_EXEC_AS_ROOT={value}"));
        let env: Vec<String> = env.collect();
        let mut cmd = vec!["env"];
        cmd.extend(env.iter().map(String::as_str));
        cmd.extend(["hermes", "config", "set", "_test", "1"]);
        container.exec(&cmd).ok();
        container.exec(&["stat", "--format", "%U", "/opt/data/config.yaml"]).ok().trim().to_string()
    };
    assert_eq!(owner(&[]), "hermes");
    for value in ["0", "", "2", "false"] {
        assert_eq!(owner(&[value]), "hermes", "{value:?}");
    }
    assert_eq!(owner(&["1"]), "root");
    assert_eq!(owner(&["yes"]), "root");
}

#[test]
fn item_10_hermes_without_its_means_says_so() {
    let status = |prepare: &str| bare(&[], &["sh", "-c", &format!("{prepare}; exec hermes --version")]);
    let missing = status("mv /opt/hermes/.venv/bin/hermes /tmp");
    assert_eq!(missing.code, 127, "{missing:?}");
    let no_tool = status("rm /command/s6-setuidgid");
    assert_eq!(no_tool.code, 126, "{no_tool:?}");
    assert!(no_tool.err.contains("--user hermes"), "{no_tool:?}");
}

#[test]
fn item_11_a_gateway_as_root_is_refused() {
    let cmd = ["hermes", "gateway", "run"];
    let refused = bare(&["--env=HERMES_DOCKER_EXEC_AS_ROOT=1"], &cmd);
    assert_ne!(refused.code, 0, "{refused:?}");
    assert!(format!("{}{}", refused.out, refused.err).contains("HERMES_ALLOW_ROOT_GATEWAY"), "{refused:?}");
}

/// No argument is hermes itself, which without a terminal has nothing to do but says its name.
#[test]
fn item_13_the_first_argument_decides_what_runs() {
    let echo = "printf '#!/bin/sh\\necho hermes \"$@\"\\n' >/opt/hermes/.venv/bin/hermes";
    let script = format!("{echo}\nexec /init {WRAPPER} \"$@\"");
    for (cmd, ran) in [
        (&[][..], "hermes"),
        (&["--version"], "hermes --version"),
        (&["chat", "-q", "a b"], "hermes chat -q a b"),
        (&["echo", "an executable"], "an executable"),
        (&["/bin/echo", "a path"], "a path"),
    ] {
        let all = [&["-euc", &script, "sh"], cmd].concat();
        let out = Run::new().flags(&["--entrypoint=/bin/sh"]).cmd(&all).output().ok();
        assert_eq!(out.lines().last(), Some(ran), "{out}");
    }
}

#[test]
fn items_14_and_15_the_cmd_is_hermes_with_the_groups_of_the_group_file() {
    let boot = boot(
        &["--group-add=4242"],
        "groupadd -g 4243 extra; usermod -aG extra hermes",
        "id -u; id -G; echo $HOME",
    );
    assert_eq!(boot.seen, "10000\n10000 4243\n/opt/data");
}

#[test]
fn items_16_and_17_the_cmd_is_where_docker_says_in_the_venv() {
    let look = "pwd; echo $VIRTUAL_ENV; command -v python3; command -v hermes";
    let venv = "/opt/hermes/.venv";
    let expected = |cwd: &str| format!("{cwd}\n{venv}\n{venv}/bin/python3\n{venv}/bin/hermes");
    assert_eq!(boot(&["--workdir=/tmp"], "", look).seen, expected("/tmp"));
    assert_eq!(boot(&[], "", look).seen, expected("/opt/hermes"));
    assert_eq!(boot(&["--env=HERMES_ORIG_CWD=/usr"], "", look).seen, expected("/usr"));
}

/// PATH holds a directory of hermes: what an agent puts there must not run as root at the next boot.
#[test]
fn item_17_root_runs_nothing_that_hermes_can_write() {
    let plant = "mkdir -p /opt/data/.local/bin; chown -R hermes: /opt/data; cd /opt/data/.local/bin
        for name in id sh env chown find stat mkdir cut getent sed date; do
            printf '#!/bin/sh\\n[ \"$(/usr/bin/id -u)\" != 0 ] || echo '$name' >>/planted\\nexec /bin/'$name' \"$@\"\\n' >$name
            /bin/chmod +x $name
        done; : >/planted";
    assert_eq!(boot(&["--env=HERMES_UID=1000"], plant, "/bin/cat /planted").seen, "");
}

/// Item 18: `the_program_has_the_terminal` in `entrypoint.rs`.
#[test]
fn item_19_what_is_put_into_the_container_environment_reaches_the_cmd() {
    let script =
        "printf '#!/bin/sh\\nprintf v1 >/run/s6/container_environment/ADDED\\n' >/etc/cont-init.d/02-test
        chmod +x /etc/cont-init.d/02-test";
    let boot = boot(&["--env=GIVEN=one two"], script, "echo \"$GIVEN $ADDED $HERMES_HOME\"");
    assert_eq!(boot.seen, "one two v1 /opt/data");
}

/// Items 20 and 27: in either order, it is refused and the way out is named.
#[test]
fn items_20_and_27_another_user_is_refused() {
    let refused = Run::new().flags(&["--user=1000:1000"]).cmd(&["echo", "reached"]).output();
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(!refused.out.contains("reached"), "{refused:?}");
    let said = format!("{}{}", refused.out, refused.err);
    for words in ["ERROR: container started with --user 1000", "not supported", "HERMES_UID", "PUID"] {
        assert!(said.contains(words), "no {words:?} in {said}");
    }
    let stage2 = bare(&["--user=1000:1000"], &["/opt/hermes/docker/stage2-hook.sh"]);
    assert_eq!(stage2.code, 1, "{stage2:?}");
    assert!(stage2.err.starts_with("[stage2] ERROR: container started with --user 1000"), "{stage2:?}");
}

#[test]
fn item_20_the_user_hermes_works() {
    let output = Run::new().flags(&["--user=10000:10000"]).cmd(&["sh", "-c", "id -u; ls /opt/data"]).output();
    assert!(output.out.contains("\n10000\n"), "{output:?}");
    assert!(output.out.contains("\nconfig.yaml\n"), "{output:?}");
    output.ok();
}

#[test]
fn items_21_and_22_the_end_of_the_cmd_ends_all_with_its_code() {
    let container = Run::new().flags(&["--env=HERMES_GATEWAY_BOOTSTRAP_STATE=running"]).cmd(&["cat"]);
    let container = container.flags(&["--interactive"]).detach();
    container.await_supervisor();
    container.await_up(&["default"]);
    container.exec(&["pkill", "-KILL", "-x", "cat"]).ok();
    assert_eq!(container.wait(), 128 + 9, "{}", container.logs());
}

#[test]
fn item_28_the_home_is_made() {
    let boot = boot(&["--env=HERMES_HOME=/srv/deep/home"], "", "stat --format %U /srv/deep/home /srv/deep");
    assert_eq!(boot.seen, "hermes\nroot");
}

#[test]
fn item_29_uid_and_gid_are_remapped() {
    for (flags, ids) in [
        (&["--env=PUID=1000", "--env=PGID=1001"][..], "1000 1001"),
        (&["--env=PUID=1000", "--env=HERMES_UID=2000", "--env=HERMES_GID=2001"], "2000 2001"),
        (&["--env=PUID=99", "--env=PGID=100"], "99 100"),
        // Root, no number, out of range: as if they were not there.
        (&["--env=PUID=0", "--env=PGID=0"], "10000 10000"),
        (&["--env=HERMES_UID=1e3", "--env=HERMES_GID=65535"], "10000 10000"),
        (&["--env=HERMES_UID=-1", "--env=HERMES_GID=99999999999999999999"], "10000 10000"),
    ] {
        let boot =
            boot(flags, "", "echo $(id -u) $(id -g); touch /opt/data/mine; stat --format '%u %g' /opt/data");
        assert_eq!(boot.seen, format!("{ids}\n{ids}"), "{flags:?}\n{}", boot.log);
        let changed = lines_with(&boot.log, "[stage2] Changing hermes UID to ").len();
        assert_eq!(changed, usize::from(ids != "10000 10000"), "{}", boot.log);
    }
}

#[test]
fn item_30_hermes_joins_the_group_of_the_docker_socket() {
    let socket = "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"/run/docker.sock\")'";
    let joined = boot(&[], &format!("{socket}; chown :4242 /run/docker.sock"), "id -G; getent group 4242");
    assert_eq!(joined.seen, "10000 4242\nhostdocker:x:4242:hermes", "{}", joined.log);
    assert_eq!(
        lines_with(&joined.log, "[stage2] Added hermes to group hostdocker").len(),
        1,
        "{}",
        joined.log
    );

    let member =
        format!("{socket}; groupadd -g 4242 mine; usermod -aG mine hermes; chown :4242 /run/docker.sock");
    let already = boot(&[], &member, "id -G");
    assert_eq!(lines_with(&already.log, "[stage2] hermes already in group 4242").len(), 1, "{}", already.log);
    assert_eq!(already.seen, "10000 4242");
}

#[test]
fn item_30_the_graphics_device_of_root_gives_no_group() {
    let boot = boot(&["--device=/dev/null:/dev/dri/renderD128"], "", "id -G");
    assert_eq!(boot.seen, "10000", "{}", boot.log);
}

/// The files of the host beside them keep their owner.
#[test]
fn item_31_a_foreign_home_is_taken_over_where_hermes_works() {
    let prepare = "cd /opt/data; mkdir -p skills/a workspace profiles/p other; touch skills/a/f other/f loose
        chown -R 4242:4242 /opt/data";
    let boot = boot(&[], prepare, "cd /opt/data; stat --format '%U %n' . skills/a/f workspace profiles/p");
    assert_eq!(boot.seen, "hermes .\nhermes skills/a/f\nhermes workspace\nhermes profiles/p", "{}", boot.log);
    let prepare = format!("{prepare}\nstat --format '%u %n' other other/f loose >/before");
    let look = "cd /opt/data; stat --format '%u %n' other other/f loose | cmp /before - && echo same";
    assert_eq!(self::boot(&[], &prepare, look).seen, "same");
}

#[test]
fn item_32_what_root_left_in_the_profiles_is_given_back_at_every_boot() {
    let prepare = "cd /opt/data
        mkdir -p profiles/p/deep cron pairing platforms/pairing logs/gateways/p workspace
        touch profiles/p/deep/f cron/jobs.json pairing/f platforms/pairing/f logs/gateways/p/current workspace/f";
    let look = "cd /opt/data; stat --format '%U %n' profiles/p/deep/f cron/jobs.json pairing/f platforms/pairing/f \\
        logs/gateways logs/gateways/p/current workspace/f";
    let expected = "hermes profiles/p/deep/f\nhermes cron/jobs.json\nhermes pairing/f\nhermes platforms/pairing/f\n\
        hermes logs/gateways\nroot logs/gateways/p/current\nroot workspace/f";
    assert_eq!(boot(&[], prepare, look).seen, expected);
}

#[test]
fn item_33_the_files_of_hermes_are_given_back_and_no_others() {
    let prepare =
        "cd /opt/data; touch auth.json state.db-wal gateway.lock active_profile host_secret.json .netrc";
    let look = "cd /opt/data; stat --format '%U %n' auth.json state.db-wal gateway.lock active_profile \\
        host_secret.json .netrc";
    let expected = "hermes auth.json\nhermes state.db-wal\nhermes gateway.lock\nhermes active_profile\n\
        root host_secret.json\nroot .netrc";
    assert_eq!(boot(&[], prepare, look).seen, expected);
}

#[test]
fn item_34_no_link_is_followed() {
    let prepare = "mkdir -p /outside/tree; cd /outside; touch tree/f auth config env; chmod 604 config env; cd /opt/data
        ln -s /outside/tree profiles; ln -s /outside platforms; mkdir /outside/pairing; mkdir cron
        ln -s /outside/tree/f cron/link; ln -s /outside/auth auth.json; ln -s /outside/config config.yaml
        ln -s /outside/env .env; ln -s /outside/soul SOUL.md; ln -s /outside/state gateway_state.json";
    let look = "cd /outside; find . ! -user root; stat --format %a config env; ls | tr '\\n' ' '";
    let boot = boot(&["--env=HERMES_GATEWAY_BOOTSTRAP_STATE=running"], prepare, look);
    assert_eq!(boot.seen, "604\n604\nauth config env pairing tree", "{}", boot.log);
    for (action, path) in [
        ("recursive chown", "profiles"),
        ("recursive chown", "platforms/pairing"),
        ("chown", "auth.json"),
        ("chown/chmod", "config.yaml"),
        ("chown/chmod", ".env"),
        ("seed", "SOUL.md"),
        ("seed", "gateway_state.json"),
    ] {
        let line = format!(
            "[stage2] Warning: refusing {action} through symlinked path /opt/data/{path} — continuing"
        );
        assert!(boot.log.contains(&line), "no {line:?} in\n{}", boot.log);
    }
}

#[test]
fn item_35_a_chown_that_fails_stops_nothing() {
    let prepare = "mkdir /opt/data/profiles; touch /opt/data/profiles/f";
    let flags = ["--cap-drop=CHOWN"];
    let boot = boot(&flags, prepare, "stat --format %U /opt/data/profiles/f");
    assert_eq!(boot.seen, "root");
    let line = "[stage2] Warning: chown /opt/data/profiles failed (rootless container?) — continuing";
    assert!(boot.log.contains(line), "{}", boot.log);
    assert!(boot.log.contains("[stage2] Setup complete"), "{}", boot.log);
}

#[test]
fn item_36_the_configuration_and_the_secrets_are_private() {
    let prepare = "cd /opt/data; echo '_config_version: 99999' >config.yaml; echo A=b >.env; chmod 666 config.yaml .env";
    let boot = boot(&[], prepare, "cd /opt/data; stat --format '%U:%G %a' config.yaml .env; cat .env");
    assert_eq!(boot.seen, "hermes:hermes 640\nhermes:hermes 600\nA=b", "{}", boot.log);
}

/// The newest image of Hermes makes a key for its API server. Where the library of that server is missing, as in an image of the
/// bare wheel, newer versions of Hermes end at once when there is a key.
#[test]
fn the_api_server_gets_a_key_where_it_can_run_and_nobody_has_set_one() {
    let library = "mkdir -p /opt/hermes/.venv/lib/python3.11/site-packages/aiohttp\n";
    let look = "cd /opt/data; stat --format %U:%a .env; grep -c 'API_SERVER_KEY=.' .env || :; \
        grep -c -E '^API_SERVER_KEY=[0-9a-f]{64}$' .env || :; /opt/hermes/docker/stage2-hook.sh | grep -c Generated || :";
    let seen = |flags: &[&str], env: &str, library: &str| {
        let prepare = format!("{library}printf '{env}' >/opt/data/.env");
        let boot = boot(flags, &prepare, look);
        (boot.seen, boot.log.matches("[stage2] Generated API_SERVER_KEY").count())
    };
    assert_eq!(seen(&[], "A=b", library), ("hermes:600\n1\n1\n0".to_owned(), 1), "made once");
    assert_eq!(seen(&[], "A=b\\nAPI_SERVER_KEY=\\n", library).0, "hermes:600\n1\n1\n0");
    for env in ["API_SERVER_KEY=mine", "export API_SERVER_KEY=mine\\n"] {
        assert_eq!(seen(&[], env, library), ("hermes:600\n1\n0\n0".to_owned(), 0), "{env}");
    }
    assert_eq!(seen(&["--env=API_SERVER_KEY=mine"], "A=b", library).1, 0);
    assert_eq!(seen(&[], "A=b", ""), ("hermes:600\n0\n0\n0".to_owned(), 0), "without the library");
}

#[test]
fn item_37_the_directories_are_there() {
    let look = "cd /opt/data; stat --format %U backups cron sessions logs logs/gateways hooks memories skills skins plans \\
        workspace home pairing platforms/pairing lazy-packages | sort | uniq -c";
    assert_eq!(boot(&[], "", look).seen.trim(), "15 hermes");
}

#[test]
fn item_38_only_the_install_tree_is_stamped() {
    let look = "cat /opt/hermes/.install_method; cd /opt/data; if [ -e .install_method ]; then cat .install_method; fi";
    assert_eq!(boot(&[], "echo docker >/opt/data/.install_method", look).seen, "docker");
    assert_eq!(boot(&[], "echo git >/opt/data/.install_method", look).seen, "docker\ngit");
    let told = boot(&[], "", "python3 -c 'from hermes_cli.config import *; print(detect_install_method())'");
    assert_eq!(told.seen, "docker");
}

#[test]
fn item_39_the_first_files_are_there_and_never_overwritten() {
    let look = "cd /opt/data; stat --format '%U %n' .env config.yaml SOUL.md; head -n 1 SOUL.md";
    let fresh = boot(&[], "", look).seen;
    assert!(fresh.starts_with("hermes .env\nhermes config.yaml\nhermes SOUL.md\n"), "{fresh}");
    let kept = boot(&[], "echo mine >/opt/data/SOUL.md", look).seen;
    assert!(kept.ends_with("SOUL.md\nmine"), "{kept}");
}

#[test]
fn item_40_an_older_configuration_is_migrated_and_kept() {
    let prepare = "printf 'model:\\n  default: some/model\\n_config_version: 3\\n' >/opt/data/config.yaml";
    let look = "cd /opt/data; grep -c '^_config_version: 3$' config.yaml || :; grep -o some/model config.yaml
        stat --format %U config.yaml; cat config.yaml.bak-* 2>/dev/null | grep -c '^_config_version: 3$' || :";
    let migrated = boot(&[], prepare, look);
    assert_eq!(migrated.seen, "0\nsome/model\nhermes\n1", "{}", migrated.log);
    let skipped = boot(&["--env=HERMES_SKIP_CONFIG_MIGRATION=1"], prepare, look);
    assert_eq!(skipped.seen, "1\nsome/model\nhermes\n0", "{}", skipped.log);
    let broken = boot(&[], "echo '{{{{' >/opt/data/config.yaml", "cat /opt/data/config.yaml");
    assert_eq!(broken.seen, "{{{{", "{}", broken.log);
}

#[test]
fn item_41_credentials_are_seeded_once() {
    let flags = [r#"--env=HERMES_AUTH_JSON_BOOTSTRAP={"token":"$HOME 'x'"}"#];
    let look = "cat /opt/data/auth.json; stat --format ' %U %a' /opt/data/auth.json";
    assert_eq!(boot(&flags, "", look).seen, r#"{"token":"$HOME 'x'"} hermes 600"#);
    let kept = boot(&flags, "printf newer >/opt/data/auth.json", look).seen;
    assert!(kept.starts_with("newer hermes"), "{kept}");
}

#[test]
fn item_42_a_fresh_gateway_is_wanted_up_by_one_word_only() {
    let look = "cd /opt/data; cat gateway_state.json; stat --format '%U %a' gateway_state.json";
    let flag = |value: &str| format!("--env=HERMES_GATEWAY_BOOTSTRAP_STATE={value}");
    // The gateway that it starts writes the file too, so the script is run alone.
    let alone = |value: &str, prepare: &str| {
        let script = format!("{prepare}\n/opt/hermes/docker/stage2-hook.sh >/dev/null\n{look}");
        bare(&[&flag(value)], &["sh", "-c", &script])
    };
    assert_eq!(alone("running", "").ok(), "{\"gateway_state\":\"running\"}\nhermes 644\n");
    assert!(alone("running", "echo kept >/opt/data/gateway_state.json").ok().starts_with("kept\n"));
    for value in ["stopped", "Running", "1", "true", "starting", ""] {
        assert_ne!(alone(value, "").code, 0, "{value:?} made a file");
    }
}

#[test]
fn item_43_the_skills_of_the_image_are_synced_as_hermes() {
    let prepare = "mkdir -p /opt/hermes/skills/kind/one
        printf -- '---\\nname: one\\ndescription: a skill\\n---\\nText.\\n' >/opt/hermes/skills/kind/one/SKILL.md";
    let look = "stat --format %U /opt/data/skills/kind/one/SKILL.md";
    let boot = boot(&[], prepare, look);
    assert_eq!(boot.seen, "hermes", "{}", boot.log);
}

#[test]
fn item_44_the_browser_is_found_by_its_name() {
    let prepare = "mkdir -p /opt/hermes/.playwright/chrome-linux; cd /opt/hermes/.playwright/chrome-linux
        touch libGLESv2.so headless_shell; chmod +x libGLESv2.so headless_shell";
    let look = "echo \"$AGENT_BROWSER_EXECUTABLE_PATH\"
        cat /run/s6/container_environment/AGENT_BROWSER_EXECUTABLE_PATH; echo .";
    let path = "/opt/hermes/.playwright/chrome-linux/headless_shell";
    assert_eq!(boot(&[], prepare, look).seen, format!("{path}\n{path}."));
    let own =
        boot(&["--env=AGENT_BROWSER_EXECUTABLE_PATH=/own"], prepare, "echo $AGENT_BROWSER_EXECUTABLE_PATH");
    assert_eq!(own.seen, "/own");
}

#[test]
fn item_45_the_last_line_says_that_it_is_done() {
    let boot = boot(&[], "", ":");
    let stage2 = lines_with(&boot.log, "[stage2]");
    assert_eq!(stage2.last(), Some(&"[stage2] Setup complete; starting user services"), "{}", boot.log);
    // A test of the terminal takes the first bare number for the width, so none may be printed.
    let number = |word: &&str| word.bytes().all(|byte| byte.is_ascii_digit());
    assert_eq!(boot.log.split_whitespace().find(number), None, "{}", boot.log);
}

/// `bash -l`, `su -` and the console buttons of platforms lost the venv: "hermes: command not found".
#[test]
fn a_login_shell_has_hermes_and_its_home() {
    let container =
        Run::new().flags(&["--env=HERMES_TUI_DIR=/elsewhere"]).cmd(&["sleep", "infinity"]).supervised();
    let look = "command -v hermes; command -v python; echo \"$HERMES_HOME $VIRTUAL_ENV $HERMES_TUI_DIR\"; \
                hermes --version | head -1; echo \"$PATH\"";
    let shells = [
        ("root", vec!["bash", "-lc", look]),
        ("hermes", vec!["bash", "-lc", look]),
        ("root", vec!["su", "-", "hermes", "-c", look]),
        ("root", vec!["su", "-", "-c", look]),
    ];
    for (user, shell) in shells {
        let out = container.exec_as(user, &shell).ok();
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(
            lines[..2],
            ["/opt/hermes/bin/hermes", "/opt/hermes/.venv/bin/python"],
            "{user} {shell:?}"
        );
        assert_eq!(lines[2], "/opt/data /opt/hermes/.venv /elsewhere", "{user} {shell:?}");
        assert!(lines[3].starts_with("Hermes Agent"), "{user} {shell:?}: {out}");
        // What hermes can write is on no other user's PATH, but where the image's own PATH was kept.
        let writable = lines[4].contains("/opt/data/.local/bin");
        assert_eq!(writable, user == "hermes" || shell.contains(&"hermes"), "{user} {shell:?}: {out}");
    }
}
