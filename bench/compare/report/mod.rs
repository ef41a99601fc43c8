//! What a run leaves: `latest.json` with every value, `latest.md` with every table, `summary.md` for the README, and one
//! SVG for each row with sizes.

mod growth;
mod json;
mod markdown;
mod plot;

use crate::machine;
use crate::row::Bench;
use std::io;

/// # Errors
/// As of std::fs.
pub fn write(bench: &Bench<'_>, seconds: u64) -> io::Result<()> {
    let dir = &bench.options.results;
    std::fs::create_dir_all(dir)?;
    let machine = machine::describe();
    std::fs::write(dir.join("latest.json"), json::document(bench, &machine, seconds))?;
    std::fs::write(dir.join("latest.md"), markdown::document(bench, &machine, seconds))?;
    std::fs::write(dir.join("summary.md"), markdown::summary(bench, &machine))?;
    for row in &crate::results::ROWS {
        if bench.results.sizes(row.name).len() > 1 {
            plot::draw(bench, row, &dir.join(format!("{}.svg", row.name)))
                .map_err(|error| io::Error::other(format!("{}.svg: {error}", row.name)))?;
        }
    }
    crate::say(&format!("wrote latest.md, latest.json, summary.md and plots into {}", dir.display()));
    Ok(())
}

/// The peers that have a value or a note, floor first.
fn columns(bench: &Bench<'_>, row: &str) -> Vec<&'static str> {
    let known = |name: &str| {
        let results = &bench.results;
        results.cells.keys().chain(results.notes.keys()).any(|key| key.row == row && key.peer == name)
    };
    std::iter::once(crate::results::FLOOR)
        .chain(bench.peers.iter().map(|peer| peer.name()))
        .filter(|name| known(name))
        .collect()
}
