//! A gateway that puts its workers into scopes, with the command lines that gateways use.

use crate::harness::{Answer, End, Place, Rung, Setup, Supervisor, World, wait};
use rustix::process::Signal;
use std::cell::Cell;
use std::io::Write;
use std::time::{Duration, Instant};

crate::on_every_rung!(
    stop_ends_exactly_the_scope,
    a_stop_of_the_service_ends_its_scopes,
    the_probe_of_a_gateway_succeeds_and_leaves_nothing,
    a_bound_is_in_force_or_said_not_to_be,
    only_processes_of_a_service_get_a_scope,
    names_and_commands_that_do_not_work_are_refused,
    the_command_takes_the_place_of_its_caller,
    scopes_are_frozen_with_their_service_and_shown_in_its_tree,
);

crate::on_every_rung_as_a_child!(a_successor_has_the_scopes_too);

/// What a worker may be, and what it says when it is in place.
const WORKERS: [(&str, &str); 9] = [
    ("tree 20", "ready tree"),
    ("comet 1", "ready comet"),
    ("storm 100", "bound reached"),
    ("ignore-term", "ready ignore-term"),
    ("obey-but-child-ignores", "ready obey"),
    ("zombie-leader", "ready zombie-leader"),
    ("vfork-child", "ready vfork-child"),
    ("stopped", "ready stopped"),
    ("ptraced", "ready ptraced"),
];

/// A shell that does what the test tells it, one order a line, as a service.
const GATEWAY: &str = "mkfifo /tmp/orders; exec 3<>/tmp/orders; echo ready gateway; \
                       while read -r order <&3; do eval \"$order\"; done";

/// A world with a gateway up in it.
struct Scene {
    world: World,
    supervisor: Supervisor,
    orders: Cell<u32>,
}

impl Scene {
    fn new(setup: Setup) -> Self {
        let mut world = World::new(setup);
        let command = ["/bin/sh", "-c", GATEWAY, "gateway", &world.mark];
        let definition = format!("command = {command:?}\n[stop]\ntimeout = \"20ms\"\n");
        world.define("gw", &definition);
        let supervisor = world.start();
        world.wait_log("gw", "ready gateway");
        Self { world, supervisor, orders: Cell::new(0) }
    }

    /// Has the gateway run `command` in its own shell.
    fn order(&self, command: &str) {
        let fifo = self.world.path("/tmp/orders");
        let mut fifo = std::fs::File::options().write(true).open(fifo).expect("the orders");
        fifo.write_all(format!("{command}\n").as_bytes()).expect("an order");
    }

    /// Has the gateway run `command` to its end.
    fn run(&self, command: &str) -> Answer {
        let n = self.orders.get() + 1;
        self.orders.set(n);
        let at = format!("/tmp/order-{n}");
        self.order(&format!(
            "( {command} ) >{at}.out 2>{at}.err; echo $? >{at}.part; mv {at}.part {at}.code"
        ));
        let code = wait::until(command, &self.world.path("/tmp"), || {
            std::fs::read_to_string(self.world.path(&format!("{at}.code"))).ok()
        });
        Answer {
            asked: command.to_owned(),
            code: code.trim().parse().expect("a code"),
            out: self.world.read(&format!("{at}.out")),
            err: self.world.read(&format!("{at}.err")),
        }
    }

    /// Starts an adversary in a scope beside the gateway and waits until it is in place.
    fn worker(&self, unit: &str, adversary: &str, ready: &str) {
        let mark = &self.world.mark;
        let log = format!("/tmp/{unit}.log");
        self.order(&format!(
            "/systemd-run --user --scope --quiet --unit {unit} --collect --property MemoryAccounting=yes \
             --property MemoryMax=1073741824 --property OOMPolicy=kill -- /adversary {adversary} {unit} {mark} \
             >{log} 2>&1 3>&- &"
        ));
        wait::within(wait::PATIENCE, &self.world.path("/tmp"), || {
            self.world.read(&log).contains(ready).then_some(())
        })
        .unwrap_or_else(|| panic!("{unit}: {}\n{}", self.world.read(&log), self.world.stderr()));
    }

