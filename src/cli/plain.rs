//! The commands of every day, understood without the parser: to build all commands only to read `ctl status NAME` is most of
//! what that costs.
//!
//! What is understood here means exactly what `args` makes of it, which a test compares. Whatever is not plainly one of
//! these, every mistake too, is left to the parser.

use super::args::{Asked, Named, Verb};
use std::ffi::OsString;
use std::path::PathBuf;

/// A verb and the options that all verbs have.
#[derive(Debug, PartialEq)]
pub(super) struct Plain {
    pub(super) socket: Option<PathBuf>,
    pub(super) json: bool,
    pub(super) verb: Verb,
}

/// `ctl VERB NAME…` with `--socket` and `--json` anywhere in it, or `healthcheck`; `None`: ask the parser.
pub(super) fn command(words: &[OsString]) -> Option<Plain> {
    let (first, rest) = words.split_first()?;
    let (mut socket, mut json, mut said) = (None, false, Vec::new());
    let mut rest = rest.iter();
    while let Some(word) = rest.next() {
        match word.to_str()? {
            "--socket" if socket.is_none() => socket = Some(rest.next()?.to_str()?),
            "--json" if !json => json = true,
            word => match word.strip_prefix("--socket=") {
                Some(path) if socket.is_none() => socket = Some(path),
                _ if word.starts_with('-') => return None,
                _ => said.push(word.to_owned()),
            },
        }
    }
    // To the parser that is a mistake, or another option.
    if socket.is_some_and(|path| path.is_empty() || path.starts_with('-')) {
        return None;
    }
    let verb = match first.to_str()? {
        "ctl" if !said.is_empty() => said.remove(0),
        "healthcheck" if said.is_empty() => "healthcheck".to_owned(),
        _ => return None,
    };
    let names = said;
    let named = |names| Named { names, all: false };
    let verb = match (verb.as_str(), names.is_empty()) {
        ("healthcheck", _) => Verb::Healthcheck { asked: Asked { names, profile: None } },
        ("list", true) => Verb::List,
        ("status", false) => Verb::Status { names, failed: false },
        ("start", false) => Verb::Start { named: named(names), timeout: None, force: false },
        ("stop", false) => Verb::Stop { named: named(names) },
        ("restart", false) => Verb::Restart { named: named(names), timeout: None, rolling: None },
        _ => return None,
    };
    Some(Plain { socket: socket.map(PathBuf::from), json, verb })
}
