//! What `hermes-sup doctor` shows: each rung of containment, whether it works here, and what would make it work.
//! In the Hermes image it also says whether `hermes` reaches the supervisor. The probing is done elsewhere; here are plain rows.

use super::render::printable;
use std::fmt::Write as _;
use std::path::PathBuf;

/// By this name of PID 1 Hermes knows s6, and so us.
const S6: &str = "s6-svscan";

/// One rung, as it was found by trying.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub rung: String,
    pub available: bool,
    /// What was seen, in words: why not, or how.
    pub why: String,
    /// By container engine, the option that would make it available.
    pub flags: &'static [(&'static str, &'static str)],
}

/// The report. Rows come highest rung first; `in_force`: the one that a supervisor would take.
pub fn report(in_force: Option<&str>, rows: &[Row]) -> String {
    let width = rows.iter().map(|row| row.rung.chars().count()).max().unwrap_or(0);
    let mut text = match in_force {
        Some(rung) => format!("containment here: {}\n", printable(rung)),
        None => "containment here: none works, services cannot be run\n".to_owned(),
    };
    for row in rows {
        let verdict = if row.available { "yes" } else { "no" };
        let _ = writeln!(text, "  {:<width$}  {verdict:<3}  {}", printable(&row.rung), printable(&row.why));
        if row.flags.is_empty() {
            continue;
        }
        let _ = writeln!(text, "  {:<width$}       may work with", "");
        for (engine, flag) in row.flags {
            let _ = writeln!(text, "  {:<width$}         {engine:<10}  {flag}", "");
        }
    }
    text
}

/// The Hermes CLI as somebody in the container finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HermesCli {
    /// The name of PID 1.
    pub init: String,
    /// The first `hermes` on PATH.
    pub program: PathBuf,
    /// It is the image's own script, which knows us.
    pub is_shim: bool,
}

/// Whether its commands for gateways reach the supervisor, in one line.
pub fn hermes_cli(found: &HermesCli) -> String {
    let (init, program) = (printable(&found.init), found.program.display().to_string());
    let program = printable(&program);
    if found.init == S6 {
        return format!("hermes: {program} sees the supervisor as s6\n");
    }
    if found.is_shim {
        return format!(
            "hermes: PID 1 is '{init}', so it does not see the supervisor; {program} hands 'gateway start', 'stop', 'restart', \
             'status' and 'list' to it\n"
        );
    }
    format!(
        "hermes: PID 1 is '{init}', so {program} does not see the supervisor and would start or kill gateways itself: put \
         /opt/hermes/bin first on PATH, or use 'hermes-sup ctl'\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Below another init `gateway stop` was not kept, and `gateway restart` ran the gateway in the exec session.
    #[test]
    fn it_is_said_whether_hermes_reaches_the_supervisor() {
        let line = |init: &str, program: &str, is_shim| {
            hermes_cli(&HermesCli { init: init.to_owned(), program: program.into(), is_shim })
        };
        let shim = "/opt/hermes/bin/hermes";
        assert_eq!(
            line("s6-svscan", shim, true),
            "hermes: /opt/hermes/bin/hermes sees the supervisor as s6\n"
        );
        assert!(line("docker-init", shim, true).contains("/opt/hermes/bin/hermes hands 'gateway start'"));
        let other = line("docker-init", "/opt/hermes/.venv/bin/hermes", false);
        assert!(other.contains("put /opt/hermes/bin first on PATH"), "{other}");
    }

    #[test]
    fn the_report_names_the_rung_and_the_flags_that_would_raise_it() {
        let row = |rung: &str, available, why: &str, flags| Row {
            rung: rung.to_owned(),
            available,
            why: why.to_owned(),
            flags,
        };
        let rows = [
            row("cgroup", false, "/sys/fs/cgroup is read-only", &[("docker", "--a"), ("kubernetes", "b: c")]),
            row("keeper", true, "works here", &[]),
        ];
        assert_eq!(
            report(Some("keeper"), &rows),
            concat!(
                "containment here: keeper\n",
                "  cgroup  no   /sys/fs/cgroup is read-only\n",
                "               may work with\n",
                "                 docker      --a\n",
                "                 kubernetes  b: c\n",
                "  keeper  yes  works here\n",
            )
        );
        assert_eq!(report(None, &[]), "containment here: none works, services cannot be run\n");
    }
}
