//! What `[ready]` and `[health]` look at, how often, and what follows.

use super::values::ValueError;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// One question to a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// Somebody accepts connections at this address.
    Tcp(SocketAddr),
    /// Somebody accepts connections at this socket; absolute.
    Unix(PathBuf),
    Http(Http),
    /// argv, as `command`; exit code 0 is a yes.
    Exec(Vec<String>),
    /// The file was written within this time; absolute.
    FileAge {
        path: PathBuf,
        max_age: Duration,
    },
}

/// A GET whose answer must be as is said here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    pub address: SocketAddr,
    /// As in the URL, for the header `Host`.
    pub host: String,
    /// Path and query; begins with a slash.
    pub target: String,
    pub status: u16,
    /// Text in the body.
    pub contains: Option<String>,
}

impl Probe {
    /// It looks at files, which may lie where a disk hangs. Then there is no answer, and that says nothing of the service.
    pub fn is_of_files(&self) -> bool {
        matches!(self, Self::Unix(_) | Self::FileAge { .. })
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp probe of {address}"),
            Self::Unix(path) => write!(f, "unix probe of {}", path.display()),
            Self::Http(http) => write!(f, "http probe of http://{}{}", http.host, http.target),
            Self::Exec(argv) => write!(f, "exec probe {}", argv.first().map_or("", String::as_str)),
            Self::FileAge { path, .. } => write!(f, "file-age probe of {}", path.display()),
        }
    }
}

/// A probe, again and again until it says yes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub probe: Arc<Probe>,
    /// From the begin of one to the begin of the next.
    pub interval: Duration,
}

/// What tells whether a service that runs does its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    Probe(Arc<Probe>),
    /// The service says `WATCHDOG=1` on its notify socket within [`Health::timeout`], again and again.
    Watchdog,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    pub check: Check,
    pub interval: Duration,
    /// Of one probe, or between two signs of life.
    pub timeout: Duration,
    /// So many in a row are an illness.
    pub failures: u32,
    /// From when it runs, or is ready if it says so; failures within it do not count.
    pub start_period: Duration,
    pub action: Remedy,
}

/// What is done about an unhealthy service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    Restart,
    /// Only told.
    Mark,
    /// Its tree is frozen and waits for an operator.
    Quarantine,
}

/// `IP:PORT`, or `localhost:PORT`. Names are not looked up: that may take as long as it likes.
pub(super) fn address(text: &str) -> Result<SocketAddr, ValueError> {
    let local = text.strip_prefix("localhost:").and_then(|port| port.parse().ok());
    local
        .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .or_else(|| text.parse().ok())
        .filter(|address| address.port() != 0)
        .ok_or(ValueError::NoAddress)
}

/// Where a URL leads: address, host as written, path and query.
pub(super) fn url(text: &str) -> Result<(SocketAddr, String, String), ValueError> {
    let rest = text.strip_prefix("http://").ok_or(ValueError::NoUrl)?;
    let (host, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let is_plain = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let full = if has_port { host.to_owned() } else { format!("{host}:80") };
    let address = address(&full).ok().filter(|_| is_plain).ok_or(ValueError::NoUrl)?;
    let target = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Ok((address, host.to_owned(), target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_number_and_a_port() {
        for (text, expected) in [
            ("127.0.0.1:6379", Some("127.0.0.1:6379")),
            ("localhost:80", Some("127.0.0.1:80")),
            ("[::1]:80", Some("[::1]:80")),
            ("redis:6379", None),
            ("127.0.0.1", None),
            ("127.0.0.1:0", None),
            (":80", None),
            ("", None),
        ] {
            assert_eq!(address(text).ok().map(|at| at.to_string()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_url_is_taken_apart() {
        for (text, expected) in [
            (
                "http://127.0.0.1:8080/health?full=1",
                Some(("127.0.0.1:8080", "127.0.0.1:8080", "/health?full=1")),
            ),
            ("http://localhost", Some(("127.0.0.1:80", "localhost", "/"))),
            ("http://localhost?a", Some(("127.0.0.1:80", "localhost", "/?a"))),
            ("http://[::1]:81/", Some(("[::1]:81", "[::1]:81", "/"))),
            ("http://[::1]/", Some(("[::1]:80", "[::1]", "/"))),
            ("https://localhost/", None),
            ("http://example.org/", None),
            ("http://localhost/a b", None),
            ("http://localhost/\r\nX: y", None),
            ("http://", None),
        ] {
            let found = url(text).ok();
            let found = found.as_ref().map(|(at, host, path)| (at.to_string(), host.as_str(), path.as_str()));
            assert_eq!(found, expected.map(|(at, host, path)| (at.to_owned(), host, path)), "{text}");
        }
    }
}
