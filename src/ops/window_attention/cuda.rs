//! The launch of kernels/attention/window.cu.

use bytemuck::NoUninit;

use super::{Windows, plan};
use crate::device::Gpu;
use crate::device::gpu::kernels;
use crate::error::Result;
use crate::ops::gpu::must_be_f32;
use crate::tensor::{Tensor, TensorMut};

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
    let grid = plan::grid([n, h, w], windows)?;
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
    // SAFETY: the op checked the shapes of qkv, bias and result, and that windows cut the image.
    unsafe { gpu.launch(kernels::WINDOW_ATTENTION.of(qkv.dtype())?, grid, &params) }
}
