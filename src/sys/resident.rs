//! Gives back what is mapped of our own program while there is nothing to do.
//!
//! Whoever runs maps its program: around each page that it touches the kernel maps fifteen more (mm/memory.c,
//! `do_fault_around`), since 6.18 the whole folio that holds it, up to 2 MB (mm/filemap.c, `filemap_map_folio_range`), and
//! nothing takes them away again while there is memory. They would be most of what a supervisor of few services holds.
//!
//! So little may run between giving the program back and falling asleep: one function, whose own pages stay.
#![allow(unsafe_code)]

use super::raw;
use std::ffi::{c_int, c_void};
use std::os::fd::{AsRawFd, RawFd};

/// As many parts of a program as are given back: three segments, of which the pages that stay cut one in two, and one to spare.
const MOST: usize = 5;

/// Larger than [`leave`], in bytes, wherever it begins: what stays is so many pages.
const STAYS: usize = 2;

/// Unmaps the program, but for what it may write to, and waits until `fd` is readable or a signal comes. What is executed or
/// read again comes back from the page cache, a small fault each; breakpoints of a debugger do not.
pub fn rest(fd: &impl AsRawFd) {
    let page = rustix::param::page_size();
    let mut parts =
        Parts { page, stays: (leave as *const () as usize) & !(page - 1), list: [(0, 0); MOST], filled: 0 };
    // SAFETY: `note` gets the pointer that is given here, only during the call, and nobody else has it.
    unsafe { libc::dl_iterate_phdr(Some(note), (&raw mut parts).cast()) };
    leave(&parts.list, fd.as_raw_fd());
}

/// Addresses and lengths in bytes.
struct Parts {
    page: usize,
    stays: usize,
    list: [(usize, usize); MOST],
    filled: usize,
}

impl Parts {
    /// Takes a segment from `start` to before `end`. A page has one protection, so those at its edges are its own.
    fn segment(&mut self, start: usize, end: usize) {
        let (start, end) = (start & !(self.page - 1), end.next_multiple_of(self.page));
        let stays = self.stays..self.stays + STAYS * self.page;
        self.part(start, end.min(stays.start));
        self.part(start.max(stays.end), end);
    }

    fn part(&mut self, start: usize, end: usize) {
        if let (Some(length @ 1..), Some(place)) = (end.checked_sub(start), self.list.get_mut(self.filled)) {
            *place = (start, length);
            self.filled += 1;
        }
    }
}

/// Of dl_iterate_phdr(3): the first object is the program itself, the only one we look at.
unsafe extern "C" fn note(object: *mut libc::dl_phdr_info, _: libc::size_t, parts: *mut c_void) -> c_int {
    // SAFETY: what dl_iterate_phdr(3) hands over, and what `rest` gave it.
    let (object, parts) = unsafe { (&*object, &mut *parts.cast::<Parts>()) };
    // SAFETY: so many headers are there (elf(5)).
    let headers = unsafe { std::slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum)) };
    for header in headers {
        // Only what could never be written to: relocated pages that were protected afterwards belong to a writable segment.
        if header.p_type == libc::PT_LOAD && header.p_flags & WRITABLE == 0 {
            let start = (object.dlpi_addr + header.p_vaddr) as usize;
            parts.segment(start, start + header.p_memsz as usize);
        }
    }
    1
}

/// `PF_W` of elf(5).
const WRITABLE: u32 = 2;

/// Gives the parts back and waits. Calls nothing, in no build: each function that it called would come back with all that is
/// mapped around it.
#[inline(never)]
fn leave(parts: &[(usize, usize); MOST], fd: RawFd) {
    let mut next = 0;
    while next < MOST {
        let (start, length) = parts[next];
        if length == 0 {
            break;
        }
        // SAFETY: a private mapping of a file without the right to write holds what the file holds, and that is
        // mapped again at the next access (madvise(2), MADV_DONTNEED): no value in memory changes.
        unsafe { raw::bare(libc::SYS_madvise, [start, length, libc::MADV_DONTNEED as usize, 0]) };
        next += 1;
    }
    let mut wanted = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one record, which outlives the call; no timeout and no mask.
    unsafe { raw::bare(libc::SYS_ppoll, [(&raw mut wanted) as usize, 1, 0, 0]) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> Parts {
        Parts { page: 4096, stays: 0x5000, list: [(0, 0); MOST], filled: 0 }
    }

    #[test]
    fn whole_pages_are_given_back_but_for_those_of_the_sleeper() {
        let mut parts = parts();
        parts.segment(0x1000, 0x1010);
        parts.segment(0x2000, 0xa001);
        assert_eq!(parts.list, [(0x1000, 0x1000), (0x2000, 0x3000), (0x7000, 0x4000), (0, 0), (0, 0)]);
    }

    #[test]
    fn a_sleeper_at_the_edge_of_its_segment_leaves_one_part() {
        let mut parts = parts();
        parts.segment(0x5000, 0x9000);
        parts.segment(0x4000, 0x7000);
        parts.segment(0x5000, 0x6000);
        assert_eq!(parts.list, [(0x7000, 0x2000), (0x4000, 0x1000), (0, 0), (0, 0), (0, 0)]);
    }

    #[test]
    fn what_was_given_back_runs_again() {
        let (reader, writer) = rustix::pipe::pipe().expect("a pipe");
        rustix::io::write(&writer, b"x").expect("room");
        rest(&reader);
        assert_eq!("7".parse(), Ok(7));
        rest(&reader);
    }
}
