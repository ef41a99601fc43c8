//! `env`, `env_file`, `env_clear` and `[secrets]`, as a definition writes them.

use super::expand::has_variables;
use crate::definition::diagnose::{About, Report, quoted};
use crate::definition::raw::{Item, Read, Table};
use crate::definition::resolved::{EnvFile, RunAs, Secrets};
use crate::definition::trust::Trust;
use crate::definition::values::absolute;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Most env files, and most secrets, of one definition.
const MOST: usize = 64;

/// What a definition says of its environment.
#[derive(Debug, Default)]
pub(in crate::definition) struct Variables {
    pub env: BTreeMap<String, String>,
    pub clear: bool,
    pub files: Vec<EnvFile>,
    /// The place of each of `files` in the text.
    pub places: Vec<Range<usize>>,
    pub secrets: Secrets,
    /// There is something to fill in.
    pub has_variables: bool,
}

/// Reads those keys of `top`.
pub(in crate::definition) fn read(
    top: &mut Table<'_>,
    user: Option<&RunAs>,
    trust: &Trust,
    home: &Path,
    report: &mut Report<'_>,
) -> Variables {
    let mut variables = Variables::default();
    if let Some((env, has_variables)) = top.read("env", report, environment) {
        (variables.env, variables.has_variables) = (env, has_variables);
    }
    variables.clear = top.read("env_clear", report, Item::boolean).unwrap_or(false);
    let wrong = |item: &Item<'_>, key: &str, report: &mut Report<'_>| {
        let message = format!(
            "{key} below --home is only read for services of the default user; put it elsewhere, owned by root or the \
             service's user"
        );
        report.wrong(&item.span(), About::Text, message);
    };
    // What the gateway user can write must not become the environment of anybody else (LD_PRELOAD is enough).
    let may_read = |path: &Path| !(matches!(user, Some(RunAs::Named(_))) && path.starts_with(home));
    for item in top.read("env_file", report, Item::one_or_more).unwrap_or_default() {
        match env_file(&item) {
            Ok(file) => {
                if !may_read(&file.path) {
                    wrong(&item, "an env_file", report);
                }
                variables.files.push(file);
                variables.places.push(item.span());
            }
            Err(fault) => report.wrong(&fault.span, About::Text, fault.message),
        }
    }
    variables.secrets.ours = *trust == Trust::Trusted;
    for (name, item) in top.section("secrets", "[secrets]", report).into_items() {
        let is_named_twice = variables.env.contains_key(name);
        match secret(name, &item, is_named_twice) {
            Ok(path) => {
                if !may_read(&path) {
                    wrong(&item, "a secret", report);
                }
                variables.secrets.files.insert(name.to_owned(), path);
            }
            Err(fault) => report.wrong(&fault.span, About::Text, fault.message),
        }
    }
    for (what, count) in [("env files", variables.files.len()), ("secrets", variables.secrets.files.len())] {
        if count > MOST {
            report.wrong(&(0..0), About::Text, format!("there are {count} {what}; allowed: {MOST}"));
        }
    }
    variables
}

/// The variables, and whether their values have variables.
fn environment(item: &Item<'_>) -> Read<(BTreeMap<String, String>, bool)> {
    let (mut env, mut found) = (BTreeMap::new(), false);
    for (key, value) in item.table("env")?.into_items() {
        let (text, has_variables) = with_variables(&value)?;
        checked_name(key, &value)?;
        found |= has_variables;
        env.insert(key.to_owned(), text);
    }
    Ok((env, found))
}

/// A text, and whether it has variables.
pub(in crate::definition) fn with_variables(item: &Item<'_>) -> Read<(String, bool)> {
    let text = item.expandable()?;
    let found = has_variables(&text).map_err(|wrong| item.fault(format!("{} {wrong}", quoted(&text))))?;
    Ok((text, found))
}

/// An absolute path; one that need not be there has a `?` before it.
fn env_file(item: &Item<'_>) -> Read<EnvFile> {
    item.parsed(|text| {
        let (path, optional) = text.strip_prefix('?').map_or((text, false), |path| (path, true));
        absolute(path).map(|path| EnvFile { path, optional })
    })
}

fn secret(name: &str, item: &Item<'_>, is_named_twice: bool) -> Read<PathBuf> {
    checked_name(name, item)?;
    if is_named_twice {
        return Err(item.fault(format!("{} is also in 'env'; write it once", quoted(name))));
    }
    item.parsed(absolute)
}

fn checked_name(name: &str, item: &Item<'_>) -> Read<()> {
    if is_variable_name(name) {
        return Ok(());
    }
    let name = quoted(name);
    Err(item.fault(format!(
        "{name} cannot be the name of a variable; it must not be empty nor contain '=' or NUL"
    )))
}

pub(in crate::definition) fn is_variable_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0'])
}
