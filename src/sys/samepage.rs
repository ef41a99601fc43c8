//! Kernel samepage merging (KSM) of whole processes: whether this kernel has it, and whether anything merges.
//!
//! PR_SET_MEMORY_MERGE is of Linux 6.4. Up to 6.6 exec takes it back (commit 3c6f33b7273a, "mm/ksm: support fork/exec for prctl", is
//! of 6.7), so a service never has it there.
#![allow(unsafe_code)]

/// Of the kernel's documentation, admin-guide/mm/ksm.rst.
const RUN: &str = "/sys/kernel/mm/ksm/run";
/// The first release in which exec keeps it.
const KEPT_BY_EXEC: (u32, u32) = (6, 7);

/// Why `ksm = true` has no effect, in words that say what helps; `None`: it has one.
pub fn why_not() -> Option<String> {
    // SAFETY: reads a flag of this process; the arguments that are not used must be zero.
    let has = unsafe { libc::prctl(libc::PR_GET_MEMORY_MERGE, 0, 0, 0, 0) } >= 0;
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let run = std::fs::read_to_string(RUN).ok();
    judge(has, &release, run.as_deref())
}

/// `run`: what the file says; `None`: it cannot be read, and nothing is known.
fn judge(has: bool, release: &str, run: Option<&str>) -> Option<String> {
    if !has {
        return Some(
            "this kernel cannot merge the memory of whole processes (Linux 6.4, CONFIG_KSM)".to_owned(),
        );
    }
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().ok());
    let version = numbers.next().flatten().zip(numbers.next().flatten());
    if version.is_some_and(|version| version < KEPT_BY_EXEC) {
        return Some(format!("a program loses it as it is executed before Linux 6.7, and this is {release}"));
    }
    let stands = run.is_some_and(|run| run.trim() != "1");
    stands.then(|| format!("ksmd does not run on this machine: as root of the host, echo 1 >{RUN}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_pages_from_being_merged_is_said_in_one_line() {
        assert_eq!(judge(true, "6.18.1-arch1", Some("1\n")), None);
        assert_eq!(judge(true, "7.0", None), None, "where nothing is known nothing is said");
        assert_eq!(judge(true, "odd", Some("1\n")), None);
        assert!(judge(false, "6.3.0", Some("1\n")).unwrap().contains("Linux 6.4"));
        assert!(judge(true, "6.6.52-generic", Some("1\n")).unwrap().contains("this is 6.6.52-generic"));
        for run in ["0\n", "2\n"] {
            assert!(judge(true, "6.7.0", Some(run)).unwrap().contains("echo 1 >/sys/kernel/mm/ksm/run"));
        }
    }
}
