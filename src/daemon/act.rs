//! The one way out of the loop for what topics decide.

use crate::containment::{self, IncarnationId};
use crate::control::protocol::{Event, Outcome, Refusal, RefusalKind, Reply};
use crate::control::server::{ConnId, Incoming};
use crate::core::clock::Tick;
use crate::core::event::{self, Command, Incarnation, Ticket};
use crate::core::farewell::Farewell;
use crate::core::fleet::{Place, ServiceId};
use crate::core::name::ServiceName;
use crate::core::signal::Signal;
use crate::core::unit::ScopeName;
use crate::core::words::Want;
use crate::daemon::inbox::Input;
use crate::daemon::services::beside::Beside;
use crate::daemon::services::process_limits;
use crate::daemon::topics::definitions::found::{Found, Plan};
use crate::daemon::topics::definitions::{Define, Report};
use crate::daemon::topics::edits::Edit;
use crate::daemon::topics::limits::{self, MEMORY_HIGH};
use crate::daemon::topics::probing::Ask;
use crate::daemon::topics::requests::Kill;
use crate::daemon::topics::scopes::{ScopeAnswer, ScopeOrder};
use crate::daemon::topics::topology::About;
use crate::daemon::view::decide;
use crate::daemon::{Commit, Notice, Supervisor};
use crate::definition::probes::Probe;
use crate::definition::resolved::Pattern;
use crate::definition::trust::Trust;
use crate::hermes::boot_log::PriorExit;
use crate::hermes::state_watch::StateWatch;
use crate::log::SourceId;
use crate::store::Change;
use crate::sys::credentials::Credentials;
use crate::sys::pidfd::Pidfd;
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// What a topic wants done. What comes of it is news in the inbox.
#[derive(Debug)]
pub enum Action {
    /// Tell the core.
    Core(ServiceId, event::Event),
    /// Answer a caller.
    Reply(ConnId, Reply),
    /// To the readers of answers that last.
    Stream(Vec<ConnId>, Reply),
    /// Keep a line of the journal.
    Note(Arc<Event>),
    /// Something has happened, and is told.
    Tell(Event),
    Log(slog::Level, String),
    /// Something wrong with the whole, by its topic, for `status` and the log.
    Warn(&'static str, String),
    /// The signal to the main process, then let a frozen tree go on.
    SignalMain(IncarnationId, Signal),
    Scope(ConnId, ScopeName, ScopeOrder),
    /// One command to several services.
    Command {
        tickets: Vec<(ServiceId, Ticket)>,
        command: Command,
        /// All that get it in the end: these, and in a rolling restart those of the other turns.
        together: BTreeSet<ServiceId>,
        /// All of them were meant, and none by its name: they start in their turn.
        in_turn: bool,
    },
    Kill(Kill),
    /// Hear when the state file of this life changes.
    ListenToStateFile {
        id: ServiceId,
        incarnation: Incarnation,
        watch: StateWatch,
    },
    /// Nothing more is expected of this service.
    StopListening(ServiceId),
    /// Have its notify socket, if it is not there.
    ListenToNotify(ServiceId, Incarnation),
    /// Hear of a line of this life that the pattern matches.
    WatchLog(ServiceId, Incarnation, Pattern),
    Probe(Ask, Arc<Probe>),
    /// Nobody waits for it any more.
    EndProbe(Ask),
    /// Freeze a life that is ill, and keep what it was.
    Quarantine(ServiceId, IncarnationId),
    /// Look whether this program can take our place; ours, as it lies on disk, if none is named.
    CheckProgram(Option<PathBuf>),
    /// Deal with a request that was held back.
    Request(Incoming),
    /// To the main program, if it runs.
    MainProgram(Signal),
    /// End all services in order, by then.
    EndServices {
        deadline: Tick,
        farewell: Farewell,
    },
    KillServices,
    /// To every child of ours that is left when the ended ones are reaped.
    Orphans(Signal),
    /// Stop every process of a tree where it is, or let it go on.
    Freeze {
        life: IncarnationId,
        frozen: bool,
        ticket: Ticket,
    },
    /// Let a tree go on, whether it stands or not.
    Thaw(IncarnationId),
    SetLimits(limits::Asked),
    /// Put into force what can be now.
    PutLimits(IncarnationId, limits::InForce),
    /// Look which limits this main process has.
    ReadProcessLimits(IncarnationId, i32),
    /// The life ends because of the OOM killer.
    EndForOom(IncarnationId),
    /// The hook of this limit, beside the main process of a life.
    RunMemoryHigh {
        id: ServiceId,
        life: IncarnationId,
        argv: Vec<String>,
    },
    /// Put rows on disk; what becomes of it is told to whom they are for.
    Commit(Commit, Vec<Change>),
    /// The answer to something that a topic other than the requests has done.
    Answer(Ticket, Outcome),
    /// The kernel takes back what this life does not use.
    Reclaim(IncarnationId),
    /// So many services may start at a time.
    Places(usize),
    /// Where the work of a gateway is done.
    Place(ServiceId, Place),
    /// Hear when the root gateway's state file changes.
    WatchRoot(StateWatch),
    UnwatchRoot,
    /// Talk to the root gateway, which is this process; `None`: it has not said anything yet.
    Converse {
        pid: Option<u32>,
        about: About,
    },
    /// Lines of the boot log, one a profile.
    TellBoot(Vec<(String, PriorExit)>),
    /// Of a gateway whose profile is gone, by its name in the scan directory.
    RemoveSlot(String),
    /// Show these gateways in the scan directory, then read it.
    ReadSlots(Vec<(ServiceName, Want)>),
    /// A gateway has come to be known, and is to be shown in the scan directory.
    ShowGateway(ServiceName, Want),
    /// The scan directory may be another.
    Scan,
    /// What has become of definition files.
    Edited(Vec<Edit>),
    /// A command that nobody waits for.
    OwnCommand(ServiceId, Command),
    /// Read everything that lies in files; by its number.
    ReadDefinitions(u64),
    /// What is still being read, for `status` and the log.
    SayLate(Vec<PathBuf>),
    Define(Define),
    /// How far the database may be believed from now on.
    Trust(Trust),
    /// What the start did without goes where the database wants it.
    BootLate(Box<Plan>, Box<Found>),
    /// Tell of a reload, when what comes before is done.
    Reloaded(Report),
    /// Deal with a request that need not wait any longer.
    Serve(Incoming),
    /// Work that may hang with the disk.
    Files(FileWork),
}

/// In order.
pub type Actions = Vec<Action>;

impl Action {
    pub fn refuse(conn: ConnId, kind: RefusalKind, message: impl Into<String>) -> Self {
        Self::Reply(conn, Reply::Refused(Refusal::new(kind, message)))
    }
}

/// Work for the thread that may wait for a disk.
pub struct FileWork {
    /// Whose file access it has.
    pub credentials: Credentials,
    /// Returns what is to be told of it.
    pub work: Box<dyn FnOnce() -> Notice + Send>,
    /// What is to be told if it cannot be done, and why not.
    pub refused: Arc<dyn Fn(io::Error) -> Notice + Send + Sync>,
}

impl fmt::Debug for FileWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileWork").field("credentials", &self.credentials).finish_non_exhaustive()
    }
}

