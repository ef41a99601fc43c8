//! Who may ask for what: every verb of `ctl` by every kind of caller about services of every owner, in each kind of container. What is
//! refused has changed nothing. Who may do what on the wire, verb by verb, is a table in `src/control/permission.rs`.

use crate::harness::setup::{ALICE, HERMES};
use crate::harness::{Place, Rung, Setup, Supervisor, World};
use hermes_sup::control::protocol::Targets;
use serde_json::Value;

/// Owns no service.
const NOBODY: u32 = 65534;
const CALLERS: [u32; 4] = [0, HERMES, ALICE, NOBODY];
/// Services, and as whom they run.
const SERVICES: [(&str, u32); 3] = [("roots", 0), ("theirs", HERMES), ("hers", ALICE)];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Right {
    /// Of who runs as the service's user.
    Owner,
    /// Of who owns any service.
    Reader,
    /// Of root and the supervisor's own user.
    Administrator,
}

/// What is asked for, `SERVICE` being each in turn; and what root asks for before, so that it can be done. `never`: only those ask who
/// are refused.
type Row = (&'static str, Right, &'static str);

const TABLE: [Row; 26] = [
    ("start SERVICE", Right::Owner, "stop SERVICE"),
    ("stop SERVICE", Right::Owner, ""),
    ("restart SERVICE", Right::Owner, ""),
    ("once SERVICE", Right::Owner, "stop SERVICE"),
    ("kill SERVICE CONT", Right::Owner, ""),
    ("kill --tree SERVICE CONT", Right::Owner, ""),
    ("freeze SERVICE", Right::Owner, ""),
    ("thaw SERVICE", Right::Owner, "freeze SERVICE"),
    ("set SERVICE nofile=190 --persist", Right::Owner, ""),
    ("set SERVICE nofile=195 --persist", Right::Administrator, ""),
    // Nor does root record more than the definition gives, or give that without CAP_SYS_RESOURCE.
    ("set SERVICE nofile=201 --persist", Right::Administrator, "never"),
    ("set SERVICE oom_score_adj=-1 --persist", Right::Administrator, "never"),
    ("status SERVICE", Right::Reader, ""),
    ("status", Right::Reader, ""),
    ("list", Right::Reader, ""),
    ("tree SERVICE", Right::Reader, ""),
    ("audit SERVICE", Right::Reader, ""),
    ("wait SERVICE --up", Right::Reader, ""),
    ("events", Right::Reader, ""),
    ("boot", Right::Reader, ""),
    ("metrics", Right::Reader, ""),
    ("healthcheck SERVICE", Right::Reader, ""),
    ("reload", Right::Administrator, ""),
    ("reload --restart", Right::Administrator, ""),
    ("upgrade", Right::Administrator, ""),
    ("shutdown --code 7", Right::Administrator, "never"),
];

struct Board {
    world: World,
    supervisor: Supervisor,
    supervisor_uid: u32,
    services: Vec<(&'static str, u32)>,
    public: bool,
}

impl Board {
    fn new(rung: Rung, place: Place, public: bool) -> Self {
        let options: &[&str] = if public { &["--public-status"] } else { &[] };
        let mut world = World::new(Setup::new(rung, place).supervisor_option(options));
        let (supervisor_uid, services) = match rung {
            // Without root nobody else's services can be run.
            Rung::KeeperSameUid => (HERMES, vec![("theirs", HERMES)]),
            _ => (0, SERVICES.to_vec()),
        };
        for (name, uid) in &services {
            let mark = &world.mark;
            world.define(
                name,
                &format!("command = [\"/adversary\", \"pause\", {name:?}, {mark:?}]\nuser = \"{uid}\"\n[limits]\nnofile = 200\n"),
            );
        }
        let supervisor = world.start();
        world.ctl(&["wait", "--all", "--up"]).ok();
        Self { world, supervisor, supervisor_uid, services, public }
    }

    fn is_privileged(&self, caller: u32) -> bool {
        caller == 0 || caller == self.supervisor_uid
    }

    fn may(&self, caller: u32, right: Right, owner: u32) -> bool {
        self.is_privileged(caller)
            || match right {
                Right::Owner => caller == owner,
                Right::Reader => self.public || self.services.iter().any(|(_, uid)| *uid == caller),
                Right::Administrator => false,
            }
    }

