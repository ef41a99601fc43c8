//! All definitions of the services directories, with everything that is wrong among them. A bad file is reported and
//! does not stop the others.
//!
//! Of two files with the same name the trusted one counts, else the one in the earlier directory; the other is
//! refused. A bad file keeps its name all the same: what it hides must not come up in its place. The order is also that
//! in which dependencies are accepted, so the definition that closes a cycle is refused, never what was there before.

use super::diagnose::{About, Diagnostic, MOST, Source, quoted};
pub use super::parse::Says;
use super::parse::{Mention, Mentioned, Parsed, Subject, parse};
use super::presence;
use super::resolved::{Definition, Origin, Security};
use super::stamp::Stamp;
use super::template::{self, DEFAULT_PROFILE, Profile, Template};
use super::trust::{Place, Trust};
use super::users::Surroundings;
use crate::core::name::{GATEWAY_PREFIX, INSTANCE, ServiceName};
use crate::core::policy::DEFAULT_PATH;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest definition, in bytes. What the parser takes for a hostile one grows with the square of this: 0.2 s.
pub const MOST_BYTES: u64 = 64 << 10;
/// Most definitions of one directory.
const MOST_FILES: usize = 10_000;

/// In each text of an instance's definition: which one it is.
const PLACEHOLDER: &str = "{instance}";

/// What is said of a file that is not there yet.
pub const LATE: &str = "is still being read: it is taken when its volume has answered";

/// What the services directories hold.
#[derive(Debug, Default)]
pub struct Loaded {
    pub services: BTreeMap<ServiceName, Definition>,
    /// The operator's template, or the built-in one. `None`: there is a `gateway.toml`, and it is wrong.
    pub template: Option<Template>,
    /// Each definition that is refused, by its file's name without `.toml`.
    pub refused: BTreeMap<String, RefusedFile>,
    /// What is wrong with the operator's template.
    pub template_refused: Option<Diagnostic>,
    /// Names that a file claims but that are not in `services`, because that file is wrong. A reload keeps what it has.
    pub broken: BTreeSet<ServiceName>,
    /// Directories that are there and could not be read. A reload keeps what came from them.
    pub unread: Vec<PathBuf>,
    /// Everything that was found wrong, in the order of reading.
    pub diagnostics: Vec<Diagnostic>,
    /// What is right and has no effect, where that was loaded thoroughly.
    pub remarks: Vec<Diagnostic>,
    /// The names of services of which there are several, with their instances.
    pub groups: BTreeMap<ServiceName, Vec<ServiceName>>,
    /// What `NAME@.toml` says, by its path without `.toml`.
    templates: BTreeMap<PathBuf, String>,
    outside: Vec<Outside>,
    /// The names of services in `outside`.
    mentioned: BTreeSet<ServiceName>,
    /// Everything that is named is of interest, not only services, and what has no effect.
    thorough: bool,
}

/// A definition that is refused.
#[derive(Debug, Clone)]
pub struct RefusedFile {
    /// What was found wrong first.
    pub wrong: Diagnostic,
    pub says: Says,
}

/// What a definition names besides itself, with its text, which has the places.
#[derive(Debug)]
struct Outside {
    service: ServiceName,
    source: Source,
    mentions: Vec<Mention>,
}

/// A file that has been read, or could not be, and has not yet been understood.
#[derive(Debug, Clone)]
pub struct Candidate {
    path: PathBuf,
    trust: Trust,
    text: Result<String, Unread>,
    /// `None`: it could not be read.
    stamp: Option<Stamp>,
}

/// Why there is no text.
#[derive(Debug, Clone, thiserror::Error)]
enum Unread {
    #[error("{0}")]
    Failed(Arc<io::Error>),
    #[error("is not UTF-8 text")]
    NotText,
    #[error("{LATE}")]
    Late,
}

impl Unread {
    fn about(&self) -> About {
        match self {
            Self::Failed(_) | Self::NotText => About::Text,
            Self::Late => About::Late,
        }
    }
}

/// A definition's file, read.
struct File {
    source: Source,
    trust: Trust,
    stamp: Option<Stamp>,
}

/// A directory of definitions and the names in it, none of them read yet.
#[derive(Debug)]
pub struct Listed {
    pub place: Place,
    /// Paths, sorted.
    pub files: Vec<PathBuf>,
    /// There are more than are read.
    pub cut: bool,
}

