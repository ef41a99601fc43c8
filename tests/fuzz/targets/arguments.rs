//! The command line, an argument a line; lines `NAME=VALUE` before the line `--` are the environment. And the CMD of a container.

use super::one_line;
use hermes_sup::cli::args::{self, Command};
use hermes_sup::cli::logs::When;
use hermes_sup::cli::render::Console;
use hermes_sup::control::codec::{decode_request, encode_request};
use hermes_sup::control::protocol::Code;
use hermes_sup::hermes::{redirect, routing};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::time::{Duration, UNIX_EPOCH};

/// Arguments of one command line.
const MOST: usize = 64;

pub fn run(document: &[u8]) {
    let lines: Vec<&[u8]> = document.split(|byte| *byte == b'\n').take(MOST).collect();
    let end = lines.iter().position(|line| *line == b"--").unwrap_or(0);
    let variable = |line: &&[u8]| {
        let at = line.iter().position(|byte| *byte == b'=')?;
        Some((text(&line[..at]), text(&line[at + 1..])))
    };
    let environment: BTreeMap<OsString, OsString> = lines[..end].iter().filter_map(variable).collect();
    let env = |name: &str| environment.get(OsStr::new(name)).cloned();
    let words = lines.get(end + usize::from(end > 0)..).unwrap_or_default();
    let argv: Vec<OsString> = words.iter().map(|word| text(word)).collect();
    read(&argv, &env);
    let _ = routing::route(&argv, |name| name == "hermes");
    let _ = redirect::redirect(&argv, env);
    let _ = (redirect::is_dashboard(&argv), redirect::is_legacy_run(&argv, env));
    let _ = (redirect::keeps_foreground(&argv, env), redirect::wrapped_gateways(&argv, true, env));
    let _ = (redirect::gateway_process(&argv), redirect::name_default(argv.clone()));
}

/// No argument holds a NUL.
fn text(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.iter().copied().filter(|byte| *byte != 0).collect())
}

fn read(argv: &[OsString], env: &dyn Fn(&str) -> Option<OsString>) {
    match args::parse(argv, env) {
        Ok(Command::Ctl(ctl)) => {
            let now = UNIX_EPOCH + Duration::from_secs(1_767_225_600);
            let _ = ctl.verb.log_query(now);
            let request = ctl.verb.request();
            // One that is too large is refused before it is sent.
            if let Ok(encoded) = encode_request(&request) {
                assert_eq!(
                    decode_request(&encoded[..encoded.len() - 1]),
                    Ok(request),
                    "the server reads what was meant"
                );
            }
        }
        Ok(_) => {}
        Err(early) => {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let code = early.show(&mut Console::new(&mut out, &mut err));
            let (out, err) = (String::from_utf8_lossy(&out), String::from_utf8_lossy(&err));
            assert!(!out.chars().any(|c| c.is_control() && c != '\n'), "{out:?}");
            match code {
                Code::Done => assert_eq!(err, ""),
                code => {
                    assert_eq!((code, out.as_ref()), (Code::Usage, ""));
                    one_line(err.strip_suffix('\n').expect("a line"));
                }
            }
        }
    }
    for word in argv.iter().filter_map(|word| word.to_str()) {
        if let Err(error) = When::parse(word) {
            one_line(&error.to_string());
        }
    }
}
