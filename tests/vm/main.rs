//! The vm tier: the binary as PID 1 of a whole machine, with a kernel of its own, every cgroup controller, a disk, and a
//! power supply that can be cut. `tests/run vm` provides qemu, the kernel and the static binaries.
//!
//! A scenario is a test:
//!
//! ```ignore
//! let volume = Volume::new(64);                                  // an ext4 disk of 64 MiB, owned by hermes
//! let machine = Setup::new()
//!     .adversary("coder", "tree 20", "autostart = false")        // a definition that runs tests/adversaries
//!     .boot(&volume);                                            // returns when the supervisor answers
//! machine.ctl(&["start", "coder"]).ok();                         // a command inside, to its end
//! let stopping = machine.send(&["/hermes-sup", "ctl", "stop", "coder"]);   // one that is left running
//! machine.cut();                                                 // the plug is pulled; nobody is answered any more
//! drop(machine);                                                 // it is off
//! let again = Setup::new().boot(&volume);                        // the same disk in the next life
//! assert_eq!(again.shutdown(3).code, 3);                         // PID 1 ended with this code, and the machine with it
//! ```
//!
//! There is no shell inside: what a scenario wants to see it asks `ctl`, or `/adversary census`, `show` and the like
//! (tests/adversaries/machine.rs). It waits for answers and for lines of the console, never for time to pass. Processors
//! are emulated, some ten times slower than real ones, so a bound on time is a promise of the product or a deadline
//! of the harness, never a measure of speed; figures worth a look are printed with [`harness::figure`].

mod boot;
mod disk;
mod harness;
mod limits;
mod power;
mod shares;
mod trees;
