//! `execlineb`, for the simplest scripts: the words of one command, which is executed.
//!
//! Words are separated by blanks; `"quoted"` ones may hold anything; `\` takes the next character as it is; `#` at the
//! beginning of a word is a comment to the end of the line. Blocks and substitution are the rest of a language of its
//! own and are refused: no part of a script is ever skipped.

use super::applet::{Call, SYSTEM};
use super::exec::exec;
use super::options::{Options, UsageError};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

const USAGE: &str = "execlineb [-P] SCRIPT | execlineb [-P] -c 'COMMAND...'";

pub fn main(call: &mut Call<'_>) -> u8 {
    let words = call.words;
    let mut options = Options::new("Ppc:", words);
    let (mut literal, mut script) = (false, None);
    for option in options.by_ref() {
        match option {
            Ok(('P', _)) => literal = true,
            Ok(('c', value)) => script = value,
            Ok((letter, _)) => return call.usage(UsageError::Unsupported(letter), USAGE),
            Err(error) => return call.usage(error, USAGE),
        }
    }
    let text = match (script, options.rest().first()) {
        (Some(script), _) => script.as_bytes().to_vec(),
        (None, Some(file)) => match std::fs::read(file) {
            Ok(text) => text,
            Err(error) => {
                return call.fatal(SYSTEM, &format!("unable to read {}: {error}", file.display()));
            }
        },
        (None, None) => return call.usage("no script is named", USAGE),
    };
    match parse(&text, literal) {
        // An empty script does nothing, well.
        Ok(command) if command.is_empty() => 0,
        Ok(command) => exec(call, &command, Vec::new()),
        Err(error) => call.fatal(super::applet::USAGE, &format!("unable to run the script: {error}")),
    }
}

