//! What services write is kept, whole and in order, and never stops anything.

use crate::harness::setup::HERMES;
use crate::harness::{End, Place, Rung, Setup, World, wait};
use std::io::Read;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::time::Duration;

crate::on_every_rung!(lines_of_both_streams_are_exact, nothing_is_lost_when_a_service_ends);

fn lines_of_both_streams_are_exact(setup: Setup) {
    let mut world = World::new(setup);
    world.adversary("both", "both-streams 50", "");
    let supervisor = world.start();
    world.wait_log("both", "ready");
    wait::until("the last line of stderr", &world.log_dir("both"), || {
        world.log("both").contains("err 50").then_some(())
    });
    let log = world.log("both");
    let (mut out, mut err) = (0, 0);
    for line in log.lines() {
        assert!(is_stamp(&line[..29]), "{line}");
        match (&line[29..31], &line[31..]) {
            ("  ", "ready both-streams") => {}
            ("  ", text) => {
                out += 1;
                assert_eq!(text, format!("out {out}"));
            }
            (" !", text) => {
                err += 1;
                assert_eq!(text, format!("err {err}"));
            }
            _ => panic!("{line}"),
        }
    }
    assert_eq!((out, err), (50, 50));
    // The container's streams get the raw lines.
    world.wait_stdout("out 50\n");
    world.wait_stderr("err 50\n");
    assert!(world.stdout().contains("out 1\nout 2\n"), "{}", world.stdout());
    let owner = std::os::unix::fs::MetadataExt::uid(
        &std::fs::metadata(world.log_dir("both").join("current")).expect("current"),
    );
    assert_eq!(owner, HERMES, "written with the user's own rights");
    assert_eq!(supervisor.terminate(), End::Code(0));
}

/// `YYYY-MM-DD HH:MM:SS.nnnnnnnnn`
fn is_stamp(text: &str) -> bool {
    text.len() == 29
        && text
            .chars()
            .zip("0000-00-00 00:00:00.000000000".chars())
            .all(|(c, shape)| if shape == '0' { c.is_ascii_digit() } else { c == shape })
}

fn nothing_is_lost_when_a_service_ends(setup: Setup) {
    let mut world = World::new(setup);
    let keep = "[log]\nmax_size = \"1MB\"\nkeep = 50\n[restart]\npolicy = \"never\"";
    world.adversary("flood", "flood 50000 60", keep).adversary("torn", "torn-line", keep);
    let _supervisor = world.start();
    world.wait_state("flood", &["finished"]);
    world.wait_state("torn", &["failed"]);
    assert_flood(&world.log_lines("flood"), 50_000);
    assert_eq!(world.log_lines("torn"), ["ready torn-line", "torn without end"], "a torn last line is kept");
}

#[track_caller]
fn assert_flood(lines: &[String], count: usize) {
    let floods: Vec<_> = lines.iter().filter(|line| line.starts_with("flood 0")).collect();
    assert_eq!(floods.len(), count);
    for (number, line) in (1..).zip(floods) {
        assert!(line.starts_with(&format!("flood {number:09} x")), "{number}: {line}");
    }
}

/// Contract: 69.
#[test]
fn files_rotate_and_the_oldest_goes() {
    let mut world = World::new(Setup::plain());
    world.adversary(
        "flood",
        "flood 20000 100",
        "[log]\nmax_size = \"100kB\"\nkeep = 3\n[restart]\npolicy = \"never\"",
    );
    let _supervisor = world.start();
    world.wait_state("flood", &["finished"]);
    let mut archives = Vec::new();
    for entry in std::fs::read_dir(world.log_dir("flood")).expect("the log directory").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(label) = name.strip_prefix('@') {
            let label = label.strip_suffix(".s").unwrap_or_else(|| panic!("{name}"));
            assert!(label.len() == 24 && label.chars().all(|c| c.is_ascii_hexdigit()), "{name}");
            let size = entry.metadata().expect("its size").len();
            assert!((50_000..=110_000).contains(&size), "{name}: {size}");
            archives.push(name);
        }
    }
    assert_eq!(archives.len(), 3, "{archives:?}");
    let lines = world.log_lines("flood");
    assert_eq!(lines.last().map(String::as_str), Some("flood done"));
    let numbers: Vec<u64> = lines
        .iter()
        .filter_map(|line| line.strip_prefix("flood ")?.split(' ').next()?.parse().ok())
        .collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "no gap from file to file");
    assert_eq!(numbers.last(), Some(&20_000));
}

