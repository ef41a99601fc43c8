//! Env files and secrets: files whose content becomes variables, read at each start.
//!
//! They hold secrets, so no message here shows any of their content.

use super::is_variable_name;
use crate::definition::resolved::{Definition, EnvFile};
use crate::definition::trust::{self, Eyes};
use crate::definition::users::Surroundings;
use crate::sys::users::User;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Largest env file, in bytes.
const MOST: u64 = 1 << 20;
/// Largest secret, in bytes. A program takes no longer variable than 128 KiB (execve(2)).
const MOST_SECRET: u64 = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub enum EnvFileError {
    #[error("env_file {path}: {error}", path = .path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("env_file {path}:{line}: {wrong}", path = .path.display())]
    Malformed { path: PathBuf, line: usize, wrong: LineError },
    #[error("secret {name}: {path}: {error}", path = .path.display())]
    NoSecret { name: String, path: PathBuf, error: io::Error },
    #[error("secret {name}: {path} {wrong}", path = .path.display())]
    BadSecret { name: String, path: PathBuf, wrong: LineError },
}

/// What is wrong with a secret, or a line of an env file. It shows none of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    #[error("is not UTF-8 text")]
    NotText,
    #[error("contains a NUL character")]
    Nul,
    #[error("is not an assignment; write KEY=VALUE")]
    NoAssignment,
    #[error("has no usable name before the '='; write KEY=VALUE")]
    NoName,
    #[error("has an opening quote without a closing one on the same line")]
    OpenQuote,
    #[error("goes on after the closing quote")]
    AfterQuote,
}

/// The variables of the definition's env files and secrets; none without any. A later file wins over an earlier one, a secret
/// over all of them. `user` is who the service is about to run as: env files are opened with that user's credentials, secrets
/// as [`Secrets`](crate::definition::resolved::Secrets) says. Blocks on the file system.
///
/// # Errors
/// [`EnvFileError`] with file and line: a service is not started with half of its environment.
pub fn read_files(
    definition: &Definition,
    user: &User,
    surroundings: &Surroundings,
) -> Result<BTreeMap<String, String>, EnvFileError> {
    let mut all = BTreeMap::new();
    for EnvFile { path, optional } in &definition.env_files {
        match trust::read_private(path, user, MOST, surroundings, Eyes::Users) {
            Ok(bytes) => all.append(&mut parse(path, &bytes)?),
            Err(error) if *optional && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(EnvFileError::Unreadable { path: path.clone(), error }),
        }
    }
    let Some(secrets) = &definition.secrets else { return Ok(all) };
    let eyes = if secrets.ours { Eyes::Ours } else { Eyes::Users };
    for (name, path) in &secrets.files {
        let bad = |wrong| EnvFileError::BadSecret { name: name.clone(), path: path.clone(), wrong };
        let bytes = trust::read_private(path, user, MOST_SECRET, surroundings, eyes)
            .map_err(|error| EnvFileError::NoSecret { name: name.clone(), path: path.clone(), error })?;
        all.insert(name.clone(), secret(bytes).map_err(bad)?);
    }
    Ok(all)
}

/// Without the line end that editors and `echo` leave.
fn secret(bytes: Vec<u8>) -> Result<String, LineError> {
    let mut text = String::from_utf8(bytes).map_err(|_| LineError::NotText)?;
    if text.ends_with('\n') {
        text.truncate(text.len() - if text.ends_with("\r\n") { 2 } else { 1 });
    }
    if text.contains('\0') { Err(LineError::Nul) } else { Ok(text) }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<BTreeMap<String, String>, EnvFileError> {
    let mut variables = BTreeMap::new();
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let read = std::str::from_utf8(line).map_err(|_| LineError::NotText).and_then(assignment);
        match read {
            Ok(None) => {}
            Ok(Some((key, value))) => {
                variables.insert(key, value);
            }
            Err(wrong) => {
                return Err(EnvFileError::Malformed { path: path.to_owned(), line: index + 1, wrong });
            }
        }
    }
    Ok(variables)
}

