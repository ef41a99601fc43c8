//! `systemctl`: ends a scope, or shows it.

use super::options::Words;
use super::{FAILED, Failure, PATIENCE, WordsError, ask, failed};
use crate::control::client::ClientError;
use crate::control::protocol::{RefusalKind, Request, ScopeStatus};
use crate::core::unit::ScopeName;
use crate::s6::applets::applet::Call;
use std::ffi::OsString;
use std::time::Duration;

/// How long the end of a scope may take. A gateway gives `systemctl stop` 15 s, so the failure is told before that.
const STOP_PATIENCE: Duration = Duration::from_secs(14);

/// systemctl's exit code for a command about a unit that is not loaded: the LSB's "program is not installed".
const NOT_LOADED: u8 = 5;

/// Returns the exit code: 0, 5 for a unit that is not loaded, or 1.
pub fn systemctl(call: &mut Call<'_>) -> u8 {
    let done = match Control::parse(call.words) {
        Ok(Control::Stop { unit }) => stop(call, &unit),
        Ok(Control::Show { unit, properties, value_only }) => show(call, &unit, &properties, value_only),
        Err(error) => Err(error.into()),
    };
    done.unwrap_or_else(|error| failed(call, &error))
}

/// What is asked of systemctl.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Control {
    Stop { unit: String },
    Show { unit: String, properties: Vec<String>, value_only: bool },
}

impl Control {
    pub(super) fn parse(words: &[OsString]) -> Result<Self, WordsError> {
        let (mut user, mut value_only) = (false, false);
        let (mut properties, mut plain) = (Vec::new(), Vec::new());
        let mut words = Words { rest: words };
        loop {
            while let Some(option) = words.option()? {
                match option.name {
                    "--user" => user = option.alone()?,
                    "--value" => value_only = option.alone()?,
                    "--quiet" | "-q" | "--no-pager" => drop(option.alone()?),
                    "--property" | "-p" | "-P" => {
                        value_only |= option.name == "-P";
                        let list = option.value(&mut words)?;
                        properties.extend(list.split(',').map(str::to_owned));
                    }
                    other => return Err(WordsError::Control(other.to_owned())),
                }
            }
            // Options may stand anywhere.
            let Some((word, rest)) = words.rest.split_first() else { break };
            plain.push(word.to_str().ok_or(WordsError::NotUtf8)?.to_owned());
            words.rest = rest;
        }
        let mut plain = plain.into_iter();
        let verb = plain.next().unwrap_or_default();
        if !user || !matches!(verb.as_str(), "stop" | "show") {
            return Err(WordsError::Control(format!("'{verb}'")));
        }
        let (Some(unit), None) = (plain.next(), plain.next()) else {
            return Err(WordsError::NotOneUnit { verb });
        };
        Ok(if verb == "stop" { Self::Stop { unit } } else { Self::Show { unit, properties, value_only } })
    }
}

fn stop(call: &mut Call<'_>, unit: &str) -> Result<u8, Failure> {
    let search = call.search();
    let mut not_loaded = |unit: &str| {
        call.console.error(&format!("failed to stop {unit}: Unit {unit} not loaded."));
        NOT_LOADED
    };
    // It may be the name of another kind of unit. Here there are none.
    let Ok(name) = ScopeName::new(unit) else { return Ok(not_loaded(unit)) };
    let unit = name.to_string();
    match ask(&search, &Request::ScopeStop { unit: unit.clone() }, STOP_PATIENCE) {
        Ok(_) => Ok(0),
        Err(error) if is_no_such_scope(&error) => Ok(not_loaded(&unit)),
        Err(ClientError::TimedOut { after, .. }) => Err(Failure::NotEmpty { unit, after }),
        Err(error) => Err(Failure::Unit { verb: "stop", unit, error }),
    }
}

fn show(call: &mut Call<'_>, unit: &str, wanted: &[String], value_only: bool) -> Result<u8, Failure> {
    let scope = match ScopeName::new(unit) {
        Err(_) => None,
        Ok(name) => match ask(&call.search(), &Request::ScopeShow { unit: name.to_string() }, PATIENCE) {
            Ok(scope) => scope,
            Err(error) if is_no_such_scope(&error) => None,
            Err(error) => return Err(Failure::Unit { verb: "show", unit: unit.to_owned(), error }),
        },
    };
    call.console.show(&shown(&properties(unit, scope.as_ref()), wanted, value_only));
    Ok(if call.console.failed() { FAILED } else { 0 })
}

/// All properties, as systemctl shows them: a unit that is not loaded has some too.
pub(super) fn properties(unit: &str, scope: Option<&ScopeStatus>) -> Vec<(&'static str, String)> {
    let bound = |bytes: Option<u64>| bytes.map_or_else(|| "infinity".to_owned(), |bytes| bytes.to_string());
    let (load, active, sub) = match scope {
        None => ("not-found", "inactive", "dead"),
        Some(scope) if scope.stopping => ("loaded", "deactivating", "stop-sigkill"),
        Some(_) => ("loaded", "active", "running"),
    };
    let figure = |value: Option<u64>| value.map_or_else(|| "[not set]".to_owned(), |value| value.to_string());
    vec![
        ("Id", scope.map_or_else(|| unit.to_owned(), |scope| scope.unit.clone())),
        ("LoadState", load.to_owned()),
        ("ActiveState", active.to_owned()),
        ("SubState", sub.to_owned()),
        ("ControlGroup", scope.and_then(|scope| scope.control_group.clone()).unwrap_or_default()),
        ("MemoryCurrent", figure(scope.and_then(|scope| scope.memory_bytes))),
        ("MemoryMax", bound(scope.and_then(|scope| scope.memory_max))),
        ("MemorySwapMax", bound(scope.and_then(|scope| scope.swap_max))),
        ("TasksCurrent", figure(scope.map(|scope| scope.procs))),
    ]
}

/// The properties that are wanted, in that order; all if none is named. An unknown one is left out, as systemctl does.
pub(super) fn shown(all: &[(&'static str, String)], wanted: &[String], value_only: bool) -> String {
    let find = |name: &String| all.iter().find(|(known, _)| known == name);
    let chosen: Vec<_> =
        if wanted.is_empty() { all.iter().collect() } else { wanted.iter().filter_map(find).collect() };
    let line = |(name, value): &&(&str, String)| {
        if value_only { format!("{value}\n") } else { format!("{name}={value}\n") }
    };
    chosen.iter().map(line).collect()
}

fn is_no_such_scope(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused(refusal) if refusal.kind == RefusalKind::NoSuchScope)
}
