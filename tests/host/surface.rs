//! The s6 surface: an image that was made for s6-overlay, with the supervisor in its place.

use crate::harness::setup::{ALICE, HERMES};
use crate::harness::{Answer, End, Place, Rung, Setup, Supervisor, World, process, wait};
use rustix::process::Signal;
use serde_json::json;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

/// A gateway that does nothing but say how it was called.
const HERMES_PROGRAM: &str = "#!/bin/sh\necho \"hermes $*\"\nexec /adversary pause MARK\n";
const SOURCES: &str = "/etc/s6-overlay/s6-rc.d";

fn setup(rung: Rung, place: Place) -> Setup {
    Setup::new(rung, place)
        .env("HERMES_SUP_S6_SURFACE", "1")
        .env("HERMES_HOME", "/opt/data")
        .env("PATH", "/opt/bin:/usr/bin:/bin")
}

/// PID 1 with this main program.
fn init(words: &[&str]) -> Setup {
    setup(Rung::Cgroup, Place::Pid1).main_program(words)
}

fn idle() -> Setup {
    init(&["/adversary", "hold"])
}

/// A program of root's. `MARK` in it becomes the mark of the world.
fn script(world: &World, path: &str, text: &str) -> PathBuf {
    let path = world.write(path, text.replace("MARK", &world.mark));
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("a mode");
    path
}

/// A world with a `hermes` and the profile `coder` beside the root one.
fn world(setup: Setup) -> World {
    let world = World::new(setup);
    script(&world, "/opt/bin/hermes", HERMES_PROGRAM);
    world.write_as_hermes("/opt/data/profiles/coder/SOUL.md", "soul");
    world
}

/// A long-run of the image: its files, `run` and `finish` being programs.
fn longrun(world: &World, name: &str, files: &[(&str, &str)]) {
    world.write(&format!("{SOURCES}/user/contents.d/{name}"), "");
    world.write(&format!("{SOURCES}/{name}/type"), "longrun\n");
    for (file, text) in files {
        let path = format!("{SOURCES}/{name}/{file}");
        match *file {
            "run" | "finish" => drop(script(world, &path, text)),
            _ => drop(world.write(&path, text)),
        }
    }
}

/// A shell of the gateway user beside the supervisor.
fn shell(world: &World, supervisor: &Supervisor, text: &str) -> Answer {
    world.exec(supervisor, HERMES, &["/bin/sh", "-ec", &text.replace("MARK", &world.mark)])
}

fn services(world: &World) -> Vec<String> {
    world.ctl(&["list"]).ok().lines().map(str::to_owned).collect()
}

#[track_caller]
fn wait_service(world: &World, name: &str, there: bool) {
    wait::until(&format!("'{name}' to be there: {there}"), &world.path("/run/service"), || {
        (services(world).iter().any(|known| known == name) == there).then_some(())
    });
}

/// As the Hermes CLI registers a gateway: built under a name with a dot, renamed, told.
const REGISTER: &str = r#"
cd /run/service
mkdir .gateway-$1.tmp .gateway-$1.tmp/log
cd .gateway-$1.tmp
echo longrun >type
cat >run <<'END'
#!/command/with-contenv sh
echo "uid $(id -u) in $PWD child=$HERMES_S6_SUPERVISED_CHILD"
exec /adversary pause MARK
END
printf '#!/bin/sh\ntouch /tmp/finish-ran\n' >finish
printf '#!/bin/sh\ntouch /tmp/logger-ran\n' >log/run
chmod 755 run finish log/run
[ "$2" = up ] || touch down
cd ..
mv .gateway-$1.tmp gateway-$1
"#;

fn register(world: &World, supervisor: &Supervisor, name: &str, want: &str, more: &str) -> Answer {
    let text = REGISTER.replace("$1", name).replace("$2", want);
    shell(world, supervisor, &format!("{text}\n{more}"))
}

const TELL: &str = "/command/s6-svscanctl -a /run/service";

// ---- Preparation --------------------------------------------------------------------------------------------------

