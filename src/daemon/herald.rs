//! What the supervisor tells the one that runs it, where that is systemd or speaks its language (sd_notify(3)): that it is ready, how
//! its services are, that its loop still turns, that it stops.
//!
//! Without `NOTIFY_SOCKET` it does nothing and costs nothing. Nothing here waits: a message that the socket does not take is lost,
//! and the next one says what is so then. Its variables are ours alone: a service that had them would speak for us.

use crate::core::clock::Tick;
use crate::core::fleet::Fleet;
use crate::core::words::State;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// What a service manager gives to the one process that it started, and to nobody below it (sd_listen_fds(3)).
const OURS: [&str; 6] =
    ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];

/// The services are not counted more often.
const GRAIN: Duration = Duration::from_secs(1);

/// What was told, and to whom. The default speaks to nobody.
#[derive(Debug, Default)]
pub struct Herald(Option<Told>);

#[derive(Debug)]
struct Told {
    socket: OwnedFd,
    to: SocketAddrUnix,
    /// Between two signs of life.
    beat: Option<Duration>,
    next_beat: Option<Tick>,
    status: String,
    /// When the services were counted.
    counted: Option<Tick>,
    /// They are to be counted then.
    count_at: Option<Tick>,
    stopping: bool,
}

/// Why nobody is told.
#[derive(Debug, thiserror::Error)]
pub enum HeraldError {
    #[error("NOTIFY_SOCKET is no path: nobody is told that the supervisor is ready")]
    Address,
    #[error("no socket for NOTIFY_SOCKET: {0}: nobody is told that the supervisor is ready")]
    Socket(Errno),
}

impl Herald {
    /// Takes what is ours out of the environment that services get.
    ///
    /// # Errors
    /// [`HeraldError`]: what it would speak to is not there.
    pub fn take(environment: &mut BTreeMap<OsString, OsString>) -> Result<Self, HeraldError> {
        let [socket, every, pid, ..] = OURS.map(|name| environment.remove(OsStr::new(name)));
        let Some(path) = socket.filter(|path| !path.is_empty()) else { return Ok(Self::default()) };
        let to = match path.as_bytes() {
            [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name),
            [b'/', ..] => SocketAddrUnix::new(path.as_bytes()),
            _ => return Err(HeraldError::Address),
        };
        let to = to.map_err(|_| HeraldError::Address)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)
            .map_err(HeraldError::Socket)?;
        let number = |text: Option<OsString>| text.and_then(|text| text.to_str()?.parse::<u64>().ok());
        let own = number(pid).is_none_or(|pid| pid == u64::from(std::process::id()));
        // Half the time, so that one that is late does no harm.
        let beat =
            number(every).filter(|micros| own && *micros > 0).map(|micros| Duration::from_micros(micros / 2));
        Ok(Self(Some(Told {
            socket,
            to,
            beat,
            next_beat: None,
            status: String::new(),
            counted: None,
            count_at: None,
            stopping: false,
        })))
    }

    /// At each turn of the loop.
    pub fn turn(&mut self, now: Tick, stopping: bool, fleet: &Fleet) {
        let Some(told) = &mut self.0 else { return };
        let mut words = Vec::new();
        let is_first = told.counted.is_none();
        if stopping && !told.stopping {
            told.stopping = true;
            words.push("STOPPING=1".to_owned());
        } else if is_first && !stopping {
            words.push("READY=1".to_owned());
        }
        if told.counted.is_none_or(|at| at.after(GRAIN) <= now) {
            told.counted = Some(now);
            told.count_at = None;
            let status = status(fleet);
            if status != told.status {
                words.push(format!("STATUS={status}"));
                told.status = status;
            }
        } else {
            told.count_at = told.counted.map(|at| at.after(GRAIN));
        }
        if let Some(beat) = told.beat
            && told.next_beat.is_none_or(|at| at <= now)
        {
            told.next_beat = Some(now.after(beat));
            words.push("WATCHDOG=1".to_owned());
        }
        if !words.is_empty() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let _ = rustix::net::sendto(&told.socket, words.join("\n").as_bytes(), flags, &told.to);
        }
    }

    pub fn next_deadline(&self) -> Option<Tick> {
        let told = self.0.as_ref()?;
        [told.next_beat, told.count_at].into_iter().flatten().min()
    }
}

fn status(fleet: &Fleet) -> String {
    let states = || fleet.ids().filter_map(|id| fleet.gateway(id)).map(|service| service.state());
    let count = |wanted: &[State]| states().filter(|state| wanted.contains(state)).count();
    let all = states().count();
    let up = count(&[State::Up, State::Ready]);
    let failed = match count(&[State::Failed]) {
        0 => String::new(),
        failed => format!(", {failed} failed"),
    };
    format!("{up} of {all} services up{failed}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    fn variables(pairs: &[(&str, &str)]) -> BTreeMap<OsString, OsString> {
        pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    fn heard(listener: &UnixDatagram) -> Vec<String> {
        listener.set_nonblocking(true).unwrap();
        let mut buffer = [0; 512];
        let next =
            || listener.recv(&mut buffer).ok().map(|n| String::from_utf8_lossy(&buffer[..n]).into_owned());
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn what_a_manager_is_told_and_when() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        let pid = std::process::id().to_string();
        let mut environment = variables(&[
            ("NOTIFY_SOCKET", path.to_str().unwrap()),
            ("WATCHDOG_USEC", "3000000"),
            ("WATCHDOG_PID", &pid),
            ("LISTEN_FDS", "1"),
            ("PATH", "/bin"),
        ]);
        let mut herald = Herald::take(&mut environment).unwrap();
        assert_eq!(environment, variables(&[("PATH", "/bin")]), "a service would speak for us");
        let fleet = Fleet::default();
        herald.turn(Tick(1000), false, &fleet);
        assert_eq!(heard(&listener), ["READY=1\nSTATUS=0 of 0 services up\nWATCHDOG=1"]);
        // What happens at once after a count is counted a second later.
        herald.turn(Tick(1200), false, &fleet);
        assert_eq!(heard(&listener), [""; 0]);
        assert_eq!(herald.next_deadline(), Some(Tick(2000)));
        herald.turn(Tick(2000), false, &fleet);
        assert_eq!((heard(&listener), herald.next_deadline()), (Vec::new(), Some(Tick(2500))));
        herald.turn(Tick(2500), true, &fleet);
        assert_eq!(heard(&listener), ["STOPPING=1\nWATCHDOG=1"]);
        // Nobody reads: nothing waits.
        for turn in 0..10_000 {
            herald.turn(Tick(10_000 + turn * 2000), true, &fleet);
        }
    }

    #[test]
    fn without_a_manager_nothing_is_said_and_nothing_is_due() {
        for pairs in [&[][..], &[("NOTIFY_SOCKET", "")], &[("WATCHDOG_USEC", "1000")]] {
            let mut herald = Herald::take(&mut variables(pairs)).unwrap();
            herald.turn(Tick(1), false, &Fleet::default());
            assert_eq!(herald.next_deadline(), None);
        }
        assert!(Herald::take(&mut variables(&[("NOTIFY_SOCKET", "vsock:2:1234")])).is_err());
        // Another process is watched.
        let other = [("NOTIFY_SOCKET", "/none"), ("WATCHDOG_USEC", "1000"), ("WATCHDOG_PID", "1")];
        assert!(Herald::take(&mut variables(&other)).unwrap().0.unwrap().beat.is_none());
    }
}
