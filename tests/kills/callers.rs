//! Callers with random commands. Each has services of its own, so that it knows what the last answer about one means.

use super::asking::{Sockets, Told, ask, one, pausing};
use super::fleet::{FLEET, REGISTERED};
use super::harness::{Dice, process, wait};
use super::ledger::{Ledger, Wish};
use hermes_sup::control::client::Client;
use hermes_sup::control::protocol::{Part, Request, SignalName};
use hermes_sup::core::signal::Signal;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

pub const CALLERS: usize = 3;

/// In this time each command is answered that is not waited for by design, on a machine that has other work too.
const PATIENCE: Duration = Duration::from_secs(60);

/// What callers and those who disturb them share.
pub struct Site {
    pub sockets: Sockets,
    /// Where the socket appears.
    pub run: PathBuf,
    pub mark: String,
    ledger: Mutex<Ledger>,
}

impl Site {
    pub fn new(sockets: Sockets, run: PathBuf, mark: String) -> Self {
        let mut ledger = Ledger::new();
        for member in &FLEET {
            let is_up = member.name != super::fleet::LATER;
            ledger.known(member.name, if is_up { Wish::Up } else { Wish::Down });
        }
        REGISTERED.iter().for_each(|name| ledger.known(name, Wish::Absent));
        Self { sockets, run, mark, ledger: Mutex::new(ledger) }
    }

    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A connection to whatever supervisor there is, or is soon.
    fn client(&self) -> Option<Client> {
        let client = wait::within(PATIENCE, &self.run, || self.sockets.client().ok());
        if client.is_none() {
            self.ledger().wrong(format!("no supervisor answers within {} s", PATIENCE.as_secs()));
        }
        client
    }

    /// Processes that carry `word`.
    pub fn processes(&self, word: &str) -> usize {
        let has = |command: &str| command.split(' ').any(|each| each == word);
        process::marked(&self.mark).iter().filter(|process| has(&process.command)).count()
    }

    /// Asks for something for one service. The wish of it holds from now on, if it is said to be done.
    pub fn command(
        &self,
        who: usize,
        verb: &'static str,
        name: &str,
        wish: Option<Wish>,
        request: &Request,
    ) -> bool {
        let Some(client) = self.client() else { return false };
        if let Some(wish) = wish {
            self.ledger().possible(name, wish);
        }
        let told = ask(Ok(client), &[name], request, PATIENCE).remove(name).unwrap_or(Told::Silence);
        let mut ledger = self.ledger();
        ledger.tell(format_args!("caller {who}: {verb} {name}: {told:?}"));
        ledger.count(verb);
        match (&told, wish) {
            (Told::Done, Some(wish)) => ledger.known(name, wish),
            (Told::Silence, _) => ledger.wrong(format!("{verb} {name} is not answered")),
            _ => {}
        }
        told == Told::Done
    }

    pub fn stop(&self, who: usize, name: &str) {
        if self.command(who, "stop", name, Some(Wish::Down), &Request::Stop { targets: one(name) }) {
            self.is_gone("stop", name);
        }
    }

    /// It was said that no process of it is left.
    fn is_gone(&self, verb: &str, name: &str) {
        let count = self.processes(name);
        if count > 0 {
            self.ledger().wrong(format!("{verb} {name} was said to be done, and it has {count} processes"));
        }
    }

    fn status(&self, who: usize, name: &str) {
        let Some(mut client) = self.client() else { return };
        let mut seen = BTreeMap::new();
        let answer = client.call(&Request::Status { targets: one(name) }, Some(PATIENCE), |part| {
            if let Part::Service(service) = part {
                seen.insert(service.name.clone(), service.want);
            }
        });
        let mut ledger = self.ledger();
        ledger.tell(format_args!("caller {who}: status {name}: {answer:?} {seen:?}"));
        ledger.count("status");
        for (name, want) in seen {
            if !ledger.is_possible(&name, Wish::from(want)) {
                ledger.wrong(format!("status says that {name} is wanted {want:?}"));
            }
        }
    }

