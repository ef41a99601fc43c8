//! `--metrics ADDRESS`: `/metrics`, `/healthz` and `/readyz` over HTTP, for Prometheus and for probes.
//!
//! A few threads of its own, which ask the supervisor over its socket as any client does: the loop knows nothing of HTTP, and waits
//! for none of its clients. Each thread serves one client at a time, reads [`MOST`] bytes of it and gives it [`PATIENCE`]. Nothing
//! can be changed from here. Who may connect is the network's matter: there is no password.

use super::{prometheus, verdict};
use crate::control::client::{Client, ClientError, Search};
use crate::control::protocol::{Part, Request, ServiceStatus, SupervisorStatus, Targets};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// So many clients at once; others wait in the kernel's queue.
const THREADS: usize = 4;
/// All that a thread needs, with the status of thousands on the heap.
const STACK: usize = 256 << 10;
/// Bytes of a request that are looked at.
const MOST: usize = 8 << 10;
const HEADERS: usize = 64;
/// How long a client may take to say what it wants, and to take it.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the supervisor may take to answer.
const SUPERVISOR_PATIENCE: Duration = Duration::from_secs(5);

/// Listens, and serves from now on. The address that it listens on.
///
/// # Errors
/// Of the address, or when there can be no thread.
pub fn start(address: SocketAddr, socket: &Path) -> io::Result<SocketAddr> {
    let listener = Arc::new(TcpListener::bind(address)?);
    let search = Search { explicit: Some(socket.to_owned()), state: socket.to_owned() };
    for _ in 0..THREADS {
        let (listener, search) = (listener.clone(), search.clone());
        std::thread::Builder::new().name("metrics".to_owned()).stack_size(STACK).spawn(move || {
            loop {
                // What fails for one client (too many descriptors, a connection that is gone) need not for the next.
                if let Ok((stream, _)) = listener.accept() {
                    let _ = serve(stream, &search);
                }
            }
        })?;
    }
    listener.local_addr()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Page {
    Metrics,
    /// The supervisor answers.
    Health,
    /// All that is wanted is up, ready and well.
    Ready,
}

/// What a client gets.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    /// With its words.
    status: &'static str,
    kind: &'static str,
    body: String,
}

impl Answer {
    fn plain(status: &'static str, line: impl std::fmt::Display) -> Self {
        Self { status, kind: "text/plain; charset=utf-8", body: format!("{line}\n") }
    }
}

const OK: &str = "200 OK";
const UNAVAILABLE: &str = "503 Service Unavailable";

fn serve(mut stream: TcpStream, search: &Search) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let (page, only_head) = match read(&mut stream)? {
        Ok(asked) => asked,
        Err(refusal) => return send(&mut stream, &refusal, false),
    };
    let answer = answer(page, search).unwrap_or_else(|error| Answer::plain(UNAVAILABLE, error));
    send(&mut stream, &answer, only_head)
}

fn answer(page: Page, search: &Search) -> Result<Answer, ClientError> {
    let mut client = Client::connect(search)?;
    if page == Page::Health {
        client.call(&Request::List {}, Some(SUPERVISOR_PATIENCE), |_| {})?;
        return Ok(Answer::plain(OK, "the supervisor answers"));
    }
    let (mut supervisor, mut services): (Option<SupervisorStatus>, Vec<ServiceStatus>) = (None, Vec::new());
    client.call(
        &Request::Status { targets: Targets::All },
        Some(SUPERVISOR_PATIENCE),
        |part| match part {
            Part::Supervisor(status) => supervisor = Some(*status),
            Part::Service(service) => services.push(*service),
            _ => {}
        },
    )?;
    let Some(supervisor) = supervisor else {
        return Err(ClientError::Ended { path: client.path().to_owned() });
    };
    if page == Page::Metrics {
        let body = prometheus::text(&supervisor, &services);
        return Ok(Answer { status: OK, kind: prometheus::CONTENT_TYPE, body });
    }
    let verdict = verdict::judge(&services, false);
    Ok(match (supervisor.stopping, verdict.is_well()) {
        (true, _) => Answer::plain(UNAVAILABLE, "the supervisor is shutting down"),
        (false, true) => Answer::plain(OK, verdict),
        (false, false) => Answer::plain(UNAVAILABLE, verdict),
    })
}

