//! `container-start`, `container-stop`: one image, one service, a different first process each time. From before `docker
//! run` is executed until the service says that it runs, and from before `docker stop` until it has returned.
//!
//! The service is the test service, on a bind mount: what the agent itself needs to start is the same under each.

use super::{Bench, milliseconds};
use crate::clock;
use crate::events::Events;
use crate::record::Kind;
use crate::world::PATIENCE;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

/// Name of the peer, and what the container executes.
const FIRST: [(&str, &[&str]); 4] = [
    ("hermes-sup", &["/bench/hermes-sup", "init"]),
    ("tini", &["/usr/bin/tini", "--", "/bench/service", "unit", "0"]),
    ("dumb-init", &["/usr/bin/dumb-init", "--", "/bench/service", "unit", "0"]),
    ("s6", &["/usr/bin/s6-svscan", "/run/service"]),
];

pub fn run(bench: &mut Bench<'_>) {
    let Some(image) = bench.options.image.clone() else { return };
    for _ in 0..if bench.options.quick { 3 } else { 10 } {
        for (name, words) in FIRST {
            if let Err(error) = visit(bench, &image, name, words) {
                bench.trouble(format!("containers: {name}: {error}"));
            }
        }
    }
}

fn visit(bench: &mut Bench<'_>, image: &str, name: &'static str, words: &[&str]) -> io::Result<()> {
    let dir = tempfile::Builder::new().prefix("hsb").tempdir_in(&bench.options.work)?;
    let mut events = lay_out(bench, dir.path())?;
    let container = format!("hermes-sup-bench-{}", std::process::id());
    let mount = |from: &str, to: &str| format!("{}:{to}", dir.path().join(from).display());
    let (program, rest) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let begun = clock::now();
    docker(
        Command::new("docker")
            .args(["run", "--detach", "--rm", "--name", &container, "--entrypoint", program])
            .args(["--volume", &mount("bench", "/bench"), "--volume", &mount("scan", "/run/service")])
            .args(["--volume", &mount("services", "/etc/hermes-sup/services")])
            .arg(image)
            .args(rest),
    )?;
    let started = events.wait(Kind::Started, PATIENCE);
    let asked = clock::now();
    docker(Command::new("docker").args(["stop", &container]))?;
    let stopped = clock::now();
    let started = started.ok_or_else(|| io::Error::other("the service did not start"))?;
    bench.results.add("container-start", 0, name, milliseconds(started.time.saturating_sub(begun)));
    bench.results.add("container-stop", 0, name, milliseconds(stopped - asked));
    Ok(())
}

fn lay_out(bench: &Bench<'_>, dir: &Path) -> io::Result<Events> {
    for inside in ["bench", "services", "scan/one", "scan/.s6-svscan"] {
        std::fs::create_dir_all(dir.join(inside))?;
    }
    std::fs::copy(&bench.options.service, dir.join("bench/service"))?;
    std::fs::copy(&bench.options.hermes, dir.join("bench/hermes-sup"))?;
    let definition = "command = [\"/bench/service\", \"unit\", \"0\"]\nuser = \"root\"\n";
    std::fs::write(dir.join("services/one.toml"), definition)?;
    std::fs::write(dir.join("scan/one/words"), "unit 0")?;
    symlink("/bench/service", dir.join("scan/one/run"))?;
    symlink("/bin/true", dir.join("scan/.s6-svscan/finish"))?;
    Events::make(&dir.join("bench/events"))
}

fn docker(command: &mut Command) -> io::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(text.lines().last().unwrap_or("docker failed").to_owned()))
}
