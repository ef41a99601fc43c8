//! What `ctl tree` shows: the processes of each service, children below their parents.

use super::render::{bytes, printable};
use crate::control::protocol::{Process, Tree};
use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;

/// Deeper than anybody reads; a tree that nests further is shown flat from there on.
const DEEPEST: usize = 60;

/// Takes one more part of the answer; the parts of a service follow each other.
pub fn join(trees: &mut Vec<Tree>, part: Tree) {
    match trees.last_mut().filter(|last| last.name == part.name) {
        Some(last) => {
            last.processes.extend(part.processes);
            last.left_out += part.left_out;
        }
        None => trees.push(part),
    }
}

/// One block for each service, an empty line between them.
pub fn show(trees: &[Tree]) -> String {
    let blocks: Vec<String> = trees.iter().map(block).collect();
    blocks.join("\n")
}

fn block(tree: &Tree) -> String {
    let name = printable(&tree.name);
    if tree.processes.is_empty() {
        return format!("{name}: no processes\n");
    }
    let rows = rows(&tree.processes);
    let pid_width = rows.iter().map(|(process, _)| process.pid.to_string().len()).max().unwrap_or(0).max(3);
    let user_width = rows.iter().map(|(process, _)| printable(&process.user).chars().count()).max();
    let user_width = user_width.unwrap_or(0).max(4);
    let rss_width =
        rows.iter().map(|(process, _)| bytes(process.memory_bytes).len()).max().unwrap_or(0).max(3);
    let mut text = format!(
        "{name}\n{:>pid_width$}  {:<user_width$}  S  {:>rss_width$}  COMMAND\n",
        "PID", "USER", "RSS"
    );
    for (process, branch) in rows {
        let scope =
            process.scope.as_ref().map(|scope| format!("  ({})", printable(scope))).unwrap_or_default();
        let _ = writeln!(
            text,
            "{:>pid_width$}  {:<user_width$}  {}  {:>rss_width$}  {branch}{}{scope}",
            process.pid,
            printable(&process.user),
            printable(&process.state),
            bytes(process.memory_bytes),
            printable(&process.command),
        );
    }
    if tree.left_out > 0 {
        let _ = writeln!(text, "and {} more", tree.left_out);
    }
    text
}

/// Every process once, below its parent, with the lines that lead to it.
fn rows(processes: &[Process]) -> Vec<(&Process, String)> {
    let mut children: BTreeMap<Option<u32>, Vec<&Process>> = BTreeMap::new();
    let known: HashSet<u32> = processes.iter().map(|process| process.pid).collect();
    for process in processes {
        let parent = process.parent.filter(|parent| known.contains(parent) && *parent != process.pid);
        children.entry(parent).or_default().push(process);
    }
    let mut rows = Vec::with_capacity(processes.len());
    // What is still to be shown, the next one last, with what its children stand behind.
    let roots = children.remove(&None).unwrap_or_default();
    let mut stack: Vec<(&Process, String, String)> =
        roots.into_iter().rev().map(|root| (root, String::new(), String::new())).collect();
    loop {
        let Some((process, branch, behind)) = stack.pop() else {
            // A circle has no root: two looks at a moving tree.
            let Some((_, rest)) = children.pop_first() else { break };
            stack.extend(rest.into_iter().rev().map(|one| (one, String::new(), String::new())));
            continue;
        };
        rows.push((process, branch));
        let below = children.remove(&Some(process.pid)).unwrap_or_default();
        let flat = behind.chars().count() >= DEEPEST;
        for (from_last, child) in below.into_iter().rev().enumerate() {
            let (branch, line) = if from_last == 0 { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            let next = if flat { behind.clone() } else { format!("{behind}{line}") };
            stack.push((child, format!("{behind}{branch}"), next));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::samples;

    #[test]
    fn every_process_is_shown_once_even_of_a_circle() {
        let mut tree = samples::tree();
        for (process, parent) in tree.processes.iter_mut().zip([Some(43), Some(42), Some(44)]) {
            process.parent = parent;
        }
        let mut shown: Vec<u32> = rows(&tree.processes).iter().map(|(process, _)| process.pid).collect();
        shown.sort_unstable();
        assert_eq!(shown, [42, 43, 44]);
    }

    #[test]
    fn lines_lead_from_parent_to_child() {
        let mut tree = samples::tree();
        tree.processes[2].parent = Some(43);
        tree.processes.push(Process { pid: 45, parent: Some(42), ..tree.processes[1].clone() });
        let branches: Vec<String> = rows(&tree.processes).into_iter().map(|(_, branch)| branch).collect();
        assert_eq!(branches, ["", "├─ ", "│  └─ ", "└─ "]);
    }

    #[test]
    fn a_command_cannot_write_to_the_terminal_and_none_is_said() {
        let mut tree = samples::tree();
        tree.processes[0].command = "\x1b[2J\n".to_owned();
        assert!(show(&[tree]).contains("\\u{1b}[2J\\n"));
        let empty = Tree { name: "b".to_owned(), processes: Vec::new(), left_out: 0 };
        assert_eq!(show(&[empty]), "b: no processes\n");
    }
}
