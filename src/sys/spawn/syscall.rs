//! System calls without the C library, which would write to `errno`.
//!
//! `errno` is one place per thread of a process. A child that shares the memory of the process that made it (`CLONE_VM`) shares
//! this place, too, and must not write there. Two functions: any system call, and the clone that makes such a child. Where rustix
//! has a call, it asks the kernel in the same way and is to be preferred.
#![allow(unsafe_code)]

use rustix::io::Errno;
use std::arch::asm;

/// What the kernel answers: a number, or from -4095 to -1 an error (syscall(2), "Architecture calling conventions").
fn answer(result: isize) -> Result<usize, Errno> {
    match i32::try_from(-result) {
        Ok(errno @ 1..=4095) => Err(Errno::from_raw_os_error(errno)),
        Ok(_) | Err(_) => Ok(result.cast_unsigned()),
    }
}

/// Any system call of up to four arguments. A fifth one is zero, on which prctl(2) insists.
///
/// # Safety
/// As of this call with these arguments; what they point to must have been exposed.
pub(super) unsafe fn call(number: libc::c_long, arguments: [usize; 4]) -> Result<usize, Errno> {
    let [first, second, third, fourth] = arguments;
    let result: isize;
    // SAFETY: the kernel's convention: it changes no register but those named, and memory only as the call says.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") first, in("rsi") second, in("rdx") third, in("r10") fourth, in("r8") 0,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!(
            "svc 0",
            in("x8") number as isize,
            inlateout("x0") first => result,
            in("x1") second, in("x2") third, in("x3") fourth, in("x4") 0,
            options(nostack),
        );
    }
    answer(result)
}

/// clone(2) or clone3(2), by its number, for a child on a stack of its own, which calls `entry` with `argument` there. Returns the
/// child's pid.
///
/// # Safety
/// `arguments` must be those of this call and name a stack, its end aligned to 16 bytes, that nobody else uses; if the child shares our
/// memory, what `entry` uses must stay as it is for as long as it uses it.
pub(super) unsafe fn clone_onto<T>(
    number: libc::c_long,
    arguments: [usize; 5],
    entry: unsafe extern "C" fn(&T) -> !,
    argument: &T,
) -> Result<usize, Errno> {
    let [first, second, third, fourth, fifth] = arguments;
    let result: isize;
    // SAFETY: as above for who called. The child has these very registers, but for the answer, which is zero, and the stack;
    // it never comes back from `entry`.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            // The outermost frame, for a debugger.
            "xor ebp, ebp",
            "mov rdi, r13",
            "call r12",
            "ud2",
            "2:",
            inlateout("rax") number as isize => result,
            in("rdi") first, in("rsi") second, in("rdx") third, in("r10") fourth, in("r8") fifth,
            in("r12") entry as *const (), in("r13") std::ptr::from_ref(argument),
            lateout("rcx") _, lateout("r11") _,
        );
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x30, xzr",
            "mov x0, x10",
            "blr x9",
            "brk 1",
            "2:",
            in("x8") number as isize,
            inlateout("x0") first => result,
            in("x1") second, in("x2") third, in("x3") fourth, in("x4") fifth,
            in("x9") entry as *const (), in("x10") std::ptr::from_ref(argument),
        );
    }
    answer(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_number_or_an_error_and_leaves_errno_alone() {
        let before = std::io::Error::last_os_error().raw_os_error();
        // SAFETY: reads nothing.
        assert_eq!(unsafe { call(libc::SYS_close, [usize::MAX, 0, 0, 0]) }, Err(Errno::BADF));
        assert_eq!(std::io::Error::last_os_error().raw_os_error(), before);
        // SAFETY: as above.
        let own = unsafe { call(libc::SYS_getpid, [0; 4]) };
        assert_eq!(own, Ok(std::process::id() as usize));
    }
}
