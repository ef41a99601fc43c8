//! `register`: from a caller's request to a record on disk to a service.

use crate::control::permission::{Denied, Facts};
use crate::control::protocol::{Code, Outcome, Program, Registration, Reply, Request, State};
use crate::control::server::ConnId;
use crate::core::event::{Command, Event, Ticket};
use crate::core::fleet::ServiceId;
use crate::core::gateway::{Gateway, History};
use crate::core::name::{NameError, ServiceName};
use crate::core::words::{Cause, Want};
use crate::daemon::topics::definitions::Definitions;
use crate::daemon::topics::definitions::record::DefineError;
use crate::daemon::topics::requests::REGISTERED_LATE;
use crate::daemon::view::View;
use crate::daemon::{Commit, Supervisor};
use crate::definition::Definition;
use crate::store::{self, Change, RecordRow};
use crate::sys::users;

/// A registration whose record is on its way to the disk.
#[derive(Debug)]
pub struct Registering {
    definition: Definition,
    record: RecordRow,
    want: Want,
    ticket: Ticket,
}

/// What a registration comes to.
#[derive(Debug)]
enum Checked {
    New(Box<Definition>, RecordRow),
    /// Exactly this is registered already.
    Known,
}

/// Why a service is not registered.
#[derive(Debug, thiserror::Error)]
enum RegisterError {
    #[error("the supervisor is shutting down")]
    Closing,
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("'{0}' is being registered by somebody else: try again")]
    UnderWay(ServiceName),
    #[error("'{0}' is being unregistered: try again")]
    Leaving(ServiceName),
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error("'{0}' is registered already, differently: 'hermes-sup ctl unregister {0}' first")]
    Different(ServiceName),
    #[error("'{name}' exists already, from {origin}: choose another name")]
    Exists { name: ServiceName, origin: String },
    #[error(
        "'{name}': what is registered runs as the gateway user, '{gateway}', and not as '{user}', because the record of it could be \
         anybody's ({why}): let root define it, in /etc/hermes-sup/services/{name}.toml with user = \"{user}\""
    )]
    OtherUser { name: ServiceName, user: String, gateway: String, why: String },
    #[error(transparent)]
    Definition(#[from] DefineError),
}

impl RegisterError {
    fn code(&self) -> Code {
        match self {
            Self::Denied(_) => Code::NotPermitted,
            _ => Code::Failed,
        }
    }
}

/// Whether a caller may register this, and what it would be. `under_way`: a service of this name is being registered.
fn check(
    uid: u32,
    request: &Request,
    registration: &Registration,
    definitions: &Definitions,
    under_way: impl Fn(&ServiceName) -> bool,
    view: &View<'_>,
) -> Result<Checked, RegisterError> {
    if view.closing {
        return Err(RegisterError::Closing);
    }
    let name = ServiceName::new(&registration.name)?;
    if under_way(&name) {
        return Err(RegisterError::UnderWay(name));
    }
    let rules = view.rules();
    let gateway = &view.around.gateway;
    // Nothing below home runs as anybody but the gateway user: root's own default would be refused.
    let user = registration
        .user
        .clone()
        .unwrap_or_else(|| if rules.is_privileged(uid) { gateway.name.clone() } else { uid.to_string() });
    let row = RecordRow {
        registrant_uid: uid,
        user,
        program: match &registration.program {
            Program::Argv(argv) => store::Program::Argv(argv.clone()),
            Program::Profile(dir) => store::Program::Profile(dir.to_string_lossy().into_owned()),
        },
        env: registration.env.clone(),
        registered_at_ms: view.now.0,
    };
    let judge = |runs_as| {
        let facts = Facts { name: name.as_str(), runs_as, owns_one: false, ..Facts::default() };
        rules.judge(uid, request, &facts)
    };
    judge(users::resolve(&row.user).ok().flatten().map(|user| user.uid))?;
    if let Some(id) = view.fleet.id(name.as_str()) {
        if view.fleet.gateway(id).is_some_and(Gateway::is_leaving) {
            return Err(RegisterError::Leaving(name));
        }
        return match view.service(id).and_then(|service| service.record.as_ref()) {
            Some(old) if is_same(old, &row) => Ok(Checked::Known),
            Some(_) => Err(RegisterError::Different(name)),
            None => Err(RegisterError::Exists { name, origin: view.origin(id) }),
        };
    }
    if definitions.dormant(&name).is_some_and(|old| !is_same(old, &row)) {
        return Err(RegisterError::Different(name));
    }
    let asked = users::resolve(&row.user).ok().flatten().filter(|user| user.uid != gateway.uid);
    if let (Some(user), Some(why), 0) = (asked, view.trust.reason(), view.around.own_uid) {
        let (user, gateway, why) = (user.name, gateway.name.clone(), why.to_owned());
        return Err(RegisterError::OtherUser { name, user, gateway, why });
    }
    let definition = definitions.of_record(&name, &row, view)?;
    // What the definition really runs as is what counts: a template has its own idea.
    judge(view.around.lookup(&definition.user).ok().map(|user| user.uid))?;
    Ok(Checked::New(Box::new(definition), row))
}

