//! The name of a service: the one identifier that people, files, cgroup directories and the database share.
//!
//! A `ServiceName` that exists is valid, so it can be put into a path or a message without another check.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// Names that mean something else to the supervisor or to the Hermes image.
pub const RESERVED: [&str; 4] = ["supervisor", "gateway", MAIN_HERMES, DASHBOARD];

/// A slot of the Hermes image that has no process: it is there because an s6 bundle must not be empty.
pub const MAIN_HERMES: &str = "main-hermes";

/// What may stand before the name of a gateway, and does before that of its slot.
pub const GATEWAY_PREFIX: &str = "gateway-";

/// The one reserved name that is a service: the Hermes dashboard.
pub const DASHBOARD: &str = "dashboard";

/// Longest name, in bytes: leaves room for `.<incarnation>` in a file name of 255.
pub const MAX_LEN: usize = 64;

/// Longest name of a service that is an s6 service directory, in bytes: s6-svscan takes no longer one.
pub const MAX_SLOT_LEN: usize = 251;

/// Between the name of a service of which there are several, and what makes one of them: `worker@3`.
pub const INSTANCE: char = '@';

/// A checked service name: `[a-z0-9][a-z0-9_-]{0,63}`, not reserved; an instance: two of those and an `@` between them, together no
/// longer than one; or, for s6 service directories, what [`ServiceName::of_slot`] allows. Never with a slash, white space or control characters, never beginning with a dot.
///
/// Cheap to clone: every event and every reply carries one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceName(Arc<str>);

/// Why a text is not a service name. The message states the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error(
        "'{0}' is not a service name: use 1 to 64 of a-z, 0-9, '-' and '_', beginning with a letter or digit; \
         an instance of NAME is NAME@ARGUMENT"
    )]
    Malformed(String),
    #[error(
        "'{0}' is not the name of a service directory: it must not begin with a dot, contain a slash or white space, \
         nor be longer than {MAX_SLOT_LEN} bytes"
    )]
    Slot(String),
    #[error("'{0}' is reserved: choose another name ({list} are taken by the supervisor)", list = RESERVED.join(", "))]
    Reserved(String),
    #[error("'{0}' is reserved: choose another name")]
    Taken(String),
}

