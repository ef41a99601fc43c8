//! Commands started in a world through `adversary world` and `adversary enter`, which report from outside.

use super::wait::{self, PATIENCE};
use rustix::process::{Pid, Signal, kill_process};
use std::io::Read;
use std::os::fd::AsFd;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Code(i32),
    Signal(i32),
}

/// A running command and the process outside that watches it.
pub struct Launched {
    outer: Child,
    reports: ChildStdout,
    unread: String,
    /// As seen outside.
    pub pid: i32,
    end: Option<End>,
}

impl Launched {
    /// Starts `adversary ARGS…` and returns when the command it leads to is about to be executed.
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut outer = command.spawn().expect("the adversary program");
        let reports = outer.stdout.take().expect("its stdout");
        let mut launched = Self { outer, reports, unread: String::new(), pid: 0, end: None };
        let line = launched.report(PATIENCE).unwrap_or_default();
        launched.pid = line
            .strip_prefix("pid ")
            .and_then(|number| number.parse().ok())
            .unwrap_or_else(|| panic!("sandbox: {line}"));
        launched
    }

    /// Returns when the command's own image runs (or it has ended before that).
    pub fn wait_exec(&mut self) {
        let line = self.report(PATIENCE);
        assert_eq!(line.as_deref(), Some("exec"));
    }

    pub fn signal(&self, signal: Signal) {
        assert!(self.end.is_none(), "it has ended");
        kill_process(Pid::from_raw(self.pid).expect("a pid"), signal).expect("a signal");
    }

    /// Waits for the end. `None` at the deadline.
    pub fn wait_within(&mut self, patience: Duration) -> Option<End> {
        let deadline = Instant::now() + patience;
        while self.end.is_none() {
            let line = self.report(deadline.saturating_duration_since(Instant::now()))?;
            self.end = match line.split_once(' ') {
                Some(("exit", code)) => code.parse().ok().map(End::Code),
                Some(("signal", signal)) => signal.parse().ok().map(End::Signal),
                _ => None,
            };
        }
        let _ = self.outer.wait();
        self.end
    }

    pub fn wait(&mut self) -> End {
        self.wait_within(PATIENCE).expect("the command's end")
    }

    pub fn running(&mut self) -> bool {
        self.wait_within(Duration::ZERO).is_none()
    }

    fn report(&mut self, patience: Duration) -> Option<String> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some((line, rest)) = self.unread.split_once('\n') {
                let line = line.to_owned();
                self.unread = rest.to_owned();
                return Some(line);
            }
            if !wait::readable(self.reports.as_fd(), deadline.saturating_duration_since(Instant::now())) {
                return None;
            }
            let mut buffer = [0; 256];
            let count = self.reports.read(&mut buffer).expect("a report");
            if count == 0 {
                // The sandbox itself has ended: with an error, or killed with its test.
                return None;
            }
            self.unread.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        if self.end.is_none() {
            if let Some(pid) = Pid::from_raw(self.pid) {
                let _ = kill_process(pid, Signal::KILL);
            }
            if self.wait_within(PATIENCE).is_none() {
                let _ = self.outer.kill();
                let _ = self.outer.wait();
            }
        }
    }
}