impl Supervisor {
    /// Carries out what a topic has decided.
    pub(super) fn carry_out(&mut self, actions: Actions) {
        for action in actions {
            match action {
                Action::Core(id, event) => self.inbox.core(id, event),
                Action::Reply(conn, reply) => self.reply(conn, &reply),
                Action::Stream(conns, part) => self.server.stream(&conns, &part),
                Action::Note(event) => self.store.note(event),
                Action::Tell(event) => self.happened(event),
                Action::Log(level, text) => self.say(level, &text),
                Action::Warn(topic, text) => self.warn(topic, text),
                Action::SignalMain(life, signal) => self.signal_main(&life, signal),
                Action::Scope(conn, name, order) => self.order_scope(conn, name, order),
                Action::Command { tickets, command, together, in_turn } => {
                    self.admit(&tickets, command, in_turn);
                    self.command(tickets, command, &together);
                }
                Action::Kill(kill) => {
                    let error = self.kill(&kill).err();
                    self.inbox.push(Input::Killed(kill, error.map(|error| error.to_string())));
                }
                Action::Freeze { life, frozen, ticket } => {
                    let error = self.containment.freeze(&life, frozen).err().map(|error| error.to_string());
                    self.inbox.push(Input::FreezeOrdered { life, frozen, ticket, error });
                }
                Action::MainProgram(signal) => self.main.iter().for_each(|main| main.signal(signal)),
                Action::EndServices { deadline, farewell } => {
                    self.containment.begin_to_close(farewell);
                    let effects = self.fleet.shutdown(deadline, self.clock.now());
                    self.execute(effects);
                }
                Action::KillServices => {
                    let effects = self.fleet.kill_all(self.clock.now());
                    self.execute(effects);
                }
                Action::Orphans(signal) => {
                    self.reap();
                    // Most have none.
                    if self.topics.shutdown.has_children() {
                        self.signal_orphans(signal);
                    }
                }
                Action::CheckProgram(program) => self.check_program(program),
                Action::Request(incoming) => self.inbox.push(Input::Request(incoming)),
                Action::ListenToStateFile { id, incarnation, watch } => {
                    if let Err(error) =
                        self.listeners.state_file(&self.wakeups.registry, id, incarnation, watch)
                    {
                        slog::warn!(self.log, "failed to watch a state file"; "error" => %error);
                    }
                }
                Action::ListenToNotify(id, incarnation) => self.listen_to_notify(id, incarnation),
                Action::WatchLog(id, incarnation, pattern) => {
                    self.logs.watch(SourceId(id.0), incarnation, pattern.0);
                }
                Action::Probe(ask, probe) => self.begin_probe(ask, &probe),
                Action::EndProbe(ask) => self.end_probe(ask),
                Action::Quarantine(id, life) => self.quarantine(id, &life),
                Action::StopListening(id) => self.listeners.forget(&self.wakeups.registry, id),
                Action::Place(id, place) => {
                    #[cfg(test)]
                    let place = crate::daemon::simulation::planted::place(place);
                    let effects = self.fleet.place(id, place, self.clock.now());
                    self.execute(effects);
                }
                Action::Reclaim(life) => self.reclaim(&life),
                Action::Places(places) => self.fleet.limit_starts(Some(places)),
                Action::WatchRoot(watch) => {
                    if let Err(error) = self.root_watch.begin(&self.wakeups.registry, watch) {
                        slog::warn!(self.log, "failed to watch a state file"; "error" => %error);
                    }
                }
                Action::UnwatchRoot => self.root_watch.end(&self.wakeups.registry),
                Action::Converse { pid, about } => self.converse(pid, about),
                Action::TellBoot(lines) => self.tell_boot(lines),
                Action::RemoveSlot(name) => self.remove_slot(name),
                Action::ReadSlots(shown) => self.read_slots(shown),
                Action::ShowGateway(name, want) => decide!(self.scanning.show(name, want)),
                Action::Scan => decide!(self.scanning.scan()),
                Action::Edited(edits) => {
                    for (id, edit) in edits {
                        self.services.get_mut(&id).into_iter().for_each(|service| service.edited = edit);
                    }
                }
                Action::OwnCommand(id, command) => {
                    let ticket = self.topics.requests.own_ticket();
                    self.inbox.core(id, event::Event::Command { ticket, command });
                }
                Action::ReadDefinitions(number) => self.read_definitions(number),
                Action::SayLate(late) => self.say_late(&late),
                Action::Define(define) => self.define(define),
                Action::Trust(trust) => self.state_trust = trust,
                Action::BootLate(plan, found) => self.boot_late(*plan, &found),
                Action::Reloaded(report) => self.inbox.push(Input::Reloaded(report)),
                Action::Serve(incoming) => self.serve(incoming),
                Action::Thaw(life) => self.containment.thaw(&life),
                Action::SetLimits(asked) => self.inbox.push(Input::SetLimits(asked)),
                Action::PutLimits(life, in_force) => {
                    let left = self.containment.set_limits(&life, in_force.now());
                    self.inbox.push(Input::LimitsPut { life, in_force, left });
                }
                Action::ReadProcessLimits(life, pid) => {
                    let has = process_limits::had_by(pid);
                    has.into_iter().for_each(|has| self.inbox.push(Input::ProcessLimits(life.clone(), has)));
                }
                Action::EndForOom(life) => self.containment.end_for_oom(&life, self.clock.now()),
                Action::RunMemoryHigh { id, life, argv } => {
                    if let Err(why) = self.run_beside(id, &life, Beside::MemoryHigh, argv) {
                        self.happened(Event::of_hook(MEMORY_HIGH, Err(&why)).about(&life.name));
                    }
                }
                Action::Commit(commit, changes) => self.commit(commit, changes),
                Action::Answer(ticket, outcome) => self.inbox.answer(ticket, outcome),
                Action::Files(FileWork { credentials, work, refused }) => {
                    let (notifier, not_done) = (self.wakeups.notifier.clone(), Arc::clone(&refused));
                    let done = move |answer: io::Result<Notice>| {
                        notifier.send(answer.unwrap_or_else(|error| not_done(error)));
                    };
                    if let Err(full) = self.logs.files().run(credentials, work, done) {
                        self.inbox.push(Input::Notice(refused(io::Error::other(full))));
                    }
                }
            }
        }
    }

