//! Random services: what their definitions say, and how they behave.

use super::dice::Dice;
use crate::core::name::ServiceName;
use std::fmt::Write;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Daemon,
    Oneshot,
    Scheduled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reports {
    Nothing,
    Pipe,
    Line,
    Probe,
}

/// One service of a fleet.
#[derive(Debug, Clone)]
pub struct Spec {
    pub name: ServiceName,
    pub kind: Kind,
    pub after: Vec<ServiceName>,
    pub requires: Vec<ServiceName>,
    pub reports: Reports,
    pub has_health: bool,
    /// Those of the words of a definition that it has.
    pub hooks: Vec<&'static str>,
    pub policy: &'static str,
    pub autostart: bool,
    /// Of the whole tree, in seconds.
    pub stop_timeout: u64,
    /// Of failures in ten minutes.
    pub burst: Option<u64>,
    /// What it is like, in hundredths: how often it cannot be executed, ends by itself, ignores a signal, leaves others behind.
    pub fails: u64,
    pub crashes: u64,
    pub deaf: u64,
    pub leaves: u64,
}

/// What every program of a service is executed as: its name, and for a hook which one it is.
const PROGRAM: &str = "/played/";
const HOOKS: [&str; 4] = ["pre_start", "post_start", "pre_stop", "post_stop"];

/// Of a program, whose it is and which of its hooks; `None`: the service itself.
pub fn meaning(program: &str) -> Option<(&str, Option<&str>)> {
    let mut words = program.strip_prefix(PROGRAM)?.split(' ');
    Some((words.next()?, words.next()))
}

/// A fleet of a few services.
pub fn fleet(dice: &mut Dice) -> Vec<Spec> {
    let count = dice.between(2, 7);
    let mut specs: Vec<Spec> = Vec::new();
    for n in 0..count {
        let name = ServiceName::new(&format!("s{n}")).expect("a valid name");
        let before: Vec<ServiceName> =
            specs.iter().filter(|spec| spec.kind != Kind::Scheduled).map(|spec| spec.name.clone()).collect();
        let mut some = |percent| -> Vec<ServiceName> {
            before.iter().filter(|_| dice.chance(percent)).cloned().collect()
        };
        let (after, requires) = (some(20), some(25));
        specs.push(spec(dice, name, after, requires));
    }
    specs
}

fn spec(dice: &mut Dice, name: ServiceName, after: Vec<ServiceName>, requires: Vec<ServiceName>) -> Spec {
    let kind = match dice.between(0, 9) {
        0 => Kind::Scheduled,
        1 | 2 => Kind::Oneshot,
        _ => Kind::Daemon,
    };
    let is_daemon = kind == Kind::Daemon;
    let reports = match dice.between(0, 6) {
        0 | 1 if is_daemon => Reports::Pipe,
        2 if is_daemon => Reports::Line,
        3 if is_daemon => Reports::Probe,
        _ => Reports::Nothing,
    };
    let hooks = HOOKS.into_iter().filter(|_| dice.chance(12)).collect();
    Spec {
        name,
        kind,
        after,
        requires,
        reports,
        has_health: is_daemon && dice.chance(20),
        hooks,
        policy: ["always", "always", "on-failure", "never"][dice.index(4)],
        autostart: dice.chance(75),
        stop_timeout: dice.between(1, 10),
        burst: if dice.chance(50) { None } else { Some(dice.between(2, 6)) },
        fails: [0, 0, 5, 30][dice.index(4)],
        crashes: [0, 5, 20, 60][dice.index(4)],
        deaf: [0, 0, 20, 100][dice.index(4)],
        leaves: [0, 0, 30, 80][dice.index(4)],
    }
}

impl Spec {
    /// Its file.
    pub fn toml(&self) -> String {
        let mut text = String::new();
        let list = |names: &[ServiceName]| {
            let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
            quoted.join(", ")
        };
        // Writing into memory cannot fail.
        let mut line = |words: std::fmt::Arguments<'_>| {
            let _ = writeln!(text, "{words}");
        };
        line(format_args!("command = [\"{PROGRAM}{}\"]", self.name));
        line(format_args!("autostart = {}", self.autostart));
        if !self.after.is_empty() {
            line(format_args!("after = [{}]", list(&self.after)));
        }
        if !self.requires.is_empty() {
            line(format_args!("requires = [{}]", list(&self.requires)));
        }
        match self.kind {
            Kind::Daemon => {}
            Kind::Oneshot => line(format_args!("type = \"oneshot\"")),
            Kind::Scheduled => line(format_args!("type = \"oneshot\"\nevery = \"5m\"")),
        }
        line(format_args!("[stop]\ntimeout = \"{}s\"", self.stop_timeout));
        if self.kind == Kind::Daemon {
            line(format_args!("[restart]\npolicy = \"{}\"", self.policy));
            match self.burst {
                Some(burst) => line(format_args!("limit = {{ burst = {burst}, interval = \"10m\" }}")),
                None => line(format_args!("limit = \"none\"")),
            }
        }
        match self.reports {
            Reports::Nothing => {}
            Reports::Pipe => line(format_args!("[ready]\nkind = \"fd\"\nfd = 3\ntimeout = \"20s\"")),
            Reports::Line => {
                line(format_args!("[ready]\nkind = \"log\"\npattern = \"ready\"\ntimeout = \"20s\""))
            }
            Reports::Probe => {
                line(format_args!(
                    "[ready]\nkind = \"exec\"\ncommand = [\"{PROGRAM}{}\", \"ready\"]",
                    self.name
                ));
            }
        }
        if self.has_health {
            let words = "[health]\nkind = \"exec\"\ninterval = \"5s\"\nstart_period = \"10s\"";
            line(format_args!("{words}\ncommand = [\"{PROGRAM}{}\", \"health\"]", self.name));
        }
        if !self.hooks.is_empty() {
            line(format_args!("[hooks]"));
            for hook in &self.hooks {
                line(format_args!("{hook} = [\"{PROGRAM}{}\", \"{hook}\"]", self.name));
            }
        }
        text
    }

    /// Its definition in words, for a story.
    pub fn words(&self) -> String {
        let mut words = format!("{}: {:?}", self.name, self.kind).to_lowercase();
        let names =
            |names: &[ServiceName]| names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
        if !self.after.is_empty() {
            let _ = write!(words, ", after {}", names(&self.after));
        }
        if !self.requires.is_empty() {
            let _ = write!(words, ", requires {}", names(&self.requires));
        }
        if self.reports != Reports::Nothing {
            let _ = write!(words, ", reports readiness by {:?}", self.reports);
        }
        if self.has_health {
            words.push_str(", is asked for its health");
        }
        if !self.hooks.is_empty() {
            let _ = write!(words, ", has {}", self.hooks.join(" and "));
        }
        if self.kind == Kind::Daemon {
            let _ = write!(words, ", restart {}", self.policy);
        }
        if !self.autostart {
            words.push_str(", not started by itself");
        }
        words
    }
}
