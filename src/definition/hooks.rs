//! `[hooks]`: programs of a service that run when something happens to it.

use super::diagnose::Report;
use super::parse::{argv, idle, settle};
use super::raw::Table;
use super::resolved::Hooks;
use super::values::{DAY, MILLISECOND};
use crate::core::policy;
use std::time::Duration;

/// How long each may take, but for `memory_high`.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The programs, when they run, and how long the one after the end may take.
pub(super) fn read(
    mut table: Table<'_>,
    has_memory_high: bool,
    report: &mut Report<'_>,
) -> (Option<Box<Hooks>>, policy::Hooks, Option<Duration>) {
    let items =
        ["pre_start", "post_start", "pre_stop", "post_stop", "memory_high"].map(|key| table.take(key));
    let timeout = table.take("timeout");
    table.finish(report);
    let [.., memory_high] = &items;
    if !has_memory_high {
        idle(memory_high.as_ref(), "without memory_high in [limits]", report);
    }
    let [pre_start, post_start, pre_stop, post_stop, memory_high] =
        items.map(|item| item.and_then(|item| settle(argv(&item), report)));
    let hooks = Hooks { pre_start, post_start, pre_stop, post_stop, memory_high };
    let timed = [&hooks.pre_start, &hooks.post_start, &hooks.pre_stop, &hooks.post_stop];
    if timed.into_iter().all(Option::is_none) {
        idle(timeout.as_ref(), "without a hook of start or stop", report);
    }
    let timeout = timeout.and_then(|item| settle(item.duration(&(MILLISECOND..=DAY)), report));
    let timeout = timeout.unwrap_or(TIMEOUT);
    let patience = |hook: &Option<Vec<String>>| hook.is_some().then_some(timeout);
    let policy = policy::Hooks {
        pre_start: patience(&hooks.pre_start),
        post_start: patience(&hooks.post_start),
        pre_stop: patience(&hooks.pre_stop),
    };
    let finish = patience(&hooks.post_stop);
    ((hooks != Hooks::default()).then(|| Box::new(hooks)), policy, finish)
}
