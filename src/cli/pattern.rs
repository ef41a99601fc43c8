//! Names with `*`, `?` or `[` in them, as a shell has them: they stand for all services that they match.
//!
//! The client replaces them by names before it asks, so a pattern costs the supervisor one `list`.

use crate::control::protocol::{Code, MAX_NAMES, Outcome};
use glob::{MatchOptions, Pattern};

/// Why nothing can be asked for.
#[derive(Debug, thiserror::Error)]
pub enum PatternError {
    #[error("'{0}' is no pattern: {1}")]
    Malformed(String, glob::PatternError),
    #[error("{0}")]
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

/// What the words stand for.
#[derive(Debug, PartialEq)]
pub struct Expanded {
    /// At least one, each once.
    pub names: Vec<String>,
    /// The answer to each pattern that matches nothing, as to a name that no service has: it keeps nobody from acting on the names.
    pub unmatched: Vec<Outcome>,
}

/// The words with each pattern replaced by what it matches of `known`.
///
/// # Errors
/// [`PatternError`] for the first pattern that is none, and where no name is left.
pub fn expand(words: &[String], known: &[String]) -> Result<Expanded, PatternError> {
    let (mut names, mut unmatched): (Vec<String>, Vec<String>) = Default::default();
    for word in words {
        if !is_pattern(word) {
            names.push(word.clone());
            continue;
        }
        let pattern = Pattern::new(word).map_err(|error| PatternError::Malformed(word.clone(), error))?;
        let before = names.len();
        names.extend(known.iter().filter(|name| pattern.matches_with(name, MatchOptions::new())).cloned());
        if names.len() == before {
            unmatched.push(word.clone());
        }
    }
    let no_match = |words: &str| format!("no service matches {words}: see 'hermes-sup ctl list'");
    let quoted = |word: &String| format!("'{word}'");
    if names.is_empty() && !unmatched.is_empty() {
        let words: Vec<String> = unmatched.iter().map(quoted).collect();
        return Err(PatternError::NoMatch(no_match(&words.join(", "))));
    }
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    if names.len() > MAX_NAMES {
        return Err(PatternError::TooMany(names.len()));
    }
    let outcome = |word: &String| Outcome::failed(word, Code::NoSuchService, None, no_match(&quoted(word)));
    let unmatched = unmatched.iter().map(outcome).collect();
    Ok(Expanded { names, unmatched })
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
        let expand = |list: &[&str]| {
            let expanded = expand(&words(list), &known).map_err(|error| error.to_string())?;
            assert_eq!(expanded.unmatched, []);
            Ok::<_, String>(expanded.names)
        };
        assert_eq!(expand(&["worker-*"]), Ok(words(&["worker-1", "worker-2"])));
        assert_eq!(
            expand(&["worker-[2-9]", "typo", "w*"]),
            Ok(words(&["worker-2", "typo", "web", "worker-1"]))
        );
        assert_eq!(expand(&["w?b"]), Ok(words(&["web"])));
        assert!(expand(&["[a"]).is_err_and(|error| error.starts_with("'[a' is no pattern: ")));
        let many: Vec<String> = (0..=MAX_NAMES).map(|number| format!("w{number}")).collect();
        assert!(matches!(super::expand(&words(&["w*"]), &many), Err(PatternError::TooMany(_))));
    }

    /// The whole command was refused, also for the other names.
    #[test]
    fn a_pattern_that_matches_nothing_has_its_answer_and_the_rest_is_done() {
        let known = words(&["web", "worker-1"]);
        let Expanded { names, unmatched } = expand(&words(&["x*", "web", "w*-?", "y?"]), &known).unwrap();
        assert_eq!(names, words(&["web", "worker-1"]));
        let told: Vec<_> = unmatched.iter().map(|one| (one.name.as_str(), one.code)).collect();
        assert_eq!(told, [("x*", Code::NoSuchService), ("y?", Code::NoSuchService)]);
        let nothing = expand(&words(&["x*", "y?"]), &known).unwrap_err();
        assert_eq!(nothing.to_string(), "no service matches 'x*', 'y?': see 'hermes-sup ctl list'");
        assert_eq!(nothing.code(), Code::NoSuchService);
    }
}
