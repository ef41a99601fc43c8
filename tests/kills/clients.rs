//! One client after another: honest ones, which must have the truth, and all those who take a supervisor's time or memory.

use super::asking::{Sockets, Told, ask, one};
use super::harness::{Dice, wait};
use hermes_sup::control::codec::{FrameBuffer, MAX_FRAME, decode_reply, encode_request};
use hermes_sup::control::protocol::{Refusal, RefusalKind, Reply, Request, Targets};
use rustix::fs::{FlockOperation, flock};
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// In this time each answer comes, on a machine that has other work too.
const PATIENCE: Duration = Duration::from_secs(60);
/// So many connections each thread of clients keeps open without reading. Eight threads have more than a supervisor takes.
const KEPT: usize = 35;

/// A thread of clients.
pub struct Crowd<'a> {
    pub sockets: &'a Sockets,
    pub socket: PathBuf,
    pub dice: Dice,
    /// A service that these clients alone command, and the file that it holds a lock on while it lives.
    pub own: String,
    pub lock: PathBuf,
    /// Those that are restarted all the time.
    pub others: &'a [String],
    kept: VecDeque<UnixStream>,
    pub seen: Seen,
}

/// What came of them.
#[derive(Debug, Default)]
pub struct Seen {
    pub clients: u64,
    pub kinds: BTreeMap<&'static str, u64>,
    /// Honest commands that were refused because too many others were under way.
    pub busy: u64,
    /// How long the restarts of the own service took, with the moment of each.
    pub restarts: Vec<(Instant, Duration)>,
    pub wrong: Vec<String>,
}

impl<'a> Crowd<'a> {
    pub fn new(
        sockets: &'a Sockets,
        socket: PathBuf,
        dice: Dice,
        own: String,
        lock: PathBuf,
        others: &'a [String],
    ) -> Self {
        let (kept, seen) = (VecDeque::new(), Seen::default());
        Self { sockets, socket, dice, own, lock, others, kept, seen }
    }

    /// The next client.
    pub fn next(&mut self) {
        type Client<'a> = fn(&mut Crowd<'a>) -> Result<(), String>;
        let kinds: [(&str, Client<'a>); 12] = [
            ("honest", Self::honest),
            ("honest", Self::honest),
            ("in pieces", Self::in_pieces),
            ("half-closed", Self::half_closed),
            ("half-open", Self::half_open),
            ("partial frame", Self::partial),
            ("garbage", Self::garbage),
            ("too much", Self::too_much),
            ("never reads", Self::never_reads),
            ("stream unread", Self::unread_stream),
            ("gone at once", Self::gone),
            ("several at once", Self::several),
        ];
        let (name, client) = self.dice.pick(&kinds);
        if let Err(wrong) = client(self) {
            self.seen.wrong.push(format!("{name}: {wrong}"));
        }
        self.seen.clients += 1;
        *self.seen.kinds.entry(name).or_default() += 1;
    }

    pub fn leave(&mut self) {
        self.kept.clear();
    }

    fn connect(&self) -> Result<UnixStream, String> {
        let stream = UnixStream::connect(&self.socket).map_err(|error| format!("connect: {error}"))?;
        for set in [UnixStream::set_read_timeout, UnixStream::set_write_timeout] {
            set(&stream, Some(PATIENCE)).map_err(|error| error.to_string())?;
        }
        Ok(stream)
    }

    /// Keeps it open; the oldest that is kept goes.
    fn keep(&mut self, stream: UnixStream) {
        self.kept.push_back(stream);
        if self.kept.len() > KEPT {
            self.kept.pop_front();
        }
    }

    // ---- the honest ----

    fn honest(&mut self) -> Result<(), String> {
        let name = self.own.clone();
        let targets = one(&name);
        let timeout_ms = Some(PATIENCE.as_millis() as u64);
        match self.dice.roll(6) {
            0 => self.command("start", &Request::Start { targets, timeout_ms, force: false }, Some(true)),
            1 => self.command("stop", &Request::Stop { targets }, Some(false)),
            2..=3 => {
                let began = Instant::now();
                self.command(
                    "restart",
                    &Request::Restart { targets, timeout_ms, rolling: None },
                    Some(true),
                )?;
                self.seen.restarts.push((began, began.elapsed()));
                Ok(())
            }
            4 => self.whole(&[Request::Status { targets }], false),
            _ => self.whole(&[Request::List {}], false),
        }
    }

    /// What is said to be done is so. The lock of the service tells whether any process of it lives.
    fn command(&mut self, verb: &str, request: &Request, is_up: Option<bool>) -> Result<(), String> {
        let told = ask(self.sockets.client(), &[&self.own], request, PATIENCE).remove(&self.own);
        match told {
            Some(Told::Done) => {}
            Some(Told::Failed(why)) if why.contains("too many commands are under way") => {
                self.seen.busy += 1;
                return Ok(());
            }
            told => return Err(format!("{verb} {}: {told:?}", self.own)),
        }
        match is_up {
            // Its first instruction may be yet to come.
            Some(true) => {
                let held = wait::within(PATIENCE, Path::new("/"), || is_held(&self.lock).then_some(()));
                held.ok_or_else(|| format!("{verb} {} was said to be done, and it does not run", self.own))
            }
            Some(false) if is_held(&self.lock) => {
                Err(format!("{verb} {} was said to be done, and it has processes", self.own))
            }
            Some(false) | None => Ok(()),
        }
    }