    fn show(&self, unit: &str, property: &str) -> String {
        self.run(&format!("/systemctl --user show {unit}.scope --property {property} --value"))
            .ok()
            .trim()
            .to_owned()
    }

    fn stop(&self, unit: &str) -> Answer {
        // 124 when it hangs.
        self.run(&format!("timeout 60 /systemctl --user stop {unit}.scope"))
    }

    /// Directories of scopes. They go a moment after their scopes.
    #[track_caller]
    fn assert_no_directories(&self) {
        let left = || -> Vec<_> {
            let is_scope = |dir: &std::path::PathBuf| {
                dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with("scope-"))
            };
            self.world.cgroups().into_iter().filter(is_scope).collect()
        };
        let gone =
            wait::within(wait::PATIENCE, self.world.root.as_path(), || left().is_empty().then_some(()));
        assert!(gone.is_some(), "{:?}", left());
    }

    fn main_pid(&self) -> serde_json::Value {
        self.world.status("gw")["pid"].clone()
    }
}

fn stop_ends_exactly_the_scope(setup: Setup) {
    let scene = Scene::new(setup);
    let main = scene.main_pid();
    let mark = &scene.world.mark;
    scene.order(&format!("/adversary pause bystander {mark} 3>&- &"));
    scene.world.wait_log("gw", "ready pause");
    scene.worker("neighbour", "tree 5", "ready tree");
    let others = || {
        let alive = |word| scene.world.marked(word).iter().map(|process| process.inner).collect::<Vec<_>>();
        (alive("bystander"), alive("neighbour"))
    };
    let before = others();
    assert_eq!((before.0.len(), before.1.len()), (1, 6));
    for (n, (adversary, ready)) in WORKERS.into_iter().enumerate() {
        let unit = format!("hermes-worker-{n}");
        scene.worker(&unit, adversary, ready);
        assert_eq!(scene.show(&unit, "ActiveState"), "active");
        scene.stop(&unit).ok();
        scene.world.assert_no_survivors_named(&unit);
        assert_eq!(scene.show(&unit, "LoadState"), "not-found");
        let again = scene.stop(&unit);
        assert!(again.err.contains("not loaded"), "{again:?}");
        again.fails(5);
        assert_eq!(others(), before, "{adversary}: nobody else was touched");
    }
    scene.stop("neighbour").ok();
    scene.assert_no_directories();
    assert_eq!(scene.main_pid(), main, "the service did not notice");
    scene.world.ctl(&["stop", "gw"]).ok();
    scene.world.assert_no_survivors("after stop");
    scene.world.assert_no_zombies(&scene.supervisor);
}

fn a_stop_of_the_service_ends_its_scopes(setup: Setup) {
    let scene = Scene::new(setup);
    scene.worker("one", "tree 10", "ready tree");
    scene.worker("two", "storm 50", "bound reached");
    // Of a storm that has reached its bound some are still being born: only the other one can be counted.
    assert_eq!(scene.world.marked("one").len(), 11);
    scene.world.ctl(&["restart", "gw"]).ok();
    scene.world.wait_log_times("gw", "ready gateway", 2);
    for unit in ["one", "two"] {
        scene.world.assert_no_survivors_named(unit);
    }
    // The same name in a new life is a new scope.
    scene.worker("one", "tree 10", "ready tree");
    scene.world.ctl(&["stop", "gw"]).ok();
    scene.world.assert_no_survivors("after stop");
    scene.assert_no_directories();
    scene.world.assert_no_zombies(&scene.supervisor);
}

fn the_probe_of_a_gateway_succeeds_and_leaves_nothing(setup: Setup) {
    let scene = Scene::new(setup);
    let mut quickest = Duration::MAX;
    for n in 0..5 {
        let unit = format!("hermes-probe-scope-4711-0123456{n}");
        let asked = Instant::now();
        let answer = scene.run(&format!(
            "/systemd-run --user --scope --quiet --unit {unit} --collect --property MemoryAccounting=yes \
             --property MemoryMax=4294967296 --property OOMPolicy=kill -- /bin/true"
        ));
        assert_eq!((answer.out.as_str(), answer.err.as_str()), ("", ""), "{answer:?}");
        answer.ok();
        quickest = quickest.min(asked.elapsed());
        let gone = wait::within(wait::PATIENCE, &scene.world.root, || {
            (scene.show(&unit, "LoadState") == "not-found").then_some(())
        });
        assert!(gone.is_some(), "{unit} is still there");
    }
    // A slow moment of the machine costs one try.
    assert!(quickest < Duration::from_secs(3), "longer than a gateway waits: {quickest:?}");
    scene.assert_no_directories();
}

