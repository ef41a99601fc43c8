//! Oneshots with `every` or `schedule`: they run when it is time, never beside themselves, and go on under a later supervisor.

use crate::harness::{End, Place, Rung, Setup, World, wait};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

mod on_two_rungs {
    use super::*;

    #[test]
    fn on_a_cgroup() {
        a_oneshot_runs_again_and_again_and_never_beside_itself(Setup::new(Rung::Cgroup, Place::Pid1));
    }

    #[test]
    fn with_a_keeper() {
        a_oneshot_runs_again_and_again_and_never_beside_itself(Setup::new(Rung::Keeper, Place::Child));
    }

    #[test]
    fn successors_on_a_cgroup() {
        a_later_supervisor_keeps_the_schedule(Setup::new(Rung::Cgroup, Place::Child));
    }

    #[test]
    fn successors_with_a_keeper() {
        a_later_supervisor_keeps_the_schedule(Setup::new(Rung::Keeper, Place::Child));
    }
}

fn oneshot(script: &str, rest: &str) -> String {
    format!("command = {:?}\ntype = \"oneshot\"\n{rest}\n", ["/bin/sh", "-c", script])
}

fn events(world: &World, service: &str) -> Vec<Value> {
    let is_asked = |one: &Value| one["service"] == service && one["event"] == "schedule";
    world.events().into_iter().filter(is_asked).collect()
}

fn said(events: &[Value], text: &str) -> usize {
    events.iter().filter(|one| one["message"].as_str().is_some_and(|told| told.starts_with(text))).count()
}

fn time(value: &Value) -> SystemTime {
    let text = value.as_str().unwrap_or_else(|| panic!("no time: {value}"));
    humantime::parse_rfc3339(text).expect("a time")
}

fn a_oneshot_runs_again_and_again_and_never_beside_itself(setup: Setup) {
    let mut world = World::new(setup);
    world.define("job", &oneshot("echo run", "every = \"1s\""));
    let slow = format!(
        "command = [\"/adversary\", \"pause\", \"{}\"]\ntype = \"oneshot\"\nevery = \"1s\"\n",
        world.mark
    );
    world.define("slow", &slow);
    world.define("late", &oneshot("echo run", "every = \"1h\""));
    let supervisor = world.start();
    let before = world.status("late");
    assert_eq!((&before["state"], &before["want"]), (&json!("down"), &json!("up")), "{before}");
    assert!(before["reason"].as_str().is_some_and(|why| why.starts_with("next run at 20")), "{before}");
    assert_eq!(world.log("late"), "", "the first run comes after an hour");
    world.wait_log_times("job", "run", 3);
    let job = world.wait_state("job", &["finished"]);
    assert_eq!((&job["kind"], &job["schedule"]["when"]), (&json!("oneshot"), &json!("every 1s")), "{job}");
    let (last, next) = (time(&job["schedule"]["last_run"]), time(&job["schedule"]["next_run"]));
    assert!(next > last && next < last + Duration::from_secs(3), "{job}");
    assert!(job["reason"].as_str().is_some_and(|why| why.contains("; next run at 20")), "{job}");
    assert!(said(&events(&world, "job"), "its run is due") >= 3);

    // What is due while the last run goes on.
    wait::until("two skipped runs", &world.root, || {
        (world.status("slow")["schedule"]["skipped"].as_u64()? >= 2).then_some(())
    });
    assert_eq!(world.marked("pause").len(), 1);
    let told = events(&world, "slow");
    assert_eq!(said(&told, "its run is due and skipped: the one before it has not ended"), 1, "{told:?}");
    assert!(world.ctl(&["status", "slow"]).out.contains(" skipped"));
    assert_eq!(world.ctl(&["healthcheck"]).ok(), "healthy: 3 services\n");

    // An operator.
    assert_eq!(world.ctl(&["stop", "slow"]).ok(), "slow: down\n");
    assert_eq!(world.ctl(&["stop", "job"]).ok(), "job: down\n");
    assert_eq!(world.status("job")["schedule"]["next_run"], Value::Null);
    assert_eq!(world.marked("pause").len(), 0);
    assert_eq!(world.ctl(&["start", "late"]).ok(), "late: already scheduled\n");
    assert_eq!(world.ctl(&["once", "late"]).ok(), "late: up\n");
    let late = world.wait_state("late", &["finished"]);
    let counted = time(&late["schedule"]["next_run"]).duration_since(time(&late["schedule"]["last_run"]));
    assert!(counted.is_ok_and(|counted| counted.as_secs().abs_diff(3600) <= 1), "{late}");
    let runs = world.log("job").matches("run").count();
    assert_eq!(world.ctl(&["start", "job"]).ok(), "job: scheduled\n");
    world.wait_log_times("job", "run", runs + 1);

    // A run that fails is a failure until the next one.
    world.define("job", &oneshot("test -e /tmp/mended || exit 3", "every = \"1s\""));
    world.ctl_as(&supervisor, 0, &["reload"]).ok();
    let failed = world.wait_state("job", &["failed"]);
    assert!(
        failed["reason"].as_str().is_some_and(|why| why.starts_with("exited with code 3; next run")),
        "{failed}"
    );
    // Unless it is asked just while the next one runs.
    wait::until("an unhealthy answer", &world.root, || {
        let unwell = world.ctl(&["healthcheck"]);
        (unwell.code == 1 && unwell.out.contains("job: failed, exited with code 3")).then_some(())
    });
    world.write("/tmp/mended", "");
    world.wait_state("job", &["finished"]);
    world.ctl(&["stop", "--all"]).ok();
    world.assert_no_survivors("after stop --all");
}

