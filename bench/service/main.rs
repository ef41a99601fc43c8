//! The test service: one small static program, the same under every supervisor, which says what happens to it in
//! `/bench/events` with the time it happened at. Its other modes are what runs beside the services in a world: the first
//! process, the launcher, the stopwatch. See `main` for them.
// Forks and signal games are what it is made of.
#![allow(unsafe_code)]
// Without the runtime of std: what is timed is the supervisor, and the service shall be no larger than it must be.
#![no_main]

#[path = "../record.rs"]
mod record;

mod first;
mod flood;
mod kernel;
mod orphans;
mod stopwatch;
mod tree;
mod unit;

use std::ffi::{CStr, c_char, c_int};

// SAFETY: the C start-up code calls this once with a valid argument vector; no other symbol of ours is called main.
#[unsafe(no_mangle)]
extern "C" fn main(count: c_int, vector: *const *const c_char) -> c_int {
    let args: Vec<&'static CStr> = (1..usize::try_from(count).unwrap_or(0))
        // SAFETY: the vector holds `count` pointers to strings that live as long as the process.
        .map(|index| unsafe { CStr::from_ptr(*vector.add(index)) })
        .collect();
    // SAFETY: of a vector that is not empty the first string is there.
    let called = if count > 0 { unsafe { CStr::from_ptr(*vector) }.to_bytes() } else { b"" };
    // s6 and runit execute a file `run` and give it no words: they stand beside it.
    let args = if called == b"run" || called == b"./run" { written() } else { args };
    let Some((name, rest)) = args.split_first() else { return 2 };
    match name.to_bytes() {
        b"unit" => unit::run(number(rest, 0)),
        b"crash" => unit::crash(number(rest, 0)),
        b"heavy" => unit::heavy(number(rest, 0), number(rest, 1), number(rest, 2)),
        b"tree" => tree::tree(number(rest, 0)),
        b"orphans" => orphans::orphans(number(rest, 0), number(rest, 1)),
        b"flood" => flood::flood(number(rest, 0)),
        b"lines" => flood::lines(number(rest, 0)),
        b"drain" => flood::drain(),
        b"exit" => 0,
        b"launch" => first::launch(rest),
        b"first" => first::first(rest),
        b"bare" => first::bare(number(rest, 0)),
        b"reaper" => first::reaper(rest),
        b"hold" => kernel::forever(),
        b"stopwatch" => {
            stopwatch::stopwatch(number(rest, 0), number(rest, 1), rest.get(2..).unwrap_or_default())
        }
        b"floor-kill" => tree::floor(number(rest, 0), rest.get(1).copied()),
        _ => 2,
    }
}

fn written() -> Vec<&'static CStr> {
    let text = std::fs::read_to_string("words").unwrap_or_default();
    let words = text.split_whitespace().filter_map(|word| std::ffi::CString::new(word).ok());
    words.map(|word| &*Box::leak(word.into_boxed_c_str())).collect()
}

fn number(args: &[&CStr], index: usize) -> u64 {
    args.get(index).and_then(|text| text.to_str().ok()?.parse().ok()).unwrap_or(0)
}
