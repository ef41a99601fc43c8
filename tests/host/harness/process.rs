//! The oracle: what the kernel says is alive, read from outside the world.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// One process, as /proc shows it outside.
#[derive(Debug, Clone)]
pub struct Process {
    pub outer: i32,
    /// In the pid namespace of the world, which is the next one below ours.
    pub inner: i32,
    pub parent: i32,
    pub state: char,
    pub uid: u32,
    pub command: String,
}

fn bytes(pid: i32, name: &str) -> Option<Vec<u8>> {
    std::fs::read(format!("/proc/{pid}/{name}")).ok()
}

fn file(pid: i32, name: &str) -> Option<String> {
    Some(String::from_utf8_lossy(&bytes(pid, name)?).replace('\0', " "))
}

fn line<'a>(status: &'a str, key: &str) -> Option<&'a str> {
    status.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name == key).then(|| value.trim())
    })
}

/// A line of /proc/PID/status.
pub fn status(pid: i32, key: &str) -> Option<String> {
    line(&file(pid, "status")?, key).map(str::to_owned)
}

fn read(outer: i32) -> Option<Process> {
    let command = file(outer, "cmdline")?;
    let status = file(outer, "status")?;
    Some(Process {
        outer,
        inner: line(&status, "NSpid")?.split_whitespace().take(2).last()?.parse().ok()?,
        parent: line(&status, "PPid")?.parse().ok()?,
        state: line(&status, "State")?.chars().next()?,
        uid: line(&status, "Uid")?.split_whitespace().next()?.parse().ok()?,
        command,
    })
}

/// Processes alive whose command line carries `mark`.
pub fn marked(mark: &str) -> Vec<Process> {
    // Thousands are looked through for a few.
    let is_marked = |command: Vec<u8>| memchr::memmem::find(&command, mark.as_bytes()).is_some();
    pids()
        .filter(|pid| bytes(*pid, "cmdline").is_some_and(is_marked))
        .filter_map(read)
        .filter(|process| process.state != 'Z' && process.command.contains(mark))
        .collect()
}

pub fn pid_namespace(pid: i32) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok()
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").expect("/proc");
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Every process of a pid namespace. One pass is a glance: what forks meanwhile can be missed, so a test that wants
/// none asks the cgroup of the world too.
pub fn in_namespace(namespace: &Path) -> Vec<Process> {
    pids().filter(|pid| pid_namespace(*pid).as_deref() == Some(namespace)).filter_map(read).collect()
}

/// Open descriptors of a process.
pub fn descriptors(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Of those, what is not a log's: they are opened when a line comes.
pub fn descriptors_but_of_logs(pid: i32) -> usize {
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let is_log = |link: &PathBuf| link.to_string_lossy().contains("/logs/");
    links.filter(|entry| !std::fs::read_link(entry.path()).is_ok_and(|link| is_log(&link))).count()
}

/// Private memory in kB, `RssAnon` of proc_pid_status(5). What is mapped of a file comes and goes.
pub fn anonymous_kb(pid: i32) -> u64 {
    status(pid, "RssAnon").and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// How often all threads of the process gave up or lost the processor, ever. A thread that does nothing adds nothing.
pub fn context_switches(pid: i32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("tasks");
    tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("status")).ok())
        .flat_map(|status| {
            status
                .lines()
                .filter(|line| line.contains("ctxt_switches"))
                .filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok())
                .collect::<Vec<_>>()
        })
        .sum()
}

/// Every thread of these processes, and how often each gave up or lost the processor so far.
pub fn turns(processes: &[Process]) -> BTreeMap<String, u64> {
    let tasks = |process: &Process| std::fs::read_dir(format!("/proc/{}/task", process.outer));
    let tasks = processes.iter().flat_map(tasks).flatten().flatten();
    tasks
        .filter_map(|task| {
            let status = std::fs::read_to_string(task.path().join("status")).ok()?;
            let count = |key| line(&status, key).and_then(|count| count.parse::<u64>().ok());
            let turns = count("voluntary_ctxt_switches")? + count("nonvoluntary_ctxt_switches")?;
            Some((task.path().display().to_string(), turns))
        })
        .collect()
}

/// Name and context switches of each thread, for a message.
pub fn threads(pid: i32) -> String {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("tasks");
    tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("status")).ok())
        .map(|status| {
            let of = |key| line(&status, key).unwrap_or_default().to_owned();
            format!(
                "{}: {} + {}; ",
                of("Name"),
                of("voluntary_ctxt_switches"),
                of("nonvoluntary_ctxt_switches")
            )
        })
        .collect()
}
