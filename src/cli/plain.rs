//! The commands of every day, understood without the parser: to build all commands only to read `ctl status NAME` is most of
//! what that costs.
//!
//! What is understood here means exactly what `args` makes of it, which a test compares. Whatever is not plainly one of
//! these, every mistake too, is left to the parser.

use super::args::{Asked, Named, Verb};
use std::ffi::OsString;

/// `ctl VERB NAME…` with nothing else in it, or `healthcheck`; `None`: ask the parser.
pub(super) fn verb(words: &[OsString]) -> Option<Verb> {
    let (verb, names) = match words {
        [verb] if verb == "healthcheck" => (verb, &[][..]),
        [ctl, verb, names @ ..] if ctl == "ctl" && (!names.is_empty() || verb == "healthcheck") => {
            (verb, names)
        }
        _ => return None,
    };
    let names = names.iter().map(|name| name.to_str().filter(|name| !name.starts_with('-')));
    let names = names.map(|name| name.map(ToOwned::to_owned)).collect::<Option<Vec<String>>>()?;
    let named = |names| Named { names, all: false };
    Some(match verb.to_str()? {
        "status" => Verb::Status { names, failed: false },
        "healthcheck" => Verb::Healthcheck { asked: Asked { names, profile: None } },
        "start" => Verb::Start { named: named(names), timeout: None, force: false },
        "stop" => Verb::Stop { named: named(names) },
        "restart" => Verb::Restart { named: named(names), timeout: None, rolling: None },
        _ => return None,
    })
}