/// What was found in one directory.
#[derive(Debug)]
pub struct Directory {
    pub path: PathBuf,
    pub read: Result<Vec<Candidate>, UnreadDirectory>,
    /// There are more than are read.
    pub cut: bool,
}

/// Why it is not known what is in a directory.
#[derive(Debug, thiserror::Error)]
pub enum UnreadDirectory {
    #[error("the directory is still being read")]
    Late,
    /// With what the system said.
    #[error("the directory cannot be read: {0}")]
    Failed(String),
}

/// Reads `dirs` (absolute) in order. A directory that does not exist is an empty one. Blocks on the file system.
pub fn load(dirs: &[PathBuf], surroundings: &Surroundings) -> Loaded {
    read(dirs, surroundings, Loaded::new(false))
}

/// The same for [`Loaded::missing`].
pub fn load_thoroughly(dirs: &[PathBuf], surroundings: &Surroundings) -> Loaded {
    read(dirs, surroundings, Loaded::new(true))
}

fn read(dirs: &[PathBuf], surroundings: &Surroundings, loaded: Loaded) -> Loaded {
    let directories = dirs.iter().map(|dir| match list(dir, surroundings) {
        Ok(Listed { place, files, cut }) => {
            let read = files.into_iter().map(|path| Candidate::read(&place, path, surroundings)).collect();
            Directory { path: dir.clone(), read: Ok(read), cut }
        }
        Err(error) => Directory::unread(dir.clone(), &error),
    });
    loaded.with(directories.collect(), surroundings)
}

/// Reads one file, as if it were alone in its directory, thoroughly. Blocks on the file system.
///
/// # Errors
/// When the directory it lies in cannot be opened; what is wrong with the file itself is in the diagnostics.
pub fn load_file(path: &Path, surroundings: &Surroundings) -> io::Result<Loaded> {
    let absolute = std::path::absolute(path)?;
    let place = Place::open(absolute.parent().unwrap_or(&absolute), surroundings)?;
    let mut loaded = Loaded::new(true);
    let candidate = Candidate::read(&place, path.to_owned(), surroundings);
    loaded.understand(vec![candidate], surroundings);
    Ok(loaded)
}

/// The definitions in `dir` (absolute), without reading them. Blocks on the file system.
///
/// # Errors
/// As openat(2) and getdents64(2), and [`Place::open`]; `NotFound`: it does not exist.
pub fn list(dir: &Path, surroundings: &Surroundings) -> io::Result<Listed> {
    let place = Place::open(dir, surroundings)?;
    let mut names = place.list(surroundings)?;
    // Editors keep their copies and locks under names that begin with a dot.
    names.retain(|name| {
        let bytes = name.as_encoded_bytes();
        bytes.ends_with(b".toml") && !bytes.starts_with(b".")
    });
    let cut = names.len() > MOST_FILES;
    names.truncate(MOST_FILES);
    let files = names.iter().map(|name| dir.join(name)).collect();
    Ok(Listed { place, files, cut })
}

impl Directory {
    /// One that could not be listed.
    pub fn unread(path: PathBuf, error: &io::Error) -> Self {
        let read = match error.kind() {
            io::ErrorKind::NotFound => Ok(Vec::new()),
            _ => Err(UnreadDirectory::Failed(error.to_string())),
        };
        Self { path, read, cut: false }
    }

    /// One that is still being read.
    pub fn late(path: PathBuf) -> Self {
        Self { path, read: Err(UnreadDirectory::Late), cut: false }
    }
}

impl Candidate {
    /// Reads one file of a directory. Blocks on the file system.
    pub fn read(place: &Place, path: PathBuf, surroundings: &Surroundings) -> Self {
        let name = Path::new(path.file_name().unwrap_or_default());
        match place.read(name, MOST_BYTES, surroundings) {
            Ok((bytes, trust, stamp)) => {
                let text = String::from_utf8(bytes).map_err(|_| Unread::NotText);
                Self { path, trust, text, stamp: Some(stamp) }
            }
            Err(error) => {
                let text = Err(Unread::Failed(Arc::new(error)));
                Self { path, trust: place.trust().clone(), text, stamp: None }
            }
        }
    }

    /// Why the system did not give its text, if that is so.
    pub fn unread(&self) -> Option<&io::Error> {
        match &self.text {
            Err(Unread::Failed(error)) => Some(error),
            Ok(_) | Err(Unread::NotText | Unread::Late) => None,
        }
    }