fn a_later_supervisor_keeps_the_schedule(setup: Setup) {
    let mut world = World::new(setup);
    world.define("job", &oneshot("echo run", "every = \"1h\""));
    world.define("yearly", &oneshot("echo run", "schedule = \"@yearly\""));
    let slow = format!(
        "command = [\"/adversary\", \"pause\", \"{}\"]\ntype = \"oneshot\"\nevery = \"1s\"\n",
        world.mark
    );
    world.define("slow", &slow);
    world.define("fails", &oneshot("exit 3", "every = \"1h\""));
    let mut supervisor = world.start();
    world.ctl(&["once", "job"]).ok();
    world.ctl(&["once", "fails"]);
    world.wait_state("fails", &["failed"]);
    world.wait_state("slow", &["up", "ready"]);
    let first = world.wait_state("job", &["finished"])["schedule"].clone();
    let new_year = world.status("yearly")["schedule"]["next_run"].clone();
    let pid = world.status("slow")["pid"].clone();
    // What was run is written down with the next command.
    world.ctl(&["stop", "yearly"]).ok();
    world.ctl(&["start", "yearly"]).ok();
    let unchanged = |world: &World, when: &str| {
        let now = world.status("job")["schedule"].clone();
        assert_eq!(now["last_run"], first["last_run"], "{when}");
        let (was, is) = (time(&first["next_run"]), time(&now["next_run"]));
        let moved = was.duration_since(is).or_else(|_| is.duration_since(was)).expect("a time");
        assert!(moved < Duration::from_secs(1), "{when}: {first} {now}");
        assert_eq!(world.status("yearly")["schedule"]["next_run"], new_year, "{when}");
        assert_eq!(world.status("slow")["pid"], pid, "{when}");
        assert_eq!(world.status("fails")["state"], json!("failed"), "{when}");
        assert_eq!(world.log("job").matches("run").count(), 1, "{when}");
        let skipped = || world.status("slow")["schedule"]["skipped"].as_u64();
        let before = skipped();
        wait::until("another skipped run", &world.root, || (skipped() > before).then_some(()));
        assert_eq!(world.marked("pause").len(), 1, "{when}");
    };
    unchanged(&world, "at first");
    assert_eq!(world.ctl(&["upgrade"]).ok(), "upgraded\n");
    unchanged(&world, "after an upgrade");
    assert_eq!(supervisor.kill(), End::Signal(9));
    supervisor = world.start();
    unchanged(&world, "after kill -9");
    world.ctl(&["stop", "--all"]).ok();
    world.assert_no_survivors("after stop --all");
    drop(supervisor);
}

/// `docker run -e TZ=…`: three in the night is the night of that place. And a line is woken up for in its minute.
#[test]
fn a_line_of_crontab_goes_by_the_clock_of_the_container() {
    let mut world = World::new(Setup::plain().env("TZ", "<-0330>3:30"));
    world.define("nightly", &oneshot("echo run", "schedule = \"0 3 * * *\""));
    world.define("minute", &oneshot("date +%S", "schedule = \"* * * * *\""));
    let _supervisor = world.start();
    let nightly = world.status("nightly");
    let next = nightly["schedule"]["next_run"].as_str().unwrap_or_default();
    assert!(next.ends_with("T06:30:00.000Z"), "{nightly}");
    assert!(nightly["reason"].as_str().is_some_and(|why| why.ends_with(" 03:00:00")), "{nightly}");
    let run = wait::within(Duration::from_secs(90), &world.root, || world.log_lines("minute").pop());
    let second: u64 = run.and_then(|second| second.parse().ok()).expect("a run within the minute");
    assert!(second < 30, "it ran {second} s after its minute began");
}