/// Contract: 19, 23, 25, 70.
#[test]
fn scripts_prepare_the_container_one_after_the_other() {
    let mut setup =
        init(&["/bin/sh", "-c", "printf 'main [%s] %s\\n' \"$ADDED\" \"$PATH\"; exec /adversary hold"]);
    setup.environment.push(("COLOUR".into(), "deep red".into()));
    let mut world = World::new(setup);
    let told = "echo \"begin $0 $(id -u) $COLOUR $PATH\" >>/order; i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done; echo end >>/order";
    for name in ["a", "B", "02", "015", "01-x", ".hidden"] {
        script(&world, &format!("/etc/cont-init.d/{name}"), &format!("#!/bin/sh\n{told}\n"));
    }
    script(
        &world,
        "/etc/cont-init.d/10-adds",
        "#!/command/with-contenv sh\nprintf 'two\\nlines\\n\\n' >/run/s6/container_environment/ADDED\n(sleep 0.05 & echo $! >/orphan)\n",
    );
    script(&world, "/etc/cont-init.d/11-fails", "#!/bin/sh\nexit 5\n");
    // A zombie is still there for kill(2): this ends only when the orphan was reaped.
    script(
        &world,
        "/etc/cont-init.d/12-waits",
        "#!/bin/sh\nwhile kill -0 $(cat /orphan) 2>/dev/null; do :; done\necho 'script speaks'\n",
    );
    world.write("/etc/cont-init.d/13-no-program", "#!/bin/sh\n");
    world.define(
        "shown",
        "command = [\"/bin/sh\", \"-c\", \"printf '[%s]' \\\"$ADDED\\\"\"]\n[restart]\npolicy = \"never\"",
    );
    let supervisor = world.start();
    world.wait_stdout("main [two\nlines\n] /command:/opt/bin:/usr/bin:/bin\n");
    assert!(world.stdout().starts_with("script speaks\n"), "{}", world.stdout());
    let begun: Vec<String> = world.read("/order").lines().map(str::to_owned).collect();
    let path = "/command:/opt/bin:/usr/bin:/bin";
    let expected: Vec<String> = ["01-x", "015", "02", "B", "a"]
        .iter()
        .flat_map(|name| [format!("begin /etc/cont-init.d/{name} 0 deep red {path}"), "end".to_owned()])
        .collect();
    assert_eq!(begun, expected);
    world.wait_log("shown", "]");
    let lines: Vec<String> = world.log_lines("shown").into_iter().filter(|line| !line.is_empty()).collect();
    assert_eq!(lines, ["[two", "lines", "]"]);
    let said = world.stderr();
    let told: Vec<&str> = said.lines().filter(|line| line.contains("cont-init: ")).collect();
    assert!(told[0].ends_with("cont-init: info: running /etc/cont-init.d/01-x"), "{said}");
    assert!(told[1].ends_with("cont-init: info: /etc/cont-init.d/01-x exited 0"), "{said}");
    assert!(
        said.contains("/etc/cont-init.d/11-fails exited 5") && said.contains("13-no-program exited 126"),
        "{said}"
    );
    assert!(!said.contains("the s6 surface is incomplete"), "{said}");
    assert_eq!(supervisor.terminate(), End::Code(0));
}

/// Contract: 25.
#[test]
fn a_script_that_fails_ends_the_container_where_that_is_asked_for() {
    for place in [Place::Pid1, Place::Child] {
        let mut setup = setup(Rung::Cgroup, place).main_program(&["/bin/sh", "-c", "echo never"]);
        setup.environment.push(("S6_BEHAVIOUR_IF_STAGE2_FAILS".into(), "2".into()));
        let mut world = World::new(setup);
        script(&world, "/etc/cont-init.d/1", "#!/bin/sh\n/adversary hold MARK &\nexit 7\n");
        script(&world, "/etc/cont-init.d/2", "#!/bin/sh\ntouch /never\n");
        let mut container = world.launch();
        assert_eq!(container.wait(), End::Code(7), "{}", world.stderr());
        assert!(world.stderr().contains("fatal: stopping the container"), "{}", world.stderr());
        assert!(!world.path("/never").exists() && world.stdout().is_empty());
        world.assert_no_survivors("of a script that failed");
    }
}

#[test]
fn a_stop_signal_ends_a_script_that_hangs_and_then_us() {
    let waits = "/adversary hold MARK & wait";
    // Each orphan's end is a signal to us.
    let orphans = "while :; do (sleep 0.05 &); sleep 0.02; done";
    for (place, trap, body) in [
        (Place::Pid1, "", waits),
        (Place::Child, "trap '' TERM", waits),
        (Place::Pid1, "trap '' TERM", orphans),
    ] {
        let setup = setup(Rung::Keeper, place).supervisor_option(&["--stop-budget", "300ms"]);
        let mut world = World::new(setup.main_program(&["/bin/sh", "-c", "echo never"]));
        script(&world, "/etc/cont-init.d/1", &format!("#!/bin/sh\n{trap}\ntouch /hanging\n{body}\n"));
        let mut container = world.launch();
        container.wait_exec();
        wait::until("the script", &world.root, || world.path("/hanging").exists().then_some(()));
        container.signal(Signal::TERM);
        assert_eq!(container.wait(), End::Code(0), "{}", world.stderr());
        assert_eq!(world.stdout(), "");
        world.assert_no_survivors("of a script that hung");
    }
}

/// `docker run -it`: the lines about scripts would be in the way, what they say themselves and what is fatal is not.
#[test]
fn on_a_terminal_only_what_failed_is_told() {
    let mut world =
        World::new(init(&["/bin/sh", "-c", "echo main; exit 3"]).supervisor_option(&["--s6-surface"]));
    script(&world, "/etc/cont-init.d/1", "#!/bin/sh\necho script speaks\n");
    world.write("/etc/cont-init.d/2", "no program");
    let mut terminal = rexpect::session::spawn_command(world.on_a_terminal(), Some(20_000)).expect("a pty");
    let said = terminal.exp_eof().expect("the end of the terminal");
    assert!(said.contains("script speaks") && said.contains("main"), "{said}");
    assert!(!said.contains("cont-init: info"), "{said}");
    assert!(said.contains("cont-init: error: /etc/cont-init.d/2 cannot be started"), "{said}");
}

