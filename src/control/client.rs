//! The client's end of the control socket: finds the supervisor, sees that it may be trusted, asks, and waits.
//!
//! Blocks, so it is for the command line only. A client that ends takes nothing back: what it asked for goes on.

use super::codec::{self, FrameBuffer};
use super::protocol::{Code, Outcome, Part, Refusal, RefusalKind, Reply, Request, Targets};
use crate::core::clock::{LostTime, Tick};
use crate::sys::peer;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, CWD};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where the supervisor listens when nothing else was said and `/run` can be written.
pub const RUN_SOCKET: &str = "/run/hermes-sup/control.sock";

/// How long a supervisor may take to accept a connection and a request.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// Where to look for a supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    /// `--socket` or `HERMES_SUP_SOCKET`: then nowhere else.
    pub explicit: Option<PathBuf>,
    /// The state directory; its owner is trusted as a supervisor.
    pub state: PathBuf,
}

impl Search {
    /// The places to try, in order; the server takes the first that it can make.
    pub fn candidates(&self) -> Vec<PathBuf> {
        match &self.explicit {
            Some(path) => vec![path.clone()],
            None => vec![RUN_SOCKET.into(), self.state.join("control.sock")],
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{0}")]
    NoSupervisor(String),
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It said nothing for so long.
    #[error("the supervisor at {path} has not answered for {} s: see its log", after.as_secs())]
    TimedOut { path: PathBuf, after: Duration },
    #[error("the supervisor at {path} ended the connection before the answer was complete: see its log")]
    Ended { path: PathBuf },
    #[error("failed to talk to the supervisor at {path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
}

impl ClientError {
    pub fn code(&self) -> Code {
        match self {
            Self::NoSupervisor(_) => Code::NoSupervisor,
            Self::Refused(refusal) => refusal.kind.code(),
            Self::TimedOut { .. } => Code::TimedOut,
            Self::Ended { .. } | Self::Io { .. } => Code::Failed,
        }
    }
}

/// A connection to a supervisor.
#[derive(Debug)]
pub struct Client {
    stream: OwnedFd,
    path: PathBuf,
    input: FrameBuffer,
    /// Open files that came with the answer.
    files: Vec<OwnedFd>,
}

impl Client {
    /// Connects to the first place where somebody answers.
    ///
    /// # Errors
    /// [`ClientError::NoSupervisor`] when nobody does, or somebody who is neither root, nor this user, nor the owner
    /// of the state directory (of a socket that was named: nor the owner of the directory that it is in).
    pub fn connect(search: &Search) -> Result<Self, ClientError> {
        let mut tried = Vec::new();
        for path in search.candidates() {
            match open(&path) {
                Ok(stream) => {
                    check_server(&stream, &path, search)?;
                    return Ok(Self { stream, path, input: FrameBuffer::default(), files: Vec::new() });
                }
                Err(Errno::NOENT | Errno::CONNREFUSED | Errno::NOTDIR) => {
                    tried.push(path.display().to_string());
                }
                Err(errno) => {
                    tried.push(format!("{} ({})", path.display(), std::io::Error::from(errno).kind()));
                }
            }
        }
        Err(ClientError::NoSupervisor(format!(
            "no supervisor answers at {}: start one with 'hermes-sup run', or name its socket with --socket",
            tried.join(" or ")
        )))
    }

    /// The socket that answered.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sends `request` and hands each part of the answer to `each`, until the answer ends.
    ///
    /// `silence` is how long the supervisor may say nothing; `None`: for ever.
    ///
    /// # Errors
    /// [`ClientError`]; parts that came before stay valid.
    pub fn call(
        &mut self,
        request: &Request,
        silence: Option<Duration>,
        mut each: impl FnMut(Part),
    ) -> Result<(), ClientError> {
        self.listen(request, silence, |part| {
            each(part);
            ControlFlow::Continue(())
        })
    }

    /// The open log files of a service, as the supervisor hands them to its user: each with its name.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn log_files(
        &mut self,
        service: &str,
        silence: Option<Duration>,
    ) -> Result<Vec<(String, OwnedFd)>, ClientError> {
        let request = Request::LogFiles { targets: Targets::Names(vec![service.to_owned()]) };
        let (mut names, mut refused) = (Vec::new(), None);
        self.call(&request, silence, |part| match part {
            Part::LogFile(file) => names.push(file.file),
            Part::Outcome(outcome) => refused = Some(outcome),
            _ => {}
        })?;
        if let Some(Outcome { message, code, .. }) = refused {
            let kind =
                if code == Code::NotPermitted { RefusalKind::NotPermitted } else { RefusalKind::Failed };
            return Err(Refusal::new(kind, message.unwrap_or_default()).into());
        }
        let files = std::mem::take(&mut self.files);
        if files.len() != names.len() {
            return Err(ClientError::Ended { path: self.path.clone() });
        }
        Ok(names.into_iter().zip(files).collect())
    }

    /// The same, until `each` has heard enough.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn listen(
        &mut self,
        request: &Request,
        silence: Option<Duration>,
        mut each: impl FnMut(Part) -> ControlFlow<()>,
    ) -> Result<(), ClientError> {
        self.send(&codec::encode_request(request)?)?;
        loop {
            loop {
                let frame = self.input.next_frame().map_err(|codec::TooLarge| codec::answer_too_large())?;
                match frame.map(codec::decode_reply).transpose()? {
                    Some(Reply::Part(part)) => {
                        if each(part).is_break() {
                            return Ok(());
                        }
                    }
                    Some(Reply::End) => return Ok(()),
                    Some(Reply::Refused(refusal)) => return Err(refusal.into()),
                    None => break,
                }
            }
            self.more(silence)?;
        }
    }

