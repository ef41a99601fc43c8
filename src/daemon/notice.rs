//! What helper threads tell the loop.

use crate::containment::IncarnationId;
use crate::control::server::ConnId;
use crate::core::event::Incarnation;
use crate::core::fleet::ServiceId;
use crate::core::name::ServiceName;
use crate::daemon::services::launch_error::LaunchError;
use crate::daemon::services::mirror::Mirrored;
use crate::daemon::surface::slots::Slots;
use crate::daemon::topics::definitions::found::Found;
use crate::daemon::topics::edits;
use crate::daemon::topics::probing::Answer;
use crate::daemon::topics::upgrade::CheckError;
use crate::daemon::topics::{readiness, topology};
use crate::hermes::presence::Presence;
use crate::log::{Handed, LogEvent};
use crate::store::{Holder, StoreEvent};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

/// What a helper thread tells the loop.
#[derive(Debug)]
pub enum Notice {
    Store(StoreEvent),
    Log(LogEvent),
    /// The files of a service that is about to start: its env file is read, its gateway's state file written.
    Prepared {
        id: ServiceId,
        incarnation: u64,
        file: Result<BTreeMap<String, String>, LaunchError>,
        mirrored: Option<(ServiceName, Mirrored)>,
        /// Of a gateway: what was found in its home.
        presence: Option<Presence>,
    },
    /// A gateway's state file was to tell a want that is down.
    Mirrored {
        id: ServiceId,
        name: ServiceName,
        written: Mirrored,
    },
    /// The marker of a planned stop is there, or why not.
    StopMarked {
        id: ServiceId,
        ticket: u64,
        error: Option<String>,
    },
    /// The log files of a service are open for a caller, or why not.
    LogFiles {
        conn: ConnId,
        service: String,
        files: io::Result<Vec<Handed>>,
    },
    /// Definition files below home were looked at.
    LookedAt {
        ticket: u64,
        edits: Vec<edits::Edit>,
    },
    /// Definitions and profiles, read again.
    Found(Box<Found>),
    /// All of them, with some that a reading (by its number) did without.
    Late {
        reading: u64,
        found: Box<Found>,
    },
    /// They could not be read.
    NotFound(String),
    /// A gateway's state file was looked at.
    Seen(readiness::Seen),
    /// What became of a probe that looks at files.
    Probed(Answer),
    /// The last lines of a life in quarantine.
    LastLines {
        id: ServiceId,
        incarnation: Incarnation,
        lines: Vec<String>,
    },
    /// The root gateway's state file was read, for those that it may serve.
    RootHeard(topology::Heard),
    /// The root gateway has answered a question, or is not going to.
    GatewayConversed(topology::Conversed),
    /// The mark of a parked profile was put or taken away, or could not be.
    ProfileMarked(topology::Marked),
    /// Whether a gateway that ended with 78 had begun to work.
    GatewayEnded {
        id: ServiceId,
        began: bool,
    },
    /// The scan directory, read again.
    Slots(io::Result<Box<Slots>>),
    /// The program that we are to become, or why not.
    UpgradeChecked(Result<PathBuf, CheckError>),
    /// The state was claimed: by whom, if that one is still there.
    Claimed(Option<Holder>),
    /// By how many bytes a life uses less memory, or why what it does not use was not taken back.
    Reclaimed(IncarnationId, io::Result<u64>),
    /// A helper thread has a bug, and is no more.
    Panicked,
}
