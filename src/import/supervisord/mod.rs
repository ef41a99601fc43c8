//! The programs of a supervisord.conf. What its keys mean and their defaults: supervisord's "Configuration File"
//! documentation, version 4.
//!
//! Here are the files and their sections. `common.rs` has what `[supervisord]` says about every program, `program.rs` one program,
//! `keys.rs` its keys, `output.rs` those about what it writes.

mod common;
mod keys;
mod output;
mod program;

use super::draft::Draft;
use super::ini::{self, Ini};
use super::{Env, Gathered};
use crate::s6::bundle;
use common::Common;
use program::Program;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Most processes of one program, and most files of one `[include]`.
const MOST: usize = 1000;
/// Lines of one file that are named as neither section nor key; another kind of file has nothing else.
const MOST_FAULTS: usize = 5;
/// Sections about supervisord itself.
const OWN_SECTIONS: [&str; 4] = ["supervisord", "supervisorctl", "unix_http_server", "inet_http_server"];

pub(super) fn import(path: &Path, scope: usize, env: &Env<'_>, gathered: &mut Gathered) {
    let mut read = Vec::new();
    if let Some(ini) = load(path, gathered) {
        // As in supervisord, an included file cannot include others. Each file counts once: `files = *.conf` names the
        // file itself, too.
        let files = included(path, &ini, env, gathered);
        read.push((path.to_owned(), ini));
        let mut known = BTreeSet::from([whole(path)]);
        let new = files.into_iter().filter(|file| known.insert(whole(file)));
        read.extend(new.filter_map(|file| load(&file, gathered).map(|ini| (file, ini))).collect::<Vec<_>>());
    }
    let common = Common::of(path, &read, env, gathered);
    let mut found: Vec<(i64, Draft)> = Vec::new();
    for (file, ini) in read {
        let mode = std::fs::metadata(&file).map_or(0o600, |stat| stat.mode());
        for (section, keys) in ini.sections {
            let source = Program { file: &file, scope, mode, common: &common, env };
            match section.split_once(':').map_or((section.as_str(), ""), |(kind, name)| (kind, name.trim())) {
                ("program", name) if !name.is_empty() => match source.drafts(name, &keys) {
                    Ok(drafts) => found.extend(drafts),
                    Err(error) => gathered.fail(&file, &format!("[{section}] cannot be imported: {error}")),
                },
                ("eventlistener", _) => {
                    gathered.fail(&file, &format!("[{section}] cannot be imported: no service is told of events. Where it ends the container after a failure: role = \"essential\" in that program's definition does so"));
                }
                ("program" | "fcgi-program", _) => {
                    gathered.fail(&file, &format!("[{section}] cannot be imported: it has no counterpart"));
                }
                ("group", _) => {
                    gathered.remark(
                        &file,
                        &format!("[{section}]: there are no groups; its programs are imported one by one"),
                    );
                }
                _ if section == "include" || OWN_SECTIONS.contains(&section.as_str()) => {}
                _ => gathered.remark(&file, &format!("[{section}] is not carried over")),
            }
        }
    }
    if found.is_empty() {
        gathered.fail(path, "holds no [program:NAME] that can be imported");
    }
    in_order(&mut found);
    gathered.drafts.extend(found.into_iter().map(|(_, draft)| draft));
}

/// One path for a file that has several.
fn whole(file: &Path) -> PathBuf {
    std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned())
}

fn load(file: &Path, gathered: &mut Gathered) -> Option<Ini> {
    match bundle::text(file) {
        Ok(text) if text.contains('\0') => {
            gathered.fail(file, "contains a NUL character: is it a supervisord.conf?");
            None
        }
        Ok(text) => {
            let mut ini = ini::parse(&text);
            let faults = std::mem::take(&mut ini.faults);
            for fault in faults.iter().take(MOST_FAULTS) {
                gathered.fail(file, fault);
            }
            if faults.len() > MOST_FAULTS {
                gathered.fail(
                    file,
                    &format!("{} more such lines: is it a supervisord.conf?", faults.len() - MOST_FAULTS),
                );
            }
            Some(ini)
        }
        Err(error) => {
            gathered.fail(file, &format!("cannot be read: {error}"));
            None
        }
    }
}

fn section<'a>(ini: &'a Ini, name: &str) -> Option<&'a BTreeMap<String, String>> {
    ini.sections.iter().find(|(section, _)| section == name).map(|(_, keys)| keys)
}

/// The files of `[include]`, in the order of their patterns and then of their names.
fn included(path: &Path, ini: &Ini, env: &Env<'_>, gathered: &mut Gathered) -> Vec<PathBuf> {
    let Some(patterns) = section(ini, "include").and_then(|keys| keys.get("files")) else {
        return Vec::new();
    };
    let here = path.parent().unwrap_or(Path::new("/"));
    let lookup = |name: &str| general(name, path, env);
    let mut files = Vec::new();
    match ini::expand(patterns, &lookup) {
        Ok(patterns) => {
            for pattern in patterns.split_whitespace().take(MOST) {
                // The pattern is joined as text, so special characters of the directory's own name are escaped.
                let whole = match pattern.starts_with('/') {
                    true => pattern.to_owned(),
                    false => format!("{}/{pattern}", glob::Pattern::escape(&here.to_string_lossy())),
                };
                match glob::glob(&whole) {
                    Ok(found) => files.extend(found.take(MOST - files.len()).filter_map(Result::ok)),
                    Err(error) => gathered.fail(path, &format!("[include] files '{pattern}': {error}")),
                }
            }
            if files.len() == MOST {
                gathered.fail(path, &format!("[include] names {MOST} files or more: the rest is not read"));
            }
        }
        Err(why) => gathered.fail(path, &format!("[include] files {why}")),
    }
    files
}

/// What `%(NAME)s` stands for in every value.
fn general(name: &str, file: &Path, env: &Env<'_>) -> Option<String> {
    match name {
        "here" => file.parent().and_then(Path::to_str).map(str::to_owned),
        "host_node_name" => Some(rustix::system::uname().nodename().to_string_lossy().into_owned()),
        _ => env(name.strip_prefix("ENV_")?)?.into_string().ok(),
    }
}

/// Each starts after everything of the next lower priority.
fn in_order(found: &mut [(i64, Draft)]) {
    let mut levels: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    for (priority, draft) in found.iter() {
        levels.entry(*priority).or_default().push(draft.wish.clone());
    }
    for (priority, draft) in found {
        if let Some((_, before)) = levels.range(..*priority).next_back() {
            draft.after.clone_from(before);
        }
    }
}

fn octal(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 8).ok().filter(|mask| *mask <= 0o777)
}
