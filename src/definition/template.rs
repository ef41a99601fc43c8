//! Gateways: services made from Hermes profiles by one template, the built-in one or a `gateway.toml` of the operator.
//!
//! A template is a definition in which `{profile}` and `{home}` stand for the profile's name and the home directory, in
//! every text. For the root profile `default` an argument `{profile}` and the `-p` before it are left out, because
//! `hermes` without `-p` is that profile. Unlike other definitions a gateway inherits capabilities and may gain
//! privileges as the container allows: its tools call sudo and the like.

use super::diagnose::{Diagnostic, Source};
use super::parse::{Subject, parse};
use super::resolved::{Definition, Origin, Security};
use super::stamp::Stamp;
use super::trust::Trust;
use super::users::Surroundings;
use crate::core::fingerprint::fingerprint;
use crate::core::name::ServiceName;
use crate::core::policy::ExitRule;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file name in a services directory; never itself a service.
pub const FILE_NAME: &str = "gateway.toml";
/// The directory of the profile.
const PROFILE_HOME: &str = "{profile_home}";

/// The name of the root profile, whose directory is the home itself.
pub const DEFAULT_PROFILE: &str = "default";

/// HERMES_GATEWAY_MAX_STARTS=0 switches off the gateway's own wait between starts: two backoffs in a row would add up.
/// HOME and HERMES_HOME are the volume, as the image's own run scripts set them; PATH and VIRTUAL_ENV are the image's.
const BUILT_IN: &str = r#"
command = ["hermes", "-p", "{profile}", "gateway", "run", "--replace"]
autostart = false

[env]
HOME = "{home}"
HERMES_HOME = "{home}"
HERMES_S6_SUPERVISED_CHILD = "1"
HERMES_SUPERVISED_CHILD = "1"
HERMES_GATEWAY_MAX_STARTS = "0"

[stop]
timeout = "75s"

[restart]
exit_codes = { 0 = "stop", 75 = "now", 78 = "failed" }
"#;

/// Which profile a gateway serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Profile {
    /// The root profile.
    Default,
    /// `<home>/profiles/NAME`, by the name of its service.
    Named(ServiceName),
    /// A profile directory elsewhere: the root profile of a home of its own.
    Directory(String),
}

impl Profile {
    /// The profile whose gateway is the service of that name; `default` is the root profile.
    pub fn named(name: &ServiceName) -> Self {
        if name.as_str() == DEFAULT_PROFILE { Self::Default } else { Self::Named(name.clone()) }
    }

    /// The profile in that directory. `None` unless it is an absolute path of UTF-8.
    pub fn in_directory(directory: &Path, home: &Path) -> Option<Self> {
        if directory == home {
            return Some(Self::Default);
        }
        let text = directory.to_str().filter(|_| directory.is_absolute())?;
        let below = directory.strip_prefix(home.join("profiles")).ok().and_then(Path::to_str);
        match below.and_then(|name| ServiceName::gateway_of(name).ok()) {
            Some(name) => Some(Self::named(&name)),
            None => Some(Self::Directory(text.to_owned())),
        }
    }

    /// Where its gateway keeps its files.
    fn home(&self, home: &Path) -> PathBuf {
        match self {
            Self::Default => home.to_owned(),
            Self::Named(name) => home.join("profiles").join(name.as_str()),
            Self::Directory(directory) => PathBuf::from(directory),
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Default | Self::Directory(_) => DEFAULT_PROFILE,
            Self::Named(name) => name.profile(),
        }
    }
}

/// A template that has been read; whether it is right shows when it is filled in.
#[derive(Debug, Clone)]
pub struct Template {
    source: Source,
    /// `None` for the built-in one.
    file: Option<PathBuf>,
    trust: Trust,
    stamp: Option<Stamp>,
}

impl Template {
    pub fn built_in() -> Self {
        let source = Source { path: PathBuf::from("(built-in gateway template)"), text: BUILT_IN.to_owned() };
        Self { source, file: None, trust: Trust::Trusted, stamp: None }
    }

    pub(super) fn from_file(source: Source, trust: Trust, stamp: Option<Stamp>) -> Self {
        Self { file: Some(source.path.clone()), source, trust, stamp }
    }

    /// The service `name` that serves `profile`.
    ///
    /// # Errors
    /// What is wrong with the template, or what it may not say where it lies.
    pub fn gateway(
        &self,
        name: &ServiceName,
        profile: &Profile,
        surroundings: &Surroundings,
    ) -> Result<Definition, Vec<Diagnostic>> {
        let home = surroundings.home.to_string_lossy().into_owned();
        let mut placeholders = vec![("{profile}", profile.name().to_owned()), ("{home}", home)];
        // Only where it is asked for: what is filled in is part of the fingerprint.
        if self.source.text.contains(PROFILE_HOME) {
            let own = profile.home(&surroundings.home);
            placeholders.push((PROFILE_HOME, own.to_string_lossy().into_owned()));
        }
        let subject = Subject {
            name,
            origin: Origin::Profile { template: self.file.clone() },
            trust: &self.trust,
            security: Security::INHERITED,
            placeholders: &placeholders,
            remarked: false,
        };
        let mut definition = parse(&self.source, subject, surroundings)?.definition;
        definition.stamp = self.stamp;
        if profile.name() == DEFAULT_PROFILE {
            leave_out_profile(&mut definition.command);
            keep_takeover_home(&mut definition.command);
        } else {
            become_named(&mut definition);
        }
        if let Profile::Directory(directory) = profile {
            definition.set_variable("HERMES_HOME", directory);
            definition.hash = fingerprint([&definition.hash.to_string(), directory.as_str()]);
        }
        Ok(definition)
    }
}

