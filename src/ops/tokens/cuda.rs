//! The launch of kernels/elementwise/tokens.cu.

use bytemuck::NoUninit;

use crate::device::Gpu;
use crate::device::gpu::kernels;
use crate::error::Result;
use crate::ops::elementwise::plan::grid_of_32_bits;
use crate::tensor::{Tensor, TensorMut};

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct MoveTokensParams {
    out: u64,
    input: u64,
    elements: u32,
    channels: u32,
    count: u32,
    out_tokens: u32,
    to: u32,
    in_tokens: u32,
    from: u32,
    step: u32,
    factor: f32,
    pad: u32,
}
const _: () = assert!(size_of::<MoveTokensParams>() == 56);

/// Which tokens of each image go where.
#[derive(Clone, Copy, Debug)]
pub struct Move {
    pub from: usize,
    pub to: usize,
    pub count: usize,
    /// all of them the token `from`
    pub repeat: bool,
    pub factor: f32,
}

/// Tokens of `input` [N, L, C] to places of `result` [N, M, C]; the others of `result` stay as they are.
pub fn move_tokens(gpu: &Gpu, input: &Tensor, moved: Move, result: &mut TensorMut) -> Result<()> {
    let (from, to) = (input.shape(), result.shape());
    let (n, c) = (to[0], to.last());
    let (grid, elements) = grid_of_32_bits(n * moved.count * c)?;
    let params = MoveTokensParams {
        out: result.address()?,
        input: input.address()?,
        elements,
        channels: c as u32,
        count: moved.count as u32,
        out_tokens: to[1] as u32,
        to: moved.to as u32,
        in_tokens: from[1] as u32,
        from: moved.from as u32,
        step: u32::from(!moved.repeat),
        factor: moved.factor,
        pad: 0,
    };
    // SAFETY: the op gives tokens that both have, of one type and as many channels.
    unsafe { gpu.launch(kernels::MOVE_TOKENS.of(input.dtype())?, grid, &params) }
}
