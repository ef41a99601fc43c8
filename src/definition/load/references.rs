//! What definitions name outside themselves, and the warnings where it does not exist.

use super::{Loaded, aliased};
use crate::core::name::ServiceName;
use crate::core::policy::DEFAULT_PATH;
use crate::definition::diagnose::{About, Diagnostic, MOST, Source};
use crate::definition::parse::{Mention, Mentioned};
use crate::definition::presence;
use crate::definition::users::Surroundings;
use std::ffi::OsStr;

/// What a definition names besides itself, with its text, which has the places.
#[derive(Debug)]
pub(super) struct Outside {
    pub(super) service: ServiceName,
    pub(super) source: Source,
    pub(super) mentions: Vec<Mention>,
}

impl Loaded {
    /// Warnings about services that `after` or `requires` names and that do not exist: neither in a file, valid or not, nor
    /// elsewhere (a profile, a record), which `exists` knows. A few of each file.
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

    /// Warnings about programs, users, directories and env files that do not exist here; of what was loaded thoroughly.
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
}
