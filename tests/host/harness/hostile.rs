//! The adversaries that every rung has to end as a whole.

/// Each, and what its log says when it is in place.
pub const HOSTILE: [(&str, &str); 12] = [
    ("tree 100", "ready tree"),
    ("comet 2", "ready comet"),
    ("storm 400", "ready storm"),
    ("ignore-term", "ready ignore-term"),
    ("obey-but-child-ignores", "ready obey"),
    ("zombie-leader", "ready zombie-leader"),
    ("vfork-child", "ready vfork-child"),
    ("stopped", "ready stopped"),
    ("ptraced", "ready ptraced"),
    ("uid-changer", "ready uid-changer"),
    ("cgroup-escaper", "ready cgroup-escaper"),
    ("holds-fds 200", "ready holds-fds"),
];

/// Its first word, by which a service that runs it is called.
pub fn name(adversary: &str) -> &str {
    adversary.split(' ').next().unwrap_or(adversary)
}
