//! What `audit` shows: what each service may do, and what could be tighter.
//!
//! Of a running service it is what the kernel says of its main process (proc_pid_status(5)); of another what its next start
//! would be given. The advice is a pure function of that, and names only what somebody can change.

use crate::control::protocol::{Audit, Privileges};
use crate::core::fleet::ServiceId;
use crate::core::limits::Key;
use crate::daemon::Supervisor;
use crate::sys::{kernel_text, users};
use std::collections::BTreeMap;

/// What advice is made of.
#[derive(Debug, Clone, Default)]
struct Facts {
    uid: Option<u32>,
    own_uid: u32,
    /// Other services of the same user.
    beside: Vec<String>,
    privileges: Option<Privileges>,
    limits: BTreeMap<String, String>,
    weakness: Option<&'static str>,
    /// The option of the engine that would give a better rung.
    flag: Option<&'static str>,
}

impl Supervisor {
    pub(in crate::daemon) fn audit(&self, id: ServiceId) -> Option<Audit> {
        let service = self.services.get(&id)?;
        let life = self.life(id);
        let main = self.fleet.gateway(id)?.pid().and_then(Standing::of);
        let user = self.surroundings.lookup(&service.definition.user).ok();
        let (uid, gid, groups) = match (&main, user) {
            (Some(main), _) => (main.uid, main.gid, main.groups.clone()),
            (None, Some(user)) => (Some(user.uid), Some(user.gid), user.groups.to_vec()),
            (None, None) => (None, None, Vec::new()),
        };
        let privileges = main.map(|main| Privileges {
            capabilities: names(main.capabilities),
            bounding: names(main.bounding),
            no_new_privs: main.no_new_privs,
            seccomp: main.seccomp,
        });
        let others = self.services.iter().filter(|(other, _)| **other != id);
        let beside = others.filter(|(_, other)| uid.is_some() && self.runs_as(other) == uid);
        let (limits, limits_not_in_force) = self.shown_limits(id, life.is_some());
        let facts = Facts {
            uid,
            own_uid: self.surroundings.own_uid,
            beside: beside.map(|(_, other)| other.name.to_string()).collect(),
            privileges,
            limits,
            weakness: life.as_ref().and_then(|life| self.containment.weakness(life)),
            flag: self.report.raise(),
        };
        Some(Audit {
            name: service.name.to_string(),
            state: self.state(id)?,
            user: uid.and_then(|uid| Some(users::by_uid(uid).ok()??.name)),
            uid,
            gid,
            groups,
            tighter: tighter(&facts),
            privileges: facts.privileges,
            containment: life.as_ref().and_then(|life| Some(self.containment.rung(life)?.to_string())),
            containment_weakness: facts.weakness.map(ToOwned::to_owned),
            limits: facts.limits,
            limits_not_in_force,
        })
    }
}

/// What a process is and may do, of proc_pid_status(5).
#[derive(Debug, Default, PartialEq, Eq)]
struct Standing {
    /// Effective.
    uid: Option<u32>,
    gid: Option<u32>,
    groups: Vec<u32>,
    /// Held, and those that it can take into its hands.
    capabilities: u64,
    bounding: u64,
    no_new_privs: bool,
    seccomp: bool,
}

impl Standing {
    /// `None` when it is gone, or hidden from us.
    fn of(pid: i32) -> Option<Self> {
        Some(Self::parse(&kernel_text::read(&format!("/proc/{pid}/status")).ok()?))
    }

    fn parse(text: &str) -> Self {
        let words = |label: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(label)?.strip_prefix(':'));
            line.unwrap_or_default().split_ascii_whitespace()
        };
        let mask =
            |label| words(label).next().and_then(|word| u64::from_str_radix(word, 16).ok()).unwrap_or(0);
        // Real, effective, saved, file system.
        let effective = |label| words(label).nth(1)?.parse().ok();
        let is_on = |label| words(label).next().is_some_and(|word| word != "0");
        Self {
            uid: effective("Uid"),
            gid: effective("Gid"),
            groups: words("Groups").filter_map(|word| word.parse().ok()).collect(),
            capabilities: mask("CapEff") | mask("CapPrm"),
            bounding: mask("CapBnd"),
            no_new_privs: is_on("NoNewPrivs"),
            seccomp: is_on("Seccomp"),
        }
    }
}

/// The capabilities of a mask by their names; one that is too new to have a name here, by its number.
fn names(mask: u64) -> Vec<String> {
    let known = caps::all();
    let name = |bit: u8| {
        let name = known.iter().find(|capability| capability.index() == bit);
        name.map_or_else(|| format!("capability {bit}"), ToString::to_string)
    };
    (0..64).filter(|bit| mask & (1 << bit) != 0).map(name).collect()
}