// ---- What `hermes` looks for --------------------------------------------------------------------------------------

/// Contract: 46, 58.
#[test]
fn pid_1_passes_for_s6() {
    let mut setup = idle();
    setup.environment.push(("TWO".into(), "a b\nc\n".into()));
    let mut world = world(setup);
    script(&world, "/show", "#!/command/with-contenv sh\nprintf '[%s]' \"$TWO\"\n");
    let supervisor = world.start();
    let look = shell(
        &world,
        &supervisor,
        "cat /proc/1/comm; test -d /run/s6/basedir; stat -c %u:%g:%a /run/service /run/s6; cat /run/s6/container_environment/COLOUR 2>&1 || cat /run/s6/container_environment/HERMES_HOME; /show",
    );
    assert_eq!(
        look.ok(),
        "s6-svscan\n10000:10000:755\n0:0:755\ncat: /run/s6/container_environment/COLOUR: No such file or directory\n/opt/data[a b\nc\n]"
    );
    let refused = world.exec(&supervisor, ALICE, &["cat", "/run/s6/container_environment/HERMES_HOME"]);
    assert!(refused.fails(1).contains("Permission denied"));
    let refused = shell(
        &world,
        &supervisor,
        "cd /run/s6/container_environment; for f in HERMES_HOME NEW; do (echo evil >$f) 2>/dev/null && exit 9; rm -f HERMES_HOME 2>/dev/null && exit 8; done; exit 0",
    );
    refused.ok();
    assert_eq!(
        shell(&world, &supervisor, "/command/s6-svstat -o up /run/service/main-hermes").ok(),
        "true\n"
    );
}

/// The image's first script gives its user the numbers of the volume's owner.
/// Contract: 46.
#[test]
fn what_is_the_gateway_users_follows_it_to_another_uid() {
    let mut world = world(idle());
    let remap = "#!/bin/sh\nsed -i s/10000:10000/12345:12345/ /etc/passwd; sed -i s/hermes:x:10000/hermes:x:12345/ /etc/group\nchown -R 12345:12345 /opt/data\n";
    script(&world, "/etc/cont-init.d/1", remap);
    let supervisor = world.start();
    for path in ["", "/.s6-svscan", "/.s6-svscan/control", "/.s6-svscan/lock", "/gateway-coder/run"] {
        let meta = world.path(&format!("/run/service{path}")).symlink_metadata().expect("it");
        assert_eq!((meta.uid(), meta.gid()), (12345, 12345), "{path}");
    }
    let environment = "/run/s6/container_environment";
    let seen = world.exec(&supervisor, 12345, &["cat", &format!("{environment}/HERMES_HOME")]);
    assert_eq!(seen.ok(), "/opt/data");
    world.exec(&supervisor, HERMES, &["ls", environment]).fails(2);
    world.exec(&supervisor, 12345, &["/command/s6-svc", "-u", "/run/service/gateway-coder"]).ok();
    world.wait_log("coder", "ready pause");
    assert!(world.marked("pause").iter().all(|process| process.uid == 12345));
}

/// Elsewhere `hermes` is not to take us for s6, so the supervisor itself hands its gateway over.
/// Contract: 52, 85.
#[test]
fn gateway_run_is_whose_turn_it_is() {
    for place in [Place::Pid1, Place::Child] {
        let setup = setup(Rung::Cgroup, place).main_program(&["/opt/main-wrapper.sh", "gateway", "run"]);
        let mut world = world(setup);
        script(&world, "/opt/main-wrapper.sh", "#!/bin/sh\necho \"wrapper $*\"\nexec /adversary hold\n");
        let supervisor = world.start();
        let comm = std::fs::read_to_string(format!("/proc/{}/comm", supervisor.pid())).expect("its name");
        if place == Place::Pid1 {
            world.wait_stdout("wrapper -p default gateway run");
            assert_eq!(comm, "s6-svscan\n");
            // Where the image's own reconciliation looks for the CMD.
            let words = std::fs::read(format!("/proc/{}/cmdline", supervisor.pid())).expect("its words");
            assert!(words.ends_with(b"\0/opt/main-wrapper.sh\0gateway\0run\0"), "{words:?}");
        } else {
            world.wait_log("default", "hermes gateway run");
            assert_eq!(comm, "hermes-sup\n");
            assert!(!world.stdout().contains("wrapper"), "{}", world.stdout());
        }
    }
}

// ---- Gateways as slots --------------------------------------------------------------------------------------------

