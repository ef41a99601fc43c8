//! The planned-stop marker: written into a gateway's home before its stop signal, it makes the gateway take the signal
//! for a wish (exit 0, state `stopped`) rather than for an accident (exit 1).

use crate::sys::beneath::Beneath;
use crate::sys::credentials::Credentials;
use std::io;
use std::path::Path;
use std::time::SystemTime;

const FILE: &str = ".gateway-planned-stop.json";

/// Whose stop is planned. The gateway ignores a marker that is not about itself or is older than 60 s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedStop {
    /// The gateway's own process.
    pub pid: u32,
    /// Field 22 of /proc/PID/stat (proc_pid_stat(5)), in clock ticks since boot.
    pub start_time: u64,
    pub stopper_pid: u32,
    pub written_at: SystemTime,
}

impl PlannedStop {
    /// Puts the marker into the profile's `directory` (relative to home).
    ///
    /// # Errors
    /// As openat(2), write(2), renameat(2).
    pub fn write(&self, home: &Beneath, user: &Credentials, directory: &Path) -> io::Result<()> {
        user.on_files(|| home.replace(&directory.join(FILE), &self.to_json(), 0o600))?
    }

    fn to_json(self) -> Vec<u8> {
        // Python's fromisoformat reads an offset in every version, a `Z` only since 3.11.
        let written_at = humantime::format_rfc3339_micros(self.written_at).to_string().replace('Z', "+00:00");
        let marker = serde_json::json!({
            "target_pid": self.pid,
            "target_start_time": self.start_time,
            "stopper_pid": self.stopper_pid,
            "written_at": written_at,
        });
        marker.to_string().into_bytes()
    }
}

/// When the process started, as [`PlannedStop::start_time`] has it. `None` when there is no such process, or none that
/// we may see.
pub fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    field_22(&stat)
}

/// The second field is the program's name in parentheses, and may hold anything.
fn field_22(stat: &[u8]) -> Option<u64> {
    let name_ends = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(name_ends + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_start_time_is_found_behind_a_hostile_name() {
        let numbers: Vec<String> = (4..60).map(|number| number.to_string()).collect();
        let stat = format!("7 (a) R 1 (b)) S {}", numbers.join(" "));
        assert_eq!(field_22(stat.as_bytes()), Some(22));
        assert_eq!(field_22(b"7 (a) S 1"), None);
        assert_eq!(field_22(b""), None);
        assert!(start_time(std::process::id()).is_some_and(|ticks| ticks > 0));
        assert_eq!(start_time(u32::MAX), None);
    }

    /// Contract: 104.
    #[test]
    fn the_marker_is_the_one_that_gateways_read() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join("profiles/coder")).unwrap();
        let written_at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_250);
        let stop = PlannedStop { pid: 42, start_time: 9_876_543, stopper_pid: 1, written_at };
        let beneath = Beneath::open(home.path()).unwrap();
        stop.write(&beneath, &Credentials::own(), Path::new("profiles/coder")).unwrap();
        let text =
            std::fs::read_to_string(home.path().join("profiles/coder/.gateway-planned-stop.json")).unwrap();
        assert_eq!(
            text,
            r#"{"stopper_pid":1,"target_pid":42,"target_start_time":9876543,"written_at":"2023-11-14T22:13:20.250000+00:00"}"#
        );
    }
}
