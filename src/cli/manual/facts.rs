//! What the command line has to tell besides its options: exit codes, environment, files, examples. `--help` and the manual
//! pages show it.

use crate::control::protocol::Code;

/// A part of a manual page: tags with what they mean.
#[derive(Debug)]
pub struct Section {
    pub title: &'static str,
    pub entries: Vec<(String, String)>,
}

/// Who reads a variable, or is given it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// `init` and `run`, each as the option of that name.
    Supervisor,
    /// These, and all that look for the supervisor: `ctl` and the tools of s6 and systemd.
    Everyone,
    /// Given to services and their hooks.
    Service,
}

#[derive(Debug)]
pub struct Variable {
    pub name: &'static str,
    pub scope: Scope,
    pub what: &'static str,
}

#[rustfmt::skip]
pub static VARIABLES: &[Variable] = {
    use Scope::*;
    const fn variable(name: &'static str, scope: Scope, what: &'static str) -> Variable {
        Variable { name, scope, what }
    }
    &[
        variable("HERMES_SUP_HOME", Everyone, "The data volume, as --home. Without it HERMES_HOME, then /opt/data."),
        variable("HERMES_HOME", Everyone, "The data volume where HERMES_SUP_HOME is not set."),
        variable("HERMES_SUP_STATE", Everyone, "Where wants are kept, as --state."),
        variable("HERMES_SUP_SOCKET", Everyone, "The control socket, as --socket. Services have it too."),
        variable("HERMES_SUP_SERVICES", Supervisor, "Directories of definitions, separated by colons, as --services."),
        variable("HERMES_SUP_CONTAINMENT", Supervisor, "How trees are held, as --containment."),
        variable("HERMES_SUP_CONTROLLERS", Supervisor, "Whether to enable the controllers of cgroups, as --controllers."),
        variable("HERMES_SUP_GATEWAYS", Supervisor, "Whether Hermes gateways may run here, as --gateways."),
        variable("HERMES_SUP_GATEWAY_USER", Supervisor, "The user of gateways and of services that name none, as --gateway-user."),
        variable("HERMES_SUP_MAIN_USER", Supervisor, "The user of the main program, as --main-user."),
        variable("HERMES_SUP_STOP_BUDGET", Supervisor, "How long a shutdown may take altogether, as --stop-budget."),
        variable("HERMES_SUP_S6_SURFACE", Supervisor, "1: serve the tools of s6, as --s6-surface."),
        variable("HERMES_SUP_PUBLIC_STATUS", Supervisor, "1: every user may read the status, as --public-status."),
        variable("HERMES_SUP_LOG_LEVEL", Supervisor, "error, warning, info or debug, as --log-level."),
        variable("HERMES_SUP_LOG_FORMAT", Supervisor, "text or json, as --log-format."),
        variable("HERMES_SUP_LOG_PREFIX", Supervisor, "1: lines of services have their name in front, as --log-prefix."),
        variable("HERMES_SUP_METRICS", Supervisor, "Where to serve metrics and probes over HTTP, as --metrics."),
        variable("HERMES_SUP_PARALLEL_STARTS", Supervisor, "How many services may start at a time, as --parallel-starts."),
        variable("HERMES_SUP_DEMO", Supervisor, "1: a few built-in services in a temporary home, as run --demo."),
        variable("HERMES_SUP_SERVICE", Service, "The name of the service, for a hook."),
        variable("HERMES_SUP_MAIN_PID", Service, "The pid of the main process, for a hook."),
        variable("HERMES_SUP_HOOK", Service, "Which hook it is."),
        variable("HERMES_SUP_RESTARTS", Service, "How often the service was started again, for a hook."),
        variable("HERMES_SUP_EXIT_CODE", Service, "With which code it ended, for post_stop."),
        variable("HERMES_SUP_EXIT_SIGNAL", Service, "By which signal it ended, for post_stop."),
        variable("HERMES_SUP_EXIT_REASON", Service, "How it ended, in words, for post_stop."),
        variable("HERMES_SUP_INCARNATION", Service, "The life of a service that a process belongs to."),
        variable("HERMES_SUP_SCAN_DIR", Everyone, "The s6 scan directory that the s6 tools mean."),
    ]
};

/// Variables that the program uses between its own processes, and those of its tests.
#[cfg(test)]
const OWN: [&str; 9] = [
    "HERMES_SUP_HANDOVER",
    "HERMES_SUP_FAULT",
    "HERMES_SUP_TEST_ROLE",
    "HERMES_SUP_TEST_INNER",
    "HERMES_SUP_COMPLETE",
    "HERMES_SUP_SIMULATE",
    "HERMES_SUP_REPLAY",
    "HERMES_SUP_TRACE",
    "HERMES_SUP_TRACES",
];

