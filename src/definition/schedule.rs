//! `schedule` and `every` of a definition: when a oneshot runs again and again.

use super::diagnose::{About, Report};
use super::parse::{ONESHOT, settle};
use super::raw::Table;
use crate::core::policy::Kind;
use crate::core::schedule::{Cron, LEAST_EVERY, MOST_EVERY, Schedule};
use std::sync::Arc;

/// When a oneshot runs; `None`: when it is wanted.
pub(super) fn read(top: &mut Table<'_>, kind: Kind, report: &mut Report<'_>) -> Option<Arc<Schedule>> {
    let (line, interval) = (top.take("schedule"), top.take("every"));
    for item in [&line, &interval].into_iter().flatten().filter(|_| kind == Kind::Daemon) {
        let message = format!("'{}' is for what ends; write type = \"{ONESHOT}\" too", item.key());
        report.wrong(&item.key_span(), About::Text, message);
    }
    if let (Some(_), Some(item)) = (&line, &interval) {
        report.wrong(&item.key_span(), About::Text, "there is a 'schedule' already; keep one of the two");
    }
    let line = line.and_then(|item| settle(item.parsed(str::parse::<Cron>), report)).map(Schedule::Cron);
    let allowed = LEAST_EVERY..=MOST_EVERY;
    let interval = interval.and_then(|item| settle(item.duration(&allowed), report)).map(Schedule::Every);
    line.or(interval).map(Arc::new)
}