/// One line: empty, a comment, or `[export ]KEY=VALUE` with an optionally quoted value.
fn assignment(line: &str) -> Result<Option<(String, String)>, LineError> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    if line.contains('\0') {
        return Err(LineError::Nul);
    }
    let line = line.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t'])).unwrap_or(line);
    let (key, value) = line.split_once('=').ok_or(LineError::NoAssignment)?;
    let key = key.trim();
    if !is_variable_name(key) || key.contains(char::is_whitespace) {
        return Err(LineError::NoName);
    }
    Ok(Some((key.to_owned(), unquoted(value.trim())?)))
}

/// 'as it is', "with \n, \t, \r, \\, \", \$", or bare, where ` #` begins a comment.
fn unquoted(value: &str) -> Result<String, LineError> {
    let mut text = String::new();
    let mut rest = value.chars();
    let quote = match rest.next() {
        Some(quote @ ('\'' | '"')) => quote,
        _ => {
            let comment =
                value.match_indices('#').find(|(at, _)| value[..*at].ends_with(char::is_whitespace));
            let bare = comment.map_or(value, |(at, _)| &value[..at]);
            return Ok(if bare.starts_with('#') { String::new() } else { bare.trim_end().to_owned() });
        }
    };
    loop {
        match rest.next().ok_or(LineError::OpenQuote)? {
            end if end == quote => break,
            '\\' if quote == '"' => match rest.next() {
                Some('n') => text.push('\n'),
                Some('t') => text.push('\t'),
                Some('r') => text.push('\r'),
                Some(plain @ ('\\' | '"' | '$')) => text.push(plain),
                Some(other) => text.extend(['\\', other]),
                None => text.push('\\'),
            },
            plain => text.push(plain),
        }
    }
    let after = rest.as_str().trim_start();
    if after.is_empty() || after.starts_with('#') { Ok(text) } else { Err(LineError::AfterQuote) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<BTreeMap<String, String>, String> {
        parse(Path::new("/opt/data/.env"), text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn assignments_comments_quotes_and_export_are_read() {
        let text = "\u{feff}# keys\nA=1\r\n export B = two words # note\n\nC='a # \\n b'\nD=\"a\\n\\\"b\\\" \\x\" # end\n\
                    E=\nF=#x\nG=a#b\nexported=7\nA=last\nURL=http://x/?a=b\n";
        let read = read(text).unwrap();
        let expected = [
            ("A", "last"),
            ("B", "two words"),
            ("C", "a # \\n b"),
            ("D", "a\n\"b\" \\x"),
            ("E", ""),
            ("F", ""),
            ("G", "a#b"),
            ("URL", "http://x/?a=b"),
            ("exported", "7"),
        ];
        assert_eq!(read, expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    }

    #[test]
    fn a_secret_is_the_content_of_its_file_without_the_last_line_end() {
        for (bytes, expected) in
            [("s3cret\n", "s3cret"), ("a\r\n", "a"), ("a\nb\n\n", "a\nb\n"), ("", ""), (" x ", " x ")]
        {
            assert_eq!(secret(bytes.into()).as_deref(), Ok(expected), "{bytes:?}");
        }
        assert_eq!(secret(b"a\0b".to_vec()), Err(LineError::Nul));
        assert_eq!(secret(b"\xff".to_vec()), Err(LineError::NotText));
    }

    #[test]
    fn an_error_names_file_and_line_and_shows_no_secret() {
        for (text, expected) in [
            ("A=1\nsecret", "env_file /opt/data/.env:2: is not an assignment; write KEY=VALUE"),
            ("=secret", "env_file /opt/data/.env:1: has no usable name before the '='; write KEY=VALUE"),
            ("A B=secret", "env_file /opt/data/.env:1: has no usable name before the '='; write KEY=VALUE"),
            (
                "A='secret",
                "env_file /opt/data/.env:1: has an opening quote without a closing one on the same line",
            ),
            ("A='a'secret", "env_file /opt/data/.env:1: goes on after the closing quote"),
            ("A=b\0C=secret", "env_file /opt/data/.env:1: contains a NUL character"),
        ] {
            assert_eq!(read(text), Err(expected.to_owned()));
        }
        assert!(
            parse(Path::new("/f"), b"A=\xff").unwrap_err().to_string().ends_with("/f:1: is not UTF-8 text")
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "[A-Z=#'\"\\\\ \n\t]{0,60}") {
            let _ = parse(Path::new("/f"), &bytes);
            let _ = parse(Path::new("/f"), text.as_bytes());
        }
    }
}
