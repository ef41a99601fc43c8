//! The last part of a boot: all services become known and go where the database wants them, and the main program starts.

use crate::control::protocol::{self, EventKind};
use crate::core::clock::Tick;
use crate::core::event::{Command, Event};
use crate::core::fleet::ServiceId;
use crate::core::gateway::{Gateway, Restored};
use crate::core::name::ServiceName;
use crate::core::words::{Cause, Stream, Want};
use crate::daemon::Supervisor;
use crate::daemon::boot::cmd::Cmd;
use crate::daemon::boot::has_terminal;
use crate::daemon::boot::ownership::Gateways;
use crate::daemon::boot::ownership::adoption::Inheritance;
use crate::daemon::boot::patience::with_patience;
use crate::daemon::boot::reading::reconcile::Reconciled;
use crate::daemon::boot::steps::start_error::StartError;
use crate::daemon::clock::wall_seconds;
use crate::daemon::execute::history;
use crate::daemon::main_program::MainProgram;
use crate::daemon::surface::slots;
use crate::daemon::topics::definitions::asleep::surplus;
use crate::daemon::topics::definitions::found::{Found, Plan, first_want, is_profile};
use crate::daemon::view::{decide, view};
use crate::definition::template::DEFAULT_PROFILE;
use crate::hermes::boot_log::{self, Action, PriorExit};
use crate::hermes::redirect::breadcrumb;
use crate::log::Container;
use crate::store::{Change, Opened};
use crate::sys::beneath::Beneath;
use crate::sys::credentials::Credentials;
use crate::sys::localtime::Local;
use rustix::event::{PollFd, PollFlags, Timespec};
use std::collections::{BTreeMap, BTreeSet};

impl Supervisor {
    /// All services become known. Returns where the database wants them, for [`Self::boot_fleet`].
    pub(in crate::daemon) fn boot_services(
        &mut self,
        plan: Plan,
        opened: &Opened,
        found: &Found,
        reconciled: &Reconciled,
        inheritance: Inheritance,
        cmd: &Cmd,
    ) -> BTreeMap<ServiceId, Restored> {
        let Inheritance { mut lives, goes_on, continued, stopped } = inheritance;
        self.forget_surplus(opened, found, &plan);
        let Plan { services, complaints, .. } = plan;
        for complaint in complaints {
            self.happened(protocol::Event::warning(EventKind::Refused, complaint));
        }
        let now = self.clock.now();
        let mut restored = BTreeMap::new();
        let mut first_seen = Vec::new();
        let mut boot_lines: Vec<(String, PriorExit)> = Vec::new();
        // Where the root gateway has yet to say which profiles it serves.
        let mut later = Vec::new();
        let mut gateways = Vec::new();
        for (name, (mut definition, record)) in services {
            let row = opened.wants.get(&name);
            let mirrored = opened.mirrored.get(&name);
            let intent = found.intent(&definition, record.as_ref(), &self.surroundings);
            let supervised = match cmd {
                Cmd::Supervised(profile, extra) if *profile == name => Some(extra),
                Cmd::Supervised(..) | Cmd::Main(_) | Cmd::Foreground(..) | Cmd::None => None,
            };
            let (mut wanted, mut cause) = match row {
                Some(row) => (row.want, None),
                None => {
                    let (first, cause) = first_want(&definition, intent);
                    (first, Some(cause))
                }
            };
            let is_stopped = stopped.contains(&name);
            if is_stopped {
                wanted = Want::Down;
            }
            let wish = row.and_then(|row| found.outside_wish(row, mirrored, intent));
            if let Some(extra) = supervised {
                definition.add_arguments(extra);
            }
            if supervised.is_some() && !continued {
                if row.is_none_or(|_| wanted == Want::Down) {
                    cause = Some(Cause::GatewayRun);
                }
                wanted = Want::Up;
            } else if let Some(wish) = wish {
                (wanted, cause) = (wish, Some(Cause::GatewayState));
                let word = if wish == Want::Up { "up" } else { "down" };
                slog::info!(
                    self.log,
                    "{name}: its gateway_state.json was changed: it is wanted {word} from now on"
                );
            }
            let foreground = matches!(cmd, Cmd::Foreground(_, held) if held.contains(&name));
            let held_back = supervised.is_none() && self.stays_down(&definition);
            let in_force = if held_back { Want::Down } else { wanted };
            if is_profile(&definition) || intent.is_some() {
                let prior = found.intents.get(&name).and_then(|intent| intent.state.as_deref());
                let action =
                    if in_force == Want::Up && !foreground { Action::Started } else { Action::Registered };
                let exit = reconciled.exits.get(&name).copied().unwrap_or_default();
                let is_root = name.as_str() == DEFAULT_PROFILE;
                if action == Action::Started && !is_root {
                    later.push((name.clone(), prior.map(str::to_owned), exit));
                } else {
                    // The root profile comes first, as those who read the file know it.
                    let place = if is_root { 0 } else { boot_lines.len() };
                    boot_lines.insert(place, (boot_log::line(&name, prior, action), exit));
                }
                if record.is_none() {
                    let shown = if action == Action::Started { Want::Up } else { Want::Down };
                    gateways.push((name.clone(), shown));
                }
            }
            self.topics.definitions.wake(&name);
            let hash = definition.hash;
            let id = self.add_service(definition, record);
            if let Some((service, extra)) = self.services.get_mut(&id).zip(supervised) {
                service.extra_args.clone_from(extra);
            }
            if foreground {
                let reason = "it runs in the foreground, as the container's main program".to_owned();
                let effects = self.fleet.hold(id, reason, now);
                self.execute(effects);
            }
            if let Some(cause) = cause {
                first_seen.push(Change::Want(name.clone(), self.want_row(id, wanted, cause)));
            }
            let known = self.know_mirror(id, wanted, mirrored, intent);
            first_seen.extend(known.map(|row| Change::Mirrored(name.clone(), row)));
            let history = opened.runs.get(&name).map(|row| history(row, hash)).unwrap_or_default();
            let adopted = lives.remove(&name);
            let finished = goes_on && self.finished.contains(&name);
            if let Some(adopted) = &adopted {
                self.welcome(id, adopted);
            }
            let living = adopted.map(|adopted| adopted.living);
            if let Some(row) = row {
                self.fleet.note_use(id, Tick(row.asked_at_ms));
            }
            restored.insert(
                id,
                Restored {
                    want: in_force,
                    recorded: in_force == wanted && !is_stopped,
                    history,
                    living,
                    finished,
                    needed: None,
                },
            );
        }
        if !first_seen.is_empty() {
            self.store.commit_lazily(first_seen);
        }
        if self.options.s6_surface {
            self.show_at_boot(gateways);
        }
        // An image that makes the slots of its gateways itself has told so itself, too.
        let is_root = |name: &ServiceName| name.as_str() == DEFAULT_PROFILE;
        let foreground = matches!(cmd, Cmd::Foreground(_, held) if held.iter().any(is_root));
        let tells = !continued && found.surface.slots.as_ref().is_none_or(|slots| slots.gateways.is_empty());
        let (waits, actions) = self.topics.topology.before_boot(&mut restored, foreground, &view!(self));
        self.carry_out(actions);
        if !waits {
            let line = |(name, prior, exit): (ServiceName, Option<String>, PriorExit)| {
                (boot_log::line(&name, prior.as_deref(), Action::Started), exit)
            };
            boot_lines.extend(later.drain(..).map(line));
            // The root profile first, the others in the order of their names.
            let root = format!("profile={DEFAULT_PROFILE} ");
            boot_lines.sort_by(|(a, _), (b, _)| (!a.starts_with(&root), a).cmp(&(!b.starts_with(&root), b)));
        }
        if tells {
            self.tell_boot(boot_lines);
            self.topics.topology.tell_later(later);
        }
        restored
    }