/// Contract: 26, 47, 48.
#[test]
fn profiles_are_shown_before_the_cmd_and_again_after_a_restart_of_the_container() {
    let look = "cd /run/service; seen=; for s in *; do [ -e $s/down ] && s=$s:down; seen=\"$seen $s\"; done; echo \"seen$seen\" $(echo */supervise); exec /adversary hold";
    let mut world = world(init(&["/bin/sh", "-c", look]));
    script(
        &world,
        "/etc/cont-init.d/1",
        "#!/bin/sh\n[ -e /opt/data/logs/container-boot.log ] && touch /too-early\nexit 0\n",
    );
    let supervisor = world.start();
    let supervised = "gateway-coder/supervise gateway-default/supervise\n";
    world.wait_stdout(&format!("seen gateway-coder:down gateway-default:down {supervised}"));
    let log = "/opt/data/logs/container-boot.log";
    wait::until("the boot log", &world.path("/opt/data/logs"), || world.path(log).exists().then_some(()));
    assert!(!world.path("/too-early").exists(), "written before the script");
    let slot = |name: &str| world.path(&format!("/run/service/{name}"));
    assert_eq!(std::fs::metadata(slot("gateway-coder/run")).expect("its run").uid(), HERMES);

    shell(&world, &supervisor, "/command/s6-svc -u /run/service/gateway-coder").ok();
    world.wait_log("coder", "hermes -p coder gateway run");
    register(&world, &supervisor, "guest", "down", TELL).ok();
    assert_eq!(supervisor.terminate(), End::Code(0));
    // What the image or an earlier life left there.
    world.write("/run/service/junk/run", "#!/bin/sh\ntouch /tmp/junk-ran\n");
    world.write("/run/s6/container_environment/STALE", "1");

    let supervisor = world.start();
    world.wait_log_times("coder", "hermes -p coder gateway run", 2);
    world.wait_stdout(&format!("seen gateway-coder gateway-default:down {supervised}"));
    assert_eq!(world.want("coder"), "up");
    assert!(!world.path("/run/s6/container_environment/STALE").exists());
    let known = services(&world);
    assert!(known.iter().all(|name| name != "junk" && name != "guest"), "{known:?}");
    drop(supervisor);
}

/// s6 has executed the services of the image, then the gateways, before it executes the CMD. Here nothing waits for
/// anything: the CMD finds them known and wanted up, and each starts as soon as it can.
/// Contract: 23, 24.
#[test]
fn the_cmd_finds_everything_wanted_up_that_is_to_run() {
    let look = "for s in of-image gateway-coder gateway-default; do echo $s $(/command/s6-svstat -o wantedup /run/service/$s); done >/.seen; mv /.seen /seen; exec /adversary hold";
    let mut world = world(init(&["/bin/sh", "-c", look]));
    longrun(&world, "of-image", &[("run", "#!/bin/sh\nexec /adversary pause MARK\n")]);
    world.write_as_hermes("/opt/data/profiles/coder/gateway_state.json", "{\"gateway_state\":\"running\"}");
    let _supervisor = world.start();
    wait::until("what the CMD saw", &world.root, || world.path("/seen").exists().then_some(()));
    assert_eq!(world.read("/seen"), "of-image true\ngateway-coder true\ngateway-default false\n");
    for name in ["of-image", "coder"] {
        assert_eq!(world.wait_state(name, &["up"])["restarts"], json!(0), "its first life");
    }
}

/// The newest CLI registers the slot of such a profile itself, when it is told to start it; here that it is there is
/// enough.
/// Contract: 80.
#[test]
fn a_profile_that_came_after_the_boot_gets_its_slot_at_once() {
    let mut world = world(idle());
    let supervisor = world.start();
    world.write_as_hermes("/opt/data/profiles/late/SOUL.md", "soul");
    wait::until("its slot", &world.path("/run/service"), || {
        world.path("/run/service/gateway-late/run").exists().then_some(())
    });
    assert!(world.path("/run/service/gateway-late/down").exists(), "nobody has asked for it");
    shell(&world, &supervisor, "/command/s6-svc -u /run/service/gateway-late").ok();
    world.wait_log("late", "hermes -p late gateway run");
    shell(&world, &supervisor, "/command/s6-svc -wD -d /run/service/gateway-late").ok();
    assert_eq!(world.state("late"), "down");
}

/// The logger is the supervisor's and so is what an exit code of a gateway means: neither `log/run` nor `finish` of its
/// slot is executed, as s6 does.
/// Contract: 61, 63, 64, 65, 79, 95, 96.
#[test]
fn a_slot_that_the_cli_registers_is_a_service_from_then_on() {
    let mut world = world(idle());
    let supervisor = world.start();
    let stat = || shell(&world, &supervisor, "/command/s6-svstat /run/service/gateway-x");
    for round in 1..=2 {
        register(
            &world,
            &supervisor,
            "x",
            "down",
            &format!("{TELL}; test -d gateway-x/supervise; test -d gateway-x/event"),
        )
        .ok();
        let line = stat().ok();
        assert!(line.starts_with("down ") && !line.contains("normally up"), "{line}");
        assert_eq!((world.want("x"), world.state("x")), ("down".to_owned(), "down".to_owned()));
        shell(&world, &supervisor, "/command/s6-svc -u /run/service/gateway-x").ok();
        world.wait_log_times("x", "uid 10000 in /run/service/gateway-x child=1", round);
        world.wait_log_times("x", "ready pause", round);
        let pids = world.marked("pause");
        assert!(pids.len() == 1 && pids[0].uid == HERMES, "{pids:?}");
        shell(&world, &supervisor, "cd /run/service; /command/s6-svc -d gateway-x; /command/s6-svwait -D -t 5000 gateway-x; /command/s6-svscanctl -an /run/service; rm -r gateway-x").ok();
        world.assert_no_survivors("of a slot that was removed");
        wait_service(&world, "x", false);
        stat().fails(1);
    }
    // Nothing is known of its want any more: the new slot itself says that it is to run.
    register(&world, &supervisor, "x", "up", TELL).ok();
    world.wait_log_times("x", "uid 10000 in /run/service/gateway-x child=1", 3);
    // The slot goes while it runs, and with it the service, when that is told.
    shell(&world, &supervisor, "rm -r /run/service/gateway-x; /command/s6-svscanctl -an /run/service").ok();
    wait_service(&world, "x", false);
    world.assert_no_survivors("of a slot that went while it ran");
    assert!(!world.path("/tmp/logger-ran").exists() && !world.path("/tmp/finish-ran").exists());
}