/// What is asked for, and whether only the head of the answer; or what is wrong with the request.
fn read(stream: &mut TcpStream) -> io::Result<Result<(Page, bool), Answer>> {
    let end = Instant::now() + PATIENCE;
    let (mut bytes, mut length) = ([0; MOST], 0);
    loop {
        if let Some(asked) = parse(&bytes[..length]) {
            return Ok(asked);
        }
        if length == MOST {
            return Ok(Err(Answer::plain("431 Request Header Fields Too Large", "that is more than I read")));
        }
        // A byte now and then is no reason to wait for ever.
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut bytes[length..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => length += more,
        }
    }
}

/// `None`: there is more to come.
fn parse(bytes: &[u8]) -> Option<Result<(Page, bool), Answer>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Partial) => return None,
        Ok(httparse::Status::Complete(_)) => {}
        Err(error) => return Some(Err(Answer::plain("400 Bad Request", error))),
    }
    let only_head = match request.method.unwrap_or_default() {
        "GET" => false,
        "HEAD" => true,
        _ => return Some(Err(Answer::plain("405 Method Not Allowed", "only GET and HEAD are answered"))),
    };
    let path = request.path.unwrap_or_default();
    let page = match path.split('?').next().unwrap_or_default() {
        "/metrics" => Page::Metrics,
        "/healthz" => Page::Health,
        "/readyz" => Page::Ready,
        _ => return Some(Err(Answer::plain("404 Not Found", "there are /metrics, /healthz and /readyz"))),
    };
    Some(Ok((page, only_head)))
}

fn send(stream: &mut TcpStream, answer: &Answer, only_head: bool) -> io::Result<()> {
    let Answer { status, kind, body } = answer;
    let mut text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    if !only_head {
        text.push_str(body);
    }
    stream.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_when_it_is_whole_and_refused_in_words() {
        let status = |text: &str| parse(text.as_bytes()).map(|asked| asked.map_err(|refusal| refusal.status));
        assert_eq!(status("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"), Some(Ok((Page::Metrics, false))));
        assert_eq!(status("HEAD /healthz HTTP/1.0\r\n\r\n"), Some(Ok((Page::Health, true))));
        assert_eq!(status("GET /readyz?verbose HTTP/1.1\r\n\r\n"), Some(Ok((Page::Ready, false))));
        assert_eq!(status("GET /metrics HTTP/1.1\r\nHost: x\r\n"), None);
        assert_eq!(status(""), None);
        assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), Some(Err("404 Not Found")));
        assert_eq!(status("POST /metrics HTTP/1.1\r\n\r\n"), Some(Err("405 Method Not Allowed")));
        assert_eq!(status("\x16\x03\x01 hello"), Some(Err("400 Bad Request")));
        let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HEADERS + 1));
        assert_eq!(status(&many), Some(Err("400 Bad Request")));
    }

    /// No supervisor answers: the endpoint does, and says so. A client that says nothing holds up no other one.
    #[test]
    fn without_a_supervisor_there_is_an_answer_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let address = start("127.0.0.1:0".parse().unwrap(), &dir.path().join("none")).unwrap();
        let _silent: Vec<TcpStream> = (1..THREADS).map(|_| TcpStream::connect(address).unwrap()).collect();
        for (path, status) in [("/healthz", "503"), ("/readyz", "503"), ("/metrics", "503"), ("/x", "404")] {
            let mut stream = TcpStream::connect(address).unwrap();
            write!(stream, "GET {path} HTTP/1.1\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
        }
    }
}