    fn say(&self, level: slog::Level, text: &str) {
        match level {
            slog::Level::Critical | slog::Level::Error => slog::error!(self.log, "{text}"),
            slog::Level::Warning => slog::warn!(self.log, "{text}"),
            slog::Level::Info => slog::info!(self.log, "{text}"),
            slog::Level::Debug | slog::Level::Trace => slog::debug!(self.log, "{text}"),
        }
    }

    fn signal_main(&mut self, life: &IncarnationId, signal: Signal) {
        // It may have ended meanwhile: then the news of that is on its way.
        let _ = self.containment.signal_main(life, signal);
        // What is frozen finds the signal before it when it goes on, and not a moment of a life without one.
        self.containment.thaw(life);
        let _ = self.containment.signal_main(life, Signal::CONT);
    }

    /// The core carries out a command, unless the root gateway does it for a profile that it serves.
    fn command(
        &mut self,
        mut tickets: Vec<(ServiceId, Ticket)>,
        command: Command,
        together: &BTreeSet<ServiceId>,
    ) {
        // What others require is on its way up when these are asked.
        if matches!(command, Command::Start { .. } | Command::Restart) {
            self.fleet.put_in_order(&mut tickets);
        }
        for (id, ticket) in tickets {
            decide!(self.topology.command(id, ticket, command, together));
        }
    }

