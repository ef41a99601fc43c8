//! Small hostile (and a few obedient) programs that the tests supervise, and the sandbox they are supervised in.
//!
//! Run as `adversary NAME [ARG…] [MARK]`. Those that live long say `ready` on stdout once they are what they claim to be,
//! and every process of theirs carries the whole command line, so a unique last argument finds each survivor in /proc.
//! Nothing here is used by the product.
// Forks, raw clones and signal games are what these programs are made of, and rustix leaves most of them out.
#![allow(unsafe_code)]
// Without the runtime of std, which would ignore SIGPIPE, take SIGSEGV and reopen closed descriptors before we look:
// what is printed here must be what the supervisor handed over.
#![no_main]

#[path = "../host/harness/dice.rs"]
mod dice;
mod ends;
mod identity;
mod machine;
mod memory;
mod output;
mod racer;
mod sandbox;
mod seccomp;
mod serving;
mod tools;
mod trees;

use std::ffi::{CStr, c_char, c_int};

// SAFETY: the C start-up code calls this once with a valid argument vector; no other symbol of ours is called main.
#[unsafe(no_mangle)]
extern "C" fn main(count: c_int, vector: *const *const c_char) -> c_int {
    let args: Vec<String> = (1..usize::try_from(count).unwrap_or(0))
        // SAFETY: the vector holds `count` pointers to strings that live as long as the process.
        .map(|index| unsafe { CStr::from_ptr(*vector.add(index)) }.to_string_lossy().into_owned())
        .collect();
    let Some((name, rest)) = args.split_first() else {
        return usage("no name given");
    };
    match name.as_str() {
        "tree" => trees::tree(number(rest, 0, 10)),
        "comet" => trees::comet(number(rest, 0, 3)),
        "storm" => trees::storm(number(rest, 0, 500)),
        "ignore-term" => trees::ignore_term(),
        "obey-but-child-ignores" => trees::obey_but_child_ignores(),
        "zombie-leader" => trees::zombie_leader(),
        "vfork-child" => trees::vfork_child(),
        "stopped" => trees::stopped(),
        "ptraced" => trees::ptraced(),
        "tracer" => trees::tracer(rest.first().map_or("", String::as_str)),
        "uid-changer" => trees::uid_changer(),
        "cgroup-escaper" => trees::cgroup_escaper(),
        "kill-keeper" => trees::kill_keeper(),
        "leave-remains" => trees::leave_remains(number(rest, 0, 0)),
        "orphan-maker" => trees::orphan_maker(number(rest, 0, 100)),
        "exclusive" => trees::exclusive(rest.first().map_or("/tmp/exclusive", String::as_str)),
        "exit" => ends::exit(number(rest, 0, 0)),
        "exit-after" => ends::exit_after(number(rest, 0, 100), number(rest, 1, 0)),
        "crash-with" => ends::crash_with(number(rest, 0, 11)),
        "wait-signal" => ends::wait_signal(),
        "echo-signals" => ends::echo_signals(),
        "pause" => ends::announced_pause(),
        "serve" => serving::serve(
            rest.first().map_or("127.0.0.1:0", String::as_str),
            rest.get(1).map(String::as_str).filter(|gate| gate.starts_with('/')),
        ),
        "notifies" => serving::notifies(rest),
        "beats" => serving::beats(),
        "heart" => serving::heart(
            rest.first().map_or("/tmp/heart", String::as_str),
            rest.get(1).map_or("wait", String::as_str),
        ),
        "tick" => output::tick(number(rest, 0, 100)),
        "flood" => output::flood(number(rest, 0, 1000), number(rest, 1, 60)),
        "long-line" => output::long_line(number(rest, 0, 1 << 20)),
        "torn-line" => output::torn_line(),
        "both-streams" => output::both_streams(number(rest, 0, 10)),
        "closes-stdout" => output::closes_stdout(),
        "holds-fds" => output::holds_fds(number(rest, 0, 100)),
        "print-ids" => identity::print_ids(),
        "print-mask" => identity::print_mask(),
        "print-fds" => identity::print_fds(),
        "print-env" => identity::print_env(),
        "print-tty" => identity::print_tty(),
        "print-limits" => memory::print_limits(),
        "eat" => memory::eat(number(rest, 0, 64)),
        "read-once" => {
            memory::read_once(rest.first().map_or("/tmp/read-once", String::as_str), number(rest, 1, 8))
        }
        "child-eats" => memory::child_eats(number(rest, 0, 64)),
        "print-place" => memory::print_place(),
        "signal-main" => memory::signal_main(rest.first().map_or("TERM", String::as_str)),
        "multiply" => memory::multiply(number(rest, 0, 1000)),
        "spin" => ends::spin(),
        "exchange" => ends::exchange(rest),
        "race" => racer::race(rest),
        "leaves-socket" => output::leaves_socket(rest.first().map_or("/tmp/fake.sock", String::as_str)),
        "impostor" => output::impostor(rest.first().map_or("/tmp/fake.sock", String::as_str)),
        "seccomp" => sandbox::under_seccomp(rest),
        "world" => sandbox::world(rest),
        "enter" => sandbox::enter(rest),
        "hold" => sandbox::hold(),
        "machine" => machine::machine(rest),
        "census" => machine::census(rest.first().map_or("", String::as_str)),
        "show" => machine::show(rest),
        "cgroups" => machine::cgroups(),
        "in-cgroup" => machine::in_cgroup(rest),
        "write" => {
            machine::write(rest.first().map_or("", String::as_str), rest.get(1).map_or("", String::as_str))
        }
        "kill-nine" => machine::kill_nine(number(rest, 0, 0)),
        "fill" => machine::fill(rest.first().map_or("/tmp/fill", String::as_str)),
        "remove" => machine::remove(rest.first().map_or("/tmp/fill", String::as_str)),
        "writes" => machine::writes(rest.first().map_or("/tmp/lines", String::as_str)),
        "freeze" => machine::freeze(rest.first().map_or("/tmp", String::as_str), false),
        "thaw" => machine::freeze(rest.first().map_or("/tmp", String::as_str), true),
        other => usage(other),
    }
}

fn usage(wrong: &str) -> i32 {
    tools::complain(&format!("adversary: {wrong}: not one of those in tests/adversaries/main.rs"));
    2
}

/// The argument at `index` as a number; a marker or nothing there means `default`.
fn number(args: &[String], index: usize, default: u64) -> u64 {
    args.get(index).and_then(|text| text.parse().ok()).unwrap_or(default)
}
