//! The name of a scope: a group of processes within one incarnation that has a bound and an end of its own.
//!
//! A `ScopeName` that exists is valid, so it can be put into a path or a message without another check.

use std::fmt;
use std::sync::Arc;

/// The type of unit that a scope is to systemd; optional wherever a name is typed.
pub const SUFFIX: &str = ".scope";

/// Longest name with its suffix, in bytes: systemd's rule (systemd.unit(5), "String Escaping ..."), and with `scope-`
/// in the place of the suffix just what a directory may be called.
pub const MAX_LEN: usize = 255;

/// What other types of unit end in: a name like that is meant for something that is no scope.
const OTHER_TYPES: [&str; 10] = [
    ".service",
    ".socket",
    ".target",
    ".device",
    ".mount",
    ".automount",
    ".swap",
    ".timer",
    ".path",
    ".slice",
];

/// A checked name, kept without its suffix and shown with it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScopeName(Arc<str>);

/// Why a text is not the name of a scope. The message states the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' cannot be the name of a scope: use 1 to {most} of A-Z, a-z, 0-9 and ':-_.\\@', not beginning with '@', \
     with or without '.scope'",
    most = MAX_LEN - SUFFIX.len()
)]
pub struct ScopeNameError(String);

impl ScopeName {
    /// Checks `text` against systemd's rule for unit names (systemd.unit(5), "Units").
    ///
    /// # Errors
    /// [`ScopeNameError`] when the rule is broken or the name is that of another type of unit.
    pub fn new(text: &str) -> Result<Self, ScopeNameError> {
        let stem = text.strip_suffix(SUFFIX).unwrap_or(text);
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
        let fits = (1..=MAX_LEN - SUFFIX.len()).contains(&stem.len());
        let other = OTHER_TYPES.iter().any(|suffix| stem.ends_with(suffix));
        if !fits || other || stem.starts_with('@') || !stem.bytes().all(good) {
            // Shown back to a person: keep a hostile or huge name from flooding the terminal.
            let shown = text.chars().take(64).map(|c| if c.is_control() { '?' } else { c }).collect();
            return Err(ScopeNameError(shown));
        }
        Ok(Self(stem.into()))
    }

    /// Without the suffix.
    pub fn stem(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ScopeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{SUFFIX}", self.0)
    }
}

impl fmt::Debug for ScopeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_is_systemds_and_the_suffix_is_optional() {
        let longest = "x".repeat(249);
        for good in ["hermes-worker-proc_1a2b", "a", "0", "a.b", "a@b:c\\x2d", "..", &longest] {
            let name = ScopeName::new(good).unwrap();
            assert_eq!(name.stem(), good);
            assert_eq!(ScopeName::new(&name.to_string()), Ok(name), "{good}");
        }
        let long = "x".repeat(250);
        for bad in ["", ".scope", "@a", "a/b", "../a", "a b", "ä", "a\n", "a.service", "a.slice", &long] {
            assert!(ScopeName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_refused_name_is_shown_short_and_without_control_characters() {
        let text = ScopeName::new(&"\x1b[2J".repeat(100)).unwrap_err().to_string();
        assert!(text.len() < 300 && !text.contains('\x1b'), "{text:?}");
    }
}
