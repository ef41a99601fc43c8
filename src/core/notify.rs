//! What a service says on its notify socket, as sd_notify(3) has it: lines of `KEY=value` in one datagram.

use std::time::Duration;

/// Characters of a status that are kept.
const STATUS: usize = 200;
/// No more time is given at once.
const MOST_TIME: Duration = Duration::from_secs(24 * 60 * 60);

/// One datagram. Keys that we do not know are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    pub ready: bool,
    pub reloading: bool,
    pub stopping: bool,
    /// A sign of life.
    pub watchdog: bool,
    /// It gives itself up.
    pub trigger: bool,
    /// One line, without control characters.
    pub status: Option<String>,
    pub errno: Option<i32>,
    pub main_pid: Option<i32>,
    pub extend: Option<Duration>,
    /// It wants descriptors kept.
    pub store: bool,
}

fn shown(text: &str) -> String {
    text.chars().take(STATUS).map(|c| if c.is_control() { '?' } else { c }).collect()
}

impl Message {
    pub fn parse(datagram: &[u8]) -> Self {
        let mut message = Self::default();
        for line in datagram.split(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(line);
            let Some((key, value)) = line.split_once('=') else { continue };
            match (key, value) {
                ("READY", "1") => message.ready = true,
                ("RELOADING", "1") => message.reloading = true,
                ("STOPPING", "1") => message.stopping = true,
                ("WATCHDOG", "1") => message.watchdog = true,
                ("WATCHDOG", "trigger") => message.trigger = true,
                ("STATUS", text) => message.status = Some(shown(text)),
                ("ERRNO", number) => message.errno = number.parse().ok(),
                ("MAINPID", number) => message.main_pid = number.parse().ok(),
                ("EXTEND_TIMEOUT_USEC", number) => {
                    let time = number.parse().ok().map(Duration::from_micros);
                    message.extend = time.map(|time| time.min(MOST_TIME));
                }
                ("FDSTORE", "1") => message.store = true,
                _ => {}
            }
        }
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_taken_and_the_rest_left() {
        let said = Message::parse(
            b"READY=1\nSTATUS=Serving\x1b[31m 3\nMAINPID=12\nX_OTHER=1\nFDSTORE=1\nnonsense\n",
        );
        assert!(said.ready && said.store && !said.stopping);
        assert_eq!(
            (said.main_pid, said.status.as_deref().map(|text| text.contains('\x1b'))),
            (Some(12), Some(false))
        );
        let said = Message::parse(b"EXTEND_TIMEOUT_USEC=2500000\nERRNO=2\nWATCHDOG=1\nRELOADING=1");
        assert_eq!((said.extend, said.errno), (Some(Duration::from_millis(2500)), Some(2)));
        assert!(said.watchdog && said.reloading && !said.ready && !said.trigger);
        let said = Message::parse(b"STOPPING=1\nWATCHDOG=trigger");
        assert_eq!(said, Message { stopping: true, trigger: true, ..Message::default() });
        assert_eq!(Message::parse(b"EXTEND_TIMEOUT_USEC=99999999999999999").extend, Some(MOST_TIME));
        for nonsense in [&b""[..], b"=", b"READY=yes", b"MAINPID=x\nERRNO=\n", b"\xff\xfe=\xff"] {
            assert_eq!(Message::parse(nonsense), Message::default(), "{nonsense:?}");
        }
        assert_eq!(
            Message::parse(&[b"STATUS=".as_slice(), &[b'a'; 9000]].concat()).status.unwrap().len(),
            STATUS
        );
    }
}