#[rustfmt::skip]
pub static EXIT: &[(Code, &str)] = &[
    (Code::Done, "Done."),
    (Code::Failed, "Failed: the reason is on the error stream. Also where several services failed for reasons with different codes."),
    (Code::Usage, "What was typed is not understood."),
    (Code::NotUp, "'ctl status NAME' of a service that is not up."),
    (Code::NoSuchService, "There is no service of that name."),
    (Code::NoSupervisor, "No supervisor answers."),
    (Code::NotPermitted, "The caller may not ask for it."),
    (Code::TimedOut, "The result was not there in time."),
];

/// Of a supervisor that has ended.
#[rustfmt::skip]
static EXIT_OF_SUPERVISOR: &[(&str, &str)] = &[
    ("0", "Stopped by a signal or by 'ctl shutdown', and everything has ended."),
    ("1", "It could not start: the reason is on the error stream."),
    ("2", "What was typed is not understood."),
    ("CODE", "That of the main program that ended, of an essential service that failed, or of 'ctl shutdown --code'; 128 + N for an end by signal N."),
];

#[rustfmt::skip]
pub static FILES: &[(&str, &str)] = &[
    ("/etc/hermes-sup/services/NAME.toml", "Definitions of the operator; hermes-sup-definition(5)."),
    ("HOME/services/NAME.toml", "Definitions on the volume: they run as the gateway user."),
    ("HOME/supervisor/", "The state: what is wanted, in a database with one writer."),
    ("HOME/logs/gateways/NAME/current", "What a service writes, with the time of each line; rotated files beside it."),
    ("/run/hermes-sup/control.sock", "The control socket; HOME/supervisor/control.sock where /run cannot be written."),
];

/// A line that can be typed.
#[derive(Debug, PartialEq, Eq)]
pub struct Example {
    pub line: &'static str,
    pub what: &'static str,
}

#[rustfmt::skip]
static EXAMPLES: &[(&str, &[Example])] = {
    const fn example(line: &'static str, what: &'static str) -> Example {
        Example { line, what }
    }
    &[
        ("", &[
            example("hermes-sup run --demo", "Three small services to try it with."),
            example("hermes-sup check", "Whether the definitions are right."),
            example("hermes-sup ctl status", "What is up."),
        ]),
        ("init", &[
            example("hermes-sup init", "Boot and supervise; as /init the same."),
            example("hermes-sup init --stop-budget 60s -- /usr/local/bin/app --port 80", "With a main program, whose exit code is the container's."),
        ]),
        ("run", &[
            example("hermes-sup run --home ~/services --services ~/services/etc", "Without root, on a host."),
        ]),
        ("ctl", &[
            example("hermes-sup ctl status web", "Everything about one service."),
            example("hermes-sup ctl --json status", "The same of all as one document."),
            example("hermes-sup ctl --socket /run/hermes-sup/control.sock list", "Of another supervisor."),
        ]),
        ("ctl start", &[
            example("hermes-sup ctl start web", "Answered when it is up, or when it has failed."),
            example("hermes-sup ctl start --all --timeout 2m", "All, each within two minutes."),
        ]),
        ("ctl stop", &[
            example("hermes-sup ctl stop web worker", "Answered when no process of them is left."),
        ]),
        ("ctl restart", &[
            example("hermes-sup ctl restart --all --rolling 2", "Two at a time, each up before the next."),
        ]),
        ("ctl status", &[
            example("hermes-sup ctl status", "A table of all."),
            example("hermes-sup ctl status web", "One, with its last log lines; exit code 3 if it is not up."),
        ]),
        ("ctl logs", &[
            example("hermes-sup ctl logs web -f", "The last 10 lines and what follows."),
            example("hermes-sup ctl logs --all --since 10m --stream err", "What all have complained of in ten minutes."),
        ]),
        ("ctl kill", &[
            example("hermes-sup ctl kill web HUP", "To its main process."),
            example("hermes-sup ctl kill web USR1 --tree", "To all its processes."),
        ]),
        ("ctl wait", &[
            example("hermes-sup ctl wait redis --ready --timeout 30s", "For a script that needs it."),
        ]),
        ("ctl set", &[
            example("hermes-sup ctl set web memory_max=1G --persist", "From now on."),
            example("hermes-sup ctl set web memory_max=default", "What the definition says."),
        ]),
        ("ctl register", &[
            example("hermes-sup ctl register job --env MODE=fast -- /usr/local/bin/job --verbose", "A service without a file."),
        ]),
        ("ctl reload", &[
            example("hermes-sup ctl reload --restart", "Read the definitions again and restart what has changed."),
        ]),
        ("ctl top", &[
            example("hermes-sup ctl top --once", "One look, for a script."),
        ]),
        ("healthcheck", &[
            example("hermes-sup healthcheck", "In a HEALTHCHECK or a readiness probe: all that is wanted."),
            example("hermes-sup healthcheck web redis", "These two."),
        ]),
        ("check", &[
            example("hermes-sup check web.toml", "One file, in a build or a test."),
        ]),
        ("import", &[
            example("hermes-sup import /etc/supervisor/supervisord.conf --to /etc/hermes-sup/services", "From supervisord."),
            example("hermes-sup import /etc/s6-overlay/s6-rc.d", "From s6, printed."),
        ]),
        ("schema", &[
            example("hermes-sup schema > hermes-sup.schema.json", "For an editor of TOML."),
        ]),
        ("man", &[
            example("hermes-sup man definition | man -l -", "Every key of a definition."),
            example("hermes-sup man ctl stop | man -l -", "One command."),
        ]),
    ]
};