    /// What a person starts by its name does not wait for its turn.
    fn admit(&mut self, tickets: &[(ServiceId, Ticket)], command: Command, in_turn: bool) {
        let (ids, now) = (tickets.iter().map(|(id, _)| *id), self.clock.now());
        let effects = match command {
            Command::Start { .. } | Command::Restart if in_turn => self.fleet.in_turn(ids, now),
            Command::Start { .. } | Command::Restart | Command::Once => self.fleet.at_once(ids, now),
            Command::Stop | Command::Unregister => return,
        };
        self.execute(effects);
    }

    fn kill(&mut self, kill: &Kill) -> io::Result<()> {
        if kill.tree {
            self.containment.signal_tree(&kill.life, kill.signal);
        } else {
            self.containment.signal_main(&kill.life, kill.signal)?;
        }
        self.containment.thaw(&kill.life);
        Ok(())
    }

    fn order_scope(&mut self, conn: ConnId, name: ScopeName, order: ScopeOrder) {
        let (id, answer) = match order {
            ScopeOrder::Open(member, limits) => {
                let opened = self.containment.open_scope(&member, &name, limits);
                (member.id, ScopeAnswer::Opened(opened))
            }
            ScopeOrder::End(id) => {
                let there = self.containment.end_scope(&id, &name, self.clock.now());
                (id, ScopeAnswer::Ending(there))
            }
            ScopeOrder::Show(id) => {
                let shown = self.containment.scope(&id, &name);
                (id, ScopeAnswer::Shown(shown))
            }
        };
        // An end of it that this has brought to light comes after who waits for that.
        self.inbox.push(Input::Scope(conn, id, name, answer));
    }

    /// Signals the children that belong to no life. A keeper that has said that its tree is empty ends by itself; only what hangs is
    /// killed with the others. Process 1 does not wait for that either: the kernel ends all with it (pid_namespaces(7)).
    fn signal_orphans(&mut self, signal: Signal) {
        let mut children = containment::children_of_ours();
        if signal != Signal::KILL {
            children.retain(|pid| !self.containment.has_child(*pid));
        }
        if children.is_empty() && rustix::process::getpid().is_init() {
            self.topics.shutdown.no_orphans();
        }
        for pid in children {
            if let Ok(orphan) = Pidfd::open(pid) {
                let _ = orphan.send(signal);
            }
        }
    }
}
