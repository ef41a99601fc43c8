//! What `ctl audit` shows: what each service may do, and what could be tighter.

use super::render::{field, printable};
use crate::control::protocol::Audit;

/// One card for each service, an empty line between them; `columns`: as [`field`] has it.
pub fn show(audits: &[Audit], columns: Option<usize>) -> String {
    let cards: Vec<String> = audits.iter().map(|audit| card(audit, columns)).collect();
    cards.join("\n")
}

fn card(audit: &Audit, columns: Option<usize>) -> String {
    let mut text = format!("{}: {}\n", printable(&audit.name), audit.state);
    let mut show = |label: &str, value: &str| field(&mut text, label, value, columns);
    show("user", &user(audit));
    if let Some(privileges) = &audit.privileges {
        let switch = |is_on: bool| if is_on { "on" } else { "off" };
        show("capabilities", &list(&privileges.capabilities));
        show("could gain", &list(&privileges.bounding));
        show("no_new_privs", switch(privileges.no_new_privs));
        show("seccomp", switch(privileges.seccomp));
    }
    if let Some(rung) = &audit.containment {
        let weakness = audit.containment_weakness.as_ref();
        let weakness = weakness.map(|weakness| format!("; but {weakness}")).unwrap_or_default();
        show("containment", &format!("{rung}{weakness}"));
    }
    let limits: Vec<String> = audit.limits.iter().map(|(key, value)| format!("{key}={value}")).collect();
    show("limits", &list(&limits));
    for line in &audit.limits_not_in_force {
        show("", line);
    }
    for (place, line) in audit.tighter.iter().enumerate() {
        show(if place == 0 { "tighter" } else { "" }, line);
    }
    text
}

fn user(audit: &Audit) -> String {
    let Some(uid) = audit.uid else { return "there is none of that name".to_owned() };
    let mut text = audit.user.as_ref().map(|name| format!("{name}, ")).unwrap_or_default();
    text += &format!("uid {uid}");
    if let Some(gid) = audit.gid {
        text += &format!(", gid {gid}");
    }
    if !audit.groups.is_empty() {
        let groups: Vec<String> = audit.groups.iter().map(ToString::to_string).collect();
        text += &format!(", groups {}", groups.join(" "));
    }
    text
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::samples;

    #[test]
    fn a_card_for_each() {
        let running = samples::audit("coder");
        let down = Audit {
            user: None,
            gid: None,
            groups: Vec::new(),
            privileges: None,
            containment: None,
            limits: [].into(),
            limits_not_in_force: Vec::new(),
            tighter: Vec::new(),
            ..samples::audit("b")
        };
        assert_eq!(
            show(&[running, down], None),
            "coder: up\n\
             \x20 user         hermes, uid 10000, gid 10000, groups 10000 44\n\
             \x20 capabilities none\n\
             \x20 could gain   CAP_CHOWN CAP_KILL\n\
             \x20 no_new_privs off\n\
             \x20 seccomp      on\n\
             \x20 containment  cgroup; but weak\n\
             \x20 limits       memory_max=512M\n\
             \x20              pids_max=5 is not in force: no\n\
             \x20 tighter      one\n\
             \x20              two\n\
             \n\
             b: up\n\
             \x20 user         uid 10000\n\
             \x20 limits       none\n"
        );
    }
}
