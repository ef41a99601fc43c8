//! `container-start`, `container-stop`, `gateway-start`, `gateway-stop`: one image, a different first process each time. From
//! before `docker run` is executed until what it supervises says that it runs, and from before `docker stop` until that
//! has returned.
//!
//! `container-*` with the test service, which needs no time of its own; `gateway-*` with the Hermes gateway, on a volume that
//! it has run on before. All prepare the volume as the image does; who has no scripts for that gets a shell in front.

use super::{Bench, fleet, milliseconds};
use crate::clock;
use crate::events::Events;
use crate::record::Kind;
use crate::results::FLOOR;
use crate::world::{PATIENCE, cgroup_mount};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// How a container is started: who is first in it, flags for `docker run`, and the words after the image.
struct Way {
    name: &'static str,
    flags: &'static [&'static str],
    words: &'static [&'static str],
    /// Flags for `docker stop`.
    stop: &'static [&'static str],
}

const SERVICES: [Way; 5] = [
    // A first process is deaf to SIGTERM if it does not handle it: there is nothing to wait for.
    Way {
        name: FLOOR,
        flags: &["--entrypoint=/bench/service"],
        words: &["unit", "0"],
        stop: &["--time", "0"],
    },
    Way {
        name: "hermes-sup",
        flags: &["--entrypoint=/bench/hermes-sup", "--env=HERMES_SUP_S6_SURFACE=0"],
        words: &["init"],
        stop: &[],
    },
    Way { name: "s6", flags: &["--entrypoint=/usr/bin/s6-svscan"], words: &["/scan"], stop: &[] },
    Way {
        name: "tini",
        flags: &["--entrypoint=/usr/bin/tini"],
        words: &["--", "/bench/service", "unit", "0"],
        stop: &[],
    },
    Way {
        name: "dumb-init",
        flags: &["--entrypoint=/usr/bin/dumb-init"],
        words: &["--", "/bench/service", "unit", "0"],
        stop: &[],
    },
];

const GATEWAYS: [Way; 4] = [
    Way { name: "hermes-sup", flags: &[], words: &["gateway", "run"], stop: &[] },
    Way {
        name: "s6",
        flags: &["--entrypoint=/bin/sh"],
        words: &["-c", "/opt/hermes/docker/stage2-hook.sh && exec /usr/bin/s6-svscan /scan"],
        stop: &[],
    },
    Way {
        name: "tini",
        flags: &["--entrypoint=/usr/bin/tini"],
        words: &["--", "/bin/sh", "-c", GATEWAY],
        stop: &[],
    },
    Way {
        name: "dumb-init",
        flags: &["--entrypoint=/usr/bin/dumb-init"],
        words: &["--", "/bin/sh", "-c", GATEWAY],
        stop: &[],
    },
];

const GATEWAY: &str =
    "/opt/hermes/docker/stage2-hook.sh && exec /opt/hermes/docker/main-wrapper.sh gateway run";

/// s6's `run`. Without the variable Hermes would ask the s6 that it sees for a service of another layout.
const RUN: &str = "#!/bin/sh
export HERMES_S6_SUPERVISED_CHILD=1
exec /opt/hermes/docker/main-wrapper.sh gateway run
";

/// What the gateway executes for its user once it runs: a record as the test service writes it.
const HOOK: &str = "import os, struct, time

async def handle(event, context):
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    fd = os.open('/bench/events', os.O_WRONLY)
    os.write(fd, struct.pack('=IIiiQQ', 2, 0, os.getpid(), 0, now, 0))
    os.close(fd)
";

/// The user hermes of the image.
const HERMES: u32 = 10_000;

pub fn run(bench: &mut Bench<'_>) {
    let Some(image) = bench.options.image.clone() else { return };
    if ["container-start", "container-stop"].iter().any(|row| bench.options.wants_row(row)) {
        let rounds = if bench.options.quick { 3 } else { 10 };
        rows(bench, &image, ["container-start", "container-stop"], &SERVICES, rounds, true, |_| Ok(()));
    }
    if ["gateway-start", "gateway-stop"].iter().any(|row| bench.options.wants_row(row)) {
        let rounds = if bench.options.quick { 2 } else { 7 };
        rows(bench, &image, ["gateway-start", "gateway-stop"], &GATEWAYS, rounds, false, gateway);
    }
}

