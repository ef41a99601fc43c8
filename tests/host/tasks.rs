//! The twenty-five tasks of an operator: what people who run services in containers do most often. Each has a test that tells its
//! story; most stand with what they are about, and the table says where.

use crate::harness::{Setup, World};
use serde_json::json;
use std::path::Path;

/// Task, and its tests by their file below tests/ or src/.
const TASKS: [(&str, &[&str]); 25] = [
    ("define a service and run it", &["host/verbs.rs::a_service_goes_through_its_life"]),
    (
        "start, stop, restart, with result and exit code",
        &[
            "host/verbs.rs::exit_codes_are_the_documented_ones",
            "host/tasks.rs::what_is_started_together_waits_for_each_other",
        ],
    ),
    (
        "an overview",
        &[
            "cli/status.rs::the_table",
            "host/screens.rs::only_what_has_failed_is_shown_where_that_is_asked_for",
        ],
    ),
    ("why did it not start", &["host/reasons.rs::a_start_that_fails_says_why_to_whoever_looks"]),
    ("why did it die", &["host/reasons.rs::crashes_kills_and_who_asked_are_a_line_each"]),
    ("follow the logs of one or several", &["host/verbs.rs::logs_are_shown_merged_and_followed"]),
    (
        "logs since then, by stream",
        &[
            "log/tests/reading.rs::all_lines_the_last_ones_those_since_and_those_of_a_stream",
            "host/tasks.rs::logs_since_a_local_time",
        ],
    ),
    (
        "tell services apart in docker logs",
        &["host/logs.rs::a_line_in_the_containers_log_names_its_service_where_that_is_wanted"],
    ),
    (
        "validate in CI or a Dockerfile",
        &["host/reasons.rs::check_shows_the_place_and_fails_for_what_would_be_refused"],
    ),
    ("order: after the migration", &["host/tasks.rs::a_migration_comes_first_and_its_failure_is_told"]),
    (
        "order: after the database accepts",
        &[
            "host/health.rs::a_worker_starts_when_what_it_requires_accepts_connections",
            "docker/own_image.rs::nginx_and_a_worker_wait_for_redis_and_docker_knows_their_health",
        ],
    ),
    (
        "HEALTHCHECK",
        &[
            "docker/health.rs::docker_follows_the_health_of_the_services",
            "host/screens.rs::healthcheck_is_one_line_and_0_or_1",
        ],
    ),
    ("restart what hangs", &["host/health.rs::a_server_that_hangs_is_started_again_with_the_reason"]),
    ("limits", &["vm/limits.rs::each_limit_is_in_the_kernels_hands_and_can_be_set_while_the_service_runs"]),
    ("change a limit live", &["host/limits.rs::a_limit_that_is_set_is_recorded_and_holds_at_each_start"]),
    ("run as another user", &["host/trust.rs::a_system_definition_that_others_can_write_is_not_believed"]),
    (
        "a privileged service (nginx, cron, sshd)",
        &["docker/capabilities.rs::root_services_have_the_capabilities_that_they_name"],
    ),
    (
        "environment from docker -e and env_file",
        &[
            "host/hygiene.rs::the_environment_is_the_supervisors_plus_its_own",
            "host/hygiene.rs::a_cleared_environment_has_what_its_definition_takes_from_the_container",
        ],
    ),
    ("a one-shot before the services", &["host/tasks.rs::a_migration_comes_first_and_its_failure_is_told"]),
    (
        "a periodic job",
        &[
            "host/schedules.rs::a_oneshot_runs_again_and_again_and_never_beside_itself",
            "host/schedules.rs::a_line_of_crontab_goes_by_the_clock_of_the_container",
        ],
    ),
    (
        "edit and reload",
        &["host/reasons.rs::what_is_not_in_force_yet_is_remembered_and_taken_by_the_next_restart"],
    ),
    (
        "the container ends when its main service fails",
        &["host/restarts.rs::an_essential_service_that_fails_ends_the_container_with_its_code"],
    ),
    (
        "a graceful docker stop",
        &[
            "host/signals.rs::each_stop_signal_shuts_down",
            "host/signals.rs::the_stop_budget_cuts_every_timeout_and_the_log_names_who_used_it",
        ],
    ),
    ("let a user act on its own services", &["host/verbs.rs::who_may_do_what"]),
    (
        "scripts: JSON, completion",
        &[
            "host/verbs.rs::json_has_the_documented_shape",
            "host/completions.rs::every_shell_completes_verbs_flags_values_and_the_services_there_are",
        ],
    ),
];

