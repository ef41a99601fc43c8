//! The status as Prometheus reads it (text format 0.0.4), in the manner of systemd_exporter: seconds and bytes, `_total` for what
//! only grows. A counter begins again with each life of its service, which Prometheus takes for a reset.
//!
//! By hand: `prometheus-client` writes OpenMetrics, where the name of a counter differs from that of its family, and
//! `promtool check metrics` finds fault with that.

use super::verdict;
use crate::control::protocol::{ServiceStatus, State, SupervisorStatus, Utc, Want};
use crate::core::limits::{Key, Value};
use std::fmt::Write as _;
use std::time::SystemTime;

/// The media type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Clone, Copy)]
enum Kind {
    Gauge,
    Counter,
}

/// All of it.
pub fn text(supervisor: &SupervisorStatus, services: &[ServiceStatus]) -> String {
    let mut page = Page { text: String::new(), services };
    page.supervisor(supervisor);
    page.states();
    page.usage();
    page.limits();
    page.text
}

struct Page<'a> {
    text: String,
    services: &'a [ServiceStatus],
}

impl Page<'_> {
    fn supervisor(&mut self, supervisor: &SupervisorStatus) {
        self.head("hermes_sup_info", Kind::Gauge, "The supervisor: its version and how it holds trees.");
        let labels = [("version", supervisor.version.as_str()), ("containment", &supervisor.containment)];
        self.sample("hermes_sup_info", &labels, 1.0);
        let count = self.services.len() as f64;
        let mut one = |name: &str, help: &str, value: f64| {
            self.head(name, Kind::Gauge, help);
            self.sample(name, &[], value);
        };
        one(
            "hermes_sup_start_time_seconds",
            "When the supervisor started, in Unix time.",
            unix(supervisor.since),
        );
        one("hermes_sup_stopping", "1: it is shutting down.", truth(supervisor.stopping));
        one(
            "hermes_sup_warnings",
            "What is degraded just now, as status lists it.",
            supervisor.warnings.len() as f64,
        );
        one("hermes_sup_services", "Services that are defined.", count);
    }

    fn states(&mut self) {
        let name = "hermes_sup_service_state";
        self.head(name, Kind::Gauge, "1 for the state that the service is in, 0 for each other one.");
        for service in self.services {
            for state in State::ALL {
                let labels = [("name", service.name.as_str()), ("state", state.as_str())];
                self.sample(name, &labels, truth(service.state == state));
            }
        }
        self.gauge("wanted", "1: the operator wants it up.", |one| Some(truth(one.want == Want::Up)));
        self.gauge("up", "1: its work is done, by itself or by the gateway that serves it.", |one| {
            Some(truth(one.state.does_its_work()))
        });
        self.gauge("ready", "1: it is up, and where it has a way to say so, ready.", |one| {
            Some(truth(one.state.is_up() && !one.awaits_ready))
        });
        self.gauge(
            "healthy",
            "0: it is wanted, and not as it should be: healthcheck would name it.",
            |one| Some(truth(verdict::fault(one, false).is_none())),
        );
        self.gauge("frozen", "1: all of it stands still by order.", |one| Some(truth(one.frozen)));
        self.gauge("start_time_seconds", "When its main process started, in Unix time.", |one| {
            let (since, ready) = (one.since.filter(|_| one.uptime_ms.is_some())?, one.ready_since);
            Some(unix(ready.map_or(since, |ready| ready.min(since))))
        });
        self.counter("restarts_total", "Restarts after its end, since an operator started it.", |one| {
            Some(one.restarts as f64)
        });
        self.gauge(
            "last_exit_code",
            "Of the main process of its last life; absent if a signal ended it.",
            |one| Some(f64::from(one.last_exit.as_ref()?.code?)),
        );
        self.gauge("last_exit_time_seconds", "When its last life ended, in Unix time.", |one| {
            Some(unix(one.last_exit.as_ref()?.at?))
        });
        self.gauge("next_start_seconds", "Time until the next attempt, in backoff.", |one| {
            Some(seconds(one.next_retry_ms?))
        });
        self.gauge("last_run_time_seconds", "When the last run of a schedule began, in Unix time.", |one| {
            Some(unix(one.schedule.as_ref()?.last_run?))
        });
        self.gauge("next_run_time_seconds", "When the next run of a schedule is due, in Unix time.", |one| {
            Some(unix(one.schedule.as_ref()?.next_run?))
        });
        self.counter(
            "skipped_runs_total",
            "Runs of a schedule that were due and did not take place.",
            |one| Some(one.schedule.as_ref()?.skipped as f64),
        );
    }

    fn usage(&mut self) {
        self.counter("cpu_seconds_total", "Processor time of its processes.", |one| {
            Some(seconds(one.cpu_ms?))
        });
        self.gauge("memory_bytes", "Memory of its processes.", |one| Some(one.memory_bytes? as f64));
        self.gauge("memory_peak_bytes", "The most memory that it had.", |one| {
            Some(one.memory_peak_bytes? as f64)
        });
        self.gauge("tasks", "Its processes.", |one| Some(one.procs? as f64));
        self.counter("io_read_bytes_total", "Read from disks.", |one| Some(one.io?.read_bytes as f64));
        self.counter("io_written_bytes_total", "Written to disks.", |one| Some(one.io?.write_bytes as f64));
        self.counter(
            "oom_kills_total",
            "Of its processes, those that the kernel killed for memory.",
            |one| Some(one.oom_kills? as f64),
        );
        self.counter(
            "log_dropped_lines_total",
            "Lines that are not in its log or not in the container's stream.",
            |one| Some(one.log_dropped as f64),
        );
        let name = "hermes_sup_service_pressure_ratio";
        self.head(name, Kind::Gauge, "Share of the last 10 s in which some of it waited.");
        for service in self.services {
            let Some(pressure) = service.pressure else { continue };
            for (resource, percent) in
                [("cpu", pressure.cpu), ("memory", pressure.memory), ("io", pressure.io)]
            {
                let labels = [("name", service.name.as_str()), ("resource", resource)];
                if let Some(percent) = percent {
                    self.sample(name, &labels, percent / 100.0);
                }
            }
        }
    }

    fn limits(&mut self) {
        self.gauge("memory_limit_bytes", "Its memory_max.", |one| amount(one, Key::MemoryMax));
        self.gauge("tasks_limit", "Its pids_max.", |one| amount(one, Key::PidsMax));
        self.gauge("cpu_limit_cores", "Its cpu_max, in processors.", |one| match limit(one, Key::CpuMax)? {
            Value::Cpu { quota, period } => Some(quota as f64 / period as f64),
            Value::Max | Value::Amount(_) | Value::Oom(_) | Value::Adjustment(_) => None,
        });
        self.gauge("limits_not_in_force", "Limits that were asked for and do not hold.", |one| {
            Some(one.limits_not_in_force.len() as f64)
        });
    }

    /// One figure of each service that has it.
    fn gauge(&mut self, name: &str, help: &str, figure: impl Fn(&ServiceStatus) -> Option<f64>) {
        self.each(name, Kind::Gauge, help, figure);
    }

    fn counter(&mut self, name: &str, help: &str, figure: impl Fn(&ServiceStatus) -> Option<f64>) {
        self.each(name, Kind::Counter, help, figure);
    }

    fn each(&mut self, name: &str, kind: Kind, help: &str, figure: impl Fn(&ServiceStatus) -> Option<f64>) {
        let name = format!("hermes_sup_service_{name}");
        self.head(&name, kind, help);
        for service in self.services {
            if let Some(value) = figure(service) {
                self.sample(&name, &[("name", &service.name)], value);
            }
        }
    }

    fn head(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
        };
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.text.push_str(name);
        for (number, (label, text)) in labels.iter().enumerate() {
            let before = if number == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{before}{label}=\"");
            for c in text.chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    c => self.text.push(c),
                }
            }
            self.text.push('"');
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{end} {value}");
    }
}

