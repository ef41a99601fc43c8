//! What `ctl status` shows: the table of all, the card of one.

use super::render::{bytes, duration, field, printable, state};
use crate::control::protocol::{Health, LastExit, Schedule, ServiceStatus, State, SupervisorStatus, Utc};
use crate::core::words::HealthState;
use crate::sys::localtime::Zone;
use std::fmt::Write as _;
use std::time::SystemTime;

const HEADINGS: [&str; 8] = ["NAME", "WANT", "STATE", "PID", "UPTIME", "RESTARTS", "MEMORY", "REASON"];
/// Columns of numbers, flush right.
const NUMBERS: [bool; 8] = [false, false, false, true, true, true, true, false];
const STATE_COLUMN: usize = 2;
/// Columns that a narrow terminal does without, the first to go first: pid, memory, restarts, want.
const SPARE: [usize; 4] = [3, 6, 5, 1];
/// Between two columns.
const GAP: usize = 2;

/// One line about the supervisor, and one for each thing that is not as it should be. Why the containment is no better,
/// `doctor` says.
pub fn header(supervisor: &SupervisorStatus) -> String {
    let mut text = format!(
        "supervisor pid {}, up {}, containment {}",
        supervisor.pid,
        duration(supervisor.uptime_ms),
        printable(&supervisor.containment)
    );
    if supervisor.containment_flag.is_some() {
        text.push_str(" ('hermes-sup doctor' says more)");
    }
    if supervisor.stopping {
        text.push_str(", shutting down");
    }
    text.push('\n');
    for warning in &supervisor.warnings {
        let _ = writeln!(text, "warning: {}", printable(warning));
    }
    text
}

/// The table of services, in the order they came; a line is one service's. Where it is wider than `columns`, it does without
/// some of [`SPARE`]: the card has them.
pub fn table(services: &[ServiceStatus], color: bool, columns: Option<usize>) -> String {
    if services.is_empty() {
        return "no services\n".to_owned();
    }
    let rows: Vec<[String; 8]> = services.iter().map(row).collect();
    let mut widths = HEADINGS.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let shown = shown(&widths, columns);
    let mut text = String::new();
    line(&mut text, &HEADINGS.map(str::to_owned), &widths, shown, None);
    for (cells, service) in rows.iter().zip(services) {
        line(&mut text, cells, &widths, shown, color.then_some(service.state));
    }
    text
}

/// Which columns there is room for.
fn shown(widths: &[usize; 8], columns: Option<usize>) -> [bool; 8] {
    let mut shown = [true; 8];
    for spare in SPARE {
        let kept = widths.iter().zip(shown).filter(|(_, shown)| *shown).map(|(width, _)| width + GAP);
        if columns.is_none_or(|columns| kept.sum::<usize>() <= columns + GAP) {
            break;
        }
        shown[spare] = false;
    }
    shown
}

fn row(service: &ServiceStatus) -> [String; 8] {
    let absent = || "-".to_owned();
    [
        printable(&service.name).into_owned(),
        service.want.as_str().to_owned(),
        service.state.as_str().to_owned(),
        service.pid.map_or_else(absent, |pid| pid.to_string()),
        service.uptime_ms.map_or_else(absent, duration),
        service.restarts.to_string(),
        service.memory_bytes.map_or_else(absent, bytes),
        service.reason.as_deref().map_or_else(absent, |reason| printable(reason).into_owned()),
    ]
}

/// One line of the table; with `colored` the state in its colour.
fn line(
    text: &mut String,
    cells: &[String; 8],
    widths: &[usize; 8],
    shown: [bool; 8],
    colored: Option<State>,
) {
    for (column, (cell, width)) in cells.iter().zip(widths).enumerate().filter(|(column, _)| shown[*column]) {
        if column > 0 {
            text.push_str("  ");
        }
        let _ = match colored {
            Some(word) if column == STATE_COLUMN => write!(text, "{}", state(word, *width, true)),
            _ if column == cells.len() - 1 => write!(text, "{cell}"),
            _ if NUMBERS[column] => write!(text, "{cell:>width$}"),
            _ => write!(text, "{cell:<width$}"),
        };
    }
    text.push('\n');
}

