//! Starts: what a child gets, that one does not disturb another, and why one fails.

use super::{PATIENCE, on_every_rung};
use crate::containment::processes::{self, walk};
use crate::containment::*;
use crate::core::limits::Limits;
use crate::core::signal::Signal;
use std::fs::File;
use std::io::Read;
use std::time::Instant;

#[test]
fn what_cannot_be_executed_says_why_and_leaves_nothing() {
    isolated!("what_cannot_be_executed_says_why_and_leaves_nothing", || {
        on_every_rung(|world, rung| {
            let dir = tempfile::tempdir().unwrap();
            std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
                .unwrap();
            let file = |name: &str, text: &str, mode: u32| {
                let path = dir.path().join(name);
                std::fs::write(&path, text).unwrap();
                let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
                std::fs::set_permissions(&path, mode).unwrap();
                path.to_str().unwrap().to_owned()
            };
            let script = file("script", "#!/no/such/interpreter\n", 0o755);
            let plain = file("plain", "#!/bin/sh\n", 0o644);
            let text = file("text", "just text\n", 0o755);
            let cases = [
                ("/no/such/program".to_owned(), "'/no/such/program': No such file or directory"),
                ("no-such-program".to_owned(), "not found in PATH"),
                (plain, "Permission denied"),
                (script, "the interpreter or loader that it names does not exist"),
                (text, "not a program for this machine"),
            ];
            for (n, (program, words)) in (1..).zip(cases) {
                let (plan, _stdout) = world.plan(&[&program], "pause", rung);
                let id = world.id(n);
                world.held.spawn(&id, plan, None, &Limits::default()).unwrap();
                let error = world.until("failed", |event| match event {
                    Event::SpawnFailed { error, .. } => Some(error.to_string()),
                    _ => None,
                });
                assert!(error.contains(words), "{error}");
                assert_eq!(world.events.len(), 1, "{:?}", world.events);
                assert_eq!(world.held.rung(&id), None, "nothing is held any more");
                world.forget();
            }
        });
    });
}

/// The fork server can be killed, or stopped, and nothing tells us of a stop.
#[test]
fn a_fork_server_that_is_killed_or_stopped_costs_no_start() {
    isolated!("a_fork_server_that_is_killed_or_stopped_costs_no_start", || {
        // In a PID namespace of its own the keeper is made without it.
        on_every_rung(|world, rung| {
            for (n, signal) in
                (1..).zip([Signal::STOP, Signal::KILL, Signal::KILL, Signal::STOP, Signal::KILL])
            {
                if let Some(server) = world.held.spawner.pid().filter(|_| rung != Rung::Pidns) {
                    crate::sys::pidfd::Pidfd::open(server).unwrap().send(signal).unwrap();
                }
                world.start(n, "tree:3", rung);
                world.end(n);
            }
            if rung != Rung::Pidns {
                let end = Instant::now() + PATIENCE;
                while world.held.spawner.pid().is_some() {
                    assert!(Instant::now() < end, "it is made anew for ever");
                    world.turn();
                }
                world.start(9, "obey", rung);
                world.end(9);
            }
        });
    });
}

/// Children of the fork server read its memory until their exec, and others follow before they are there.
#[test]
fn starts_in_a_row_do_not_get_each_others_words() {
    const MANY: u64 = 40;
    isolated!("starts_in_a_row_do_not_get_each_others_words", || {
        on_every_rung(|world, rung| {
            let mut outputs = Vec::new();
            for n in 1..=MANY {
                let words = ["/bin/echo".to_owned(), format!("{n} ").repeat(n as usize)];
                let (plan, stdout) = world.plan(&words.each_ref().map(String::as_str), "", rung);
                world.held.spawn(&world.id(n), plan, None, &Limits::default()).unwrap();
                outputs.push((n, stdout));
            }
            for (n, mut stdout) in outputs {
                let mut said = String::new();
                stdout.read_to_string(&mut said).unwrap();
                assert_eq!(said.trim_end(), format!("{n} ").repeat(n as usize).trim_end());
                let wanted = world.id(n);
                world.until("over", |event| match event {
                    Event::TreeEmpty { id } if *id == wanted => Some(()),
                    _ => None,
                });
                world.held.release(&wanted, world.now());
            }
            world.forget();
        });
    });
}

