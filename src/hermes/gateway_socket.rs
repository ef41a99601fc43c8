//! The control socket of a running gateway, `gateway.sock` in its home: one JSON line asked, one answered, then it closes.
//!
//! Hermes has it since 0.20.6; what a gateway understands is told by its answer, never by a version. It belongs to the
//! gateway user, so it is reached with that user's rights and without following links, and an answer counts only from the
//! process that we know as the gateway. Everything here blocks, at most for the patience that is given.
//!
//! * `identify` and `status` are not asked. The state file says the same with the pid of its writer, and can be watched; an
//!   answer would have to be asked for again and again. Who answers is known from the socket.
//! * The heartbeat (`state/gateway.heartbeat`) says that the gateway's loop does not hang. What is to be done when it does is a
//!   matter of `[health]`, which definitions cannot ask for yet.

use crate::core::name::ServiceName;
use crate::sys::beneath::Beneath;
use crate::sys::credentials::Credentials;
use crate::sys::peer;
use rustix::fs::{AtFlags, FileType};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

const FILE: &str = "gateway.sock";
/// Longest answer, in bytes; the gateway's own bound.
const MOST: u64 = 512 * 1024;

/// What a gateway is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// Look for new and removed profiles now (Hermes 0.21.3).
    RescanProfiles,
    /// Serve this profile from now on (Hermes 0.21.5).
    Serve(ServiceName),
    /// Stop to serve this profile. Its next look at the profiles undoes that, unless the profile is marked as parked.
    Unserve(ServiceName),
}

impl Verb {
    fn word(&self) -> &'static str {
        match self {
            Self::RescanProfiles => "rescan-profiles",
            Self::Serve(_) => "serve-profile",
            Self::Unserve(_) => "unserve-profile",
        }
    }

    fn request(&self) -> Vec<u8> {
        let mut keys = json!({"verb": self.word(), "id": 1, "protocol": 1});
        if let Self::Serve(name) | Self::Unserve(name) = self {
            keys["params"] = json!({"name": name.as_str()});
        }
        format!("{keys}\n").into_bytes()
    }
}

/// What a gateway answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// The profiles that it serves now, where it says so.
    pub served: Option<BTreeSet<String>>,
    /// It goes on with it, and has not finished within its own patience.
    pub pending: bool,
}

