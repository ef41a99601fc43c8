//! memcpy(3) and memmove(3) of the static binary on x86_64, in the place of musl's.
//!
//! musl's (src/string/x86_64/memcpy.s) copies a few bytes by instructions of microcode, which take 80 ns to begin. Most copies of a
//! supervisor are of a few bytes: 275,000 in a boot of 1000 services. Here, up to 128 bytes are loaded 16 at a time, the last of them
//! overlapping those before, and then stored. musl's memcpy for aarch64 does the same.
#![allow(unsafe_code)]

use std::arch::naked_asm;

/// # Safety
/// As memcpy(3).
#[cfg_attr(target_env = "musl", unsafe(no_mangle))]
#[unsafe(naked)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    naked_asm!("jmp {}", sym memmove)
}

/// # Safety
/// As memmove(3).
#[cfg_attr(target_env = "musl", unsafe(no_mangle))]
#[unsafe(naked)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // To rdi, from rsi, rdx bytes. All is loaded before anything is stored, as both may overlap.
    naked_asm!(
        "    mov rax, rdi",
        "    cmp rdx, 16",
        "    jb 20f",
        "    movups xmm0, [rsi]",
        "    movups xmm1, [rsi + rdx - 16]",
        "    cmp rdx, 32",
        "    ja 30f",
        "    movups [rdi], xmm0",
        "    movups [rdi + rdx - 16], xmm1",
        "    ret",
        // Less than 16.
        "20: cmp edx, 8",
        "    jb 21f",
        "    mov rcx, [rsi]",
        "    mov r8, [rsi + rdx - 8]",
        "    mov [rdi], rcx",
        "    mov [rdi + rdx - 8], r8",
        "    ret",
        // Less than 8.
        "21: cmp edx, 4",
        "    jb 22f",
        "    mov ecx, [rsi]",
        "    mov r8d, [rsi + rdx - 4]",
        "    mov [rdi], ecx",
        "    mov [rdi + rdx - 4], r8d",
        "    ret",
        // At most 3: the first, the middle one, the last.
        "22: test edx, edx",
        "    jz 23f",
        "    mov r9d, edx",
        "    shr r9d, 1",
        "    mov cl, [rsi]",
        "    mov r8b, [rsi + r9]",
        "    mov r10b, [rsi + rdx - 1]",
        "    mov [rdi], cl",
        "    mov [rdi + r9], r8b",
        "    mov [rdi + rdx - 1], r10b",
        "23: ret",
        // More than 32.
        "30: cmp rdx, 128",
        "    ja 50f",
        "    movups xmm2, [rsi + 16]",
        "    movups xmm3, [rsi + rdx - 32]",
        "    cmp rdx, 64",
        "    jbe 40f",
        "    movups xmm4, [rsi + 32]",
        "    movups xmm5, [rsi + 48]",
        "    movups xmm6, [rsi + rdx - 64]",
        "    movups xmm7, [rsi + rdx - 48]",
        "    movups [rdi + 32], xmm4",
        "    movups [rdi + 48], xmm5",
        "    movups [rdi + rdx - 64], xmm6",
        "    movups [rdi + rdx - 48], xmm7",
        "40: movups [rdi], xmm0",
        "    movups [rdi + 16], xmm2",
        "    movups [rdi + rdx - 32], xmm3",
        "    movups [rdi + rdx - 16], xmm1",
        "    ret",
        // More than 128: worth the time that it takes to begin.
        "50: mov rcx, rdi",
        "    sub rcx, rsi",
        "    cmp rcx, rdx",
        "    jb 60f",
        "    mov rcx, rdx",
        "    rep movsb",
        "    ret",
        // The target begins within the source: from the end, 32 at a time, then the first 32. The instruction takes a byte at a time there.
        "60: movups xmm1, [rsi + 16]",
        "61: movups xmm2, [rsi + rdx - 16]",
        "    movups xmm3, [rsi + rdx - 32]",
        "    movups [rdi + rdx - 16], xmm2",
        "    movups [rdi + rdx - 32], xmm3",
        "    sub rdx, 32",
        "    cmp rdx, 32",
        "    ja 61b",
        "    movups [rdi], xmm0",
        "    movups [rdi + 16], xmm1",
        "    ret",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACES: [usize; 9] = [0, 1, 3, 7, 8, 15, 16, 31, 140];

    fn numbered() -> Vec<u8> {
        (0..700u16).map(|n| (n % 251) as u8 + 1).collect()
    }

    #[test]
    fn every_length_at_every_place_is_copied_and_nothing_around_it() {
        let from = numbered();
        for len in 0..=300 {
            for (at, place) in PLACES.into_iter().flat_map(|at| PLACES.map(|place| (at, place))) {
                let mut to = vec![0; 500];
                let target = to[place..].as_mut_ptr();
                // SAFETY: both have so many bytes, and are two.
                assert_eq!(unsafe { memcpy(target, from[at..].as_ptr(), len) }, target);
                assert_eq!(to[place..place + len], from[at..at + len], "{len} bytes from {at} to {place}");
                assert!(to[..place].iter().chain(&to[place + len..]).all(|byte| *byte == 0), "{len}");
            }
        }
    }

    #[test]
    fn what_overlaps_is_moved() {
        for len in 0..=300 {
            for (at, place) in PLACES.into_iter().flat_map(|at| PLACES.map(|place| (at, place))) {
                let (mut bytes, mut as_it_should) = (numbered(), numbered());
                as_it_should.copy_within(at..at + len, place);
                let target = bytes[place..].as_mut_ptr();
                let source = target.wrapping_sub(place).wrapping_add(at);
                // SAFETY: both are within the bytes, of which nobody else has a reference now.
                unsafe { memmove(target, source, len) };
                assert!(bytes == as_it_should, "{len} bytes from {at} to {place}");
            }
        }
    }
}
