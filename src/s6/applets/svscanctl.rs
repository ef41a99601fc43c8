//! `s6-svscanctl`: has the scan directory looked at again, or everything stopped.

use super::applet::{Call, SYSTEM, USAGE as WRONG};
use super::ask::{self, Problem};
use super::options::{Options, UsageError};
use super::target::{is_scan_dir, scan_dir};
use crate::control::protocol::Request;
use std::path::Path;

const USAGE: &str = "s6-svscanctl [-zabhitqnN] SCANDIR";

pub fn main(call: &mut Call<'_>) -> u8 {
    let words = call.words;
    let mut options = Options::new("zabhitqnN", words);
    let orders = match orders(&mut options) {
        Ok(orders) => orders,
        Err(error) => return call.usage(error, USAGE),
    };
    let Some(dir) = options.rest().first() else {
        return call.usage("no scan directory is named", USAGE);
    };
    let dir = Path::new(dir);
    let search = call.search();
    let done = if is_scan_dir(dir, call.env) {
        ask::anybody(&search).and_then(|()| orders.iter().try_for_each(|request| ask::ask(&search, request)))
    } else {
        Err(Problem::NoSupervisor(format!("the supervisor's is {}", scan_dir(call.env).display())))
    };
    match done {
        Ok(()) => 0,
        Err(problem) => {
            let code = match problem {
                Problem::NoSupervisor(_) | Problem::NoSlot(_) => WRONG,
                Problem::Late | Problem::Failed(_) | Problem::System(_) => SYSTEM,
            };
            call.fatal(code, &format!("unable to control {}: {}", dir.display(), problem.text()))
        }
    }
}

/// What is to be asked for: at most one scan, then at most one end.
fn orders(options: &mut Options<'_>) -> Result<Vec<Request>, UsageError> {
    let (mut scan, mut nuke, mut end) = (false, false, false);
    for option in options {
        match option?.0 {
            'a' => scan = true,
            'h' | 'n' | 'N' => (scan, nuke) = (true, true),
            'b' | 'q' | 't' => end = true,
            // Zombies are reaped anyway.
            'z' => {}
            letter => return Err(UsageError::Unsupported(letter)),
        }
    }
    let scan = scan.then_some(Request::Rescan { nuke });
    Ok(scan.into_iter().chain(end.then_some(Request::Shutdown { code: None })).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s6::applets::applet::tests::told;
    use std::ffi::OsString;

    #[test]
    fn letters_become_at_most_one_scan_and_one_end() {
        let scan = |nuke| Request::Rescan { nuke };
        let end = || Request::Shutdown { code: None };
        for (words, requests) in [
            ("", vec![]),
            ("-z", vec![]),
            ("-a", vec![scan(false)]),
            ("-an", vec![scan(true)]),
            ("-h", vec![scan(true)]),
            ("-aza -n", vec![scan(true)]),
            ("-t", vec![end()]),
            ("-bq", vec![end()]),
            ("-ta", vec![scan(false), end()]),
        ] {
            let words: Vec<OsString> = words.split_whitespace().map(OsString::from).collect();
            assert_eq!(orders(&mut Options::new("zabhitqnN", &words)), Ok(requests), "{words:?}");
        }
    }

    #[test]
    fn wrong_usage_and_nobody_there_are_100() {
        let env = |key: &str| (key == "HERMES_SUP_SOCKET").then(|| "/nonexistent/s".into());
        for (words, why) in [
            (&["-i", "/run/service"][..], "option '-i' is not supported"),
            (&["-x", "/run/service"], "unknown option '-x'"),
            (&["-a"], "no scan directory is named"),
            (&["-a", "/tmp"], "unable to control /tmp: the supervisor's is /run/service"),
            (&["-a", "/run/service"], "unable to control /run/service: no supervisor answers"),
        ] {
            let (code, out, err) = told(main, "s6-svscanctl", words, &env);
            assert_eq!((code, out.as_str()), (100, ""));
            assert!(
                err.starts_with(&format!("s6-svscanctl: fatal: {why}")) && err.lines().count() == 1,
                "{err}"
            );
        }
    }
}
