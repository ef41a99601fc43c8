//! What the owner of a service asked for, as data: restart, backoff, burst limit, exit-code table, stop ladder.
//! The defaults are the product's (docker/services.md); the decisions taken from them live in `gateway`.

use super::exit::Exit;
use super::signal::Signal;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Where a program is searched when the service's environment has no PATH (as execvp(3) would, without the current directory).
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartWhen {
    Always,
    OnFailure,
    Never,
}

/// What an exit code means, before the restart policy is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitRule {
    /// Restart without the wait; still counted.
    Now,
    /// Restart after [`LATER`], or without a wait if it has run for [`Backoff::reset_after`]; not counted.
    Later,
    /// `finished`: not restarted, want unchanged.
    Stop,
    /// `failed`: not restarted until the operator says so.
    Failed,
}

/// The wait of [`ExitRule::Later`].
pub const LATER: Duration = Duration::from_secs(5);

/// Exponential wait between restarts. The first failure in a row restarts at once; the n-th (n ≥ 2) waits
/// `initial * factor^(n-2)`, at most `max`, changed by up to ± `jitter` (a fraction).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Backoff {
    pub initial: Duration,
    pub factor: f64,
    pub max: Duration,
    /// 0.0..=1.0
    pub jitter: f64,
    /// A run of at least this long ends the row.
    pub reset_after: Duration,
}

/// More than `burst` failures within `interval` end in `failed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BurstLimit {
    pub burst: u32,
    pub interval: Duration,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RestartPolicy {
    pub when: RestartWhen,
    pub backoff: Backoff,
    /// `None`: it is tried again for ever.
    pub limit: Option<BurstLimit>,
    pub exit_codes: BTreeMap<u8, ExitRule>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopPolicy {
    pub signal: Signal,
    /// For the whole tree together, then it is killed.
    pub timeout: Duration,
    /// What outlives a main process that died unasked gets the signal and this long. Zero: killed at once.
    pub leftovers: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    Daemon,
    /// Success is `finished`.
    Oneshot,
    /// A oneshot that runs when it is due ([`super::event::Event::Due`]): wanted up, it waits for that.
    Scheduled,
}

impl Kind {
    /// It is to end.
    pub fn is_oneshot(self) -> bool {
        match self {
            Self::Daemon => false,
            Self::Oneshot | Self::Scheduled => true,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    Auxiliary,
    /// Its `failed` ends the container with its exit code.
    Essential,
}

/// A program that runs beside the main process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Hook {
    /// It is up, and ready where it can say so.
    PostStart,
    /// It is to stop; the signal waits for this.
    PreStop,
}

impl Hook {
    /// Its key in `[hooks]`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PostStart => "post_start",
            Self::PreStop => "pre_stop",
        }
    }
}

/// The hooks that there are, each with how long it may take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hooks {
    /// Must succeed before the main process is made; runs in a tree of its own.
    pub pre_start: Option<Duration>,
    pub post_start: Option<Duration>,
    /// At most half of the time to stop, so that the signal is worth something.
    pub pre_stop: Option<Duration>,
}

/// Everything the state machine needs to know about one service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    pub kind: Kind,
    pub role: Role,
    pub restart: RestartPolicy,
    pub stop: StopPolicy,
    /// How long it may take to report that it is ready. `None`: it is, as soon as it runs.
    pub ready: Option<Duration>,
    /// A program of its own that runs once the tree is empty and judges the end, as `finish` of s6 does: how long
    /// that may take.
    pub finish: Option<Duration>,
    pub hooks: Hooks,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            kind: Kind::Daemon,
            role: Role::Auxiliary,
            restart: RestartPolicy {
                when: RestartWhen::Always,
                backoff: Backoff {
                    initial: Duration::from_millis(100),
                    factor: 2.0,
                    max: Duration::from_secs(30),
                    jitter: 0.1,
                    reset_after: Duration::from_secs(60),
                },
                limit: Some(BurstLimit { burst: 10, interval: Duration::from_secs(600) }),
                exit_codes: BTreeMap::new(),
            },
            stop: StopPolicy {
                signal: Signal::TERM,
                timeout: Duration::from_secs(10),
                leftovers: Duration::ZERO,
            },
            ready: None,
            finish: None,
            hooks: Hooks::default(),
        }
    }
}

/// A policy that services share, in serde's form: each has it whole.
pub mod shared {
    use super::Policy;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::sync::Arc;

    pub fn serialize<S: Serializer>(policy: &Arc<Policy>, to: S) -> Result<S::Ok, S::Error> {
        Policy::serialize(policy, to)
    }

    pub fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Arc<Policy>, D::Error> {
        Policy::deserialize(from).map(Arc::new)
    }
}

/// What the policy says about an unasked end, before backoff and burst limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Finished,
    Failed,
    /// Restart after [`LATER`]; no failure.
    Later,
    /// A failure: restart; `skip_wait` when an exit-code rule says `now`.
    Restart {
        skip_wait: bool,
    },
    /// It ended well and is to run all the same: no failure.
    Again,
}

