//! What a typed name means: the service itself, the alias `gateway-NAME`, or nothing, said helpfully. Pure.

use crate::core::name::{GATEWAY_PREFIX, NameError, RESERVED, ServiceName};
use crate::core::near::nearest;

/// Finds the service that `typed` means. An exact name beats the alias. A reserved word has none: `gateway-dashboard` is
/// the gateway of a profile `dashboard`, and never the dashboard.
pub fn resolve(typed: &str, exists: impl Fn(&str) -> bool) -> Option<&str> {
    let alias = || typed.strip_prefix(GATEWAY_PREFIX).filter(|name| !RESERVED.contains(name) && exists(name));
    if exists(typed) { Some(typed) } else { alias() }
}

/// Of `known`, the instances of the service `typed`, which is none itself.
pub fn instances<'a>(
    typed: &str,
    known: impl IntoIterator<Item = &'a ServiceName>,
) -> impl Iterator<Item = &'a ServiceName> {
    known.into_iter().filter(move |name| name.as_instance().is_some_and(|(base, _)| base == typed))
}

/// The one line for a name that is no service. `known`: the names that the caller may see. `hermes`: there is a `hermes` here, and
/// a service is most likely one of its gateways.
///
/// Costs one comparison a known name: a caller with many unknown names gets suggestions for the first few only
/// (hand in nothing for the rest).
pub fn unknown<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>, hermes: bool) -> String {
    // A text that could not be a name is not worth a guess, and must not be put into a command to copy.
    if let Err(error @ NameError::Malformed(_)) = ServiceName::new(typed) {
        return error.to_string();
    }
    let known: Vec<&str> = known.into_iter().collect();
    let of_profile =
        |name: &&str| name.strip_prefix(GATEWAY_PREFIX) == Some(typed) && RESERVED.contains(&typed);
    let near = known.iter().copied().find(of_profile).or_else(|| nearest(typed, known));
    let guess = near.map(|name| format!(" (did you mean '{name}'?)")).unwrap_or_default();
    if hermes {
        return format!(
            "no such gateway '{typed}'{guess}: register it with 'hermes profile create {typed}' \
             or 'hermes-sup ctl register {typed} -- COMMAND'"
        );
    }
    format!(
        "no such service '{typed}'{guess}: define it in {typed}.toml, then 'hermes-sup ctl reload', \
         or 'hermes-sup ctl register {typed} -- COMMAND'"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exact_name_beats_the_alias() {
        let only = |names: &'static [&'static str]| move |name: &str| names.contains(&name);
        assert_eq!(resolve("coder", only(&["coder"])), Some("coder"));
        assert_eq!(resolve("gateway-coder", only(&["coder"])), Some("coder"));
        assert_eq!(resolve("gateway-coder", only(&["coder", "gateway-coder"])), Some("gateway-coder"));
        assert_eq!(resolve("gateway-gateway-coder", only(&["coder"])), None, "one alias, not a chain");
        assert_eq!(resolve("gateway-dashboard", only(&["dashboard"])), None, "the dashboard is no profile's");
        assert_eq!(resolve("gateway-", only(&["coder"])), None);
        assert_eq!(resolve("typo", only(&["coder"])), None);
    }

    #[test]
    fn the_name_before_the_at_means_all_of_them() {
        let known = ["work@1", "worker", "worker@1", "worker@b"].map(|name| ServiceName::new(name).unwrap());
        let found: Vec<&str> = instances("worker", &known).map(ServiceName::as_str).collect();
        assert_eq!(found, ["worker@1", "worker@b"]);
        assert_eq!(instances("worker@", &known).count(), 0);
    }

    #[test]
    fn an_unknown_name_gets_the_documented_line() {
        assert_eq!(
            unknown("typo", ["coder", "tipo"], true),
            "no such gateway 'typo' (did you mean 'tipo'?): register it with 'hermes profile create typo' \
             or 'hermes-sup ctl register typo -- COMMAND'"
        );
        assert_eq!(
            unknown("typo", ["coder"], true),
            "no such gateway 'typo': register it with 'hermes profile create typo' \
             or 'hermes-sup ctl register typo -- COMMAND'"
        );
        let word = unknown("supervisor", ["coder", "gateway-supervisor"], true);
        assert!(word.contains("(did you mean 'gateway-supervisor'?)"), "{word}");
        assert_eq!(
            unknown("typo", ["tipo"], false),
            "no such service 'typo' (did you mean 'tipo'?): define it in typo.toml, then 'hermes-sup ctl reload', \
             or 'hermes-sup ctl register typo -- COMMAND'"
        );
        assert_eq!(
            unknown("Ty\x1bpo", ["typo"], true),
            "'Ty?po' is not a service name: use 1 to 64 of a-z, 0-9, '-' and '_', beginning with a letter or digit; an instance of NAME is NAME@ARGUMENT"
        );
    }
}
