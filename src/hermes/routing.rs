//! What the container's CMD means in the Hermes image: a program as it stands, or arguments of `hermes`.

use std::ffi::{OsStr, OsString};

/// The image's own program.
const HERMES: &str = "hermes";

/// Exit code for a program that is nowhere, as a shell gives it.
pub const NOT_FOUND: u8 = 127;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// Run this as the main program.
    Exec(Vec<OsString>),
    /// No CMD and no `hermes`: supervise without a main program.
    Nothing,
    /// The CMD is no program and there is no `hermes` to give it to: exit with [`NOT_FOUND`].
    NotFound(OsString),
}

/// Routes `cmd`; `executable` says whether a name on PATH, or a path, can be executed.
pub fn route(cmd: &[OsString], executable: impl Fn(&OsStr) -> bool) -> Route {
    let hermes = OsStr::new(HERMES);
    match cmd.first() {
        None if executable(hermes) => Route::Exec(vec![hermes.to_owned()]),
        None => Route::Nothing,
        Some(program) if !program.is_empty() && executable(program) => Route::Exec(cmd.to_vec()),
        Some(_) if executable(hermes) => {
            Route::Exec(std::iter::once(hermes.to_owned()).chain(cmd.iter().cloned()).collect())
        }
        Some(program) => Route::NotFound(program.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routed(cmd: &str, there: &[&str]) -> String {
        let cmd: Vec<OsString> = cmd.split_whitespace().map(OsString::from).collect();
        match route(&cmd, |name| there.iter().any(|there| *there == name)) {
            Route::Exec(argv) => argv.join(OsStr::new(" ")).into_string().unwrap(),
            Route::Nothing => "(nothing)".to_owned(),
            Route::NotFound(program) => format!("(no {})", program.display()),
        }
    }

    /// Contract: 13.
    #[test]
    fn the_table_of_the_image() {
        for (cmd, there, expected) in [
            ("", vec!["hermes"], "hermes"),
            ("", vec![], "(nothing)"),
            ("sleep 1", vec!["sleep", "hermes"], "sleep 1"),
            ("/bin/sh -c true", vec!["/bin/sh"], "/bin/sh -c true"),
            ("chat --help", vec!["hermes"], "hermes chat --help"),
            ("--version", vec!["hermes"], "hermes --version"),
            ("gateway run", vec!["hermes"], "hermes gateway run"),
            ("hermes gateway run", vec!["hermes"], "hermes gateway run"),
            ("./not-executable x", vec!["hermes"], "hermes ./not-executable x"),
            ("gateway run", vec!["sleep"], "(no gateway)"),
            ("hermes chat", vec![], "(no hermes)"),
        ] {
            assert_eq!(routed(cmd, &there), expected, "{cmd} with {there:?}");
        }
        let everything = |_: &OsStr| true;
        let empty = [OsString::new(), OsString::from("x")];
        assert_eq!(route(&empty, everything), Route::Exec(vec!["hermes".into(), "".into(), "x".into()]));
    }
}
