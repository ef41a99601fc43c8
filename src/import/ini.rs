//! The small languages of a supervisord.conf: sections of keys as Python's configparser reads them, `%(name)s`
//! expansions, command words as shlex splits them, and lists of `KEY="value"`. Pure.

use std::collections::BTreeMap;

/// Widest field that `%(name)09d` may ask for.
const WIDEST: usize = 32;

/// Sections in the order of the text, each with its keys (lower case). A section or key that comes again is merged, the
/// last value wins.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ini {
    pub sections: Vec<(String, BTreeMap<String, String>)>,
    /// What is neither section nor key nor comment: line and why.
    pub faults: Vec<String>,
}

/// Reads `text` as supervisord does: `#` and `;` begin a comment at the start of a line or after white space; an
/// indented line continues the value above it.
pub(super) fn parse(text: &str) -> Ini {
    let mut ini = Ini::default();
    let mut current: Option<usize> = None;
    // The key that an indented line continues, and how far that key itself was indented.
    let mut open: Option<(String, usize)> = None;
    for (number, line) in text.lines().enumerate() {
        let line = without_comment(line);
        let (indent, content) = (line.len() - line.trim_start().len(), line.trim());
        if content.is_empty() {
            continue;
        }
        if let (Some(section), Some((key, _))) = (current, open.as_ref().filter(|(_, at)| indent > *at)) {
            if let Some(value) = ini.sections[section].1.get_mut(key) {
                value.push('\n');
                value.push_str(content);
            }
            continue;
        }
        open = None;
        if let Some(name) = content.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            let known = ini.sections.iter().position(|(section, _)| section == name);
            current = known.or_else(|| {
                ini.sections.push((name.to_owned(), BTreeMap::new()));
                Some(ini.sections.len() - 1)
            });
            continue;
        }
        match (current, content.split_once(['=', ':'])) {
            (Some(section), Some((key, value))) if !key.trim().is_empty() => {
                let key = key.trim().to_lowercase();
                ini.sections[section].1.insert(key.clone(), value.trim().to_owned());
                open = Some((key, indent));
            }
            (Some(_), _) => ini.faults.push(format!("line {}: is not KEY = VALUE", number + 1)),
            (None, _) => ini.faults.push(format!("line {}: stands before the first [section]", number + 1)),
        }
    }
    ini
}

fn without_comment(line: &str) -> &str {
    let mut after_space = true;
    for (at, c) in line.char_indices() {
        if after_space && matches!(c, ';' | '#') {
            return &line[..at];
        }
        after_space = c.is_whitespace();
    }
    line
}

/// Why a value cannot be understood, as the end of a sentence about it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ValueError {
    #[error("has a '%' that begins no %(name)s; write %% for a plain one")]
    LonePercent,
    #[error("uses %({0})s, which is not known here")]
    Unknown(String),
    #[error("pads %({0}) too far")]
    TooWide(String),
    #[error("uses %({0})d, which is not a number")]
    NoNumber(String),
    #[error("has a %({0}) that ends in neither 's' nor 'd'")]
    Conversion(String),
    #[error("ends in a backslash")]
    LastBackslash,
    #[error("has a quote that is not closed")]
    OpenQuote,
    #[error("is not a list of KEY=\"value\"")]
    NoList,
    #[error("has no comma between two variables")]
    NoComma,
}

/// Replaces `%(name)s`, `%(name)d` and `%(name)02d` by what `lookup` knows, and `%%` by `%`.
///
/// # Errors
/// [`ValueError`].
pub(super) fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, ValueError> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let (name, after) =
            after.strip_prefix('(').and_then(|after| after.split_once(')')).ok_or(ValueError::LonePercent)?;
        let value = lookup(name).ok_or_else(|| ValueError::Unknown(name.to_owned()))?;
        let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (width, after) = after.split_at(digits);
        let columns: usize = if width.is_empty() { 0 } else { width.parse().unwrap_or(usize::MAX) };
        let mut chars = after.chars();
        match chars.next() {
            Some('s' | 'd' | 'i') if columns > WIDEST => return Err(ValueError::TooWide(name.to_owned())),
            Some('s') => out.push_str(&format!("{value:>columns$}")),
            Some('d' | 'i') => {
                let number: i64 = value.parse().map_err(|_| ValueError::NoNumber(name.to_owned()))?;
                if width.starts_with('0') {
                    out.push_str(&format!("{number:0columns$}"));
                } else {
                    out.push_str(&format!("{number:columns$}"));
                }
            }
            Some(_) | None => return Err(ValueError::Conversion(name.to_owned())),
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
    Ok(out)
}