/// Each way gets a place of its own, in which `prepare` puts what is special, and one start that does not count: what is
/// done once for a volume is no part of the figure. `rests`: it is stopped once its first process has come to rest; a gateway
/// never does.
fn rows(
    bench: &mut Bench<'_>,
    image: &str,
    rows: [&'static str; 2],
    ways: &'static [Way],
    rounds: usize,
    rests: bool,
    prepare: fn(&Path) -> io::Result<()>,
) {
    let mut places = Vec::new();
    for way in ways {
        let place = tempfile::Builder::new().prefix("hsb").tempdir_in(&bench.options.work).and_then(|dir| {
            let events = lay_out(bench, dir.path())?;
            prepare(dir.path())?;
            Ok((dir, events))
        });
        match place {
            Ok((dir, events)) => places.push((way, dir, events)),
            Err(error) => bench.trouble(format!("{}: {}: {error}", rows[0], way.name)),
        }
    }
    for round in 0..=rounds {
        crate::say(&format!("  {}, round {round} of {rounds}", rows[0]));
        fastrand::shuffle(&mut places);
        places.retain_mut(|(way, dir, events)| match visit(image, way, dir.path(), events, rests) {
            Ok(_) if round == 0 => true,
            Ok([up, down]) => {
                bench.results.add(rows[0], 0, way.name, up);
                bench.results.add(rows[1], 0, way.name, down);
                true
            }
            Err(error) => {
                bench.trouble(format!("{}: {}: {error}", rows[0], way.name));
                false
            }
        });
    }
}

/// The two durations in ms.
fn visit(image: &str, way: &Way, dir: &Path, events: &mut Events, rests: bool) -> io::Result<[f64; 2]> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let container =
        format!("hermes-sup-bench-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let mount = |from: &str, to: &str| format!("--volume={}:{to}", dir.join(from).display());
    let begun = clock::now();
    let run = docker(
        Command::new("docker")
            .args(["run", "--detach", "--network=none", "--name", &container])
            // The gateway would hold back its own start when there were some before: hermes-sup tells it not to, itself.
            .arg("--env=HERMES_GATEWAY_MAX_STARTS=0")
            .args([mount("bench", "/bench"), mount("data", "/opt/data")])
            .args([mount("services", "/etc/hermes-sup/services"), mount("scan", "/scan")])
            .args(way.flags)
            .arg(image)
            .args(way.words),
    );
    let started = run.and_then(|()| {
        let started = events.wait(Kind::Started, PATIENCE);
        started.ok_or_else(|| io::Error::other(format!("nothing runs: {}", said(&container))))
    });
    let rested = if rests && started.is_ok() {
        cgroup(&container).map(|cgroup| fleet::settle(&cgroup))
    } else {
        Ok(())
    };
    let asked = clock::now();
    let stopped = docker(Command::new("docker").arg("stop").args(way.stop).arg(&container));
    let end = clock::now();
    docker(Command::new("docker").args(["rm", "--force", "--volumes", &container]))?;
    rested.and(stopped)?;
    Ok([milliseconds(started?.time.saturating_sub(begun)), milliseconds(end - asked)])
}

/// A container's cgroup, wherever the engine has made it. The engine may count processes in a PID namespace of its own.
pub(super) fn cgroup(container: &str) -> io::Result<PathBuf> {
    fn below(dir: &Path, id: &str) -> Option<PathBuf> {
        let entries = std::fs::read_dir(dir).ok()?.flatten();
        let mut dirs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        dirs.find_map(|entry| {
            let is_its = entry.file_name().to_string_lossy().contains(id);
            if is_its { Some(entry.path()) } else { below(&entry.path(), id) }
        })
    }
    let answer = Command::new("docker").args(["inspect", "--format={{.Id}}", container]).output()?;
    let id = String::from_utf8_lossy(&answer.stdout);
    let found = if id.trim().is_empty() { None } else { below(&cgroup_mount()?, id.trim()) };
    found.ok_or_else(|| io::Error::other("the container has no cgroup"))
}

/// What all ways find in their place, for the test service.
fn lay_out(bench: &Bench<'_>, dir: &Path) -> io::Result<Events> {
    for inside in ["bench", "data", "services", "scan/one", "scan/.s6-svscan"] {
        std::fs::create_dir_all(dir.join(inside))?;
    }
    chown(dir.join("data"), Some(HERMES), Some(HERMES))?;
    std::fs::copy(&bench.options.service, dir.join("bench/service"))?;
    std::fs::copy(&bench.options.hermes, dir.join("bench/hermes-sup"))?;
    let definition = "command = [\"/bench/service\", \"unit\", \"0\"]\nuser = \"root\"\n";
    std::fs::write(dir.join("services/one.toml"), definition)?;
    std::fs::write(dir.join("scan/one/words"), "unit 0")?;
    symlink("/bench/service", dir.join("scan/one/run"))?;
    symlink("/bin/true", dir.join("scan/.s6-svscan/finish"))?;
    Events::make(&dir.join("bench/events"))
}

/// The gateway instead of it: its hook, and nothing that ours would find as a service.
fn gateway(dir: &Path) -> io::Result<()> {
    let mode = std::fs::Permissions::from_mode;
    std::fs::remove_file(dir.join("services/one.toml"))?;
    std::fs::remove_dir_all(dir.join("scan/one"))?;
    std::fs::create_dir(dir.join("scan/gateway"))?;
    std::fs::write(dir.join("scan/gateway/run"), RUN)?;
    std::fs::set_permissions(dir.join("scan/gateway/run"), mode(0o755))?;
    std::fs::set_permissions(dir.join("bench/events"), mode(0o666))?;
    let hook = dir.join("data/hooks/bench");
    std::fs::create_dir_all(&hook)?;
    std::fs::write(hook.join("HOOK.yaml"), "name: bench\nevents: [\"gateway:startup\"]\n")?;
    std::fs::write(hook.join("handler.py"), HOOK)?;
    for inside in ["", "bench", "bench/HOOK.yaml", "bench/handler.py"] {
        chown(dir.join("data/hooks").join(inside), Some(HERMES), Some(HERMES))?;
    }
    Ok(())
}

pub(super) fn docker(command: &mut Command) -> io::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    // The last one only points to its help.
    let said = text.lines().rfind(|line| !line.is_empty() && !line.starts_with("Run 'docker"));
    Err(io::Error::other(said.unwrap_or("docker failed").to_owned()))
}

/// The last words of a container.
pub(super) fn said(container: &str) -> String {
    let output = Command::new("docker").args(["logs", "--tail", "5", container]).output();
    let text = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
    String::from_utf8_lossy(&text).replace('\n', " | ")
}