/// s6-log splits lines of more than 8192 bytes.
/// Contract: 69.
#[test]
fn a_line_of_any_length_is_one_line() {
    let mut world = World::new(Setup::plain());
    world.adversary("long", "long-line 300000", "");
    let _supervisor = world.start();
    world.wait_log("long", "ready");
    let lines = world.log_lines("long");
    assert_eq!(lines[0].len(), 300_000);
    assert!(lines[0].bytes().all(|byte| byte == b'L'));
}

/// The container's reader is stuck: the service, its file and the operator notice nothing.
#[test]
fn a_stuck_reader_of_the_container_stops_nobody() {
    let mut setup = Setup::new(Rung::Cgroup, Place::Pid1);
    let pipe = tempfile::tempdir().expect("a directory");
    let path = pipe.path().join("stdout");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .expect("a fifo");
    // Opened for both so that opening waits for nobody.
    let mut reader = std::fs::OpenOptions::new().read(true).write(true).open(&path).expect("the reader");
    setup.stdout = Some(path);
    let mut world = World::new(setup);
    let keep = "[log]\nmax_size = \"5MB\"\nkeep = 50\n[restart]\npolicy = \"never\"";
    world.adversary("flood", "flood 200000 60", keep);
    world.adversary("clock", "tick 10", "");
    let supervisor = world.start();
    world.wait_state("flood", &["finished"]);
    assert_flood(&world.log_lines("flood"), 200_000);
    world.wait_log("clock", "tick 5");
    world.ctl(&["restart", "clock"]).ok();
    assert!(supervisor.pid() > 0);

    // The reader comes back: whole lines, and a word on how many are missing.
    let mut seen = Vec::new();
    let mut buffer = [0u8; 65536];
    let said = wait::within(wait::PATIENCE, &world.root, || {
        while wait::readable(reader.as_fd(), Duration::from_millis(20)) {
            let count = reader.read(&mut buffer).expect("lines");
            seen.extend_from_slice(&buffer[..count]);
            if String::from_utf8_lossy(&seen).contains("drop") {
                return Some(());
            }
        }
        None
    });
    let text = String::from_utf8_lossy(&seen).into_owned();
    assert!(
        said.is_some(),
        "the number of dropped lines is written there: …{}",
        &text[text.len().saturating_sub(500)..]
    );
    let whole = text.lines().filter(|line| line.starts_with("flood 0"));
    assert!(whole.clone().count() < 200_000);
    // The last one may be cut: reading stopped there.
    let (complete, _) = text.rsplit_once('\n').unwrap_or_default();
    for line in complete.lines().filter(|line| line.contains("flood 0")) {
        assert!(line.starts_with("flood 0") && line.len() == 60, "whole lines only: {line:?}");
    }
}

#[test]
fn the_next_supervisor_reads_on() {
    for rung in [Rung::Cgroup, Rung::Keeper] {
        let mut world = World::new(Setup::new(rung, Place::Child));
        world.adversary("clock", "tick 2", "");
        let supervisor = world.start();
        world.wait_log("clock", "tick 20");
        supervisor.kill();
        let _successor = world.start();
        let so_far = world.log("clock").matches("tick ").count();
        world.wait_log_times("clock", "tick ", so_far + 20);
        let lines = world.log_lines("clock");
        assert_eq!(lines.iter().filter(|line| *line == "ready tick").count(), 1, "it goes on");
        let counted: Vec<u64> =
            lines.iter().filter_map(|line| line.strip_prefix("tick ")?.parse().ok()).collect();
        assert!(counted.is_sorted_by(|one, next| one < next), "each line once: {counted:?}");
        // What was read and not yet written when the supervisor died is lost, and nothing that was still in the FIFO.
        let gaps = counted.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
        assert!(gaps <= 1, "{counted:?}");
    }
}