/// Everything about one service; `tail`: the last lines of its log. Times are those of `zone`; `columns`: as [`field`] has it.
pub fn card(
    service: &ServiceStatus,
    tail: &[String],
    color: bool,
    zone: &Zone,
    columns: Option<usize>,
) -> String {
    let mut text = format!("{}: {}", printable(&service.name), state(service.state, 0, color));
    if let Some(uptime) = service.uptime_ms {
        let _ = write!(text, " for {}", duration(uptime));
    }
    let _ = writeln!(text, ", want {}", service.want.as_str());
    let mut show = |label: &str, value: Option<String>| {
        if let Some(value) = value {
            field(&mut text, label, &value, columns);
        }
    };
    show("description", service.description.clone());
    show("reason", service.reason.clone());
    show("main pid", service.pid.map(|pid| pid.to_string()));
    show("health", service.health.as_ref().map(health));
    show("since", service.since.map(|since| local(since, zone)));
    show("last exit", service.last_exit.as_ref().map(|last| last_exit(last, zone)));
    show("restarts", Some(service.restarts.to_string()));
    show("schedule", service.schedule.as_ref().map(|schedule| runs(schedule, zone)));
    show("next attempt", service.next_retry_ms.map(|wait| format!("in {}", duration(wait))));
    show(
        "containment",
        service.containment.as_ref().map(|rung| {
            let sentence = guarantee(rung).map(|sentence| format!(": {sentence}")).unwrap_or_default();
            let weakness = service.containment_weakness.as_ref();
            let weakness = weakness.map(|weakness| format!("; but {weakness}")).unwrap_or_default();
            format!("{rung}{sentence}{weakness}")
        }),
    );
    show("tree", service.procs.map(|count| format!("{count} process{}", if count == 1 { "" } else { "es" })));
    show(
        "memory",
        service.memory_bytes.map(|now| match service.memory_peak_bytes {
            Some(peak) => format!("{}, at most {}", bytes(now), bytes(peak)),
            None => bytes(now),
        }),
    );
    show("cpu", service.cpu_ms.map(duration));
    show(
        "io",
        service.io.map(|io| format!("{} read, {} written", bytes(io.read_bytes), bytes(io.write_bytes))),
    );
    show(
        "limits",
        service.limits.as_ref().filter(|limits| !limits.is_empty()).map(|limits| {
            limits.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
        }),
    );
    for line in &service.limits_not_in_force {
        show("", Some(line.clone()));
    }
    show(
        "pressure",
        service.pressure.map(|pressure| {
            let parts = [("cpu", pressure.cpu), ("memory", pressure.memory), ("io", pressure.io)];
            let known = parts.into_iter().filter_map(|(what, share)| Some(format!("{what} {:.1}%", share?)));
            format!("{} of the last 10 s", known.collect::<Vec<_>>().join(", "))
        }),
    );
    show("definition", service.definition.clone());
    show("log", service.log.as_ref().map(|dir| dir.display().to_string()));
    for line in tail {
        let _ = writeln!(text, "    {}", printable(line));
    }
    text
}

/// What its checks say. Why it is unhealthy is among the reasons.
fn health(health: &Health) -> String {
    let mut words = health.state.as_str().to_owned();
    if let Some(reason) = health.reason.as_ref().filter(|_| health.state != HealthState::Unhealthy) {
        let _ = write!(words, ", {} failed in a row: {reason}", health.failures);
    }
    words
}

/// When it runs, ran, and did not run.
fn runs(schedule: &Schedule, zone: &Zone) -> String {
    let mut words = schedule.when.clone();
    for (what, time) in [("last run", schedule.last_run), ("next run", schedule.next_run)] {
        if let Some(time) = time {
            let _ = write!(words, ", {what} at {}", local(time, zone));
        }
    }
    if schedule.skipped > 0 {
        let _ = write!(words, ", {} skipped", schedule.skipped);
    }
    words
}

