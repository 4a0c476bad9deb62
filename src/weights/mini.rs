//! The mini system, which the program carries where it was built with the trained files in `assets/mini`.

use super::{Checkpoint, names};
use crate::error::Result;

include!(concat!(env!("OUT_DIR"), "/mini.rs"));

/// What messages call the files.
pub const NAMES: [&str; 3] = ["mini/sd.safetensors", "mini/tasr.safetensors", "mini/stage1.safetensors"];

/// The bytes of the files of the mini system, f16: Stable Diffusion, TASR, stage 1. None in a program that was built
/// without them.
pub fn files() -> Option<[&'static [u8]; 3]> {
    FILES
}

/// The checkpoints of a system from the bytes of its files, under canonical names.
///
/// # Errors
/// Bytes that are no such files.
pub fn open([sd, tasr, stage1]: [&'static [u8]; 3]) -> Result<[Checkpoint; 3]> {
    Ok([
        names::sd(Checkpoint::carried(NAMES[0], sd)?)?,
        names::tasr(Checkpoint::carried(NAMES[1], tasr)?)?,
        names::stage1(Checkpoint::carried(NAMES[2], stage1)?)?,
    ])
}