/// Of the command with these words.
pub fn examples(words: &str) -> &'static [Example] {
    EXAMPLES.iter().find(|(command, _)| *command == words).map_or(&[], |(_, examples)| examples)
}

/// The end of a `--help`.
pub fn help(words: &str) -> String {
    let lines =
        examples(words).iter().map(|example| format!("  {}\n          {}\n", example.line, example.what));
    let text: String = lines.collect();
    if text.is_empty() { text } else { format!("\nExamples:\n{text}") }
}

/// What the page of the command with these words tells.
pub fn sections(words: &str) -> Vec<Section> {
    let supervises = matches!(words, "" | "init" | "run");
    let owned = |(tag, what): (String, &str)| (tag, what.to_owned());
    let exit = match words {
        "init" | "run" => {
            EXIT_OF_SUPERVISOR.iter().map(|(tag, what)| owned(((*tag).to_owned(), *what))).collect()
        }
        _ => EXIT.iter().map(|(code, what)| owned((code.number().to_string(), *what))).collect(),
    };
    let variables = VARIABLES.iter().filter(|variable| supervises || variable.scope == Scope::Everyone);
    let environment = variables.map(|variable| owned((variable.name.to_owned(), variable.what))).collect();
    let mut sections = vec![
        Section { title: "EXIT STATUS", entries: exit },
        Section { title: "ENVIRONMENT", entries: environment },
    ];
    if supervises {
        let entries = FILES.iter().map(|(tag, what)| owned(((*tag).to_owned(), *what))).collect();
        sections.push(Section { title: "FILES", entries });
    }
    sections
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::ffi::OsString;
    use std::path::Path;

    #[test]
    fn every_exit_code_has_its_sentence() {
        assert_eq!(EXIT.iter().map(|(code, _)| *code).collect::<Vec<_>>(), Code::ALL);
    }

    #[test]
    fn every_example_is_understood() {
        for (words, examples) in EXAMPLES {
            for example in *examples {
                let line = example.line.split(['|', '>']).next().unwrap_or_default();
                let argv: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
                let parsed = crate::cli::args::parse(&argv, &|_| None);
                assert!(parsed.is_ok(), "{}: {parsed:?}", example.line);
                assert!(line.starts_with(format!("hermes-sup {words}").trim_end()), "{words}: {line}");
            }
        }
    }

    /// Every variable that a source file speaks of is in the table, and every one of the table is spoken of.
    #[test]
    fn every_variable_is_in_the_table() {
        let mut found = BTreeSet::new();
        gather(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        let known: BTreeSet<String> = VARIABLES
            .iter()
            .map(|variable| variable.name)
            .filter(|name| name.starts_with(PREFIX))
            .chain(OWN)
            .map(str::to_owned)
            .collect();
        let missing: Vec<_> = found.difference(&known).collect();
        assert!(missing.is_empty(), "variables without a row in manual/facts.rs: {missing:?}");
        let idle: Vec<_> = known.difference(&found).collect();
        assert!(idle.is_empty(), "rows of manual/facts.rs that no source speaks of: {idle:?}");
    }

    const PREFIX: &str = "HERMES_SUP_";

    fn gather(dir: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                gather(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && !path.ends_with("manual/facts.rs")
            {
                let text = std::fs::read_to_string(&path).unwrap();
                for (at, _) in text.match_indices(PREFIX) {
                    let rest = &text[at + PREFIX.len()..];
                    let end = rest.find(|c: char| !c.is_ascii_uppercase() && c != '_' && !c.is_ascii_digit());
                    let name = &rest[..end.unwrap_or(rest.len())];
                    if !name.is_empty() {
                        found.insert(format!("{PREFIX}{name}"));
                    }
                }
            }
        }
    }
}
