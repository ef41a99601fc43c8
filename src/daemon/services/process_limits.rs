//! The limits that a process bears itself: given before its exec, and read of it afterwards.

use crate::core::limits::{Inherited, Key, Limits, Value};
use crate::sys::kernel_text;
use crate::sys::spawn::plan::ChildPlan;

/// What the child itself has to bear.
pub fn give(plan: &mut ChildPlan, limits: &Limits) {
    let amount = |key| match limits.get(key) {
        Some(Value::Amount(amount)) => Some((amount, amount)),
        Some(Value::Max) => Some((u64::MAX, u64::MAX)),
        _ => None,
    };
    plan.nofile = amount(Key::Nofile).or(plan.nofile);
    plan.nproc = amount(Key::Nproc);
    plan.core = amount(Key::Core);
    plan.oom_score_adj = match limits.get(Key::OomScoreAdj) {
        Some(Value::Adjustment(adjustment)) => Some(adjustment),
        _ => None,
    };
}

/// What a process really has; `None` when it is gone.
pub fn had_by(pid: i32) -> Option<Inherited> {
    let limits = kernel_text::read(&format!("/proc/{pid}/limits")).ok()?;
    let adjustment = kernel_text::read(&format!("/proc/{pid}/oom_score_adj")).ok()?;
    Some(Inherited {
        nofile: hard_limit(&limits, "Max open files")?,
        nproc: hard_limit(&limits, "Max processes")?,
        core: hard_limit(&limits, "Max core file size")?,
        oom_score_adj: adjustment.trim().parse().ok()?,
    })
}

/// Of a table as in proc_pid_limits(5); `u64::MAX`: unlimited.
fn hard_limit(table: &str, name: &str) -> Option<u64> {
    match table.lines().find_map(|line| line.strip_prefix(name))?.split_ascii_whitespace().nth(1)? {
        "unlimited" => Some(u64::MAX),
        amount => amount.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::limits::inherited;

    #[test]
    fn what_a_process_has_is_read_as_we_know_it_of_ourselves() {
        let own = had_by(std::process::id().cast_signed()).unwrap();
        assert_eq!((own.nofile, own.oom_score_adj), (inherited().nofile, inherited().oom_score_adj));
    }
}