    /// What must be as it was after a refusal: of each service what is wanted, its state, its process and its limits.
    fn all(&self) -> Vec<Value> {
        let services = self.world.statuses(Targets::All);
        assert!(services.len() >= self.services.len());
        let parts = ["name", "want", "state", "frozen", "pid", "restarts", "limits"];
        services.iter().map(|row| parts.map(|part| row[part].clone()).to_vec().into()).collect()
    }

    #[track_caller]
    fn ask(&self, caller: u32, words: &str, allowed: bool) {
        let before = (!allowed).then(|| self.all());
        let answer = self.world.ctl_as(&self.supervisor, caller, &words.split(' ').collect::<Vec<_>>());
        let wrong = || format!("{words:?} by {caller}: {answer:?}\n{}", self.world.stderr());
        let expected: &[i32] = match (allowed, self.supervisor_uid) {
            (true, _) => &[0],
            // It has no other code, for Docker.
            (false, _) if words.starts_with("healthcheck") => &[1],
            (false, 0) => &[6],
            // The socket lies where others do not come.
            (false, _) => &[5, 6],
        };
        assert!(expected.contains(&answer.code), "{}", wrong());
        if let Some(before) = before {
            assert_eq!(answer.out, "", "{}", wrong());
            assert_eq!(self.all(), before, "{}", wrong());
        }
    }

    fn play(&self) {
        for (words, right, before) in TABLE {
            let services = if words.contains("SERVICE") { &self.services[..] } else { &self.services[..1] };
            for (service, owner) in services {
                let words = words.replace("SERVICE", service);
                // Who may not first: what the others have done is no excuse.
                let mut callers = CALLERS.to_vec();
                callers.sort_by_key(|caller| self.may(*caller, right, *owner));
                for caller in callers {
                    let allowed = self.may(caller, right, *owner);
                    if before == "never" && allowed {
                        continue;
                    }
                    if allowed && !before.is_empty() {
                        self.ask(0, &before.replace("SERVICE", service), true);
                    }
                    self.ask(caller, &words, allowed);
                }
                self.ask(0, &format!("start {service}"), true);
                self.ask(0, &format!("thaw {service}"), true);
            }
        }
        self.registering();
        self.all_of_them();
    }

    /// A record runs as whom its registrant is, and below the home nobody but the gateway user is anybody.
    fn registering(&self) {
        for caller in CALLERS {
            for user in ["root", "hermes", "alice"] {
                let allowed = user == "hermes" && (caller == HERMES || self.is_privileged(caller));
                let words = format!("register new --user {user} -- /adversary pause new {}", self.world.mark);
                let answer =
                    self.world.ctl_as(&self.supervisor, caller, &words.split(' ').collect::<Vec<_>>());
                assert_eq!(answer.code == 0, allowed, "{words} by {caller}: {answer:?}");
                let running: Vec<_> = self.world.marked("new").into_iter().map(|it| it.uid).collect();
                assert_eq!(running, if allowed { vec![HERMES] } else { vec![] }, "{words} by {caller}");
                if allowed {
                    for other in CALLERS.into_iter().filter(|it| !self.may(*it, Right::Owner, HERMES)) {
                        self.ask(other, "unregister new", false);
                    }
                    self.ask(caller, "unregister new", true);
                }
            }
        }
    }

    /// `--all` means all that are the caller's.
    fn all_of_them(&self) {
        let pids = || -> Vec<_> {
            self.services.iter().map(|(name, _)| self.world.status(name)["pid"].clone()).collect()
        };
        for caller in CALLERS {
            let before = pids();
            let own: Vec<bool> =
                self.services.iter().map(|(_, owner)| self.may(caller, Right::Owner, *owner)).collect();
            self.ask(caller, "restart --all", own.contains(&true));
            let restarted: Vec<bool> = before.iter().zip(pids()).map(|(then, now)| *then != now).collect();
            assert_eq!(restarted, own, "restart --all by {caller}");
        }
    }
}

#[test]
fn as_root_with_cgroups() {
    Board::new(Rung::Cgroup, Place::Child, false).play();
}

#[test]
fn as_root_in_a_plain_container() {
    Board::new(Rung::Keeper, Place::Pid1, false).play();
}

#[test]
fn as_a_user() {
    Board::new(Rung::KeeperSameUid, Place::Pid1, false).play();
}

#[test]
fn with_public_status() {
    let board = Board::new(Rung::Cgroup, Place::Child, true);
    board.play();
    // The last word is for who may say it.
    let Board { world, mut supervisor, .. } = board;
    world.ctl(&["shutdown", "--code", "7"]).ok();
    assert_eq!(supervisor.ends(), crate::harness::End::Code(7));
}