    /// Of instances that their file does not make any more nothing is remembered.
    fn forget_surplus(&mut self, opened: &Opened, found: &Found, plan: &Plan) {
        let surplus = surplus(opened, found, plan);
        for name in &surplus {
            slog::info!(self.log, "{name}: its definition has fewer instances now: it is forgotten");
            self.topics.definitions.wake(name);
            self.topics.limits.forget_record(name);
        }
        if !surplus.is_empty() {
            self.store.commit_soon(surplus.into_iter().map(Change::Forget).collect());
        }
    }

    /// The services go where the database wants them.
    pub(in crate::daemon) fn boot_fleet(&mut self, restored: BTreeMap<ServiceId, Restored>) {
        let effects = self.fleet.boot(restored, self.clock.now());
        self.execute(effects);
        decide!(self.schedules.boot(wall_seconds()));
    }

    /// Services that were stopped by what this was before, which the disk did not take: it is asked to once more.
    pub(in crate::daemon) fn record_stops(&mut self, stopped: &BTreeSet<ServiceName>) {
        for id in stopped.iter().filter_map(|name| self.fleet.id(name.as_str())).collect::<Vec<_>>() {
            // One that runs is running once, which is no wish.
            let runs = self.fleet.gateway(id).is_some_and(Gateway::has_tree);
            if runs && let Some(name) = self.fleet.name(id).cloned() {
                let row = self.want_row(id, Want::Down, Cause::Operator);
                self.store.commit_lazily(vec![Change::Want(name, row)]);
            } else {
                let ticket = self.topics.requests.own_ticket();
                self.inbox.core(id, Event::Command { ticket, command: Command::Stop });
            }
        }
    }

