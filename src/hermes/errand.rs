//! What an operator asks of a profile without a process of its own, as what is asked of the root gateway.
//!
//! Only a root gateway with the control socket and the verb can do it for one profile. Everywhere else the command is refused
//! and nothing is changed: neither the mark of a parked profile nor what is wanted.
//!
//! [`Errand::run`] blocks; the rest is pure.

use super::gateway_socket::{self, Answer, AskError, Verb};
use super::topology;
use crate::core::event::Command;
use crate::core::gateway::Elsewhere;
use crate::core::name::ServiceName;
use crate::sys::beneath::Beneath;
use crate::sys::credentials::Credentials;
use std::time::Duration;

/// How long the root gateway may take to answer. It gives its own work 5 s and then says that it goes on with it.
pub const PATIENCE: Duration = Duration::from_secs(8);

/// A conversation with the root gateway about one profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errand {
    profile: ServiceName,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Serve it no more, and leave it out from now on.
    Park,
    /// Serve it again.
    Unpark,
    /// Stop to serve it, and begin again.
    Again,
}

/// What came of a command.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It counts, and this is what there is to say beside the state.
    Done(Option<String>),
    /// It counts, but the root gateway has not finished.
    Unfinished(String),
    /// It does not count. Nothing is different.
    Refused(String),
}

impl Errand {
    /// `None`: `command` is no matter of the root gateway's.
    pub fn of(place: &Elsewhere, command: Command, profile: &ServiceName) -> Option<Self> {
        let kind = match (place, command) {
            (Elsewhere::Served { .. }, Command::Stop) => Kind::Park,
            (Elsewhere::Served { .. }, Command::Restart) => Kind::Again,
            (Elsewhere::Parked, Command::Start { .. } | Command::Restart) => Kind::Unpark,
            (Elsewhere::Served { .. }, Command::Start { .. } | Command::Once | Command::Unregister)
            | (Elsewhere::Parked, Command::Stop | Command::Once | Command::Unregister) => return None,
        };
        Some(Self { profile: profile.clone(), kind })
    }

    /// Whether the profile is parked once it is done.
    pub fn parks(&self) -> bool {
        self.kind == Kind::Park
    }

    /// Asks the root gateway, which is process `pid`. The mark comes first: it decides what the root gateway's own next look at
    /// the profiles makes of the answer.
    ///
    /// # Errors
    /// As [`gateway_socket::ask`] and [`topology::mark_parked`]; the mark is as it was before.
    pub fn run(&self, home: &Beneath, user: &Credentials, pid: u32) -> Result<Answer, AskError> {
        let ask = |verb: Verb| gateway_socket::ask(home, user, pid, &verb, PATIENCE);
        let mark = |parked| topology::mark_parked(home, user, &self.profile, parked);
        let profile = || self.profile.clone();
        match self.kind {
            Kind::Again => ask(Verb::Unserve(profile())).and_then(|_| ask(Verb::Serve(profile()))),
            Kind::Park | Kind::Unpark => {
                let changed = mark(self.parks())?;
                let verb = if self.parks() { Verb::Unserve(profile()) } else { Verb::Serve(profile()) };
                let answer = ask(verb);
                if answer.is_err() && changed {
                    mark(!self.parks())?;
                }
                answer
            }
        }
    }