    /// Follows what happens for some parts.
    fn events(&self, who: usize, most: u64) {
        let Some(mut client) = self.client() else { return };
        let request = Request::Events { since_ms: None, last: Some(5), follow: true };
        let mut left = most.min(5);
        let ended = client.listen(&request, Some(Duration::from_millis(200)), |_| {
            left = left.saturating_sub(1);
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let mut ledger = self.ledger();
        ledger.tell(format_args!("caller {who}: events: {ended:?}"));
        ledger.count("events");
    }
}

impl From<hermes_sup::core::words::Want> for Wish {
    fn from(want: hermes_sup::core::words::Want) -> Self {
        match want {
            hermes_sup::core::words::Want::Up => Self::Up,
            hermes_sup::core::words::Want::Down => Self::Down,
        }
    }
}

/// Commands for the services of caller `who`.
pub fn call(site: &Site, who: usize, mut dice: Dice, commands: u64) {
    let all = FLEET.iter().map(|member| member.name).chain(REGISTERED);
    let own: Vec<&str> = all.skip(who).step_by(CALLERS).collect();
    for _ in 0..commands {
        if !site.ledger().wrong.is_empty() {
            // The run is over, and there may be no supervisor to wait for.
            return;
        }
        let name = dice.pick(&own);
        if REGISTERED.contains(&name) && !site.ledger().is_possible(name, Wish::Up) && dice.roll(4) > 0 {
            register(site, who, name);
        } else {
            one_command(site, who, name, &mut dice);
        }
    }
}

fn one_command(site: &Site, who: usize, name: &str, dice: &mut Dice) {
    let timeout_ms = Some(30_000);
    let targets = one(name);
    // What is not there is not started either.
    let is_guest = REGISTERED.contains(&name);
    let (verb, wish, request) = match dice.roll(17) {
        0..=2 if is_guest => return unregister(site, who, name),
        0..=2 => ("start", Some(Wish::Up), Request::Start { targets, timeout_ms, force: false }),
        3..=4 if !is_guest => return site.stop(who, name),
        5..=6 if !is_guest => {
            ("restart", Some(Wish::Up), Request::Restart { targets, timeout_ms, rolling: None })
        }
        7 => {
            let (signal, tree) = (SignalName(Signal::KILL), dice.roll(2) == 0);
            ("kill", None, Request::Kill { targets, signal, tree })
        }
        8 => ("freeze", None, Request::Freeze { targets }),
        9 => ("thaw", None, Request::Thaw { targets }),
        10 => {
            let limits = BTreeMap::from([("nofile".to_owned(), (512 + dice.roll(64)).to_string())]);
            ("set", None, Request::Set { targets, limits, persist: dice.roll(2) == 0 })
        }
        11 => return site.events(who, dice.roll(8)),
        12 => return for_all(site, who, "reload", &Request::Reload { restart: dice.roll(2) == 0 }),
        // One at a time: the second is refused.
        13 if who == 0 => return for_all(site, who, "upgrade", &Request::Upgrade { program: None }),
        _ => return site.status(who, name),
    };
    site.command(who, verb, name, wish, &request);
}

fn for_all(site: &Site, who: usize, verb: &'static str, request: &Request) {
    let Some(client) = site.client() else { return };
    let told = ask(Ok(client), &[], request, PATIENCE);
    let mut ledger = site.ledger();
    ledger.tell(format_args!("caller {who}: {verb}: {:?}", told.get("")));
    ledger.count(verb);
    if told.get("") == Some(&Told::Silence) {
        ledger.wrong(format!("{verb} is not answered"));
    }
}

fn register(site: &Site, who: usize, name: &str) {
    site.command(who, "register", name, Some(Wish::Up), &Request::Register(pausing(name, &site.mark)));
}

pub fn unregister(site: &Site, who: usize, name: &str) {
    let request = Request::Unregister { targets: one(name) };
    if site.command(who, "unregister", name, Some(Wish::Absent), &request) {
        site.is_gone("unregister", name);
    }
}
