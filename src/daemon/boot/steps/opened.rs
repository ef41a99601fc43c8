//! Second step: the state is ours, and with it a socket, an identity and a place for what services write.

use crate::containment::{self, Predecessor};
use crate::control::server::Server;
use crate::daemon::Notice;
use crate::daemon::boot::Start;
use crate::daemon::boot::cmd::Claims;
use crate::daemon::boot::ownership::adoption::note_of;
use crate::daemon::boot::ownership::identity::{Identity, Kinship};
use crate::daemon::boot::ownership::places::{host_name, listen, parent};
use crate::daemon::boot::ownership::{GivingWay, open_state};
use crate::daemon::boot::patience::{DISK_PATIENCE, with_patience};
use crate::daemon::boot::steps::prepared::Prepared;
use crate::daemon::boot::steps::start_error::StartError;
use crate::daemon::main_program::MainProgram;
use crate::daemon::sources::control_token;
use crate::daemon::topics::definitions::found::Found;
use crate::log::Logs;
use crate::store::claim::Bell;
use crate::store::{self, Store};
use crate::sys::posture;
use mio::Registry;
use std::path::PathBuf;

pub(in crate::daemon::boot) struct Opened {
    pub store: Store,
    /// What the database holds.
    pub rows: store::Opened,
    pub giving_way: GivingWay,
    pub server: Server,
    pub socket: PathBuf,
    pub identity: Identity,
    /// What the last supervisor on this state wrote down of itself.
    pub note: Option<Predecessor>,
    pub logs: Logs,
    /// The rungs that were tried meanwhile.
    pub probing: containment::Begun,
}

/// What becomes of a start.
pub(in crate::daemon::boot) enum Opening {
    GoesOn(Box<Prepared>, Box<Opened>, Box<Found>),
    /// Another supervisor has the state, and the command can do without.
    Over(Start),
}

impl Opened {
    pub fn open(mut prepared: Box<Prepared>) -> Result<Opening, StartError> {
        let (options, former) = (&prepared.given.options, &prepared.given.former);
        let (log, registry) = (&prepared.given.log, &prepared.wakeups.registry);
        let store_options = store::Options {
            home: options.home.clone(),
            dir: options.state.clone(),
            gid: prepared.around.gateway.gid,
            host: host_name(),
            patience: DISK_PATIENCE,
            gives_way: (prepared.claims == Claims::GivesWay).then_some(options.stop_budget),
            is_init: rustix::process::getpid().is_init(),
        };
        let notifier = prepared.wakeups.notifier.clone();
        let notify = move |event| notifier.send(Notice::Store(event));
        let opening = store::begin(store_options.clone(), notify.clone());
        // Beside the disk. The name is of no other supervisor's probe.
        let probing = containment::begin(options.rung, &store::new_instance());
        let signals = &prepared.wakeups.signals;
        let opened = open_state(opening, &store_options, prepared.claims, signals, log, notify)?;
        let (store, rows) = match (opened, &prepared.argv) {
            (Ok(opened), _) => opened,
            (Err(error), Some(argv))
                if error.is_of_another() && former.is_none() && prepared.claims == Claims::GivesWay =>
            {
                slog::warn!(log, "running the command without supervising services: {}", error.what());
                let main = MainProgram::start(argv, options, prepared.given.nofile)?;
                return Ok(Opening::Over(Start::Alone(main, prepared.wakeups.signals)));
            }
            (Err(error), _) => return Err(error.into()),
        };
        let giving_way = match prepared.claims {
            Claims::GivesWay => listen_for_claims(store_options, registry, log),
            Claims::Insists | Claims::Waits => GivingWay::default(),
        };
        // After the store, which makes the state directory: the socket may have to lie in it.
        let listener = former.as_ref().and_then(|former| posture::take_over(former.listener?).ok());
        let (server, socket) = listen(options, listener);
        let mut server = server?;
        server.register(registry, control_token).map_err(StartError::kernel("watch its socket"))?;
        let note = note_of(&rows, log);
        let identity = Identity::settle(&rows, note.as_ref(), &options.state, parent(&socket))?;
        if let Kinship::Stranger(why) = identity.kinship {
            slog::warn!(
                log,
                "{} is a copy of another supervisor's state ({why}): it is an instance of its own from now on, and \
                 nothing of the original is touched",
                options.state.display()
            );
        }
        let notifier = prepared.wakeups.notifier.clone();
        let told = move |event| notifier.send(Notice::Log(event));
        let logs = Logs::start(&identity.runtime_dir, prepared.given.container.clone(), told)
            .map_err(StartError::kernel("start logging in its runtime directory"))?;
        let opened = Self { store, rows, giving_way, server, socket, identity, note, logs, probing };
        let found = prepared.finding.end(options, &prepared.around, opened.rows.home_unlocked, log);
        Ok(Opening::GoesOn(prepared, Box::new(opened), Box::new(found)))
    }
}

/// Where the bell cannot be hung the state stays here, and a container that claims it is refused after a while.
fn listen_for_claims(options: store::Options, registry: &Registry, log: &slog::Logger) -> GivingWay {
    let hung = with_patience("claims", move || Bell::hang(&options));
    let hung = hung.unwrap_or_else(|| Err(std::io::ErrorKind::TimedOut.into()));
    hung.and_then(|bell| GivingWay::listen(bell, registry)).unwrap_or_else(|error| {
        slog::warn!(log, "another container cannot take over from this one"; "error" => %error);
        GivingWay::default()
    })
}
