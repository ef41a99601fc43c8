//! tini and dumb-init: a first process for one command. They take part in the row on orphans only.

use super::{Peer, Service, Verb};
use crate::world::Layout;
use std::io;

pub struct Small {
    pub name: &'static str,
    pub version: String,
}

impl Peer for Small {
    fn name(&self) -> &'static str {
        self.name
    }

    fn version(&self) -> String {
        self.version.clone()
    }

    fn supervises(&self) -> bool {
        false
    }

    fn prepare(&self, _: &Layout, _: &[Service]) -> io::Result<()> {
        Ok(())
    }

    fn command(&self, services: &[Service]) -> Vec<String> {
        let mut words = vec![format!("/usr/bin/{}", self.name), "--".to_owned()];
        words.extend(services.first().map(Service::argv).unwrap_or_default());
        words
    }

    fn control(&self, _: Verb, _: &str) -> Vec<String> {
        Vec::new()
    }
}
