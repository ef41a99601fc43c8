//! Who traces a process from outside its tree (ptrace(2)), and so keeps it from ending.
//!
//! A traced process that is killed stops once more on its way out if its tracer asked for that (PTRACE_EVENT_EXIT), and when it
//! is dead its parent cannot reap it before the tracer has (kernel/exit.c, `wait_consider_task`). Neither a second SIGKILL nor
//! `cgroup.kill` changes that. The end of the tracer does: whatever it traced is let go (ptrace(2), "Death under ptrace").
//! So a tracer that is of another service is killed, and every other one is named.

use super::hold::{Containment, On};
use super::{Event, IncarnationId};
use crate::core::signal::Signal;
use crate::sys::kernel_text;
use crate::sys::pidfd::Pidfd;
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

/// Those of `pids` that a process traces which is not among them. One line for each two.
pub fn traced(pids: &[i32]) -> Vec<Traced> {
    let inside: HashSet<i32> = pids.iter().copied().collect();
    let mut found = Vec::new();
    for pid in pids {
        let tracers: HashSet<i32> =
            tracers(*pid).into_iter().filter(|tracer| !inside.contains(tracer)).collect();
        found.extend(tracers.into_iter().map(|tracer| {
            let command = kernel_text::read(&format!("/proc/{tracer}/comm")).unwrap_or_default();
            Traced { pid: *pid, tracer, command: command.trim_end().to_owned() }
        }));
    }
    found
}

/// The processes that trace a thread of this one; those that we cannot see are not among them.
fn tracers(pid: i32) -> Vec<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let threads = tasks.filter_map(|task| field(&task.path().join("status").to_string_lossy(), "TracerPid:"));
    // It is a thread of the tracer that traces.
    threads
        .filter(|tracer| *tracer != 0)
        .filter_map(|tracer| field(&format!("/proc/{tracer}/status"), "Tgid:"))
        .collect()
}

fn field(path: &str, key: &str) -> Option<i32> {
    let text = kernel_text::read(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key))?.trim().parse().ok()
}

impl Containment {
    /// As [`traced`], of a tree with its dead that nobody has reaped.
    pub(super) fn traced(&self, id: &IncarnationId) -> Vec<Traced> {
        let mut pids = self.processes(id);
        if let Some(On::Cgroup(cage)) = self.held(id).map(|held| &held.on)
            && let Some(main) = cage.unreaped_main().filter(|main| !pids.contains(main))
        {
            pids.push(main);
        }
        traced(&pids)
    }

    /// Of a tree that was killed a while ago and is not empty: ends the tracers that keep it, as far as they are of other
    /// services, and says so, once of each.
    pub(super) fn end_tracers(&mut self, slot: u32, events: &mut Vec<Event>) {
        let Some(id) = self.held_at(slot).map(|held| held.id.clone()) else { return };
        for traced in self.traced(&id) {
            let Ok(tracer) = Pidfd::open(traced.tracer) else { continue };
            let owner = self.owner(traced.tracer).filter(|owner| *owner != id);
            // Looked at again behind the pidfd: a number may have changed hands.
            let ends = owner.is_some() && tracers(traced.pid).contains(&traced.tracer);
            if ends && tracer.send(Signal::KILL).is_err() {
                continue;
            }
            if let Some(On::Keeper(ward)) =
                owner.as_ref().filter(|_| ends).and_then(|owner| self.held(owner)).map(|held| &held.on)
            {
                ward.was_struck();
            }
            let is_new = self.held_at(slot).is_some_and(|held| held.tracers.insert(traced.tracer));
            if is_new {
                let text = match owner.filter(|_| ends) {
                    Some(owner) => format!(
                        "{traced} of '{}', which keeps it from ending: killed that tracer",
                        owner.name
                    ),
                    None => format!("{traced}, which keeps it from ending: end that tracer"),
                };
                events.push(Event::Degraded { id: id.clone(), text });
            }
        }
    }
}
