//! The machine that the figures are from.

use std::collections::BTreeMap;

fn first(path: &str, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    line.split_once(':').map(|(_, value)| value.trim().to_owned())
}

/// What identifies it, in the words of the kernel.
pub fn describe() -> BTreeMap<&'static str, String> {
    let system = rustix::system::uname();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    BTreeMap::from([
        ("processor", first("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".into())),
        ("cores", cores.to_string()),
        ("memory", first("/proc/meminfo", "MemTotal").unwrap_or_default()),
        ("kernel", system.release().to_string_lossy().into_owned()),
        ("load", load.split(' ').take(3).collect::<Vec<_>>().join(" ")),
        ("date", humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string()),
    ])
}
