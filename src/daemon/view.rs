//! What is so now, for those who decide and do nothing themselves.

use crate::containment::{Containment, IncarnationId};
use crate::control::naming;
use crate::control::permission::Rules;
use crate::core::clock::Tick;
use crate::core::fleet::{Fleet, ServiceId};
use crate::core::name::ServiceName;
use crate::core::words::State;
use crate::daemon::Options;
use crate::daemon::services::{Service, Services};
use crate::daemon::show::first_of;
use crate::daemon::topics::edits;
use crate::definition::resolved::Origin;
use crate::definition::trust::Trust;
use crate::definition::{Surroundings, dashboard};

/// A moment of the supervisor. Nothing changes while somebody has it.
pub struct View<'a> {
    pub now: Tick,
    pub fleet: &'a Fleet,
    pub services: &'a Services,
    pub options: &'a Options,
    pub around: &'a Surroundings,
    pub trees: &'a dyn Trees,
    /// The main program's process, while it runs.
    pub main: Option<i32>,
    /// How far what the database holds may be believed.
    pub trust: &'a Trust,
    /// A shutdown is under way.
    pub closing: bool,
}

/// What only the containment knows of process trees.
pub trait Trees {
    /// Every process of it stands still.
    fn is_frozen(&self, life: &IncarnationId) -> bool;

    /// The processes that keep it from ending or from standing still, and where they hang, in words.
    fn hanging(&self, life: &IncarnationId) -> Option<String>;

    /// There is such a tree.
    fn is_held(&self, life: &IncarnationId) -> bool;

    /// How often the kernel refused it a process for its `pids_max`; 0 where nobody counts that.
    fn pids_refused(&self, life: &IncarnationId) -> u64;
}

impl Trees for Containment {
    fn is_frozen(&self, life: &IncarnationId) -> bool {
        Containment::is_frozen(self, life)
    }

    fn hanging(&self, life: &IncarnationId) -> Option<String> {
        const SHOWN: usize = 5;
        let stuck = self.stuck(life);
        (!stuck.is_empty()).then(|| first_of(SHOWN, &stuck))
    }

    fn is_held(&self, life: &IncarnationId) -> bool {
        self.rung(life).is_some()
    }

    fn pids_refused(&self, life: &IncarnationId) -> u64 {
        Containment::pids_refused(self, life)
    }
}

impl View<'_> {
    pub fn rules(&self) -> Rules {
        Rules { supervisor_uid: self.around.own_uid, public_status: self.options.public_status }
    }

    /// The service that a typed name means.
    pub fn resolve(&self, typed: &str) -> Option<ServiceId> {
        naming::resolve(typed, |name| self.fleet.id(name).is_some()).and_then(|name| self.fleet.id(name))
    }

    pub fn service(&self, id: ServiceId) -> Option<&Service> {
        self.services.get(&id).map(Box::as_ref)
    }

    /// The services that a typed name means: one, or its instances.
    pub fn meant(&self, typed: &str) -> Vec<ServiceId> {
        self.resolve(typed).map_or_else(
            || {
                naming::instances(typed, self.fleet.names())
                    .filter_map(|name| self.fleet.id(name.as_str()))
                    .collect()
            },
            |id| vec![id],
        )
    }

    pub fn name(&self, id: ServiceId) -> Option<&ServiceName> {
        self.fleet.name(id)
    }

    pub fn state(&self, id: ServiceId) -> Option<State> {
        Some(self.fleet.gateway(id)?.state())
    }

    /// The life that a service is in, if it has a tree.
    pub fn life(&self, id: ServiceId) -> Option<IncarnationId> {
        let (name, gateway) = self.fleet.name(id).zip(self.fleet.gateway(id))?;
        let n = gateway.history().incarnation;
        gateway.has_tree().then(|| IncarnationId { name: name.clone(), n })
    }

    /// Where the definition of a service comes from, in words.
    pub fn origin(&self, id: ServiceId) -> String {
        let origin = |service: &Service| match &service.definition.origin {
            Origin::File(path) => path.display().to_string(),
            Origin::Profile { .. } => format!("the profile '{}'", service.name),
            Origin::Record => "its registration".to_owned(),
            Origin::BuiltIn => format!("{}, which is set", dashboard::SWITCH),
            Origin::Slot => {
                let slot = service.definition.slot.as_ref();
                slot.map_or_else(String::new, |slot| slot.dir.display().to_string())
            }
        };
        self.service(id).map_or_else(String::new, origin)
    }

    /// That the file of a service is not what was read, in words. A file outside home is looked at, where no disk hangs.
    pub fn edited(&self, id: ServiceId) -> Option<String> {
        let service = self.service(id)?;
        let (path, stamp) = edits::file(service)?;
        let in_home = path.starts_with(&self.options.home);
        let edit = if in_home { service.edited } else { stamp.edited(path) };
        edit.map(|edit| format!("{} {edit}: 'hermes-sup ctl reload' reads it", path.display()))
    }
}

/// The view of a supervisor, of which only what it needs is borrowed.
macro_rules! view {
    ($supervisor:ident) => {
        $crate::daemon::view::View {
            now: $supervisor.clock.now(),
            fleet: &$supervisor.fleet,
            services: &$supervisor.services,
            options: &$supervisor.options,
            around: &$supervisor.surroundings,
            trees: &$supervisor.containment,
            main: $supervisor.main.as_ref().map(|main| main.pid()),
            trust: &$supervisor.state_trust,
            closing: $supervisor.topics.shutdown.is_on(),
        }
    };
}
pub(super) use view;

/// What a topic makes of the view, carried out: `decide!(self.planned.pass_time())`.
macro_rules! decide {
    ($supervisor:ident.$topic:ident.$method:ident($($argument:expr),*)) => {{
        let view = $crate::daemon::view::view!($supervisor);
        let actions = $supervisor.topics.$topic.$method($($argument,)* &view);
        $supervisor.carry_out(actions);
    }};
}
pub(super) use decide;
