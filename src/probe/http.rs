//! A GET and what may be read of its answer.

use super::{Expected, Failure};

/// HTTP/1.1 with a connection of its own: a body ends at the latest with it.
pub(super) fn request(host: &str, target: &str) -> Vec<u8> {
    format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: hermes-sup\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )
    .into_bytes()
}

/// An answer as far as it has come.
#[derive(Debug)]
pub struct Reply {
    expected: Expected,
    bytes: Vec<u8>,
    /// Where the body begins, once the head is there and as expected.
    body: Option<usize>,
}

impl Reply {
    /// Bytes of head and body that are looked at.
    pub const MOST: usize = 64 * 1024;
    /// Header lines.
    const LINES: usize = 64;

    pub fn new(expected: Expected) -> Self {
        Self { expected, bytes: Vec::new(), body: None }
    }

    /// More of it. `None`: it is not decided yet.
    pub fn take(&mut self, part: &[u8]) -> Option<Result<(), Failure>> {
        let room = Self::MOST.saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(part.get(..room.min(part.len())).unwrap_or_default());
        if self.body.is_none() {
            let mut headers = [httparse::EMPTY_HEADER; Self::LINES];
            let mut head = httparse::Response::new(&mut headers);
            match head.parse(&self.bytes) {
                Ok(httparse::Status::Partial) if self.is_full() => return Some(Err(Failure::NoHttp)),
                Ok(httparse::Status::Partial) => return None,
                Ok(httparse::Status::Complete(body)) => {
                    let (got, expected) = (head.code.unwrap_or_default(), self.expected.status);
                    if got != expected {
                        return Some(Err(Failure::Status { got, expected }));
                    }
                    self.body = Some(body);
                }
                Err(_) => return Some(Err(Failure::NoHttp)),
            }
        }
        let found = self.expected.contains.as_ref().is_none_or(|text| {
            let body = self.bytes.get(self.body.unwrap_or_default()..).unwrap_or_default();
            String::from_utf8_lossy(body).contains(text.as_str())
        });
        match (found, self.is_full()) {
            (true, _) => Some(Ok(())),
            (false, true) => Some(self.ended()),
            (false, false) => None,
        }
    }

    fn is_full(&self) -> bool {
        self.bytes.len() >= Self::MOST
    }

    /// Nothing more comes.
    pub fn ended(&self) -> Result<(), Failure> {
        Err(match (&self.expected.contains, self.body) {
            (Some(text), Some(_)) => Failure::Missing(text.clone()),
            _ if self.bytes.is_empty() => Failure::Closed,
            _ => Failure::NoHttp,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(contains: Option<&str>) -> Reply {
        Reply::new(Expected { status: 200, contains: contains.map(str::to_owned) })
    }

    #[test]
    fn it_is_decided_as_soon_as_it_can_be_however_it_is_cut() {
        let whole = b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nin good health";
        let mut reply = reply(Some("good"));
        let decided = whole.iter().position(|byte| reply.take(&[*byte]).is_some()).unwrap();
        assert_eq!(&whole[decided - 3..=decided], b"good");
    }

    #[test]
    fn no_more_is_kept_than_is_looked_at() {
        let mut endless = reply(Some("good"));
        assert!(endless.take(b"HTTP/1.1 200 OK\r\n\r\n").is_none());
        let said = (0..1000).find_map(|_| endless.take(&[b'x'; 1024])).unwrap();
        assert!(matches!(said, Err(Failure::Missing(_))));
        assert_eq!(endless.bytes.len(), Reply::MOST);
        let mut head = reply(None);
        assert!(head.take(b"HTTP/1.1 200 OK\r\nA: ").is_none());
        assert!(matches!((0..1000).find_map(|_| head.take(&[b'x'; 1024])), Some(Err(Failure::NoHttp))));
    }
}
