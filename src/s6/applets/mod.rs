//! The tools of s6, and the two of systemd that a gateway calls, as names of this binary: what an unmodified Hermes
//! image calls, answered by our supervisor.
//!
//! ```text
//! argv[0] ─▶ applet (the table) ─▶ svc · svstat · svwait · svscanctl ─▶ ask ─▶ control socket
//!                               └▶ setuidgid · contenv · execlineb ─▶ exec (the command takes our place)
//!                               └▶ systemd (`systemd-run`, `systemctl`)
//!                               └▶ sleep · log (stdin to rotated files)
//! ```
//!
//! * An applet is chosen by the file name in `argv[0]` and by nothing else, before anything else is done.
//! * The clients supervise nothing and keep nothing: they turn a directory into a service's name (`target`), ask the
//!   supervisor, and say what came of it in the words and exit codes of s6. They add one thing to s6: they wait for
//!   the result, so a failure is an exit code and a line on stderr.
//! * The texts and codes are an interface that others parse (`s6-svstat` most of all): tests hold them.
//! * What s6 can do and this cannot is refused as wrong usage (exit code 100) and says so; it is never ignored.
//!
//! Exit codes, as in s6 (those of systemd's two are in `systemd`): 0 done · 1 the operation failed (`s6-svstat`: not supervised) · 99 timed out · 100 wrong usage ·
//! 102 no such slot, or no supervisor · 111 the system refused, permissions included · 126, 127 the command could not
//! be executed, or was not found.

pub mod applet;
mod ask;
mod contenv;
mod exec;
mod execlineb;
mod log;
mod options;
mod setuidgid;
mod sleep;
mod svc;
mod svscanctl;
mod svstat;
mod svwait;
mod systemd;
mod target;
mod wait;
