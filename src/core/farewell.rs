//! What becomes of the things that the supervisor made, when it ends.

/// Decided once, when the shutdown begins, and handed to whatever made something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Farewell {
    /// The system goes on without us: cgroups, FIFOs and the runtime directory are removed.
    #[default]
    Host,
    /// A container ends with us, and our cgroup with it. What goes by itself then is left as it is: to remove thousands of
    /// directories and FIFOs one by one takes as long as the end of the services.
    Container,
}