    /// Waits for more of the answer, and takes it in.
    fn more(&mut self, silence: Option<Duration>) -> Result<(), ClientError> {
        self.wait(silence)?;
        let mut chunk = [0; 4096];
        let want = chunk.len().min(self.input.room());
        match self.receive(&mut chunk[..want]) {
            Ok(0) | Err(Errno::CONNRESET) => Err(ClientError::Ended { path: self.path.clone() }),
            Ok(got) => {
                let _all = self.input.push(&chunk[..got]);
                Ok(())
            }
            Err(errno) => Err(self.io(errno)),
        }
    }

    /// Reads what is there, and takes the open files that come with it.
    fn receive(&mut self, chunk: &mut [u8]) -> Result<usize, Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = retry_on_intr(|| {
            rustix::net::recvmsg(
                &self.stream,
                &mut [IoSliceMut::new(chunk)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            )
        })?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                self.files.extend(files);
            }
        }
        Ok(received.bytes)
    }

    fn send(&mut self, mut bytes: &[u8]) -> Result<(), ClientError> {
        while !bytes.is_empty() {
            match retry_on_intr(|| rustix::net::send(&self.stream, bytes, SendFlags::NOSIGNAL)) {
                Ok(sent) => bytes = &bytes[sent..],
                // It has closed its end; what it had to say about that is still to be read.
                Err(Errno::PIPE | Errno::CONNRESET) => return Ok(()),
                Err(Errno::AGAIN) => return Err(self.timed_out(CONNECT_PATIENCE)),
                Err(errno) => return Err(self.io(errno)),
            }
        }
        Ok(())
    }

    /// Waits until there is something to read.
    fn wait(&self, silence: Option<Duration>) -> Result<(), ClientError> {
        let begun = Instant::now();
        let clock = || Tick::default().after(begun.elapsed());
        let mut patience = Patience::begin(clock(), silence);
        loop {
            let left = patience.wait(clock()).map(|left| Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            });
            let mut fds = [PollFd::new(&self.stream, PollFlags::IN)];
            let polled = poll(&mut fds, left.as_ref());
            let is_over = patience.is_over(clock());
            match polled {
                Ok(0) | Err(Errno::INTR) => {
                    if is_over {
                        return Err(self.timed_out(silence.unwrap_or_default()));
                    }
                }
                Ok(_) => return Ok(()),
                Err(errno) => return Err(self.io(errno)),
            }
        }
    }

    fn timed_out(&self, after: Duration) -> ClientError {
        ClientError::TimedOut { path: self.path.clone(), after }
    }

    fn io(&self, errno: Errno) -> ClientError {
        ClientError::Io { path: self.path.clone(), source: errno.into() }
    }
}