impl Policy {
    /// Judges an end that nobody asked for.
    pub fn judge(&self, exit: Exit) -> Verdict {
        if let Exit::Code(code) = exit {
            match self.restart.exit_codes.get(&code) {
                Some(ExitRule::Now) => return Verdict::Restart { skip_wait: true },
                Some(ExitRule::Later) => return Verdict::Later,
                Some(ExitRule::Stop) => return Verdict::Finished,
                Some(ExitRule::Failed) => return Verdict::Failed,
                None => {}
            }
        }
        match self.restart.when {
            RestartWhen::Always if exit.is_success() && !self.kind.is_oneshot() => Verdict::Again,
            _ if exit.is_success() => Verdict::Finished,
            RestartWhen::Always | RestartWhen::OnFailure => Verdict::Restart { skip_wait: false },
            RestartWhen::Never => Verdict::Failed,
        }
    }
}

impl Backoff {
    /// The wait before restart number `failures` of a row (1 = the first, which does not wait).
    /// `dice` is uniform in 0.0..1.0 and decides the jitter.
    pub fn wait(&self, failures: u32, dice: f64) -> Duration {
        if failures <= 1 {
            return Duration::ZERO;
        }
        let exponent = i32::try_from(failures - 2).unwrap_or(i32::MAX);
        let base = (self.initial.as_secs_f64() * self.factor.powi(exponent)).min(self.max.as_secs_f64());
        let jittered = base * (1.0 + self.jitter * (2.0 * dice - 1.0));
        // `min` of the cap also catches an infinite product; NaN cannot arise from the checked ranges.
        Duration::try_from_secs_f64(jittered.min(self.max.as_secs_f64())).unwrap_or(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Contract: 91.
    #[test]
    fn the_first_failure_restarts_at_once_and_later_ones_double_up_to_the_cap() {
        let backoff = Backoff { jitter: 0.0, ..Policy::default().restart.backoff };
        let waits: Vec<u64> = (1..=12).map(|n| backoff.wait(n, 0.5).as_millis() as u64).collect();
        assert_eq!(waits, [0, 100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000]);
    }

    #[test]
    fn the_jitter_is_a_part_of_the_wait_to_both_sides() {
        let backoff = Policy::default().restart.backoff;
        let waits = [0.0, 0.25, 0.5, 1.0].map(|dice| backoff.wait(2, dice).as_millis());
        assert_eq!(waits, [90, 95, 100, 110]);
    }

    #[test]
    fn the_exit_table_goes_before_the_policy() {
        let mut policy = Policy::default();
        policy.restart.exit_codes =
            BTreeMap::from([(0, ExitRule::Stop), (75, ExitRule::Now), (78, ExitRule::Failed)]);
        assert_eq!(policy.judge(Exit::Code(0)), Verdict::Finished);
        assert_eq!(policy.judge(Exit::Code(75)), Verdict::Restart { skip_wait: true });
        assert_eq!(policy.judge(Exit::Code(78)), Verdict::Failed);
        policy.restart.exit_codes.insert(75, ExitRule::Later);
        assert_eq!(policy.judge(Exit::Code(75)), Verdict::Later);
        assert_eq!(policy.judge(Exit::Code(1)), Verdict::Restart { skip_wait: false });
        assert_eq!(policy.judge(Exit::Unknown), Verdict::Restart { skip_wait: false });
        policy.restart.exit_codes = BTreeMap::from([(0, ExitRule::Now)]);
        assert_eq!(policy.judge(Exit::Code(0)), Verdict::Restart { skip_wait: true });
    }

    #[test]
    fn hooks_are_told_by_the_words_of_a_definition() {
        assert_eq!([Hook::PostStart, Hook::PreStop].map(Hook::as_str), ["post_start", "pre_stop"]);
    }

    #[test]
    fn a_clean_exit_of_what_is_always_to_run_is_no_failure() {
        let mut policy = Policy::default();
        assert_eq!(policy.judge(Exit::Code(0)), Verdict::Again);
        policy.restart.when = RestartWhen::OnFailure;
        assert_eq!(policy.judge(Exit::Code(0)), Verdict::Finished);
    }

    #[test]
    fn a_oneshot_that_succeeds_is_finished_whatever_the_restart_policy() {
        for when in [RestartWhen::Always, RestartWhen::OnFailure, RestartWhen::Never] {
            for kind in [Kind::Oneshot, Kind::Scheduled] {
                let mut policy = Policy { kind, ..Policy::default() };
                policy.restart.when = when;
                assert_eq!(policy.judge(Exit::Code(0)), Verdict::Finished);
            }
        }
    }

    proptest! {
        #[test]
        fn no_wait_exceeds_the_cap(failures in 0u32.., dice in 0.0f64..1.0, factor in 1.0f64..1000.0) {
            let backoff = Backoff { factor, ..Policy::default().restart.backoff };
            prop_assert!(backoff.wait(failures, dice) <= backoff.max);
        }
    }
}