    /// `name`: the service of the profile; `root`: that of the root gateway.
    pub fn verdict(&self, name: &ServiceName, root: &str, answer: Result<&Answer, &AskError>) -> Verdict {
        let why = match answer {
            Ok(Answer { pending: true, .. }) => {
                return Verdict::Unfinished(format!(
                    "'{name}': '{root}' has not finished it yet: see 'hermes-sup ctl status {name}'"
                ));
            }
            Ok(Answer { pending: false, .. }) => {
                return Verdict::Done((self.kind == Kind::Again).then(|| format!("restarted by '{root}'")));
            }
            Err(why) => why,
        };
        Verdict::Refused(match self.kind {
            Kind::Park => format!(
                "'{name}' goes on: '{root}' serves it and cannot stop it alone ({why}): \
                 'hermes-sup ctl stop {name} {root}' stops both"
            ),
            Kind::Again => format!(
                "'{name}' has no process of its own, '{root}' serves it: 'hermes-sup ctl restart {root}' restarts it ({why})"
            ),
            Kind::Unpark => format!("'{name}' stays parked: '{root}' does not take it back ({why})"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;
    use std::path::Path;

    const START: Command = Command::Start { force: false };

    fn work() -> ServiceName {
        ServiceName::new("work").unwrap()
    }

    fn served() -> Elsewhere {
        Elsewhere::Served { by: ServiceName::new("default").unwrap() }
    }

    /// A home with the profile `work`, parked or not, and a root gateway that gives these answers, one a connection. Returns the
    /// verbs that it was asked, what came of it, and whether the profile is marked now.
    fn run(
        place: &Elsewhere,
        command: Command,
        answers: &[Value],
    ) -> (Vec<String>, Result<Answer, AskError>, bool) {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join("profiles/work")).unwrap();
        let (beneath, own) = (Beneath::open(home.path()).unwrap(), Credentials::own());
        topology::mark_parked(&beneath, &own, &work(), *place == Elsewhere::Parked).unwrap();
        let errand = Errand::of(place, command, &work()).expect("a matter of the root gateway's");
        let (asked, answer) = std::thread::scope(|threads| {
            let root = (!answers.is_empty()).then(|| {
                let listener = UnixListener::bind(home.path().join("gateway.sock")).unwrap();
                threads.spawn(move || answers.iter().map(|answer| serve(&listener, answer)).collect())
            });
            let answer = errand.run(&beneath, &own, std::process::id());
            (root.map(|root| root.join().unwrap()).unwrap_or_default(), answer)
        });
        (asked, answer, is_marked(home.path()))
    }

    fn serve(listener: &UnixListener, answer: &Value) -> String {
        let (mut stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        writeln!(stream, "{answer}").unwrap();
        let asked: Value = serde_json::from_str(&line).unwrap();
        asked["verb"].as_str().unwrap().to_owned()
    }

    fn is_marked(home: &Path) -> bool {
        home.join("profiles/work/gateway.parked").exists()
    }

    fn done() -> Value {
        json!({"ok": true, "result": {"served_profiles": ["default"]}})
    }

    #[test]
    fn each_command_is_what_the_root_gateway_can_do() {
        let (asked, answer, marked) = run(&served(), Command::Stop, &[done()]);
        assert_eq!((asked, answer.is_ok(), marked), (vec!["unserve-profile".to_owned()], true, true));
        for command in [START, Command::Restart] {
            let (asked, answer, marked) = run(&Elsewhere::Parked, command, &[done()]);
            assert_eq!((asked, answer.is_ok(), marked), (vec!["serve-profile".to_owned()], true, false));
        }
        let (asked, answer, marked) = run(&served(), Command::Restart, &[done(), done()]);
        assert_eq!(asked, ["unserve-profile", "serve-profile"]);
        assert!(answer.is_ok() && !marked);
    }

    /// A profile that was marked and went on being served would have been left out at the root gateway's next start.
    #[test]
    fn a_command_that_fails_changes_nothing() {
        let unknown = json!({"ok": false, "error": "?", "supported_verbs": ["identify"]});
        let refused = json!({"ok": true, "result": {"error": "not now"}});
        for answers in [vec![], vec![unknown], vec![refused]] {
            for (place, command) in [(served(), Command::Stop), (Elsewhere::Parked, START)] {
                let (_, answer, marked) = run(&place, command, &answers);
                let verdict = Errand::of(&place, command, &work()).unwrap().verdict(
                    &work(),
                    "default",
                    answer.as_ref(),
                );
                assert!(matches!(verdict, Verdict::Refused(_)), "{verdict:?}");
                assert_eq!(marked, place == Elsewhere::Parked, "{answers:?}");
            }
        }
    }

    #[test]
    fn what_the_core_does_itself_is_not_asked_for() {
        for command in [START, Command::Once, Command::Unregister] {
            assert_eq!(Errand::of(&served(), command, &work()), None);
        }
        for command in [Command::Stop, Command::Once, Command::Unregister] {
            assert_eq!(Errand::of(&Elsewhere::Parked, command, &work()), None);
        }
    }

    #[test]
    fn the_verdict_says_what_helps() {
        let verdict = |place: &Elsewhere, command, answer: Result<&Answer, &AskError>| {
            Errand::of(place, command, &work()).unwrap().verdict(&work(), "default", answer)
        };
        let done = Answer::default();
        assert_eq!(verdict(&served(), Command::Stop, Ok(&done)), Verdict::Done(None));
        assert_eq!(
            verdict(&served(), Command::Restart, Ok(&done)),
            Verdict::Done(Some("restarted by 'default'".to_owned()))
        );
        let pending = Answer { pending: true, ..Answer::default() };
        assert!(matches!(verdict(&served(), Command::Stop, Ok(&pending)), Verdict::Unfinished(_)));
        for (place, command, helps) in [
            (served(), Command::Stop, "'hermes-sup ctl stop work default' stops both"),
            (served(), Command::Restart, "'hermes-sup ctl restart default' restarts it"),
            (Elsewhere::Parked, START, "'work' stays parked"),
        ] {
            let Verdict::Refused(text) = verdict(&place, command, Err(&AskError::NoSocket)) else {
                panic!("{command:?} is refused");
            };
            assert!(text.contains(helps) && text.contains("it has no control socket"), "{text}");
        }
    }
}