/// What is wrong in a line of a script.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {mistake}")]
struct ScriptError {
    line: usize,
    mistake: Mistake,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Mistake {
    #[error("blocks are not supported: write it for /bin/sh")]
    Block,
    #[error("substitution (without -P) is not supported: write it for /bin/sh")]
    Substitution,
    #[error("a NUL is not supported: write it for /bin/sh")]
    Nul,
    #[error("a '\\' at the very end")]
    LastBackslash,
    #[error("characters by number are not supported")]
    ByNumber,
    #[error("a '\"' is not closed")]
    OpenQuote,
}

/// The words of a script. `literal` (`-P`): a `$` means itself.
fn parse(text: &[u8], literal: bool) -> Result<Vec<OsString>, ScriptError> {
    let mut words = Vec::new();
    let mut rest = text;
    let mut line = 1;
    while let Some((first, after)) = rest.split_first() {
        match first {
            b'\n' => (rest, line) = (after, line + 1),
            b' ' | b'\t' | b'\r' => rest = after,
            b'#' => rest = rest.iter().position(|byte| *byte == b'\n').map_or(&[][..], |at| &rest[at..]),
            _ => {
                let found = word(rest).map_err(|mistake| ScriptError { line, mistake })?;
                line += rest[..found.length].iter().filter(|byte| **byte == b'\n').count();
                rest = &rest[found.length..];
                let refused = match found.text.as_slice() {
                    b"{" | b"}" if found.bare => Some(Mistake::Block),
                    text if !literal && text.contains(&b'$') => Some(Mistake::Substitution),
                    text if text.contains(&0) => Some(Mistake::Nul),
                    _ => None,
                };
                if let Some(mistake) = refused {
                    return Err(ScriptError { line, mistake });
                }
                words.push(OsString::from_vec(found.text));
            }
        }
    }
    Ok(words)
}

struct Word {
    text: Vec<u8>,
    /// Bytes of the script that it is written in.
    length: usize,
    /// Nothing in it is quoted or escaped.
    bare: bool,
}

/// The word that `script` begins with.
fn word(script: &[u8]) -> Result<Word, Mistake> {
    let mut word = Word { text: Vec::new(), length: 0, bare: true };
    let mut quoted = false;
    while let Some(byte) = script.get(word.length) {
        word.length += 1;
        match byte {
            b'"' => (quoted, word.bare) = (!quoted, false),
            b'\\' => {
                word.bare = false;
                let escaped = script.get(word.length).ok_or(Mistake::LastBackslash)?;
                word.length += 1;
                match (quoted, escaped) {
                    // A line that goes on.
                    (true, b'\n') => {}
                    (true, b'0'..=b'9') => return Err(Mistake::ByNumber),
                    (true, letter) => word.text.push(named(*letter)),
                    (false, letter) => word.text.push(*letter),
                }
            }
            b' ' | b'\t' | b'\r' | b'\n' if !quoted => {
                word.length -= 1;
                return Ok(word);
            }
            other => word.text.push(*other),
        }
    }
    if quoted { Err(Mistake::OpenQuote) } else { Ok(word) }
}

/// The control characters that have a name in quotes; others are themselves.
fn named(letter: u8) -> u8 {
    match letter {
        b'a' => 7,
        b'b' => 8,
        b't' => b'\t',
        b'n' => b'\n',
        b'v' => 11,
        b'f' => 12,
        b'r' => b'\r',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s6::applets::applet::tests::told;
    use proptest::prelude::*;

    #[test]
    fn words_quotes_escapes_and_comments() {
        for (script, words) in [
            ("", vec![]),
            ("#!/command/execlineb -P\n/command/s6-sleep 600\n", vec!["/command/s6-sleep", "600"]),
            ("a b\n\tc # the rest d\ne", vec!["a", "b", "c", "e"]),
            ("a#b \\#c", vec!["a#b", "#c"]),
            ("\"a b\" \"\" c\"d e\"f", vec!["a b", "", "cd ef"]),
            ("\"# no comment\" \"{\" \\}", vec!["# no comment", "{", "}"]),
            ("a\\ b \"q\\\"q\" \"\\t\\\\\"", vec!["a b", "q\"q", "\t\\"]),
            ("\"one \\\nline\"", vec!["one line"]),
            ("a{b $x ${y}", vec!["a{b", "$x", "${y}"]),
            ("a \\\nb", vec!["a", "\nb"]),
        ] {
            let words: Vec<OsString> = words.into_iter().map(OsString::from).collect();
            assert_eq!(parse(script.as_bytes(), true), Ok(words), "{script:?}");
        }
    }

    #[test]
    fn what_is_more_than_words_is_refused_with_its_line() {
        for (script, literal, why) in [
            ("if { true }\nx", true, "line 1: blocks are not supported: write it for /bin/sh"),
            ("a\nb }", true, "line 2: blocks are not supported: write it for /bin/sh"),
            ("a\n\n$1", false, "line 3: substitution (without -P) is not supported: write it for /bin/sh"),
            ("a \"b\nc", true, "line 1: a '\"' is not closed"),
            ("a\\", true, "line 1: a '\\' at the very end"),
            ("\"\\0x41\"", true, "line 1: characters by number are not supported"),
        ] {
            assert_eq!(parse(script.as_bytes(), literal).unwrap_err().to_string(), why);
            let words = if literal { &["-Pc", script][..] } else { &["-c", script] };
            let (code, _, err) = told(main, "execlineb", words, &|_| None);
            assert_eq!((code, err), (100, format!("execlineb: fatal: unable to run the script: {why}\n")));
        }
        for words in [&["-s0", "-c", "x"][..], &["-p", "x"], &[], &["-P"]] {
            assert_eq!(told(main, "execlineb", words, &|_| None).0, 100, "{words:?}");
        }
        assert_eq!(told(main, "execlineb", &["-P", "/no/such/script"], &|_| None).0, 111);
        assert_eq!(told(main, "execlineb", &["-Pc", " # nothing\n"], &|_| None).0, 0);
        assert_eq!(told(main, "execlineb", &["-Pc", "/no/such/program"], &|_| None).0, 127);
    }

    proptest! {
        #[test]
        fn any_words_come_back_from_quotes(words in prop::collection::vec("[ -~]{0,8}", 0..5)) {
            let quote = |word: &String| format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""));
            let script = words.iter().map(quote).collect::<Vec<_>>().join(" ");
            let expected: Vec<OsString> = words.iter().map(OsString::from).collect();
            prop_assert_eq!(parse(script.as_bytes(), true), Ok(expected));
        }

        #[test]
        fn no_script_is_a_panic(script in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse(&script, true);
        }
    }
}
