//! The world around one service: its processes, its disk and its callers, in the state that counts for the rules. What it may do
//! next is in `moves.rs`, how it takes what the machine asks for in `effects.rs`.

use super::rules::Broken;
use super::{Fault, Scope};
use crate::core::clock::Tick;
use crate::core::event::{Command, Event, Ticket};
use crate::core::exit::Exit;
use crate::core::gateway::{Gateway, Restored};
use crate::core::policy::{BurstLimit, ExitRule, Hook, Hooks, Kind, Policy, RestartWhen};
use crate::core::trace::After;
use crate::core::words::Want;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Main {
    None,
    Making,
    Alive,
    Dead,
}

#[derive(Clone)]
pub(super) struct World {
    pub(super) gateway: Gateway,
    /// How it is, for the rules.
    pub(super) after: After,
    pub(super) now: Tick,
    pub(super) fault: Fault,
    pub(super) scope: Scope,
    pub(super) main: Main,
    /// Processes exist, besides a main process that is not reaped yet.
    pub(super) tree: bool,
    pub(super) tree_told: bool,
    pub(super) killed: bool,
    pub(super) draining: bool,
    /// The main process is the finish program.
    pub(super) finishing: bool,
    /// The main process is the hook before a start.
    pub(super) preparing: bool,
    /// That hook has succeeded, and nothing has come after it.
    pub(super) prepared: bool,
    /// The hook beside the main process.
    pub(super) hook: Option<Hook>,
    pub(super) reported: bool,
    /// The life says when it is ready.
    pub(super) reports: bool,
    /// It was asked to end.
    pub(super) signalled: bool,
    /// Everything is to end at once.
    pub(super) hurried: bool,
    /// How the last main process ended, unless it could not be made.
    pub(super) ended: Option<Exit>,
    pub(super) disk: VecDeque<(u64, Option<Want>)>,
    pub(super) on_disk: Want,
    /// That is certain.
    pub(super) is_sure: bool,
    /// The disk has the rows of the service.
    pub(super) registered: bool,
    pub(super) tickets: BTreeMap<Ticket, Command>,
    pub(super) next_ticket: u64,
    /// The shutdown was told.
    pub(super) closing: bool,
    pub(super) gone: bool,
    /// Another service does its work.
    pub(super) elsewhere: bool,
    pub(super) needed: bool,
    /// It is to be given up, and nobody has asked for it since.
    pub(super) given_up: bool,
    /// The last life was called unhealthy before it ended.
    pub(super) unhealthy: bool,
    /// Of a scheduled service: a run was due while it waited for one, or has its hook, and its main process is not made.
    pub(super) run_is_due: bool,
}

impl World {
    pub(super) fn new(fault: Fault, scope: Scope, want: Want) -> Result<Self, Broken> {
        let mut policy = Policy::default();
        policy.restart.limit = Some(BurstLimit { burst: 2, interval: Duration::from_secs(600) });
        // Elsewhere a clean exit is no failure either, and it runs again.
        if scope != Scope::OneCallerAndGates {
            policy.restart.exit_codes = BTreeMap::from([(0, ExitRule::Stop)]);
        }
        if scope.reports() {
            policy.ready = Some(Duration::from_secs(60));
            policy.finish = Some(Duration::from_secs(5));
        }
        if scope == Scope::Hooks {
            let some = Some(Duration::from_secs(3));
            policy.hooks = Hooks { pre_start: some, post_start: some, pre_stop: some };
        }
        if scope == Scope::Scheduled {
            policy.kind = Kind::Scheduled;
            policy.restart.when = RestartWhen::Never;
            policy.hooks.pre_start = Some(Duration::from_secs(3));
        }
        let mut world = Self::at_rest(Gateway::new(policy, 7), want);
        (world.fault, world.scope) = (fault, scope);
        world.feed(Event::Boot(Restored::at_rest(want, true)))?;
        Ok(world)
    }

    /// Nothing has happened yet.
    pub(super) fn at_rest(gateway: Gateway, want: Want) -> Self {
        Self {
            after: gateway.after(),
            reports: gateway.policy().ready.is_some(),
            gateway,
            now: Tick(1_000_000),
            fault: Fault::None,
            scope: Scope::Traced,
            main: Main::None,
            tree: false,
            tree_told: false,
            killed: false,
            draining: false,
            finishing: false,
            preparing: false,
            prepared: false,
            hook: None,
            reported: false,
            signalled: false,
            hurried: false,
            ended: None,
            disk: VecDeque::new(),
            on_disk: want,
            is_sure: true,
            registered: true,
            tickets: BTreeMap::new(),
            next_ticket: 0,
            closing: false,
            gone: false,
            elsewhere: false,
            needed: false,
            given_up: false,
            unhealthy: false,
            run_is_due: false,
        }
    }

    pub(super) fn incarnation(&self) -> u64 {
        self.gateway.history().incarnation
    }

    pub(super) fn key(&self) -> u64 {
        let mut sum = Sum(Sum::BASIS);
        self.fingerprint().hash(&mut sum);
        sum.finish()
    }

    /// What makes two worlds the same for the search: everything but absolute times and numbers.
    pub(super) fn fingerprint(&self) -> impl Debug + Hash {
        let disk: Vec<_> =
            self.disk.iter().map(|(seq, want)| (self.gateway.fingerprint_seq(*seq), *want)).collect();
        (
            self.gateway.fingerprint_phase(),
            self.gateway.fingerprint(),
            (self.main, self.tree, self.tree_told, self.killed),
            (self.draining, self.finishing, self.reported, self.preparing, self.prepared, self.hook),
            disk,
            (self.on_disk, self.registered, self.gone),
            self.tickets.values().copied().collect::<Vec<_>>(),
            (self.elsewhere, self.needed, self.given_up, self.unhealthy, self.run_is_due),
        )
    }
}

/// FNV-1a with 128 bits, folded: in a debug build SipHash, or a list of the bytes, would be a good part of the search.
struct Sum(u128);

impl Sum {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

    fn add(&mut self, byte: u8) {
        self.0 = (self.0 ^ u128::from(byte)).wrapping_mul(Self::PRIME);
    }
}

impl Hasher for Sum {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.add(*byte));
    }

    fn write_u8(&mut self, byte: u8) {
        self.add(byte);
    }

    /// Which variant it is, or how many there are: nearly always a small number.
    fn write_usize(&mut self, number: usize) {
        match u8::try_from(number) {
            Ok(small) if small < u8::MAX => self.add(small),
            _ => {
                self.add(u8::MAX);
                self.write(&number.to_ne_bytes());
            }
        }
    }

    fn finish(&self) -> u64 {
        (self.0 >> 64) as u64 ^ self.0 as u64
    }
}
