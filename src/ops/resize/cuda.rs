//! Launches of kernels/image/resize.cu.

use bytemuck::NoUninit;

use super::bicubic_taps;
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

/// Most taps of an output position.
fn taps(from: usize, to: usize) -> usize {
    let support = 2.0 * (from as f64 / to as f64).max(1.0);
    // Of the integers between two numbers that far apart.
    from.min((2.0 * support) as usize + 2)
}

/// f32 of the table of an axis.
pub fn table(from: usize, to: usize) -> usize {
    to * (taps(from, to) + 1)
}

/// [outer, from, inner] -> [outer, to, inner]; `scratch` has [`table`] elements.
pub fn axis(
    gpu: &Gpu,
    input: u64,
    [from, to, inner]: [usize; 3],
    scratch: &mut TensorMut,
    result: &mut TensorMut,
) -> Result<()> {
    let (most, all) = (taps(from, to), bicubic_taps(from, to));
    // First indices travel as the bits of floats, in front of the weights.
    let mut values: Vec<f32> = all.iter().map(|taps| f32::from_bits(taps.first as u32)).collect();
    for taps in &all {
        values.extend(&taps.weights);
        values.resize(values.len() + most - taps.weights.len(), 0.0);
    }
    scratch.write_f32(&values)?;
    let (grid, count) = grid_of_32_bits(result.shape().count())?;
    let first = scratch.address()?;
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
    // SAFETY: the op allocated the result and the table with these sizes.
    unsafe { gpu.launch(kernels::RESIZE_AXIS, grid, &params) }
}

/// [N, H, W, C] -> [N, h, w, C], `across` [N, H, w, C] in between.
pub fn bicubic(
    gpu: &Gpu,
    image: &Tensor,
    tables: &mut [TensorMut; 2],
    across: &mut TensorMut,
    result: &mut TensorMut,
) -> Result<()> {
    must_be_f32("an image", [image])?;
    let [_, own_h, own_w, c] = image.nhwc()?;
    let (h, w) = (result.shape()[1], result.shape()[2]);
    let [columns, rows] = tables;
    axis(gpu, image.address()?, [own_w, w, c], columns, across)?;
    axis(gpu, across.address()?, [own_h, h, w * c], rows, result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_hold_the_taps_of_every_position() {
        for from in [1, 2, 3, 5, 7, 13, 64, 100, 333] {
            for to in [1, 2, 3, 4, 7, 9, 64, 127, 400] {
                let most = bicubic_taps(from, to).iter().map(|taps| taps.weights.len()).max();
                assert!(most.is_some_and(|most| most <= taps(from, to)), "{from} to {to}: {most:?}");
            }
        }
    }
}
