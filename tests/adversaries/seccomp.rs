//! The part of Docker's default seccomp profile (moby `profiles/seccomp/default.json`) that a supervisor notices when
//! it lacks CAP_SYS_ADMIN: `clone3` does not exist, and nothing that makes namespaces or mounts is permitted.

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter,
};

const DENIED: [libc::c_long; 14] = [
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_fsconfig,
    libc::SYS_fspick,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_bpf,
    libc::SYS_io_uring_setup,
];

/// CLONE_NEW* of clone(2): mount, cgroup, uts, ipc, user, pid, net. The profile's own mask.
const NAMESPACES: u32 = 0x7E02_0000;

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

fn jump(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}

fn errno(number: i32) -> sock_filter {
    statement(BPF_RET | BPF_K, libc::SECCOMP_RET_ERRNO | number as u32)
}

/// Puts the filter on this process and all it will start. Needs CAP_SYS_ADMIN or no_new_privs.
/// `landlock`: what the kernel has of it is there; otherwise as on one that has none.
pub fn like_docker(landlock: bool) -> std::io::Result<()> {
    // struct seccomp_data: the number at 0, the first argument's low word at 16 on little-endian machines.
    let load_number = statement(BPF_LD | BPF_W | BPF_ABS, 0);
    let mut program = vec![load_number];
    program.push(jump(BPF_JMP | BPF_JEQ | BPF_K, libc::SYS_clone3 as u32, 0, 1));
    program.push(errno(libc::ENOSYS));
    if !landlock {
        program.push(jump(BPF_JMP | BPF_JEQ | BPF_K, libc::SYS_landlock_create_ruleset as u32, 0, 1));
        program.push(errno(libc::ENOSYS));
    }
    for call in DENIED {
        program.push(jump(BPF_JMP | BPF_JEQ | BPF_K, call as u32, 0, 1));
        program.push(errno(libc::EPERM));
    }
    program.push(jump(BPF_JMP | BPF_JEQ | BPF_K, libc::SYS_clone as u32, 0, 4));
    program.push(statement(BPF_LD | BPF_W | BPF_ABS, 16));
    program.push(statement(BPF_ALU | BPF_AND | BPF_K, NAMESPACES));
    program.push(jump(BPF_JMP | BPF_JSET | BPF_K, NAMESPACES, 0, 1));
    program.push(errno(libc::EPERM));
    program.push(statement(BPF_RET | BPF_K, libc::SECCOMP_RET_ALLOW));
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: `filter` and the program it points to live until the call returns; the kernel copies both.
    let done =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, std::ptr::from_ref(&filter)) };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