    /// Shows the gateways in the scan directory before anything can look for them there, and makes their slots what they
    /// run in.
    fn show_at_boot(&mut self, gateways: Vec<(ServiceName, Want)>) {
        let (around, supervised) = (self.surroundings.clone(), self.supervised.clone());
        let shown = with_patience("slots", move || slots::show(&gateways, &supervised, &around));
        let shown = match shown.unwrap_or_else(|| Err(std::io::ErrorKind::TimedOut.into())) {
            Ok(shown) => shown,
            Err(error) => return slog::warn!(self.log, "gateways are not shown to 'hermes': {error}"),
        };
        for warning in shown.warnings {
            slog::warn!(self.log, "{warning}");
        }
        for (name, (slot, _)) in shown.gateways {
            let service = self.fleet.id(name.as_str()).and_then(|id| self.services.get_mut(&id));
            if let Some(service) = service.filter(|service| is_profile(&service.definition)) {
                // A slot takes no further arguments.
                if service.record.is_none() && service.extra_args.is_empty() {
                    slots::run_in(&mut service.definition, slot);
                }
            }
        }
    }

    /// One line a profile on stdout and in the boot log.
    pub(in crate::daemon) fn tell_boot(&self, lines: Vec<(String, PriorExit)>) {
        if lines.is_empty() {
            return;
        }
        let shown: String = lines.iter().map(|(line, _)| boot_log::stdout_line(line)).collect();
        // What a container with another command prints is that command's alone.
        if self.options.gateways == Gateways::Wanted {
            say_first(&self.container, &shown);
        }
        let lines: Vec<String> = lines.iter().map(|(line, exit)| boot_log::file_line(line, *exit)).collect();
        let (home, user) = (self.options.home.clone(), self.surroundings.gateway.credentials());
        let unix = i64::try_from(self.clock.now().0 / 1000).unwrap_or(i64::MAX);
        let log = self.log.clone();
        let write = move || {
            let time = Local::at(unix)?.iso8601();
            boot_log::append(&Beneath::open(&home)?, &user, &time, &lines)
        };
        let done = move |result: std::io::Result<std::io::Result<()>>| {
            if let Err(error) = result.and_then(|written| written) {
                slog::warn!(log, "the boot log was not written"; "error" => %error);
            }
        };
        if let Err(refused) = self.logs.files().run(Credentials::own(), write, done) {
            slog::warn!(self.log, "the boot log was not written"; "error" => %refused);
        }
    }

    /// The main program, if the CMD is one.
    pub(in crate::daemon) fn boot_main(&mut self, cmd: Cmd) -> Result<(), StartError> {
        let argv = match cmd {
            Cmd::Main(argv) | Cmd::Foreground(argv, _) => argv,
            Cmd::Supervised(profile, _) => {
                let line = format!("{}\n", breadcrumb(&profile));
                self.container.line(Stream::Err, line.as_bytes());
                self.want_up_after_boot(&profile);
                return Ok(());
            }
            Cmd::None => return Ok(()),
        };
        let main = MainProgram::start(&argv, &self.options, self.nofile)?;
        self.containment.other_child(main.pid());
        main.register(&self.wakeups.registry).map_err(StartError::kernel("watch the main program"))?;
        self.logs.container_stream(!has_terminal());
        self.main = Some(main);
        Ok(())
    }

    /// `gateway run` is an operator's start: a service that had failed tries again.
    pub(in crate::daemon) fn want_up_after_boot(&mut self, profile: &ServiceName) {
        match self.fleet.id(profile.as_str()) {
            Some(id) => {
                let effects = self.fleet.at_once([id].into_iter(), self.clock.now());
                self.execute(effects);
                let ticket = self.topics.requests.own_ticket();
                self.inbox.core(id, Event::Command { ticket, command: Command::Start { force: false } });
            }
            // It may be among those that are still being read.
            None if self.late.is_some() => {}
            None => {
                let text = format!(
                    "there is no profile '{profile}': create it with 'hermes profile create {profile}'"
                );
                self.warn("command", text);
            }
        }
    }
}

/// A few lines on stdout that must not come after the first ones of the main program.
pub(in crate::daemon) fn say_first(container: &Container, text: &str) {
    // A simulation has no container whose stream this is.
    #[cfg(test)]
    if crate::sys::time::played::is_on() {
        return;
    }
    let stdout = std::io::stdout();
    let patience = Timespec { tv_sec: 1, tv_nsec: 0 };
    let mut writable = [PollFd::new(&stdout, PollFlags::OUT)];
    let free = rustix::event::poll(&mut writable, Some(&patience)).is_ok_and(|ready| ready == 1)
        && writable.iter().all(|fd| fd.revents() == PollFlags::OUT);
    // A writable pipe takes this many bytes at once (pipe(7), PIPE_BUF); the rest is the stream thread's.
    let now = if free { text.len().min(4096) } else { 0 };
    let written = rustix::io::write(&stdout, text.as_bytes().get(..now).unwrap_or_default()).unwrap_or(0);
    if let Some(rest) = text.as_bytes().get(written..).filter(|rest| !rest.is_empty()) {
        container.line(Stream::Out, rest);
    }
}