fn truth(is: bool) -> f64 {
    if is { 1.0 } else { 0.0 }
}

fn seconds(millis: u64) -> f64 {
    millis as f64 / 1000.0
}

fn unix(at: Utc) -> f64 {
    at.0.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as f64 / 1000.0
}

fn limit(service: &ServiceStatus, key: Key) -> Option<Value> {
    key.parse(service.limits.as_ref()?.get(key.as_str())?).ok()
}

fn amount(service: &ServiceStatus, key: Key) -> Option<f64> {
    match limit(service, key)? {
        Value::Amount(amount) => Some(amount as f64),
        Value::Max | Value::Cpu { .. } | Value::Oom(_) | Value::Adjustment(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::{Io, Schedule, samples};
    use std::collections::BTreeSet;

    fn sample() -> String {
        let mut service = samples::service("coder");
        service.io = Some(Io { read_bytes: 1024, write_bytes: 0 });
        service.limits = Some(
            [("memory_max", "512M"), ("cpu_max", "150%")].map(|(a, b)| (a.to_owned(), b.to_owned())).into(),
        );
        service.schedule = Some(Schedule {
            when: "@daily".to_owned(),
            last_run: None,
            next_run: Some(Utc(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000))),
            skipped: 2,
        });
        let mut odd = samples::down("b");
        odd.name = "a\"b\\c\nd".to_owned();
        text(&samples::supervisor(), &[service, odd])
    }

    #[test]
    fn figures_are_in_base_units_and_what_is_not_known_is_absent() {
        let page = sample();
        for line in [
            "hermes_sup_info{version=\"0.1.0\",containment=\"keeper\"} 1",
            "hermes_sup_start_time_seconds 1700000000",
            "hermes_sup_service_state{name=\"coder\",state=\"up\"} 1",
            "hermes_sup_service_state{name=\"coder\",state=\"failed\"} 0",
            "hermes_sup_service_restarts_total{name=\"coder\"} 2",
            "hermes_sup_service_cpu_seconds_total{name=\"coder\"} 61.5",
            "hermes_sup_service_memory_bytes{name=\"coder\"} 12900000",
            "hermes_sup_service_memory_limit_bytes{name=\"coder\"} 536870912",
            "hermes_sup_service_cpu_limit_cores{name=\"coder\"} 1.5",
            "hermes_sup_service_next_run_time_seconds{name=\"coder\"} 1700000000",
            "hermes_sup_service_skipped_runs_total{name=\"coder\"} 2",
            "hermes_sup_service_io_read_bytes_total{name=\"coder\"} 1024",
            "hermes_sup_service_healthy{name=\"a\\\"b\\\\c\\nd\"} 1",
        ] {
            assert!(page.lines().any(|found| found == line), "{line}:\n{page}");
        }
        assert!(!page.contains("memory_bytes{name=\"a"), "{page}");
        assert!(!page.contains("last_run_time_seconds{"), "{page}");
    }

    #[test]
    fn every_family_has_one_head_and_its_samples_below_it() {
        let page = sample();
        let mut seen = BTreeSet::new();
        let mut family = "";
        for line in page.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                family = help.split(' ').next().unwrap();
                assert!(seen.insert(family), "{family} twice");
            } else {
                let head = line.strip_prefix("# TYPE ");
                let name = head.unwrap_or(line).split(['{', ' ']).next().unwrap();
                assert_eq!(name, family);
                if let Some(head) = head {
                    assert_eq!(head.ends_with(" counter"), name.ends_with("_total"), "{head}");
                }
            }
        }
    }

    /// A panel or a rule on a figure that there is not shows nothing, for ever.
    #[test]
    fn the_dashboard_and_the_rules_ask_for_figures_that_there_are() {
        let page = sample();
        let known: BTreeSet<&str> =
            page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        let dashboard = include_str!("../../docker/metrics/dashboard.json");
        let rules = include_str!("../../docker/metrics/alerts.yml");
        for (file, text) in [("dashboard", dashboard), ("rules", rules)] {
            let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let asked: BTreeSet<&str> = words.filter(|word| word.starts_with("hermes_sup_")).collect();
            assert!(asked.len() >= 8, "{file}: {asked:?}");
            for name in asked {
                assert!(known.contains(name), "{file}: there is no {name}");
            }
        }
        let dashboard: serde_json::Value = serde_json::from_str(dashboard).unwrap();
        assert!(dashboard["panels"].as_array().is_some_and(|panels| panels.len() >= 8));
        assert_eq!(rules.matches("- alert: ").count(), 8);
    }
}
