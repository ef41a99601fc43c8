//! Definition files that were edited and not read again: `status` shows it, and the caller who starts such a service is told.
//!
//! A file outside home is looked at when it is asked about. One below home may hang with its disk, so the thread that may wait
//! looks at it, and the request waits for that, bounded.

use crate::control::protocol::{Request, Targets};
use crate::control::server::{ConnId, Incoming};
use crate::core::clock::Tick;
use crate::core::fleet::ServiceId;
use crate::daemon::Notice;
use crate::daemon::act::{Action, Actions, FileWork};
use crate::daemon::services::Service;
use crate::daemon::topics::Deadlines;
use crate::daemon::view::View;
use crate::definition::resolved::Origin;
use crate::definition::stamp::Stamp;
use crate::sys::credentials::Credentials;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long a request waits for the disk.
const PATIENCE: Duration = Duration::from_secs(1);

/// A request that waits until files were looked at.
#[derive(Debug)]
struct Looking {
    incoming: Incoming,
    ticket: u64,
    until: Tick,
}

/// What has become of the file of a service, in words.
pub type Edit = (ServiceId, Option<&'static str>);

/// The looks at definition files below home, and who waits for them.
#[derive(Debug, Default)]
pub struct Edits {
    looking: Vec<Looking>,
    /// Counts them.
    looks: u64,
}

impl Deadlines for Edits {
    fn next_deadline(&self) -> Option<Tick> {
        self.looking.iter().map(|looking| looking.until).min()
    }

    fn postpone(&mut self, by: Duration) {
        self.looking.iter_mut().for_each(|looking| looking.until = looking.until.after(by));
    }
}

/// The file that defines a service, as it was when it was read.
pub fn file(service: &Service) -> Option<(&Path, Stamp)> {
    let path = match &service.definition.origin {
        Origin::File(path) | Origin::Profile { template: Some(path) } => path,
        Origin::Profile { template: None } | Origin::Record | Origin::BuiltIn | Origin::Slot => return None,
    };
    service.definition.stamp.map(|stamp| (path.as_path(), stamp))
}

/// The files below home that the answer to a request depends on.
fn asked_about(request: &Request, view: &View<'_>) -> Vec<(ServiceId, PathBuf, Stamp)> {
    let (Request::Status { targets }
    | Request::Start { targets, .. }
    | Request::Restart { targets, .. }
    | Request::Once { targets, .. }) = request
    else {
        return Vec::new();
    };
    let ids: Vec<ServiceId> = match targets {
        Targets::All => view.fleet.ids().collect(),
        Targets::Names(names) => names.iter().flat_map(|name| view.meant(name)).collect(),
    };
    let in_home = |id: ServiceId| {
        let (path, stamp) = file(view.service(id)?)?;
        path.starts_with(&view.options.home).then(|| (id, path.to_owned(), stamp))
    };
    ids.into_iter().filter_map(in_home).collect()
}

impl Edits {
    pub fn is_busy(&self) -> bool {
        !self.looking.is_empty()
    }

    pub fn caller_is_gone(&mut self, conn: ConnId) {
        self.looking.retain(|looking| looking.incoming.id != conn);
    }

    /// A request is served, once the files below home that it depends on were looked at.
    pub fn serve(&mut self, incoming: Incoming, view: &View<'_>) -> Actions {
        let files = asked_about(&incoming.request, view);
        if files.is_empty() {
            return vec![Action::Serve(incoming)];
        }
        self.looks += 1;
        let ticket = self.looks;
        self.looking.push(Looking { incoming, ticket, until: view.now.after(PATIENCE) });
        let work = move || -> Vec<Edit> {
            files.into_iter().map(|(id, path, stamp)| (id, stamp.edited(&path))).collect()
        };
        let told = move |edits| Notice::LookedAt { ticket, edits };
        vec![Action::Files(FileWork {
            credentials: Credentials::own(),
            work: Box::new(move || told(work())),
            refused: Arc::new(move |_| told(Vec::new())),
        })]
    }

    /// Files were looked at.
    pub fn looked_at(&mut self, ticket: u64, edits: Vec<Edit>, _: &View<'_>) -> Actions {
        std::iter::once(Action::Edited(edits)).chain(self.take(|one| one.ticket == ticket)).collect()
    }

    /// Those whose disk takes too long are answered with what is known.
    pub fn pass_time(&mut self, view: &View<'_>) -> Actions {
        self.take(|one| one.until <= view.now)
    }

    fn take(&mut self, is_over: impl Fn(&Looking) -> bool) -> Actions {
        let (over, waiting) = std::mem::take(&mut self.looking).into_iter().partition(is_over);
        self.looking = waiting;
        let over: Vec<Looking> = over;
        over.into_iter().map(|one| Action::Serve(one.incoming)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::topics::testing::{HOME, World};
    use crate::sys::peer::Peer;

    /// A gateway whose template is this file.
    fn world_of(template: &Path) -> World {
        let mut world = World::default();
        let id = world.gateway("coder");
        let definition = &mut world.services.get_mut(&id).unwrap().definition;
        definition.origin = Origin::Profile { template: Some(template.to_owned()) };
        definition.stamp = Some(Stamp::of(&rustix::fs::stat("/").unwrap()));
        world
    }

    fn incoming(slot: u32, request: Request) -> Incoming {
        let peer = Peer { pid: Some(1), uid: 0, gid: 0 };
        Incoming { id: ConnId { slot, generation: 0 }, peer, request }
    }

    fn status(slot: u32) -> Incoming {
        incoming(slot, Request::Status { targets: Targets::Names(vec!["coder".to_owned()]) })
    }

    fn served(actions: &Actions) -> Vec<u32> {
        let served = |action: &Action| match action {
            Action::Serve(incoming) => Some(incoming.id.slot),
            _ => None,
        };
        actions.iter().filter_map(served).collect()
    }

    fn looks(actions: &Actions) -> usize {
        actions.iter().filter(|action| matches!(action, Action::Files(_))).count()
    }

    #[test]
    fn only_who_asks_about_a_file_below_home_waits_for_it() {
        let world = world_of(&Path::new(HOME).join("gateway.toml"));
        let mut edits = Edits::default();
        let asked = edits.serve(status(1), &world.view());
        assert_eq!((looks(&asked), served(&asked)), (1, vec![]));
        let stop = Request::Stop { targets: Targets::All };
        assert_eq!(served(&edits.serve(incoming(2, stop), &world.view())), [2]);
        let other = Request::Status { targets: Targets::Names(vec!["nobody".to_owned()]) };
        assert_eq!(served(&edits.serve(incoming(3, other), &world.view())), [3]);
        let elsewhere = world_of(Path::new("/etc/gateway.toml"));
        assert_eq!(served(&edits.serve(status(4), &elsewhere.view())), [4]);
        let id = world.fleet.id("coder").unwrap();
        let seen = edits.looked_at(1, vec![(id, Some("was changed"))], &world.view());
        assert!(matches!(&seen[0], Action::Edited(edits) if *edits == [(id, Some("was changed"))]));
        assert_eq!((served(&seen), edits.is_busy()), (vec![1], false));
    }

    #[test]
    fn a_name_that_means_instances_is_a_question_about_each() {
        let mut world = world_of(&Path::new(HOME).join("gateway.toml"));
        let asked = |request: &Request, world: &World| asked_about(request, &world.view()).len();
        let worker = Request::Status { targets: Targets::Names(vec!["worker".to_owned()]) };
        assert_eq!(asked(&worker, &world), 0);
        for name in ["worker@1", "worker@2"] {
            let like = world.services.get(&world.fleet.id("coder").unwrap()).unwrap().definition.clone();
            let id = world.gateway(name);
            world.services.get_mut(&id).unwrap().definition = like;
        }
        assert_eq!(asked(&worker, &world), 2);
    }

    #[test]
    fn a_disk_that_hangs_keeps_a_request_for_a_second_and_who_is_gone_is_owed_nothing() {
        let mut world = world_of(&Path::new(HOME).join("gateway.toml"));
        let mut edits = Edits::default();
        edits.serve(status(1), &world.view());
        edits.serve(status(2), &world.view());
        edits.caller_is_gone(ConnId { slot: 1, generation: 0 });
        edits.postpone(Duration::from_secs(3));
        world.after(PATIENCE);
        assert!(edits.pass_time(&world.view()).is_empty(), "time that was lost is not its own");
        world.after(Duration::from_secs(3));
        assert_eq!(edits.next_deadline(), Some(world.now));
        assert_eq!(served(&edits.pass_time(&world.view())), [2]);
        assert_eq!(served(&edits.looked_at(2, Vec::new(), &world.view())), Vec::<u32>::new());
    }
}
