//! The section `[limits]` of a definition, and what a definition that is not trusted may not have in it: more than its
//! service would have without it.

use super::diagnose::{About, Report};
use super::raw::Table;
use super::trust::Trust;
use crate::core::limits::{Inherited, Key, Limits};
use rustix::process::{Resource, getrlimit};

/// What this process, and so a service of it, has without any limit. A service's soft limits may be lower; it can raise
/// those itself.
pub fn inherited() -> Inherited {
    let hard = |resource| getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let adjustment = std::fs::read_to_string("/proc/self/oom_score_adj");
    Inherited {
        nofile: hard(Resource::Nofile),
        nproc: hard(Resource::Nproc),
        core: hard(Resource::Core),
        oom_score_adj: adjustment.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0),
    }
}

pub(super) fn read(mut table: Table<'_>, trust: &Trust, report: &mut Report<'_>) -> Limits {
    let mut limits = Limits::default();
    for key in Key::ALL {
        let Some(item) = table.take(key.as_str()) else { continue };
        let value = match item.word(|text| key.parse(text)) {
            Ok(value) => value,
            Err(fault) => {
                report.wrong(&fault.span, About::Text, fault.message);
                continue;
            }
        };
        let alone = [(key, value)].into_iter().collect();
        if let Some(reason) = trust.reason()
            && !Limits::default().raised_by(&alone, &inherited()).is_empty()
        {
            let message = format!(
                "only a root-owned definition outside --home may give more than a service has without '{key}'; {reason}"
            );
            report.wrong(&item.span(), About::Place, message);
            continue;
        }
        limits.set(key, value);
    }
    table.finish(report);
    limits
}