fn is_same(old: &RecordRow, new: &RecordRow) -> bool {
    old.user == new.user && old.program == new.program && old.env == new.env
}

impl Supervisor {
    pub(in crate::daemon) fn register(
        &mut self,
        conn: ConnId,
        uid: u32,
        request: &Request,
        registration: &Registration,
    ) {
        self.surroundings = self.surroundings_now();
        let under_way = |name: &ServiceName| self.topics.requests.registers(name);
        let checked = check(uid, request, registration, &self.topics.definitions, under_way, &self.view());
        let name = &registration.name;
        let outcome = match checked {
            Ok(Checked::New(definition, record)) => {
                let want = if registration.down { Want::Down } else { Want::Up };
                return self.record(conn, uid, request, *definition, record, want);
            }
            Ok(Checked::Known) => {
                let state = self.fleet.id(name).and_then(|id| self.state(id)).unwrap_or(State::Down);
                Outcome::done(name, state, Some("already registered".to_owned()))
            }
            Err(error) => Outcome::failed(name, error.code(), None, error.to_string()),
        };
        self.part(conn, outcome);
        self.reply(conn, &Reply::End);
    }

    fn record(
        &mut self,
        conn: ConnId,
        uid: u32,
        request: &Request,
        definition: Definition,
        record: RecordRow,
        want: Want,
    ) {
        let timeout = request.deadline().after(request.timeout());
        let ask = self.topics.requests.open(conn, timeout.map(|timeout| self.clock.now().after(timeout)));
        let name = definition.name.clone();
        let ticket = self.topics.requests.registration(ask, name.clone());
        let row = store::WantRow {
            want,
            asked_by_uid: Some(uid),
            asked_at_ms: self.clock.now().0,
            cause: Cause::Register,
            definition_hash: Some(definition.hash),
        };
        let changes = vec![Change::Record(name.clone(), record.clone()), Change::Want(name, row)];
        let registering = Registering { definition, record, want, ticket };
        self.commit(Commit::Registration(Box::new(registering)), changes);
    }

    /// The record is on disk, or could not be put there.
    pub(in crate::daemon) fn registered(&mut self, registering: Registering, error: Option<String>) {
        let Registering { definition, record, want, ticket } = registering;
        let name = definition.name.clone();
        let failed = |message| Outcome::failed(name.as_str(), Code::Failed, None, message);
        if let Some(why) = error {
            return self.inbox.answer(ticket, failed(format!("'{name}' is not registered: {why}")));
        }
        if let Some(id) = self.fleet.id(name.as_str()) {
            return self.withdraw(
                id,
                ticket,
                failed(format!("'{name}' came into being meanwhile: try again")),
            );
        }
        self.topics.definitions.registered(&name);
        // It has no past, whatever there was of that name.
        self.store.commit_lazily(vec![Change::ForgetRun(name.clone())]);
        if want == Want::Up && self.topics.shutdown.is_on() {
            // It is on record, so this is a yes; nothing is begun any more.
            let outcome = Outcome::done(name.as_str(), State::Down, Some(REGISTERED_LATE.to_owned()));
            return self.inbox.answer(ticket, outcome);
        }
        let registrant = record.registrant_uid;
        let id = self.add_service(definition, Some(record));
        self.set_going(id, want, want == Want::Up, History::default());
        if want == Want::Down {
            let outcome = Outcome::done(name.as_str(), State::Down, Some("registered".to_owned()));
            return self.inbox.answer(ticket, outcome);
        }
        // Its want is on disk and it starts: a start joins that, and answers the caller.
        self.topics.requests.registered(ticket, id);
        self.topics.requests.asked_by(id, registrant);
        self.inbox.core(id, Event::Command { ticket, command: Command::Start { force: false } });
    }