fn a_bound_is_in_force_or_said_not_to_be(setup: Setup) {
    let rung = setup.rung;
    let scene = Scene::new(setup);
    let bounded = |unit: &str| {
        scene.run(&format!(
            "/systemd-run --user --scope --unit {unit} -p MemoryMax=64M -p MemorySwapMax=0 -- \
             /systemctl --user show {unit} --property=MemoryMax,ControlGroup,LoadState"
        ))
    };
    let (first, second) = (bounded("one"), bounded("two"));
    for answer in [&first, &second] {
        assert_eq!(answer.code, 0, "{answer:?}");
        assert!(answer.out.contains("LoadState=loaded\n"), "{answer:?}");
        let in_force = answer.out.contains("MemoryMax=67108864\n");
        let words = "MemoryMax of scopes is not in force";
        assert_eq!(answer.err.contains(words), !in_force, "{answer:?}");
        assert_eq!(answer.out.contains("MemoryMax=infinity\n"), !in_force, "{answer:?}");
        assert_eq!(
            scene.world.stderr().matches(words).count(),
            usize::from(!in_force),
            "once in the supervisor's life: {}",
            scene.world.stderr()
        );
        assert!(rung.is_cgroup() || !in_force, "{answer:?}");
    }
    assert_eq!(first.out.contains("/scope-one\n"), rung.is_cgroup(), "{first:?}");
    // A worker's output is read by somebody: with --quiet nothing of ours is mixed into it.
    let quiet = scene.run("/systemd-run --user --scope --quiet --unit q -p MemoryMax=64M -- /bin/true");
    assert_eq!(quiet.err, "");
    quiet.ok();
}

fn only_processes_of_a_service_get_a_scope(setup: Setup) {
    let rung = setup.rung;
    let scene = Scene::new(setup);
    scene.worker("one", "tree 2", "ready tree");
    let root = if rung == Rung::KeeperSameUid { 10000 } else { 0 };
    for uid in [root, 10000] {
        for words in [
            &["/systemd-run", "--user", "--scope", "--unit", "x", "--", "/adversary", "print-ids"][..],
            &["/systemctl", "--user", "stop", "one.scope"],
            &["/systemctl", "--user", "show", "one.scope"],
        ] {
            let answer = scene.world.exec(&scene.supervisor, uid, words);
            assert!(
                answer.err.contains("not permitted") && answer.err.contains("not part of a running one"),
                "{answer:?}"
            );
            assert!(!answer.err.contains("not loaded"), "a gateway would take it for done: {answer:?}");
            assert_eq!((answer.out.as_str(), answer.err.lines().count()), ("", 1), "{answer:?}");
            answer.fails(1);
        }
    }
    assert_eq!(scene.world.marked("one").len(), 3, "the scope is as it was");
}

fn names_and_commands_that_do_not_work_are_refused(setup: Setup) {
    let scene = Scene::new(setup);
    scene.worker("one", "tree 2", "ready tree");
    let refused = |command: &str, words: &str| {
        let answer = scene.run(command);
        assert!(answer.err.contains(words), "{answer:?}");
        assert_eq!((answer.out.as_str(), answer.err.lines().count()), ("", 1), "{answer:?}");
        answer.fails(1);
    };
    let run = "/systemd-run --user --scope --quiet";
    refused(&format!("{run} --unit one -- echo no"), "one.scope exists already");
    refused(&format!("{run} --unit a/../b -- echo no"), "cannot be the name of a scope");
    refused(&format!("{run} --unit a --slice=b -- echo no"), "--slice is not supported");
    refused(&format!("{run} --unit two -- {run} --unit three -- echo no"), "in two.scope already");
    refused(
        &format!("{run} --unit two -- /no/such/program"),
        "failed to execute /no/such/program: No such file",
    );
    refused(&format!("{run} --unit two -- /etc/passwd"), "failed to execute /etc/passwd: Permission denied");
    refused("/systemctl --user restart hermes-gateway", "not supported");
    refused("/systemctl is-system-running", "not supported");
    scene.run("/systemctl --user stop hermes-gateway.service").fails(5);
    scene.run(&format!("{run} --unit two -- echo yes")).ok();
    assert_eq!(scene.world.marked("one").len(), 3);
    scene.stop("one").ok();
    scene.assert_no_directories();
}

