//! The language of systemd's unit files: sections, keys that add up, continued lines, specifiers, and the words of a command line
//! (systemd.syntax(7), systemd.unit(5), systemd.service(5)). Pure.

use std::collections::BTreeMap;

/// Sections with their keys, each with all its values in the order of the text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Unit(BTreeMap<String, BTreeMap<String, Vec<String>>>);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum UnitError {
    #[error("a quote is not closed")]
    OpenQuote,
    #[error("'{0}' is no escape sequence")]
    Escape(String),
    #[error("has the specifier %{0}, whose value is known to systemd only")]
    Specifier(char),
    #[error("ends in the middle of a specifier")]
    LonePercent,
}

/// The name of a unit, for its specifiers.
#[derive(Debug, Clone, Copy)]
pub(super) struct UnitName<'a> {
    /// Without `.service`.
    pub stem: &'a str,
}

impl<'a> UnitName<'a> {
    /// What stands before an `@`.
    pub(super) fn prefix(&self) -> &'a str {
        self.stem.split_once('@').map_or(self.stem, |(prefix, _)| prefix)
    }

    /// What stands behind an `@`; empty for a template, `None` for any other unit.
    pub(super) fn instance(&self) -> Option<&'a str> {
        self.stem.split_once('@').map(|(_, instance)| instance)
    }

    /// Replaces specifiers.
    ///
    /// # Errors
    /// [`UnitError::Specifier`], [`UnitError::LonePercent`].
    pub(super) fn expand(&self, text: &str) -> Result<String, UnitError> {
        let mut out = String::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            match chars.next().ok_or(UnitError::LonePercent)? {
                '%' => out.push('%'),
                'n' => {
                    out.push_str(self.stem);
                    out.push_str(".service");
                }
                'N' => out.push_str(self.stem),
                'p' | 'P' => out.push_str(self.prefix()),
                'i' | 'I' => out.push_str(self.instance().unwrap_or_default()),
                't' => out.push_str("/run"),
                'S' => out.push_str("/var/lib"),
                'C' => out.push_str("/var/cache"),
                'L' => out.push_str("/var/log"),
                'E' => out.push_str("/etc"),
                'T' => out.push_str("/tmp"),
                'V' => out.push_str("/var/tmp"),
                other => return Err(UnitError::Specifier(other)),
            }
        }
        Ok(out)
    }
}

impl Unit {
    /// Adds what `text` says, as a drop-in would. Gives the lines that are neither section nor key.
    pub(super) fn add(&mut self, text: &str) -> Vec<String> {
        let mut faults = Vec::new();
        let mut section = None;
        let mut pending = String::new();
        // The empty line ends what the last one goes on with.
        for (index, line) in text.lines().chain(std::iter::once("")).enumerate() {
            let trimmed = line.trim();
            // A comment in the midst of a continued line is left out.
            if trimmed.starts_with(['#', ';']) || (trimmed.is_empty() && pending.is_empty()) {
                continue;
            }
            if let Some(begun) = trimmed.strip_suffix('\\') {
                pending.push_str(begun);
                pending.push(' ');
                continue;
            }
            let whole = format!("{}{trimmed}", std::mem::take(&mut pending));
            let whole = whole.trim();
            if let Some(name) = whole.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = Some(name.to_owned());
            } else if let (Some((key, value)), Some(section)) = (whole.split_once('='), &section) {
                let keys = self.0.entry(section.clone()).or_default();
                let values = keys.entry(key.trim().to_owned()).or_default();
                match value.trim() {
                    // It takes back what was said before.
                    "" => values.clear(),
                    value => values.push(value.to_owned()),
                }
            } else {
                faults.push(format!("line {}: is not KEY=VALUE in a section", index + 1));
            }
        }
        faults
    }

    pub(super) fn has_section(&self, section: &str) -> bool {
        self.0.contains_key(section)
    }

    /// Takes every value of a key; none where it is absent.
    pub(super) fn take(&mut self, section: &str, key: &str) -> Vec<String> {
        self.0.get_mut(section).and_then(|keys| keys.remove(key)).unwrap_or_default()
    }

    /// Takes the last value of a key.
    pub(super) fn last(&mut self, section: &str, key: &str) -> Option<String> {
        self.take(section, key).pop()
    }

    /// The keys that nobody took.
    pub(super) fn left(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|(section, keys)| {
            keys.iter()
                .filter(|(_, values)| !values.is_empty())
                .map(move |(key, _)| (section.as_str(), key.as_str()))
        })
    }
}

/// Splits a value into words, with quotes and escapes as in C.
///
/// # Errors
/// [`UnitError::OpenQuote`], [`UnitError::Escape`].
pub(super) fn words(text: &str) -> Result<Vec<String>, UnitError> {
    Ok(split(text)?.into_iter().map(|(word, _)| word).collect())
}

