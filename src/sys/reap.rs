//! The one place that reaps in the supervisor.
//!
//! SIGCHLD coalesces (a hundred exits can be one signal), so the caller loops until there is nothing left. Children
//! that nobody started by name are orphans that fell to us as PID 1 or as a subreaper: reaping them is all they need.

use rustix::process::{Pid, WaitOptions, wait, waitpid};

/// A child that changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reaped {
    pub pid: i32,
    /// The status word of wait(2).
    pub status: i32,
}

impl Reaped {
    /// It was only stopped (job control), and lives.
    pub fn is_stop(self) -> bool {
        self.status & 0xff == 0x7f
    }
}

/// The next child that ended or was stopped, without waiting; `None` when there is none, `NoChildren` in `left`.
pub fn next() -> Result<Reaped, Left> {
    #[cfg(test)]
    if let Some(played) = played::next() {
        return played;
    }
    match wait(WaitOptions::NOHANG | WaitOptions::UNTRACED) {
        Ok(Some((pid, status))) => Ok(Reaped { pid: pid.as_raw_nonzero().get(), status: status.as_raw() }),
        Err(rustix::io::Errno::CHILD) => Err(Left::Nothing),
        Ok(None) | Err(_) => Err(Left::Living),
    }
}

/// The child of this number, if it has ended or was stopped. Costs the same with one child and with thousands, where [`next`]
/// goes through all of them (kernel/exit.c, `do_wait_thread`).
pub fn one(pid: i32) -> Option<Reaped> {
    #[cfg(test)]
    if let Some(played) = played::one(pid) {
        return played;
    }
    // 0 and negative numbers are process groups to waitpid(2).
    let pid = Some(pid).filter(|pid| *pid > 0).and_then(Pid::from_raw)?;
    let (pid, status) = waitpid(Some(pid), WaitOptions::NOHANG | WaitOptions::UNTRACED).ok()??;
    Some(Reaped { pid: pid.as_raw_nonzero().get(), status: status.as_raw() })
}

/// What is left when nothing can be reaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// Children that live.
    Living,
    /// No child at all (ECHILD).
    Nothing,
}

/// Children that only this thread has, in a simulation. As long as it has such, the process's own are not seen by it.
#[cfg(test)]
pub mod played {
    use super::{Left, Reaped};
    use std::cell::RefCell;
    use std::collections::{BTreeSet, VecDeque};

    #[derive(Debug, Default)]
    struct Children {
        living: BTreeSet<i32>,
        dead: VecDeque<Reaped>,
    }

    thread_local! {
        static CHILDREN: RefCell<Option<Children>> = const { RefCell::new(None) };
    }

    pub(super) fn next() -> Option<Result<Reaped, Left>> {
        CHILDREN.with_borrow_mut(|children| {
            let children = children.as_mut()?;
            let left = if children.living.is_empty() { Left::Nothing } else { Left::Living };
            Some(children.dead.pop_front().ok_or(left))
        })
    }

    pub(super) fn one(pid: i32) -> Option<Option<Reaped>> {
        CHILDREN.with_borrow_mut(|children| {
            let dead = &mut children.as_mut()?.dead;
            let at = dead.iter().position(|reaped| reaped.pid == pid);
            Some(at.and_then(|at| dead.remove(at)))
        })
    }

    /// The next that would be reaped.
    pub fn first_dead() -> Option<i32> {
        CHILDREN.with_borrow(|children| Some(children.as_ref()?.dead.front()?.pid))
    }

    /// Those that live, if the thread has played ones.
    pub fn children() -> Option<Vec<i32>> {
        CHILDREN.with_borrow(|children| Some(children.as_ref()?.living.iter().copied().collect()))
    }

    /// The children of this thread, until it is dropped.
    #[derive(Debug)]
    pub struct Family(());

    impl Family {
        /// None yet.
        pub fn begin() -> Self {
            CHILDREN.set(Some(Children::default()));
            Self(())
        }

        pub fn born(&self, pid: i32) {
            CHILDREN.with_borrow_mut(|children| {
                if let Some(children) = children {
                    children.living.insert(pid);
                }
            });
        }

        /// It ends, and waits to be reaped.
        pub fn ended(&self, pid: i32, status: i32) {
            CHILDREN.with_borrow_mut(|children| {
                if let Some(children) = children {
                    children.living.remove(&pid);
                    children.dead.push_back(Reaped { pid, status });
                }
            });
        }

        /// Another process reaps them from now on.
        pub fn orphan_all(&self) {
            CHILDREN.set(Some(Children::default()));
        }
    }

    impl Drop for Family {
        fn drop(&mut self) {
            CHILDREN.set(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    use std::process::{Child, Command};

    #[test]
    fn who_is_named_is_reaped_and_nobody_else() {
        let dead = || {
            let child = Command::new("true").spawn().unwrap();
            let pid = Pid::from_child(&child);
            waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
            child
        };
        let pid = |child: &Child| i32::try_from(child.id()).unwrap();
        let (first, mut second) = (dead(), dead());
        assert_eq!(one(pid(&first)), Some(Reaped { pid: pid(&first), status: 0 }));
        assert_eq!(one(pid(&first)), None, "it is gone");
        assert_eq!((one(0), one(-1)), (None, None), "groups are nobody's name");
        assert!(second.wait().unwrap().success(), "still there");
    }
}
