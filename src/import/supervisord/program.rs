//! A `[program:NAME]`: a draft for each of its processes.

use super::common::Common;
use super::keys::Keys;
use super::{MOST, general};
use crate::import::Env;
use crate::import::draft::Draft;
use crate::import::ini::{self, ValueError};
use std::collections::BTreeMap;
use std::path::Path;

/// What a program has without a `priority`.
const PRIORITY: i64 = 999;

/// Why a program cannot be imported.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProgramError {
    #[error("{key} = {text} is not a number")]
    NoNumber { key: &'static str, text: String },
    #[error("numprocs = {0} is too many; allowed: {MOST}")]
    TooMany(u64),
    #[error("numprocs needs a process_name with %(process_num)d")]
    OneName,
    #[error("{key} {error}")]
    Value { key: &'static str, error: ValueError },
    #[error("it has no command")]
    NoCommand,
    #[error("its command names no program")]
    NoProgram,
}

/// One `[program:x]`'s surroundings.
pub(super) struct Program<'a> {
    pub(super) file: &'a Path,
    pub(super) scope: usize,
    pub(super) mode: u32,
    pub(super) common: &'a Common,
    pub(super) env: &'a Env<'a>,
}

impl Program<'_> {
    /// A draft for each of its processes, with its priority.
    pub(super) fn drafts(
        &self,
        name: &str,
        keys: &BTreeMap<String, String>,
    ) -> Result<Vec<(i64, Draft)>, ProgramError> {
        let number = |key: &'static str, default: u64| {
            let Some(text) = keys.get(key) else { return Ok(default) };
            text.parse().map_err(|_| ProgramError::NoNumber { key, text: text.clone() })
        };
        let (count, start) = (number("numprocs", 1)?, number("numprocs_start", 0)?);
        if count > MOST as u64 || start > 1 << 40 {
            return Err(ProgramError::TooMany(count));
        }
        if count > 1 && !keys.get("process_name").is_some_and(|name| name.contains("%(process_num)")) {
            return Err(ProgramError::OneName);
        }
        (start..start + count).map(|process| self.draft(name, keys, process, count)).collect()
    }

    fn draft(
        &self,
        name: &str,
        keys: &BTreeMap<String, String>,
        process: u64,
        count: u64,
    ) -> Result<(i64, Draft), ProgramError> {
        let lookup = |word: &str| match word {
            "program_name" | "group_name" => Some(name.to_owned()),
            "process_num" => Some(process.to_string()),
            "numprocs" => Some(count.to_string()),
            _ => general(word, self.file, self.env),
        };
        let mut keys = Keys { left: keys.clone(), lookup: &lookup, draft: Draft::default() };
        keys.draft.scope = self.scope;
        keys.draft.source = self.file.to_owned();
        keys.draft.mode = self.mode;
        let [command, process_name] = ["command", "process_name"].map(|key| {
            let raw = keys.left.remove(key)?;
            keys.note_frozen(key, &raw);
            Some(ini::expand(&raw, &lookup).map_err(|error| ProgramError::Value { key, error }))
        });
        let command = command.ok_or(ProgramError::NoCommand)??;
        let wrong = |error| ProgramError::Value { key: "command", error };
        keys.draft.command = ini::words(&command).map_err(wrong)?;
        if keys.draft.command.first().is_none_or(String::is_empty) {
            return Err(ProgramError::NoProgram);
        }
        if Path::new(&keys.draft.command[0]).file_name().is_some_and(|name| name == "pidproxy") {
            keys.draft.note("pidproxy comes with supervisord and needs it no more: the whole tree gets the stop signal here, so name the program itself as command");
        }
        keys.draft.wish = process_name.transpose()?.unwrap_or_else(|| name.to_owned());
        for key in ["numprocs", "numprocs_start"] {
            keys.left.remove(key);
        }
        let priority = keys.integer("priority", i64::MIN..=i64::MAX).unwrap_or(PRIORITY);
        keys.identity(self.common);
        keys.starting();
        keys.stopping();
        keys.logging();
        let left: Vec<String> = keys.left.keys().cloned().collect();
        for key in left {
            keys.refuse(&key, "it has no counterpart");
        }
        Ok((priority, keys.draft))
    }
}