    /// One that is still being read. Its name is taken: what it hides must not come up in its place.
    pub fn late(place: &Place, path: PathBuf) -> Self {
        Self { path, trust: place.trust().clone(), text: Err(Unread::Late), stamp: None }
    }
}

impl Loaded {
    fn new(thorough: bool) -> Self {
        Self { template: Some(Template::built_in()), thorough, ..Self::default() }
    }

    /// What the files of these directories say.
    pub fn of(directories: Vec<Directory>, surroundings: &Surroundings) -> Self {
        Self::new(false).with(directories, surroundings)
    }

    fn with(mut self, directories: Vec<Directory>, surroundings: &Surroundings) -> Self {
        let mut candidates = Vec::new();
        for Directory { path, read, cut } in directories {
            if cut {
                self.complain(
                    &path,
                    format!("holds more than {MOST_FILES} definitions; the rest is not read"),
                );
            }
            match read {
                Ok(read) => candidates.extend(read),
                Err(why) => {
                    self.complain(&path, why.to_string());
                    self.unread.push(path);
                }
            }
        }
        self.understand(candidates, surroundings);
        self.spread_groups();
        self
    }

    /// The warnings about services that are named in `after` or `requires` and that are neither here, right or wrong,
    /// nor, as `exists` knows, anywhere else (a profile, a record). A few of each file.
    pub fn dangling(&self, exists: impl Fn(&ServiceName) -> bool) -> Vec<Diagnostic> {
        let here = |name: &ServiceName| self.services.contains_key(name) || self.broken.contains(name);
        let known = move |name: &ServiceName| here(name) || exists(name);
        let missing = move |name: &ServiceName| {
            !known(name) && !self.groups.contains_key(name) && !aliased(name).is_some_and(|name| known(&name))
        };
        let warnings = |outside: &Outside| -> Vec<Diagnostic> {
            let dangling = outside.mentions.iter().filter_map(|mention| match &mention.what {
                Mentioned::Service { name, key } if missing(name) => {
                    let text =
                        format!("there is no service '{name}'; '{key}' has no effect until there is one");
                    Some(Diagnostic::at(&outside.source, &mention.span, About::Reference, text))
                }
                Mentioned::Service { .. }
                | Mentioned::Program
                | Mentioned::User
                | Mentioned::WorkingDir
                | Mentioned::EnvFile(_) => None,
            });
            dangling.take(MOST).collect()
        };
        self.outside.iter().flat_map(warnings).collect()
    }

    /// The warnings about programs, users, directories and env files that do not exist here; of what was loaded thoroughly.
    /// `search` is the PATH of a service whose definition has none, if there is one. Blocks on the file system.
    pub fn missing(&self, search: Option<&OsStr>, surroundings: &Surroundings) -> Vec<Diagnostic> {
        let search = search.unwrap_or(OsStr::new(DEFAULT_PATH));
        let mut found = Vec::new();
        for Outside { service, source, mentions } in &self.outside {
            let Some(definition) = self.services.get(service) else { continue };
            for mention in mentions {
                if let Some(text) = presence::absent(&mention.what, definition, search, surroundings) {
                    found.push(Diagnostic::at(source, &mention.span, About::Reference, text));
                }
            }
        }
        found
    }

    fn complain(&mut self, path: &Path, message: impl Into<String>) {
        self.diagnostics.push(Diagnostic::whole(path, About::Text, message));
    }