#[test]
fn each_task_has_its_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (task, tests) in TASKS {
        assert!(!tests.is_empty(), "{task}");
        for test in tests {
            let (file, name) = test.split_once("::").expect("a file and a name");
            let texts = ["tests", "src"].map(|place| std::fs::read_to_string(root.join(place).join(file)));
            let text = texts.into_iter().find_map(Result::ok).unwrap_or_else(|| panic!("{task}: no {file}"));
            assert!(text.contains(&format!("fn {name}(")), "{task}: no {test}");
        }
    }
}

/// A database is brought to its new form before anything uses it; if that fails, what needs it says so and does not start.
#[test]
fn a_migration_comes_first_and_its_failure_is_told() {
    let mut world = World::new(Setup::plain());
    world.define(
        "migrate",
        "command = [\"/bin/sh\", \"-c\", \"sleep 0.2; echo done >/tmp/schema\"]\ntype = \"oneshot\"\n",
    );
    let web = format!(
        "command = [\"/bin/sh\", \"-c\", \"cat /tmp/schema; exec /adversary pause {}\"]\n",
        world.mark
    );
    world.define("web", &format!("{web}requires = [\"migrate\"]\n"));
    world.define(
        "broken",
        "command = [\"/bin/sh\", \"-c\", \"exit 9\"]\ntype = \"oneshot\"\n[restart]\npolicy = \"never\"\n",
    );
    world.define("worker", &format!("{web}requires = [\"broken\"]\n"));
    // It said that what it requires does not exist, where only its definition was wrong.
    world.define("typo", "comand = [\"/bin/true\"]\n");
    world.define("orphan", &format!("{web}requires = [\"typo\"]\n"));
    let _supervisor = world.start();
    let orphan = world.wait_state("orphan", &["down"]);
    assert_eq!(orphan["reason"], json!("requires 'typo', for which there is no valid definition"));
    world.wait_state("web", &["up"]);
    let migrated = world.status("migrate");
    assert_eq!(
        (&migrated["state"], &migrated["last_exit"]["code"]),
        (&json!("finished"), &json!(0)),
        "{migrated}"
    );
    world.wait_log("web", "ready");
    assert!(world.log("web").contains("done"), "it came before: {}", world.log("web"));
    let failed = world.wait_state("broken", &["failed"]);
    assert!(failed["reason"].as_str().unwrap_or_default().contains("exited with code 9"), "{failed}");
    let worker = world.wait_state("worker", &["down"]);
    assert!(
        worker["reason"].as_str().unwrap_or_default().contains("requires 'broken', which has failed"),
        "{worker}"
    );
    assert_eq!(world.marked("pause").len(), 1);
}

/// After `ctl stop redis`, which ended the worker too, `ctl start redis worker` said of the worker that redis was down.
#[test]
fn what_is_started_together_waits_for_each_other() {
    let mut world = World::new(Setup::plain());
    let ready = "[ready]\nkind = \"exec\"\ncommand = [\"/bin/sh\", \"-c\", \"test -e /tmp/open\"]\ninterval = \"100ms\"";
    world.adversary("redis", "pause", ready);
    // In the order of the names, it comes first.
    world.adversary("app", "pause", "requires = [\"redis\"]");
    world.write("/tmp/open", "");
    let _supervisor = world.start();
    world.wait_state("app", &["up"]);
    world.ctl(&["stop", "redis"]).ok();
    world.wait_state("app", &["down"]);
    assert_eq!(world.ctl(&["start", "app", "redis"]).ok(), "redis: ready\napp: up\n");
    world.ctl(&["stop", "redis"]).ok();
    world.wait_state("app", &["down"]);
    let refused = world.ctl(&["start", "app"]).fails(1);
    assert!(refused.contains("requires 'redis', which is down: start it first"), "{refused}");
}

/// `docker run -e TZ=America/St_Johns`: what a person types and reads is the time of that place.
#[test]
fn logs_since_a_local_time() {
    let mut world = World::new(Setup::plain().env("TZ", "<-0330>3:30"));
    world.adversary("web", "pause", "");
    let supervisor = world.start();
    world.wait_log("web", "ready");
    let local = |words: &str| {
        let script = format!("TZ='<-0330>3:30'; export TZ; {words}");
        world.exec(&supervisor, 0, &["/bin/sh", "-ec", &script])
    };
    // Of one day, whenever this runs.
    let since = "date -d '-5 min' '+%Y-%m-%d %H:%M'";
    let found = local(&format!("/hermes-sup ctl logs web --since \"$({since})\"")).ok();
    let today = local("date +%Y-%m-%d").ok();
    assert!(found.contains("ready") && found.contains(today.trim()), "{today} {found}");
    let later = local("/hermes-sup ctl logs web --since \"$(date -d '+5 min' '+%Y-%m-%d %H:%M')\"").ok();
    assert!(!later.contains("ready"), "{later}");
    let card = local("/hermes-sup ctl status web").ok();
    assert!(card.contains("-0330"), "{card}");
}
