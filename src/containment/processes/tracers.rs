//! The process that traces another one from outside its tree (ptrace(2)), and so keeps it from ending.
//!
//! A traced process that is killed stops once more on its way out if its tracer asked for that (PTRACE_EVENT_EXIT), and when it
//! is dead its parent cannot reap it before the tracer has (kernel/exit.c, `wait_consider_task`). Neither a second SIGKILL nor
//! `cgroup.kill` changes that. The end of the tracer does: it lets go of all that it traced (ptrace(2), "Death under ptrace").
//! So a tracer that belongs to another service is killed, and every other one is named.

use crate::containment::IncarnationId;
use crate::containment::event::Event;
use crate::containment::hold::Containment;
use crate::core::signal::Signal;
use crate::sys::pidfd::Pidfd;
use procfs::process::Process;
use std::collections::HashSet;
use std::fmt;

/// A process and its tracer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traced {
    pub pid: i32,
    pub tracer: i32,
    /// The tracer's name, as in proc_pid_comm(5).
    pub command: String,
}

impl fmt::Display for Traced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {} is traced by pid {} ({})", self.pid, self.tracer, self.command)
    }
}

/// Those of `pids` that are traced by a process that is not among them. One line for each pair.
fn traced(pids: &[i32]) -> Vec<Traced> {
    let inside: HashSet<i32> = pids.iter().copied().collect();
    let mut found = Vec::new();
    for pid in pids {
        let tracers: HashSet<i32> =
            tracers(*pid).into_iter().filter(|tracer| !inside.contains(tracer)).collect();
        found.extend(tracers.into_iter().map(|tracer| {
            let stat = Process::new(tracer).and_then(|process| process.stat());
            Traced { pid: *pid, tracer, command: stat.map(|stat| stat.comm).unwrap_or_default() }
        }));
    }
    found
}

/// The processes that trace a thread of this one; those that we cannot see are not among them.
fn tracers(pid: i32) -> Vec<i32> {
    let Ok(tasks) = Process::new(pid).and_then(|process| process.tasks()) else { return Vec::new() };
    let threads = tasks.flatten().filter_map(|task| Some(task.status().ok()?.tracerpid));
    // A thread of the tracer traces, and /proc shows threads by their number, too.
    let process_of = |thread: i32| Some(super::status(thread)?.tgid);
    threads.filter(|tracer| *tracer != 0).filter_map(process_of).collect()
}

impl Containment {
    /// As [`traced`], of a tree with its dead that nobody has reaped.
    pub(super) fn traced(&self, id: &IncarnationId) -> Vec<Traced> {
        self.held(id).map(|held| traced(&held.unreaped())).unwrap_or_default()
    }

    /// Of a tree that was killed a while ago and is not empty: ends the tracers that keep it, as far as they belong to other
    /// services, and says so, once of each.
    pub(in crate::containment) fn end_tracers(&mut self, slot: u32) {
        let Some(id) = self.held_in(slot).map(|held| held.id().clone()) else { return };
        for traced in self.traced(&id) {
            let Ok(tracer) = Pidfd::open(traced.tracer) else { continue };
            let owner = self.owner(traced.tracer).filter(|owner| *owner != id);
            // Looked at again behind the pidfd: a number may have changed hands.
            let ends = owner.is_some() && tracers(traced.pid).contains(&traced.tracer);
            if ends && tracer.send(Signal::KILL).is_err() {
                continue;
            }
            if let Some(held) = owner.as_ref().filter(|_| ends).and_then(|owner| self.held(owner)) {
                held.was_struck();
            }
            if self.is_first_word_of(slot, traced.tracer) {
                let text = match owner.filter(|_| ends) {
                    Some(owner) => format!(
                        "{traced} of '{}', which keeps it from ending: killed that tracer",
                        owner.name
                    ),
                    None => format!("{traced}, which keeps it from ending: end that tracer"),
                };
                self.events.push(Event::Degraded { id: id.clone(), text });
            }
        }
    }
}