    fn understand(&mut self, mut candidates: Vec<Candidate>, surroundings: &Surroundings) {
        candidates.sort_by_key(|candidate| candidate.trust != Trust::Trusted);
        let mut taken: BTreeMap<String, PathBuf> = BTreeMap::new();
        for candidate in candidates {
            let path = &candidate.path;
            let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned) else {
                self.complain(path, "its name is not UTF-8 text; rename it to NAME.toml");
                continue;
            };
            if let Some(first) = taken.get(&stem) {
                let message =
                    format!("{} is already defined by {}; remove one", quoted(&stem), first.display());
                self.refuse(&stem, Says::default(), vec![Diagnostic::whole(path, About::Text, message)]);
                continue;
            }
            taken.insert(stem.clone(), path.clone());
            if path.file_name().is_some_and(|name| name == template::FILE_NAME) {
                self.add_template(candidate, surroundings);
                continue;
            }
            if let Some(Ok(name)) = stem.strip_suffix(INSTANCE).map(ServiceName::new) {
                self.add_instance_template(&name, candidate, surroundings);
                continue;
            }
            match ServiceName::new(&stem) {
                Ok(name) => self.add_service(&name, candidate, surroundings),
                Err(error) => {
                    let says = candidate.text.as_deref().map(Says::read).unwrap_or_default();
                    self.refuse(&stem, says, vec![Diagnostic::whole(path, About::Text, error.to_string())]);
                }
            }
        }
    }

    /// A definition is refused. The finding that came first stays the one that is shown under its name.
    fn refuse(&mut self, stem: &str, says: Says, found: Vec<Diagnostic>) {
        if let Some(first) = found.first() {
            let refused = || RefusedFile { wrong: first.clone(), says };
            self.refused.entry(stem.to_owned()).or_insert_with(refused);
        }
        self.diagnostics.extend(found);
    }

    fn add_template(&mut self, candidate: Candidate, surroundings: &Surroundings) {
        self.template = None;
        let Candidate { path, trust, text, stamp } = candidate;
        let text = match text {
            Ok(text) => text,
            Err(unread) => {
                let wrong = Diagnostic::whole(&path, unread.about(), unread.to_string());
                self.template_refused = Some(wrong.clone());
                return self.diagnostics.push(wrong);
            }
        };
        let template = Template::from_file(Source { path: path.clone(), text }, trust.clone(), stamp);
        // Filled in once, for the profile that is always there: what is wrong is said now, not at the first gateway.
        let fill = |name| template.gateway(&name, &Profile::Default, surroundings);
        let filled = ServiceName::new(DEFAULT_PROFILE)
            .map(|name| fill(name).and_then(|_| not_strangers(&path, &trust, ())));
        match filled {
            Ok(Err(diagnostics)) => {
                self.template_refused = diagnostics.first().cloned();
                self.diagnostics.extend(diagnostics);
            }
            Ok(Ok(())) | Err(_) => self.template = Some(template),
        }
    }

    fn add_service(&mut self, name: &ServiceName, candidate: Candidate, surroundings: &Surroundings) {
        let Candidate { path, trust, text, stamp } = candidate;
        let text = match text {
            Ok(text) => text,
            Err(unread) => {
                self.broken.insert(name.clone());
                let wrong = Diagnostic::whole(&path, unread.about(), unread.to_string());
                return self.refuse(name.as_str(), Says::default(), vec![wrong]);
            }
        };
        if self.services.contains_key(name) {
            let message = "is one of the instances of another file; remove one of both";
            let found = vec![Diagnostic::whole(&path, About::Text, message)];
            return self.refuse(name.as_str(), Says::read(&text), found);
        }
        let text = match name.as_instance().and_then(|(base, _)| self.template_of(&path, base, &text)) {
            Some(template) => template,
            None => text,
        };
        let file = File { source: Source { path, text }, trust, stamp };
        match self.read_one(&file, name, surroundings) {
            Ok(Parsed { instances: Some(count), remarks, .. }) => {
                self.remarks.extend(remarks);
                self.add_instances(name, count, &file, surroundings);
            }
            Ok(parsed) => {
                self.remarks.extend(parsed.remarks.iter().cloned());
                self.add(parsed, &file, true);
            }
            Err(diagnostics) => {
                self.broken.insert(name.clone());
                self.refuse(name.as_str(), Says::read(&file.source.text), diagnostics);
            }
        }
    }

    /// What a file says of the service `name`.
    fn read_one(
        &self,
        file: &File,
        name: &ServiceName,
        surroundings: &Surroundings,
    ) -> Result<Parsed, Vec<Diagnostic>> {
        let argument = name.as_instance().map(|(_, argument)| [(PLACEHOLDER, argument.to_owned())]);
        let subject = Subject {
            name,
            origin: Origin::File(file.source.path.clone()),
            trust: &file.trust,
            security: Security::CONFINED,
            placeholders: argument.as_ref().map_or(&[], |argument| argument.as_slice()),
            remarked: self.thorough,
        };
        parse(&file.source, subject, surroundings)
            .and_then(|parsed| not_strangers(&file.source.path, &file.trust, parsed))
            .and_then(|parsed| self.without_cycle(parsed, &file.source))
    }

    /// A definition is taken. `outside`: what it names outside itself is of interest.
    fn add(&mut self, parsed: Parsed, file: &File, outside: bool) {
        let Parsed { mut definition, mut mentions, .. } = parsed;
        let name = definition.name.clone();
        definition.stamp = file.stamp;
        self.services.insert(name.clone(), definition);
        if let Some(Ok(base)) = name.as_instance().map(|(base, _)| ServiceName::new(base)) {
            self.groups.entry(base).or_default().push(name.clone());
        }
        if !self.thorough {
            mentions.retain(|mention| matches!(mention.what, Mentioned::Service { .. }));
        }
        self.mentioned.extend(mentions.iter().filter_map(Mention::service).cloned());
        if outside && !mentions.is_empty() {
            self.outside.push(Outside { service: name, source: file.source.clone(), mentions });
        }
    }

    /// NAME@1 to NAME@`count`, of one file.
    fn add_instances(&mut self, base: &ServiceName, count: u64, file: &File, surroundings: &Surroundings) {
        // What it would be with none.
        self.groups.entry(base.clone()).or_default();
        for number in 1..=count {
            let name = base.instance(&number.to_string());
            let read = match &name {
                Ok(name) if self.services.contains_key(name) || self.services.len() >= MOST_FILES => {
                    let message = match self.services.contains_key(name) {
                        true => format!("'{name}' has a file of its own; remove one of both"),
                        false => {
                            format!("there are {MOST_FILES} services before '{name}'; no more are taken")
                        }
                    };
                    Err(vec![Diagnostic::whole(&file.source.path, About::Text, message)])
                }
                Ok(name) => self.read_one(file, name, surroundings),
                Err(error) => Err(vec![Diagnostic::whole(&file.source.path, About::Text, error.to_string())]),
            };
            match read {
                Ok(parsed) => self.add(parsed, file, number == 1),
                // It would be so for all that follow.
                Err(diagnostics) => {
                    return self.refuse(base.as_str(), Says::read(&file.source.text), diagnostics);
                }
            }
        }
    }

    /// `NAME@.toml`: what the instances of NAME whose own file is empty are like. Never itself a service.
    fn add_instance_template(
        &mut self,
        base: &ServiceName,
        candidate: Candidate,
        surroundings: &Surroundings,
    ) {
        let Candidate { path, trust, text, stamp } = candidate;
        let found = match text {
            Ok(text) => {
                let file = File { source: Source { path: path.clone(), text }, trust, stamp };
                // Filled in once: what is wrong is said now, not at the first instance.
                let read = base.instance("1").map(|name| self.read_one(&file, &name, surroundings));
                self.templates.insert(path.with_extension(""), file.source.text);
                match read {
                    Ok(Err(diagnostics)) => diagnostics,
                    Ok(Ok(_)) | Err(_) => return,
                }
            }
            Err(unread) => vec![Diagnostic::whole(&path, unread.about(), unread.to_string())],
        };
        self.refuse(&format!("{base}{INSTANCE}"), Says::default(), found);
    }

    /// The text in the place of an empty file `NAME@ARGUMENT.toml`.
    fn template_of(&self, path: &Path, base: &str, text: &str) -> Option<String> {
        let path = path.with_file_name(format!("{base}{INSTANCE}"));
        let is_comment = |line: &str| line.trim_start().starts_with('#');
        let is_empty = text.lines().all(|line| line.trim().is_empty() || is_comment(line));
        self.templates.get(&path).filter(|_| is_empty).cloned()
    }

    /// A service that comes after `worker` comes after all instances of it.
    fn spread_groups(&mut self) {
        let groups = &mut self.groups;
        groups.values_mut().for_each(|names| names.sort());
        let (services, broken) = (&self.services, &self.broken);
        let several = |name: &ServiceName| {
            groups.get(name).filter(|_| !services.contains_key(name) && !broken.contains(name))
        };
        let spread = |names: &[ServiceName]| {
            names.iter().any(|name| several(name).is_some()).then(|| {
                let all = names
                    .iter()
                    .flat_map(|name| several(name).map_or(std::slice::from_ref(name), Vec::as_slice));
                let mut all: Vec<ServiceName> = all.cloned().collect();
                all.sort();
                all.dedup();
                all
            })
        };
        let spread: Vec<_> = services
            .values()
            .map(|definition| (&definition.name, spread(&definition.after), spread(&definition.requires)))
            .filter(|(_, after, requires)| after.is_some() || requires.is_some())
            .map(|(name, after, requires)| (name.clone(), after, requires))
            .collect();
        for (name, after, requires) in spread {
            let Some(definition) = self.services.get_mut(&name) else { continue };
            if let Some(after) = after {
                definition.after = after;
            }
            if let Some(requires) = requires {
                definition.requires = requires;
            }
        }
    }

    /// Refuses a definition that would make services wait for each other in a circle.
    fn without_cycle(&self, parsed: Parsed, source: &Source) -> Result<Parsed, Vec<Diagnostic>> {
        let new = &parsed.definition;
        // A circle comes back to the new one, so somebody names it; else a long chain would be walked for each of its links.
        let named =
            |name: &ServiceName| *name == new.name || aliased(name).is_some_and(|name| name == new.name);
        let alias = ServiceName::new(&format!("{GATEWAY_PREFIX}{}", new.name)).ok();
        let base = new.name.as_instance().map(|(base, _)| base);
        let known = self.mentioned.contains(&new.name)
            || base.is_some_and(|base| self.mentioned.contains(base))
            || alias.is_some_and(|alias| self.mentioned.contains(&alias))
            || new.after.iter().any(|name| named(name) || base.is_some_and(|base| base == name.as_str()));
        if !known {
            return Ok(parsed);
        }
        let here = |name: &ServiceName| *name == new.name || self.services.contains_key(name);
        let meant = |name: &ServiceName| -> Vec<ServiceName> {
            if here(name) {
                return vec![name.clone()];
            }
            let mut several = self.groups.get(name).cloned().unwrap_or_default();
            several.extend(base.is_some_and(|base| base == name.as_str()).then(|| new.name.clone()));
            if several.is_empty() {
                several.push(aliased(name).filter(here).unwrap_or_else(|| name.clone()));
            }
            several
        };
        let cycle = find_cycle(&new.name, |name| {
            let found = if *name == new.name { Some(new) } else { self.services.get(name) };
            found.map(|definition| definition.after.iter().flat_map(meant).collect()).unwrap_or_default()
        });
        let Some(cycle) = cycle else { return Ok(parsed) };
        let names: Vec<&str> = cycle.iter().map(ServiceName::as_str).collect();
        let message = format!(
            "these services wait for each other: {}; remove one 'after' or 'requires'",
            names.join(" -> ")
        );
        // All of `after` was mentioned, so there is a place to show.
        let closes = |mention: &&Mention| {
            mention.service().is_some_and(|name| cycle.get(1).is_some_and(|next| meant(name).contains(next)))
        };
        let span = parsed.mentions.iter().find(closes).map_or(0..0, |mention| mention.span.clone());
        Err(vec![Diagnostic::at(source, &span, About::Text, message)])
    }
}

