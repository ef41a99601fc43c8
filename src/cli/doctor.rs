//! What `hermes-sup doctor` shows: each rung of containment, whether it works here, and what would make it work.
//! In the Hermes image it also says whether `hermes` reaches the supervisor. The probing is done elsewhere; here are plain rows.

use super::render::{hanging, printable};
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

/// Where we are, as far as that can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Platform {
    Docker,
    Podman,
    Kubernetes,
    Nomad,
    Fly,
    /// A container of what its manager calls so.
    Other(String),
    Host,
}

/// The marks that platforms leave in a container.
#[derive(Debug, Clone, Default)]
pub struct Marks {
    /// `/.dockerenv`.
    pub docker: bool,
    /// `/run/.containerenv`.
    pub podman: bool,
    /// `KUBERNETES_SERVICE_HOST`.
    pub kubernetes: bool,
    /// `NOMAD_ALLOC_ID`.
    pub nomad: bool,
    /// `FLY_APP_NAME`.
    pub fly: bool,
    /// `container`, which systemd-nspawn, lxc and Podman set for the first process.
    pub container: Option<String>,
}

impl Platform {
    /// Who orchestrates comes before who runs: a pod may run in Docker.
    pub fn of(marks: &Marks) -> Self {
        match marks {
            Marks { kubernetes: true, .. } => Self::Kubernetes,
            Marks { nomad: true, .. } => Self::Nomad,
            Marks { fly: true, .. } => Self::Fly,
            Marks { podman: true, .. } => Self::Podman,
            Marks { docker: true, .. } => Self::Docker,
            Marks { container: Some(name), .. } if name == "podman" => Self::Podman,
            Marks { container: Some(name), .. } => Self::Other(name.clone()),
            Marks { container: None, .. } => Self::Host,
        }
    }

    fn as_str(&self) -> &str {
        match self {
            Self::Docker => "Docker",
            Self::Podman => "Podman",
            Self::Kubernetes => "Kubernetes",
            Self::Nomad => "Nomad",
            Self::Fly => "Fly",
            Self::Other(name) => name,
            Self::Host => "a host",
        }
    }

    /// Its own name in the options of a row.
    fn engine(&self) -> Option<&'static str> {
        match self {
            Self::Docker => Some("docker"),
            Self::Podman => Some("podman"),
            Self::Kubernetes => Some("kubernetes"),
            Self::Nomad | Self::Fly | Self::Other(_) | Self::Host => None,
        }
    }
}

/// Where we are, and what would give the best rung there; rows as in [`report`].
pub fn platform(platform: &Platform, rows: &[Row]) -> String {
    let name = printable(platform.as_str());
    // The first that does not work and can be had by an option.
    let better = rows.iter().take_while(|row| !row.available).find(|row| !row.flags.is_empty());
    let Some(row) = better else { return format!("platform: {name}: nothing is to be gained\n") };
    let rung = printable(&row.rung);
    let flag = platform.engine().and_then(|engine| row.flags.iter().find(|(name, _)| *name == engine));
    match (flag, platform) {
        (Some((_, flag)), _) => format!("platform: {name}: for '{rung}': {flag}\n"),
        (None, Platform::Nomad) => format!(
            "platform: {name}: for '{rung}': security_opt = [\"writable-cgroups=true\"] in the config of the task (docker driver)\n"
        ),
        (None, Platform::Host) => {
            format!(
                "platform: {name}: for '{rung}': run it as root, or in a systemd unit with Delegate=yes\n"
            )
        }
        (None, _) => format!("platform: {name}: for '{rung}': see below\n"),
    }
}

/// The report. Rows come highest rung first; `in_force`: the one that a supervisor would take; `columns`: the width of a terminal.
pub fn report(in_force: Option<&str>, rows: &[Row], columns: Option<usize>) -> String {
    let width = rows.iter().map(|row| row.rung.chars().count()).max().unwrap_or(0);
    let mut text = match in_force {
        Some(rung) => format!("containment here: {}\n", printable(rung)),
        None => "containment here: none works, services cannot be run\n".to_owned(),
    };
    for row in rows {
        let verdict = if row.available { "yes" } else { "no" };
        let lead = format!("  {:<width$}  {verdict:<3}  ", printable(&row.rung));
        hanging(&mut text, &lead, &row.why, columns);
        if row.flags.is_empty() {
            continue;
        }
        let _ = writeln!(text, "  {:<width$}       may work with", "");
        for (engine, flag) in row.flags {
            hanging(&mut text, &format!("  {:<width$}         {engine:<10}  ", ""), flag, columns);
        }
    }
    text
}

/// Whether `ksm = true` of `[memory]` has an effect here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ksm {
    Works,
    /// The kernel has it, and whether `ksmd` runs cannot be seen.
    Unseen,
    /// With the reason, and what helps.
    Not(String),
}

/// The same in one line.
pub fn ksm(found: &Ksm) -> String {
    match found {
        Ksm::Works => "ksm: yes: ksmd merges the pages of services with 'ksm = true'\n".to_owned(),
        Ksm::Unseen => "ksm: the kernel has it, and whether ksmd runs cannot be seen here\n".to_owned(),
        Ksm::Not(why) => format!("ksm: no: {}\n", printable(why)),
    }
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
    fn it_is_said_whether_pages_are_merged_and_what_would_make_it_so() {
        assert!(ksm(&Ksm::Works).starts_with("ksm: yes: ksmd merges"));
        assert!(ksm(&Ksm::Unseen).ends_with("cannot be seen here\n"));
        assert_eq!(ksm(&Ksm::Not("so\x1b".to_owned())), "ksm: no: so\\u{1b}\n");
    }

    #[test]
    fn the_platform_is_named_with_the_one_line_that_raises_the_rung_there() {
        let row = |rung: &str, available, flags| Row {
            rung: rung.to_owned(),
            available,
            why: String::new(),
            flags,
        };
        let rows =
            [row("cgroup", false, &[("docker", "--a"), ("kubernetes", "b: c")]), row("keeper", true, &[])];
        let line = |marks: &Marks| platform(&Platform::of(marks), &rows);
        let mut marks = Marks::default();
        assert_eq!(
            line(&marks),
            "platform: a host: for 'cgroup': run it as root, or in a systemd unit with Delegate=yes\n"
        );
        marks.container = Some("lxc\x1b".to_owned());
        assert_eq!(line(&marks), "platform: lxc\\u{1b}: for 'cgroup': see below\n");
        marks.docker = true;
        assert_eq!(line(&marks), "platform: Docker: for 'cgroup': --a\n");
        marks.kubernetes = true;
        assert_eq!(line(&marks), "platform: Kubernetes: for 'cgroup': b: c\n");
        assert_eq!(platform(&Platform::Podman, &rows[1..]), "platform: Podman: nothing is to be gained\n");
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
            report(Some("keeper"), &rows, None),
            concat!(
                "containment here: keeper\n",
                "  cgroup  no   /sys/fs/cgroup is read-only\n",
                "               may work with\n",
                "                 docker      --a\n",
                "                 kubernetes  b: c\n",
                "  keeper  yes  works here\n",
            )
        );
        let narrow = report(Some("keeper"), &rows, Some(30));
        assert!(
            narrow.contains("\n  cgroup  no   /sys/fs/cgroup\n               is read-only\n"),
            "{narrow}"
        );
        assert_eq!(report(None, &[], None), "containment here: none works, services cannot be run\n");
    }
}
