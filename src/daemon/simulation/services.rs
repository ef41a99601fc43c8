//! Random services: what their definitions say, and how they behave.

use super::dice::Dice;
use crate::core::name::ServiceName;
use crate::definition::template::DEFAULT_PROFILE;
use std::fmt::Write;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Daemon,
    Oneshot,
    Scheduled,
}

/// Which of several a service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    Alone,
    /// One of so many instances.
    Instance(u64),
    /// The gateway of a profile, by the template.
    Gateway,
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
    pub group: Group,
    pub kind: Kind,
    /// Whom it runs as; `None`: the gateway user, which is ours.
    pub user: Option<u32>,
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

/// Users who own services, if any are theirs.
pub const OWNERS: [u32; 2] = [4343, 4344];

/// Of one file.
pub const MOST_INSTANCES: u64 = 4;

/// The profiles beside the root profile.
pub const PROFILES: [&str; 2] = ["coder", "writer"];

/// A fleet of a few services, which may have instances and gateways.
pub fn fleet(dice: &mut Dice) -> Vec<Spec> {
    let mut specs = ordinary(dice);
    if dice.chance(50) {
        let (name, count) = ("w@1", dice.between(2, 3));
        let first = spec(dice, service_name(name), Vec::new(), Vec::new());
        specs.extend((1..=count).map(|n| {
            let name = service_name(&format!("w@{n}"));
            Spec { name, group: Group::Instance(count), ..first.clone() }
        }));
    }
    if dice.chance(50) {
        let first = spec(dice, service_name(DEFAULT_PROFILE), Vec::new(), Vec::new());
        let first = Spec {
            group: Group::Gateway,
            kind: Kind::Daemon,
            reports: Reports::Nothing,
            has_health: false,
            hooks: Vec::new(),
            ..first
        };
        let named = PROFILES.map(|name| Spec { name: service_name(name), ..first.clone() });
        specs.extend(named);
        specs.push(first);
    }
    specs
}

/// Gives some services to other users, which only a supervisor of root can have; with dice of their own.
pub fn give_away(specs: &mut [Spec], dice: &mut Dice) {
    if !dice.chance(50) || !rustix::process::geteuid().is_root() {
        return;
    }
    for spec in specs.iter_mut().filter(|spec| spec.group == Group::Alone) {
        spec.user = dice.chance(50).then(|| OWNERS[dice.index(OWNERS.len())]);
    }
}

fn service_name(text: &str) -> ServiceName {
    ServiceName::new(text).expect("a valid name")
}

fn ordinary(dice: &mut Dice) -> Vec<Spec> {
    let count = dice.between(2, 7);
    let mut specs: Vec<Spec> = Vec::new();
    for n in 0..count {
        let name = service_name(&format!("s{n}"));
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
        group: Group::Alone,
        kind,
        user: None,
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
    /// The name of its file, without the end.
    pub fn file(&self) -> &str {
        match self.group {
            Group::Alone => self.name.as_str(),
            Group::Instance(_) => self.name.as_instance().map_or(self.name.as_str(), |(base, _)| base),
            Group::Gateway => "gateway",
        }
    }

    /// How its file calls it.
    fn own_name(&self) -> String {
        match self.group {
            Group::Alone => self.name.to_string(),
            Group::Instance(_) => format!("{}@{{instance}}", self.file()),
            Group::Gateway => "{profile}".to_owned(),
        }
    }

    /// The gateway of a profile that another gateway may serve.
    pub fn is_named_gateway(&self) -> bool {
        self.group == Group::Gateway && !self.is_root_gateway()
    }

    pub fn is_root_gateway(&self) -> bool {
        self.group == Group::Gateway && self.name.as_str() == DEFAULT_PROFILE
    }

    /// Its file.
    pub fn toml(&self) -> String {
        let name = self.own_name();
        let mut text = String::new();
        let list = |names: &[ServiceName]| {
            let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
            quoted.join(", ")
        };
        // Writing into memory cannot fail.
        let mut line = |words: std::fmt::Arguments<'_>| {
            let _ = writeln!(text, "{words}");
        };
        line(format_args!("command = [\"{PROGRAM}{name}\"]"));
        if let Group::Instance(count) = self.group {
            line(format_args!("instances = {count}"));
        }
        line(format_args!("autostart = {}", self.autostart));
        if let Some(user) = self.user {
            line(format_args!("user = \"{user}\""));
        }
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
                line(format_args!("[ready]\nkind = \"exec\"\ncommand = [\"{PROGRAM}{name}\", \"ready\"]"));
            }
        }
        if self.has_health {
            let words = "[health]\nkind = \"exec\"\ninterval = \"5s\"\nstart_period = \"10s\"";
            line(format_args!("{words}\ncommand = [\"{PROGRAM}{name}\", \"health\"]"));
        }
        if !self.hooks.is_empty() {
            line(format_args!("[hooks]"));
            for hook in &self.hooks {
                line(format_args!("{hook} = [\"{PROGRAM}{name}\", \"{hook}\"]"));
            }
        }
        text
    }

    /// Its definition in words, for a story.
    pub fn words(&self) -> String {
        let mut words = format!("{}: {:?}", self.name, self.kind).to_lowercase();
        if self.group == Group::Gateway {
            words.push_str(", a gateway");
        }
        let names =
            |names: &[ServiceName]| names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
        if let Some(user) = self.user {
            let _ = write!(words, ", of user {user}");
        }
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
