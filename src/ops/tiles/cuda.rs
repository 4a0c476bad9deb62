//! Launches of kernels/image/tiles.cu.

use bytemuck::NoUninit;

use super::Window;
use crate::device::Gpu;
use crate::device::gpu::kernels;
use crate::error::Result;
use crate::ops::elementwise::plan::grid_of_32_bits;
use crate::ops::gpu::must_be_f32;
use crate::tensor::{Tensor, TensorMut};

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct WindowParams {
    out: u64,
    input: u64,
    count: u32,
    h: u32,
    w: u32,
    channels: u32,
    from_h: u32,
    from_w: u32,
    top: u32,
    left: u32,
}
const _: () = assert!(size_of::<WindowParams>() == 48);

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct BlendAddParams {
    sums: u64,
    weights: u64,
    tile: u64,
    profile: u64,
    count: u32,
    h: u32,
    w: u32,
    channels: u32,
    canvas_h: u32,
    canvas_w: u32,
    top: u32,
    left: u32,
}
const _: () = assert!(size_of::<BlendAddParams>() == 64);

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct BlendFinishParams {
    sums: u64,
    weights: u64,
    count: u32,
    area: u32,
    channels: u32,
    pad: u32,
}
const _: () = assert!(size_of::<BlendFinishParams>() == 32);

/// The image from (`top`, `left`) on, with zeros beyond it: fills `result` [N, h, w, C].
pub fn window(gpu: &Gpu, image: &Tensor, [top, left]: [usize; 2], result: &mut TensorMut) -> Result<()> {
    must_be_f32("an image", [image])?;
    let [_, from_h, from_w, channels] = image.nhwc()?;
    let (shape, (grid, count)) = (result.shape(), grid_of_32_bits(result.shape().count())?);
    let params = WindowParams {
        out: result.address()?,
        input: image.address()?,
        count,
        h: shape[1] as u32,
        w: shape[2] as u32,
        channels: channels as u32,
        from_h: from_h as u32,
        from_w: from_w as u32,
        top: top as u32,
        left: left as u32,
    };
    // SAFETY: the result has the image's images and channels; the kernel reads within the image only.
    unsafe { gpu.launch(kernels::WINDOW, grid, &params) }
}

/// Adds `profile * tile` to `sums` [N, H, W, C] and `profile` to `weights` [H, W], at `window`.
pub fn add(
    gpu: &Gpu,
    tile: &Tensor,
    profile: &Tensor,
    window: Window,
    sums: &mut TensorMut,
    weights: &mut TensorMut,
) -> Result<()> {
    must_be_f32("a tile", [tile, profile])?;
    let (grid, count) = grid_of_32_bits(tile.shape().count())?;
    let canvas = sums.shape();
    let params = BlendAddParams {
        sums: sums.address()?,
        weights: weights.address()?,
        tile: tile.address()?,
        profile: profile.address()?,
        count,
        h: window.h as u32,
        w: window.w as u32,
        channels: canvas.last() as u32,
        canvas_h: canvas[1] as u32,
        canvas_w: canvas[2] as u32,
        top: window.y as u32,
        left: window.x as u32,
    };
    // SAFETY: the op checked that the tile fills its window and that this lies in the canvas.
    unsafe { gpu.launch(kernels::BLEND_ADD, grid, &params) }
}

/// Divides `sums` [N, H, W, C] by `weights` [H, W].
pub fn finish(gpu: &Gpu, sums: &mut TensorMut, weights: &mut TensorMut) -> Result<()> {
    let (grid, count) = grid_of_32_bits(sums.shape().count())?;
    let params = BlendFinishParams {
        sums: sums.address()?,
        weights: weights.address()?,
        count,
        area: weights.shape().count() as u32,
        channels: sums.shape().last() as u32,
        pad: 0,
    };
    // SAFETY: the weights are those of the canvas.
    unsafe { gpu.launch(kernels::BLEND_FINISH, grid, &params) }
}