/// The kernel sets `oom_score_adj` for all processes that share their memory, a keeper and its main process before the exec as well.
#[test]
fn what_makes_a_service_likely_to_be_killed_does_not_make_the_fork_server_so() {
    isolated!("what_makes_a_service_likely_to_be_killed_does_not_make_the_fork_server_so", || {
        on_every_rung(|world, rung| {
            let adjustment = |pid| std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
            let server = world.held.spawner.pid().unwrap();
            let before = adjustment(server);
            let (mut plan, mut stdout) = world.plan(&["/proc/self/exe"], "obey", rung);
            plan.oom_score_adj = Some(700);
            let id = world.id(1);
            world.held.spawn(&id, plan, None, &Limits::default()).unwrap();
            let pid = world.spawned();
            assert_eq!(stdout.read(&mut [0u8; 1]).unwrap(), 1);
            assert_eq!(adjustment(pid).trim(), "700");
            let parent = walk::stat(pid).unwrap().parent;
            assert_eq!(world.held.spawner.pid(), Some(server));
            assert_eq!([adjustment(server), adjustment(parent)], [before.clone(), before]);
            world.end(1);
        });
    });
}

/// KSM and THP are of the whole memory, which most children share with the fork server or their keeper until their exec.
#[test]
fn what_the_kernel_is_told_of_a_services_memory_it_is_not_told_of_ours() {
    isolated!("what_the_kernel_is_told_of_a_services_memory_it_is_not_told_of_ours", || {
        on_every_rung(|world, rung| {
            let told = |pid: i32| {
                let text = |file| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
                let line = |text: &str, key| {
                    text.lines().find_map(|line| Some(line.strip_prefix(key)?.trim().to_owned()))
                };
                (line(&text("status"), "THP_enabled:"), line(&text("ksm_stat"), "ksm_merge_any:"))
            };
            let server = world.held.spawner.pid().unwrap();
            let before = told(server);
            let (mut plan, mut stdout) = world.plan(&["/proc/self/exe"], "obey", rung);
            (plan.ksm, plan.thp_disabled) = (true, true);
            let id = world.id(1);
            world.held.spawn(&id, plan, None, &Limits::default()).unwrap();
            let pid = world.spawned();
            assert_eq!(stdout.read(&mut [0u8; 1]).unwrap(), 1);
            let (thp, ksm) = told(pid);
            assert_eq!(thp.as_deref(), Some("0"));
            // A kernel may not show it; the server has not asked for it.
            assert_eq!(ksm.as_deref(), before.1.as_ref().map(|_| "yes"));
            assert_ne!(before.1.as_deref(), Some("yes"));
            let parent = walk::stat(pid).unwrap().parent;
            assert_eq!(world.held.spawner.pid(), Some(server));
            assert_eq!([told(server), told(parent)], [before.clone(), before]);
            world.end(1);
        });
    });
}

/// What a child inherits is what its plan says, on every rung: no blocked or ignored signal, no descriptor, no group.
#[test]
fn a_service_starts_clean() {
    isolated!("a_service_starts_clean", || {
        let _blocked = crate::sys::posture::block_signals().unwrap();
        let _leak = rustix::io::fcntl_dupfd_cloexec(File::open("/dev/null").unwrap(), 50).unwrap();
        on_every_rung(|world, rung| {
            let (mut plan, mut stdout) = world.plan(&["/proc/self/exe"], "obey", rung);
            plan.nofile = Some((64, 128));
            plan.umask = Some(0o27);
            let id = world.id(1);
            world.held.spawn(&id, plan, None, &Limits::default()).unwrap();
            let pid = world.spawned();
            // The loader has closed its files when the program speaks.
            assert_eq!(stdout.read(&mut [0u8; 1]).unwrap(), 1);
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let field = |name: &str| -> String {
                let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
                line.unwrap_or_default().trim().to_owned()
            };
            assert_eq!((field("SigBlk"), field("SigIgn")), ("0".repeat(16), "0".repeat(16)));
            assert_eq!((field("NoNewPrivs").as_str(), field("Umask").as_str()), ("1", "0027"));
            let mut fds: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            fds.sort();
            assert_eq!(fds, ["0", "1", "2"]);
            let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
            let nofile = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
            assert_eq!(nofile.split_whitespace().nth(3), Some("64"), "{nofile}");
            if rung != Rung::KeeperSameUid {
                assert_eq!(field("Uid"), "65534\t65534\t65534\t65534");
                assert_eq!(field("CapEff"), "0".repeat(16));
                let groups = processes::groups_of(pid);
                assert!(groups.contains(&65534) && !groups.contains(&0), "{groups:?}");
            }
            world.end(1);
        });
    });
}
