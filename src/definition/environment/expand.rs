//! `${NAME}` and `${NAME:-default}` in a definition: variables of the environment that the supervisor was given.
//!
//! A text is checked when its definition is read and filled in at each start. `$${` is a `${` that stays; a `$` before anything
//! else is itself, so that scripts keep their `$1` and `$NAME`. What a service can learn by this it has in its environment
//! anyhow, unless its own definition clears that.

use super::Environment;
use crate::definition::resolved::Definition;
use std::borrow::Cow;
use std::ffi::OsStr;
use std::path::PathBuf;

const OPENS: &str = "${";

/// Why a text is none: the end of a sentence about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "has a '${{' that begins no variable; write ${{NAME}} or ${{NAME:-default}}, or $${{ for the text '${{'"
)]
pub struct NoVariable;

/// Why a text cannot be filled in. It shows no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    #[error(
        "'{key}' needs the variable {name}, which the supervisor was not given: set it for the container, or write \
         ${{{name}:-default}}"
    )]
    Unset { key: &'static str, name: String },
    #[error("'{key}' needs the variable {name}, whose value is not UTF-8 text")]
    NotText { key: &'static str, name: String },
    #[error("'working_dir' became '{dir}', which is not an absolute path", dir = .0.display())]
    NotAbsolute(PathBuf),
    #[error("'{key}' {wrong}")]
    Malformed { key: &'static str, wrong: NoVariable },
}

/// Whether there is anything to fill in, or to take away.
///
/// # Errors
/// [`NoVariable`].
pub fn has_variables(text: &str) -> Result<bool, NoVariable> {
    let mut found = false;
    for piece in pieces(text) {
        found |= !matches!(piece?, Piece::Text(whole) if whole.len() == text.len());
    }
    Ok(found)
}

/// `text` as one that stands for itself.
pub fn escaped(text: &str) -> String {
    text.replace(OPENS, "$${")
}

/// The definition with the variables of `base` in its texts.
///
/// # Errors
/// [`ExpandError`].
pub fn expanded<'d>(
    definition: &'d Definition,
    base: &Environment<'_>,
) -> Result<Cow<'d, Definition>, ExpandError> {
    if !definition.has_variables {
        return Ok(Cow::Borrowed(definition));
    }
    let mut whole = definition.clone();
    for word in &mut whole.command {
        *word = filled("command", word, base)?;
    }
    for value in whole.env.values_mut() {
        *value = filled("env", value, base)?;
    }
    if let Some(dir) = definition.working_dir.to_str() {
        whole.working_dir = PathBuf::from(filled("working_dir", dir, base)?);
    }
    if !whole.working_dir.is_absolute() {
        return Err(ExpandError::NotAbsolute(whole.working_dir));
    }
    Ok(Cow::Owned(whole))
}

fn filled(key: &'static str, text: &str, base: &Environment<'_>) -> Result<String, ExpandError> {
    let mut filled = String::new();
    for piece in pieces(text) {
        match piece.map_err(|wrong| ExpandError::Malformed { key, wrong })? {
            Piece::Text(text) => filled.push_str(text),
            Piece::Variable { name, default } => {
                let place = base.binary_search_by(|(known, _)| (**known).cmp(OsStr::new(name)));
                let value = place.ok().and_then(|place| base.get(place)).map(|(_, value)| value);
                let name = || name.to_owned();
                match (value, default) {
                    (Some(value), Some(default)) if value.is_empty() => filled.push_str(default),
                    (Some(value), _) => filled
                        .push_str(value.to_str().ok_or_else(|| ExpandError::NotText { key, name: name() })?),
                    (None, Some(default)) => filled.push_str(default),
                    (None, None) => return Err(ExpandError::Unset { key, name: name() }),
                }
            }
        }
    }
    Ok(filled)
}

#[derive(Debug, PartialEq, Eq)]
enum Piece<'t> {
    Text(&'t str),
    Variable {
        name: &'t str,
        /// Also for a variable that is empty, as in sh(1).
        default: Option<&'t str>,
    },
}

/// A text in pieces; nothing comes after an error.
fn pieces(text: &str) -> impl Iterator<Item = Result<Piece<'_>, NoVariable>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let piece = match rest.find(OPENS) {
            _ if rest.is_empty() => return None,
            None => Ok((Piece::Text(rest), "")),
            // One of both `$` goes.
            Some(at) if rest[..at].ends_with('$') => Ok((Piece::Text(&rest[..at]), &rest[at + 1..])),
            Some(0) => variable(rest),
            Some(at) => Ok((Piece::Text(&rest[..at]), &rest[at..])),
        };
        Some(piece.map(|(piece, after)| {
            rest = after;
            piece
        }))
    })
}

fn variable(text: &str) -> Result<(Piece<'_>, &str), NoVariable> {
    let (inner, after) = text.strip_prefix(OPENS).and_then(|text| text.split_once('}')).ok_or(NoVariable)?;
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let is_name = name.chars().all(is_word) && name.starts_with(|c: char| !c.is_ascii_digit());
    match is_name && !default.is_some_and(|default| default.contains(OPENS)) {
        true => Ok((Piece::Variable { name, default }, after)),
        false => Err(NoVariable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn base() -> Environment<'static> {
        let pairs = [("EMPTY", ""), ("PORT", "80"), ("TRICKY", "${PORT}")];
        pairs.map(|(key, value)| (OsStr::new(key).into(), OsStr::new(value).into())).into()
    }

    #[test]
    fn a_variable_is_filled_in_once_and_a_dollar_alone_is_itself() {
        for (text, expected) in [
            ("plain $PORT $1 $$ 5$", "plain $PORT $1 $$ 5$"),
            ("--port=${PORT}!", "--port=80!"),
            ("${PORT}${PORT:-9}", "8080"),
            ("${EMPTY}|${EMPTY:-none}|${NONE:-}|${NONE:-a:-b}", "|none||a:-b"),
            ("$${PORT} $$${PORT}", "${PORT} $${PORT}"),
            ("${TRICKY}", "${PORT}"),
        ] {
            assert_eq!(filled("command", text, &base()).as_deref(), Ok(expected), "{text}");
        }
        let unset = filled("env", "${TOKEN}", &base()).unwrap_err().to_string();
        assert_eq!(
            unset,
            "'env' needs the variable TOKEN, which the supervisor was not given: set it for the container, or write \
             ${TOKEN:-default}"
        );
    }

    #[test]
    fn what_is_no_variable_is_refused_when_it_is_read() {
        for text in ["${", "${}", "${1}", "${x%%y}", "${#x}", "a ${x", "${a b}", "${A:-${B}}"] {
            assert_eq!(has_variables(text), Err(NoVariable), "{text}");
        }
        for (text, expected) in [("", false), ("$PORT", false), ("${PORT}", true), ("a $${x%%y}", true)] {
            assert_eq!(has_variables(text), Ok(expected), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_escaped_stays_what_it_was(text in "[${}a:é-]{0,20}") {
            prop_assert_eq!(filled("command", &escaped(&text), &base()), Ok(text.clone()));
            let _ = filled("command", &text, &base());
        }
    }
}
