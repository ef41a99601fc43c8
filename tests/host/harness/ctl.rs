//! `hermes-sup ctl`, run as a person would run it, and what it answered; and the same question without a program for it.

use super::wait::{self, PATIENCE};
use hermes_sup::control::client::{Client, ClientError, Search};
use hermes_sup::control::protocol::{Part, Request};
use serde_json::Value;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What the supervisor at `socket` answers, through the client of `ctl`: for what is looked at again and again, a program for each
/// look would be most of the work.
///
/// # Errors
/// As [`Client::call`].
pub fn ask(socket: &Path, request: &Request) -> Result<Vec<Part>, ClientError> {
    let search = Search { explicit: Some(socket.to_owned()), state: socket.to_owned() };
    let mut parts = Vec::new();
    Client::connect(&search)?.call(request, Some(PATIENCE), |part| parts.push(part))?;
    Ok(parts)
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Answer {
    pub asked: String,
    /// -1 when a signal ended it.
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Answer {
    /// Runs `command` to its end.
    ///
    /// # Panics
    /// When it is not over in time.
    pub fn of(mut command: Command, patience: Duration) -> Self {
        let asked = command
            .get_args()
            .map(|argument| argument.to_string_lossy().into_owned())
            .collect::<Vec<_>>()
            .join(" ");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("a command");
        let pid = rustix::process::Pid::from_child(&child);
        let ended = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).expect("a pidfd");
        let mut out = child.stdout.take().expect("stdout");
        let mut err = child.stderr.take().expect("stderr");
        let out = std::thread::spawn(move || text(&mut out));
        let err = std::thread::spawn(move || text(&mut err));
        let in_time = wait::readable(ended.as_fd(), patience);
        if !in_time {
            let _ = child.kill();
        }
        let status = child.wait().expect("a status");
        let answer = Self {
            asked,
            code: status.code().unwrap_or(-1),
            out: out.join().expect("stdout"),
            err: err.join().expect("stderr"),
        };
        assert!(in_time, "no end within {patience:?}: {answer:?}");
        answer
    }

    /// The output of a command that must have succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}: {self:?}", self.asked);
        self.out
    }

    /// The error message of a command that must have failed with `code`: one line, for people.
    #[track_caller]
    pub fn fails(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:?}");
        assert!(!self.err.contains("panicked") && !self.err.contains("RUST_BACKTRACE"), "{self:?}");
        self.err
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

fn text(stream: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}
