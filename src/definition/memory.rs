//! The section `[memory]` of a definition: what the kernel does about the memory of a service besides bounding it.

use super::diagnose::Report;
use super::raw::{Item, Table};
use super::resolved::Memory;
use super::values::{DAY, MILLISECOND};

pub(super) fn read(mut table: Table<'_>, report: &mut Report<'_>) -> Memory {
    let ksm = table.read("ksm", report, Item::boolean).unwrap_or(false);
    let uses = [("inherit", false), ("disable", true)];
    let thp_disabled = table.read("thp", report, |item| item.choice(&uses)).unwrap_or(false);
    let reclaim_after =
        table.read("reclaim_after", report, |item| item.duration(&(MILLISECOND * 1000..=DAY)));
    table.finish(report);
    Memory { ksm, thp_disabled, reclaim_after }
}
