//! Who may ask for what: a pure function of the caller's uid (from `SO_PEERCRED`), the request and a few facts.
//!
//! Root and the supervisor's own uid may do everything. Any other uid may act on the services that run as itself, may
//! read everything once it owns one, and may not reload or shut down. A registered definition never runs as a user
//! that its registrant is not. Scopes are the one thing that a uid gives no right to, not even root's: they are made,
//! shown and ended by the processes of the service that they are part of.

use super::protocol::{Request, Right};

/// What is the same for every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// The supervisor's effective uid.
    pub supervisor_uid: u32,
    /// `--public-status`: anybody may read.
    pub public_status: bool,
}

/// What the answer depends on besides caller and request. What a request does not need may be left at its default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Facts<'a> {
    /// The service that is acted on, or would be registered.
    pub name: &'a str,
    /// The uid that this service runs as, looked up now; for a rescan, the gateway user's. `None`: its user does not
    /// exist.
    pub runs_as: Option<u32>,
    /// Some service runs as the caller.
    pub owns_one: bool,
    /// The calling process is part of this service's running tree.
    pub inside: bool,
}

/// A refusal in one line, for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Denied(pub String);

impl Rules {
    pub fn is_privileged(&self, uid: u32) -> bool {
        uid == 0 || uid == self.supervisor_uid
    }

    /// May `caller` have `request` done to the service of `facts`? Ask once for each service that it names.
    ///
    /// # Errors
    /// [`Denied`] with the line to answer.
    pub fn judge(&self, caller: u32, request: &Request, facts: &Facts<'_>) -> Result<(), Denied> {
        let (method, right) = (request.method(), request.verb().right);
        if self.is_privileged(caller) && right != Right::Inside {
            return Ok(());
        }
        match right {
            Right::Inside => {
                if facts.inside {
                    return Ok(());
                }
                Err(Denied(
                    "not permitted: scopes belong to the service that made them, and the calling process is not part \
                     of a running one; ask from inside it"
                        .to_owned(),
                ))
            }
            Right::Act => match facts.runs_as {
                Some(uid) if uid == caller => Ok(()),
                runs_as => Err(Denied(format!(
                    "not permitted to {method} '{}': it runs as {}, you are uid {caller}; ask its user or root",
                    facts.name,
                    user(runs_as)
                ))),
            },
            Right::Register if self.may_run_as(caller, facts.runs_as) => Ok(()),
            Right::Register => Err(Denied(format!(
                "not permitted to register '{}' to run as {}: you are uid {caller}, and only root may register \
                 for another user",
                facts.name,
                user(facts.runs_as)
            ))),
            Right::Read => {
                if facts.owns_one || self.public_status {
                    Ok(())
                } else {
                    Err(Denied(format!(
                        "not permitted to read: no service runs as you, uid {caller}; ask root, or start the \
                         supervisor with --public-status"
                    )))
                }
            }
            // Slots run as the gateway user, so that user gains nothing by having them looked at.
            Right::GatewayUser if facts.runs_as == Some(caller) => Ok(()),
            Right::GatewayUser => Err(Denied(format!(
                "not permitted to {method}: slots run as {}, you are uid {caller}; ask that user or root",
                user(facts.runs_as)
            ))),
            Right::Administer => Err(Denied(format!(
                "not permitted to {method}: you are uid {caller}, and only root{} may",
                match self.supervisor_uid {
                    0 => String::new(),
                    uid => format!(" and uid {uid}"),
                }
            ))),
        }
    }

    /// May a definition that `registrant` registered run as `runs_as`? To be asked again at each start: users change.
    pub fn may_run_as(&self, registrant: u32, runs_as: Option<u32>) -> bool {
        self.is_privileged(registrant) || runs_as == Some(registrant)
    }
}