/// How long a client lets the supervisor be silent. Who is paused together with the supervisor has not waited for it.
#[derive(Debug)]
struct Patience {
    end: Option<Tick>,
    lost_time: LostTime,
}

impl Patience {
    /// `None`: it is endless.
    fn begin(now: Tick, silence: Option<Duration>) -> Self {
        Self { end: silence.map(|silence| now.after(silence)), lost_time: LostTime::default() }
    }

    /// To be called before a wait: how long that may take at the most.
    fn wait(&mut self, now: Tick) -> Option<Duration> {
        self.lost_time.wait_until(now, self.end).map(|wake| wake.since(now))
    }

    /// To be called after each wait.
    fn is_over(&mut self, now: Tick) -> bool {
        let lost = self.lost_time.found(now);
        self.end = self.end.map(|end| end.after(lost));
        self.end.is_some_and(|end| end <= now)
    }
}

fn open(path: &Path) -> Result<OwnedFd, Errno> {
    let address = SocketAddrUnix::new(path)?;
    let stream =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // Of a Unix socket it bounds connect(2) on a full backlog, too (af_unix.c, unix_stream_connect).
    set_socket_timeout(&stream, Timeout::Send, Some(CONNECT_PATIENCE))?;
    retry_on_intr(|| rustix::net::connect(&stream, &address))?;
    // A copy of the socket may outlive the supervisor for a moment (`server::listener`).
    if peer::has_ended(&stream) { Err(Errno::CONNREFUSED) } else { Ok(stream) }
}

