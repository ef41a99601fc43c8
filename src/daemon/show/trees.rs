//! What `tree` shows: the processes of a service, from what its containment holds and what /proc says of them.

use crate::containment::ProcessInfo;
use crate::control::protocol::{Process, Tree};
use crate::core::fleet::ServiceId;
use crate::daemon::Supervisor;
use crate::sys::users;
use std::collections::{HashMap, HashSet};

/// Most processes of one service that are looked at: the loop does it, and a fork storm shall not hold it up.
const MOST: usize = 1000;
/// Processes in one part of the answer: with the longest commands, every character escaped, that still fits a frame.
const IN_A_PART: usize = 30;
/// Characters of a command that are shown.
const LONGEST_COMMAND: usize = 200;

impl Supervisor {
    /// The parts of the answer for one service; at least one, which is empty when nothing runs.
    pub(in crate::daemon) fn tree(&self, id: ServiceId) -> Vec<Tree> {
        let Some(name) = self.fleet.name(id).map(ToString::to_string) else { return Vec::new() };
        let (members, left_out) = match self.life(id) {
            Some(life) => self.containment.members(&life, MOST),
            None => (Vec::new(), 0),
        };
        let scopes: HashMap<i32, String> = members
            .iter()
            .filter_map(|member| Some((member.pid, member.scope.as_ref()?.to_string())))
            .collect();
        let mut names = HashMap::new();
        let mut user = |uid: u32| -> String {
            let found =
                || users::by_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
            names.entry(uid).or_insert_with(found).clone()
        };
        let processes = in_order(members);
        let known: HashSet<i32> = processes.iter().map(|process| process.pid).collect();
        let shown: Vec<Process> = processes
            .into_iter()
            .map(|process| Process {
                pid: process.pid.cast_unsigned(),
                parent: known.contains(&process.parent).then_some(process.parent.cast_unsigned()),
                user: user(process.uid),
                state: char::from(process.state).to_string(),
                memory_bytes: process.resident,
                command: cut(&process.command),
                scope: scopes.get(&process.pid).cloned(),
            })
            .collect();
        let mut parts: Vec<Tree> = shown
            .chunks(IN_A_PART)
            .map(|part| Tree { name: name.clone(), processes: part.to_vec(), left_out: 0 })
            .collect();
        if parts.is_empty() {
            parts.push(Tree { name, processes: Vec::new(), left_out: 0 });
        }
        if let Some(last) = parts.last_mut() {
            last.left_out = left_out as u64;
        }
        parts
    }
}

/// Parents before their children, siblings by age.
fn in_order(mut members: Vec<ProcessInfo>) -> Vec<ProcessInfo> {
    members.sort_by_key(|member| (member.started, member.pid));
    let known: HashSet<i32> = members.iter().map(|member| member.pid).collect();
    let (mut ordered, mut placed) = (Vec::with_capacity(members.len()), HashSet::new());
    // A child is younger than its parent, so one pass is usually enough. Clock ticks are coarse and numbers wrap.
    while !members.is_empty() {
        let before = members.len();
        let (ready, rest): (Vec<_>, Vec<_>) = members.into_iter().partition(|member| {
            let is_next = !known.contains(&member.parent) || placed.contains(&member.parent);
            is_next && placed.insert(member.pid)
        });
        members = rest;
        ordered.extend(ready);
        if members.len() == before {
            // Two looks at a moving tree contradict each other.
            ordered.append(&mut members);
        }
    }
    ordered
}

fn cut(command: &str) -> String {
    if command.chars().count() <= LONGEST_COMMAND {
        return command.to_owned();
    }
    command.chars().take(LONGEST_COMMAND - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_come_before_children_whatever_their_numbers() {
        let one = |pid, parent, started| ProcessInfo {
            pid,
            parent,
            started,
            uid: 0,
            state: b'S',
            resident: 0,
            command: String::new(),
            scope: None,
        };
        let order = |members: Vec<ProcessInfo>| -> Vec<i32> {
            in_order(members).into_iter().map(|member| member.pid).collect()
        };
        assert_eq!(order(vec![one(9, 1, 5), one(3, 9, 5), one(4, 3, 5), one(2, 9, 6)]), [9, 2, 3, 4]);
        assert_eq!(order(vec![one(2, 3, 0), one(3, 2, 0)]), [2, 3], "a circle ends all the same");
    }

    #[test]
    fn a_long_command_is_cut_at_a_character() {
        let cut = cut(&"ä".repeat(300));
        assert_eq!((cut.chars().count(), cut.ends_with('…')), (LONGEST_COMMAND, true));
    }
}