/// What a stranger can have written runs as nobody, least of all as root. Said when nothing else is wrong.
fn not_strangers<T>(path: &Path, trust: &Trust, read: T) -> Result<T, Vec<Diagnostic>> {
    let Trust::Stranger(reason) = trust else { return Ok(read) };
    let message = format!(
        "may have been written by somebody else: {reason}; chown it to root and chmod go-w it, if you trust it"
    );
    Err(vec![Diagnostic::whole(path, About::Place, message)])
}

/// `gateway-coder` names the service `coder` where there is none called `gateway-coder`.
pub fn aliased(name: &ServiceName) -> Option<ServiceName> {
    ServiceName::new(name.as_str().strip_prefix(GATEWAY_PREFIX)?).ok()
}

/// A shortest way from `start` back to itself along `after`, beginning and ending with `start`. For everybody who adds
/// a service to others: profiles and records can close a cycle as well as files.
pub fn find_cycle(
    start: &ServiceName,
    after: impl Fn(&ServiceName) -> Vec<ServiceName>,
) -> Option<Vec<ServiceName>> {
    let mut came_from: BTreeMap<ServiceName, ServiceName> = BTreeMap::new();
    let mut next = VecDeque::from([start.clone()]);
    while let Some(name) = next.pop_front() {
        for target in after(&name) {
            if target == *start {
                let mut cycle = vec![start.clone()];
                let mut at = name;
                while at != *start {
                    cycle.push(at.clone());
                    at = came_from.remove(&at)?;
                }
                cycle.push(start.clone());
                cycle.reverse();
                return Some(cycle);
            }
            if !came_from.contains_key(&target) {
                came_from.insert(target.clone(), name.clone());
                next.push_back(target);
            }
        }
    }
    None
}
