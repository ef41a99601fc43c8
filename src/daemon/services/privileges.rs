//! From the `[security]` of a definition to the masks of its child, as far as we have what it asks for.

use crate::definition::resolved::{Capabilities, Security};
use crate::sys::spawn::plan::CapabilityMasks;
use caps::{CapSet, Capability, CapsHashSet};
use std::sync::OnceLock;

/// What we have ourselves, as masks.
#[derive(Debug, Clone, Copy)]
struct Own {
    bounding: u64,
    permitted: u64,
    /// We may make the bounding set of a child smaller.
    may_drop: bool,
}

/// Why it cannot have what its definition says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrivilegeError {
    #[error(
        "[security] asks for {names}, which the supervisor does not have: start the container with {flags}, or leave it out"
    )]
    Missing { names: String, flags: String },
    #[error(
        "[security] cannot take capabilities from it where no_new_privs is off: start the container with --cap-add \
         SETPCAP, name all that it has (\"ALL\"), or leave no_new_privs on"
    )]
    NoSetpcap,
}

/// The masks for a process of the user `uid`; `None`: it inherits what we have.
///
/// # Errors
/// [`PrivilegeError`].
pub fn masks(security: Security, uid: u32) -> Result<Option<CapabilityMasks>, PrivilegeError> {
    // We never give any up.
    static OWN: OnceLock<Own> = OnceLock::new();
    let own = *OWN.get_or_init(|| {
        let read = |set| caps::read(None, set).map_or(0, |found| mask_of(&found));
        let may_drop = caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).unwrap_or(false);
        Own { bounding: read(CapSet::Bounding), permitted: read(CapSet::Permitted), may_drop }
    });
    decide(security, uid, own)
}

fn mask_of(set: &CapsHashSet) -> u64 {
    set.iter().fold(0, |mask, capability| mask | capability.bitmask())
}

fn decide(security: Security, uid: u32, own: Own) -> Result<Option<CapabilityMasks>, PrivilegeError> {
    let Capabilities::Named { bounding, ambient } = security.capabilities else { return Ok(None) };
    // All that there are stands for all that we have.
    let meant = |asked: u64, have: u64| if asked == u64::MAX { have } else { asked };
    let ambient = meant(ambient, own.permitted & own.bounding);
    let bounding = meant(bounding, own.bounding) | ambient;
    // Of the bounding set an exec may give; a process of root and an ambient set have what we hold.
    let held = if uid == 0 { bounding } else { ambient };
    let missing = (bounding & !own.bounding) | (held & !own.permitted);
    if missing != 0 {
        let listed = |prefix: &str, between: &str| {
            let named = caps::all().into_iter().filter(|capability| missing & capability.bitmask() != 0);
            let mut names: Vec<String> = named
                .map(|capability| format!("{prefix}{}", capability.to_string().trim_start_matches("CAP_")))
                .collect();
            names.sort();
            names.join(between)
        };
        return Err(PrivilegeError::Missing {
            names: listed("CAP_", ", "),
            flags: listed("--cap-add ", " "),
        });
    }
    if own.may_drop || bounding == own.bounding {
        return Ok(Some(CapabilityMasks { bounding, ambient }));
    }
    match security.no_new_privs {
        // Exec gives it nothing that it has not got already (prctl(2)).
        Some(true) if own.permitted != 0 => Ok(Some(CapabilityMasks { bounding, ambient })),
        // There is nothing to take away.
        _ if own.permitted == 0 => Ok(None),
        _ => Err(PrivilegeError::NoSetpcap),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILL: u64 = 1 << 5;
    const SETUID: u64 = 1 << 7;

    fn security(bounding: u64, ambient: u64, no_new_privs: bool) -> Security {
        Security { no_new_privs: Some(no_new_privs), capabilities: Capabilities::Named { bounding, ambient } }
    }

    fn own(mask: u64, may_drop: bool) -> Own {
        Own { bounding: mask, permitted: mask, may_drop }
    }

    #[test]
    fn what_is_asked_for_is_given_and_all_is_what_there_is() {
        let have = own(KILL | SETUID, true);
        for (asked, given) in [
            ((0, 0), (0, 0)),
            ((KILL, 0), (KILL, 0)),
            // What it is given, it can have.
            ((0, KILL), (KILL, KILL)),
            ((u64::MAX, 0), (KILL | SETUID, 0)),
            ((u64::MAX, u64::MAX), (KILL | SETUID, KILL | SETUID)),
        ] {
            let masks = decide(security(asked.0, asked.1, true), 0, have).unwrap().unwrap();
            assert_eq!((masks.bounding, masks.ambient), given, "{asked:?}");
        }
        assert_eq!(decide(Security::INHERITED, 0, have), Ok(None));
    }

    #[test]
    fn what_we_do_not_have_is_named_with_its_flag() {
        let refused = decide(security(KILL | SETUID | 1, 0, true), 0, own(KILL, true)).unwrap_err();
        let line = refused.to_string();
        assert!(line.contains("CAP_CHOWN, CAP_SETUID"), "{line}");
        assert!(line.contains("--cap-add CHOWN --cap-add SETUID"), "{line}");
    }

    #[test]
    fn without_setpcap_no_new_privs_holds_the_bounding_set_shut() {
        let have = own(KILL | SETUID, false);
        let masks = decide(security(KILL, 0, true), 0, have).unwrap();
        assert_eq!(masks, Some(CapabilityMasks { bounding: KILL, ambient: 0 }));
        assert_eq!(decide(security(KILL, 0, false), 0, have), Err(PrivilegeError::NoSetpcap));
        assert!(decide(security(u64::MAX, 0, false), 0, have).unwrap().is_some(), "nothing is taken away");
        let nothing = Own { permitted: 0, ..have };
        assert_eq!(decide(security(0, 0, true), 10000, nothing), Ok(None));
    }
}
