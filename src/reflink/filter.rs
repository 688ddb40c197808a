//! Which system calls the kernel asks us about, as a program of seccomp(2)'s filter machine: only
//! ioctl(2) with FICLONE or FICLONERANGE, of programs of this machine's own kind.

use std::mem::offset_of;

use libc::{
    BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ALLOW,
    SECCOMP_RET_USER_NOTIF, seccomp_data, sock_filter,
};

/// linux/audit.h: AUDIT_ARCH_*, of what this program was compiled for; `None` where nobody has
/// looked up the number.
pub(super) const ARCH: Option<u32> =
    if cfg!(all(target_arch = "x86_64", target_pointer_width = "64")) {
        Some(0xC000_003E)
    } else if cfg!(target_arch = "aarch64") {
        Some(0xC000_00B7)
    } else if cfg!(target_arch = "riscv64") {
        Some(0xC000_00F3)
    } else if cfg!(target_arch = "loongarch64") {
        Some(0xC000_0102)
    } else if cfg!(all(target_arch = "powerpc64", target_endian = "little")) {
        Some(0xC000_0015)
    } else if cfg!(target_arch = "s390x") {
        Some(0x8000_0016)
    } else if cfg!(target_arch = "arm") {
        Some(0x4000_0028)
    } else if cfg!(target_arch = "x86") {
        Some(0x4000_0003)
    } else {
        None
    };

/// The filter. Programs of another kind (32 bits, x32) have other numbers and are left alone: they
/// get what the kernel says, as without us.
pub(super) fn program(arch: u32) -> [sock_filter; 9] {
    [
        load(offset_of!(seccomp_data, arch)),
        // Jumps count from the next instruction; 7 allows and 8 asks.
        unless_equal(arch, 5),
        load(offset_of!(seccomp_data, nr)),
        unless_equal(SYS_IOCTL, 3),
        load(REQUEST),
        if_equal(FICLONE, 2),
        if_equal(FICLONERANGE, 1),
        answer(SECCOMP_RET_ALLOW),
        answer(SECCOMP_RET_USER_NOTIF),
    ]
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "numbers of system calls and ioctls are small and positive"
)]
mod numbers {
    pub(in crate::reflink) const FICLONE: u32 = libc::FICLONE as u32;
    pub(in crate::reflink) const FICLONERANGE: u32 = libc::FICLONERANGE as u32;
    pub(super) const SYS_IOCTL: u32 = libc::SYS_ioctl as u32;
}
use numbers::SYS_IOCTL;
pub(super) use numbers::{FICLONE, FICLONERANGE};

/// Where the half of ioctl(2)'s second argument is that the kernel looks at.
const REQUEST: usize =
    offset_of!(seccomp_data, args) + 8 + if cfg!(target_endian = "big") { 4 } else { 0 };

fn load(at: usize) -> sock_filter {
    // An offset in 64 bytes.
    instruction(
        BPF_LD | BPF_W | BPF_ABS,
        at.try_into().unwrap_or(u32::MAX),
        0,
        0,
    )
}

fn if_equal(value: u32, skip: u8) -> sock_filter {
    instruction(BPF_JMP | BPF_JEQ | BPF_K, value, skip, 0)
}

fn unless_equal(value: u32, skip: u8) -> sock_filter {
    instruction(BPF_JMP | BPF_JEQ | BPF_K, value, 0, skip)
}

fn answer(action: u32) -> sock_filter {
    instruction(BPF_RET | BPF_K, action, 0, 0)
}

fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    // Codes have 8 bits.
    let code = code.try_into().unwrap_or(u16::MAX);
    sock_filter { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THIS: u32 = 0xC000_003E;

    /// What the filter says; as bpf(4) describes the machine, as far as it is used here.
    fn run(arch: u32, nr: u32, request: u64) -> u32 {
        let mut data = Vec::new();
        data.extend(nr.to_ne_bytes());
        data.extend(arch.to_ne_bytes());
        data.extend(7_u64.to_ne_bytes());
        for arg in [3, request, 5, 0, 0, 0] {
            data.extend(u64::to_ne_bytes(arg));
        }
        assert_eq!(data.len(), size_of::<seccomp_data>());
        let (mut register, mut at) = (0, 0);
        let program = program(THIS);
        loop {
            let step = program[at];
            at += 1;
            match u32::from(step.code) {
                0x20 => {
                    let from = usize::try_from(step.k).unwrap();
                    register = u32::from_ne_bytes(*data[from..].first_chunk().unwrap());
                }
                0x15 if register == step.k => at += usize::from(step.jt),
                0x15 => at += usize::from(step.jf),
                0x06 => return step.k,
                other => panic!("no such instruction: {other:#x}"),
            }
        }
    }

    #[test]
    fn the_two_requests_are_asked_about() {
        for request in [FICLONE, FICLONERANGE] {
            let said = run(THIS, SYS_IOCTL, request.into());
            assert_eq!(said, SECCOMP_RET_USER_NOTIF);
        }
        assert_eq!([FICLONE, FICLONERANGE], [0x4004_9409, 0x4020_940D]);
    }

    #[test]
    fn what_the_kernel_cuts_off_a_request_is_not_looked_at() {
        let said = run(THIS, SYS_IOCTL, 0xFFFF_FFFF_4004_9409);
        assert_eq!(said, SECCOMP_RET_USER_NOTIF);
    }

    #[test]
    fn other_requests_are_allowed() {
        // TCGETS; FIDEDUPERANGE; our own CLONE; the number in the wrong half.
        for request in [0x5401, 0xC018_9436, 0x4020_F501, 0x4004_9409 << 32] {
            assert_eq!(run(THIS, SYS_IOCTL, request), SECCOMP_RET_ALLOW);
        }
    }

    #[test]
    fn other_system_calls_and_machines_are_allowed() {
        let request = u64::from(FICLONE);
        let x32 = SYS_IOCTL | 0x4000_0000;
        assert_eq!(run(THIS, SYS_IOCTL + 1, request), SECCOMP_RET_ALLOW);
        assert_eq!(run(THIS, x32, request), SECCOMP_RET_ALLOW);
        assert_eq!(run(0x4000_0003, SYS_IOCTL, request), SECCOMP_RET_ALLOW);
    }
}
