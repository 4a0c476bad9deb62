//! The launch of kernels/elementwise/embedding.cu.

use bytemuck::NoUninit;

use crate::device::Gpu;
use crate::device::gpu::kernels;
use crate::error::Result;
use crate::ops::elementwise::plan::grid;
use crate::ops::gpu::must_be_f32;
use crate::tensor::{Tensor, TensorMut};

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct EmbedTokensParams {
    out: u64,
    tokens: u64,
    table: u64,
    positions: u64,
    count: u64,
    length: u32,
    width: u32,
}
const _: () = assert!(size_of::<EmbedTokensParams>() == 48);

/// `device_tokens` is f32 memory for as many tokens: the numbers travel as the bits of floats.
pub fn embed_tokens(
    gpu: &Gpu,
    tokens: &[&[u32]],
    [table, positions]: [&Tensor; 2],
    device_tokens: &mut TensorMut,
    result: &mut TensorMut,
) -> Result<()> {
    must_be_f32("an embedding", [table, positions])?;
    let bits: Vec<f32> =
        tokens.iter().flat_map(|row| row.iter()).map(|&token| f32::from_bits(token)).collect();
    device_tokens.write_f32(&bits)?;
    let count = result.shape().count();
    let params = EmbedTokensParams {
        out: result.address()?,
        tokens: device_tokens.address()?,
        table: table.address()?,
        positions: positions.address()?,
        count: count as u64,
        length: positions.shape()[0] as u32,
        width: table.shape().last() as u32,
    };
    // SAFETY: the op checked that every token is in the table and every row has the positions' length.
    unsafe { gpu.launch(kernels::EMBED_TOKENS.of(result.dtype())?, grid(count, 1)?, &params) }
}
