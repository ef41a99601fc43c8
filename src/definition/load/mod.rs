//! All definitions of the services directories, with everything that is wrong among them. A bad file is reported and
//! does not stop the others.
//!
//! * Of two files with the same name the trusted one counts, else the one in the earlier directory. The other is refused.
//! * A bad file keeps its name: a file that it hides must not come up in its place.
//! * Dependencies are accepted in the same order. So the definition that closes a cycle is refused, and none before it.
//!
//! `files.rs` lists and reads, and here what was read is understood. `instances.rs` has services of which there are several,
//! `cycle.rs` those that wait for each other, `references.rs` what is named and does not exist.

mod cycle;
mod files;
mod instances;
mod references;
#[cfg(test)]
mod tests;

use super::diagnose::{About, Diagnostic, Source, quoted};
pub use super::parse::Says;
use super::parse::{Mention, Mentioned, Parsed, Subject, parse};
use super::resolved::{Definition, Origin, Security};
use super::stamp::Stamp;
use super::template::{self, DEFAULT_PROFILE, Profile, Template};
use super::trust::{Place, Trust};
use super::users::Surroundings;
use crate::core::name::{INSTANCE, ServiceName};
pub use cycle::{aliased, find_cycle};
use files::MOST_FILES;
pub use files::{Candidate, Directory, LATE, Listed, MOST_BYTES, UnreadDirectory, list};
use references::Outside;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

/// In each text of an instance's definition: which one it is.
const PLACEHOLDER: &str = "{instance}";

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
    /// What is valid and has no effect. Only [`load_thoroughly`] and [`load_file`] look for it.
    pub remarks: Vec<Diagnostic>,
    /// The names of services of which there are several, with their instances.
    pub groups: BTreeMap<ServiceName, Vec<ServiceName>>,
    /// Those of them that are of one file, and how many it makes. None of that is refused.
    pub counts: BTreeMap<ServiceName, u64>,
    /// What `NAME@.toml` says, by its path without `.toml`.
    templates: BTreeMap<PathBuf, String>,
    outside: Vec<Outside>,
    /// The names of services in `outside`.
    mentioned: BTreeSet<ServiceName>,
    /// Also looks for what has no effect, and keeps all names outside, not only those of services.
    thorough: bool,
}

/// A definition that is refused.
#[derive(Debug, Clone)]
pub struct RefusedFile {
    /// What was found wrong first.
    pub wrong: Diagnostic,
    pub says: Says,
}

/// A definition's file, read.
struct File {
    source: Source,
    trust: Trust,
    stamp: Option<Stamp>,
}

/// Reads `dirs` (absolute) in order. A directory that does not exist is an empty one. Blocks on the file system.
pub fn load(dirs: &[PathBuf], surroundings: &Surroundings) -> Loaded {
    read(dirs, surroundings, Loaded::new(false))
}

/// [`load`], with what [`Loaded::missing`] needs.
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

    /// Refuses a definition. What was found first stays what is shown under its name.
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
        // Filled in once, for the profile that is always there. So mistakes are told now, not at the first gateway.
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

    /// Takes a definition. `outside`: whether what it names outside itself is kept.
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
}

/// Refuses what a stranger can have written. It is checked after parsing, so that other mistakes are told first.
fn not_strangers<T>(path: &Path, trust: &Trust, read: T) -> Result<T, Vec<Diagnostic>> {
    let Trust::Stranger(reason) = trust else { return Ok(read) };
    let message = format!(
        "may have been written by somebody else: {reason}; chown it to root and chmod go-w it, if you trust it"
    );
    Err(vec![Diagnostic::whole(path, About::Place, message)])
}
