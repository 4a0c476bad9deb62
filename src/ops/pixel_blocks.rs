//! The launches of kernels/image/blocks.cu, which average_pool and pixel_unshuffle share.

use bytemuck::NoUninit;

use super::elementwise::plan::grid_of_32_bits;
use crate::device::Gpu;
use crate::device::gpu::kernels::Family;
use crate::error::Result;
use crate::tensor::{Tensor, TensorMut};

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct BlocksParams {
    out: u64,
    input: u64,
    elements: u32,
    factor: u32,
    channels: u32,
    height: u32,
    width: u32,
    rows: u32,
    columns: u32,
    pad: u32,
}
const _: () = assert!(size_of::<BlocksParams>() == 48);

/// Starts `family` between a full image [N, H, W, C], given by `[h, w, c]`, and its blocks of `factor` x `factor`.
pub fn launch(
    gpu: &Gpu,
    family: &Family,
    factor: usize,
    [h, w, c]: [usize; 3],
    input: &Tensor,
    result: &mut TensorMut,
) -> Result<()> {
    let (grid, elements) = grid_of_32_bits(result.shape().count())?;
    let params = BlocksParams {
        out: result.address()?,
        input: input.address()?,
        elements,
        factor: factor as u32,
        channels: c as u32,
        height: h as u32,
        width: w as u32,
        rows: (h / factor) as u32,
        columns: (w / factor) as u32,
        pad: 0,
    };
    // SAFETY: the op checked that input and result are the image and its blocks, one way or the other, of one type.
    unsafe { gpu.launch(family.of(input.dtype())?, grid, &params) }
}