impl ServiceName {
    /// Checks `text` against the naming rule.
    ///
    /// # Errors
    /// [`NameError`] when the rule is broken or the name is reserved.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let (base, argument) = match text.split_once(INSTANCE) {
            Some((base, argument)) => (base, Some(argument)),
            None => (text, None),
        };
        if !is_word(base) || argument.is_some_and(|argument| !is_word(argument)) || text.len() > MAX_LEN {
            return Err(NameError::Malformed(shown(text)));
        }
        // Their instances are as reserved as they are.
        if RESERVED.contains(&base) {
            return Err(NameError::Reserved(text.to_owned()));
        }
        Ok(Self(text.into()))
    }

    /// The instance `argument` of this service.
    ///
    /// # Errors
    /// [`NameError`] as in [`ServiceName::new`]; of what is an instance there are none.
    pub fn instance(&self, argument: &str) -> Result<Self, NameError> {
        Self::new(&format!("{self}{INSTANCE}{argument}"))
    }

    /// The service that this is an instance of, and which one. Of a slot only what is a name in either rule.
    pub fn as_instance(&self) -> Option<(&str, &str)> {
        self.0.split_once(INSTANCE).filter(|(base, argument)| is_word(base) && is_word(argument))
    }

    /// The Hermes dashboard, which nobody else can define or register under that name.
    pub fn dashboard() -> Self {
        Self(DASHBOARD.into())
    }

    /// The service that is the gateway of a Hermes profile. It has the profile's name, but for a profile that is called as
    /// one of [`RESERVED`]: those words are taken among services only, so that profile is the service `gateway-<word>`.
    ///
    /// # Errors
    /// [`NameError`] for what is no profile's name, and for a profile that is itself called `gateway-<word>`.
    pub fn gateway_of(profile: &str) -> Result<Self, NameError> {
        if RESERVED.contains(&profile) {
            return Ok(Self(format!("{GATEWAY_PREFIX}{profile}").into()));
        }
        match Self::new(profile) {
            // A profile is a directory of Hermes, of which there is one.
            Ok(name) if name.as_instance().is_some() => Err(NameError::Malformed(shown(profile))),
            Ok(name) if name.profile() != profile => Err(NameError::Taken(profile.to_owned())),
            named => named,
        }
    }

    /// The profile of which the service of this name is the gateway.
    pub fn profile(&self) -> &str {
        let word = self.0.strip_prefix(GATEWAY_PREFIX).filter(|word| RESERVED.contains(word));
        word.unwrap_or(&self.0)
    }

    /// Checks `text` as the name of a service that is an s6 service directory, or of a service that once was accepted.
    ///
    /// # Errors
    /// [`NameError`] for a name that cannot be a file's or be shown, and for what the supervisor itself is called.
    pub fn of_slot(text: &str) -> Result<Self, NameError> {
        let bad = |c: char| c == '/' || c.is_control() || c.is_whitespace();
        if text.is_empty() || text.starts_with('.') || text.len() > MAX_SLOT_LEN || text.contains(bad) {
            return Err(NameError::Slot(shown(text)));
        }
        // The dashboard is a slot; the others are no services.
        if RESERVED.contains(&text) && text != DASHBOARD {
            return Err(NameError::Reserved(text.to_owned()));
        }
        Ok(Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ServiceName {
    type Error = NameError;

    /// As [`ServiceName::of_slot`], the rule that every name keeps.
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::of_slot(&text)
    }
}

impl From<ServiceName> for String {
    fn from(name: ServiceName) -> Self {
        name.as_str().to_owned()
    }
}

fn is_word(text: &str) -> bool {
    let is_head = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.bytes().next().is_some_and(is_head)
        && text.bytes().all(|byte| is_head(byte) || byte == b'_' || byte == b'-')
}

/// Shown back to a person: a hostile or huge name must not flood the terminal.
fn shown(text: &str) -> String {
    text.chars().take(MAX_LEN + 1).map(printable).collect()
}

fn printable(c: char) -> char {
    if c.is_control() { '?' } else { c }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl AsRef<str> for ServiceName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for ServiceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Contract: 66.
    #[test]
    fn the_rule_is_the_documented_one() {
        for good in ["a", "0", "coder", "a-b_c", &"x".repeat(64)] {
            assert_eq!(ServiceName::new(good).map(|n| n.to_string()), Ok(good.to_owned()));
        }
        for bad in
            ["", "-a", "_a", "A", "a.b", "a/b", "ä", "a b", "..", "@a", "a@", "a@b@c", "a@-", &"x".repeat(65)]
        {
            assert!(matches!(ServiceName::new(bad), Err(NameError::Malformed(_))), "{bad:?}");
        }
        for taken in RESERVED {
            assert!(matches!(ServiceName::new(taken), Err(NameError::Reserved(_))), "{taken}");
        }
        assert!(matches!(ServiceName::new("gateway@1"), Err(NameError::Reserved(_))));
        // What the database keeps about it is read back under the rule for slots.
        assert_eq!(ServiceName::of_slot(DASHBOARD), Ok(ServiceName::dashboard()));
    }

    /// `hermes profile create dashboard` was refused a gateway, and what was said to `gateway-dashboard` reached the
    /// dashboard.
    #[test]
    fn reserved_words_are_reserved_among_services_and_not_among_profiles() {
        for (profile, service) in
            [("coder", "coder"), ("dashboard", "gateway-dashboard"), ("default", "default")]
        {
            let name = ServiceName::gateway_of(profile).unwrap();
            assert_eq!((name.as_str(), name.profile()), (service, profile));
        }
        for word in RESERVED {
            let name = ServiceName::gateway_of(word).unwrap();
            assert_eq!(name.profile(), word);
            assert_eq!(ServiceName::of_slot(name.as_str()), Ok(name.clone()));
            assert_eq!(ServiceName::gateway_of(name.as_str()), Err(NameError::Taken(name.to_string())));
        }
        assert_eq!(ServiceName::new("gateway-coder").unwrap().profile(), "gateway-coder");
        assert!(ServiceName::gateway_of("Big").is_err());
    }

    /// Contract: 66.
    #[test]
    fn a_service_directory_may_have_almost_any_file_name() {
        for good in ["gateway-x.tmp", "Web", "dashboard", "ä", &"x".repeat(251)] {
            assert_eq!(ServiceName::of_slot(good).map(|n| n.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", ".x", "..", "a/b", "a b", "a\n", &"x".repeat(252)] {
            assert!(matches!(ServiceName::of_slot(bad), Err(NameError::Slot(_))), "{bad:?}");
        }
        assert!(matches!(ServiceName::of_slot("main-hermes"), Err(NameError::Reserved(_))));
    }

    #[test]
    fn an_instance_is_a_service_and_no_profile() {
        let worker = ServiceName::new("worker").unwrap();
        let third = worker.instance("3").unwrap();
        assert_eq!((third.as_str(), third.as_instance()), ("worker@3", Some(("worker", "3"))));
        assert_eq!(worker.as_instance(), None);
        assert_eq!(AsRef::<str>::as_ref(&third), "worker@3");
        assert!(third.instance("4").is_err());
        assert!(ServiceName::new(&"x".repeat(60)).unwrap().instance("1000").is_err(), "it would be too long");
        assert!(ServiceName::gateway_of("coder@1").is_err());
        assert_eq!(ServiceName::of_slot("a@b@c").unwrap().as_instance(), None);
    }

    #[test]
    fn a_refused_name_is_shown_without_control_characters() {
        let text = ServiceName::new("a\x1b[2J\n").unwrap_err().to_string();
        assert!(!text.contains('\x1b') && !text.contains('\n'), "{text:?}");
        // One more than a name may have, so that the end that is left out is seen to be too much.
        assert_eq!(ServiceName::new(&"x".repeat(1000)), Err(NameError::Malformed("x".repeat(65))));
        assert_eq!(
            format!("{:?} {:>3}|", ServiceName::dashboard(), ServiceName(Arc::from("a"))),
            "\"dashboard\"   a|"
        );
    }
}
