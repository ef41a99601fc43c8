//! The services as the daemon knows them: what defines each, and what a start of it needs.

use crate::core::fleet::ServiceId;
use crate::core::name::ServiceName;
use crate::definition::Definition;
use crate::definition::resolved::LogPolicy;
use crate::store::RecordRow;
use std::collections::BTreeMap;

/// One service, beside its state machine.
#[derive(Debug)]
pub struct Service {
    pub name: ServiceName,
    pub definition: Definition,
    /// It was registered, with this record.
    pub record: Option<RecordRow>,
    /// Its definition is gone; dropped once it is stopped.
    pub gone: bool,
    /// Its log is open, with this policy.
    pub logged: Option<LogPolicy>,
    /// What `gateway run` as the CMD had more than the template.
    pub extra_args: Vec<String>,
}

impl Service {
    pub fn new(definition: Definition, record: Option<RecordRow>) -> Self {
        Self {
            name: definition.name.clone(),
            definition,
            record,
            gone: false,
            logged: None,
            extra_args: Vec::new(),
        }
    }
}

/// All of them, by number.
pub type Services = BTreeMap<ServiceId, Service>;
