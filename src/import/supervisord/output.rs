//! The keys about what a program writes: there it has files or the container's streams, here one log.

use super::keys::Keys;
use std::ops::RangeInclusive;

/// Names of the container's stdout: supervisord's own, and PID 1's.
const STDOUT: [&str; 4] = ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "/proc/1/fd/1"];
/// Names of the container's stderr.
const STDERR: [&str; 4] = ["/dev/stderr", "/dev/fd/2", "/proc/self/fd/2", "/proc/1/fd/2"];
/// Bounds of a definition's log, in bytes.
const LOG_SIZES: RangeInclusive<u64> = 4096..=100_000_000_000;

/// What a definition makes of stderr.
const ONE_LOG: &str = "both streams are in one log, the lines of stderr marked with '!'";

impl Keys<'_> {
    pub(super) fn logging(&mut self) {
        let [out, err] = ["stdout_logfile", "stderr_logfile"].map(|key| Place::of(self.take(key)));
        let redirected = self.flag("redirect_stderr") == Some(true);
        self.named_places(&out, &err, redirected);
        // There is one flag for both streams. So a stream that was shown is not hidden because of the other.
        let shown = out.is_container() || (!redirected && err.is_container());
        self.draft.files_only = out.is_elsewhere() && !shown;
        if out.is_elsewhere() && shown {
            self.draft.note("stdout_logfile: its lines go to the container, too, as those of stderr do: there is one setting for both streams");
        }
        if let Some(text) = self.take("stdout_logfile_maxbytes") {
            match bytes(&text) {
                Some(0) if !out.is_file() => {}
                Some(0) => self.draft.note("stdout_logfile_maxbytes = 0: every log is rotated"),
                Some(size) => {
                    let bounded = size.clamp(*LOG_SIZES.start(), *LOG_SIZES.end());
                    self.draft.log_size = Some(bounded);
                    if size != bounded {
                        self.draft.note(format!(
                            "stdout_logfile_maxbytes = {text}: a log file has 4096 bytes to 100GB"
                        ));
                    }
                }
                None => self.draft.note(format!("stdout_logfile_maxbytes = {text}: is not a size")),
            }
        }
        if let Some(keep) = self.integer("stdout_logfile_backups", 0..=10_000)
            && out.is_file()
        {
            self.draft.log_keep = u32::try_from(keep).ok();
        }
        if redirected {
            self.draft.note(
                "redirect_stderr: both streams are in one log anyway, the lines of stderr marked with '!'",
            );
        }
        for key in ["stderr_logfile_maxbytes", "stderr_logfile_backups"] {
            if err.is_file() {
                self.refuse_if_there(key, ONE_LOG);
            } else {
                self.left.remove(key);
            }
        }
    }

    /// Notes about places that a definition cannot name.
    fn named_places(&mut self, out: &Place, err: &Place, redirected: bool) {
        const LOG: &str = "the log is <home>/logs/gateways/NAME/current";
        match out {
            Place::File(place) => self.draft.note(format!("stdout_logfile = {place}: {LOG}")),
            Place::Nowhere(word) => {
                self.draft.note(format!("stdout_logfile = {word}: nothing is thrown away: {LOG}"));
            }
            Place::Syslog => self.draft.note(format!("stdout_logfile = syslog: {LOG}")),
            Place::Container(Stream::Err, place) => {
                self.draft.note(format!("stdout_logfile = {place}: it stays the container's stdout"));
            }
            Place::Console(place) => {
                self.draft.note(format!("stdout_logfile = {place}: its lines go to the container's stdout"));
            }
            Place::Unsaid | Place::Auto | Place::Container(Stream::Out, _) => {}
        }
        if redirected {
            return;
        }
        match err {
            Place::File(place) => self.draft.note(format!("stderr_logfile = {place}: {ONE_LOG}")),
            Place::Nowhere(word) => {
                self.draft.note(format!("stderr_logfile = {word}: nothing is thrown away: {ONE_LOG}"));
            }
            Place::Syslog => self.draft.note(format!("stderr_logfile = syslog: {ONE_LOG}")),
            Place::Auto => self.draft.note(format!("stderr_logfile = AUTO: {ONE_LOG}")),
            Place::Container(Stream::Out, place) => {
                self.draft.note(format!("stderr_logfile = {place}: it stays the container's stderr"));
            }
            Place::Console(place) => {
                self.draft.note(format!("stderr_logfile = {place}: its lines go to the container's stderr"));
            }
            Place::Unsaid | Place::Container(Stream::Err, _) => {}
        }
    }
}

/// Where a stream of a program is written to.
enum Place {
    Unsaid,
    /// A file that supervisord names.
    Auto,
    /// Nothing is kept.
    Nowhere(String),
    Syslog,
    Container(Stream, String),
    /// The container's terminal.
    Console(String),
    File(String),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stream {
    Out,
    Err,
}

impl Place {
    fn of(text: Option<String>) -> Self {
        let Some(text) = text else { return Self::Unsaid };
        match text.to_lowercase().as_str() {
            "auto" => Self::Auto,
            "none" | "off" | "/dev/null" => Self::Nowhere(text),
            "syslog" => Self::Syslog,
            "/dev/console" | "/dev/tty" => Self::Console(text),
            place if STDOUT.contains(&place) => Self::Container(Stream::Out, text),
            place if STDERR.contains(&place) => Self::Container(Stream::Err, text),
            _ => Self::File(text),
        }
    }

    fn is_container(&self) -> bool {
        matches!(self, Self::Container(..) | Self::Console(_))
    }

    /// It is said, and is not the container's output.
    fn is_elsewhere(&self) -> bool {
        !self.is_container() && !matches!(self, Self::Unsaid)
    }

    /// supervisord keeps a file, so what it says about its size counts.
    fn is_file(&self) -> bool {
        matches!(self, Self::Unsaid | Self::Auto | Self::File(_))
    }
}

/// `50MB` is 50 times 2^20 to supervisord.
fn bytes(text: &str) -> Option<u64> {
    let lower = text.to_lowercase();
    let units = [("kb", 1 << 10), ("mb", 1 << 20), ("gb", 1 << 30)];
    let (number, unit) = units
        .iter()
        .find_map(|(suffix, unit)| lower.strip_suffix(suffix).map(|number| (number, *unit)))
        .unwrap_or((&lower, 1));
    number.trim().parse::<u64>().ok()?.checked_mul(unit)
}
