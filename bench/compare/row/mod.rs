//! The rows: how each figure is taken. A round of a row visits every peer once before the next round begins, so that
//! what else happens on the machine hits all alike; each in an order of its own, as the first after a pause pays for cold
//! caches, and everyone for what its predecessor has left behind.

pub mod commands;
pub mod containers;
pub mod crash;
pub mod engine;
pub mod fleet;
pub mod logs;
pub mod orphans;
pub mod trees;

use crate::ground::Ground;
use crate::options::Options;
use crate::peer::{Peer, Service};
use crate::results::Results;
use crate::world::{self, World};
use std::io;
use std::time::Duration;

/// What every row works with.
pub struct Bench<'a> {
    pub options: &'a Options,
    pub peers: &'a [Box<dyn Peer>],
    pub results: Results,
    /// What went wrong, one line each; the report ends with it.
    pub troubles: Vec<String>,
}

impl<'a> Bench<'a> {
    /// Supervisors proper, in the order of a round.
    pub fn supervisors(&self) -> Vec<&'a dyn Peer> {
        let mut found: Vec<_> =
            self.peers.iter().map(AsRef::as_ref).filter(|peer| peer.supervises()).collect();
        fastrand::shuffle(&mut found);
        found
    }

    /// That many services are not asked of this peer: the reason stands in the rows instead.
    pub fn too_many(&mut self, peer: &dyn Peer, size: usize, rows: &[&'static str]) -> bool {
        let (most, why) = peer.most();
        if size > most {
            rows.iter()
                .for_each(|row| self.results.note(row, size, peer.name(), format!("not asked for: {why}")));
        }
        size > most
    }

    pub fn trouble(&mut self, what: impl Into<String>) {
        let what = what.into();
        crate::say(&format!("  ! {what}"));
        // Said once, however often it happens.
        if !self.troubles.contains(&what) {
            self.troubles.push(what);
        }
    }
}

/// A world in which the peer knows these services and has been started.
///
/// # Errors
/// When one of its parts cannot be made.
pub fn started(options: &Options, peer: &dyn Peer, services: &[Service]) -> io::Result<World> {
    let mut world = World::new(options)?;
    peer.prepare(&world, services)?;
    let mut words = peer.command(services);
    // A first process of ours launches the peer itself.
    if words.first().is_none_or(|program| program != world::SERVICE) {
        let first = if options.ground == Ground::Child { "first" } else { "launch" };
        words.splice(0..0, world::service(&[first]));
    }
    world.start(&words)?;
    Ok(world)
}

/// The same, with every service up.
///
/// # Errors
/// Also when they do not come up in time.
pub fn all_up(options: &Options, peer: &dyn Peer, services: &[Service]) -> io::Result<World> {
    let mut world = started(options, peer, services)?;
    match world.events.all_started(services.len(), patience(services.len())) {
        Some(_) => Ok(world),
        None => Err(io::Error::other(format!("not all services came up: {}", world.said()))),
    }
}

/// With more services everything takes longer.
pub fn patience(size: usize) -> Duration {
    world::PATIENCE + Duration::from_millis(30) * u32::try_from(size).unwrap_or(u32::MAX)
}

pub fn milliseconds(ns: u64) -> f64 {
    ns as f64 / 1e6
}
