//! s6 service directories: one, a scan directory of many, or the source directory of s6-rc.

use super::Gathered;
use super::draft::{DAY, Draft, ROOT, Ready};
use crate::core::name::GATEWAY_PREFIX;
use crate::s6::bundle;
use crate::s6::slot::{self, Kind, Run, SlotWarning};
use crate::sys::beneath::Beneath;
use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Files that mean something to s6 and have no counterpart in a definition, with why.
const NO_COUNTERPART: [(&str, &str); 11] = [
    ("flag-newpidns", "write containment = \"pidns\" for a PID namespace of its own"),
    ("timeout-finish", "no program is run after the end"),
    ("env", "its variables are set only where ./run reads them, as under s6"),
    ("max-death-tally", "how often it may fail is [restart] limit"),
    ("nosetsid", "every service has a session of its own"),
    ("lock-fd", "no lock is needed: nothing of an old run is left beside a new one"),
    ("producer-for", "its output goes to the supervisor's own log"),
    ("pipeline-name", "its output goes to the supervisor's own log"),
    ("timeout-up", "a start waits as long as 'ctl start --timeout' says"),
    ("timeout-down", "the end of a stop is [stop] timeout"),
    ("flag-essential", "write role = \"essential\" if the container is to end with it"),
];

pub(super) fn import(path: &Path, scope: usize, gathered: &mut Gathered) {
    if is_service(path) {
        one(path, path.parent().unwrap_or(path), scope, gathered);
        return;
    }
    let children = match bundle::names(path) {
        Ok(names) => names,
        Err(error) => return gathered.fail(path, &format!("cannot be read: {error}")),
    };
    let before = (gathered.drafts.len(), gathered.failures.len());
    for name in children {
        let dir = path.join(&name);
        if name.to_string_lossy().starts_with(GATEWAY_PREFIX) {
            gathered.remark(&dir, "is made from its Hermes profile and needs no definition");
        } else if is_service(&dir) {
            one(&dir, path, scope, gathered);
        }
    }
    if before == (gathered.drafts.len(), gathered.failures.len()) {
        gathered
            .fail(path, "holds no s6 service directory: give one with a file 'run', or a directory of such");
    }
    hold_down_what_no_bundle_names(path, before.0, gathered);
}

fn is_service(dir: &Path) -> bool {
    ["run", "up"].iter().any(|file| std::fs::symlink_metadata(dir.join(file)).is_ok())
}

/// s6-overlay starts the bundles `user` and `user2`; what is in neither is only defined.
fn hold_down_what_no_bundle_names(path: &Path, from: usize, gathered: &mut Gathered) {
    if !path.join("user/type").exists() && !path.join("user/contents.d").exists() {
        return;
    }
    let started: BTreeSet<String> = bundle::named(path);
    for draft in &mut gathered.drafts[from..] {
        draft.held_down |= !started.contains(&draft.wish);
    }
}

fn one(dir: &Path, sources: &Path, scope: usize, gathered: &mut Gathered) {
    let (Some(text), Some(wish)) = (dir.to_str(), dir.file_name().and_then(|name| name.to_str())) else {
        return gathered.fail(dir, "its path has no name that is UTF-8 text: rename it, or write it out");
    };
    let read = Beneath::open(dir).and_then(|dir| slot::read(&dir));
    let (slot, mut warnings) = match read {
        Ok(read) => read,
        Err(error) => return gathered.fail(dir, &format!("cannot be read: {error}")),
    };
    // A link is executed here as under s6, unlike in a scan directory of ours that others can write.
    let is_linked = slot.run != Run::Executable && is_program(&dir.join("run"));
    let run = dir.join("run");
    warnings.retain(|warning| !(is_linked && warning.file == run));
    gathered.remarks.extend(warnings.iter().map(SlotWarning::to_string));
    let mut draft = Draft {
        scope,
        wish: slot::service_of(wish).unwrap_or(wish).to_owned(),
        source: dir.to_owned(),
        mode: 0o644,
        working_dir: Some(text.to_owned()),
        held_down: slot.down && slot.kind == Kind::Longrun,
        stop_signal: slot.down_signal,
        ready: slot.notification_fd.filter(|_| slot.kind == Kind::Longrun).map(Ready::Fd),
        ..Draft::default()
    };
    match slot.kind {
        Kind::Bundle => return,
        Kind::Oneshot => match plain_words(dir) {
            Ok(words) => {
                draft.oneshot = true;
                draft.command = words;
                // s6-rc runs it elsewhere, in no place that it may count on.
                draft.working_dir = Some("/".to_owned());
                if dir.join("down").exists() {
                    draft.note("down: nothing is run when a oneshot goes down");
                }
            }
            Err(error) => return gathered.fail(&dir.join("up"), &error.to_string()),
        },
        Kind::Longrun => {
            draft.command = vec![format!("{}/run", text.trim_end_matches('/'))];
            if slot.run != Run::Executable && !is_linked {
                draft.note("its ./run is no executable file: it cannot start until it is one");
            }
            timeouts(&slot, &mut draft);
        }
    }
    // s6 starts everything as root.
    draft.user = Some(ROOT.to_owned());
    if slot.logger {
        draft.note("log/run: the supervisor keeps the log itself");
    }
    for (file, why) in NO_COUNTERPART {
        if dir.join(file).exists() {
            draft.note(format!("{file}: {why}"));
        }
    }
    if dir.join("consumer-for").exists() {
        draft.held_down = true;
        draft.note("consumer-for: no service reads another's output. Its standard input would be empty, so it is not started");
    }
    let (requires, warnings) = bundle::depends_on(sources, dir);
    draft.requires = requires;
    gathered.remarks.extend(warnings);
    gathered.drafts.push(draft);
}

/// Whether `path`, or what it links to, is a file that can be executed.
fn is_program(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|stat| stat.is_file() && stat.permissions().mode() & 0o111 != 0)
}

fn timeouts(slot: &slot::Slot, draft: &mut Draft) {
    match slot.timeout_kill {
        Some(limit) => {
            draft.stop_timeout = Some(limit.min(DAY));
            if limit > DAY {
                draft.note("timeout-kill: a stop takes no longer than a day");
            }
        }
        None => draft.note(
            "s6 never kills it; here what is left 10s after the stop signal is killed: see [stop] timeout",
        ),
    }
    if slot.finish.is_some() {
        draft.note("finish: no program is run after the end; codes for which it exits with 125 belong into [restart] exit_codes");
    }
}

/// Why the words of a file `up` cannot be taken.
#[derive(Debug, thiserror::Error)]
enum UpError {
    #[error("cannot be read: {0}")]
    Unread(#[from] io::Error),
    #[error("is execline and more than plain words: put it into a script, and name that")]
    Execline,
}

/// `up` is a line of execline. One that has nothing but plain words means the same here.
fn plain_words(dir: &Path) -> Result<Vec<String>, UpError> {
    let text = bundle::text(&dir.join("up"))?;
    let lines: Vec<&str> =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./=:@%+,-".contains(c);
    match lines[..] {
        [line] if line.chars().all(|c| plain(c) || c == ' ') => {
            Ok(line.split_whitespace().map(str::to_owned).collect())
        }
        _ => Err(UpError::Execline),
    }
}
