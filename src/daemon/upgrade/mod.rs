//! `ctl upgrade`: another program in our place, and no service notices.
//!
//! It happens between two moves: what is being started, ended or recorded comes to its end first, and requests that
//! arrive meanwhile wait. So all that has to be handed over is what stands still: lives that are up, and callers.

pub(in crate::daemon) mod handover;

use crate::control::codec;
use crate::control::protocol::{Answer, Event, EventKind, RefusalKind, Reply, Request};
use crate::control::server::{Carried, ConnId, Incoming};
use crate::core::clock::Tick;
use crate::core::gateway::Gateway;
use crate::core::signal::Signal;
use crate::daemon::inbox::Input;
use crate::daemon::services::Service;
use crate::daemon::topics::requests::Targeted;
use crate::daemon::topics::upgrade::CheckError;
use crate::daemon::upgrade::handover::{Caller, Handover, own_path};
use crate::daemon::{Notice, Supervisor};
use crate::definition::load::{RefusedFile, load};
use crate::sys::pidfd::Pidfd;
use rustix::event::{PollFd, PollFlags, Timespec};
use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long a program may take to say its version, in seconds.
const VERSION_PATIENCE: i64 = 10;

/// Which service that is up would be ended, because what defines it is refused by now: the next one has only the files to
/// know it by. Asked of the files outside home alone, or the owner of home could keep root from upgrading.
fn ended_by_refusal(refused: &BTreeMap<String, RefusedFile>, up: &[String]) -> Option<CheckError> {
    let (name, file) = refused.iter().find(|(name, _)| up.contains(name))?;
    Some(CheckError::WouldEnd { service: name.clone(), why: file.wrong.headline() })
}

impl Supervisor {
    /// Looks at the program that we are to become, where that may take its time.
    pub(in crate::daemon) fn check_program(&mut self, program: Option<PathBuf>) {
        let up = self.fleet.ids().filter(|id| self.fleet.gateway(*id).is_some_and(Gateway::has_tree));
        let up: Vec<String> = up.filter_map(|id| Some(self.fleet.name(id)?.to_string())).collect();
        let dirs = self.options.services.iter().filter(|dir| !dir.starts_with(&self.options.home));
        let (dirs, around): (Vec<PathBuf>, _) = (dirs.cloned().collect(), self.surroundings.clone());
        let work = move || -> Result<PathBuf, CheckError> {
            let program = match program {
                Some(program) => program,
                None => own_path().map_err(CheckError::NoOwn)?,
            };
            if let Err(error) = check(&program) {
                return Err(CheckError::Unfit { program, error });
            }
            ended_by_refusal(&load(&dirs, &around).refused, &up).map_or(Ok(program), Err)
        };
        let notifier = self.wakeups.notifier.clone();
        #[cfg(test)]
        if crate::sys::time::played::is_on() {
            return notifier.send(Notice::UpgradeChecked(Ok(PathBuf::from("played"))));
        }
        let work = move || notifier.send(Notice::UpgradeChecked(work()));
        if let Err(error) = std::thread::Builder::new().name("upgrade".to_owned()).spawn(work) {
            self.inbox.push(Input::Notice(Notice::UpgradeChecked(Err(CheckError::NoThread(error)))));
        }
    }

    /// Something else than a service is under way.
    pub(in crate::daemon) fn is_busy(&self) -> bool {
        !self.commits.is_empty()
            || !self.inbox.is_empty()
            || self.topics.requests.is_busy()
            || self.topics.edits.is_busy()
            || self.topics.definitions.readings.is_busy()
            || self.topics.scopes.is_busy()
            // Nobody would wait for its end, nor end it.
            || !self.beside.is_empty()
            || self.handing.is_busy()
    }

    /// Ends the threads, closes the state, and returns what the next one has to know, with the descriptors that it gets.
    pub(in crate::daemon) fn hand_over(mut self: Box<Self>, patience: Duration) -> (Handover, Vec<OwnedFd>) {
        let now = self.clock.now();
        let mut requests: Vec<(ConnId, Request)> =
            self.topics.requests.targeted().into_iter().map(|targeted| self.again(targeted, now)).collect();
        let held = self.topics.upgrade.take_callers().into_iter();
        requests.extend(held.map(|incoming| (incoming.id, incoming.request)));
        requests.extend(self.topics.events.take_followers(now));
        let mut handover = self.bare_handover();
        let told = |service: &Service| Some((service.name.to_string(), service.told.clone()?));
        handover.told = self.services.values().filter_map(|service| told(service)).collect();
        handover.begun = self.logs.hand_over(patience);
        self.take_last_mirrors();
        let Self { store, server, log, .. } = *self;
        if let Err(why) = store.close(patience) {
            slog::error!(log, "{why}");
        }
        let mut keep = Vec::new();
        match server.hand_over() {
            Ok((listener, carried)) => {
                handover.listener = Some(listener.as_raw_fd());
                keep.push(listener);
                for one in carried {
                    let Carried { id, stream, answering: _, closing, input, output } = one;
                    let request = requests.iter().position(|(conn, _)| *conn == id);
                    let request = request.map(|at| requests.swap_remove(at).1);
                    let request = request.and_then(|request| codec::keep_request(&request));
                    let stream_number = stream.as_raw_fd();
                    keep.push(stream);
                    handover.callers.push(Caller { stream: stream_number, input, output, closing, request });
                }
            }
            Err(error) => slog::error!(log, "callers lose their connections: {error}"),
        }
        (handover, keep)
    }

