//! The units of a processor that multiply matrices of bf16.

use std::sync::OnceLock;

/// Who multiplies matrices of bf16 on the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatrixUnit {
    /// Plain Rust over the vector instructions there are: any processor.
    Portable,
    /// `vdpbf16ps` of AVX-512-BF16
    Avx512,
    /// `tdpbf16ps` of AMX
    Amx,
    /// The AMX kernel over tiles emulated in plain Rust: proves the kernel on any processor, slowly.
    AmxEmulated,
}

impl MatrixUnit {
    /// The units of this machine, the fastest first, the emulated one last. Asks the system for AMX's tiles
    /// once.
    pub fn available() -> &'static [Self] {
        static FOUND: OnceLock<Vec<MatrixUnit>> = OnceLock::new();
        FOUND.get_or_init(|| {
            let mut units = Vec::new();
            if amx::permitted() {
                units.push(MatrixUnit::Amx);
            }
            if has_avx512() {
                units.push(MatrixUnit::Avx512);
            }
            units.extend([MatrixUnit::Portable, MatrixUnit::AmxEmulated]);
            units
        })
    }

    /// The fastest unit of this machine.
    pub fn best() -> Self {
        Self::available()[0]
    }

    pub fn name(self) -> &'static str {
        match self {
            MatrixUnit::Portable => "portable",
            MatrixUnit::Avx512 => "AVX-512-BF16",
            MatrixUnit::Amx => "AMX",
            MatrixUnit::AmxEmulated => "emulated AMX",
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    std::arch::is_x86_feature_detected!("avx512bf16") && std::arch::is_x86_feature_detected!("avx512f")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx512() -> bool {
    false
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx {
    use std::arch::asm;
    use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};

    /// State components of the tiles' configuration and data in XCR0.
    const TILE_STATES: u64 = 0b11 << 17;
    /// The component whose use needs permission.
    const TILE_DATA: u64 = 18;
    const ARCH_PRCTL: u64 = 158;
    const REQUEST_PERMISSION: u64 = 0x1023;

    /// True if the processor has AMX for bf16, the system saves its tiles, and it lets this process use them.
    #[allow(unused_unsafe, reason = "reading CPUID became safe in later compilers")]
    pub fn permitted() -> bool {
        // SAFETY: every x86-64 processor has CPUID; what a leaf holds is asked for only if it exists.
        let (last, leaf1) = unsafe { (__cpuid(0).eax, __cpuid(1)) };
        // Leaf 1: the system uses XSAVE. Leaf 7: AMX-BF16 and AMX-TILE.
        let wanted = 1 << 22 | 1 << 24;
        // SAFETY: as above.
        let has_amx = || unsafe { __cpuid_count(7, 0) }.edx & wanted == wanted;
        if leaf1.ecx & (1 << 27) == 0 || last < 7 || !has_amx() {
            return false;
        }
        // SAFETY: the system uses XSAVE, so the register can be read.
        unsafe { saved_states() & TILE_STATES == TILE_STATES && request() == 0 }
    }

    /// # Safety
    /// The system uses XSAVE.
    #[target_feature(enable = "xsave")]
    unsafe fn saved_states() -> u64 {
        // SAFETY: the caller's promise.
        unsafe { _xgetbv(0) }
    }

    /// `arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)`: 0 when granted, for all threads of the process.
    ///
    /// # Safety
    /// The processor has AMX.
    unsafe fn request() -> i64 {
        let result: i64;
        // SAFETY: a system call with two integers; the kernel keeps all registers but these.
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") ARCH_PRCTL => result,
                in("rdi") REQUEST_PERMISSION,
                in("rsi") TILE_DATA,
                out("rcx") _,
                out("r11") _,
                options(nostack),
            );
        }
        result
    }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
mod amx {
    pub fn permitted() -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_machine_has_a_unit_and_the_emulated_one_is_never_the_best() {
        let units = MatrixUnit::available();
        assert!(units.contains(&MatrixUnit::Portable));
        assert_eq!(units.last(), Some(&MatrixUnit::AmxEmulated));
        assert_ne!(MatrixUnit::best(), MatrixUnit::AmxEmulated);
    }
}