/// A line for each thing that could be tighter, with what to do about it.
fn tighter(facts: &Facts) -> Vec<String> {
    let mut lines = Vec::new();
    match facts.uid {
        Some(0) => lines.push("it runs as root: let its definition name another user".to_owned()),
        Some(uid) if uid == facts.own_uid => {
            lines.push(
                "it runs as the supervisor's own user and may do to it whatever that user may: run the supervisor as root"
                    .to_owned(),
            );
        }
        _ => {}
    }
    if let ([first, rest @ ..], true) = (&facts.beside[..], facts.uid != Some(0)) {
        let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
        lines.push(format!(
            "it shares its user with '{first}'{more}: each can signal and read the others; give it a user of its own"
        ));
    }
    if let Some(privileges) = &facts.privileges {
        if facts.uid != Some(0) && !privileges.capabilities.is_empty() {
            lines.push(format!("it holds {}", privileges.capabilities.join(" ")));
        }
        if !privileges.no_new_privs && !privileges.bounding.is_empty() {
            lines.push(
                "a set-uid program gives it the rights of another user: no_new_privs is off, which a definition of its \
                 own has on"
                    .to_owned(),
            );
        }
    }
    for (key, danger) in [
        (Key::MemoryMax, "it can take all the memory there is"),
        (Key::PidsMax, "it can take every process number there is"),
    ] {
        if facts.limits.get(key.as_str()).is_none_or(|value| value == "max") {
            lines.push(format!("{key} is not in force: {danger}"));
        }
    }
    lines.extend(facts.weakness.map(ToOwned::to_owned));
    if let Some(flag) = facts.flag {
        lines.push(format!("better containment takes {flag} ('hermes-sup doctor' tells more)"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standing_of_a_process_is_read_from_its_status() {
        let text = "Name:\tUid: 7\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \nCapInh:\tff\nCapPrm:\t0000000000000003\n\
                    CapEff:\t0000000000000005\nCapBnd:\t000001ffffffffff\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t0\n";
        let expected = Standing {
            uid: Some(2),
            gid: Some(6),
            groups: vec![9, 10],
            capabilities: 7,
            bounding: 0x1ff_ffff_ffff,
            no_new_privs: true,
            seccomp: true,
        };
        assert_eq!(Standing::parse(text), expected);
        assert_eq!(Standing::parse(""), Standing::default());
        let own = Standing::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert_eq!(own.uid, Some(rustix::process::geteuid().as_raw()));
    }

    fn confined() -> Facts {
        Facts {
            uid: Some(10000),
            privileges: Some(Privileges { no_new_privs: true, seccomp: true, ..Privileges::default() }),
            limits: ["memory_max", "pids_max"].map(|key| (key.to_owned(), "1000000".to_owned())).into(),
            ..Facts::default()
        }
    }

    #[test]
    fn where_nothing_could_be_tighter_nothing_is_said() {
        assert_eq!(tighter(&confined()), Vec::<String>::new());
    }

    #[test]
    fn each_thing_that_could_be_tighter_is_a_line() {
        let gains = Privileges { bounding: names(3), ..Privileges::default() };
        let holds = Privileges { capabilities: names(1), no_new_privs: true, ..Privileges::default() };
        let no_memory_max = [("pids_max".to_owned(), "5".to_owned())].into();
        let no_pids_max =
            [("memory_max", "1G"), ("pids_max", "max")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        for (facts, expected) in [
            (Facts { uid: Some(0), own_uid: 7, ..confined() }, "it runs as root"),
            (Facts { own_uid: 10000, ..confined() }, "the supervisor's own user"),
            (Facts { beside: vec!["a".into(), "b".into()], ..confined() }, "with 'a' and 1 more"),
            (Facts { privileges: Some(holds), ..confined() }, "it holds CAP_CHOWN"),
            (Facts { privileges: Some(gains), ..confined() }, "no_new_privs is off"),
            (Facts { limits: no_memory_max, ..confined() }, "memory_max is not in force"),
            (Facts { limits: no_pids_max, ..confined() }, "pids_max is not in force"),
            (Facts { weakness: Some("weak"), ..confined() }, "weak"),
            (Facts { flag: Some("--flag"), ..confined() }, "takes --flag"),
        ] {
            let lines = tighter(&facts);
            assert!(lines.len() == 1 && lines[0].contains(expected), "{expected}: {lines:?}");
        }
    }

    #[test]
    fn capabilities_are_named() {
        assert_eq!(names(0), Vec::<String>::new());
        assert_eq!(names(0b10_0001), ["CAP_CHOWN", "CAP_KILL"]);
        assert_eq!(names(1 << 60), ["capability 60"]);
    }
}
