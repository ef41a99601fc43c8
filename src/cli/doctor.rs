//! What `hermes-sup doctor` shows: each rung of containment, whether it works here, and what would make it work.
//! The probing is done elsewhere; here are plain rows.

use super::render::printable;
use std::fmt::Write as _;

/// One rung, as it was found by trying.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub rung: String,
    pub available: bool,
    /// What was seen, in words: why not, or how.
    pub why: String,
    /// The flag of the container engine that would make it available.
    pub flag: Option<String>,
}

/// The report. Rows come highest rung first; the first available one is what a supervisor would take.
pub fn report(rows: &[Row]) -> String {
    let width = rows.iter().map(|row| row.rung.chars().count()).max().unwrap_or(0);
    let chosen = rows.iter().find(|row| row.available);
    let mut text = match chosen {
        Some(row) => format!("containment here: {}\n", printable(&row.rung)),
        None => "containment here: none works, services cannot be run\n".to_owned(),
    };
    for row in rows {
        let verdict = if row.available { "yes" } else { "no" };
        let _ = writeln!(text, "  {:<width$}  {verdict:<3}  {}", printable(&row.rung), printable(&row.why));
        if let Some(flag) = row.flag.as_deref().filter(|_| !row.available) {
            let _ = writeln!(text, "  {:<width$}       would work with {}", "", printable(flag));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(rung: &str, available: bool, why: &str, flag: Option<&str>) -> Row {
        Row { rung: rung.to_owned(), available, why: why.to_owned(), flag: flag.map(str::to_owned) }
    }

    #[test]
    fn the_report_names_the_rung_and_the_flag_that_would_raise_it() {
        let rows = [
            row("cgroup", false, "/sys/fs/cgroup is read-only", Some("--security-opt writable-cgroups")),
            row("keeper", true, "root with CAP_SETUID, CAP_SETGID, CAP_KILL", None),
            row("keeper-same-uid", true, "always", None),
        ];
        assert_eq!(
            report(&rows),
            concat!(
                "containment here: keeper\n",
                "  cgroup           no   /sys/fs/cgroup is read-only\n",
                "                        would work with --security-opt writable-cgroups\n",
                "  keeper           yes  root with CAP_SETUID, CAP_SETGID, CAP_KILL\n",
                "  keeper-same-uid  yes  always\n",
            )
        );
        assert_eq!(report(&[]), "containment here: none works, services cannot be run\n");
    }
}
