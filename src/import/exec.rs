//! The command lines of a unit: marks before a program, variables in its words, and several lines as one program
//! (systemd.service(5)). Pure.

use super::unit::{self, UnitError, UnitName};
use std::collections::{BTreeMap, BTreeSet};

const SHELL: &str = "/bin/sh";
const MARKS: [char; 6] = ['-', '@', ':', '+', '!', '|'];
/// The variable of the main process: systemd's, and that of a hook.
const MAIN_PID: [&str; 2] = ["MAINPID", "HERMES_SUP_MAIN_PID"];

/// One command of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Command {
    words: Vec<Vec<Piece>>,
    /// Its failure is none.
    pub may_fail: bool,
}

/// A part of a word.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// The process id of the main process, which is known when the command runs.
    MainPid,
}

/// What is the same for all lines of a unit.
pub(super) struct Reader<'a> {
    pub name: UnitName<'a>,
    pub env: &'a BTreeMap<String, String>,
    /// Of what reads `$MAINPID`.
    pub knows_main_pid: bool,
    /// Runs as root: a mark for more rights asks for nothing.
    pub is_root: bool,
    /// What is not carried over.
    pub notes: BTreeSet<String>,
}

impl Reader<'_> {
    /// The commands of all lines of `key`.
    ///
    /// # Errors
    /// As [`UnitName::expand`] and [`unit::words`].
    pub(super) fn commands(&mut self, key: &str, lines: &[String]) -> Result<Vec<Command>, UnitError> {
        let mut commands = Vec::new();
        for line in lines {
            for words in unit::commands(&self.name.expand(line)?)? {
                commands.extend(self.command(key, words));
            }
        }
        Ok(commands)
    }

    /// `None`: it names no program.
    fn command(&mut self, key: &str, mut words: Vec<String>) -> Option<Command> {
        let first = words.first_mut()?;
        let program = first.trim_start_matches(MARKS).to_owned();
        let marks = first[..first.len() - program.len()].to_owned();
        *first = program;
        if first.is_empty() {
            return None;
        }
        if marks.contains('@') && words.len() > 1 {
            words.remove(1);
            self.note(format!("{key} with @: a program is called by its own name"));
        }
        if marks.contains(['+', '!']) && !self.is_root {
            self.note(format!(
                "{key} with + or !: it runs as the user of the service, with what [security] says"
            ));
        }
        if marks.contains('|') {
            self.note(format!("{key} with |: it runs without a shell of its user"));
        }
        let words = words.into_iter().map(|word| match marks.contains(':') {
            true => vec![Piece::Text(word)],
            false => self.filled(key, &word),
        });
        Some(Command { words: words.collect(), may_fail: marks.contains('-') })
    }

    fn note(&mut self, what: String) {
        self.notes.insert(what);
    }

    /// A word with the variables of `Environment` in it.
    fn filled(&mut self, key: &str, word: &str) -> Vec<Piece> {
        let (mut pieces, mut text) = (Vec::new(), String::new());
        let mut rest = word;
        while let Some((before, after)) = rest.split_once('$') {
            text.push_str(before);
            if let Some(after) = after.strip_prefix('$') {
                text.push('$');
                rest = after;
                continue;
            }
            let braced = after.strip_prefix('{').and_then(|after| after.split_once('}'));
            let braced = braced.filter(|(name, _)| !name.is_empty());
            let (name, after) = braced.unwrap_or_else(|| {
                after.split_at(
                    after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len()),
                )
            });
            rest = after;
            match self.env.get(name) {
                _ if name.is_empty() => text.push('$'),
                Some(value) => text.push_str(value),
                None if self.knows_main_pid && name == MAIN_PID[0] => {
                    pieces.push(Piece::Text(std::mem::take(&mut text)));
                    pieces.push(Piece::MainPid);
                }
                None => {
                    self.note(format!("${name} in {key}: its value is not in Environment"));
                    text.push('$');
                    text.push_str(name);
                }
            }
        }
        pieces.push(Piece::Text(text + rest));
        pieces
    }
}

impl Command {
    /// Its words, where all of them are known.
    pub(super) fn plain(&self) -> Option<Vec<String>> {
        self.words.iter().map(|word| word.iter().map(Piece::text).collect()).collect()
    }

    fn shell(&self, must_succeed: bool) -> String {
        let words: Vec<String> =
            self.words.iter().map(|word| word.iter().map(Piece::shell).collect()).collect();
        let words: Vec<&str> =
            words.iter().map(|word| if word.is_empty() { "''" } else { word.as_str() }).collect();
        format!("{}{}", words.join(" "), if self.may_fail && must_succeed { " || :" } else { "" })
    }

    /// The signal, where it sends one to the main process: `kill -HUP $MAINPID`.
    fn signal(&self) -> Option<String> {
        let [program, options @ .., last] = self.words.as_slice() else { return None };
        let text = |word: &Vec<Piece>| word.iter().map(Piece::text).collect::<Option<String>>();
        let program = text(program)?;
        let to_main = last.contains(&Piece::MainPid);
        let is_kill = program == "kill" || program.ends_with("/kill");
        let options: Vec<String> = options.iter().map(text).collect::<Option<_>>()?;
        let signal = match options.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [] => "TERM",
            ["-s", signal] => signal,
            [option] => option.strip_prefix('-')?,
            _ => return None,
        };
        (is_kill && to_main).then(|| signal.trim_start_matches("SIG").to_owned())
    }
}

