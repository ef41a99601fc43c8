//! The guide for an image of one's own, `docker/own-image.md`: what stands there is built and run.

use crate::harness::*;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

const GUIDE: &str = include_str!("../../docker/own-image.md");

/// A build context with what the guide shows in it, and what it leaves to its reader.
struct Context(tempfile::TempDir);

impl Context {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn put(&self, name: &str, text: &str) -> &Self {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        std::fs::write(&path, text).expect("a file");
        let mode = if text.starts_with("#!") { 0o755 } else { 0o644 };
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("its mode");
        self
    }

    /// The Dockerfile of the guide that begins under this heading.
    fn dockerfile(&self, heading: &str) -> &Self {
        let (_, below) = GUIDE.split_once(heading).expect("the heading");
        self.put("Dockerfile", &block("```dockerfile\n", below).replace("hermes-sup:binary", &binary_image()))
    }

    /// `services/NAME.toml` of the guide.
    fn service(&self, name: &str) -> &Self {
        let file = format!("services/{name}.toml");
        let (_, below) = GUIDE.split_once(&format!("\n`{file}`")).expect("the file");
        self.put(&file, block("```toml\n", below))
    }

    /// `docker build`, as the guide says. Packages come from where this machine has them.
    fn build(&self, tag: &str) -> Outcome {
        let place = self.0.path().to_str().expect("UTF-8");
        let output = Command::new("docker")
            .args(["build", "--network=host", "--tag", tag, place])
            .env("DOCKER_BUILDKIT", "0")
            .stdin(Stdio::null())
            .output()
            .expect("docker");
        Outcome {
            code: output.status.code().expect("it is not killed"),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

fn block<'t>(fence: &str, text: &'t str) -> &'t str {
    let (_, inside) = text.split_once(fence).expect("a block");
    inside.split_once("```").expect("its end").0
}

#[test]
fn five_lines_are_an_image_and_a_wrong_definition_is_none() {
    let context = Context::new();
    context
        .dockerfile("# An image of your own")
        .put("services/web.toml", "command = [\"sleep\", \"infinity\"]\n");
    let lines = std::fs::read_to_string(context.0.path().join("Dockerfile")).expect("it is there");
    assert_eq!(lines.lines().count(), 5, "{lines}");
    let tag = "hermes-sup:tests-five-lines";
    context.build(tag).ok();
    let container = Run::of(tag).supervised();
    container.await_up(&["web"]);

    context.put("services/web.toml", "comand = [\"sleep\", \"infinity\"]\n");
    let refused = context.build("hermes-sup:tests-wrong");
    assert_ne!(refused.code, 0);
    assert!(
        (refused.out + &refused.err).contains("/etc/hermes-sup/services/web.toml:1:1: "),
        "the build says where"
    );
}

/// What the reader of the guide brings: it gives up where redis does not answer, and where it is told to.
const WORKER: &str = r#"
import os, socket, time
redis = socket.create_connection(("127.0.0.1", 6379))
redis.sendall(b"INCR starts\r\n")
print("start", redis.recv(64), flush=True)
while not os.path.exists("/tmp/poison"):
    time.sleep(0.1)
raise SystemExit("poisoned")
"#;

/// Until somebody opens it, redis takes its time to start.
const SLOW_REDIS: &str =
    "#!/bin/sh\nwhile ! [ -e /tmp/open ]; do sleep 0.1; done\nexec /usr/bin/redis-server \"$@\"\n";

fn shop(tag: &str) {
    let context = Context::new();
    context.dockerfile("## nginx, redis and a worker").put("worker.py", WORKER);
    let files = GUIDE.split("\n`services/").skip(1).filter_map(|text| text.split_once(".toml`"));
    let names: Vec<&str> = files.map(|(name, _)| name).collect();
    assert_eq!(names, ["redis", "worker", "nginx"]);
    for name in names {
        context.service(name);
    }
    context.build(tag).ok();
}

/// Two of the files that the guide once had did not work together, and nobody had tried it.
#[test]
fn nginx_and_a_worker_wait_for_redis_and_docker_knows_their_health() {
    let (tag, slow) = ("hermes-sup:tests-shop", "hermes-sup:tests-slow-shop");
    shop(tag);
    let slowed = Context::new();
    slowed
        .put("redis-server", SLOW_REDIS)
        .put("Dockerfile", &format!("FROM {tag}\nCOPY redis-server /usr/local/bin/\n"));
    slowed.build(slow).ok();
    let quick = ["--health-interval=1s", "--health-retries=1", "--health-start-period=1ms"];
    let container = Run::of(slow).flags(&quick).supervised();
    let becomes = |health: &str| {
        eventually(&format!("its health is {health}"), || {
            (container.inspect("{{.State.Health.Status}}") == health).then_some(())
        });
        container.inspect("{{json .State.Health.Log}}")
    };
    container.await_state("redis", "up");
    assert_eq!(container.service("worker")["reason"], "waits for 'redis'");
    assert_eq!(container.service("nginx")["reason"], "waits for 'worker'");
    becomes("unhealthy");

    container.exec(&["touch", "/tmp/open"]).ok();
    container.await_up(&["redis", "worker", "nginx"]);
    becomes("healthy");
    assert_eq!(container.service("worker")["restarts"], 0, "{}", container.logs());
    let told: Vec<(String, String)> = events(&container)
        .iter()
        .filter(|event| event["event"] == "state" && (event["state"] == "up" || event["state"] == "ready"))
        .filter_map(|event| {
            Some((event["service"].as_str()?.to_owned(), event["state"].as_str()?.to_owned()))
        })
        .collect();
    let order: Vec<(&str, &str)> = told.iter().map(|(name, state)| (name.as_str(), state.as_str())).collect();
    assert_eq!(order, [("redis", "up"), ("redis", "ready"), ("worker", "up"), ("nginx", "up")]);
    let page = "import urllib.request as r; print(r.urlopen('http://127.0.0.1/').read().decode())";
    let page = container.exec(&["python3", "-c", page]).ok();
    assert!(page.contains("Welcome to nginx"), "{page}");
    let tree = container.ctl(&["tree", "nginx"]).ok();
    assert!(
        tree.lines().any(|line| line.contains("www-data") && line.contains("nginx: worker process")),
        "{tree}"
    );

    container.exec(&["touch", "/tmp/poison"]).ok();
    let log = becomes("unhealthy");
    assert!(log.contains("unhealthy: worker: "), "{log}");
    container.exec(&["rm", "/tmp/poison"]).ok();
    becomes("healthy");
    container.stop();
    assert_eq!(container.inspect("{{.State.ExitCode}}"), "0", "{}", container.logs());
}

fn events(container: &Container) -> Vec<Value> {
    let lines = container.ctl(&["events", "--json"]).ok();
    lines.lines().map(|line| serde_json::from_str(line).expect("a document a line")).collect()
}
