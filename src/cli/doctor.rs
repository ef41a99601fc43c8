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

#[cfg(test)]
mod tests {
    use super::*;

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