/// The gateway of a named profile takes over from nobody: since Hermes 0.21.4 `--replace` ends the gateway that serves its
/// profile together with all others. And its 75 (EX_TEMPFAIL of sysexits(3)) may mean that another gateway serves the profile
/// just now, so it is no hurry.
fn become_named(definition: &mut Definition) {
    definition.command.retain(|word| word != "--replace");
    let policy = Arc::make_mut(&mut definition.policy);
    if let Some(rule) = policy.restart.exit_codes.get_mut(&75).filter(|rule| **rule == ExitRule::Now) {
        *rule = ExitRule::Later;
    }
}

/// `--replace` alone means, since Hermes 0.21.4, the gateway of the whole machine. Where that is another profile's own it is
/// refused (exit code 1) for ever; with `--force` it is one of the same home. Hermes 0.19 and later know both.
fn keep_takeover_home(command: &mut Vec<String>) {
    if let Some(place) = command.iter().position(|word| word == "--replace")
        && !command.iter().any(|word| word == "--force")
    {
        command.insert(place + 1, "--force".to_owned());
    }
}

/// `hermes -p default` → `hermes`.
fn leave_out_profile(command: &mut Vec<String>) {
    let place = command.windows(2).position(|pair| pair[0] == "-p" && pair[1] == DEFAULT_PROFILE);
    if let Some(place) = place {
        command.drain(place..place + 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::policy::ExitRule;
    use crate::definition::resolved::RunAs;
    use crate::sys::users::nameless;
    use std::collections::BTreeMap;
    use std::time::Duration;

    fn surroundings() -> Surroundings {
        Surroundings { home: PathBuf::from("/opt/data"), gateway: nameless(10000, 10000), own_uid: 0 }
    }

    fn gateway(name: &str, profile: &Profile) -> Definition {
        Template::built_in().gateway(&ServiceName::new(name).unwrap(), profile, &surroundings()).unwrap()
    }

    /// The gateway's own wait between starts is switched off, for the supervisor waits already.
    /// Contract: 62, 63, 65, 103, 107, 110.
    #[test]
    fn the_built_in_template_is_the_documented_gateway() {
        let coder = ServiceName::new("coder").unwrap();
        let made = gateway("coder", &Profile::named(&coder));
        assert_eq!(made.command, ["hermes", "-p", "coder", "gateway", "run"], "it takes over from nobody");
        assert_eq!(made.user, RunAs::Gateway);
        assert_eq!(made.working_dir, Path::new("/opt/data"));
        assert_eq!(made.env["HOME"], "/opt/data");
        assert_eq!(made.env["HERMES_S6_SUPERVISED_CHILD"], "1");
        assert_eq!(made.env["HERMES_SUPERVISED_CHILD"], "1");
        assert_eq!(made.env["HERMES_GATEWAY_MAX_STARTS"], "0");
        assert!(!made.autostart);
        assert_eq!(made.security, Security::INHERITED);
        assert_eq!(made.policy.stop.timeout, Duration::from_secs(75));
        let rules = |busy| BTreeMap::from([(0, ExitRule::Stop), (75, busy), (78, ExitRule::Failed)]);
        assert_eq!(made.policy.restart.exit_codes, rules(ExitRule::Later));
        let root = gateway("default", &Profile::Default);
        assert_eq!(root.policy.restart.exit_codes, rules(ExitRule::Now));
    }

    /// Contract: 62.
    #[test]
    fn the_root_profile_has_no_p_and_another_directory_is_a_home_of_its_own() {
        let root = gateway("default", &Profile::Default);
        assert_eq!(root.command, ["hermes", "gateway", "run", "--replace", "--force"]);
        let elsewhere = gateway("guest", &Profile::Directory("/srv/guest".to_owned()));
        assert_eq!(elsewhere.command, root.command);
        assert_eq!(elsewhere.env["HERMES_HOME"], "/srv/guest");
        assert_ne!(elsewhere.hash, root.hash);
    }

    #[test]
    fn a_directory_is_recognised_as_the_profile_it_holds() {
        let home = Path::new("/opt/data");
        let coder = ServiceName::new("coder").unwrap();
        for (directory, profile) in [
            ("/opt/data", Some(Profile::Default)),
            ("/opt/data/profiles/coder", Some(Profile::Named(coder))),
            ("/opt/data/profiles/default", Some(Profile::Default)),
            ("/opt/data/profiles/Coder", Some(Profile::Directory("/opt/data/profiles/Coder".to_owned()))),
            ("/srv/guest", Some(Profile::Directory("/srv/guest".to_owned()))),
            ("guest", None),
        ] {
            assert_eq!(Profile::in_directory(Path::new(directory), home), profile, "{directory}");
        }
    }
}
