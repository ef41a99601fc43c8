//! The command line.

use super::harness::Rung;
use std::time::{Duration, SystemTime};

pub struct Options {
    /// For so long there are random kills on each rung, and no longer than that an endurance run takes.
    pub budget: Option<Duration>,
    pub seed: u64,
    rungs: Vec<String>,
    /// Of the endurance run; 0 for none.
    pub restarts: u64,
    pub clients: u64,
    /// Plants the faults that the checks have to find.
    pub planted: bool,
}

impl Options {
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let mut options = Self {
            budget: None,
            seed: u64::from(since.subsec_nanos()),
            rungs: Vec::new(),
            restarts: 0,
            clients: 0,
            planted: false,
        };
        while let Some(word) = words.next() {
            if word == "--planted" {
                options.planted = true;
                continue;
            }
            let value = words.next().ok_or_else(|| format!("{word} wants a value"))?;
            let number = || value.parse::<u64>().map_err(|_| format!("{word}: '{value}' is no number"));
            match word.as_str() {
                "--budget" => {
                    let budget = humantime::parse_duration(&value);
                    options.budget = Some(budget.map_err(|error| format!("{word}: {error}"))?);
                }
                "--seed" => options.seed = number()?,
                "--rung" if RUNGS.iter().any(|rung| rung.name() == value) => options.rungs.push(value),
                "--rung" => return Err(format!("{word}: there is no rung '{value}'")),
                "--restarts" => options.restarts = number()?,
                "--clients" => options.clients = number()?,
                _ => return Err(format!("{word} is no option: see tests/kills/main.rs")),
            }
        }
        Ok(options)
    }

    /// Those that were named, or all.
    pub fn rungs(&self) -> Vec<Rung> {
        let named = |rung: &Rung| self.rungs.is_empty() || self.rungs.iter().any(|name| name == rung.name());
        RUNGS.into_iter().filter(named).collect()
    }

    pub fn is_endurance(&self) -> bool {
        self.restarts + self.clients > 0
    }
}

const RUNGS: [Rung; 5] = [Rung::Cgroup, Rung::CgroupPrivate, Rung::Pidns, Rung::Keeper, Rung::KeeperSameUid];
