//! Which names this binary answers to, and how each is called.
//!
//! Looking a name up allocates nothing and reads nothing: it comes before everything else that the program does.

use super::{contenv, execlineb, log, setuidgid, sleep, svc, svscanctl, svstat, svwait, systemd};
use crate::cli::render::Console;
use crate::cli::settings::{self, Env};
use crate::control::client::Search;
use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::path::Path;

/// What an applet is: everything typed goes in, the exit code comes out.
type Main = fn(&mut Call<'_>) -> u8;

/// Every name, one a line.
const TABLE: &[(&str, Main)] = &[
    ("execlineb", execlineb::main),
    ("s6-log", log::main),
    ("s6-setuidgid", setuidgid::main),
    ("s6-sleep", sleep::main),
    ("s6-svc", svc::main),
    ("s6-svscanctl", svscanctl::main),
    ("s6-svstat", svstat::main),
    ("s6-svwait", svwait::main),
    ("systemctl", systemd::systemctl),
    ("systemd-run", systemd::systemd_run),
    ("with-contenv", contenv::main),
];

/// Exit code for what was typed wrongly, or for what this applet cannot do.
pub const USAGE: u8 = 100;
/// Exit code for what the system refused.
pub const SYSTEM: u8 = 111;

/// One call of an applet.
pub struct Call<'a> {
    pub name: &'static str,
    /// Without `argv[0]`.
    pub words: &'a [OsString],
    pub env: &'a Env<'a>,
    pub console: Console<'a>,
}

impl std::fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call").field("name", &self.name).field("words", &self.words).finish_non_exhaustive()
    }
}

impl Call<'_> {
    /// Says in one line why it ends, and is the exit code.
    pub fn fatal(&mut self, code: u8, why: &str) -> u8 {
        self.console.error(&format!("fatal: {why}"));
        code
    }

    /// The line for a mistake in what was typed.
    pub fn usage(&mut self, why: impl Display, usage: &str) -> u8 {
        self.fatal(USAGE, &format!("{why}: usage: {usage}"))
    }

    /// Where the supervisor is looked for.
    pub fn search(&self) -> Search {
        settings::search(None, self.env)
    }

    /// Ends what wrote to stdout: 0, or the code for an output that failed.
    pub fn written(&mut self) -> u8 {
        if self.console.failed() { SYSTEM } else { 0 }
    }
}

/// All of them.
pub fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(name, _)| *name)
}

/// The applet that `argv[0]` names, if it is one.
pub fn find(own_name: &OsStr) -> Option<&'static str> {
    let name = Path::new(own_name).file_name()?;
    TABLE.iter().map(|(known, _)| *known).find(|known| name == *known)
}

/// Runs the applet `name` (from [`find`]) with `argv`, `argv[0]` included. Comes back unless a command took our place.
pub fn run(name: &'static str, argv: &[OsString], env: &Env<'_>) -> u8 {
    let Some((_, main)) = TABLE.iter().find(|(known, _)| *known == name) else { return USAGE };
    let words = argv.get(1..).unwrap_or_default();
    main(&mut Call { name, words, env, console: Console::stdio(env).called(name) })
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Runs an applet's front with `words` and an environment, in this process: exit code, stdout, stderr.
    pub fn told(
        main: fn(&mut Call<'_>) -> u8,
        name: &'static str,
        words: &[&str],
        env: &Env<'_>,
    ) -> (u8, String, String) {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let console = Console::new(&mut out, &mut err).called(name);
        let code = main(&mut Call { name, words: &words, env, console });
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (code, text(out), text(err))
    }

    #[test]
    fn an_applet_is_known_by_its_file_name_alone() {
        for (own_name, found) in [
            ("s6-svc", Some("s6-svc")),
            ("/command/s6-svc", Some("s6-svc")),
            ("../x/with-contenv", Some("with-contenv")),
            ("hermes-sup", None),
            ("/init", None),
            ("/s6-svc/hermes-sup", None),
            ("s6-svc2", None),
            ("", None),
            ("/", None),
        ] {
            assert_eq!(find(OsStr::new(own_name)), found, "{own_name}");
        }
    }

    #[test]
    fn the_table_is_sorted_and_has_each_name_once() {
        assert!(TABLE.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
