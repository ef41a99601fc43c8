//! How the medians of a row grow with N, fitted.

use super::columns;
use crate::results::{ROWS, Row};
use crate::row::Bench;
use crate::statistics::{exponent, line, median};

/// What costs more when there are more. The others have no cost or no N.
const GROWING: [&str; 11] = [
    "crash-one",
    "boot",
    "stop",
    "private",
    "status",
    "command-stop",
    "command-start",
    "status-all",
    "stop-all",
    "start-all",
    "tree",
];

/// Least squares.
pub struct Growth {
    pub row: &'static Row,
    pub peer: &'static str,
    /// k of a · N^k, from the logarithms and N ≥ 10: 1 is linear, 0 is constant.
    pub exponent: Option<f64>,
    /// Of a line through all N, in units of the row for 1000 more.
    pub slope: Option<f64>,
}

/// Of every row and peer with three sizes at least.
pub fn fits(bench: &Bench<'_>) -> Vec<Growth> {
    let mut fits = Vec::new();
    for row in ROWS.iter().filter(|row| GROWING.contains(&row.name)) {
        for peer in columns(bench, row.name) {
            let sizes = bench.results.sizes(row.name).into_iter();
            let points: Vec<(f64, f64)> = sizes
                .filter_map(|size| Some((size as f64, median(bench.results.values(row.name, size, peer))?)))
                .collect();
            if points.len() < 3 {
                continue;
            }
            let large: Vec<(f64, f64)> = points.iter().copied().filter(|(size, _)| *size >= 10.0).collect();
            let slope = line(&points).map(|(_, slope)| slope * 1000.0);
            fits.push(Growth { row, peer, exponent: exponent(&large), slope });
        }
    }
    fits
}
