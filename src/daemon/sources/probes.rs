//! Probes under way: connections of ours, programs in a service's containment, looks at files.
//!
//! When to ask and what an answer means is the matter of `topics::probing` and those who use it.

use crate::containment::{IncarnationId, SpawnError};
use crate::core::exit::Exit;
use crate::core::fleet::ServiceId;
use crate::daemon::act::{Action, FileWork};
use crate::daemon::inbox::Input;
use crate::daemon::services::beside::Beside;
use crate::daemon::sources::probe_token;
use crate::daemon::topics::probing::{Answer, Ask, Outcome, Purpose};
use crate::daemon::view::decide;
use crate::daemon::{Notice, Supervisor};
use crate::definition::probes::Probe;
use crate::probe::{Connection, Expected, Failure};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Those whose end comes to the loop.
#[derive(Debug, Default)]
pub struct Probes {
    /// By the number in their token.
    connections: BTreeMap<u32, (Ask, Connection)>,
    next: u32,
}

impl Supervisor {
    /// Begins a probe; its answer comes as news.
    pub(in crate::daemon) fn begin_probe(&mut self, ask: Ask, probe: &Arc<Probe>) {
        let begun = match &**probe {
            Probe::Tcp(address) => {
                self.connect(ask, |registry, token| Connection::connect(registry, token, *address))
            }
            Probe::Http(http) => self.connect(ask, |registry, token| {
                let expected = Expected { status: http.status, contains: http.contains.clone() };
                Connection::get(registry, token, http.address, (&http.host, &http.target), expected)
            }),
            Probe::Exec(argv) => self.run_probe(ask, argv.clone()),
            Probe::Unix(_) | Probe::FileAge { .. } => self.look_at_file(ask, Arc::clone(probe)),
        };
        if let Err(failure) = begun {
            self.inbox.push(Input::Probed(Answer { ask, outcome: Err(failure) }));
        }
    }

    fn connect(
        &mut self,
        ask: Ask,
        connect: impl FnOnce(&mio::Registry, mio::Token) -> io::Result<Connection>,
    ) -> Result<(), Failure> {
        self.probes.next = self.probes.next.wrapping_add(1);
        let number = self.probes.next;
        let connection =
            connect(&self.wakeups.registry, probe_token(number)).map_err(|error| match error.kind() {
                // Of us, not of the service: too many descriptors, no memory.
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NetworkUnreachable => Failure::Io(error),
                _ => Failure::NotAsked(error.to_string()),
            })?;
        self.probes.connections.insert(number, (ask, connection));
        Ok(())
    }

    /// As the service's user, within its containment and its limits.
    fn run_probe(&mut self, ask: Ask, argv: Vec<String>) -> Result<(), Failure> {
        if self.gives_way(ask) {
            return Err(being_upgraded());
        }
        let life = self.life(ask.id).filter(|life| life.n == ask.incarnation);
        let life = life.ok_or_else(|| Failure::NotAsked("it has ended".to_owned()))?;
        let begun = self.run_beside(ask.id, &life, Beside::Probe(ask), argv);
        begun.map_err(|error| Failure::NotAsked(error.to_string()))
    }

    /// By the thread that may wait for a disk, with the rights of the service's user.
    fn look_at_file(&mut self, ask: Ask, probe: Arc<Probe>) -> Result<(), Failure> {
        let user =
            self.services.get(&ask.id).map(|service| self.surroundings.lookup(&service.definition.user));
        let user = user.ok_or_else(|| Failure::NotAsked("it is gone".to_owned()))?;
        let user = user.map_err(|error| Failure::NotAsked(error.to_string()))?;
        let answer = move |outcome| Notice::Probed(Answer { ask, outcome });
        self.carry_out(vec![Action::Files(FileWork {
            credentials: user.credentials(),
            work: Box::new(move || {
                answer(
                    match &*probe {
                        Probe::Unix(path) => knock(path),
                        Probe::FileAge { path, .. } => {
                            std::fs::metadata(path).and_then(|found| found.modified()).map(Some)
                        }
                        Probe::Tcp(_) | Probe::Http(_) | Probe::Exec(_) => Ok(None),
                    }
                    .map_err(Failure::Io),
                )
            }),
            refused: Arc::new(move |why| answer(Err(Failure::NotAsked(why.to_string())))),
        })]);
        Ok(())
    }

    /// Nobody waits for this one any more.
    pub(in crate::daemon) fn end_probe(&mut self, ask: Ask) {
        self.probes.connections.retain(|_, (of, _)| *of != ask);
        // Its end comes all the same, and then the next one can be run.
        let mut programs = self.beside.iter().filter(|(_, what)| **what == Beside::Probe(ask));
        if let Some((life, _)) = programs.next() {
            self.containment.end_hook(life, self.clock.now());
        }
    }

    /// An upgrade waits until nothing is under way, and the next supervisor asks anew. For a service that is still to become
    /// ready it waits anyway.
    fn gives_way(&self, ask: Ask) -> bool {
        ask.purpose == Purpose::Health && self.topics.upgrade.is_asked()
    }