#[test]
fn a_full_log_disk_is_counted_and_stops_nobody() {
    // One page of the world's tmpfs is enough for the directory tree.
    let mut world = World::new(Setup::plain().world_option(&[
        "--tmpfs",
        "/opt/data/logs",
        "size=1m,uid=10000,gid=10000,mode=755",
    ]));
    world.write_as_hermes("/opt/data/logs/.keep", "");
    world.adversary("flood", "flood 100000 60", "[log]\nkeep = 50\n[restart]\npolicy = \"never\"");
    world.adversary("clock", "tick 50", "");
    let _supervisor = world.start();
    world.wait_state("flood", &["finished"]);
    world.wait_stdout("flood done");
    world.ctl(&["restart", "clock"]).ok();
    let document = world.ctl(&["--json", "status"]).out;
    assert!(
        document.contains("drop") || document.contains("No space") || document.contains("full"),
        "{document}"
    );
}

/// Contract: 72.
#[test]
fn a_log_directory_that_cannot_be_written_is_one_warning() {
    let mut world = World::new(Setup::plain());
    world.write("/opt/data/logs/gateways/.keep", "");
    for dir in ["/opt/data/logs", "/opt/data/logs/gateways"] {
        std::os::unix::fs::chown(world.path(dir), Some(0), Some(0)).expect("an owner");
    }
    world.adversary("clock", "tick 5", "");
    let _supervisor = world.start();
    world.wait_stdout("tick 20");
    assert_eq!(world.state("clock"), "up");
    let warnings =
        world.stderr().lines().filter(|line| line.contains("clock") && line.contains("enied")).count();
    assert_eq!(warnings, 1, "{}", world.stderr());
}

/// A service that runs as a user of its own could not read what it had written: neither by `ctl logs`, nor the file.
#[test]
fn a_services_own_user_reads_its_log_and_nobody_else_does() {
    let mut world = World::new(Setup::plain());
    world.adversary("own", "tick 1000", "user = \"20001\"");
    world.adversary("other", "tick 1000", "user = \"20002\"");
    let supervisor = world.start();
    for name in ["own", "other"] {
        world.wait_log(name, "ready");
    }
    let told = world.ctl_as(&supervisor, 20_001, &["logs", "own"]);
    assert!(told.code == 0 && told.out.contains("ready tick"), "{told:?}");
    let told = world.ctl_as(&supervisor, 20_001, &["logs", "other"]);
    assert_eq!((told.code, told.out.as_str()), (6, ""), "{told:?}");
    assert!(told.err.contains("other: its log cannot be read: Permission denied"), "{told:?}");
    let current = world.log_dir("own").join("current");
    let data = std::fs::metadata(&current).expect("current");
    use std::os::unix::fs::MetadataExt;
    assert_eq!((data.uid(), data.gid(), data.mode() & 0o777), (HERMES, 20_001, 0o640));
}