fn user(uid: Option<u32>) -> String {
    uid.map_or_else(|| "a user that does not exist".to_owned(), |uid| format!("uid {uid}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::{OomPolicy, Program, Registration, SignalName, Targets, Until};
    use crate::core::signal::Signal;

    const OURS: u32 = 500;
    const OWNER: u32 = 1000;
    const OTHER: u32 = 2000;

    fn every_request() -> Vec<Request> {
        let targets = || Targets::Names(vec!["coder".to_owned()]);
        vec![
            Request::Start { targets: targets(), timeout_ms: None, force: false },
            Request::Stop { targets: targets() },
            Request::Restart { targets: targets(), timeout_ms: None, rolling: None },
            Request::Once { targets: targets(), timeout_ms: None },
            Request::Status { targets: targets() },
            Request::List {},
            Request::Register(Registration {
                name: "coder".to_owned(),
                user: None,
                env: Default::default(),
                down: false,
                program: Program::Argv(vec!["x".to_owned()]),
            }),
            Request::Unregister { targets: targets() },
            Request::Kill { targets: targets(), signal: SignalName(Signal::TERM), tree: false },
            Request::Freeze { targets: targets() },
            Request::Thaw { targets: targets() },
            Request::Tree { targets: targets() },
            Request::Audit { targets: targets() },
            Request::Wait { targets: targets(), until: Until::Up, timeout_ms: None },
            Request::Set { targets: targets(), limits: Default::default(), persist: true },
            Request::Reload { restart: false },
            Request::Shutdown { code: None },
            Request::Upgrade { program: None },
            Request::LogPlaces { targets: targets() },
            Request::LogFiles { targets: targets() },
            Request::Events { since_ms: None, last: None, follow: true },
            Request::Rescan { nuke: false },
            Request::Scope { unit: "w".to_owned(), memory_max: None, swap_max: None, oom: OomPolicy::Kill },
            Request::ScopeStop { unit: "w".to_owned() },
            Request::ScopeShow { unit: "w".to_owned() },
        ]
    }

    /// Each verb against each kind of caller, for a service that runs as `OWNER`.
    #[test]
    fn the_table() {
        let rules = Rules { supervisor_uid: OURS, public_status: false };
        //               method       root  ours   owner  other that owns one, other that owns none
        let table = [
            ("start", [true, true, true, false, false]),
            ("stop", [true, true, true, false, false]),
            ("restart", [true, true, true, false, false]),
            ("once", [true, true, true, false, false]),
            ("status", [true, true, true, true, false]),
            ("list", [true, true, true, true, false]),
            ("register", [true, true, true, false, false]),
            ("unregister", [true, true, true, false, false]),
            ("kill", [true, true, true, false, false]),
            ("freeze", [true, true, true, false, false]),
            ("thaw", [true, true, true, false, false]),
            ("tree", [true, true, true, true, false]),
            ("audit", [true, true, true, true, false]),
            ("wait", [true, true, true, true, false]),
            // Tighter only, for an owner: that depends on what is in force, and is judged where that is known.
            ("set", [true, true, true, false, false]),
            ("reload", [true, true, false, false, false]),
            ("shutdown", [true, true, false, false, false]),
            ("upgrade", [true, true, false, false, false]),
            ("log-places", [true, true, true, true, false]),
            ("log-files", [true, true, true, false, false]),
            ("events", [true, true, true, true, false]),
            ("rescan", [true, true, true, false, false]),
            ("scope", [false; 5]),
            ("scope-stop", [false; 5]),
            ("scope-show", [false; 5]),
        ];
        let callers = [(0, false), (OURS, false), (OWNER, true), (OTHER, true), (OTHER, false)];
        let requests = every_request();
        assert_eq!(requests.iter().map(Request::method).collect::<Vec<_>>(), table.map(|row| row.0));
        for (request, (method, allowed)) in requests.iter().zip(table) {
            for ((uid, owns_one), allowed) in callers.into_iter().zip(allowed) {
                let facts = Facts { name: "coder", runs_as: Some(OWNER), owns_one, inside: false };
                let verdict = rules.judge(uid, request, &facts);
                assert_eq!(verdict.is_ok(), allowed, "{method} by {uid}: {verdict:?}");
            }
        }
    }

    #[test]
    fn scopes_are_for_the_processes_of_the_service_and_for_nobody_else() {
        let rules = Rules { supervisor_uid: OURS, public_status: true };
        let requests = every_request();
        let about_scopes: Vec<_> =
            requests.iter().filter(|request| request.method().starts_with("scope")).collect();
        assert_eq!(about_scopes.len(), 3);
        for request in about_scopes {
            for uid in [0, OURS, OWNER, OTHER] {
                let outside = Facts { name: "coder", runs_as: Some(OWNER), owns_one: true, inside: false };
                assert!(rules.judge(uid, request, &outside).is_err(), "{} by {uid}", request.method());
                let inside = Facts { inside: true, ..outside };
                assert!(rules.judge(uid, request, &inside).is_ok(), "{} by {uid}", request.method());
            }
        }
    }

    #[test]
    fn public_status_opens_reading_and_nothing_else() {
        let rules = Rules { supervisor_uid: OURS, public_status: true };
        let open: Vec<_> = every_request()
            .iter()
            .filter(|request| {
                rules
                    .judge(
                        OTHER,
                        request,
                        &Facts { name: "coder", runs_as: Some(OWNER), owns_one: false, ..Facts::default() },
                    )
                    .is_ok()
            })
            .map(Request::method)
            .collect();
        assert_eq!(open, ["status", "list", "tree", "audit", "wait", "log-places", "events"]);
    }

    #[test]
    fn a_service_whose_user_is_gone_belongs_to_nobody_but_root() {
        let rules = Rules { supervisor_uid: OURS, public_status: false };
        let stop = Request::Stop { targets: Targets::All };
        let facts = Facts { name: "coder", runs_as: None, owns_one: true, ..Facts::default() };
        assert!(rules.judge(0, &stop, &facts).is_ok());
        assert_eq!(
            rules.judge(OWNER, &stop, &facts).unwrap_err().to_string(),
            "not permitted to stop 'coder': it runs as a user that does not exist, you are uid 1000; \
             ask its user or root"
        );
        assert!(!rules.may_run_as(OWNER, None));
    }

    #[test]
    fn the_lines_are_clear() {
        let rules = Rules { supervisor_uid: OURS, public_status: false };
        let facts = Facts { name: "coder", runs_as: Some(OWNER), owns_one: false, ..Facts::default() };
        let lines: Vec<_> = every_request()
            .iter()
            .filter(|request| ["stop", "status", "register", "reload"].contains(&request.method()))
            .map(|request| rules.judge(OTHER, request, &facts).unwrap_err().to_string())
            .collect();
        assert_eq!(
            lines,
            [
                "not permitted to stop 'coder': it runs as uid 1000, you are uid 2000; ask its user or root",
                "not permitted to read: no service runs as you, uid 2000; ask root, or start the supervisor \
                 with --public-status",
                "not permitted to register 'coder' to run as uid 1000: you are uid 2000, and only root may register \
                 for another user",
                "not permitted to reload: you are uid 2000, and only root and uid 500 may",
            ]
        );
    }
}
