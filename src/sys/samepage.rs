//! Kernel samepage merging (KSM) of whole processes: whether this kernel has it, and whether anything merges.
//!
//! PR_SET_MEMORY_MERGE is of Linux 6.4. Up to 6.6 exec takes it back (commit 3c6f33b7273a, "mm/ksm: support fork/exec for prctl", is
//! of 6.7), so a service never has it there.
#![allow(unsafe_code)]

/// Of the kernel's documentation, admin-guide/mm/ksm.rst.
const RUN: &str = "/sys/kernel/mm/ksm/run";
/// The first release in which exec keeps it.
const KEPT_BY_EXEC: (u32, u32) = (6, 7);

/// Whether `ksm = true` has an effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merging {
    Works,
    /// The kernel has it, and whether `ksmd` runs cannot be read.
    Unseen,
    /// Why not, in words that say what helps.
    Not(String),
}

/// Looks at this machine.
pub fn merging() -> Merging {
    // SAFETY: reads a flag of this process; the arguments that are not used must be zero.
    let has = unsafe { libc::prctl(libc::PR_GET_MEMORY_MERGE, 0, 0, 0, 0) } >= 0;
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let run = std::fs::read_to_string(RUN).ok();
    judge(has, &release, run.as_deref())
}

/// `run`: what the file says, if it can be read.
fn judge(has: bool, release: &str, run: Option<&str>) -> Merging {
    if !has {
        return Merging::Not(
            "this kernel cannot merge the memory of whole processes (Linux 6.4, CONFIG_KSM)".to_owned(),
        );
    }
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().ok());
    let version = numbers.next().flatten().zip(numbers.next().flatten());
    if version.is_some_and(|version| version < KEPT_BY_EXEC) {
        return Merging::Not(format!(
            "a program loses it as it is executed before Linux 6.7, and this is {release}"
        ));
    }
    match run.map(str::trim) {
        None => Merging::Unseen,
        Some("1") => Merging::Works,
        Some(_) => {
            let why = format!("ksmd does not run on this machine: as root of the host, echo 1 >{RUN}");
            Merging::Not(why)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_pages_from_being_merged_is_said_in_one_line() {
        assert_eq!(judge(true, "6.18.1-arch1", Some("1\n")), Merging::Works);
        assert_eq!(judge(true, "7.0", None), Merging::Unseen);
        assert_eq!(judge(true, "odd", Some("1\n")), Merging::Works);
        let not = |has, release, run| match judge(has, release, Some(run)) {
            Merging::Not(why) => why,
            other => panic!("{other:?}"),
        };
        assert!(not(false, "6.3.0", "1\n").contains("Linux 6.4"));
        assert!(not(true, "6.6.52-generic", "1\n").contains("this is 6.6.52-generic"));
        for run in ["0\n", "2\n"] {
            assert!(not(true, "6.7.0", run).contains("echo 1 >/sys/kernel/mm/ksm/run"));
        }
    }
}
