//! What to start a container with for a rung that does not work in it: by engine, for people to copy.
//!
//! The words are the engines' own. Whether they help is found out by doing, like everything about rungs; nothing here
//! decides anything.

use super::Rung;

/// An engine, and its option.
pub type Flag = (&'static str, &'static str);

/// What gives the rung; nothing for the lowest, which asks for nothing.
pub fn flags(rung: Rung) -> &'static [Flag] {
    match rung {
        Rung::Cgroup => &[
            ("docker", "--security-opt writable-cgroups=true (Docker 29 or later)"),
            ("compose", "security_opt: [\"writable-cgroups=true\"]"),
            ("podman", "--systemd=always, or --security-opt unmask=/sys/fs/cgroup"),
            ("containerd", "cgroup_writable = true for the runtime class (containerd 2.1 or later)"),
            (
                "cri-o",
                "the annotation io.kubernetes.cri-o.cgroup2-mount-hierarchy-rw: \"true\", allowed for the runtime handler",
            ),
            ("kubernetes", "a runtimeClassName whose handler is set up so"),
        ],
        Rung::CgroupPrivate => &[
            ("docker", "--security-opt seccomp=unconfined, as root (writable-cgroups=true opens less)"),
            ("compose", "security_opt: [\"seccomp=unconfined\"]"),
            ("podman", "its own seccomp profile permits it; user.max_user_namespaces must not be 0"),
            ("containerd", "a seccomp profile that permits unshare, fsopen, fsconfig and fsmount"),
            ("cri-o", "a seccomp profile that permits unshare, fsopen, fsconfig and fsmount"),
            ("kubernetes", "securityContext: {seccompProfile: {type: Unconfined}, runAsUser: 0}"),
        ],
        Rung::Pidns => &[
            ("docker", "--cap-add SYS_ADMIN, and --security-opt apparmor=unconfined where AppArmor is on"),
            ("compose", "cap_add: [SYS_ADMIN], security_opt: [\"apparmor=unconfined\"]"),
            ("podman", "--cap-add SYS_ADMIN"),
            ("containerd", "the capability CAP_SYS_ADMIN"),
            ("cri-o", "the capability CAP_SYS_ADMIN"),
            ("kubernetes", "securityContext: {capabilities: {add: [SYS_ADMIN]}}"),
        ],
        Rung::Keeper => &[
            (
                "docker",
                "no --user, and --cap-add SETUID --cap-add SETGID --cap-add KILL after --cap-drop ALL",
            ),
            ("compose", "no user:, and cap_add: [SETUID, SETGID, KILL] after cap_drop: [ALL]"),
            ("podman", "no --user, and --cap-add SETUID,SETGID,KILL after --cap-drop all"),
            ("containerd", "root with CAP_SETUID, CAP_SETGID and CAP_KILL"),
            ("cri-o", "root with CAP_SETUID, CAP_SETGID and CAP_KILL (default_capabilities)"),
            (
                "kubernetes",
                "securityContext: {runAsUser: 0, runAsNonRoot: false, capabilities: {add: [SETUID, SETGID, KILL]}}",
            ),
        ],
        Rung::KeeperSameUid => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rung_but_the_lowest_names_an_option_of_each_engine() {
        for rung in Rung::ALL {
            let engines: Vec<&str> = flags(rung).iter().map(|(engine, _)| *engine).collect();
            let all = ["docker", "compose", "podman", "containerd", "cri-o", "kubernetes"];
            assert_eq!(engines, if rung == Rung::KeeperSameUid { &[][..] } else { &all }, "{rung}");
        }
    }
}
