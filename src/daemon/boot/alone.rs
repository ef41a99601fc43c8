//! Where another supervisor has the state, or has got it: the main program runs without one.

use crate::core::signal::Signal;
use crate::daemon::main_program::MainProgram;
use crate::sys::reap;
use crate::sys::signal::SignalFd;
use rustix::event::{PollFd, PollFlags};

/// An init and nothing else: signals go to the main program, children are reaped, its exit code is ours.
pub(in crate::daemon) fn alone(mut main: MainProgram, signals: &SignalFd, log: &slog::Logger) -> u8 {
    let mut asked = false;
    loop {
        while let Ok(reaped) = reap::next() {
            if let Some(Some(code)) = main.ended(reaped, None) {
                // As with a supervisor: only a program that ended by itself says how the container ended.
                return if asked { 0 } else { code };
            }
        }
        let mut wait = [PollFd::new(signals, PollFlags::IN)];
        let _ = rustix::event::poll(&mut wait, None);
        while let Ok(Some(received)) = signals.read() {
            match received.signal {
                Signal::CHLD | Signal::TSTP | Signal::TTIN | Signal::TTOU => {}
                Signal::TERM | Signal::RTMIN_PLUS_3 | Signal::PWR => {
                    main.signal(if asked { Signal::KILL } else { Signal::TERM });
                    asked = true;
                }
                signal => main.signal(signal),
            }
        }
        if let Some(words) = main.reported(None) {
            slog::error!(log, "{words}");
        }
    }
}
