//! The verbs.

/// All methods, for the message that answers an unknown one.
pub const METHODS: [&str; 23] = [
    "start",
    "stop",
    "restart",
    "once",
    "status",
    "list",
    "register",
    "unregister",
    "kill",
    "freeze",
    "thaw",
    "tree",
    "audit",
    "wait",
    "set",
    "reload",
    "shutdown",
    "upgrade",
    "log-places",
    "rescan",
    "scope",
    "scope-stop",
    "scope-show",
];