    /// What has to survive whatever happens.
    pub(in crate::daemon) fn bare_handover(&self) -> Handover {
        Handover {
            panics: self.panics.clone(),
            nofile: self.nofile,
            main: self.main.as_ref().map(crate::daemon::main_program::MainProgram::pid),
            closing: self.topics.shutdown.codes(),
            stopped: self.stopped_unrecorded(),
            ..Handover::default()
        }
    }

    fn stopped_unrecorded(&self) -> Vec<String> {
        self.fleet.unrecorded().filter_map(|id| self.fleet.name(id)).map(ToString::to_string).collect()
    }

    /// What is left of a request that waits for services.
    fn again(&self, targeted: Targeted, now: Tick) -> (ConnId, Request) {
        let Targeted { conn, ids, until, deadline } = targeted;
        let names = ids.into_iter().filter_map(|id| self.fleet.name(id)).map(ToString::to_string);
        let timeout = deadline.map(|at| u64::try_from(at.since(now).as_millis()).unwrap_or(u64::MAX));
        let targets = crate::control::protocol::Targets::Names(names.collect());
        (conn, Request::Wait { targets, until, timeout_ms: timeout })
    }

    /// We go on with what our former self has begun: its main program, and its callers. A caller who waited waits on, and
    /// the one who asked for the upgrade has it.
    pub(in crate::daemon) fn go_on(&mut self, handover: Handover) {
        if let Some(main) = &self.main {
            self.containment.other_child(main.pid());
            self.logs.container_stream(!crate::daemon::boot::has_terminal());
        }
        let Handover { version, refused, callers, .. } = handover;
        for caller in callers {
            let Ok(stream) = crate::sys::posture::take_over(caller.stream) else { continue };
            let Caller { input, output, closing, request, .. } = caller;
            let id = ConnId { slot: 0, generation: 0 };
            let request = request.map(codec::kept_request);
            let answer = |request: &Option<Request>| {
                request.as_ref().map_or(Answer::Outcomes, |known| known.verb().answer)
            };
            let answering = request.as_ref().map(answer);
            let carried = Carried { id, stream, answering, closing, input, output };
            let Some(id) = self.server.take_over(&self.wakeups.registry, carried) else { continue };
            let Some(request) = request.flatten() else {
                self.refuse(
                    id,
                    RefusalKind::Failed,
                    "another version of the supervisor answers by now: ask again",
                );
                continue;
            };
            match (request, &refused) {
                (Request::Upgrade { .. }, None) => self.reply(id, &Reply::End),
                (Request::Upgrade { .. }, Some(why)) => {
                    let text = format!("not upgraded, the old version goes on: {why}");
                    self.refuse(id, RefusalKind::Failed, text);
                }
                (request, _) => {
                    if let Some(peer) = self.server.peer(id) {
                        self.take_request(Incoming { id, peer, request });
                    }
                }
            }
        }
        match refused {
            None => {
                let new = env!("CARGO_PKG_VERSION");
                let text = format!("goes on in another process image: version {new}, before {version}");
                self.happened(Event::warning(EventKind::Upgrade, text));
            }
            Some(why) => self.happened(Event::error(EventKind::Upgrade, format!("not upgraded: {why}"))),
        }
    }
}

/// A file that is no script (an interpreter would be what supervises then), and says that it is one of us. Its end is
/// reaped by the loop, as every orphan's.
fn check(program: &Path) -> std::io::Result<()> {
    const ELF: [u8; 4] = *b"\x7fELF";
    const MOST: usize = 256;
    let mut head = [0; ELF.len()];
    std::fs::File::open(program)?.read_exact(&mut head)?;
    if head != ELF {
        return Err(std::io::Error::other("not a program for this machine"));
    }
    let mut child = Command::new(program)
        .arg("--version")
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    // Before the loop has reaped it, or it is over already.
    let handle = Pidfd::open(child.id().cast_signed());
    let mut said = vec![0; MOST];
    let mut length = 0;
    if let Some(mut stdout) = child.stdout.take() {
        let patience = Timespec { tv_sec: VERSION_PATIENCE, tv_nsec: 0 };
        let mut speaks = [PollFd::new(&stdout, PollFlags::IN)];
        let ready = rustix::io::retry_on_intr(|| rustix::event::poll(&mut speaks, Some(&patience)))?;
        length = if ready == 0 { 0 } else { stdout.read(&mut said)? };
    }
    if let Ok(child) = handle {
        let _ = child.send(Signal::KILL);
    }
    let said = String::from_utf8_lossy(said.get(..length).unwrap_or_default());
    if said.starts_with(concat!(env!("CARGO_PKG_NAME"), " ")) {
        Ok(())
    } else {
        Err(std::io::Error::other("asked for its --version, it does not say that it is a hermes-sup"))
    }
}