/// Why there is no answer that helps.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("it has no control socket")]
    NoSocket,
    #[error("its control socket does not know '{verb}'")]
    Unsupported { verb: &'static str },
    #[error("{0}")]
    Refused(String),
    #[error("another process answers on its control socket")]
    Stranger,
    #[error("its answer is no JSON of the protocol")]
    Garbled,
    #[error("its control socket does not answer: {0}")]
    Io(#[from] io::Error),
}

/// Asks the gateway that is process `pid` and whose home is `home`.
///
/// # Errors
/// As the variants of [`AskError`] say.
pub fn ask(
    home: &Beneath,
    user: &Credentials,
    pid: u32,
    verb: &Verb,
    patience: Duration,
) -> Result<Answer, AskError> {
    #[cfg(test)]
    if let Some(answer) = played::answer(verb) {
        return answer;
    }
    let until = Instant::now() + patience;
    let mut stream = user.on_files(|| connect(home))??;
    // One that fell from a process of an earlier life or of somebody else is nobody to believe.
    if peer::credentials(stream.as_fd())?.pid.is_some_and(|peer| peer != pid) {
        return Err(AskError::Stranger);
    }
    let left = || until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    stream.set_write_timeout(Some(left()))?;
    stream.write_all(&verb.request())?;
    let mut line = Vec::new();
    let mut bytes = [0u8; 4096];
    while !line.contains(&b'\n') && line.len() as u64 <= MOST {
        stream.set_read_timeout(Some(left()))?;
        match stream.read(&mut bytes) {
            Ok(0) => break,
            Ok(n) => line.extend_from_slice(bytes.get(..n).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
        if Instant::now() >= until {
            return Err(io::Error::from(io::ErrorKind::TimedOut).into());
        }
    }
    read_answer(verb, line.split(|byte| *byte == b'\n').next().unwrap_or_default())
}

/// Never waits: a gateway whose backlog is full does not answer.
fn connect(home: &Beneath) -> Result<UnixStream, AskError> {
    let stat = rustix::fs::statat(home, FILE, AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from);
    match stat {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Socket => {}
        Ok(_) => return Err(AskError::NoSocket),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(AskError::NoSocket),
        Err(error) => return Err(error.into()),
    }
    // The path of a socket is short: the open directory's link in /proc stands for a long one.
    let path = format!("/proc/self/fd/{}/{FILE}", home.as_fd().as_raw_fd());
    let address = SocketAddrUnix::new(Path::new(&path)).map_err(io::Error::from)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(io::Error::from)?;
    rustix::net::connect(&socket, &address).map_err(io::Error::from)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

fn read_answer(verb: &Verb, line: &[u8]) -> Result<Answer, AskError> {
    let answer: Value = serde_json::from_slice(line).map_err(|_| AskError::Garbled)?;
    if answer.get("ok").and_then(Value::as_bool) != Some(true) {
        let known = answer.get("supported_verbs").and_then(Value::as_array);
        if known.is_some_and(|known| !known.iter().any(|word| word == verb.word())) {
            return Err(AskError::Unsupported { verb: verb.word() });
        }
        let words = answer.get("error").and_then(Value::as_str).unwrap_or("it refused, and does not say why");
        return Err(AskError::Refused(one_line(words)));
    }
    let result = answer.get("result").filter(|result| result.is_object()).ok_or(AskError::Garbled)?;
    if let Some(error) = result.get("error").and_then(Value::as_str) {
        return Err(AskError::Refused(one_line(error)));
    }
    let served = result.get("served_profiles").and_then(Value::as_array);
    Ok(Answer {
        served: served.map(|names| names.iter().filter_map(Value::as_str).map(str::to_owned).collect()),
        pending: result.get("pending").and_then(Value::as_bool) == Some(true),
    })
}

/// Somebody else's words, for one of our lines.
fn one_line(text: &str) -> String {
    text.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A gateway in memory, whose answers need no socket.
#[cfg(test)]
pub mod played {
    use super::{Answer, AskError, Verb};
    use std::cell::RefCell;

    type Gateway = Box<dyn FnMut(&Verb) -> Result<Answer, AskError>>;

    thread_local! {
        static GATEWAY: RefCell<Option<Gateway>> = const { RefCell::new(None) };
    }

    /// Meanwhile this thread talks to that gateway.
    pub fn with<T>(
        gateway: impl FnMut(&Verb) -> Result<Answer, AskError> + 'static,
        talk: impl FnOnce() -> T,
    ) -> T {
        GATEWAY.set(Some(Box::new(gateway)));
        let said = talk();
        GATEWAY.set(None);
        said
    }

    pub(super) fn answer(verb: &Verb) -> Option<Result<Answer, AskError>> {
        GATEWAY.with_borrow_mut(|gateway| gateway.as_mut().map(|gateway| gateway(verb)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn name() -> ServiceName {
        ServiceName::new("work").unwrap()
    }

    fn ask(home: &Path, pid: u32, verb: &Verb, patience: Duration) -> Result<Answer, AskError> {
        super::ask(&Beneath::open(home).unwrap(), &Credentials::own(), pid, verb, patience)
    }

    /// Asks a gateway that answers so; returns what it was asked.
    fn conversation(verb: &Verb, answer: &str) -> (Value, Result<Answer, AskError>) {
        let home = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(home.path().join(FILE)).unwrap();
        std::thread::scope(|threads| {
            let asked = threads.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
                serde_json::from_str(&line).unwrap()
            });
            let answered = ask(home.path(), std::process::id(), verb, PATIENCE);
            (asked.join().unwrap(), answered)
        })
    }

    #[test]
    fn a_gateway_is_asked_one_line_and_answers_one() {
        let (asked, answered) = conversation(
            &Verb::Unserve(name()),
            "{\"ok\": true, \"protocol\": 1, \"result\": {\"unserved\": \"work\", \"served_profiles\": [\"default\"]}, \"id\": 1}\n",
        );
        assert_eq!(
            asked,
            json!({"verb": "unserve-profile", "id": 1, "protocol": 1, "params": {"name": "work"}})
        );
        let served = Some(BTreeSet::from(["default".to_owned()]));
        assert_eq!(answered.unwrap(), Answer { served, pending: false });
        let (asked, answered) =
            conversation(&Verb::RescanProfiles, "{\"ok\":true,\"result\":{\"pending\":true}}");
        assert_eq!(asked, json!({"verb": "rescan-profiles", "id": 1, "protocol": 1}));
        assert_eq!(answered.unwrap(), Answer { served: None, pending: true });
    }

    #[test]
    fn every_other_answer_says_why_it_does_not_help() {
        for (answer, expected) in [
            (
                r#"{"ok":false,"error":"unknown verb","supported_verbs":["identify","status"]}"#,
                "does not know 'serve-profile'",
            ),
            (r#"{"ok":false,"error":"KeyError: x"}"#, "KeyError: x"),
            (
                r#"{"ok":true,"result":{"error":"profile 'work' is parked\n(x)"}}"#,
                "profile 'work' is parked (x)",
            ),
            (r#"{"ok":true,"result":[]}"#, "no JSON of the protocol"),
            (r#"{"ok":true}"#, "no JSON of the protocol"),
            ("\n", "no JSON of the protocol"),
            ("", "no JSON of the protocol"),
        ] {
            let error = conversation(&Verb::Serve(name()), answer).1.unwrap_err().to_string();
            assert!(error.contains(expected), "{answer}: {error}");
        }
    }

    #[test]
    fn a_socket_that_is_missing_dead_silent_or_a_strangers_is_no_gateway() {
        let home = tempfile::tempdir().unwrap();
        let asked =
            |pid| ask(home.path(), pid, &Verb::RescanProfiles, Duration::from_millis(20)).unwrap_err();
        let own = std::process::id();
        assert!(matches!(asked(own), AskError::NoSocket));
        std::os::unix::fs::symlink("/elsewhere.sock", home.path().join(FILE)).unwrap();
        assert!(matches!(asked(own), AskError::NoSocket), "a planted link is not followed");
        std::fs::remove_file(home.path().join(FILE)).unwrap();
        let listener = UnixListener::bind(home.path().join(FILE)).unwrap();
        assert!(matches!(asked(own), AskError::Io(_)), "it listens and says nothing");
        assert!(matches!(asked(1), AskError::Stranger));
        drop(listener);
        assert!(matches!(asked(own), AskError::Io(_)), "it has ended");
    }
}
