//! The section `[security]` of a definition: what the main process may do beyond what its user may.
//!
//! Only a trusted definition may ask for anything. To have less than the default is open to every one.

use super::diagnose::{About, Report, quoted};
use super::raw::{Item, Read, Table};
use super::resolved::{Capabilities, RunAs, Security};
use super::trust::Trust;
use caps::Capability;
use std::str::FromStr;

/// Every capability that the supervisor itself has, in Docker's word for it.
const ALL: &str = "ALL";

/// Reads the section. `default`: what holds without it.
pub(super) fn read(
    mut table: Table<'_>,
    default: Security,
    trust: &Trust,
    report: &mut Report<'_>,
) -> Security {
    let mut security = default;
    let refuse = |item: &Item<'_>, what: &str, report: &mut Report<'_>| {
        let reason = trust.reason().unwrap_or_default();
        let message = format!("only a root-owned definition outside --home may {what}; {reason}");
        report.wrong(&item.span(), About::Place, message);
    };
    if let Some(item) = table.take("no_new_privs")
        && let Some(asked) = settled(item.boolean(), report)
    {
        if !asked && default.no_new_privs == Some(true) && trust.reason().is_some() {
            refuse(&item, "turn off no_new_privs", report);
        }
        // Where it is off anyway, an untrusted definition has said nothing.
        if asked || trust.reason().is_none() {
            security.no_new_privs = Some(asked);
        }
    }
    let mut masks = [None, None];
    for (key, mask) in ["capabilities", "ambient"].into_iter().zip(&mut masks) {
        let Some(item) = table.take(key) else { continue };
        let Some(asked) = settled(named(&item), report) else { continue };
        if asked != 0 && trust.reason().is_some() {
            refuse(&item, "name capabilities", report);
        }
        *mask = Some(asked);
    }
    if let [bounding, ambient] = masks
        && (bounding.is_some() || ambient.is_some())
    {
        let ambient = ambient.unwrap_or(0);
        security.capabilities = Capabilities::Named { bounding: bounding.unwrap_or(0) | ambient, ambient };
    }
    table.finish(report);
    security
}

/// Root's name without root's capabilities, which its author may not have meant. `None`: it is not so.
pub(super) fn powerless_root(user: &RunAs, security: Security, is_written: bool) -> Option<&'static str> {
    let RunAs::Named(name) = user else { return None };
    let is_root = crate::sys::users::resolve(name).is_ok_and(|user| user.is_some_and(|user| user.uid == 0));
    let has_none = security.capabilities == Capabilities::Named { bounding: 0, ambient: 0 };
    (is_root && has_none && !is_written).then_some(
        "root has no capabilities here: it cannot become another user, nor touch what is not its own; name those that it \
         needs in [security], as in capabilities = [\"SETUID\", \"SETGID\"], or [] if it needs none",
    )
}

fn settled<T>(read: Read<T>, report: &mut Report<'_>) -> Option<T> {
    read.map_err(|fault| report.wrong(&fault.span, About::Text, fault.message)).ok()
}

/// The mask of a list of names, with or without `CAP_`, in any case.
fn named(item: &Item<'_>) -> Read<u64> {
    let mut mask = 0;
    for item in item.elements()? {
        let text = item.text()?;
        mask |= mask_of(&text).ok_or_else(|| {
            let shown = quoted(&text);
            item.fault(format!(
                "{shown} is no capability; allowed: names of capabilities(7) such as CAP_NET_BIND_SERVICE, with or without \
                 CAP_, and {ALL}"
            ))
        })?;
    }
    Ok(mask)
}

/// As a list of capabilities may name it.
pub fn is_capability(text: &str) -> bool {
    mask_of(text).is_some()
}

fn mask_of(text: &str) -> Option<u64> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if name == ALL {
        return Some(u64::MAX);
    }
    Capability::from_str(&format!("CAP_{name}")).ok().map(|capability| capability.bitmask())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_has_its_name_with_or_without_the_prefix() {
        for text in ["CAP_KILL", "KILL", "kill", "cap_Kill"] {
            assert_eq!(mask_of(text), Some(1 << 5), "{text}");
        }
        assert_eq!(mask_of("all"), Some(u64::MAX));
        for text in ["", "CAP_", "CAP_CAP_KILL", "KILLED", "5"] {
            assert_eq!(mask_of(text), None, "{text}");
        }
    }
}
