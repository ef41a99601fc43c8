//! `gateway run` as the container's CMD: the gateway becomes a supervised service, and the main program's place waits.
//!
//! Pure. What is not plainly a gateway run is left alone: `hermes` itself then says what is wrong with it.

use crate::core::name::ServiceName;
use crate::definition::template::DEFAULT_PROFILE;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Set for a gateway that is supervised already.
pub const SUPERVISED_CHILD: &str = "HERMES_S6_SUPERVISED_CHILD";
/// 1, true or yes: the owner wants the gateway in the foreground.
pub const NO_SUPERVISE: &str = "HERMES_GATEWAY_NO_SUPERVISE";
const NO_SUPERVISE_FLAG: &str = "--no-supervise";
/// The image's entry scripts, which pass their arguments on to `hermes`; everything before them is their launcher's.
const ENTRY_SCRIPTS: [&str; 2] = ["main-wrapper.sh", "entrypoint-dispatch.sh"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redirect {
    /// Run the CMD as the main program.
    NotAGateway,
    /// Run the CMD as the main program, and hold the service of that profile down as long as this container lives; its
    /// want stays what it is.
    Foreground { hold_down: ServiceName },
    /// The service of that profile gets want=up, and these arguments after those of the template.
    Supervise { profile: ServiceName, extra_args: Vec<String> },
}

/// Judges the CMD, before or after routing. `env` looks a variable of the container up. Without a `-p` it means the root
/// profile, whatever profile somebody has made the sticky one: a container's command is no person at a terminal.
pub fn redirect(cmd: &[OsString], env: impl Fn(&str) -> Option<OsString>) -> Redirect {
    let Some((profile, extra_args)) = gateway_run(cmd) else { return Redirect::NotAGateway };
    let profile = match profile {
        Some(text) => ServiceName::gateway_of(&text.to_lowercase()).ok(),
        None => ServiceName::new(DEFAULT_PROFILE).ok(),
    };
    let Some(profile) = profile else { return Redirect::NotAGateway };
    let refused = extra_args.iter().any(|arg| arg == NO_SUPERVISE_FLAG);
    if refused || stays_in_foreground(env) {
        return Redirect::Foreground { hold_down: profile };
    }
    Redirect::Supervise { profile, extra_args }
}

/// What `hermes` is to do, whatever launches it: the arguments after the image's entry scripts, if they are there, and
/// after a leading `hermes`.
pub fn gateway_command(argv: &[OsString]) -> &[OsString] {
    match after_entry_scripts(argv) {
        [first, rest @ ..] if is_hermes(first) => rest,
        command => command,
    }
}

/// The container's CMD as somebody wrote it: what follows the image's entry scripts, if they are there.
pub(super) fn after_entry_scripts(argv: &[OsString]) -> &[OsString] {
    let is_script =
        |arg: &OsString| ENTRY_SCRIPTS.iter().any(|name| arg.as_bytes().ends_with(name.as_bytes()));
    // Only the first one and those right behind it: further on the words are somebody's arguments.
    let start = argv
        .iter()
        .position(is_script)
        .map_or(0, |first| first + argv[first..].iter().take_while(|arg| is_script(arg)).count());
    argv.get(start..).unwrap_or_default()
}

/// Whether the word is the program `hermes`, by name or by path.
pub(super) fn is_hermes(word: &OsStr) -> bool {
    Path::new(word).file_name() == Some(OsStr::new("hermes"))
}

/// The same command with `-p default` before a bare `gateway run`, so that `hermes` does not take the sticky profile for
/// what was meant. Anything else stays as it is.
pub fn name_default(mut argv: Vec<OsString>) -> Vec<OsString> {
    if let Some((None, _)) = gateway_run(&argv) {
        let at = argv.len() - gateway_command(&argv).len();
        argv.splice(at..at, ["-p".into(), DEFAULT_PROFILE.into()]);
    }
    argv
}

/// Is the CMD the dashboard? Its container lives beside the one with the gateways and leaves the state to that one.
pub fn is_dashboard(cmd: &[OsString]) -> bool {
    gateway_command(cmd).first().is_some_and(|word| word == "dashboard")
}

/// Is the CMD the one with which containers ran their gateway before there was supervision? Then a home without any
/// recorded state wants its root gateway up.
pub fn is_legacy_run(cmd: &[OsString], env: impl Fn(&str) -> Option<OsString>) -> bool {
    let args = gateway_command(cmd);
    let plain = args.len() >= 2 && args[0] == "gateway" && args[1] == "run";
    plain && !args.iter().any(|arg| arg == NO_SUPERVISE_FLAG) && !stays_in_foreground(env)
}

/// Whether a `gateway run` with this command line and environment runs in the foreground, whatever supervises here.
pub fn keeps_foreground(argv: &[OsString], env: impl Fn(&str) -> Option<OsString>) -> bool {
    argv.iter().any(|arg| arg == NO_SUPERVISE_FLAG) || stays_in_foreground(env)
}

/// The gateways that a CMD which is none itself shows that it runs in the foreground: `env … hermes gateway run`, or in the text
/// of a `sh -c`. `handed_over` as in [`super::presence::gateway_below`]. What a script does in its file is not seen.
pub fn wrapped_gateways(
    cmd: &[OsString],
    handed_over: bool,
    env: impl Fn(&str) -> Option<OsString>,
) -> Vec<ServiceName> {
    const ENDS_COMMAND: [char; 8] = [';', '&', '|', '(', ')', '{', '}', '\n'];
    let texts: Vec<&str> = cmd.iter().filter_map(|word| word.to_str()).collect();
    let is_text = |word: &&str| word.contains(char::is_whitespace);
    let mut commands = vec![texts.iter().copied().filter(|word| !is_text(word)).collect::<Vec<_>>()];
    for text in texts.into_iter().filter(is_text) {
        commands.extend(text.split(ENDS_COMMAND).map(|command| command.split_whitespace().collect()));
    }
    let unquoted = |word: &str| OsString::from(word.replace(['"', '\''], ""));
    let commands: Vec<Vec<OsString>> =
        commands.into_iter().map(|words| words.into_iter().map(unquoted).collect()).collect();
    // A variable may be set by one command of a shell for the next ones.
    let sets = |word: &OsString| {
        let (name, value) = word.to_str().and_then(|word| word.split_once('=')).unwrap_or_default();
        name == NO_SUPERVISE && is_yes(value.as_ref())
    };
    let all = !handed_over || stays_in_foreground(env) || commands.iter().flatten().any(sets);
    let stays = |command: &&Vec<OsString>| all || command.iter().any(|word| word == NO_SUPERVISE_FLAG);
    commands.iter().filter(stays).filter_map(|command| gateway_process(command)).collect()
}

/// The gates of the environment that keep `gateway run` a foreground program.
fn stays_in_foreground(env: impl Fn(&str) -> Option<OsString>) -> bool {
    let supervised = env(SUPERVISED_CHILD).is_some_and(|value| !value.is_empty());
    supervised || env(NO_SUPERVISE).is_some_and(|value| is_yes(&value))
}

/// 1, true or yes in any case. `0`, nothing and typing errors are not.
pub fn is_yes(value: &OsStr) -> bool {
    value.to_str().is_some_and(|text| ["1", "true", "yes"].contains(&text.to_lowercase().as_str()))
}

/// What a person finds on stderr instead of the gateway in the foreground.
pub fn breadcrumb(profile: &ServiceName) -> String {
    format!(
        "hermes-sup: gateway '{}' now runs under supervision: it is restarted when it crashes, and the container \
         outlives it. To have it in the foreground as the container's main program, use 'gateway run {NO_SUPERVISE_FLAG}' \
         or {NO_SUPERVISE}=1",
        profile.profile()
    )
}

/// The gateway that a running process is, by its command line: `hermes … gateway run …`, whatever interprets it.
pub fn gateway_process(argv: &[OsString]) -> Option<ServiceName> {
    let is_it = |word: &OsString| is_hermes(word) || word == "hermes_cli.main";
    let at = argv.iter().position(is_it)?;
    let mut args: Vec<&str> = argv.get(at + 1..)?.iter().map(|arg| arg.to_str()).collect::<Option<_>>()?;
    let profile =
        take_profile(&mut args).map_or(DEFAULT_PROFILE.to_owned(), |profile| profile.to_lowercase());
    // Options, and what may be the value of one.
    let mut after_option = false;
    let mut words = args.into_iter().skip_while(|arg| {
        let is_option = arg.starts_with('-');
        let skipped = is_option || (after_option && *arg != "gateway");
        after_option = is_option;
        skipped
    });
    let runs = words.next() == Some("gateway")
        && words.next().is_none_or(|word| word == "run" || word.starts_with('-'));
    ServiceName::gateway_of(&profile).ok().filter(|_| runs)
}

/// Profile and further arguments of `[hermes] [-p X] gateway [run] …`; `None` for everything else.
fn gateway_run(cmd: &[OsString]) -> Option<(Option<String>, Vec<String>)> {
    let mut args: Vec<&str> = gateway_command(cmd).iter().map(|arg| arg.to_str()).collect::<Option<_>>()?;
    let profile = take_profile(&mut args);
    let mut args = args.into_iter();
    if args.next() != Some("gateway") {
        return None;
    }
    let extra: Vec<String> = match args.next() {
        None | Some("run") => args.map(str::to_owned).collect(),
        Some(option) if option.starts_with('-') => {
            std::iter::once(option).chain(args).map(str::to_owned).collect()
        }
        Some(_) => return None,
    };
    if extra.iter().any(|arg| arg == "-h" || arg == "--help") { None } else { Some((profile, extra)) }
}

/// Takes the first `-p X`, `--profile X`, `-p=X` or `--profile=X` out, wherever it stands: the CLI does so too.
fn take_profile(args: &mut Vec<&str>) -> Option<String> {
    let end = args.iter().position(|arg| *arg == "--").unwrap_or(args.len());
    for at in 0..end {
        let arg = *args.get(at)?;
        if matches!(arg, "-p" | "--profile") && at + 1 < end {
            let value = args.remove(at + 1).to_owned();
            args.remove(at);
            return Some(value);
        }
        if let Some(value) = arg.strip_prefix("-p=").or_else(|| arg.strip_prefix("--profile=")) {
            args.remove(at);
            return Some(value.to_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(cmd: &str, env: &[(&str, &str)]) -> String {
        let cmd: Vec<OsString> = cmd.split_whitespace().map(OsString::from).collect();
        let lookup =
            |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
        match redirect(&cmd, lookup) {
            Redirect::NotAGateway => "leave".to_owned(),
            Redirect::Foreground { hold_down } => format!("hold {hold_down}"),
            Redirect::Supervise { profile, extra_args } => {
                std::iter::once(format!("run {profile}")).chain(extra_args).collect::<Vec<_>>().join(" ")
            }
        }
    }

    #[test]
    fn what_a_wrapper_shows_is_seen() {
        let found = |cmd: &[&str], handed_over| {
            let cmd: Vec<OsString> = cmd.iter().map(OsString::from).collect();
            let found = wrapped_gateways(&cmd, handed_over, |_| None);
            found.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        for (cmd, expected) in [
            (&["sh", "-c", "hermes gateway run --no-supervise"][..], "default"),
            (
                &["sh", "-c", "cd /x && exec hermes -p coder gateway run --no-supervise --replace; exit"],
                "coder",
            ),
            (
                &[
                    "bash",
                    "-c",
                    "hermes -p a gateway run --no-supervise & hermes -p b gateway run --no-supervise& wait",
                ],
                "a b",
            ),
            (&["sh", "-c", "export HERMES_GATEWAY_NO_SUPERVISE='yes'\nhermes gateway run"], "default"),
            (&["env", "HERMES_GATEWAY_NO_SUPERVISE=1", "hermes", "gateway", "run"], "default"),
            (&["python", "-m", "hermes_cli.main", "gateway", "run", "--no-supervise"], "default"),
            (&["hermes", "-m", "some/model", "--yolo", "gateway", "run", "--no-supervise"], "default"),
            (
                &["/opt/hermes/docker/main-wrapper.sh", "sh", "-c", "hermes gateway run --no-supervise"],
                "default",
            ),
            // The CLI gives these to us.
            (&["sh", "-c", "hermes gateway run"], ""),
            (&["env", "HERMES_GATEWAY_NO_SUPERVISE=0", "hermes", "gateway", "run"], ""),
            (&["sh", "-c", "hermes gateway status --no-supervise"], ""),
            (&["sh", "-c", "echo gateway run --no-supervise"], ""),
            (&["sleep", "infinity"], ""),
        ] {
            assert_eq!(found(cmd, true), expected, "{cmd:?}");
        }
        assert_eq!(found(&["sh", "-c", "hermes gateway run"], false), "default");
    }

    /// Contract: 84, 85.
    #[test]
    fn only_a_plain_gateway_run_is_redirected() {
        for (cmd, expected) in [
            ("gateway run", "run default"),
            ("gateway", "run default"),
            ("hermes gateway run", "run default"),
            ("/opt/hermes/bin/hermes gateway run", "run default"),
            ("/opt/hermes/docker/main-wrapper.sh gateway run", "run default"),
            ("/init /opt/hermes/docker/main-wrapper.sh hermes -p coder gateway run", "run coder"),
            ("/opt/hermes/docker/entrypoint-dispatch.sh gateway", "run default"),
            ("hermes -p coder gateway run", "run coder"),
            ("-p coder gateway", "run coder"),
            ("hermes --profile coder gateway run --verbose -q", "run coder --verbose -q"),
            ("hermes -p=coder gateway run", "run coder"),
            ("hermes --profile=Coder gateway run", "run coder"),
            ("hermes gateway run -p coder --replace", "run coder --replace"),
            ("hermes gateway -v", "run default -v"),
            ("hermes -p default gateway run", "run default"),
            ("", "leave"),
            ("hermes", "leave"),
            ("hermes chat", "leave"),
            ("sleep gateway run", "leave"),
            ("hermes --tui gateway run", "leave"),
            ("hermes gateway start", "leave"),
            ("hermes gateway stop --all", "leave"),
            ("hermes gateway status", "leave"),
            ("hermes gateway --help", "leave"),
            ("hermes gateway run -h", "leave"),
            ("hermes -p ../x gateway run", "leave"),
            ("hermes -p dashboard gateway run", "run gateway-dashboard"),
            ("hermes -p", "leave"),
            ("dashboard", "leave"),
        ] {
            assert_eq!(judged(cmd, &[]), expected, "{cmd}");
        }
        let not_utf8 = std::os::unix::ffi::OsStringExt::from_vec(b"\xff".to_vec());
        let cmd = ["gateway".into(), "run".into(), not_utf8];
        assert_eq!(redirect(&cmd, |_| None), Redirect::NotAGateway);
    }

    #[test]
    fn a_gateway_is_known_by_its_command_line() {
        for (argv, expected) in [
            ("/venv/bin/python3 /venv/bin/hermes gateway run --replace", Some("default")),
            ("/bin/sh /opt/bin/hermes -p coder gateway run", Some("coder")),
            ("python -m hermes_cli.main --verbose gateway run --profile Coder", Some("coder")),
            ("hermes gateway", Some("default")),
            ("hermes gateway status", None),
            ("hermes chat", None),
            ("sleep infinity", None),
            ("", None),
        ] {
            let words: Vec<OsString> = argv.split_whitespace().map(OsString::from).collect();
            let found = gateway_process(&words);
            assert_eq!(found.as_ref().map(ServiceName::as_str), expected, "{argv}");
        }
    }

    #[test]
    fn launchers_are_peeled_off_and_arguments_are_not() {
        for (argv, expected) in [
            ("gateway run", "gateway run"),
            ("hermes gateway run", "gateway run"),
            ("/opt/hermes/bin/hermes dashboard", "dashboard"),
            ("/init /opt/hermes/docker/main-wrapper.sh gateway run", "gateway run"),
            ("/bin/sh -e /run/s6/rc.init top /opt/hermes/docker/main-wrapper.sh hermes chat", "chat"),
            ("/opt/hermes/docker/entrypoint-dispatch.sh gateway run", "gateway run"),
            ("entrypoint-dispatch.sh main-wrapper.sh hermes gateway", "gateway"),
            ("main-wrapper.sh entrypoint-dispatch.sh gateway", "gateway"),
            (
                "main-wrapper.sh gateway run --file /x/main-wrapper.sh",
                "gateway run --file /x/main-wrapper.sh",
            ),
            ("main-wrapper.sh hermes hermes", "hermes"),
            ("main-wrapper.sh", ""),
            ("sleep 1", "sleep 1"),
            ("", ""),
        ] {
            let argv: Vec<OsString> = argv.split_whitespace().map(OsString::from).collect();
            let expected: Vec<OsString> = expected.split_whitespace().map(OsString::from).collect();
            assert_eq!(gateway_command(&argv), expected, "{argv:?}");
        }
    }

    /// Contract: 51, 53.
    #[test]
    fn the_dashboard_and_the_legacy_run_are_told_by_their_first_words() {
        let none = |_: &str| None;
        let split = |cmd: &str| cmd.split_whitespace().map(OsString::from).collect::<Vec<_>>();
        for (cmd, dashboard, legacy) in [
            ("dashboard", true, false),
            ("hermes dashboard --port 1", true, false),
            ("/init /opt/hermes/docker/main-wrapper.sh dashboard", true, false),
            ("gateway run", false, true),
            ("main-wrapper.sh hermes gateway run -v", false, true),
            ("gateway", false, false),
            ("gateway run --no-supervise", false, false),
            ("-p coder gateway run", false, false),
            ("chat dashboard", false, false),
            ("", false, false),
        ] {
            assert_eq!(is_dashboard(&split(cmd)), dashboard, "{cmd}");
            assert_eq!(is_legacy_run(&split(cmd), none), legacy, "{cmd}");
        }
        for name in [NO_SUPERVISE, SUPERVISED_CHILD] {
            assert!(!is_legacy_run(&split("gateway run"), |key| (key == name).then(|| "true".into())));
        }
    }

    /// A person's `hermes profile use coder` made the container start coder at every boot, also when it was stopped.
    #[test]
    fn a_bare_run_is_the_root_profile_and_says_so_to_hermes() {
        for (cmd, expected) in [
            ("gateway run", "-p default gateway run"),
            ("hermes gateway run -v", "hermes -p default gateway run -v"),
            ("/docker/main-wrapper.sh gateway", "/docker/main-wrapper.sh -p default gateway"),
            ("main-wrapper.sh hermes gateway run", "main-wrapper.sh hermes -p default gateway run"),
            ("hermes -p coder gateway run", "hermes -p coder gateway run"),
            ("gateway run --profile=coder", "gateway run --profile=coder"),
            ("gateway status", "gateway status"),
            ("sleep infinity", "sleep infinity"),
        ] {
            let argv: Vec<OsString> = cmd.split_whitespace().map(OsString::from).collect();
            let named = name_default(argv).join(OsStr::new(" "));
            assert_eq!(named.to_str(), Some(expected), "{cmd}");
        }
    }

    /// Contract: 65, 84.
    #[test]
    fn each_gate_keeps_the_gateway_in_the_foreground() {
        assert_eq!(judged("gateway run --no-supervise", &[]), "hold default");
        for (name, value, expected) in [
            (SUPERVISED_CHILD, "1", "hold coder"),
            (SUPERVISED_CHILD, "0", "hold coder"),
            (SUPERVISED_CHILD, "", "run coder"),
            (NO_SUPERVISE, "1", "hold coder"),
            (NO_SUPERVISE, "TRUE", "hold coder"),
            (NO_SUPERVISE, "Yes", "hold coder"),
            (NO_SUPERVISE, "0", "run coder"),
            (NO_SUPERVISE, "", "run coder"),
            (NO_SUPERVISE, "ture", "run coder"),
            (NO_SUPERVISE, "on", "run coder"),
            ("OTHER", "1", "run coder"),
        ] {
            assert_eq!(judged("-p coder gateway run", &[(name, value)]), expected, "{name}={value}");
        }
        assert_eq!(judged("gateway stop", &[(NO_SUPERVISE, "1")]), "leave");
    }

    /// Contract: 85.
    #[test]
    fn the_breadcrumb_is_one_line_and_names_the_way_out() {
        let line = breadcrumb(&ServiceName::new("coder").unwrap());
        for words in ["'coder'", "supervision", "--no-supervise", "HERMES_GATEWAY_NO_SUPERVISE=1"] {
            assert!(line.contains(words), "{words}: {line}");
        }
        assert!(!line.contains('\n'));
    }
}
