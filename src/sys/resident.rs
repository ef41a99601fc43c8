//! Gives back what is mapped of our own program and not needed for now.
//!
//! A start runs through most of the program: parsers of the command line and of definitions, the opening of the
//! database, the probe of the ladder. Around each page that it touches the kernel maps fifteen more (mm/memory.c,
//! `do_fault_around`), and nothing takes them away again while there is memory. They are most of what a supervisor
//! of few services would hold.
#![allow(unsafe_code)]

use std::os::unix::ffi::OsStrExt;

/// Unmaps the program's code; what is executed again comes back from the page cache, a small fault each. Only a hint:
/// without /proc nothing happens.
pub fn release_code() {
    let Ok(own) = std::fs::read_link("/proc/self/exe") else { return };
    let Ok(maps) = std::fs::read("/proc/self/maps") else { return };
    for (start, length) in code_of(&maps, own.as_os_str().as_bytes()) {
        // SAFETY: a private mapping of a file without the right to write holds what the file holds, and that is
        // mapped again at the next access (madvise(2), MADV_DONTNEED): no value in memory changes.
        unsafe { libc::madvise(std::ptr::with_exposed_provenance_mut(start), length, libc::MADV_DONTNEED) };
    }
}

/// Start and length of what `maps` (proc_pid_maps(5)) shows as executable, not writable and mapped from `program`.
/// What is only readable is left alone: some of it was written to before it was protected.
fn code_of<'a>(maps: &'a [u8], program: &'a [u8]) -> impl Iterator<Item = (usize, usize)> + 'a {
    maps.split(|byte| *byte == b'\n').filter_map(move |line| {
        let line = line.strip_suffix(program)?.strip_suffix(b" ")?;
        let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
        let (range, rights) = (words.next()?, words.next()?);
        let (start, end) = range.split_once('-')?;
        let address = |text| usize::from_str_radix(text, 16).ok();
        let (start, end) = (address(start)?, address(end)?);
        (rights == "r-xp").then_some((start, end.checked_sub(start)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_the_program_itself_is_given_back() {
        let maps = b"1000-2000 r--p 00000000 fe:00 1    /bin/a b\n\
            2000-5000 r-xp 00001000 fe:00 1                                /bin/a b\n\
            5000-6000 rwxp 00001000 fe:00 1                                /bin/a b\n\
            7000-8000 r-xp 00000000 fe:00 2                                /lib/bin/a b\n\
            9000-a000 r-xp 00000000 00:00 0                                [vdso]\n";
        assert_eq!(code_of(maps, b"/bin/a b").collect::<Vec<_>>(), [(0x2000, 0x3000)]);
    }

    #[test]
    fn what_was_given_back_runs_again() {
        release_code();
        assert_eq!("7".parse(), Ok(7));
        release_code();
    }
}
