//! What is on record of services that are none.
//!
//! The rows of a service last as long as it is meant to be there. A definition that is missing may only be away: a volume that is
//! not mounted, a file that is being mended. So a start keeps what is on record of it, and when the definition comes, with a later
//! start or with a reload, the service is wanted as it was and has the past that it had.
//!
//! Rows are erased when it is known that the service is not meant to be: a reload has found no definition and the service has
//! stopped, its profile or slot was removed, it was unregistered, or its file makes fewer instances now, which a start sees as
//! well. As long as they are not erased, the service is shown.
//!
//! A gateway of a profile is not meant here: the profile brings the want along in its own state file, and one without such a file is
//! a new one.

use crate::core::name::ServiceName;
use crate::core::words::Want;
use crate::daemon::topics::definitions::found::{Found, Plan};
use crate::store::{Opened, RunRow};
use std::collections::{BTreeMap, BTreeSet};

/// What is on record of a service that is none now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asleep {
    pub want: Want,
    pub run: Option<RunRow>,
}

/// Those that the plan does without, by name.
pub fn asleep(rows: &Opened, plan: &Plan) -> BTreeMap<ServiceName, Asleep> {
    let without = rows.wants.iter().filter(|(name, _)| !plan.services.contains_key(*name));
    let row = |name: &ServiceName| rows.runs.get(name).cloned();
    without.map(|(name, want)| (name.clone(), Asleep { want: want.want, run: row(name) })).collect()
}

/// Instances that are on record and that their file, which was read, does not make any more.
pub fn surplus(rows: &Opened, found: &Found, plan: &Plan) -> BTreeSet<ServiceName> {
    let is_beyond = |name: &&ServiceName| {
        let Some((base, number)) = name.as_instance() else { return false };
        let count = ServiceName::new(base).ok().and_then(|base| found.loaded.counts.get(&base));
        // Another word behind the `@`, or the same number written otherwise, has a file of its own.
        let nth = number.parse::<u64>().ok().filter(|nth| nth.to_string() == number);
        let defined = plan.services.contains_key(*name) || rows.records.contains_key(*name);
        let broken = found.loaded.broken.contains(*name);
        !defined && !broken && count.zip(nth).is_some_and(|(count, nth)| nth > *count)
    };
    let of = rows.wants.keys().chain(rows.runs.keys()).chain(rows.limits.keys());
    of.filter(is_beyond).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::words::Cause;
    use crate::daemon::topics::testing::World;
    use crate::store::{Program, RecordRow, WantRow};

    fn name(text: &str) -> ServiceName {
        ServiceName::new(text).unwrap()
    }

    /// Only what a file that was read does not make any more is known not to be meant.
    #[test]
    fn instances_that_their_file_does_not_make_any_more_are_known_at_a_start() {
        let up = WantRow {
            want: Want::Up,
            asked_by_uid: None,
            asked_at_ms: 0,
            cause: Cause::Operator,
            definition_hash: None,
        };
        let registered = RecordRow {
            registrant_uid: 0,
            user: "root".to_owned(),
            program: Program::Argv(vec!["/bin/r".to_owned()]),
            env: BTreeMap::new(),
            registered_at_ms: 0,
        };
        let names = ["w@1", "w@3", "w@03", "w@x", "v@3", "w", "u@9", "r@9"];
        let rows = Opened {
            wants: names.map(|text| (name(text), up.clone())).into(),
            records: [(name("r@9"), registered)].into(),
            ..Opened::default()
        };
        let mut found = Found::without_home(&[], &World::default().around);
        found.loaded.counts = [(name("w"), 2), (name("u"), 0), (name("r"), 2)].into();
        let surplus = surplus(&rows, &found, &Plan::default());
        assert_eq!(surplus.iter().map(ServiceName::as_str).collect::<Vec<_>>(), ["u@9", "w@3"]);
    }
}