fn the_command_takes_the_place_of_its_caller(setup: Setup) {
    let scene = Scene::new(setup);
    let inner = "/bin/sh -c 'echo $$; env | sort; exit 7'";
    let answer = scene.run(&format!(
        "sh -c 'echo $$; env | sort; exec \"$@\"' x /systemd-run --user --scope --quiet --unit w -- {inner}"
    ));
    assert_eq!(answer.code, 7, "{answer:?}");
    let lines: Vec<&str> = answer.out.lines().filter(|line| !line.starts_with("_=")).collect();
    let (before, after) = lines.split_at(lines.len() / 2);
    assert_eq!(before, after, "pid and environment");
    assert!(before.len() > 3, "{answer:?}");
}

fn a_successor_has_the_scopes_too(setup: Setup) {
    let mut scene = Scene::new(setup);
    scene.worker("one", "tree 10", "ready tree");
    scene.supervisor.process.signal(Signal::KILL);
    assert_eq!(scene.supervisor.ends(), End::Signal(9));
    scene.supervisor = scene.world.start();
    assert_eq!(scene.world.marked("one").len(), 11, "nothing ends with the supervisor");
    // Where directories tell of scopes, they still are; elsewhere what is in them is a part of the service like any other.
    if scene.world.setup.rung.is_cgroup() {
        scene.stop("one").ok();
        scene.world.assert_no_survivors_named("one");
        scene.assert_no_directories();
    }
    scene.world.ctl(&["stop", "gw"]).ok();
    scene.world.assert_no_survivors("after stop");
}

#[test]
fn without_a_supervisor_it_is_one_line_and_nothing_runs() {
    let mut world = World::new(Setup::new(Rung::Keeper, Place::Child));
    world.prepare();
    let answer =
        world.inside_answer(&["/systemd-run", "--user", "--scope", "--unit", "w", "--", "/bin/echo", "no"]);
    assert!(answer.err.contains("no supervisor answers"), "{answer:?}");
    assert_eq!((answer.out.as_str(), answer.err.lines().count()), ("", 1), "{answer:?}");
    answer.fails(1);
    let answer = world.inside_answer(&["/systemctl", "--user", "stop", "w.scope"]);
    assert!(!answer.err.contains("not loaded"), "{answer:?}");
    answer.fails(1);
}

fn scopes_are_frozen_with_their_service_and_shown_in_its_tree(setup: Setup) {
    let scene = Scene::new(setup);
    let world = &scene.world;
    scene.worker("clock", "tick 1", "tick 3");
    world.ctl(&["freeze", "gw"]).ok();
    assert!(!world.assert_stands("tick", "the worker").is_empty());
    let tree = world.ctl(&["--json", "tree", "gw"]).json();
    let shown = tree["services"][0]["processes"].as_array().cloned().unwrap_or_default();
    let worker = shown.iter().find(|process| process["command"].as_str().is_some_and(|c| c.contains("tick")));
    assert_eq!(worker.map(|worker| &worker["scope"]), Some(&serde_json::json!("clock.scope")), "{tree}");
    world.assert_stands("tick", "the worker");
    world.ctl(&["thaw", "gw"]).ok();
    let so_far = world.read("/tmp/clock.log").matches("tick").count();
    wait::until("more ticks", &world.path("/tmp"), || {
        (world.read("/tmp/clock.log").matches("tick").count() > so_far).then_some(())
    });
    world.ctl(&["freeze", "gw"]).ok();
    world.ctl(&["stop", "gw"]).ok();
    world.assert_no_survivors("after stop");
}
