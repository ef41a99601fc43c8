//! Walking a tree of processes through /proc, and stopping or killing it from outside.
//!
//! By hand and not through procfs: a keeper does nothing else, in a process that is to stay small, and a kill of a tree that forks
//! as fast as it can is a race that each system call can lose.
//!
//! A walk is a hint: a process that forks and exits in a loop can slip through any of them. What is proved empty is
//! proved by `ECHILD` (the keeper) or by `populated 0`, never here.

use crate::core::signal::Signal;
use crate::sys::pidfd::Pidfd;
use rustix::fs::{Mode, OFlags};
use rustix::time::ClockId;
use std::collections::HashSet;

/// The few words of /proc/PID/stat that matter (proc_pid_stat(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    pub state: u8,
    pub parent: i32,
    pub threads: u32,
    /// On its way out (PF_EXITING).
    pub exiting: bool,
    /// In clock ticks since boot.
    pub started: u64,
}

impl Stat {
    /// A zombie, with all its threads.
    pub fn is_dead(self) -> bool {
        self.state == b'Z' && self.threads <= 1
    }
}

/// `None` when the process is gone, or hidden from us.
pub fn stat(pid: i32) -> Option<Stat> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(format!("/proc/{pid}/stat"), flags, Mode::empty()).ok()?;
    // One read: it is made anew for each, and its 52 numbers and a name of up to 64 bytes fit.
    let mut text = [0; 1536];
    let length = rustix::io::read(&file, &mut text).ok()?;
    parse_stat(text.get(..length)?)
}

/// What [`Stat::started`] of a process is that is made now. `/proc` and this clock count alike in a time namespace
/// (time_namespaces(7)).
pub fn ticks_since_boot() -> u64 {
    let now = rustix::time::clock_gettime(ClockId::Boottime);
    let (seconds, nanoseconds) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
    let each = rustix::param::clock_ticks_per_second();
    seconds * each + nanoseconds * each / 1_000_000_000
}

/// include/linux/sched.h
const PF_EXITING: u32 = 0x4;