/// A `logs` directory that an older release has made is the gateway user's alone: a service's own user could not pass it, and to
/// open it would open what else lies there.
#[test]
fn a_services_own_user_reads_its_log_behind_a_closed_directory_too() {
    use std::os::unix::fs::{PermissionsExt, chown};
    let mut world = World::new(Setup::plain());
    let logs = world.path("/opt/data/logs");
    std::fs::create_dir_all(&logs).expect("a directory");
    world.write_as_hermes("/opt/data/logs/private", "secret");
    chown(&logs, Some(HERMES), Some(HERMES)).expect("chown");
    std::fs::set_permissions(&logs, std::fs::Permissions::from_mode(0o750)).expect("chmod");
    let small = "user = \"20001\"\n[log]\nmax_size = 4096\nkeep = 30\n";
    world.adversary("own", "tick 10", small).adversary("other", "tick 1000", "user = \"20002\"");
    let supervisor = world.start();
    world.wait_log("own", "tick 150");
    world.wait_log("other", "ready");
    let told = world.ctl_as(&supervisor, 20_001, &["logs", "own"]);
    assert!(told.code == 0 && told.out.contains("tick 150"), "{told:?}");
    let counts = |text: &str| -> Vec<u64> {
        text.lines().filter_map(|line| line.rsplit_once("tick ")?.1.parse().ok()).collect()
    };
    let read = counts(&told.out);
    assert!(read.windows(2).all(|pair| pair[1] == pair[0] + 1), "archives and all, in order: {read:?}");
    let told = world.ctl_as(&supervisor, 20_001, &["logs", "other"]);
    assert_eq!((told.code, told.out.as_str()), (6, ""), "{told:?}");
    assert!(told.err.contains("other: its log cannot be read: Permission denied"), "{told:?}");
    let mode = std::fs::metadata(&logs).expect("the directory").permissions().mode() & 0o777;
    assert_eq!(mode, 0o750, "nothing was opened to anybody");
    // Its files become archives while it is followed.
    let mut follower =
        world.inside_command(20_001, &["/usr/bin/timeout", "120", "/hermes-sup", "ctl", "logs", "-f", "own"]);
    let mut follower = follower.stdout(std::process::Stdio::piped()).spawn().expect("a follower");
    let lines = BufReader::new(follower.stdout.take().expect("stdout")).lines().map_while(Result::ok);
    let followed: Vec<u64> = lines.filter_map(|line| counts(&line).first().copied()).take(250).collect();
    let _ = follower.kill();
    let _ = follower.wait();
    assert_eq!(followed.len(), 250);
    assert!(followed.windows(2).all(|pair| pair[1] == pair[0] + 1), "nothing twice or missing: {followed:?}");
}

/// `logs a b` showed nothing at all where b had no log, `logs` of a silent service was silent or an error number, and
/// `--json` gave local times.
#[test]
fn a_service_without_a_log_is_named_and_times_are_told() {
    let mut world = World::new(Setup::plain());
    world.adversary("clock", "tick 1000", "");
    world.define("silent", "command = [\"/adversary\", \"hold\"]");
    world.define("never", "command = [\"/adversary\", \"hold\"]\nautostart = false");
    let _supervisor = world.start();
    world.wait_log("clock", "ready");
    let told = world.ctl(&["logs", "clock", "never", "silent"]);
    assert!(told.code == 0 && told.out.contains("ready tick"), "{told:?}");
    assert!(told.err.contains("never: has no log yet: it was never started"), "{told:?}");
    assert!(told.err.contains("silent: has written nothing yet"), "{told:?}");
    let told = world.ctl(&["logs", "--json", "clock", "-n", "1"]);
    let line: serde_json::Value = serde_json::from_str(&told.out).expect("one document");
    let time = line["time"].as_str().expect("a time");
    assert!(time.ends_with('Z') && humantime::parse_rfc3339(time).is_ok(), "{time}");
    assert_eq!(world.ctl(&["logs", "clock", "--until", "1h"]).out, "");
    assert!(world.ctl(&["logs", "clock", "--since", "00:00"]).code == 0);
}

