//! The tiles of the processor. Stable Rust has no intrinsics for them, so each method is one instruction.
//!
//! The compiler knows nothing of tile registers and never uses them, so they keep their content between the blocks
//! of assembly; every block orders itself with the memory that the others read and write.

use std::arch::asm;

use super::{Config, Tiles};

/// The tile registers of the thread.
#[derive(Default)]
pub struct Hardware;

impl Tiles for Hardware {
    #[inline(always)]
    unsafe fn configure(&mut self, config: &Config) {
        // SAFETY: AMX exists and is permitted; the configuration is 64 bytes of palette 1.
        unsafe { asm!("ldtilecfg [{config}]", config = in(reg) config, options(nostack, preserves_flags)) }
    }

    #[inline(always)]
    unsafe fn zero<const T: u8>(&mut self) {
        // SAFETY: the tile is configured.
        unsafe { asm!("tilezero tmm{tile}", tile = const T, options(nostack, preserves_flags)) }
    }

    #[inline(always)]
    unsafe fn load<const T: u8>(&mut self, from: *const u8, stride: usize) {
        // SAFETY: the tile is configured, its rows can be read.
        unsafe {
            asm!("tileloadd tmm{tile}, [{from} + {stride}*1]", tile = const T, from = in(reg) from,
                stride = in(reg) stride, options(nostack, preserves_flags));
        }
    }

    #[inline(always)]
    unsafe fn store<const T: u8>(&mut self, to: *mut u8, stride: usize) {
        // SAFETY: the tile is configured, its rows can be written.
        unsafe {
            asm!("tilestored [{to} + {stride}*1], tmm{tile}", tile = const T, to = in(reg) to,
                stride = in(reg) stride, options(nostack, preserves_flags));
        }
    }

    #[inline(always)]
    unsafe fn multiply<const C: u8, const A: u8, const B: u8>(&mut self) {
        // SAFETY: the tiles are configured, and their shapes fit.
        unsafe {
            asm!("tdpbf16ps tmm{c}, tmm{a}, tmm{b}", c = const C, a = const A, b = const B,
                options(nostack, preserves_flags));
        }
    }

    #[inline(always)]
    unsafe fn release(&mut self) {
        // SAFETY: AMX exists and is permitted.
        unsafe { asm!("tilerelease", options(nostack, preserves_flags)) }
    }
}
