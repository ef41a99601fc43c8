//! Who asked the supervisor by a signal to shut down, and what the exit code says of it.
//!
//! `docker stop` and the kubelet are outside the PID namespace of the container: signalfd(2) shows them as pid 0, and the end
//! that they ask for is the one that was wanted. A service that signals its supervisor ends the container as an accident or an
//! attack would: then the exit code is that of the signal, so that a restart policy acts on it.

use crate::core::name::ServiceName;
use crate::core::signal::Signal;
use crate::daemon::Supervisor;
use crate::sys::kernel_text;
use crate::sys::signal::Received;
use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sender {
    /// The kernel, or a process that our PID namespace does not show.
    Outside,
    /// A process of a service.
    Service { name: ServiceName, pid: u32, command: String },
    /// Another process beside us: of the main program, of `docker exec`, of the host.
    Beside { pid: u32, command: String },
    /// It has ended since: nobody knows whose it was.
    Gone { pid: u32, uid: u32 },
}

impl Sender {
    /// The exit code that a shutdown by `signal` has because of its sender; `None`: as any other. `alone`: we are PID 1, so
    /// that all whose number we see are in our container.
    pub fn exit_code(&self, signal: Signal, alone: bool) -> Option<u8> {
        let of_signal = u8::try_from(128 + signal.number()).ok();
        match self {
            Self::Service { .. } => of_signal,
            // Most probably a kill(1) that a service has run.
            Self::Gone { .. } => of_signal.filter(|_| alone),
            Self::Outside | Self::Beside { .. } => None,
        }
    }
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside => f.write_str("outside"),
            Self::Service { name, pid, command } => write!(f, "pid {pid} ({command}) of service '{name}'"),
            Self::Beside { pid, command } => write!(f, "pid {pid} ({command})"),
            Self::Gone { pid, uid } => write!(f, "pid {pid} of uid {uid}, which has ended"),
        }
    }
}

impl Supervisor {
    /// Who sent a signal, as far as that can still be seen.
    pub(in crate::daemon) fn sender(&self, received: Received) -> Sender {
        let Received { pid, uid, .. } = received;
        let Some(number) = i32::try_from(pid).ok().filter(|pid| *pid != 0) else { return Sender::Outside };
        let Ok(command) = kernel_text::read(&format!("/proc/{pid}/comm")) else {
            return Sender::Gone { pid, uid };
        };
        let command = command.trim_end().to_owned();
        match self.containment.owner(number) {
            Some(id) => Sender::Service { name: id.name, pid, command },
            None => Sender::Beside { pid, command },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_service_gives_the_container_the_code_of_its_signal() {
        let name = ServiceName::new("web").unwrap();
        let command = "sh".to_owned();
        let service = Sender::Service { name, pid: 7, command: command.clone() };
        let beside = Sender::Beside { pid: 7, command };
        let gone = Sender::Gone { pid: 7, uid: 0 };
        let codes = |signal, alone| {
            [&Sender::Outside, &service, &beside, &gone].map(|sender| sender.exit_code(signal, alone))
        };
        assert_eq!(codes(Signal::TERM, true), [None, Some(143), None, Some(143)]);
        assert_eq!(codes(Signal::TERM, false), [None, Some(143), None, None]);
        assert_eq!(codes(Signal::RTMIN_PLUS_3, true), [None, Some(165), None, Some(165)]);
        assert_eq!(service.to_string(), "pid 7 (sh) of service 'web'");
    }
}
