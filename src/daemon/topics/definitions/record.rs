//! What a record on disk stands for: the definition of a registered service.

use crate::core::fingerprint::fingerprint;
use crate::core::name::ServiceName;
use crate::definition::diagnose::Diagnostic;
use crate::definition::resolved::{Record, RecordError, check_variables};
use crate::definition::template::{Profile, Template};
use crate::definition::trust::Trust;
use crate::definition::users::UserError;
use crate::definition::{Definition, Surroundings};
use crate::store::{self, RecordRow};
use std::path::Path;

/// Why there is no definition of a gateway.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    #[error("the gateway template is malformed: see 'hermes-sup check'")]
    Malformed,
    /// With the place in the template.
    #[error("{}", .0.first().map_or_else(String::new, Diagnostic::headline))]
    Wrong(Vec<Diagnostic>),
}

/// Why a record is no service.
#[derive(Debug, thiserror::Error)]
pub enum DefineError {
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error("'{name}': '{directory}' is not an absolute path of a profile")]
    NoProfile { name: ServiceName, directory: String },
    #[error("'{name}': {error}")]
    User { name: ServiceName, error: UserError },
    #[error("'{name}': gateways do not run as '{user}', for whom it is registered")]
    OtherUser { name: ServiceName, user: String },
}

/// The definition of a gateway. `template`: `None` where it is malformed.
///
/// # Errors
/// What is wrong with the template.
pub fn gateway(
    template: Option<&Template>,
    name: &ServiceName,
    profile: &Profile,
    around: &Surroundings,
) -> Result<Definition, TemplateError> {
    let template = template.ok_or(TemplateError::Malformed)?;
    template.gateway(name, profile, around).map_err(TemplateError::Wrong)
}

/// The definition that a record stands for.
///
/// # Errors
/// [`DefineError`]; nothing of a record is taken as right because it was once.
pub fn define(
    name: &ServiceName,
    row: &RecordRow,
    template: Option<&Template>,
    trust: &Trust,
    around: &Surroundings,
) -> Result<Definition, DefineError> {
    let directory = match &row.program {
        store::Program::Argv(argv) => {
            let record = Record { name, argv, env: &row.env, user: &row.user };
            return Ok(Definition::from_record(record, trust, around)?);
        }
        store::Program::Profile(directory) => directory,
    };
    let profile = Profile::in_directory(Path::new(directory), &around.home)
        .ok_or_else(|| DefineError::NoProfile { name: name.clone(), directory: directory.clone() })?;
    if template.is_none() {
        return Err(TemplateError::Malformed.into());
    }
    check_variables(name, &row.env)?;
    let mut definition = gateway(template, name, &profile, around)?;
    // The template says who runs it; the record says for whom it was made. The writer of the one must not get the
    // other's rights.
    let no_user = |error| DefineError::User { name: name.clone(), error };
    let asked = around.may_run_as(&row.user, trust).map_err(no_user)?;
    let uid_of = |who| around.lookup(who).map(|user| user.uid).map_err(no_user);
    if uid_of(&asked)? != uid_of(&definition.user)? {
        return Err(DefineError::OtherUser { name: name.clone(), user: row.user.clone() });
    }
    let mut parts = vec![definition.hash.to_string()];
    parts.extend(row.env.iter().flat_map(|(key, value)| [key.clone(), value.clone()]));
    definition.hash = fingerprint(parts.iter().map(String::as_str));
    definition.env.extend(row.env.clone());
    Ok(definition)
}
