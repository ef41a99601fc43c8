//! `<home>/logs/container-boot.log`: one line a profile at each boot, for people and for tools that wait for
//! `profile=default` in it.

use crate::core::gateway::Elsewhere;
use crate::core::name::ServiceName;
use crate::core::words::Want;
use crate::sys::beneath::Beneath;
use crate::sys::credentials::Credentials;
use rustix::fs::OFlags;
use std::io::{self, Write};
use std::path::Path;

const FILE: &str = "container-boot.log";
const OLD: &str = "container-boot.log.1";
/// A file of this size, in bytes, is renamed before it is appended to.
const ROTATE_AT: u64 = 262_144;

/// What was done about a profile at boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Started,
    /// Known, and down.
    Registered,
    /// Another gateway serves it.
    Served,
    /// Its owner wants no gateway to serve it.
    Parked,
}

impl Action {
    /// What became of a gateway that is wanted so, and whose work may be done elsewhere.
    pub fn of(elsewhere: Option<&Elsewhere>, want: Want) -> Self {
        match (elsewhere, want) {
            (Some(Elsewhere::Served { .. }), _) => Self::Served,
            (Some(Elsewhere::Parked), _) => Self::Parked,
            (None, Want::Up) => Self::Started,
            (None, Want::Down) => Self::Registered,
        }
    }
}

/// How the last life of a gateway ended, by its own account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PriorExit {
    /// It said goodbye.
    Clean,
    /// It was still running: a kill, or the end of the machine.
    Unclean,
    #[default]
    Unknown,
}

/// The line about one profile, without the newline: for stdout after `reconcile: `, for the file after the time.
/// `prior_state` is what [`super::state_json`] read; it is somebody else's text and may not end or begin lines here.
pub fn line(profile: &ServiceName, prior_state: Option<&str>, action: Action) -> String {
    let state: String = prior_state
        .unwrap_or("None")
        .chars()
        .take(64)
        .map(|c| if c.is_control() || c.is_whitespace() { '?' } else { c })
        .collect();
    let action = match action {
        Action::Started => "started",
        Action::Registered => "registered",
        Action::Served => "served",
        Action::Parked => "parked",
    };
    format!("profile={} prior_state={state} action={action}", profile.profile())
}

/// Instead of lines about profiles, in a container whose command is the dashboard.
pub const DASHBOARD_CONTAINER: &str = "skipping (dashboard container — does not need per-profile gateways)";

/// What stdout shows of a [`line`], with the newline.
pub fn stdout_line(line: &str) -> String {
    format!("reconcile: {line}\n")
}

/// What the file has more than stdout, at the end of a [`line`].
pub fn file_line(line: &str, exit: PriorExit) -> String {
    let exit = match exit {
        PriorExit::Clean => "clean",
        PriorExit::Unclean => "unclean",
        PriorExit::Unknown => "unknown",
    };
    format!("{line} prior_exit={exit}")
}

/// Appends the lines, each after `time` (local, as `%Y-%m-%dT%H:%M:%S%z`), with the gateway user's credentials.
///
/// # Errors
/// As mkdirat(2), openat(2), renameat(2), write(2).
pub fn append(home: &Beneath, user: &Credentials, time: &str, lines: &[String]) -> io::Result<()> {
    let text: String = lines.iter().map(|line| format!("{time} {line}\n")).collect();
    user.on_files(|| {
        let logs = home.create_dirs(Path::new("logs"), 0o755)?;
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE;
        let mut file = logs.open_file(Path::new(FILE), flags, 0o644)?;
        if file.metadata()?.len() >= ROTATE_AT {
            logs.rename(Path::new(FILE), Path::new(OLD))?;
            file = logs.open_file(Path::new(FILE), flags, 0o644)?;
        }
        file.write_all(text.as_bytes())
    })?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coder() -> ServiceName {
        ServiceName::new("coder").unwrap()
    }

    /// Contract: 54, 55.
    #[test]
    fn lines_are_those_that_tools_wait_for() {
        let line = line(&coder(), Some("running"), Action::Started);
        assert_eq!(stdout_line(&line), "reconcile: profile=coder prior_state=running action=started\n");
        assert_eq!(
            file_line(&line, PriorExit::Unclean),
            "profile=coder prior_state=running action=started prior_exit=unclean"
        );
        let unknown = super::line(&coder(), None, Action::Registered);
        assert_eq!(unknown, "profile=coder prior_state=None action=registered");
        let hostile = super::line(&coder(), Some("x\nprofile=default \u{1b}[2J"), Action::Registered);
        assert_eq!(hostile, "profile=coder prior_state=x?profile=default??[2J action=registered");
        assert!(super::line(&coder(), Some(&"x".repeat(10_000)), Action::Started).len() < 200);
    }

    /// Contract: 55.
    #[test]
    fn the_file_is_appended_to_and_set_aside_when_it_is_large() {
        let home = tempfile::tempdir().unwrap();
        let (beneath, own) = (Beneath::open(home.path()).unwrap(), Credentials::own());
        let time = "2026-11-21T05:34:00+0000";
        let lines = [line(&coder(), None, Action::Started), "second".to_owned()];
        append(&beneath, &own, time, &lines).unwrap();
        append(&beneath, &own, time, &lines[1..]).unwrap();
        let log = home.path().join("logs").join(FILE);
        let expected =
            format!("{time} profile=coder prior_state=None action=started\n{time} second\n{time} second\n");
        assert_eq!(std::fs::read_to_string(&log).unwrap(), expected);
        std::fs::write(&log, vec![b'x'; ROTATE_AT as usize - 1]).unwrap();
        append(&beneath, &own, time, &lines[1..]).unwrap();
        assert!(!home.path().join("logs").join(OLD).exists());
        append(&beneath, &own, time, &lines[1..]).unwrap();
        assert_eq!(std::fs::read_to_string(&log).unwrap(), format!("{time} second\n"));
        assert!(std::fs::metadata(home.path().join("logs").join(OLD)).unwrap().len() >= ROTATE_AT);
    }

    #[test]
    fn a_planted_link_does_not_make_us_write_elsewhere() {
        let home = tempfile::tempdir().unwrap();
        let outside = tempfile::NamedTempFile::new().unwrap();
        std::fs::create_dir(home.path().join("logs")).unwrap();
        std::os::unix::fs::symlink(outside.path(), home.path().join("logs").join(FILE)).unwrap();
        let home = Beneath::open(home.path()).unwrap();
        assert!(append(&home, &Credentials::own(), "now", &["line".to_owned()]).is_err());
        assert_eq!(std::fs::read(outside.path()).unwrap(), b"");
    }
}
