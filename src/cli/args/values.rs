//! Values of `ctl`'s options that clap cannot read by itself.

use crate::core::limits::{Key, ValueError};
use crate::core::signal::Signal;

/// What is wrong with a value that was typed, as clap puts it behind the value.
#[derive(Debug, thiserror::Error)]
pub(super) enum TypedError {
    #[error("use a signal as in SIGTERM, TERM or 15")]
    Signal,
    #[error("use NAME=VALUE")]
    Assignment,
    #[error("there is no such limit; allowed: {}", Key::ALL.map(Key::as_str).join(", "))]
    Limit,
    #[error("'{value}' {error}")]
    LimitValue { value: String, error: ValueError },
}

pub(super) fn parse_signal(text: &str) -> Result<Signal, TypedError> {
    Signal::parse(text).ok_or(TypedError::Signal)
}

pub(super) fn parse_assignment(text: &str) -> Result<(String, String), TypedError> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err(TypedError::Assignment),
    }
}

/// A limit as `set` takes it. What is wrong with it is said here, where it was typed.
pub(super) fn parse_limit(text: &str) -> Result<(String, String), TypedError> {
    let (name, value) = parse_assignment(text)?;
    let key = Key::from_name(&name).ok_or(TypedError::Limit)?;
    if value != "default"
        && let Err(error) = key.parse(&value)
    {
        return Err(TypedError::LimitValue { value, error });
    }
    Ok((name, value))
}
