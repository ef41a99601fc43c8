//! The table of verbs: who may ask, how long the answer may take, and what kind it is.
//!
//! A new verb is a variant of [`Request`], a row here, its place on the command line, and the place where it is done. Method
//! names, permission, deadlines and the client's patience are computed from the rows.

use super::requests::{Request, Targets};
use std::time::Duration;

/// What a start may take when the caller says nothing.
pub const START_TIMEOUT: Duration = Duration::from_secs(30);
/// What it may take until every process of a tree stands still, or goes on.
pub const FREEZE_TIMEOUT: Duration = Duration::from_secs(10);

/// A row of the table.
#[derive(Debug, PartialEq, Eq)]
pub struct Verb {
    /// The method on the wire, which is also the name of the `ctl` verb where there is one.
    pub name: &'static str,
    pub right: Right,
    pub deadline: Deadline,
    pub answer: Answer,
}

/// What lets a caller ask for it. Root and the supervisor's own user may ask for everything but [`Right::Inside`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// Some service runs as the caller, or status is public.
    Read,
    /// The service that it is about runs as the caller.
    Act,
    /// What is registered will run as the caller.
    Register,
    /// The caller is the gateway user.
    GatewayUser,
    /// Nothing.
    Administer,
    /// The calling process is part of a running service.
    Inside,
}

/// When the supervisor ends its answer at the latest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deadline {
    /// It does not wait for anything.
    AtOnce,
    After(Duration),
    /// After the caller's timeout, by default after this time; `None`: never.
    Callers(Option<Duration>),
    /// The same for each turn, of which the caller does not know the number.
    CallersEach(Duration),
    /// It ends when process trees have ended.
    Never,
}

impl Deadline {
    /// The longest that the supervisor waits, or waits in a turn, for a caller with this timeout.
    pub fn after(self, timeout: Option<Duration>) -> Option<Duration> {
        match self {
            Self::AtOnce | Self::Never => None,
            Self::After(time) => Some(time),
            Self::Callers(default) => timeout.or(default),
            Self::CallersEach(default) => Some(timeout.unwrap_or(default)),
        }
    }
}

/// What an answer is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// One [`Outcome`](super::Outcome) for each service, sent as soon as it is known.
    Outcomes,
    /// Parts that are there at once, and are sent together.
    Listing,
    /// Parts as they come, for as long as the caller reads. A slow reader loses some, and is told how many.
    Stream,
}

macro_rules! verbs {
    ($($request:ident: $name:literal, $right:ident, $deadline:expr, $answer:ident;)*) => {
        /// All of them, in the order of [`Request`].
        pub static VERBS: &[&Verb] = &[$(
            &Verb { name: $name, right: Right::$right, deadline: $deadline, answer: Answer::$answer },
        )*];

        impl Request {
            /// Its row of the table.
            pub fn verb(&self) -> &'static Verb {
                match self {
                    $(Self::$request { .. } => {
                        const { &Verb { name: $name, right: Right::$right, deadline: $deadline, answer: Answer::$answer } }
                    })*
                }
            }
        }
    };
}

use Deadline::{After, AtOnce, Callers, CallersEach, Never};

#[rustfmt::skip]
verbs! {
    Start:      "start",      Act,         Callers(Some(START_TIMEOUT)), Outcomes;
    Stop:       "stop",       Act,         Never,                        Outcomes;
    Restart:    "restart",    Act,         CallersEach(START_TIMEOUT),   Outcomes;
    Once:       "once",       Act,         Callers(Some(START_TIMEOUT)), Outcomes;
    Status:     "status",     Read,        AtOnce,                       Listing;
    List:       "list",       Read,        AtOnce,                       Listing;
    Register:   "register",   Register,    After(START_TIMEOUT),         Outcomes;
    Unregister: "unregister", Act,         Never,                        Outcomes;
    Kill:       "kill",       Act,         AtOnce,                       Outcomes;
    Freeze:     "freeze",     Act,         After(FREEZE_TIMEOUT),        Outcomes;
    Thaw:       "thaw",       Act,         After(FREEZE_TIMEOUT),        Outcomes;
    Tree:       "tree",       Read,        AtOnce,                       Listing;
    Audit:      "audit",      Read,        AtOnce,                       Listing;
    Wait:       "wait",       Read,        Callers(None),                Outcomes;
    Set:        "set",        Act,         After(START_TIMEOUT),         Outcomes;
    Reload:     "reload",     Administer,  AtOnce,                       Outcomes;
    Shutdown:   "shutdown",   Administer,  AtOnce,                       Outcomes;
    // What is under way comes first, for as long as a start may take.
    Upgrade:    "upgrade",    Administer,  After(START_TIMEOUT),         Outcomes;
    LogPlaces:  "log-places", Read,        AtOnce,                       Listing;
    LogFiles:   "log-files",  Act,         AtOnce,                       Listing;
    Events:     "events",     Read,        AtOnce,                       Stream;
    Rescan:     "rescan",     GatewayUser, AtOnce,                       Outcomes;
    Scope:      "scope",      Inside,      AtOnce,                       Listing;
    ScopeStop:  "scope-stop", Inside,      Never,                        Outcomes;
    ScopeShow:  "scope-show", Inside,      AtOnce,                       Listing;
}

impl Request {
    /// The wire name of the method.
    pub fn method(&self) -> &'static str {
        self.verb().name
    }

    /// That of its row, but that a reload waits for the trees that it restarts, who follows has no end, and a start of all may
    /// come in turns.
    pub fn deadline(&self) -> Deadline {
        match self {
            Self::Reload { restart: true } | Self::Events { follow: true, .. } => Never,
            // They may have to start some at a time.
            Self::Start { targets: Targets::All, .. } => CallersEach(START_TIMEOUT),
            _ => self.verb().deadline,
        }
    }
}

/// The names of all methods, in the order of the table.
pub fn methods() -> impl Iterator<Item = &'static str> {
    VERBS.iter().map(|verb| verb.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_the_callers_where_it_may_name_one() {
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        for (deadline, with, without) in [
            (AtOnce, None, None),
            (Never, None, None),
            (After(minute), Some(minute), Some(minute)),
            (Callers(Some(minute)), Some(second), Some(minute)),
            (Callers(None), Some(second), None),
            (CallersEach(minute), Some(second), Some(minute)),
        ] {
            assert_eq!((deadline.after(Some(second)), deadline.after(None)), (with, without), "{deadline:?}");
        }
    }
}
