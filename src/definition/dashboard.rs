//! The Hermes dashboard as a service, where the container's owner has switched it on by `HERMES_DASHBOARD` and no file of
//! the image says how it is run.

use super::diagnose::{Diagnostic, Source};
use super::parse::{Subject, parse};
use super::resolved::{Definition, Origin, Security};
use super::trust::Trust;
use super::users::Surroundings;
use crate::core::name::ServiceName;
use std::ffi::OsString;
use std::path::PathBuf;

/// The variable that switches it on, and those that say where it listens.
pub const SWITCH: &str = "HERMES_DASHBOARD";
const HOST: (&str, &str) = ("HERMES_DASHBOARD_HOST", "0.0.0.0");
const PORT: (&str, &str) = ("HERMES_DASHBOARD_PORT", "9119");

/// 78 is the dashboard's word for a configuration with which it will never start, such as an open address without login.
const BUILT_IN: &str = r#"
command = ["hermes", "dashboard", "--host", "{host}", "--port", "{port}", "--no-open"]
working_dir = "{home}"

[env]
HOME = "{home}"
HERMES_HOME = "{home}"

[restart]
exit_codes = { 78 = "failed" }
"#;

/// The service. `env` looks a variable of the container up; whether it is switched on is the caller's question.
///
/// # Errors
/// What is wrong with it once the owner's host and port are filled in.
pub fn dashboard(
    env: impl Fn(&str) -> Option<OsString>,
    surroundings: &Surroundings,
) -> Result<Definition, Vec<Diagnostic>> {
    let value = |(name, usual): (&str, &str)| {
        let given = env(name).and_then(|value| value.into_string().ok()).filter(|value| !value.is_empty());
        given.unwrap_or_else(|| usual.to_owned())
    };
    let home = surroundings.home.to_string_lossy().into_owned();
    let placeholders = [("{home}", home), ("{host}", value(HOST)), ("{port}", value(PORT))];
    let source = Source { path: PathBuf::from("(built-in dashboard)"), text: BUILT_IN.to_owned() };
    let name = ServiceName::dashboard();
    let subject = Subject {
        name: &name,
        origin: Origin::BuiltIn,
        trust: &Trust::Trusted,
        security: Security::INHERITED,
        placeholders: &placeholders,
        remarked: false,
    };
    Ok(parse(&source, subject, surroundings)?.definition)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::policy::ExitRule;
    use crate::definition::resolved::RunAs;
    use crate::sys::users::nameless;
    use std::path::Path;

    fn made(env: &[(&str, &str)]) -> Definition {
        let surroundings =
            Surroundings { home: PathBuf::from("/opt/data"), gateway: nameless(10000, 10000), own_uid: 0 };
        let lookup = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        dashboard(lookup, &surroundings).unwrap()
    }

    /// Contract: 59, 60.
    #[test]
    fn it_listens_where_the_owner_says_and_runs_as_the_gateway_user() {
        let usual = made(&[]);
        assert_eq!(
            usual.command,
            ["hermes", "dashboard", "--host", "0.0.0.0", "--port", "9119", "--no-open"]
        );
        assert_eq!((usual.name.as_str(), &usual.user), ("dashboard", &RunAs::Gateway));
        assert_eq!(
            (usual.working_dir.as_path(), usual.env["HOME"].as_str()),
            (Path::new("/opt/data"), "/opt/data")
        );
        assert!(usual.autostart);
        assert_eq!(usual.policy.restart.exit_codes[&78], ExitRule::Failed);
        let own = made(&[("HERMES_DASHBOARD_HOST", "127.0.0.1"), ("HERMES_DASHBOARD_PORT", "8080")]);
        assert_eq!(own.command[3..6], ["127.0.0.1", "--port", "8080"]);
        assert_ne!(own.hash, usual.hash);
        assert_eq!(made(&[("HERMES_DASHBOARD_HOST", "")]).command, usual.command);
        assert_eq!(made(&[("HERMES_DASHBOARD_HOST", "\"; rm {home}")]).command[3], "\"; rm {home}");
    }
}