/// The commands of a line, in words: there may be several, with a `;` between them.
///
/// # Errors
/// As [`words`].
pub(super) fn commands(text: &str) -> Result<Vec<Vec<String>>, UnitError> {
    let words = split(text)?;
    let commands = words.split(|(word, is_plain)| *is_plain && word == ";");
    let commands = commands.map(|words| words.iter().map(|(word, _)| word.clone()).collect());
    Ok(commands.filter(|words: &Vec<String>| !words.is_empty()).collect())
}

/// Each word, and whether it has neither quote nor escape.
fn split(text: &str) -> Result<Vec<(String, bool)>, UnitError> {
    let mut words = Vec::new();
    let mut word: Option<(String, bool)> = None;
    let mut quote: Option<char> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if quote.is_none() && c.is_ascii_whitespace() {
            words.extend(word.take());
            continue;
        }
        let (letters, is_plain) = word.get_or_insert_with(|| (String::new(), true));
        match (c, quote) {
            ('\\', _) => letters.push(escape(&mut chars)?),
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => quote = Some(c),
            (c, _) => {
                letters.push(c);
                continue;
            }
        }
        *is_plain = false;
    }
    if quote.is_some() {
        return Err(UnitError::OpenQuote);
    }
    words.extend(word);
    Ok(words)
}

fn escape(chars: &mut std::str::Chars<'_>) -> Result<char, UnitError> {
    let wrong = |shown: &str| UnitError::Escape(format!("\\{shown}"));
    let kind = chars.next().ok_or_else(|| wrong(""))?;
    let code = |text: &str, radix| {
        u32::from_str_radix(text, radix).ok().and_then(char::from_u32).filter(|c| *c != '\0')
    };
    Ok(match kind {
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        's' => ' ',
        '\\' | '"' | '\'' | ';' => kind,
        'x' => {
            let digits: String = chars.by_ref().take(2).collect();
            code(&digits, 16).ok_or_else(|| wrong(&format!("x{digits}")))?
        }
        '0'..='7' => {
            let digits: String = std::iter::once(kind).chain(chars.by_ref().take(2)).collect();
            code(&digits, 8).ok_or_else(|| wrong(&digits))?
        }
        other => return Err(wrong(&other.to_string())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_add_up_and_an_empty_one_takes_them_back() {
        let mut unit = Unit::default();
        let faults = unit.add(
            "# x\nstray\n[Service]\nEnvironment=A=1\nEnvironment=B=2\nExecStart=/bin/a \\\n  ; inside\n  b\n[Unit]\nAfter=x\n",
        );
        assert_eq!(faults, ["line 2: is not KEY=VALUE in a section"]);
        assert!(unit.add("[Service]\nExecStart=\nExecStart=/bin/c\n").is_empty());
        assert_eq!(unit.take("Service", "Environment"), ["A=1", "B=2"]);
        assert_eq!(unit.last("Service", "ExecStart").as_deref(), Some("/bin/c"));
        assert_eq!(unit.left().collect::<Vec<_>>(), [("Unit", "After")]);
    }

    #[test]
    fn words_have_quotes_and_escapes_as_in_c() {
        let split = words(r#"/bin/sh -c 'a "b"' "c d"e \x41\t "" f\s"#).unwrap();
        assert_eq!(split, ["/bin/sh", "-c", "a \"b\"", "c de", "A\t", "", "f "]);
        for bad in ["'a", "\"", r"\", r"\q", r"\xzz", r"\000"] {
            assert!(words(bad).is_err(), "{bad}");
        }
    }

    /// `find … -exec rm {} \;` was two commands.
    #[test]
    fn a_semicolon_of_its_own_ends_a_command() {
        let found = commands(r"/bin/a x; ; /bin/b \; ';' ; ").unwrap();
        assert_eq!(found, [vec!["/bin/a", "x;"], vec!["/bin/b", ";", ";"]]);
    }

    #[test]
    fn specifiers_are_those_that_a_file_knows() {
        let name = UnitName { stem: "web@blue" };
        assert_eq!(
            name.expand("%n %p %i 100%% %t/x").as_deref(),
            Ok("web@blue.service web blue 100% /run/x")
        );
        assert_eq!(name.expand("%H"), Err(UnitError::Specifier('H')));
        assert_eq!(name.expand("%"), Err(UnitError::LonePercent));
        assert_eq!((UnitName { stem: "a" }).instance(), None);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a%=\\\\\"'\\[\\];# \n\tx08]{0,40}") {
            let _ = Unit::default().add(&text);
            let _ = commands(&text);
            let _ = UnitName { stem: "a" }.expand(&text);
        }
    }
}
