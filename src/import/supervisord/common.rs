//! What `[supervisord]` says about every program, and lists of variables.

use super::{general, octal, section};
use crate::import::ini::{self, Ini};
use crate::import::{Env, Gathered};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What `[supervisord]` says about every program.
#[derive(Default)]
pub(super) struct Common {
    pub(super) env: Variables,
    pub(super) user: Option<String>,
    pub(super) umask: Option<u32>,
    pub(super) directory: Option<String>,
    pub(super) notes: Vec<String>,
}

impl Common {
    pub(super) fn of(path: &Path, read: &[(PathBuf, Ini)], env: &Env<'_>, gathered: &mut Gathered) -> Self {
        let mut common = Self::default();
        let Some(keys) = read.iter().find_map(|(_, ini)| section(ini, "supervisord")) else { return common };
        let lookup = |name: &str| general(name, path, env);
        for (key, raw) in keys {
            if key == "environment" {
                common.env = Variables::read(raw, &lookup, "[supervisord] environment");
                continue;
            }
            let value = match ini::expand(raw, &lookup) {
                Ok(value) => value,
                Err(why) => {
                    gathered.remark(path, &format!("[supervisord] {key} {why}: not carried over"));
                    continue;
                }
            };
            match key.as_str() {
                "umask" if octal(&value).is_some() => common.umask = octal(&value),
                "directory" if value.starts_with('/') => common.directory = Some(value),
                "user" if !value.is_empty() => common.user = Some(value),
                _ => {
                    gathered.remark(path, &format!("[supervisord] {key}: not carried over"));
                    continue;
                }
            }
            common.notes.extend(frozen(raw, &format!("[supervisord] {key}")));
        }
        common
    }
}

/// The remark about a value with `%(ENV_X)s`: the definition holds what X was at the import.
pub(super) fn frozen(raw: &str, place: &str) -> Option<String> {
    let names: Vec<String> =
        environment_names(raw).into_iter().map(|name| format!("%(ENV_{name})s")).collect();
    (!names.is_empty()).then(|| {
        format!(
            "{} in {place}: the value at the import stands there; it may be a secret, so only the file's owner may read it",
            names.join(", ")
        )
    })
}

/// The X of every `%(ENV_X)s`.
fn environment_names(raw: &str) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for part in raw.split("%(ENV_").skip(1) {
        let name = part.split(')').next().unwrap_or_default();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// A list `environment`, each variable expanded alone: one that cannot be expanded is left out, the others stay.
#[derive(Default)]
pub(super) struct Variables {
    /// `None`: what the supervisor's own environment says, or nothing.
    pub(super) values: BTreeMap<String, Option<String>>,
    /// With the variable that it is about; `None`: all.
    pub(super) notes: Vec<(Option<String>, String)>,
    /// Some hold what our own environment said.
    pub(super) private: bool,
}

impl Variables {
    pub(super) fn read(raw: &str, lookup: &dyn Fn(&str) -> Option<String>, place: &str) -> Self {
        let mut read = Self::default();
        let Ok(listed) = ini::pairs(raw) else {
            // The list itself may be what an expansion gives.
            match ini::expand(raw, lookup).and_then(|list| ini::pairs(&list)) {
                Ok(pairs) => read.values = pairs.into_iter().map(|(key, value)| (key, Some(value))).collect(),
                Err(why) => read.notes.push((None, format!("{place} {why}"))),
            }
            if let Some(held) = frozen(raw, place).filter(|_| !read.values.is_empty()) {
                read.notes.push((None, held));
                read.private = true;
            }
            return read;
        };
        for (key, value) in listed {
            // Every service has the supervisor's environment.
            let expanded = match value == format!("%(ENV_{key})s") {
                true => Ok(None),
                false => ini::expand(&value, lookup).map(Some),
            };
            match &expanded {
                Ok(None) => {}
                Ok(Some(_)) => {
                    if let Some(held) = frozen(&value, &format!("{place}: {key}")) {
                        read.notes.push((Some(key.clone()), held));
                        read.private = true;
                    }
                }
                Err(why) => {
                    let note = format!("{place}: {key} {why}: this variable is left out");
                    read.notes.push((Some(key.clone()), note));
                }
            }
            read.values.insert(key, expanded.ok().flatten());
        }
        read
    }
}