/// A slot that is removed piece by piece, as `rm -r` does it, while others have the directory read again: what is gone
/// stays gone, so that the directory that held it can go, too.
#[test]
fn what_is_taken_out_of_a_known_slot_is_not_put_back() {
    let mut world = world(idle());
    let supervisor = world.start();
    register(&world, &supervisor, "x", "down", &format!("{TELL}; test -d gateway-x/supervise")).ok();
    let again = format!("cd /run/service; rm -r gateway-x/supervise gateway-x/event; {TELL}; ls gateway-x");
    assert_eq!(shell(&world, &supervisor, &again).ok(), "down\nfinish\nlog\nrun\ntype\n");
    // The next one of that name is another slot, also where the same number is given to its directory.
    shell(&world, &supervisor, "rm -r /run/service/gateway-x").ok();
    let both = "test -d gateway-x/supervise; test -d gateway-x/event";
    register(&world, &supervisor, "x", "down", &format!("{TELL}; {both}")).ok();
    assert_eq!(supervisor.terminate(), End::Code(0));
}

/// s6 sees a new slot when it is told to look. Here a rename is seen too.
/// Contract: 95.
#[test]
fn what_is_renamed_in_is_noticed_and_what_is_filled_in_place_waits() {
    let mut world = world(idle());
    let supervisor = world.start();
    // Whatever the boot itself has renamed there was read by then.
    shell(&world, &supervisor, TELL).ok();
    shell(&world, &supervisor, "mkdir /run/service/placed; printf '#!/bin/sh\\nexec /adversary pause MARK\\n' >/run/service/placed/run; chmod 755 /run/service/placed/run").ok();
    assert!(services(&world).iter().all(|name| name != "placed"), "nobody said that it is ready");
    shell(&world, &supervisor, TELL).ok();
    world.wait_state("placed", &["up"]);
    assert!(world.path("/run/service/placed/supervise").is_dir());
    register(&world, &supervisor, "quiet", "down", "").ok();
    wait_service(&world, "quiet", true);
    assert_eq!(world.state("quiet"), "down");
}

/// Contract: 66.
#[test]
fn odd_names_are_services_or_refused_in_words() {
    let mut world = world(idle());
    let supervisor = world.start();
    let long = "l".repeat(251);
    let text = format!(
        "cd /run/service; for n in gateway-raceprobe.tmp {long} 'with a space' main-hermes GATEWAY-Upper; do mkdir .n; printf '#!/bin/sh\\nexec /adversary pause MARK\\n' >.n/run; chmod 755 .n/run; mv .n \"$n\"; done; {TELL}"
    );
    shell(&world, &supervisor, &text).ok();
    for name in ["raceprobe.tmp", long.as_str(), "GATEWAY-Upper"] {
        world.wait_state(name, &["up"]);
        world.wait_log(name, "ready");
    }
    let known = services(&world);
    assert!(known.iter().all(|name| !name.contains(' ') && name != "main-hermes"), "{known:?}");
    world.wait_stderr("'with a space' is not the name of a service directory");
    shell(
        &world,
        &supervisor,
        &format!("/command/s6-svc -d /run/service/{long}; /command/s6-svc -u /run/service/{long}"),
    )
    .ok();
    world.wait_log_times(&long, "ready", 2);
}

// ---- Services of the image ----------------------------------------------------------------------------------------

