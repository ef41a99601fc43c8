//! Documents for the tests of this room and of the command line.

use super::*;
use crate::core::exit::{Exit, Shortage};
use std::time::{Duration, SystemTime};

pub(crate) fn at(seconds: u64) -> Utc {
    Utc(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds))
}

pub(crate) fn event(service: &str) -> Event {
    let by = Asker { uid: 0, user: Some("root".to_owned()), pid: Some(7) };
    let event = Event::warning(EventKind::Oom, "out of memory").about(service).by(by);
    Event { time: at(5), ..event }
}

pub(crate) fn scope() -> ScopeStatus {
    ScopeStatus {
        unit: "hermes-worker-1.scope".to_owned(),
        service: "coder".to_owned(),
        stopping: false,
        control_group: Some("/hermes-sup.x/coder.3/scope-hermes-worker-1".to_owned()),
        procs: 2,
        memory_bytes: Some(4096),
        memory_max: Some(1 << 30),
        swap_max: None,
        not_in_force: vec!["MemorySwapMax is not in force".to_owned()],
        adopt_orphans: false,
    }
}

/// A shell with two children, one of them in a scope.
pub(crate) fn tree() -> Tree {
    let process = |pid, parent, command: &str| Process {
        pid,
        parent,
        user: "hermes".to_owned(),
        state: "S".to_owned(),
        memory_bytes: 1 << 20,
        command: command.to_owned(),
        scope: None,
    };
    let worker =
        Process { scope: Some("hermes-worker-1.scope".to_owned()), ..process(44, Some(42), "sleep 1") };
    let processes = vec![process(42, None, "sh -c x"), process(43, Some(42), "cat"), worker];
    Tree { name: "coder".to_owned(), processes, left_out: 0 }
}

pub(crate) fn audit(name: &str) -> Audit {
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    Audit {
        name: name.to_owned(),
        state: State::Up,
        user: Some("hermes".to_owned()),
        uid: Some(10000),
        gid: Some(10000),
        groups: vec![10000, 44],
        privileges: Some(Privileges {
            capabilities: Vec::new(),
            bounding: names(&["CAP_CHOWN", "CAP_KILL"]),
            no_new_privs: false,
            seccomp: true,
        }),
        containment: Some("cgroup".to_owned()),
        containment_weakness: Some("weak".to_owned()),
        limits: [("memory_max".to_owned(), "512M".to_owned())].into(),
        limits_not_in_force: names(&["pids_max=5 is not in force: no"]),
        tighter: names(&["one", "two"]),
    }
}

pub(crate) fn supervisor() -> SupervisorStatus {
    SupervisorStatus {
        pid: 1,
        version: "0.1.0".to_owned(),
        since: at(0),
        uptime_ms: 7_980_000,
        containment: "keeper".to_owned(),
        containment_reason: Some("/sys/fs/cgroup is read-only".to_owned()),
        containment_flag: Some("--security-opt writable-cgroups".to_owned()),
        state_dir: "/opt/data/supervisor".into(),
        stopping: false,
        warnings: Vec::new(),
    }
}

pub(crate) fn service(name: &str) -> ServiceStatus {
    ServiceStatus {
        name: name.to_owned(),
        description: None,
        kind: Kind::Gateway,
        want: Want::Up,
        state: State::Up,
        frozen: false,
        awaits_ready: false,
        served_by: None,
        reason: None,
        pid: Some(42),
        since: Some(at(60)),
        ready_since: None,
        health: None,
        uptime_ms: Some(65_000),
        restarts: 2,
        next_retry_ms: None,
        last_exit: Some(LastExit::new(Exit::Oom(Shortage::MemoryMax(48 << 20)), Some(at(50)))),
        containment: Some("keeper".to_owned()),
        containment_weakness: None,
        procs: Some(5),
        memory_bytes: Some(12_900_000),
        memory_peak_bytes: None,
        cpu_ms: Some(61_500),
        oom_kills: None,
        memory_high_at: None,
        io: None,
        pressure: None,
        log: Some("/opt/data/logs/gateways/coder".into()),
        limits: None,
        limits_not_in_force: Vec::new(),
        definition: Some("/opt/data/profiles/coder".to_owned()),
        log_dropped: 0,
        starts_after: Vec::new(),
        first_start: None,
        schedule: None,
    }
}

pub(crate) fn down(name: &str) -> ServiceStatus {
    ServiceStatus::down(name)
}
