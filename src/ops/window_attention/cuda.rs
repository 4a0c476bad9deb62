//! The launch of kernels/attention/window.cu.

use bytemuck::NoUninit;

use super::Windows;
use crate::device::Gpu;
use crate::device::gpu::{Grid, kernels};
use crate::error::{Error, Result};
use crate::ops::gpu::must_be_f32;
use crate::tensor::{Tensor, TensorMut};

/// Pixels of a window, and channels of a head, that the kernel has room for.
const MOST: usize = 64;
const THREADS: u32 = 128;
/// Of WindowShared.
const SHARED: u32 = 35_328;

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct WindowAttentionParams {
    out: u64,
    qkv: u64,
    bias: u64,
    height: u32,
    width: u32,
    side: u32,
    shift: u32,
    heads: u32,
    channels: u32,
    scale: f32,
    pad: u32,
}
const _: () = assert!(size_of::<WindowAttentionParams>() == 56);

/// # Errors
/// Windows or heads that the kernel has no room for.
pub fn window_attention(
    gpu: &Gpu,
    [n, h, w]: [usize; 3],
    windows: Windows,
    [qkv, bias]: [&Tensor; 2],
    result: &mut TensorMut,
) -> Result<()> {
    must_be_f32("the bias of windows", [bias])?;
    let Windows { side, shift, heads, width } = windows;
    if side * side > MOST || width > MOST {
        return Err(Error::device(format!(
            "{windows:?} are larger than the GPU's kernel takes, {MOST} pixels of {MOST} channels"
        ))
        .at("--device")
        .fix("use --device cpu"));
    }
    let blocks = n * (h / side) * (w / side);
    let fits = u32::try_from(blocks).ok().filter(|_| heads <= 65_535);
    let blocks =
        fits.ok_or_else(|| Error::internal(format!("{blocks} windows of {heads} heads in one launch")))?;
    let params = WindowAttentionParams {
        out: result.address()?,
        qkv: qkv.address()?,
        bias: bias.address()?,
        height: h as u32,
        width: w as u32,
        side: side as u32,
        shift: shift as u32,
        heads: heads as u32,
        channels: width as u32,
        scale: 1.0 / (width as f32).sqrt(),
        pad: 0,
    };
    let grid = Grid { blocks: [blocks, heads as u32, 1], threads: THREADS, shared_bytes: SHARED };
    // SAFETY: the op checked the shapes of qkv, bias and result, and that windows cut the image.
    unsafe { gpu.launch(kernels::WINDOW_ATTENTION.of(qkv.dtype())?, grid, &params) }
}
