//! `register`: from a caller's request to a record on disk to a service.

use crate::control::permission::Facts;
use crate::control::protocol::{Code, Outcome, Program, Registration, Reply, Request, State};
use crate::control::server::ConnId;
use crate::core::event::{Command, Event, Ticket};
use crate::core::name::ServiceName;
use crate::core::words::{Cause, Want};
use crate::daemon::{Commit, Supervisor};
use crate::definition::Definition;
use crate::store::{self, Change, RecordRow};

/// A registration whose record is on its way to the disk.
#[derive(Debug)]
pub struct Registering {
    definition: Definition,
    record: RecordRow,
    want: Want,
    ticket: Ticket,
}

impl Supervisor {
    pub(in crate::daemon) fn register(
        &mut self,
        conn: ConnId,
        uid: u32,
        request: &Request,
        registration: &Registration,
    ) {
        let asked = match self.registering(uid, request, registration) {
            Ok(Some(asked)) => asked,
            Ok(None) => {
                let state =
                    self.fleet.id(&registration.name).and_then(|id| self.state(id)).unwrap_or(State::Down);
                self.part(
                    conn,
                    Outcome::done(&registration.name, state, Some("already registered".to_owned())),
                );
                return self.reply(conn, &Reply::End);
            }
            Err((code, message)) => {
                self.part(conn, Outcome::failed(&registration.name, code, None, message));
                return self.reply(conn, &Reply::End);
            }
        };
        let (definition, record) = asked;
        let want = if registration.down { Want::Down } else { Want::Up };
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
        let changes = vec![Change::Record(name.clone(), record.clone()), Change::Want(name.clone(), row)];
        let registering = Registering { definition, record, want, ticket };
        self.commit(Commit::Registration(Box::new(registering)), changes);
    }

    /// The checked registration; `None` when exactly this is registered already.
    fn registering(
        &mut self,
        uid: u32,
        request: &Request,
        registration: &Registration,
    ) -> Result<Option<(Definition, RecordRow)>, (Code, String)> {
        let failed = |message: String| (Code::Failed, message);
        if self.topics.shutdown.is_on() {
            return Err(failed("the supervisor is shutting down".to_owned()));
        }
        let name = ServiceName::new(&registration.name).map_err(|error| failed(error.to_string()))?;
        if self.topics.requests.registers(&name) {
            return Err(failed(format!("'{name}' is being registered by somebody else: try again")));
        }
        self.surroundings = self.surroundings_now();
        let gateway = &self.surroundings.gateway;
        // Nothing below home runs as anybody but the gateway user: root's own default would be refused.
        let user = registration.user.clone().unwrap_or_else(|| {
            if self.rules().is_privileged(uid) { gateway.name.clone() } else { uid.to_string() }
        });
        let row = RecordRow {
            registrant_uid: uid,
            user,
            program: match &registration.program {
                Program::Argv(argv) => store::Program::Argv(argv.clone()),
                Program::Profile(dir) => store::Program::Profile(dir.to_string_lossy().into_owned()),
            },
            env: registration.env.clone(),
            registered_at_ms: self.clock.now().0,
        };
        let runs_as = crate::sys::users::resolve(&row.user).ok().flatten().map(|user| user.uid);
        let facts = Facts { name: name.as_str(), runs_as, owns_one: false, ..Facts::default() };
        self.rules()
            .judge(uid, request, &facts)
            .map_err(|denied| (Code::NotPermitted, denied.to_string()))?;
        if let Some(id) = self.fleet.id(name.as_str()) {
            let existing = self.services.get(&id);
            let same =
                existing.and_then(|service| service.record.as_ref()).is_some_and(|old| is_same(old, &row));
            let origin = self.view().origin(id);
            let recorded = existing.is_some_and(|service| service.record.is_some());
            return match (same, recorded) {
                (true, _) => Ok(None),
                (false, true) => Err(failed(registered_differently(&name))),
                (false, false) => {
                    Err(failed(format!("'{name}' exists already, from {origin}: choose another name")))
                }
            };
        }
        if self.topics.definitions.dormant(&name).is_some_and(|old| !is_same(old, &row)) {
            return Err(failed(registered_differently(&name)));
        }
        let definition = self.topics.definitions.of_record(&name, &row, &self.view());
        let definition = definition.map_err(|error| failed(error.to_string()))?;
        // What the definition really runs as is what counts: a template has its own idea.
        let runs_as = self.surroundings.lookup(&definition.user).ok().map(|user| user.uid);
        let facts = Facts { name: name.as_str(), runs_as, owns_one: false, ..Facts::default() };
        self.rules()
            .judge(uid, request, &facts)
            .map_err(|denied| (Code::NotPermitted, denied.to_string()))?;
        Ok(Some((definition, row)))
    }

    /// The record is on disk, or could not be put there.
    pub(in crate::daemon) fn registered(&mut self, registering: Registering, error: Option<String>) {
        let Registering { definition, record, want, ticket } = registering;
        let name = definition.name.clone();
        if let Some(why) = error {
            let message = format!("'{name}' is not registered: {why}");
            let outcome = Outcome::failed(name.as_str(), Code::Failed, None, message);
            return self.inbox.answer(ticket, outcome);
        }
        if self.fleet.id(name.as_str()).is_some() {
            let message = format!("'{name}' came into being meanwhile: try again");
            let outcome = Outcome::failed(name.as_str(), Code::Failed, None, message);
            return self.inbox.answer(ticket, outcome);
        }
        self.topics.definitions.registered(&name);
        let registrant = Some(record.registrant_uid);
        let id = self.add_at_rest(definition, Some(record), want == Want::Down);
        if want == Want::Down {
            let outcome = Outcome::done(name.as_str(), State::Down, Some("registered".to_owned()));
            return self.inbox.answer(ticket, outcome);
        }
        // The want is on disk already; the start goes the way of every other, and answers the caller.
        self.topics.requests.registered(ticket, id);
        if let Some(uid) = registrant {
            self.topics.requests.asked_by(id, uid);
        }
        self.inbox.core(id, Event::Command { ticket, command: Command::Start { force: false } });
    }
}

fn is_same(old: &RecordRow, new: &RecordRow) -> bool {
    old.user == new.user && old.program == new.program && old.env == new.env
}

fn registered_differently(name: &ServiceName) -> String {
    format!("'{name}' is registered already, differently: 'hermes-sup ctl unregister {name}' first")
}