fn parse_stat(text: &[u8]) -> Option<Stat> {
    // The name in parentheses may contain anything, parentheses too: the last one ends it.
    let end = text.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(text.get(end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let parent = fields.next()?.parse().ok()?;
    let flags: u32 = fields.nth(4)?.parse().ok()?;
    let threads = fields.nth(10)?.parse().ok()?;
    let started = fields.nth(1)?.parse().ok()?;
    Some(Stat { state, parent, threads, exiting: flags & PF_EXITING != 0, started })
}

/// Whether a SIGKILL is on its way to this process or has hit it already.
pub fn is_being_killed(pid: i32) -> bool {
    const SIGKILL: u64 = 1 << 8;
    if stat(pid).is_none_or(|stat| stat.state == b'Z' || stat.exiting) {
        return true;
    }
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    // For the process as a whole and for its first thread: the kernel puts it into both (kernel/signal.c,
    // `complete_signal`).
    ["SigPnd:\t", "ShdPnd:\t"].into_iter().any(|label| {
        let mask = text.lines().find_map(|line| line.strip_prefix(label));
        mask.and_then(|mask| u64::from_str_radix(mask, 16).ok()).is_some_and(|mask| mask & SIGKILL != 0)
    })
}

/// The children of all threads of a process, zombies included. Exact only while they stand still (proc_pid_tid_children(5)).
pub fn children(pid: i32) -> Vec<i32> {
    let mut found = Vec::new();
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut readable = false;
    for task in tasks {
        let Ok(list) = std::fs::read_to_string(task.path().join("children")) else { continue };
        readable = true;
        found.extend(list.split_ascii_whitespace().filter_map(|word| word.parse::<i32>().ok()));
    }
    if !readable && stat(pid).is_some() {
        // A kernel without CONFIG_PROC_CHILDREN.
        found.extend(all_processes().into_iter().filter(|one| stat(*one).is_some_and(|s| s.parent == pid)));
    }
    found
}

/// Every process that /proc shows.
pub fn all_processes() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// `roots` and everything below them, parents before children.
pub fn descendants(roots: Vec<i32>) -> Vec<i32> {
    let mut seen: HashSet<i32> = roots.iter().copied().collect();
    let mut order = roots;
    let mut next = 0;
    while let Some(pid) = order.get(next).copied() {
        next += 1;
        order.extend(children(pid).into_iter().filter(|child| seen.insert(*child)));
    }
    order
}

/// Stops and then kills those of `pids` that `are_meant`, who need not be children of anybody's here. Looked at again behind a
/// pidfd: a number may have changed hands. Returns who was hit.
pub fn strike(pids: &[i32], are_meant: &dyn Fn(i32) -> bool) -> HashSet<i32> {
    let mut hit = HashSet::new();
    for signal in [Signal::STOP, Signal::KILL] {
        for pid in pids {
            let Ok(process) = Pidfd::open(*pid) else { continue };
            if are_meant(*pid) && process.send(signal).is_ok() {
                hit.insert(*pid);
            }
        }
    }
    hit
}

/// Stops a tree until nothing new turns up, then kills it: stopped first, so that no member can react to the death of
/// another.
///
/// `roots` names the direct children of `heir` that belong to the tree, now; `heir` is who gets its orphans.
pub fn end(heir: i32, roots: &mut dyn FnMut() -> Vec<i32>) {
    // A fork in progress either fails when the stop arrives or is listed already; so a tree that is not hopping is
    // complete after one more pass. A hopping one gets this many, then the kill, and the caller comes back.
    const PASSES: usize = 32;
    let mut walk = Walk { heir, dead: HashSet::new() };
    let mut stopped = HashSet::new();
    for _ in 0..PASSES {
        let before = stopped.len();
        walk.visit(roots(), &mut |pid, process| {
            if stopped.insert(pid) {
                let _ = process.send(Signal::STOP);
            }
        });
        if stopped.len() == before {
            break;
        }
    }
    walk.visit(roots(), &mut |_, process| {
        let _ = process.send(Signal::KILL);
    });
}

/// Stops every member of the tree, and answers whether all of them stand still: then nothing new can turn up either.
/// If not, call again later.
///
/// `ours` gains the numbers of those that this stops, `of_itself` of those that were stopped before it came.
pub fn stop(
    heir: i32,
    roots: &mut dyn FnMut() -> Vec<i32>,
    ours: &mut HashSet<i32>,
    of_itself: &mut HashSet<i32>,
) -> bool {
    const PASSES: usize = 32;
    let mut walk = Walk { heir, dead: HashSet::new() };
    for _ in 0..PASSES {
        let (mut new, mut still) = (false, true);
        let whole = walk.visit(roots(), &mut |pid, process| {
            let stands = stands(pid);
            if stands && !ours.contains(&pid) && stat(pid).is_some_and(|stat| stat.state == b'T') {
                new |= of_itself.insert(pid);
            } else if !(stands && ours.contains(&pid)) {
                let _ = process.send(Signal::STOP);
                new |= ours.insert(pid);
            }
            still &= stands;
        });
        if !new && whole {
            return still;
        }
    }
    false
}

/// No thread of it runs an instruction of its own: stopped, dead, or in the kernel on the way to its stop (a parent in
/// vfork(2) waits there for its child).
fn stands(pid: i32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut states = tasks.filter_map(|task| parse_stat(&std::fs::read(task.path().join("stat")).ok()?));
    states.all(|task| matches!(task.state, b'T' | b't' | b'D' | b'Z' | b'X'))
}

/// Lets every member of the tree go on, children before their parents: a parent that is told of stopped children shall
/// find none. Those of `except` are left as they are.
pub fn go_on(heir: i32, roots: Vec<i32>, except: &HashSet<i32>) {
    let mut members = Vec::new();
    Walk { heir, dead: HashSet::new() }.visit(roots, &mut |pid, _| members.push(pid));
    for pid in members.into_iter().rev().filter(|pid| !except.contains(pid)) {
        // A stopped process keeps its number; one that was continued and ended meanwhile is the worst that can be hit,
        // with a signal that does nothing to a process that runs.
        let _ = Pidfd::open(pid).and_then(|process| process.send(Signal::CONT));
    }
}

/// Sends `signal` to every member of the tree, once.
pub fn signal(heir: i32, roots: Vec<i32>, signal: Signal) {
    Walk { heir, dead: HashSet::new() }.visit(roots, &mut |_, process| {
        let _ = process.send(signal);
    });
}

struct Walk {
    heir: i32,
    /// Zombies that nothing lives under. A process that hops by fork and exit leaves them faster than they could be
    /// looked at again and again; their numbers stay theirs until they are reaped.
    dead: HashSet<i32>,
}

impl Walk {
    /// Calls `act` for each live process of the tree, its children known before. False when one was gone by the time it
    /// was looked at: its children went to the heir after the heir's were listed, and nobody has seen them.
    ///
    /// A number may have been reused between the listing and the opening of its pidfd. So its parent is looked at once
    /// more through what the pidfd now pins: it must be the one that listed it, or the heir.
    fn visit(&mut self, roots: Vec<i32>, act: &mut dyn FnMut(i32, &Pidfd)) -> bool {
        let mut whole = true;
        let mut seen: HashSet<i32> = roots.iter().copied().collect();
        let mut stack: Vec<(i32, i32)> = roots.into_iter().map(|pid| (pid, self.heir)).collect();
        while let Some((pid, parent)) = stack.pop() {
            if self.dead.contains(&pid) {
                continue;
            }
            let found = Pidfd::open(pid).ok().zip(stat(pid));
            let of_the_tree = |now: &Stat| now.parent == parent || now.parent == self.heir;
            let Some((process, now)) = found.filter(|(_, now)| of_the_tree(now)) else {
                whole = false;
                continue;
            };
            if now.is_dead() {
                // Its children went to the heir when it died.
                self.dead.insert(pid);
                whole = false;
                continue;
            }
            let below = children(pid);
            stack.extend(below.into_iter().filter(|child| seen.insert(*child)).map(|child| (child, pid)));
            act(pid, &process);
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containment::scenarios::isolated_in;
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};

    #[test]
    fn a_name_with_parentheses_does_not_move_the_fields() {
        let text = b"42 (a) b) S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 99887 1 1";
        assert_eq!(
            parse_stat(text),
            Some(Stat { state: b'S', parent: 7, threads: 3, exiting: false, started: 99887 })
        );
        let leaving = b"42 (a) Z 7 42 42 0 -1 4194564 1 2 3 4 5 6 7 8 20 0 1 0 99887 1 1";
        assert!(parse_stat(leaving).unwrap().exiting);
        assert_eq!(parse_stat(b"42 (x"), None);
        assert_eq!(parse_stat(b"42 (x) S"), None);
    }

    /// Whose parent dies between the listing and the look is on no list of that pass.
    #[test]
    fn a_tree_in_which_one_dies_unseen_is_looked_at_again() {
        fn body() {
            let own = i32::try_from(std::process::id()).unwrap();
            rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
            let mut steady = Command::new("sleep").arg("1000").spawn().unwrap();
            let script = "sleep 1000 & echo $!; wait";
            let mut parent =
                Command::new("/bin/sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
            let mut line = String::new();
            BufReader::new(parent.stdout.take().unwrap()).read_line(&mut line).unwrap();
            let child: i32 = line.trim().parse().unwrap();
            let pid = |process: &Child| i32::try_from(process.id()).unwrap();
            let (first, second) = (pid(&steady), pid(&parent));
            let until = |what: &dyn Fn(Stat) -> bool, pid| {
                while !stat(pid).is_some_and(what) {
                    std::thread::yield_now();
                }
            };
            let mut pass = 0;
            let mut roots = || {
                pass += 1;
                match pass {
                    1 => vec![first],
                    2 => {
                        until(&|stat| stat.state == b'T', first);
                        parent.kill().unwrap();
                        until(&|stat| stat.parent == own, child);
                        until(&|stat| stat.is_dead(), second);
                        vec![first, second]
                    }
                    _ => children(own),
                }
            };
            let (mut ours, mut of_itself) = (HashSet::new(), HashSet::new());
            while !stop(own, &mut roots, &mut ours, &mut of_itself) {}
            let state = stat(child).map(|stat| stat.state);
            for process in [child, first] {
                Pidfd::open(process).and_then(|process| process.send(Signal::KILL)).unwrap();
            }
            steady.wait().unwrap();
            parent.wait().unwrap();
            assert_eq!(state, Some(b'T'), "the orphan runs in a tree that was said to stand");
        }
        isolated_in(module_path!(), "a_tree_in_which_one_dies_unseen_is_looked_at_again", body);
    }

    #[test]
    fn a_process_is_not_older_than_the_clock_was_before_it() {
        let before = ticks_since_boot();
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let started = stat(child.id().cast_signed()).map(|stat| stat.started);
        let after = ticks_since_boot();
        child.kill().unwrap();
        child.wait().unwrap();
        let started = started.unwrap();
        assert!((before..=after).contains(&started), "{before} {started} {after}");
    }

    #[test]
    fn our_own_line_reads() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(stat(own).is_some_and(|stat| stat.state == b'R' || stat.state == b'S'));
    }
}