/// Refuses a server that somebody else may have planted to give false answers or to collect what is sent to it.
fn check_server(stream: &OwnedFd, path: &Path, search: &Search) -> Result<(), ClientError> {
    let peer =
        peer::credentials(stream).map_err(|source| ClientError::Io { path: path.to_owned(), source })?;
    let own = rustix::process::geteuid().as_raw();
    let owner = |dir: &Path| rustix::fs::statat(CWD, dir, AtFlags::empty()).ok().map(|stat| stat.st_uid);
    // Who names a socket chooses whom to trust; the directory says who can have made it.
    let named = search.explicit.as_ref().and_then(|_| owner(path.parent()?));
    if [Some(0), Some(own), owner(&search.state), named].contains(&Some(peer.uid)) {
        return Ok(());
    }
    Err(ClientError::NoSupervisor(format!(
        "the process that answers at {} is uid {}, neither root, nor you, nor the owner of {}: not trusted",
        path.display(),
        peer.uid,
        search.state.display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::{RefusalKind, Targets};
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;
    use std::sync::mpsc;

    struct Place {
        dir: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            Self { dir: tempfile::tempdir().unwrap() }
        }

        fn search(&self) -> Search {
            Search { explicit: Some(self.dir.path().join("s")), state: self.dir.path().join("state") }
        }

        /// Serves one connection: reads up to the first NUL, then writes `bytes`, then waits to be released.
        fn serve(&self, bytes: Vec<u8>) -> (mpsc::Sender<()>, std::thread::JoinHandle<Vec<u8>>) {
            let listener = UnixListener::bind(self.dir.path().join("s")).unwrap();
            let (release, released) = mpsc::channel();
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let (mut got, mut byte) = (Vec::new(), [1]);
                while byte[0] != 0 {
                    stream.read_exact(&mut byte).unwrap();
                    got.push(byte[0]);
                }
                for piece in bytes.chunks(7) {
                    stream.write_all(piece).unwrap();
                }
                let _ = released.recv();
                got
            });
            (release, server)
        }
    }

    fn frames(replies: &[Reply]) -> Vec<u8> {
        replies.iter().flat_map(|reply| codec::encode_reply(reply).unwrap()).collect()
    }

    fn name(text: &str) -> Part {
        Part::Name(text.to_owned())
    }

    #[test]
    fn the_places_are_tried_in_the_documented_order() {
        let search = Search { explicit: None, state: "/s".into() };
        assert_eq!(
            search.candidates(),
            [Path::new("/run/hermes-sup/control.sock"), Path::new("/s/control.sock")]
        );
        let named = Search { explicit: Some("/x".into()), ..search };
        assert_eq!(named.candidates(), [Path::new("/x")]);
    }

    #[test]
    fn an_answer_arrives_whole_in_any_pieces() {
        let place = Place::new();
        let replies = [Reply::Part(name("a")), Reply::Part(name("b")), Reply::End];
        let (release, server) = place.serve(frames(&replies));
        let mut client = Client::connect(&place.search()).unwrap();
        let mut parts = Vec::new();
        client.call(&Request::List {}, Some(Duration::from_secs(10)), |part| parts.push(part)).unwrap();
        assert_eq!(parts, [name("a"), name("b")]);
        drop(release);
        assert_eq!(server.join().unwrap(), codec::encode_request(&Request::List {}).unwrap());
    }

    #[test]
    fn a_refusal_comes_out_with_its_line_and_code() {
        let place = Place::new();
        let refusal = Refusal::new(RefusalKind::NotPermitted, "not permitted to reload");
        let (_release, _server) = place.serve(frames(&[Reply::Refused(refusal)]));
        let mut client = Client::connect(&place.search()).unwrap();
        let error = client.call(&Request::Reload { restart: false }, None, |_| {}).unwrap_err();
        assert_eq!(
            (error.code(), error.to_string().as_str()),
            (Code::NotPermitted, "not permitted to reload")
        );
    }

    #[test]
    fn why_log_files_are_not_handed_over_comes_out_with_its_code() {
        for code in [Code::NotPermitted, Code::Failed] {
            let place = Place::new();
            let outcome = Outcome::failed("web", code, None, "not yours");
            let (_release, _server) = place.serve(frames(&[Reply::Part(Part::Outcome(outcome)), Reply::End]));
            let mut client = Client::connect(&place.search()).unwrap();
            let error = client.log_files("web", None).unwrap_err();
            assert_eq!((error.code(), error.to_string().as_str()), (code, "not yours"));
        }
    }

    #[test]
    fn a_silent_supervisor_times_out() {
        let place = Place::new();
        let (_release, _server) = place.serve(frames(&[Reply::Part(name("a"))]));
        let mut client = Client::connect(&place.search()).unwrap();
        let mut parts = 0;
        let error =
            client.call(&Request::List {}, Some(Duration::from_millis(50)), |_| parts += 1).unwrap_err();
        assert_eq!((error.code(), parts), (Code::TimedOut, 1));
    }

    #[test]
    fn patience_ends_at_its_time_and_not_at_the_beats_before() {
        let at = |seconds: u64| Tick(seconds * 1000);
        let mut patience = Patience::begin(at(0), Some(Duration::from_secs(3)));
        let mut now = at(0);
        let mut over = Vec::new();
        for _ in 0..3 {
            now = now.after(patience.wait(now).unwrap());
            over.push((now, patience.is_over(now)));
        }
        assert_eq!(over, [(at(1), false), (at(2), false), (at(3), true)]);
    }

    #[test]
    fn patience_is_not_used_up_by_time_in_which_nobody_ran() {
        let at = |seconds: u64| Tick(seconds * 1000);
        let mut patience = Patience::begin(at(0), Some(Duration::from_secs(3)));
        assert_eq!(patience.wait(at(0)), Some(Duration::from_secs(1)));
        assert!(!patience.is_over(at(601)), "ten minutes of it were lost");
        assert_eq!(patience.wait(at(601)), Some(Duration::from_secs(1)));
        assert!(!patience.is_over(at(602)));
        assert!(patience.is_over(at(603)));
        let mut endless = Patience::begin(at(0), None);
        assert_eq!(endless.wait(at(0)), None);
        assert!(!endless.is_over(at(1_000_000)));
    }

    #[test]
    fn a_supervisor_that_ends_in_the_middle_is_said_to() {
        let place = Place::new();
        let (release, _server) = place.serve(frames(&[Reply::Part(name("a"))]));
        release.send(()).unwrap();
        let mut client = Client::connect(&place.search()).unwrap();
        let error = client.call(&Request::List {}, Some(Duration::from_secs(10)), |_| {}).unwrap_err();
        assert!(matches!(error, ClientError::Ended { .. }), "{error}");
    }

    #[test]
    fn an_answer_that_makes_no_sense_is_an_error_not_a_panic() {
        for bytes in
            [&b"hello\0"[..], b"\0", &[b'x'; 70_000], b"{\"parameters\":{\"new\":1},\"continues\":true}\0"]
        {
            let place = Place::new();
            let (_release, _server) = place.serve(bytes.to_vec());
            let mut client = Client::connect(&place.search()).unwrap();
            let error = client.call(&Request::List {}, Some(Duration::from_secs(10)), |_| {}).unwrap_err();
            assert_eq!(error.code(), Code::Failed, "{error}");
        }
    }

    #[test]
    fn nobody_there_is_one_line_that_says_what_to_do() {
        let place = Place::new();
        let path = place.dir.path().join("s");
        let expected = format!(
            "no supervisor answers at {}: start one with 'hermes-sup run', or name its socket with --socket",
            path.display()
        );
        let error = Client::connect(&place.search()).unwrap_err();
        assert_eq!((error.code(), error.to_string()), (Code::NoSupervisor, expected.clone()));
        drop(UnixListener::bind(&path).unwrap());
        let error = Client::connect(&place.search()).unwrap_err();
        assert_eq!(error.to_string(), expected, "a socket that nobody serves");
        let long = Search { explicit: Some("/x".repeat(100).into()), state: "/".into() };
        assert_eq!(Client::connect(&long).unwrap_err().code(), Code::NoSupervisor);
    }

    #[test]
    fn a_request_too_large_is_refused_before_it_is_sent() {
        let place = Place::new();
        let _listener = UnixListener::bind(place.dir.path().join("s")).unwrap();
        let mut client = Client::connect(&place.search()).unwrap();
        let request = Request::Stop { targets: Targets::Names(vec!["x".repeat(100_000)]) };
        let error = client.call(&request, None, |_| {}).unwrap_err();
        assert!(error.to_string().contains("ask in smaller parts"), "{error}");
    }

    /// What a thread of this user does: root can let it be anybody.
    fn as_user<T: Send>(uid: u32, what: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            scope
                .spawn(move || {
                    let uid = rustix::process::Uid::from_raw(uid);
                    rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
                    what()
                })
                .join()
                .unwrap()
        })
    }

    #[test]
    fn a_server_is_trusted_for_whose_it_is() {
        use std::os::unix::fs::{PermissionsExt, chown};
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let (me, owner_of_state, owner_of_directory, stranger) = (54320, 54321, 54322, 54323);
        let place = Place::new();
        let search = place.search();
        let path = place.dir.path().join("s");
        let open_to_all = |path: &Path| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
        };
        open_to_all(place.dir.path());
        chown(place.dir.path(), Some(owner_of_directory), None).unwrap();
        std::fs::create_dir(&search.state).unwrap();
        chown(&search.state, Some(owner_of_state), None).unwrap();
        for server in [0, me, owner_of_state, owner_of_directory, stranger] {
            let listener = as_user(server, || UnixListener::bind(&path).unwrap());
            open_to_all(&path);
            let connected = as_user(me, || Client::connect(&search).map(|_| ()));
            assert_eq!(connected.is_ok(), server != stranger, "{server}: {connected:?}");
            drop(listener);
            std::fs::remove_file(&path).unwrap();
        }
    }

    /// Needs root, to let a thread be somebody else.
    #[test]
    fn a_server_of_a_stranger_is_not_trusted() {
        use std::os::unix::fs::{PermissionsExt, chown};
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let place = Place::new();
        let path = place.dir.path().join("s");
        std::fs::set_permissions(place.dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let _listener = as_user(54321, || UnixListener::bind(&path).unwrap());
        let search = place.search();
        let error = Client::connect(&search).unwrap_err();
        assert_eq!(
            (error.code(), error.to_string()),
            (
                Code::NoSupervisor,
                format!(
                    "the process that answers at {} is uid 54321, neither root, nor you, nor the owner of {}: not trusted",
                    path.display(),
                    search.state.display()
                )
            )
        );
        std::fs::create_dir(&search.state).unwrap();
        chown(&search.state, Some(54321), None).unwrap();
        Client::connect(&search).unwrap();
    }
}
