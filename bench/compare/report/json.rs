//! Every value as it was taken.

use crate::results::ROWS;
use crate::row::Bench;
use crate::statistics::{median, percentile};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub fn document(bench: &Bench<'_>, machine: &BTreeMap<&'static str, String>, seconds: u64) -> String {
    let versions: BTreeMap<&str, String> =
        bench.peers.iter().map(|peer| (peer.name(), peer.version())).collect();
    let unit = |row: &str| ROWS.iter().find(|each| each.name == row).map_or("", |each| each.unit);
    let cells: Vec<Value> = bench
        .results
        .cells
        .iter()
        .map(|(key, values)| {
            json!({
                "row": key.row, "size": key.size, "peer": key.peer, "unit": unit(key.row),
                "p50": median(values), "p99": percentile(values, 0.99), "values": values,
            })
        })
        .collect();
    let notes: Vec<Value> = bench
        .results
        .notes
        .iter()
        .map(|(key, note)| json!({ "row": key.row, "size": key.size, "peer": key.peer, "note": note }))
        .collect();
    let growth: Vec<Value> = super::growth::fits(bench)
        .iter()
        .map(|fit| {
            json!({
                "row": fit.row.name, "peer": fit.peer, "exponent": fit.exponent,
                "per_1000": fit.slope, "unit": fit.row.unit,
            })
        })
        .collect();
    let document = json!({
        "version": 1, "world": bench.options.ground.describe(), "command": bench.options.command, "quick": bench.options.quick, "seconds": seconds,
        "machine": machine, "versions": versions, "cells": cells, "notes": notes, "growth": growth,
        "troubles": bench.troubles,
    });
    format!("{document:#}\n")
}
