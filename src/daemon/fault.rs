//! Debug builds only: ends or stops the supervisor at a chosen point, so that tests can kill it after every single effect.
//!
//! `HERMES_SUP_FAULT=kill@N` kills it where the N-th [`point`] is passed, `panic@N` makes it panic there once, `panics@N` also
//! each time after it has become itself again, and `stop@N` makes it stand still there until it is continued, but for a PID 1,
//! which cannot stop itself. A release build knows nothing of this.

/// Passed after each effect, and between the steps of a boot that another supervisor might have to finish.
#[cfg(not(debug_assertions))]
pub fn point() {}

#[cfg(debug_assertions)]
pub use debug::point;

#[cfg(debug_assertions)]
mod debug {
    use crate::daemon::upgrade::handover::VARIABLE as HANDOVER;
    use rustix::process::Signal;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[derive(Clone, Copy)]
    enum Fault {
        Signal(Signal),
        Panic,
    }

    fn wanted() -> Option<(Fault, u32)> {
        let text = std::env::var("HERMES_SUP_FAULT").ok()?;
        let (what, at) = text.split_once('@')?;
        let fault = match what {
            "kill" => Fault::Signal(Signal::KILL),
            "stop" => Fault::Signal(Signal::STOP),
            "panic" if std::env::var_os(HANDOVER).is_none() => Fault::Panic,
            "panics" => Fault::Panic,
            _ => return None,
        };
        Some((fault, at.parse().ok()?))
    }

    #[allow(clippy::panic, reason = "that is what it is asked for")]
    pub fn point() {
        static WANTED: OnceLock<Option<(Fault, u32)>> = OnceLock::new();
        static PASSED: AtomicU32 = AtomicU32::new(0);
        let Some((fault, at)) = *WANTED.get_or_init(wanted) else { return };
        if PASSED.fetch_add(1, Ordering::Relaxed) + 1 != at {
            return;
        }
        match fault {
            Fault::Signal(signal) => {
                let _ = rustix::process::kill_process(rustix::process::getpid(), signal);
            }
            Fault::Panic => panic!("asked for by HERMES_SUP_FAULT"),
        }
    }
}
