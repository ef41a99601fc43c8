//! The kernel's own note of the moment at which a hostile tree is killed: its tracepoint `signal:signal_generate`, with the
//! clock of the test service. So no wake-up of ours is part of the figure, and nothing that has to run to see it
//! competes with what is measured.
//!
//! In an instance of its own (Documentation/trace/ftrace.rst): nobody else's tracing is touched.

use crate::record::DAEMON;
use rustix::mount::{MountFlags, UnmountFlags};
use std::io;
use std::path::PathBuf;

/// One name for all runs: what a killed run leaves, the next one takes over.
const INSTANCE: &str = "instances/hermes-sup-bench";

pub struct Trace {
    mount: tempfile::TempDir,
}

impl Trace {
    /// Begins to watch.
    ///
    /// # Errors
    /// When there is no tracefs, or it is locked down.
    pub fn new() -> io::Result<Self> {
        let trace = Self { mount: tempfile::tempdir()? };
        rustix::mount::mount("tracefs", trace.mount.path(), "tracefs", MountFlags::empty(), None)?;
        let instance = trace.path("");
        if !instance.exists() {
            std::fs::create_dir(instance)?;
        }
        // What cannot be ignored: SIGKILL, and the SIGSTOP with which a keeper begins.
        let filter = format!("(sig == 9 || sig == 19) && comm == \"{}\"", DAEMON.to_string_lossy());
        for (file, text) in [
            ("trace_clock", "mono"),
            // The first one counts: what no longer fits is left out.
            ("options/overwrite", "0"),
            ("buffer_size_kb", "16"),
            ("events/signal/signal_generate/filter", &filter),
            ("events/signal/signal_generate/enable", "1"),
        ] {
            trace.write(file, text)?;
        }
        Ok(trace)
    }

    fn path(&self, file: &str) -> PathBuf {
        self.mount.path().join(INSTANCE).join(file)
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        std::fs::write(self.path(file), text)
            .map_err(|error| io::Error::other(format!("tracing: {file}: {error}")))
    }

    /// Forgets what was.
    ///
    /// # Errors
    /// As of std::fs.
    pub fn clear(&self) -> io::Result<()> {
        self.write("trace", "")
    }

    /// The time (ns) of the first signal since then; each processor has a buffer of its own.
    pub fn first_kill(&self) -> Option<u64> {
        let text = std::fs::read_to_string(self.path("trace")).ok()?;
        text.lines().filter_map(time).min()
    }
}

/// `TASK-PID [CPU] FLAGS SECONDS.MICROSECONDS: signal_generate: …`; a task's name may hold anything but this.
fn time(line: &str) -> Option<u64> {
    let (head, _) = line.split_once(": signal_generate: ")?;
    let (seconds, micros) = head.rsplit_once(' ')?.1.split_once('.')?;
    Some(seconds.parse::<u64>().ok()? * 1_000_000_000 + micros.parse::<u64>().ok()? * 1000)
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = self.write("events/signal/signal_generate/enable", "0");
        let _ = std::fs::remove_dir(self.path(""));
        let _ = rustix::mount::unmount(self.mount.path(), UnmountFlags::DETACH);
    }
}
