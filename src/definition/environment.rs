//! The environment of a service: the supervisor's own, the variables of its user, `env_file`, then `env`.
//!
//! An env file often holds secrets, so no message here shows any of its content.

use super::parse::is_variable_name;
use super::programs::Programs;
use super::resolved::Definition;
use super::trust;
use super::users::Surroundings;
use crate::sys::users::User;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

/// Largest env file, in bytes.
const MOST: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum EnvFileError {
    #[error("env_file {path}: {error}", path = .path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("env_file {path}:{line}: {wrong}", path = .path.display())]
    Malformed { path: PathBuf, line: usize, wrong: LineError },
}

/// What is wrong with a line of an env file. It shows none of it.
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

/// The variables of the definition's `env_file`; none without one. `user` is who the service is about to run as: the
/// file is opened with that user's credentials. Blocks on the file system.
///
/// # Errors
/// [`EnvFileError`] with file and line: a service is not started with half of its environment.
pub fn read_env_file(
    definition: &Definition,
    user: &User,
    surroundings: &Surroundings,
) -> Result<BTreeMap<String, String>, EnvFileError> {
    let Some(path) = &definition.env_file else { return Ok(BTreeMap::new()) };
    let bytes = trust::read_private(path, user, MOST, surroundings)
        .map_err(|error| EnvFileError::Unreadable { path: path.clone(), error })?;
    parse(path, &bytes)
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

/// What a service sees: variables with their values, in order.
pub type Environment<'a> = Vec<(Cow<'a, OsStr>, Cow<'a, OsStr>)>;

/// Everything the service sees. `inherited` is the supervisor's environment, `file` what [`read_env_file`] gave.
///
/// A service of another user than the gateway's, and one of root in any case, looks for programs only where nobody else
/// can put some: other directories are left out of the inherited PATH.
pub fn environment<'a>(
    inherited: &'a BTreeMap<OsString, OsString>,
    definition: &'a Definition,
    user: &'a User,
    file: &'a BTreeMap<String, String>,
    surroundings: &Surroundings,
    programs: &Programs,
) -> Environment<'a> {
    let mut all = Environment::with_capacity(inherited.len() + 3 + file.len() + definition.env.len());
    for (key, value) in inherited {
        if key == "PATH" && (user.uid != surroundings.gateway.uid || user.uid == 0) {
            all.push((key.into(), programs.path_of(value, user.uid).into()));
        } else {
            all.push((key.into(), value.into()));
        }
    }
    if user.uid != surroundings.own_uid {
        set(&mut all, OsStr::new("HOME"), user.home.as_os_str());
        set(&mut all, OsStr::new("USER"), OsStr::new(&user.name));
        set(&mut all, OsStr::new("LOGNAME"), OsStr::new(&user.name));
    }
    for (key, value) in file.iter().chain(&definition.env) {
        set(&mut all, OsStr::new(key), OsStr::new(value));
    }
    all
}

/// Sets one variable of what is in order.
fn set<'a>(all: &mut Environment<'a>, key: &'a OsStr, value: &'a OsStr) {
    match all.binary_search_by(|(known, _)| (**known).cmp(key)) {
        Ok(place) => all.get_mut(place).into_iter().for_each(|entry| entry.1 = value.into()),
        Err(place) => all.insert(place, (key.into(), value.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::name::ServiceName;
    use crate::definition::resolved::Record;
    use crate::definition::trust::Trust;
    use crate::sys::users::nameless;
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

    #[test]
    fn what_the_definition_says_wins_over_the_file_and_the_file_over_what_is_inherited() {
        let home = PathBuf::from("/opt/data");
        let surroundings = Surroundings { home, gateway: nameless(10000, 10000), own_uid: 0 };
        let (name, argv) = (ServiceName::new("web").unwrap(), ["x".to_owned()]);
        let env = BTreeMap::from([("BOTH".to_owned(), "env".to_owned())]);
        let record = Record { name: &name, argv: &argv, env: &env, user: "10000" };
        let definition = Definition::from_record(record, &Trust::Trusted, &surroundings).unwrap();
        let seen = |uid: u32| {
            let inherited =
                [("PATH", "/tmp:/usr/bin"), ("HOME", "/root"), ("BOTH", "inherited"), ("FILE", "no")];
            let file =
                [("BOTH", "file"), ("FILE", "file")].map(|(key, value)| (key.to_owned(), value.to_owned()));
            let inherited = inherited.map(|(key, value)| (key.into(), value.into())).into();
            let (user, file) = (nameless(uid, uid), file.into());
            let all = environment(&inherited, &definition, &user, &file, &surroundings, &Programs::default());
            assert!(all.is_sorted() && all.windows(2).all(|pair| pair[0].0 != pair[1].0), "{all:?}");
            ["PATH", "HOME", "USER", "BOTH", "FILE"].map(|key| {
                let found = all.iter().find(|(known, _)| known == OsStr::new(key));
                found.map_or("-".to_owned(), |(_, value)| value.display().to_string())
            })
        };
        assert_eq!(seen(10000), ["/tmp:/usr/bin", "/", "10000", "env", "file"]);
        assert_eq!(seen(10001), ["/usr/bin", "/", "10001", "env", "file"]);
        assert_eq!(seen(0), ["/usr/bin", "/root", "-", "env", "file"]);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "[A-Z=#'\"\\\\ \n\t]{0,60}") {
            let _ = parse(Path::new("/f"), &bytes);
            let _ = parse(Path::new("/f"), text.as_bytes());
        }
    }
}
