//! Third step: how trees are held here, and what an earlier supervisor left is ours or has ended.

use crate::containment::{self, AdoptionRecord, Containment, Home, Rung, Wish};
use crate::core::name::ServiceName;
use crate::daemon::boot::ownership::adoption::Heritage;
use crate::daemon::boot::ownership::finished::Finished;
use crate::daemon::boot::ownership::runtime_dir;
use crate::daemon::boot::reading::unread::Unread;
use crate::daemon::boot::steps::opened::Opened;
use crate::daemon::boot::steps::prepared::Prepared;
use crate::daemon::boot::steps::start_error::StartError;
use crate::daemon::main_program::MainProgram;
use crate::daemon::sources::containment_token;
use crate::daemon::topics::definitions::found::{Found, Plan};
use crate::daemon::upgrade::handover::Handover;
use crate::log::Logs;
use std::collections::BTreeMap;

pub(in crate::daemon::boot) struct Contained {
    pub containment: Containment,
    pub report: containment::Report,
    pub found: Found,
    pub plan: Plan,
    /// The lives that go on.
    pub adopted: BTreeMap<ServiceName, AdoptionRecord>,
    /// What an earlier supervisor has done goes on here.
    pub goes_on: bool,
    /// Of that, what is over.
    pub finished: Finished,
    /// Of our former self.
    pub main: Option<MainProgram>,
}

impl Contained {
    pub fn contain(prepared: &Prepared, opened: &mut Opened, mut found: Found) -> Result<Self, StartError> {
        let (options, log) = (&prepared.given.options, &prepared.given.log);
        let (instance, runtime_dir) = (&opened.identity.instance, &opened.identity.runtime_dir);
        let also: Vec<Rung> = found.loaded.services.values().filter_map(|d| d.containment).collect();
        let wish = Wish {
            wanted: options.rung,
            also: &also,
            instance,
            runtime_dir,
            service_uid: prepared.around.gateway.uid,
        };
        let report = containment::probe(&wish, std::mem::take(&mut opened.probing))?;
        let heritage = Heritage::of(opened.note.take(), opened.identity.kinship, runtime_dir);
        let home = Home { instance, runtime_dir, controllers: options.controllers };
        let tokens = prepared.wakeups.registry.try_clone().map_err(StartError::kernel("share its loop"))?;
        let mut containment =
            Containment::open(report.clone(), home, heritage.place(), tokens, containment_token)
                .map_err(|error| StartError::Possession { rung: report.rung, error })?;
        let former = prepared.given.former.as_ref();
        let gives_up = former.is_some_and(Handover::gives_up);
        let mut plan = found.plan(&opened.rows.records, &prepared.around);
        let unread = Unread::of(&heritage, &found, &plan, &opened.rows, &prepared.around);
        let is_known = |name: &ServiceName| plan.services.contains_key(name) || unread.contains(name);
        let known = |name: &ServiceName| !gives_up && is_known(name);
        let mut finished = Finished::take_over(runtime_dir, heritage.goes_on, &opened.rows.runs)
            .map_err(StartError::kernel("note what has finished"))?;
        let adopted = heritage.claim(&mut containment, known, log)?;
        unread.join(&adopted, &mut plan, log);
        // Of a service that was unregistered while its supervisor was killed. What is still being read may be one.
        if !found.is_incomplete() {
            let is_there = |name: &ServiceName| plan.services.contains_key(name);
            opened.logs.remove_others(is_there);
            finished.forget_others(is_there);
        }
        // Whatever may have been in them has ended.
        runtime_dir::remove(std::mem::take(&mut opened.identity.left));
        if let Some(former) = former {
            resume_lines(former, &adopted, &opened.logs);
        }
        let main = former.and_then(|former| MainProgram::adopt(former.main?).ok());
        Ok(Self { containment, report, found, plan, adopted, goes_on: heritage.goes_on, finished, main })
    }
}

/// Beginnings of log lines are read on. Nobody is left to end the line of a life that is over.
fn resume_lines(former: &Handover, adopted: &BTreeMap<ServiceName, AdoptionRecord>, logs: &Logs) {
    let mut begun = former.begun.clone();
    let over = |name: &str| !adopted.keys().any(|one| one.as_str() == name);
    for (_, lines) in begun.iter_mut().filter(|(name, _)| over(name)) {
        lines.iter_mut().filter(|line| !line.is_empty()).for_each(|line| line.push(b'\n'));
    }
    logs.resume(begun);
}