/// A sparse `current` of terabytes, as a service may make it of its own log, and a line of 5 MB: the card and `logs` answer at
/// once, in little memory, with lines that fit.
#[test]
fn what_a_service_makes_of_its_log_does_not_flood_the_card_or_the_memory() {
    let mut world = World::new(Setup::plain());
    world.adversary("clock", "tick 20", "").adversary("long", "long-line 5000000", "");
    let _supervisor = world.start();
    world.wait_log("clock", "tick 5");
    world.wait_log("long", "ready");
    let card = world.ctl(&["status", "long"]);
    assert!(card.code == 0 && card.out.len() < 10_000, "{} bytes", card.out.len());
    assert!(card.out.contains("… (a line of 5000000 bytes)"), "{card:?}");
    let current = std::fs::OpenOptions::new().write(true).open(world.log_dir("clock").join("current"));
    current.expect("current").set_len(1 << 42).expect("a sparse file");
    // It is put away with the next line, and what was and is written is there.
    world.wait_log("clock", "tick 50");
    // In 64 MB of address space, of which the program itself is the larger part.
    for words in ["status clock", "logs clock -n 10", "logs clock"] {
        let bounded = format!("ulimit -v 65536; exec /hermes-sup ctl {words}");
        let told = world.inside_answer(&["/bin/sh", "-c", &bounded]);
        assert!(told.code == 0 && told.out.contains("tick "), "{words}: {} {}", told.code, told.err);
    }
}

/// Output that does not arrive is an error, whatever wrote it.
#[test]
fn a_full_device_is_an_error_of_every_command() {
    for words in ["--help", "--version", "man", "completions bash", "check", "doctor", "ctl --help"] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_hermes-sup"))
            .args(words.split(' '))
            .stdout(full)
            .output()
            .expect("it runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code() == Some(1) && error.contains("failed to write the output"),
            "{words}: {error}"
        );
    }
}

/// `logs -f` of a service that had never run said so and then showed nothing for ever, also when it was started.
#[test]
fn logs_of_a_service_that_has_yet_to_run_are_followed_from_its_start() {
    let mut world = World::new(Setup::plain());
    world.adversary("later", "tick 1000", "autostart = false");
    let _supervisor = world.start();
    let mut command = world.inside_command(0, &["/hermes-sup", "ctl", "logs", "-f", "later"]);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut follower = command.spawn().expect("a follower");
    let mut told = String::new();
    let mut err = BufReader::new(follower.stderr.take().expect("its stderr"));
    while !told.contains("later: has no log yet: it was never started\n") {
        assert_ne!(err.read_line(&mut told).expect("a line"), 0, "{told}");
    }
    world.ctl(&["start", "later"]).ok();
    let mut out = BufReader::new(follower.stdout.take().expect("its stdout"));
    let mut line = String::new();
    while !line.contains("ready tick") {
        assert_ne!(out.read_line(&mut line).expect("a line"), 0, "{line}");
    }
    drop(out);
    follower.kill().expect("a kill");
    follower.wait().expect("its end");
}

/// Whose line it was could not be told in `docker logs`.
#[test]
fn a_line_in_the_containers_log_names_its_service_where_that_is_wanted() {
    let mut world = World::new(Setup::plain().supervisor_option(&["--log-prefix"]));
    world.adversary("named", "both-streams 2", "");
    world.adversary("raw", "both-streams 2", "[log]\nprefix = false\n");
    let _supervisor = world.start();
    for name in ["named", "raw"] {
        world.wait_log(name, "err 2");
    }
    world.wait_stdout("named | out 2\n");
    world.wait_stderr("named | err 2\n");
    world.wait_stdout("\nout 2\n");
    assert!(!world.stdout().contains("raw | "), "{}", world.stdout());
    assert_eq!(world.log("named").matches("named | ").count(), 0, "the file is as ever");
}

#[test]
fn with_json_every_line_of_the_containers_log_is_a_document() {
    let mut world = World::new(Setup::plain().supervisor_option(&["--log-format", "json"]));
    world.adversary("both", "both-streams 3", "");
    let _supervisor = world.start();
    world.wait_stdout(r#""service":"both","stream":"out","line":"out 3"}"#);
    world.wait_stderr(r#""service":"both","stream":"err","line":"err 3"}"#);
    for line in world.stdout().lines().chain(world.stderr().lines()) {
        let document: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        assert!(document["time"].is_string(), "{line}");
    }
}
