//! Services of which there are several: NAME@1, NAME@2, of one file with `instances` or of a file each.

use super::files::{Candidate, MOST_FILES};
use super::{File, Loaded};
use crate::core::name::{INSTANCE, ServiceName};
use crate::definition::diagnose::{About, Diagnostic, Source};
use crate::definition::parse::Says;
use crate::definition::users::Surroundings;
use std::path::Path;

impl Loaded {
    /// NAME@1 to NAME@`count`, of one file.
    pub(super) fn add_instances(
        &mut self,
        base: &ServiceName,
        count: u64,
        file: &File,
        surroundings: &Surroundings,
    ) {
        // With a count of 0 the name still stands for a group.
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
                // The same would be wrong with all that follow.
                Err(diagnostics) => {
                    return self.refuse(base.as_str(), Says::read(&file.source.text), diagnostics);
                }
            }
        }
        self.counts.insert(base.clone(), count);
    }

    /// Takes `NAME@.toml`, the text for instances of NAME whose own file is empty. It is never itself a service.
    pub(super) fn add_instance_template(
        &mut self,
        base: &ServiceName,
        candidate: Candidate,
        surroundings: &Surroundings,
    ) {
        let Candidate { path, trust, text, stamp } = candidate;
        let found = match text {
            Ok(text) => {
                let file = File { source: Source { path: path.clone(), text }, trust, stamp };
                // Filled in once. So mistakes are told now, not at the first instance.
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
    pub(super) fn template_of(&self, path: &Path, base: &str, text: &str) -> Option<String> {
        let path = path.with_file_name(format!("{base}{INSTANCE}"));
        let is_comment = |line: &str| line.trim_start().starts_with('#');
        let is_empty = text.lines().all(|line| line.trim().is_empty() || is_comment(line));
        self.templates.get(&path).filter(|_| is_empty).cloned()
    }

    /// In `after` and `requires`, replaces the name of a group by the names of its instances.
    pub(super) fn spread_groups(&mut self) {
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
}