/// As the log has it, and how far from UTC that is.
fn local(time: Utc, zone: &Zone) -> String {
    let unix = time.0.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let local = i64::try_from(unix).ok().and_then(|unix| zone.at(unix));
    local.map_or_else(|| time.to_string(), |local| format!("{local} {}", local.east()))
}

fn last_exit(last: &LastExit, zone: &Zone) -> String {
    let mut words = last.exit().to_string();
    if let Some(at) = last.at {
        let _ = write!(words, ", at {}", local(at, zone));
    }
    words
}

/// What a rung promises, in one sentence; none for a rung that this client does not know.
fn guarantee(rung: &str) -> Option<&'static str> {
    Some(match rung {
        "cgroup" => "the kernel keeps the whole tree together and kills it as one",
        "cgroup-private" => {
            "the kernel keeps the whole tree together and kills it as one; no service can reach its cgroup"
        }
        "pidns" => "the tree lives in its own PID namespace and ends with its init",
        "keeper" => "a keeper under another user collects what detaches; a stop sweeps until nothing is left",
        "keeper-same-uid" => {
            "a keeper under the same user collects what detaches; a stop sweeps until nothing is left"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::cut;
    use crate::control::protocol::{Io, Pressure, Want, samples};

    #[test]
    fn the_header_says_what_is_degraded() {
        let mut supervisor = samples::supervisor();
        assert_eq!(
            header(&supervisor),
            "supervisor pid 1, up 2h13m, containment keeper ('hermes-sup doctor' says more)\n"
        );
        assert!(header(&supervisor).len() <= 81, "it fits a line");
        supervisor.containment = "cgroup".to_owned();
        supervisor.containment_flag = None;
        supervisor.stopping = true;
        supervisor.warnings = vec!["the disk is full: \x1bwants are not recorded".to_owned()];
        assert_eq!(
            header(&supervisor),
            "supervisor pid 1, up 2h13m, containment cgroup, shutting down\n\
             warning: the disk is full: \\u{1b}wants are not recorded\n"
        );
    }

    fn waiting() -> ServiceStatus {
        ServiceStatus {
            want: Want::Up,
            state: State::Backoff,
            reason: Some("exited with code 1\nagain".to_owned()),
            restarts: 12,
            next_retry_ms: Some(12_800),
            ..samples::down("a-much-longer-name")
        }
    }

    #[test]
    fn the_table() {
        let services = [samples::service("coder"), samples::down("b"), waiting()];
        assert_eq!(
            table(&services, false, None),
            concat!(
                "NAME                WANT  STATE    PID  UPTIME  RESTARTS  MEMORY  REASON\n",
                "coder               up    up        42    1m5s         2   12.3M  -\n",
                "b                   down  down       -       -         0       -  -\n",
                "a-much-longer-name  up    backoff    -       -        12       -  exited with code 1\\nagain\n",
            )
        );
        assert_eq!(table(&[], true, None), "no services\n");
    }

    /// In 80 columns there was room for ten letters of the reason, which is what people look for.
    #[test]
    fn a_narrow_terminal_keeps_the_reason_and_each_line_is_one_services() {
        let services = [samples::service("coder"), waiting()];
        let table = |columns| cut(&super::table(&services, false, Some(columns)), columns);
        for columns in [80, 40, 10] {
            assert!(table(columns).lines().all(|line| line.chars().count() <= columns), "{}", table(columns));
        }
        assert_eq!(
            table(80),
            concat!(
                "NAME                WANT  STATE    UPTIME  RESTARTS  REASON\n",
                "coder               up    up         1m5s         2  -\n",
                "a-much-longer-name  up    backoff       -        12  exited with code 1\\nagain\n",
            )
        );
        assert!(table(60).starts_with("NAME                STATE    UPTIME  REASON\n"), "{}", table(60));
        assert_eq!(table(200), super::table(&services, false, None));
    }

    #[test]
    fn colours_do_not_move_the_columns() {
        let services = [samples::service("coder"), waiting()];
        let colored = table(&services, true, None);
        assert!(
            colored.contains("\x1b[32mup     \x1b[0m") && colored.contains("\x1b[33mbackoff\x1b[0m"),
            "{colored}"
        );
        let mut plain = colored;
        for code in ["\x1b[32m", "\x1b[33m", "\x1b[0m"] {
            plain = plain.replace(code, "");
        }
        assert_eq!(plain, table(&services, false, None));
    }

    fn berlin() -> Zone {
        Zone::of(Some("CET-1CEST,M3.5.0,M10.5.0/3".as_ref()), None)
    }

    #[test]
    fn the_card_of_a_running_service() {
        let mut service = samples::service("coder");
        service.description = Some("writes code".to_owned());
        let reason = Some("exec probe true: no answer within 5s".to_owned());
        service.health = Some(Health { state: HealthState::Healthy, failures: 2, reason, quarantine: None });
        service.memory_peak_bytes = Some(20 << 20);
        service.io = Some(Io { read_bytes: 1024, write_bytes: 0 });
        service.limits = Some([("memory_max".to_owned(), "512M".to_owned())].into());
        service.limits_not_in_force = vec!["pids_max=5 is not in force: no".to_owned()];
        service.pressure = Some(Pressure { cpu: Some(1.25), memory: None, io: Some(0.0) });
        assert_eq!(
            card(&service, &["2026-01-31 12:00:00.000000001  hello \x07".to_owned()], false, &berlin(), None),
            "coder: up for 1m5s, want up\n\
             \x20 description  writes code\n\
             \x20 main pid     42\n\
             \x20 health       healthy, 2 failed in a row: exec probe true: no answer within 5s\n\
             \x20 since        2023-11-14 23:14:20 +0100\n\
             \x20 last exit    killed by SIGKILL, out of memory at its limit memory_max=48M, at 2023-11-14 23:14:10 +0100\n\
             \x20 restarts     2\n\
             \x20 containment  keeper: a keeper under another user collects what detaches; a stop sweeps until nothing \
             is left\n\
             \x20 tree         5 processes\n\
             \x20 memory       12.3M, at most 20.0M\n\
             \x20 cpu          1m1s\n\
             \x20 io           1.0K read, 0B written\n\
             \x20 limits       memory_max=512M\n\
             \x20              pids_max=5 is not in force: no\n\
             \x20 pressure     cpu 1.2%, io 0.0% of the last 10 s\n\
             \x20 definition   /opt/data/profiles/coder\n\
             \x20 log          /opt/data/logs/gateways/coder\n\
             \x20   2026-01-31 12:00:00.000000001  hello \\u{7}\n"
        );
    }

    #[test]
    fn the_card_of_one_with_a_schedule_says_when_it_ran_and_runs() {
        let at = |unix| Some(Utc(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(unix)));
        let schedule = |last_run, skipped| Schedule {
            when: "*/5 * * * *".to_owned(),
            last_run,
            next_run: at(1_774_746_000),
            skipped,
        };
        assert_eq!(
            runs(&schedule(at(1_774_745_700), 2), &berlin()),
            "*/5 * * * *, last run at 2026-03-29 01:55:00 +0100, next run at 2026-03-29 03:00:00 +0200, 2 skipped"
        );
        assert_eq!(
            runs(&schedule(None, 0), &Zone::utc()),
            "*/5 * * * *, next run at 2026-03-29 01:00:00 +0000"
        );
    }

    #[test]
    fn the_card_of_one_that_waits_leaves_out_what_there_is_not() {
        assert_eq!(
            card(&waiting(), &[], false, &berlin(), None),
            "a-much-longer-name: backoff, want up\n\
             \x20 reason       exited with code 1\\nagain\n\
             \x20 restarts     12\n\
             \x20 next attempt in 12s\n"
        );
    }
}
