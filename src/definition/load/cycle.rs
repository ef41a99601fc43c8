//! Circles of services that wait for each other.

use super::Loaded;
use crate::core::name::{GATEWAY_PREFIX, ServiceName};
use crate::definition::diagnose::{About, Diagnostic, Source};
use crate::definition::parse::{Mention, Parsed};
use std::collections::{BTreeMap, VecDeque};

impl Loaded {
    /// Refuses a definition that would make services wait for each other in a circle.
    pub(super) fn without_cycle(&self, parsed: Parsed, source: &Source) -> Result<Parsed, Vec<Diagnostic>> {
        let new = &parsed.definition;
        // In a circle something names the new service. Where nothing does, a walk along the whole chain is spared.
        let named =
            |name: &ServiceName| *name == new.name || aliased(name).is_some_and(|name| name == new.name);
        let alias = ServiceName::new(&format!("{GATEWAY_PREFIX}{}", new.name)).ok();
        let base = new.name.as_instance().map(|(base, _)| base);
        let known = self.mentioned.contains(&new.name)
            || base.is_some_and(|base| self.mentioned.contains(base))
            || alias.is_some_and(|alias| self.mentioned.contains(&alias))
            || new.after.iter().any(|name| named(name) || base.is_some_and(|base| base == name.as_str()));
        if !known {
            return Ok(parsed);
        }
        let here = |name: &ServiceName| *name == new.name || self.services.contains_key(name);
        let meant = |name: &ServiceName| -> Vec<ServiceName> {
            if here(name) {
                return vec![name.clone()];
            }
            let mut several = self.groups.get(name).cloned().unwrap_or_default();
            several.extend(base.is_some_and(|base| base == name.as_str()).then(|| new.name.clone()));
            if several.is_empty() {
                several.push(aliased(name).filter(here).unwrap_or_else(|| name.clone()));
            }
            several
        };
        let cycle = find_cycle(&new.name, |name| {
            let found = if *name == new.name { Some(new) } else { self.services.get(name) };
            found.map(|definition| definition.after.iter().flat_map(meant).collect()).unwrap_or_default()
        });
        let Some(cycle) = cycle else { return Ok(parsed) };
        let names: Vec<&str> = cycle.iter().map(ServiceName::as_str).collect();
        let message = format!(
            "these services wait for each other: {}; remove one 'after' or 'requires'",
            names.join(" -> ")
        );
        // All of `after` was mentioned, so there is a place to show.
        let closes = |mention: &&Mention| {
            mention.service().is_some_and(|name| cycle.get(1).is_some_and(|next| meant(name).contains(next)))
        };
        let span = parsed.mentions.iter().find(closes).map_or(0..0, |mention| mention.span.clone());
        Err(vec![Diagnostic::at(source, &span, About::Text, message)])
    }
}

/// `gateway-coder` names the service `coder` where there is none called `gateway-coder`.
pub fn aliased(name: &ServiceName) -> Option<ServiceName> {
    ServiceName::new(name.as_str().strip_prefix(GATEWAY_PREFIX)?).ok()
}

/// A shortest way from `start` back to itself along `after`, beginning and ending with `start`. For everybody who adds
/// a service to others: profiles and records can close a cycle as well as files.
pub fn find_cycle(
    start: &ServiceName,
    after: impl Fn(&ServiceName) -> Vec<ServiceName>,
) -> Option<Vec<ServiceName>> {
    let mut came_from: BTreeMap<ServiceName, ServiceName> = BTreeMap::new();
    let mut next = VecDeque::from([start.clone()]);
    while let Some(name) = next.pop_front() {
        for target in after(&name) {
            if target == *start {
                let mut cycle = vec![start.clone()];
                let mut at = name;
                while at != *start {
                    cycle.push(at.clone());
                    at = came_from.remove(&at)?;
                }
                cycle.push(start.clone());
                cycle.reverse();
                return Some(cycle);
            }
            if !came_from.contains_key(&target) {
                came_from.insert(target.clone(), name.clone());
                next.push_back(target);
            }
        }
    }
    None
}