/// Contract: 57, 58, 59, 89.
#[test]
fn the_services_of_the_image_run_as_root_in_their_order() {
    let mut world = world(idle().env("HERMES_DASHBOARD", "1"));
    let order = |name: &str| {
        format!(
            "#!/command/with-contenv sh\necho \"{name} $(id -u) $PWD $HERMES_HOME\" >>/order\nexec /adversary hold MARK\n"
        )
    };
    longrun(
        &world,
        "aft",
        &[("run", &order("aft")), ("dependencies.d/fore", ""), ("dependencies.d/base", "")],
    );
    longrun(
        &world,
        "fore",
        &[
            (
                "run",
                "#!/bin/sh\necho fore >>/order\n/command/s6-sleep -m 100\necho fore ready >>/order\necho >&3\nexec /adversary hold MARK\n",
            ),
            ("notification-fd", "3\n"),
        ],
    );
    longrun(&world, "asleep", &[("run", &order("asleep")), ("down", "")]);
    longrun(&world, "both", &[("run", &order("both"))]);
    longrun(&world, "main-hermes", &[("run", "#!/bin/sh\ntouch /main-hermes-ran\n")]);
    longrun(&world, "dashboard", &[("run", "#!/bin/sh\nid -u >/tmp/dashboard\nexec /adversary hold MARK\n")]);
    world.write(&format!("{SOURCES}/user/type"), "bundle\n");
    world.define("both", "command = [\"/bin/sh\", \"-c\", \"echo file >>/tmp/both; exec /adversary hold\"]");
    let supervisor = world.start();
    world.wait_state("aft", &["up"]);
    wait::until("the order", &world.root, || world.read("/order").contains("aft").then_some(()));
    assert_eq!(world.read("/order"), format!("fore\nfore ready\naft 0 {SOURCES}/aft /opt/data\n"));
    assert_eq!(world.state("asleep"), "down");
    wait::until("the definition file", &world.path("/tmp"), || {
        (world.read("/tmp/both") == "file\n").then_some(())
    });
    wait::until("the dashboard", &world.path("/tmp"), || {
        (world.read("/tmp/dashboard") == "10000\n").then_some(())
    });
    let listed = shell(&world, &supervisor, "ls /run/service; /command/s6-svstat -o up /run/service/dashboard /run/service; /command/s6-svstat -o up /run/service/main-hermes; /command/s6-svc -d /run/service/dashboard").ok();
    for name in ["aft", "fore", "dashboard", "main-hermes", "gateway-default"] {
        assert!(listed.lines().any(|line| line == name), "{listed}");
    }
    for name in ["dashboard", "main-hermes"] {
        let link = std::fs::read_link(world.path(&format!("/run/service/{name}"))).expect("a link");
        assert_eq!(link, PathBuf::from(format!("/run/s6-rc/servicedirs/{name}")));
    }
    assert!(listed.ends_with("true\ntrue\n"), "{listed}");
    assert_eq!(world.state("dashboard"), "down", "stopped by the gateway user");
    shell(&world, &supervisor, "/command/s6-svc -d /run/service/aft").fails(111);
    // What is shown in the scan directory is the image's; taking it away there takes nothing away.
    shell(&world, &supervisor, "rm /run/service/aft; /command/s6-svscanctl -an /run/service").ok();
    assert_eq!(world.state("aft"), "up");
    assert!(!world.path("/main-hermes-ran").exists());
    assert_eq!(supervisor.terminate(), End::Code(0));
    world.assert_no_survivors("services of the image");
}

/// Contract: 90.
#[test]
fn finish_programs_are_told_and_decide() {
    let finish = |rest: &str| format!("#!/bin/sh\necho \"$* as $(id -u) in $PWD\" >>/tmp/told\n{rest}\n");
    let mut world = world(idle());
    for (name, run, rest) in [("clean", "exit 0", "exit 125"), ("wrong", "exit 78", "exit 125")] {
        let files = [("run", format!("#!/bin/sh\n{run}\n")), ("finish", finish(rest))];
        longrun(&world, name, &files.each_ref().map(|(file, text)| (*file, text.as_str())));
    }
    let waits = "#!/bin/sh\nexec /adversary pause MARK\n";
    longrun(
        &world,
        "slow",
        &[
            ("run", waits),
            ("finish", &finish("/command/s6-sleep -m 100\necho over >/tmp/over")),
            ("timeout-finish", "0\n"),
        ],
    );
    // It is killed wherever it is when its time is over, which may be before it has said anything.
    longrun(
        &world,
        "hangs",
        &[
            ("run", waits),
            ("finish", &finish("exec /adversary ignore-term MARK")),
            ("timeout-finish", "200\n"),
        ],
    );
    let supervisor = world.start();
    assert_eq!(world.wait_state("clean", &["finished"])["last_exit"]["code"], json!(0));
    assert_eq!(world.wait_state("wrong", &["failed"])["last_exit"]["code"], json!(78));
    world.wait_log("slow", "ready");
    world.wait_log("hangs", "ready");
    let pid = world.status("slow")["pid"].to_string();
    world.ctl(&["stop", "slow"]).ok();
    assert_eq!(world.read("/tmp/over"), "over\n", "the answer comes after it");
    world.ctl(&["stop", "hangs"]).ok();
    world.assert_no_survivors("of a finish program that hangs");
    world.wait_stderr("hangs: its finish program did not end within 200ms and is killed");
    let told = world.read("/tmp/told");
    for (name, what) in [("clean", "0 0"), ("wrong", "78 0"), ("slow", "256 15")] {
        let line = told.lines().find(|line| line.starts_with(&format!("{what} {name} ")));
        let line = line.unwrap_or_else(|| panic!("{name}: {told}"));
        assert!(line.ends_with(&format!(" as 0 in {SOURCES}/{name}")), "{line}");
    }
    assert!(told.contains(&format!("256 15 slow {pid} ")), "{told}");
    drop(supervisor);
}