    /// Another service has the name by now: of the registration nothing is on record when its caller hears that.
    fn withdraw(&mut self, id: ServiceId, ticket: Ticket, outcome: Outcome) {
        let Some((name, gateway)) = self.fleet.name(id).zip(self.fleet.gateway(id)) else { return };
        let want = self.want_row(id, gateway.want(), Cause::FirstBoot);
        let changes = vec![Change::ForgetRecord(name.clone()), Change::Want(name.clone(), want)];
        self.commit(Commit::Withdrawn(ticket, Box::new(outcome)), changes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::topics::testing::{GATEWAY_UID, World};
    use crate::definition::trust::Trust;
    use crate::store::Opened;

    const ROOT: u32 = 0;

    fn asked(name: &str, command: &str, user: Option<&str>) -> Registration {
        Registration {
            name: name.to_owned(),
            program: Program::Argv(vec![command.to_owned()]),
            user: user.map(str::to_owned),
            env: Default::default(),
            down: false,
        }
    }

    fn checked(
        uid: u32,
        registration: &Registration,
        definitions: &Definitions,
        world: &World,
    ) -> Result<Checked, RegisterError> {
        let request = Request::Register(registration.clone());
        check(uid, &request, registration, definitions, |name| name.as_str() == "busy", &world.view())
    }

    /// What is registered as `asked` is a service of `world`.
    fn register(asked: &Registration, world: &mut World) {
        let Ok(Checked::New(definition, row)) = checked(ROOT, asked, &Definitions::default(), world) else {
            panic!("it may be registered")
        };
        let id = world.add(*definition);
        world.services.get_mut(&id).unwrap().record = Some(Box::new(row));
    }

    fn refused(uid: u32, registration: &Registration, world: &World) -> (Code, String) {
        let error = checked(uid, registration, &Definitions::default(), world).unwrap_err();
        (error.code(), error.to_string())
    }

    #[test]
    fn what_root_registers_runs_as_the_gateway_user_unless_it_names_another_one() {
        let world = World::default();
        let new = checked(ROOT, &asked("a", "/bin/a", None), &Definitions::default(), &world);
        let Ok(Checked::New(definition, row)) = new else { panic!("{new:?}") };
        assert_eq!((definition.command[0].as_str(), row.registrant_uid), ("/bin/a", ROOT));
        assert_eq!(row.user, world.around.gateway.name);
    }

    /// A user who registered a service of their own, and had named nobody, was told that only a file may name another user.
    #[test]
    fn who_is_not_the_gateway_user_hears_who_can_define_a_service_for_them() {
        let world =
            World { trust: Trust::Untrusted("the state is below --home".to_owned()), ..World::default() };
        let (code, said) = refused(1, &asked("own", "/bin/a", None), &world);
        assert_eq!(code, Code::Failed);
        let user = users::by_uid(1).unwrap().map_or_else(|| "1".to_owned(), |user| user.name);
        assert_eq!(
            said,
            format!(
                "'own': what is registered runs as the gateway user, '{}', and not as '{user}', because the record of it could be \
                 anybody's (the state is below --home): let root define it, in /etc/hermes-sup/services/own.toml with user = \"{user}\"",
                world.around.gateway.name
            )
        );
    }

    #[test]
    fn nobody_registers_what_would_run_as_somebody_else() {
        let world = World::default();
        let (code, _) = refused(GATEWAY_UID, &asked("a", "/bin/a", Some("0")), &world);
        assert_eq!(code, Code::NotPermitted);
    }

    #[test]
    fn a_name_is_registered_once_and_the_same_again_is_no_mistake() {
        let mut world = World::default();
        register(&asked("a", "/bin/a", None), &mut world);
        world.gateway("coder");
        let again = checked(ROOT, &asked("a", "/bin/a", None), &Definitions::default(), &world);
        assert!(matches!(again, Ok(Checked::Known)), "{again:?}");
        let said = |name, command| refused(ROOT, &asked(name, command, None), &world).1;
        assert_eq!(
            said("a", "/bin/b"),
            "'a' is registered already, differently: 'hermes-sup ctl unregister a' first"
        );
        assert_eq!(
            said("coder", "/bin/b"),
            "'coder' exists already, from the profile 'coder': choose another name"
        );
        assert_eq!(said("busy", "/bin/b"), "'busy' is being registered by somebody else: try again");
        assert!(said("no name", "/bin/b").contains("no name"));
        world.closing = true;
        let closing = refused(ROOT, &asked("b", "/bin/b", None), &world).1;
        assert_eq!(closing, "the supervisor is shutting down");
    }

    /// It was `already registered`, and gone a moment later.
    #[test]
    fn what_is_being_unregistered_is_not_registered_already() {
        let mut world = World::default();
        register(&asked("a", "/bin/a", None), &mut world);
        let id = world.fleet.id("a").unwrap();
        world.up(id, 7);
        let leaving = "'a' is being unregistered: try again";
        world.step(id, Event::Command { ticket: Ticket(1), command: Command::Unregister });
        assert_eq!(refused(ROOT, &asked("a", "/bin/a", None), &world).1, leaving);
        world.step(id, Event::Recorded { seq: 1 });
        assert!(world.fleet.gateway(id).unwrap().is_retiring());
        assert_eq!(refused(ROOT, &asked("a", "/bin/a", None), &world).1, leaving);
    }

    /// It is on record and no service, because a file hides it or it cannot be read.
    #[test]
    fn a_record_that_is_no_service_keeps_its_name_too() {
        let mut world = World::default();
        register(&asked("a", "/bin/a", None), &mut world);
        let mut service = world.services.pop_first().unwrap().1;
        let records = [(service.name.clone(), *service.record.take().unwrap())].into();
        let rows = Opened { records, ..Opened::default() };
        let plan = crate::daemon::topics::definitions::found::Plan::default();
        let definitions = Definitions::at_start(None, &plan, &rows, false);
        let world = World::default();
        let other = checked(ROOT, &asked("a", "/bin/b", None), &definitions, &world);
        assert!(matches!(other, Err(RegisterError::Different(_))), "{other:?}");
        let same = checked(ROOT, &asked("a", "/bin/a", None), &definitions, &world);
        assert!(matches!(same, Ok(Checked::New(..))), "{same:?}");
    }
}