impl Piece {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::MainPid => None,
        }
    }

    fn shell(&self) -> String {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_./=:@%+,-".contains(c);
        match self {
            Self::Text(text) if text.chars().all(plain) => text.clone(),
            Self::Text(text) => format!("'{}'", text.replace('\'', r"'\''")),
            Self::MainPid => format!("\"${}\"", MAIN_PID[1]),
        }
    }
}

/// One program that does what all of them do, up to the first that fails. Where `must_succeed`, its own success is that of all
/// that may not fail.
pub(super) fn joined(commands: &[Command], must_succeed: bool) -> Option<Vec<String>> {
    match commands {
        [] => None,
        [one] if !(one.may_fail && must_succeed) && one.plain().is_some() => one.plain(),
        [one] => Some(shell(one.shell(must_succeed))),
        many => {
            let lines: Vec<String> = many.iter().map(|command| command.shell(true)).collect();
            Some(shell(format!("set -e; {}", lines.join("; "))))
        }
    }
}

fn shell(script: String) -> Vec<String> {
    vec![SHELL.to_owned(), "-c".to_owned(), script]
}

/// The signal that the commands send to the main process.
pub(super) fn signal(commands: &[Command]) -> Option<String> {
    commands.iter().find_map(Command::signal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(env: &BTreeMap<String, String>, lines: &[&str]) -> (Vec<Command>, BTreeSet<String>) {
        let name = UnitName { stem: "web" };
        let mut reader = Reader { name, env, knows_main_pid: true, is_root: false, notes: BTreeSet::new() };
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        let commands = reader.commands("ExecStop", &lines).unwrap();
        (commands, reader.notes)
    }

    /// The word itself is said by a shell, so that its quotes are right.
    #[test]
    fn lines_become_one_program() {
        let env = BTreeMap::from([("WHO".to_owned(), "it's me".to_owned())]);
        for (lines, must_succeed, expected) in [
            (&["/bin/a $WHO"] as &[&str], true, vec!["/bin/a", "it's me"]),
            (&["-/bin/a b"], false, vec!["/bin/a", "b"]),
            (&["-/bin/a b"], true, vec!["/bin/sh", "-c", "/bin/a b || :"]),
            (
                &["/bin/a ''", "-/bin/b ${WHO} ; /bin/c"],
                true,
                vec!["/bin/sh", "-c", r"set -e; /bin/a ''; /bin/b 'it'\''s me' || :; /bin/c"],
            ),
            (
                &["/bin/kill -QUIT $MAINPID"],
                false,
                vec!["/bin/sh", "-c", r#"/bin/kill -QUIT "$HERMES_SUP_MAIN_PID""#],
            ),
            (&["@/bin/a other b"], true, vec!["/bin/a", "b"]),
            (&[":/bin/a $WHO"], true, vec!["/bin/a", "$WHO"]),
        ] {
            let (commands, _) = read(&env, lines);
            assert_eq!(joined(&commands, must_succeed).unwrap(), expected, "{lines:?}");
        }
        assert_eq!(joined(&read(&env, &["-", ";"]).0, true), None);
    }

    #[test]
    fn what_a_line_asks_for_beyond_it_is_noted() {
        let env = BTreeMap::new();
        let (_, notes) = read(&env, &["+@!|/bin/a other $NONE", "+/bin/b"]);
        let notes: Vec<&str> = notes.iter().map(String::as_str).collect();
        assert_eq!(
            notes,
            [
                "$NONE in ExecStop: its value is not in Environment",
                "ExecStop with + or !: it runs as the user of the service, with what [security] says",
                "ExecStop with @: a program is called by its own name",
                "ExecStop with |: it runs without a shell of its user",
            ]
        );
    }

    #[test]
    fn a_kill_of_the_main_process_is_its_signal() {
        let env = BTreeMap::new();
        for (line, expected) in [
            ("/bin/kill -HUP $MAINPID", Some("HUP")),
            ("kill -s SIGUSR2 ${MAINPID}", Some("USR2")),
            ("/bin/kill $MAINPID", Some("TERM")),
            ("/bin/kill -HUP 1", None),
            ("/usr/sbin/nginx -s reload", None),
            ("/bin/app $MAINPID", None),
        ] {
            let (commands, _) = read(&env, &["/bin/check", line]);
            assert_eq!(signal(&commands).as_deref(), expected, "{line}");
        }
    }

    proptest! {
        /// Whatever stands in a word is one word to the shell again.
        #[test]
        fn a_shell_reads_the_words_again(word in "[ -~]{0,20}") {
            let quoted = Piece::Text(word.clone()).shell();
            let script = format!("printf %s {}", if quoted.is_empty() { "''" } else { &quoted });
            let said = std::process::Command::new(SHELL).args(["-c", &script]).output().unwrap();
            prop_assert_eq!(String::from_utf8(said.stdout).unwrap(), word);
        }
    }
}