#[test]
fn readiness_comes_over_the_descriptor_that_was_named() {
    for rung in [Rung::Cgroup, Rung::Keeper] {
        let mut world = world(setup(rung, Place::Pid1).main_program(&["/adversary", "hold"]));
        for (name, number) in [("three", 3), ("ten", 10)] {
            let run = format!(
                "#!/bin/sh\nprintf ready-soon >/proc/self/fd/{number}\necho asks\nread go <{SOURCES}/{name}/go\necho >/proc/self/fd/{number}\nexec /adversary hold MARK\n"
            );
            longrun(&world, name, &[("run", &run), ("notification-fd", &number.to_string()), ("down", "")]);
            let go = world.path(&format!("{SOURCES}/{name}/go"));
            rustix::fs::mknodat(rustix::fs::CWD, &go, rustix::fs::FileType::Fifo, 0o644.into(), 0)
                .expect("a fifo");
        }
        longrun(
            &world,
            "never",
            &[("run", "#!/bin/sh\nexec /adversary pause MARK\n"), ("notification-fd", "4"), ("down", "")],
        );
        longrun(
            &world,
            "closes",
            &[
                ("run", "#!/bin/sh\nexec 4>&-\nexec /adversary pause MARK\n"),
                ("notification-fd", "4"),
                ("down", ""),
            ],
        );
        let supervisor = world.start();
        for name in ["three", "ten"] {
            let start = world.inside_command(0, &["/hermes-sup", "ctl", "start", name]);
            let asked = std::thread::spawn(move || Answer::of(start, wait::PATIENCE));
            world.wait_log(name, "asks");
            world.wait_state(name, &["up"]);
            let not_yet = format!("/command/s6-svwait -U -t 50 /run/service/{name}");
            shell(&world, &supervisor, &not_yet).fails(99);
            assert!(!asked.is_finished(), "answered before the newline");
            world.write(&format!("{SOURCES}/{name}/go"), "go\n");
            asked.join().expect("an answer").ok();
            assert_eq!(world.state(name), "ready", "{rung:?}");
            assert!(
                shell(&world, &supervisor, &format!("/command/s6-svstat -o ready /run/service/{name}"))
                    .ok()
                    .contains("true")
            );
        }
        for name in ["never", "closes"] {
            let late = world.ctl(&["start", "--timeout", "200ms", name]);
            assert_ne!(late.code, 0, "{late:?}");
            world.wait_state(name, &["up"]);
        }
    }
}

/// Without `timeout-kill` s6 never kills. Here what has none gets the limit of any other service.
/// Contract: 93.
#[test]
fn a_stop_uses_the_slots_own_signal_and_patience() {
    let mut world = world(idle());
    longrun(
        &world,
        "asks",
        &[
            (
                "run",
                "#!/bin/sh\ntrap 'echo got usr1; exit 0' USR1\ntrap '' TERM\necho ready\nsleep 100000 & wait\n",
            ),
            ("down-signal", "SIGUSR1\n"),
        ],
    );
    longrun(
        &world,
        "deaf",
        &[("run", "#!/bin/sh\nexec /adversary ignore-term MARK\n"), ("timeout-kill", "100\n")],
    );
    let _supervisor = world.start();
    world.wait_log("asks", "ready");
    world.ctl(&["stop", "asks"]).ok();
    assert!(world.log("asks").contains("got usr1"), "{}", world.log("asks"));
    // A slow moment of the machine costs one try.
    let in_time = (1..=3).any(|life| {
        world.ctl(&["start", "deaf"]).ok();
        world.wait_log_times("deaf", "ready", life);
        let asked = std::time::Instant::now();
        world.ctl(&["stop", "deaf"]).ok();
        asked.elapsed() < std::time::Duration::from_secs(5)
    });
    assert!(in_time, "its own limit, not ours of 10 s");
    assert!(process::marked(&world.mark).is_empty());
}

// ---- Whatever comes in whatever order -----------------------------------------------------------------------------

/// Numbers that look random and are the same in every run (xorshift64).
struct Dice(u64);

impl Dice {
    fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        among[(self.0 >> 33) as usize % among.len()]
    }
}

const SLOTS: [&str; 5] = ["gateway-a", "gateway-b", "c", "d", "e"];
const RUNS: [&str; 5] = [
    "exec /adversary pause MARK",
    "exec /adversary tree 3 MARK",
    "exec /adversary leave-remains 0 MARK",
    "exit 1",
    "exit 0",
];
const FINISHES: [&str; 4] =
    ["exit 0", "exit 125", "exec /adversary pause MARK", "/adversary tree 2 MARK & exit 0"];

