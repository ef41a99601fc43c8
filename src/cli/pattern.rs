//! Names with `*`, `?` or `[` in them, as a shell has them: they stand for all services that they match.
//!
//! The client replaces them by names before it asks, so a pattern costs the supervisor one `list`.

use crate::control::protocol::{Code, MAX_NAMES};
use glob::{MatchOptions, Pattern};

/// Why a pattern stands for nothing that can be asked for.
#[derive(Debug, thiserror::Error)]
pub enum PatternError {
    #[error("'{0}' is no pattern: {1}")]
    Malformed(String, glob::PatternError),
    #[error("no service matches '{0}': see 'hermes-sup ctl list'")]
    NoMatch(String),
    #[error("that is {0} services, and one request takes {MAX_NAMES}: use --all or a narrower pattern")]
    TooMany(usize),
}

impl PatternError {
    pub fn code(&self) -> Code {
        match self {
            Self::NoMatch(_) => Code::NoSuchService,
            Self::Malformed(..) | Self::TooMany(_) => Code::Usage,
        }
    }
}

/// No name of a service has any of these characters.
pub fn is_pattern(word: &str) -> bool {
    word.contains(['*', '?', '['])
}

/// The words with each pattern replaced by what it matches of `known`, every name once.
///
/// # Errors
/// [`PatternError`] for the first pattern that cannot be used.
pub fn expand(words: &[String], known: &[String]) -> Result<Vec<String>, PatternError> {
    let mut names: Vec<String> = Vec::new();
    for word in words {
        if !is_pattern(word) {
            names.push(word.clone());
            continue;
        }
        let pattern = Pattern::new(word).map_err(|error| PatternError::Malformed(word.clone(), error))?;
        let before = names.len();
        names.extend(known.iter().filter(|name| pattern.matches_with(name, MatchOptions::new())).cloned());
        if names.len() == before {
            return Err(PatternError::NoMatch(word.clone()));
        }
    }
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    if names.len() > MAX_NAMES { Err(PatternError::TooMany(names.len())) } else { Ok(names) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn a_pattern_stands_for_what_it_matches_and_each_name_comes_once() {
        let known = words(&["web", "worker-1", "worker-2"]);
        let expand = |list: &[&str]| expand(&words(list), &known).map_err(|error| error.to_string());
        assert_eq!(expand(&["worker-*"]), Ok(words(&["worker-1", "worker-2"])));
        assert_eq!(
            expand(&["worker-[2-9]", "typo", "w*"]),
            Ok(words(&["worker-2", "typo", "web", "worker-1"]))
        );
        assert_eq!(expand(&["w?b"]), Ok(words(&["web"])));
        assert_eq!(
            expand(&["web", "x*"]),
            Err("no service matches 'x*': see 'hermes-sup ctl list'".to_owned())
        );
        assert!(expand(&["[a"]).is_err_and(|error| error.starts_with("'[a' is no pattern: ")));
        let many: Vec<String> = (0..=MAX_NAMES).map(|number| format!("w{number}")).collect();
        assert!(matches!(super::expand(&words(&["w*"]), &many), Err(PatternError::TooMany(_))));
    }
}
