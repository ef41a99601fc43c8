//! One question to a service over the network: a connection that is made, or an answer to a GET. Nothing here waits.
//!
//! Invariants: a probe owns one socket, which is closed with it; of an answer no more than [`Reply::MOST`] bytes are kept; what a
//! service answers is data and can end a probe in no other way than by a [`Failure`].

pub mod http;

use crate::core::exit::Exit;
use http::Reply;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

/// Why a probe is no yes; the end of a sentence about it.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{}", words(.0))]
    Io(io::Error),
    #[error("no answer within {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    #[error("it answered with status {got} instead of {expected}")]
    Status { got: u16, expected: u16 },
    #[error("its answer does not contain '{0}'")]
    Missing(String),
    #[error("its answer is no HTTP")]
    NoHttp,
    #[error("it closed the connection without an answer")]
    Closed,
    #[error("{0}")]
    Exit(Exit),
    #[error("not written for {}", humantime::format_duration(Duration::from_secs(.0.as_secs())))]
    Old(Duration),
    #[error("no WATCHDOG=1 for {}", humantime::format_duration(*.0))]
    Silent(Duration),
    #[error("it says so itself (WATCHDOG=trigger)")]
    Confessed,
    /// We could not ask: that says nothing of the service.
    #[error("it could not be asked: {0}")]
    NotAsked(String),
}

impl Failure {
    /// It says something of the service.
    pub fn counts(&self) -> bool {
        !matches!(self, Self::NotAsked(_))
    }
}

/// The words of the kernel, without its number.
fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        io::ErrorKind::NotFound => "no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

/// What an HTTP answer must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    pub status: u16,
    /// Text in the body.
    pub contains: Option<String>,
}

#[derive(Debug)]
enum Talk {
    /// A connection is all that is asked for.
    Connect,
    Get {
        /// What is left of the request.
        request: Vec<u8>,
        reply: Reply,
    },
}

/// A probe under way.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    connected: bool,
    talk: Talk,
}

impl Connection {
    /// Only to connect.
    ///
    /// # Errors
    /// Those of socket(2), connect(2) and epoll_ctl(2).
    pub fn connect(registry: &Registry, token: Token, address: SocketAddr) -> io::Result<Self> {
        Self::begin(registry, token, address, Talk::Connect)
    }

    /// `GET target` from the `host`, as written in the URL.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub fn get(
        registry: &Registry,
        token: Token,
        address: SocketAddr,
        (host, target): (&str, &str),
        expected: Expected,
    ) -> io::Result<Self> {
        let request = http::request(host, target);
        Self::begin(registry, token, address, Talk::Get { request, reply: Reply::new(expected) })
    }

    fn begin(registry: &Registry, token: Token, address: SocketAddr, talk: Talk) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self { stream, connected: false, talk })
    }

    /// The socket has news. `None`: the answer is not there yet.
    pub fn ready(&mut self) -> Option<Result<(), Failure>> {
        match self.go_on() {
            Ok(answer) => answer,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => Some(Err(Failure::Io(error))),
        }
    }

    fn go_on(&mut self) -> io::Result<Option<Result<(), Failure>>> {
        if !self.connected {
            if let Some(error) = self.stream.take_error()? {
                return Err(error);
            }
            match self.stream.peer_addr() {
                Ok(_) => self.connected = true,
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let Talk::Get { request, reply } = &mut self.talk else { return Ok(Some(Ok(()))) };
        while !request.is_empty() {
            match self.stream.write(request) {
                Ok(0) => return Ok(Some(Err(Failure::Closed))),
                Ok(count) => drop(request.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let mut part = [0; 4096];
        loop {
            match self.stream.read(&mut part) {
                Ok(0) => return Ok(Some(reply.ended())),
                Ok(count) => {
                    if let Some(answer) = reply.take(part.get(..count).unwrap_or_default()) {
                        return Ok(Some(answer));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll};
    use std::net::TcpListener;

    const TOKEN: Token = Token(7);

    fn answer(poll: &mut Poll, connection: &mut Connection) -> Result<(), Failure> {
        let mut events = Events::with_capacity(8);
        loop {
            poll.poll(&mut events, Some(Duration::from_secs(20))).unwrap();
            assert!(!events.is_empty(), "nothing happened");
            if let Some(answer) = connection.ready() {
                return answer;
            }
        }
    }

    #[test]
    fn who_listens_is_reached_and_who_does_not_has_refused() {
        let mut poll = Poll::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut connection = Connection::connect(poll.registry(), TOKEN, address).unwrap();
        assert!(answer(&mut poll, &mut connection).is_ok());
        drop((listener, connection));
        let mut connection = Connection::connect(poll.registry(), TOKEN, address).unwrap();
        assert_eq!(answer(&mut poll, &mut connection).unwrap_err().to_string(), "connection refused");
    }

    /// What a server of these bytes makes of the probe, and what it was asked.
    fn served(response: &'static [u8], contains: Option<&str>) -> (String, String) {
        let mut poll = Poll::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                asked.push(byte[0]);
            }
            let _ = stream.write_all(response);
            String::from_utf8(asked).unwrap()
        });
        let expected = Expected { status: 200, contains: contains.map(str::to_owned) };
        let get = ("localhost:80", "/health");
        let mut connection = Connection::get(poll.registry(), TOKEN, address, get, expected).unwrap();
        let said = answer(&mut poll, &mut connection).map_or_else(|f| f.to_string(), |()| "yes".to_owned());
        (said, server.join().unwrap())
    }

    #[test]
    fn an_answer_is_judged_by_its_status_and_its_body() {
        let (said, asked) = served(b"HTTP/1.1 200 OK\r\n\r\nall is well", Some("well"));
        assert_eq!(said, "yes");
        assert!(asked.starts_with("GET /health HTTP/1.1\r\nHost: localhost:80\r\n"), "{asked}");
        assert_eq!(served(b"HTTP/1.0 200\r\n\r\n", None).0, "yes");
        for (response, said) in [
            (&b"HTTP/1.1 503 Busy\r\n\r\nwell"[..], "it answered with status 503 instead of 200"),
            (b"HTTP/1.1 200 OK\r\n\r\nill", "its answer does not contain 'well'"),
            (b"+PONG\r\n", "its answer is no HTTP"),
            (b"", "it closed the connection without an answer"),
        ] {
            assert_eq!(served(response, Some("well")).0, said);
        }
    }
}