/// A slot comes, whole, under its name; not when there is one.
fn appear(world: &World, dice: &mut Dice, name: &str, thread: u64) {
    let scan = world.path("/run/service");
    let building = scan.join(format!(".{name}.{thread}"));
    let program = |file: &str, text: &str| {
        let path = building.join(file);
        std::fs::write(&path, format!("#!/bin/sh\n{}\n", text.replace("MARK", &world.mark))).expect("a file");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("a mode");
    };
    // What a removal has left that was disturbed by a reading.
    let _ = std::fs::remove_dir_all(&building);
    std::fs::create_dir(&building).expect("a directory");
    program("run", dice.pick(&RUNS));
    if dice.pick(&[true, false]) {
        program("finish", dice.pick(&FINISHES));
        std::fs::write(building.join("timeout-finish"), "100").expect("a file");
    }
    std::fs::write(building.join("timeout-kill"), "100").expect("a file");
    if dice.pick(&[true, false]) {
        std::fs::write(building.join("down"), "").expect("a file");
    }
    for entry in std::fs::read_dir(&building).expect("a directory").flatten() {
        chown(entry.path(), Some(HERMES), Some(HERMES)).expect("an owner");
    }
    chown(&building, Some(HERMES), Some(HERMES)).expect("an owner");
    if std::fs::rename(&building, scan.join(name)).is_err() {
        std::fs::remove_dir_all(&building).expect("it is ours");
    }
}

fn disappear(world: &World, dice: &mut Dice, name: &str, thread: u64) {
    let slot = world.path(&format!("/run/service/{name}"));
    let aside = slot.with_file_name(format!(".{name}.{thread}"));
    // Piece by piece, as `rm -r` does it, or at once.
    let going = if dice.pick(&[true, false]) {
        slot
    } else {
        std::fs::rename(&slot, &aside).map_or(slot, |()| aside)
    };
    let _ = std::fs::remove_dir_all(going);
}

/// A tool of s6 from outside the world, which is faster, without a look at what it says.
fn tool(world: &World, name: &str, words: &[&str]) -> Answer {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hermes-sup"));
    command.arg0(name).args(words).env_clear().env("HERMES_SUP_SOCKET", world.socket());
    Answer::of(command, wait::PATIENCE)
}

fn random_steps(world: &World, seed: u64, thread: u64) {
    let mut dice = Dice((seed + thread).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    for _ in 0..14 {
        let name = dice.pick(&SLOTS);
        let slot = format!("/run/service/{name}");
        match dice.pick(&[0, 0, 0, 1, 1, 2, 3, 4, 4, 4]) {
            0 => appear(world, &mut dice, name, thread),
            1 => disappear(world, &mut dice, name, thread),
            2 => drop(tool(world, "s6-svscanctl", &["-a", "/run/service"])),
            3 => drop(tool(world, "s6-svscanctl", &["-an", "/run/service"])),
            _ => {
                drop(tool(world, "s6-svc", &[dice.pick(&["-u", "-d", "-o", "-r", "-k", "-t", "-uk"]), &slot]))
            }
        }
    }
}

// The test's own output is what a failure is repeated with.
#[allow(clippy::disallowed_macros)]
fn slots_are_services_and_nothing_else_is(rung: Rung) {
    let seed = std::env::var("SURFACE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_260);
    println!("SURFACE_SEED={seed}");
    let mut world = World::new(setup(rung, Place::Pid1).main_program(&["/adversary", "hold"]));
    // A gateway has 75 s to end, and these do not obey.
    let template =
        "command = [\"hermes\", \"gateway\", \"run\"]\n[stop]\ntimeout = \"100ms\"\n[ready]\nkind = \"none\"";
    world.define("gateway", template);
    let supervisor = world.start();
    let idle = (world.processes(&supervisor).len(), world.cgroups());
    let agree = |expected: &[&str]| {
        let mut expected: Vec<&str> =
            expected.iter().map(|name| name.trim_start_matches("gateway-")).collect();
        expected.sort_unstable();
        wait::within(wait::PATIENCE, &world.path("/run/service"), || {
            (services(&world) == expected).then_some(())
        })
        .unwrap_or_else(|| {
            panic!("slots {expected:?}, services:\n{}\n{}", world.ctl(&["status"]).out, world.stderr())
        });
    };
    for round in 0..3 {
        std::thread::scope(|scope| {
            let world = &world;
            for thread in 0..3 {
                scope.spawn(move || random_steps(world, seed + 1000 * round, thread));
            }
        });
        tool(&world, "s6-svscanctl", &["-an", "/run/service"]).ok();
        let there = |name: &&str| world.path(&format!("/run/service/{name}")).exists();
        agree(&SLOTS.into_iter().filter(there).collect::<Vec<_>>());
    }
    for name in SLOTS {
        let _ = std::fs::remove_dir_all(world.path(&format!("/run/service/{name}")));
    }
    tool(&world, "s6-svscanctl", &["-an", "/run/service"]).ok();
    agree(&[]);
    world.assert_no_survivors("of slots that are gone");
    wait::until("the cgroups of nobody", &world.root, || (world.cgroups() == idle.1).then_some(()));
    wait::until("processes of nobody", &world.root, || {
        (world.processes(&supervisor).len() == idle.0).then_some(())
    });
    assert_eq!(supervisor.terminate(), End::Code(0));
}

#[test]
fn slots_are_services_on_cgroups() {
    slots_are_services_and_nothing_else_is(Rung::Cgroup);
}

#[test]
fn slots_are_services_under_keepers() {
    slots_are_services_and_nothing_else_is(Rung::Keeper);
}
