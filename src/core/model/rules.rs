//! The rules that no event may break, by name: the search, and what checks a trace, say which of them does not hold.

use std::fmt;

macro_rules! rules {
    ($($name:ident: $words:literal,)*) => {
        /// A rule, named by what breaks it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule {
            $($name,)*
        }

        impl Rule {
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            pub fn words(self) -> &'static str {
                match self {
                    $(Self::$name => $words,)*
                }
            }
        }
    };
}

rules! {
    WantMoved: "something else than a command changed the want",
    CleanExitCounted: "a clean exit was counted as a failure",
    TwoHooks: "two hooks at a time",
    HookAlone: "a hook beside no main process",
    Unprepared: "the main process was made before its hook had succeeded",
    SignalToNobody: "a signal to no process",
    UnplannedStop: "a stop that nobody planned",
    SignalToEmptyTree: "a signal to an empty tree",
    KilledUnasked: "killed before it was asked to end",
    LogClosedEarly: "the log of a living tree was closed",
    ReleasedAlive: "the place of a living tree was removed",
    AbandonedEmpty: "an empty tree was abandoned",
    RetiredAlive: "unregistered with a living tree",
    AgainstTheWant: "spawned against the want",
    BesideElsewhere: "spawned beside the service that does its work",
    AfterGivenUp: "spawned after it was given up",
    NeitherDueNorAsked: "a run that was neither due nor asked for",
    BesideLivingTree: "spawned beside a living tree",
    OldNumber: "spawned under an old number",
    AnsweredTwice: "answered twice, or without a question",
    ActedUnrecorded: "something else than a stop acted unrecorded",
    StartBeforeCommit: "start acknowledged before its commit",
    StopBeforeCommit: "stop acknowledged before its commit",
    UnregisterBeforeCommit: "unregister acknowledged before its commit",
    RefusedAndGone: "unregister refused, and its rows are gone",
    StopWithTree: "stop acknowledged with a living tree",
    StartBeforeReady: "start acknowledged before the service was ready",
    StartWithoutMain: "start acknowledged without a main process",
    RowsGone: "its rows are gone, and it is to stay",
    WantOfNobody: "a want of what is not registered any more was written",
    WaitsAgainstWant: "waits against the want",
    UpBeforeExec: "up before exec",
    DownWithTree: "down with a living tree",
    WaitsForNothing: "waits for nothing",
    NobodyAnswers: "a caller waits, and nothing will answer",
    OtherEffects: "the core does something else",
    NoSuchStep: "the model has no such step",
    StartedInShutdown: "started in a shutdown",
    BeforeRequirement: "started before what it requires is there",
    EndedBeforeFollowers: "asked to end in a shutdown before what comes after it had ended",
    TooManyStarts: "more starts under way than there are places",
    NumberUsedTwice: "the number of a life was used before",
    WantIsLost: "what was on the disk is not there at the next boot",
}

/// A rule that does not hold, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Broken {
    pub rule: Rule,
    pub about: String,
}

impl Broken {
    pub fn about(self, about: impl fmt::Display) -> Self {
        let before = if self.about.is_empty() { String::new() } else { format!("{}: ", self.about) };
        Self { about: format!("{before}{about}"), ..self }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.about.as_str() {
            "" => f.write_str(self.rule.words()),
            about => write!(f, "{}: {about}", self.rule.words()),
        }
    }
}

impl From<Rule> for Broken {
    fn from(rule: Rule) -> Self {
        Self { rule, about: String::new() }
    }
}