    /// Ends the programs that give way to an upgrade.
    pub(in crate::daemon) fn make_room_for_upgrade(&mut self) {
        for (life, what) in &self.beside {
            if matches!(what, Beside::Probe(ask) if self.gives_way(*ask)) {
                self.containment.end_hook(life, self.clock.now());
            }
        }
    }

    /// A connection has news.
    pub(in crate::daemon) fn hear_probe(&mut self, number: u32) {
        let Some((ask, connection)) = self.probes.connections.get_mut(&number) else { return };
        let Some(answer) = connection.ready() else { return };
        let ask = *ask;
        self.probes.connections.remove(&number);
        self.answered(Answer { ask, outcome: answer.map(|()| None) });
    }

    /// A program has ended, maybe to make room for a hook or for an upgrade.
    pub(in crate::daemon) fn probe_ended(
        &mut self,
        ask: Ask,
        made_room: bool,
        ended: &Result<Exit, SpawnError>,
    ) {
        let outcome: Outcome = match ended {
            _ if made_room => Err(Failure::NotAsked("a hook takes its place".to_owned())),
            _ if self.gives_way(ask) => Err(being_upgraded()),
            Ok(exit) if exit.is_success() => Ok(None),
            Ok(exit) => Err(Failure::Exit(*exit)),
            Err(error) => Err(Failure::NotAsked(error.to_string())),
        };
        self.inbox.push(Input::Probed(Answer { ask, outcome }));
    }

    /// A probe has an answer.
    pub(in crate::daemon) fn answered(&mut self, answer: Answer) {
        match answer.ask.purpose {
            Purpose::Ready => decide!(self.readiness.answered(answer)),
            Purpose::Health => decide!(self.health.answered(answer)),
        }
    }

    /// Freezes a life that is ill, and keeps what it was.
    pub(in crate::daemon) fn quarantine(&mut self, id: ServiceId, life: &IncarnationId) {
        let processes = self.snapshot(id);
        if let Err(error) = self.containment.freeze(life, true) {
            slog::warn!(self.log, "{}: it cannot be frozen: {error}", life.name);
            return decide!(self.health.not_quarantined(id));
        }
        decide!(self.health.snapshot(id, life.n, processes));
        let Some(service) = self.services.get(&id) else { return };
        let (home, dir) = (self.options.home.clone(), crate::daemon::execute::log_dir(service));
        let (credentials, n) = (self.surroundings.gateway.credentials(), life.n);
        let told = move |lines| Notice::LastLines { id, incarnation: n, lines };
        self.carry_out(vec![Action::Files(FileWork {
            credentials,
            work: Box::new(move || told(last_lines(&home, dir))),
            refused: Arc::new(move |why| told(vec![format!("its log cannot be read: {why}")])),
        })]);
    }

    /// Its processes, in words; at most a handful.
    fn snapshot(&self, id: ServiceId) -> Vec<String> {
        const MOST: usize = 20;
        let processes: Vec<_> = self.tree(id).into_iter().flat_map(|part| part.processes).collect();
        let more = processes.len().saturating_sub(MOST);
        let shown = processes.into_iter().take(MOST);
        let mut lines: Vec<String> = shown
            .map(|process| format!("process {} ({}): {}", process.pid, process.state, process.command))
            .collect();
        if more > 0 {
            lines.push(format!("and {more} more processes"));
        }
        lines
    }
}

fn being_upgraded() -> Failure {
    Failure::NotAsked("the supervisor is being upgraded".to_owned())
}

/// Connects and hangs up. Between Unix sockets nothing is under way: they connect at once or not at all.
fn knock(path: &Path) -> io::Result<Option<std::time::SystemTime>> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let mut last = rustix::io::Errno::PROTOTYPE;
    for kind in [SocketType::STREAM, SocketType::SEQPACKET, SocketType::DGRAM] {
        let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)?;
        match rustix::net::connect(&socket, &address) {
            // Its queue is full: it is there, and has not accepted for a while.
            Ok(()) => return Ok(None),
            Err(rustix::io::Errno::PROTOTYPE) => last = rustix::io::Errno::PROTOTYPE,
            Err(error) => {
                last = error;
                break;
            }
        }
    }
    Err(last.into())
}

/// The end of its log.
fn last_lines(home: &Path, dir: std::path::PathBuf) -> Vec<String> {
    use crate::log::{Query, Reader};
    const LAST: usize = 10;
    const LONGEST: usize = 200;
    let query = Query { last: Some(LAST), within: Some(64 * 1024), ..Query::default() };
    let mut lines = Vec::new();
    let read = Reader::open(home, &[dir], query, crate::sys::localtime::Zone::own(), &mut |_, _| {});
    let read = read.and_then(|mut reader| {
        reader.read(false, &mut |line| {
            if line.begins {
                let text: String = String::from_utf8_lossy(line.text)
                    .chars()
                    .map(|c| if c.is_control() { '?' } else { c })
                    .take(LONGEST)
                    .collect();
                lines.push(format!("last line: {text}"));
            }
            Ok(())
        })
    });
    lines.extend(read.err().map(|error| format!("its log cannot be read: {error}")));
    lines
}
