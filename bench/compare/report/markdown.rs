//! The tables.

use super::columns;
use crate::results::{FLOOR, Key, ROWS, Row};
use crate::row::Bench;
use crate::statistics::{median, percentile};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Three digits, or what is before the point.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        0.1.. => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn head(bench: &Bench<'_>, machine: &BTreeMap<&'static str, String>) -> String {
    let of = |key: &str| machine.get(key).map_or("", String::as_str);
    format!(
        "World: {}. Measured {} with `{}` on {} × {}, {}, Linux {}; load at the end {}.\n",
        bench.options.ground.describe(),
        of("date"),
        bench.options.command,
        of("cores"),
        of("processor"),
        of("memory"),
        of("kernel"),
        of("load")
    )
}

pub fn document(bench: &Bench<'_>, machine: &BTreeMap<&'static str, String>, seconds: u64) -> String {
    let mut text = format!("# The comparison\n\n{}It took {seconds} s.\n\n", head(bench, machine));
    for peer in bench.peers {
        let _ = writeln!(text, "* {}: {}", peer.name(), peer.version());
    }
    text.push_str(
        "\nA cell is the median, in brackets the 99th percentile (the largest where there are fewer than 100\n\
         values), and after × the ratio to the floor of this machine. `bench/README.md` says how each row is\n\
         measured.\n",
    );
    for row in &ROWS {
        text.push_str(&table(bench, row));
    }
    text.push_str(&growth(bench));
    if !bench.troubles.is_empty() {
        text.push_str("\n## What went wrong in this run\n\n");
        for trouble in &bench.troubles {
            let _ = writeln!(text, "* {trouble}");
        }
    }
    text
}

fn unit(row: &Row) -> String {
    if row.unit.is_empty() { String::new() } else { format!(", {}", row.unit) }
}

fn cell(bench: &Bench<'_>, row: &Row, size: usize, peer: &'static str) -> String {
    let values = bench.results.values(row.name, size, peer);
    let Some(middle) = median(values) else {
        let note = bench.results.notes.get(&Key { row: row.name, size, peer });
        return note.map_or_else(String::new, |note| format!("– ({note})"));
    };
    let mut text = number(middle);
    if values.len() > 1 {
        let _ = write!(text, " ({})", number(percentile(values, 0.99).unwrap_or(middle)));
    }
    let floor = median(bench.results.values(row.name, size, FLOOR)).filter(|floor| *floor > 0.0);
    if let Some(floor) = floor.filter(|_| peer != FLOOR) {
        let _ = write!(text, " ×{}", number(middle / floor));
    }
    text
}

fn table(bench: &Bench<'_>, row: &Row) -> String {
    let columns = columns(bench, row.name);
    if columns.is_empty() {
        return String::new();
    }
    let mut text = format!("\n## {}{}\n\n", row.title, unit(row));
    if !row.floor.is_empty() {
        let _ = writeln!(text, "Floor: {}.\n", row.floor);
    }
    let _ = writeln!(text, "| N | {} |\n|---{}|", columns.join(" | "), "|---".repeat(columns.len()));
    for size in bench.results.sizes(row.name) {
        let cells: Vec<String> = columns.iter().map(|peer| cell(bench, row, size, peer)).collect();
        let size = if size == 0 { String::new() } else { size.to_string() };
        let _ = writeln!(text, "| {size} | {} |", cells.join(" | "));
    }
    text
}

fn growth(bench: &Bench<'_>) -> String {
    let mut text = String::new();
    for fit in super::growth::fits(bench) {
        let power = fit.exponent.map_or("–".into(), |power| format!("{power:.2}"));
        let slope = fit.slope.map_or("–".into(), number);
        let _ = writeln!(text, "| {} | {} | {power} | {slope} {} |", fit.row.title, fit.peer, fit.row.unit);
    }
    if text.is_empty() {
        return text;
    }
    format!(
        "\n## Cost as N grows\n\nLeast squares over the medians: the exponent k of a · N^k, from the logarithms and\n\
         N ≥ 10 (1 is linear, 0 is constant), and the slope of a line through all N, for 1000 more.\n\n\
         | row | peer | exponent | for 1000 more |\n|---|---|---|---|\n{text}"
    )
}

/// What the README shows: these rows at these sizes, medians only.
const SHOWN: [(&str, &[usize]); 26] = [
    ("crash", &[0]),
    ("crash-one", &[1000]),
    ("crash-heavy", &[0]),
    ("boot", &[100, 1000]),
    ("stop", &[100, 1000]),
    ("restart", &[100, 1000]),
    ("restart-10", &[100, 1000]),
    ("private", &[100, 1000]),
    ("pss", &[100, 1000]),
    ("processes", &[1000]),
    ("wakeups", &[1000]),
    ("status", &[1, 1000]),
    ("command-stop", &[1, 1000]),
    ("command-start", &[1, 1000]),
    ("stop-all", &[1000]),
    ("start-all", &[1000]),
    ("tree", &[100, 1000]),
    ("survivors", &[1000]),
    ("reap", &[0]),
    ("log", &[0]),
    ("log-cpu", &[0]),
    ("lost", &[0]),
    ("container-start", &[0]),
    ("container-stop", &[0]),
    ("gateway-start", &[0]),
    ("gateway-stop", &[0]),
];

pub fn summary(bench: &Bench<'_>, machine: &BTreeMap<&'static str, String>) -> String {
    let known = |name: &str| bench.results.cells.keys().any(|key| key.peer == name);
    let names: Vec<&'static str> = std::iter::once(FLOOR)
        .chain(bench.peers.iter().map(|peer| peer.name()))
        .filter(|name| known(name))
        .collect();
    let mut text = format!("| | {} |\n|---{}|\n", names.join(" | "), "|---".repeat(names.len()));
    for (name, sizes) in SHOWN {
        let Some(row) = ROWS.iter().find(|row| row.name == name) else { continue };
        for size in sizes.iter().filter(|size| bench.results.sizes(name).contains(size)) {
            let cells: Vec<String> = names.iter().map(|peer| brief(bench, row, *size, peer)).collect();
            let size = if *size == 0 { String::new() } else { format!(", N = {size}") };
            let _ = writeln!(text, "| {}{size}{} | {} |", row.title, unit(row), cells.join(" | "));
        }
    }
    format!("{text}\n{}", head(bench, machine))
}

fn brief(bench: &Bench<'_>, row: &Row, size: usize, peer: &'static str) -> String {
    let left = median(bench.results.values("survivors", size, peer)).is_some_and(|count| count > 0.0);
    match median(bench.results.values(row.name, size, peer)) {
        Some(value) => number(value),
        None if row.name == "tree" && left => "not emptied".into(),
        None => "–".into(),
    }
}