    /// Sends these requests, and reads a whole answer to each, in order.
    fn whole(&mut self, requests: &[Request], in_pieces: bool) -> Result<(), String> {
        let mut stream = self.connect()?;
        let bytes: Vec<u8> = requests.iter().flat_map(frame).collect();
        let pieces = bytes.chunks(if in_pieces { 7 } else { bytes.len().max(1) });
        for piece in pieces {
            stream.write_all(piece).map_err(|error| format!("send: {error}"))?;
        }
        let mut reader = Reader::new(stream, if in_pieces { 1 } else { 4096 });
        for request in requests {
            match reader.answer().map_err(|wrong| format!("{request:?}: {wrong}"))? {
                None => {}
                Some(refusal) if refusal.kind == RefusalKind::Busy => {
                    self.seen.busy += 1;
                    return Ok(());
                }
                Some(refusal) => return Err(format!("{request:?} is refused: {refusal}")),
            }
        }
        Ok(())
    }

    // ---- the slow, the half-open, the hostile ----

    fn in_pieces(&mut self) -> Result<(), String> {
        self.whole(&[Request::List {}], true)
    }

    fn several(&mut self) -> Result<(), String> {
        let status = Request::Status { targets: one(&self.own) };
        self.whole(&[Request::List {}, status, Request::List {}], false)
    }

    /// It has said all that it has to say, and still reads.
    fn half_closed(&mut self) -> Result<(), String> {
        let mut stream = self.connect()?;
        stream.write_all(&frame(&Request::List {})).map_err(|error| format!("send: {error}"))?;
        stream.shutdown(Shutdown::Write).map_err(|error| error.to_string())?;
        match Reader::new(stream, 4096).answer()? {
            Some(refusal) if refusal.kind != RefusalKind::Busy => Err(format!("refused: {refusal}")),
            Some(_) | None => Ok(()),
        }
    }

    fn half_open(&mut self) -> Result<(), String> {
        let stream = self.connect()?;
        self.keep(stream);
        Ok(())
    }

    fn partial(&mut self) -> Result<(), String> {
        let mut stream = self.connect()?;
        let frame = frame(&Request::Status { targets: Targets::All });
        let some = 1 + self.dice.roll(frame.len() as u64 - 1) as usize;
        let _ = stream.write_all(&frame[..some.min(frame.len() - 1)]);
        if self.dice.roll(2) == 0 {
            self.keep(stream);
        }
        Ok(())
    }

    /// It is refused, in words of the protocol.
    fn garbage(&mut self) -> Result<(), String> {
        let mut stream = self.connect()?;
        let length = 1 + self.dice.roll(600) as usize;
        let mut bytes: Vec<u8> = (0..length).map(|_| 1 + self.dice.roll(255) as u8).collect();
        bytes.push(0);
        // It may be refused, and the connection closed, before all of it is sent.
        let _ = stream.write_all(&bytes);
        match Reader::new(stream, 4096).answer()? {
            Some(_) => Ok(()),
            None => Err(format!("garbage is answered as if it were a request: {bytes:?}")),
        }
    }

    fn too_much(&mut self) -> Result<(), String> {
        let mut stream = self.connect()?;
        let _ = stream.write_all(&vec![b'{'; MAX_FRAME + 2]);
        match Reader::new(stream, 4096).answer() {
            Ok(None) => Err("a frame that is too long is answered".to_owned()),
            // What was not read of it when the connection was closed takes the refusal with it (unix(7)).
            Ok(Some(_)) | Err(_) => Ok(()),
        }
    }

    fn never_reads(&mut self) -> Result<(), String> {
        let mut stream = self.connect()?;
        // More than the kernel keeps for it.
        let _ = stream.write_all(&frame(&Request::Status { targets: Targets::All }).repeat(12));
        self.keep(stream);
        Ok(())
    }

    fn unread_stream(&mut self) -> Result<(), String> {
        let mut stream = self.connect()?;
        let _ = stream.write_all(&frame(&Request::Events { since_ms: None, last: None, follow: true }));
        self.keep(stream);
        Ok(())
    }

    fn gone(&mut self) -> Result<(), String> {
        let mut stream = self.connect()?;
        let other = &self.others[self.dice.roll(self.others.len() as u64) as usize];
        let (targets, timeout_ms) = (one(other), None);
        let request = match self.dice.roll(3) {
            0 => Request::Restart { targets, timeout_ms, rolling: None },
            1 => Request::Start { targets, timeout_ms, force: false },
            _ => Request::Status { targets: Targets::All },
        };
        let _ = stream.write_all(&frame(&request));
        Ok(())
    }
}

fn frame(request: &Request) -> Vec<u8> {
    encode_request(request).unwrap_or_default()
}

/// Reads answers, so many bytes at a time.
struct Reader {
    stream: UnixStream,
    buffer: FrameBuffer,
    most: usize,
}

impl Reader {
    fn new(stream: UnixStream, most: usize) -> Self {
        Self { stream, buffer: FrameBuffer::default(), most }
    }

    /// A whole one; or it is refused.
    fn answer(&mut self) -> Result<Option<Refusal>, String> {
        loop {
            let frame =
                self.buffer.next_frame().map_err(|_| "a frame of the answer is too long".to_owned())?;
            match frame.map(decode_reply).transpose().map_err(|error| format!("no reply: {error}"))? {
                Some(Reply::Part(_)) => continue,
                Some(Reply::End) => return Ok(None),
                Some(Reply::Refused(refusal)) => return Ok(Some(refusal)),
                None => {}
            }
            let mut chunk = vec![0; self.most.min(self.buffer.room())];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err("the connection ended before the answer".to_owned()),
                Ok(got) => drop(self.buffer.push(&chunk[..got])),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("no answer: {error}")),
            }
        }
    }
}

/// Somebody has it. `flock` of a file that nobody has ends at once with the descriptor.
fn is_held(lock: &Path) -> bool {
    let Ok(file) = File::open(lock) else { return false };
    flock(&file, FlockOperation::NonBlockingLockExclusive).is_err()
}
