//! The name of a service: the one identifier that people, files, cgroup directories and the database share.
//!
//! A `ServiceName` that exists is valid, so it can be put into a path or a message without another check.

use std::fmt;
use std::sync::Arc;

/// Names that mean something else to the supervisor or to the Hermes image.
pub const RESERVED: [&str; 4] = ["supervisor", "gateway", "main-hermes", "dashboard"];

/// The reserved name that the supervisor itself gives to a service.
const DASHBOARD: &str = "dashboard";

/// Longest name, in bytes: leaves room for `.<incarnation>` in a file name of 255.
pub const MAX_LEN: usize = 64;

/// A checked service name: `[a-z0-9][a-z0-9_-]{0,63}`, not reserved.
///
/// Cheap to clone: every event and every reply carries one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(Arc<str>);

/// Why a text is not a service name. The message states the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error(
        "'{0}' is not a service name: use 1 to 64 of a-z, 0-9, '-' and '_', beginning with a letter or digit"
    )]
    Malformed(String),
    #[error("'{0}' is reserved: choose another name ({list} are taken by the supervisor)", list = RESERVED.join(", "))]
    Reserved(String),
}

impl ServiceName {
    /// Checks `text` against the naming rule.
    ///
    /// # Errors
    /// [`NameError`] when the rule is broken or the name is reserved.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let bytes = text.as_bytes();
        let head_ok = bytes.first().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let tail_ok =
            bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'_' || *b == b'-');
        if !head_ok || !tail_ok || bytes.len() > MAX_LEN {
            // Shown back to a person: keep a hostile or huge name from flooding the terminal.
            let shown: String = text.chars().take(MAX_LEN + 1).map(printable).collect();
            return Err(NameError::Malformed(shown));
        }
        if RESERVED.contains(&text) {
            return Err(NameError::Reserved(text.to_owned()));
        }
        Ok(Self(text.into()))
    }

    /// The Hermes dashboard, which nobody else can define or register under that name.
    pub fn dashboard() -> Self {
        Self(DASHBOARD.into())
    }

    /// As [`ServiceName::new`], for what the supervisor itself has written: its own services are in it too.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn ours(text: &str) -> Result<Self, NameError> {
        if text == DASHBOARD { Ok(Self::dashboard()) } else { Self::new(text) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn printable(c: char) -> char {
    if c.is_control() { '?' } else { c }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl AsRef<str> for ServiceName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for ServiceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_is_the_documented_one() {
        for good in ["a", "0", "coder", "a-b_c", &"x".repeat(64)] {
            assert_eq!(ServiceName::new(good).map(|n| n.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", "-a", "_a", "A", "a.b", "a/b", "ä", "a b", "..", &"x".repeat(65)] {
            assert!(matches!(ServiceName::new(bad), Err(NameError::Malformed(_))), "{bad:?}");
        }
        for taken in RESERVED {
            assert!(matches!(ServiceName::new(taken), Err(NameError::Reserved(_))), "{taken}");
            assert_eq!(ServiceName::ours(taken).is_ok(), taken == ServiceName::dashboard().as_str());
        }
        assert!(ServiceName::ours("a/b").is_err());
    }

    #[test]
    fn a_refused_name_is_shown_without_control_characters() {
        let text = ServiceName::new("a\x1b[2J\n").unwrap_err().to_string();
        assert!(!text.contains('\x1b') && !text.contains('\n'), "{text:?}");
    }
}