/// Splits a command as a POSIX shell would split words, and does nothing else that a shell does.
///
/// # Errors
/// [`ValueError::OpenQuote`], [`ValueError::LastBackslash`].
pub(super) fn words(text: &str) -> Result<Vec<String>, ValueError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_ascii_whitespace() => words.extend(word.take()),
            '\\' => word.get_or_insert_default().push(chars.next().ok_or(ValueError::LastBackslash)?),
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().ok_or(ValueError::OpenQuote)? {
                        end if end == c => break,
                        '\\' if c == '"' => match chars.next().ok_or(ValueError::OpenQuote)? {
                            escaped @ ('"' | '\\') => word.push(escaped),
                            other => word.extend(['\\', other]),
                        },
                        inside => word.push(inside),
                    }
                }
            }
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

/// `KEY="value",KEY2='value 2',KEY3=plain`, with white space and newlines anywhere between.
///
/// # Errors
/// [`ValueError`].
pub(super) fn pairs(text: &str) -> Result<BTreeMap<String, String>, ValueError> {
    let mut found = BTreeMap::new();
    let mut rest = text.trim_matches(|c: char| c == ',' || c.is_whitespace());
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=').ok_or(ValueError::NoList)?;
        let (key, after) = (key.trim(), after.trim_start());
        if key.is_empty() || key.contains(|c: char| c == ',' || c.is_whitespace()) {
            return Err(ValueError::NoList);
        }
        let (value, after) = match after.chars().next() {
            Some(quote @ ('"' | '\'')) => after[1..].split_once(quote).ok_or(ValueError::OpenQuote)?,
            _ => after.split_at(after.find(|c: char| c == ',' || c.is_whitespace()).unwrap_or(after.len())),
        };
        found.insert(key.to_owned(), value.to_owned());
        let next = after.trim_start();
        rest = match next.strip_prefix(',') {
            Some(next) => next.trim_matches(|c: char| c == ',' || c.is_whitespace()),
            None if next.is_empty() => "",
            None => return Err(ValueError::NoComma),
        };
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sections_keys_comments_and_continued_values() {
        let ini = parse(
            "; a comment\n[program:web]   ; its comment\nCommand = a # b\n  c;d\n\n   ; inside\n  e\nuser: www\n\
             [other]\nx=1\n[program:web]\nuser=me\nnonsense\n",
        );
        let keys = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let expected = vec![
            ("program:web".to_owned(), keys(&[("command", "a\nc;d\ne"), ("user", "me")])),
            ("other".to_owned(), keys(&[("x", "1")])),
        ];
        assert_eq!(ini.sections, expected);
        assert_eq!(ini.faults, ["line 13: is not KEY = VALUE"]);
        assert_eq!(parse("a=b").faults, ["line 1: stands before the first [section]"]);
    }

    #[test]
    fn expansions_are_those_of_python() {
        let lookup = |name: &str| match name {
            "n" => Some("7".to_owned()),
            "word" => Some("w".to_owned()),
            _ => None,
        };
        for (text, expected) in
            [("", ""), ("100%%", "100%"), ("%(word)s-%(n)02d-%(n)d-%(n)3d|%(word)3s", "w-07-7-  7|  w")]
        {
            assert_eq!(expand(text, &lookup).as_deref(), Ok(expected));
        }
        for bad in ["%", "%Y", "%(n", "%(n)", "%(n)x", "%(none)s", "%(word)d", "%(n)099999999999999999999d"] {
            assert!(expand(bad, &lookup).is_err(), "{bad}");
        }
    }

    #[test]
    fn commands_are_split_and_nothing_else() {
        let split = words("sh -c 'a \"b\"' \"c \\\" \\n\"d \\ e '' x#y\nz").unwrap();
        assert_eq!(split, ["sh", "-c", "a \"b\"", "c \" \\nd", " e", "", "x#y", "z"]);
        assert_eq!(words("  \n"), Ok(vec![]));
        for bad in ["'a", "\"a", "a\\", "\"a\\"] {
            assert!(words(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn variables_are_a_list_with_commas() {
        let found = pairs("A=\"x,y\",B='z w' ,\n C=plain/1:2,D=,").unwrap();
        let shown: Vec<String> = found.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(shown, ["A=x,y", "B=z w", "C=plain/1:2", "D="]);
        for bad in ["A", "A=\"x", "A=b C=d", "=x", "A B=c"] {
            assert!(pairs(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a%(ns)d0=\"'\\\\,;#\\[\\]: \n\tü]{0,40}") {
            let _ = parse(&text);
            let _ = words(&text);
            let _ = pairs(&text);
            let _ = expand(&text, &|name| (name == "n").then(|| "7".to_owned()));
        }
    }
}
