//! Launches of kernels/image/resize.cu.

use bytemuck::NoUninit;

use super::Taps;
use crate::device::Gpu;
use crate::device::gpu::kernels;
use crate::error::Result;
use crate::ops::elementwise::plan::grid_of_32_bits;
use crate::ops::gpu::must_be_f32;
use crate::tensor::{Tensor, TensorMut};

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct ResizeParams {
    out: u64,
    input: u64,
    first: u64,
    weights: u64,
    count: u32,
    from: u32,
    to: u32,
    inner: u32,
    taps: u32,
    pad: u32,
}
const _: () = assert!(size_of::<ResizeParams>() == 56);

/// Most taps of a position.
fn most(axis: &[Taps]) -> usize {
    axis.iter().map(|taps| taps.weights.len()).max().unwrap_or(0)
}

/// f32 of the table of an axis.
pub fn table(axis: &[Taps]) -> usize {
    axis.len() * (most(axis) + 1)
}

/// [outer, from, inner] -> [outer, taps, inner]; `table` is a [`table`].
fn resample_axis(
    gpu: &Gpu,
    input: u64,
    [from, inner]: [usize; 2],
    axis: &[Taps],
    table: &mut TensorMut,
    result: &mut TensorMut,
) -> Result<()> {
    let (to, most) = (axis.len(), most(axis));
    // First indices travel as the bits of floats, in front of the weights.
    let mut values: Vec<f32> = axis.iter().map(|taps| f32::from_bits(taps.first as u32)).collect();
    for taps in axis {
        values.extend(&taps.weights);
        values.resize(values.len() + most - taps.weights.len(), 0.0);
    }
    table.write_f32(&values)?;
    let (grid, count) = grid_of_32_bits(result.shape().count())?;
    let first = table.address()?;
    let params = ResizeParams {
        out: result.address()?,
        input,
        first,
        weights: first + 4 * to as u64,
        count,
        from: from as u32,
        to: to as u32,
        inner: inner as u32,
        taps: most as u32,
        pad: 0,
    };
    // SAFETY: the op allocated result and table for these taps, which lie within the axis.
    unsafe { gpu.launch(kernels::RESIZE_AXIS, grid, &params) }
}

/// [N, H, W, C] -> [N, down, across, C]; `between` is [N, H, across, C].
pub fn resample(
    gpu: &Gpu,
    image: &Tensor,
    [down, across]: &[Vec<Taps>; 2],
    [rows, columns]: &mut [TensorMut; 2],
    between: &mut TensorMut,
    result: &mut TensorMut,
) -> Result<()> {
    must_be_f32("an image", [image])?;
    let [_, h, w, c] = image.nhwc()?;
    resample_axis(gpu, image.address()?, [w, c], across, columns, between)?;
    resample_axis(gpu, between.address()?, [h, across.len() * c], down, rows, result)
}
