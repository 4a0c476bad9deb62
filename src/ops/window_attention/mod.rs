//! Attention within the windows of an image (Swin): the image is cut into squares, shifted cyclically in every other
//! block, and a learned bias depends on the relative position of query and key.
//!
//! With the image rolled by -shift, window by window and head by head:
//! `softmax(q k^T / sqrt(D) + bias[(dy + w - 1)(2w - 1) + dx + w - 1] + mask) v`, (dy, dx) = query minus key. Where the
//! roll joined parts of the image that are no neighbours, mask is -100 between the parts, else 0.

mod cpu;
mod cuda;
mod plan;

use super::Cx;
use super::calls::{Call, note};
use super::host::element::with_element;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// How the image is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// side of a window
    pub side: usize,
    /// 0, or how far the image is rolled up and left; less than a side
    pub shift: usize,
    pub heads: usize,
    /// head width D
    pub width: usize,
}

/// qkv [N, H, W, 3 * heads * D], q before k before v, bias [(2 side - 1)^2, heads] -> [N, H, W, heads * D].
///
/// # Errors
/// Height or width is no multiple of the window, or the channels are others.
pub fn window_attention(cx: &Cx, qkv: &Tensor, bias: &Tensor, windows: Windows) -> Result<Tensor> {
    let [n, h, w, c] = qkv.nhwc()?;
    let Windows { side, shift, heads, width } = windows;
    let places = (2 * side).saturating_sub(1).pow(2);
    let whole = side > 0 && h % side == 0 && w % side == 0 && shift < side;
    if !whole || c != 3 * heads * width || *bias.shape() != [places, heads] {
        return Err(Error::internal(format!("{windows:?} do not cut {} with {}", qkv.shape(), bias.shape())));
    }
    note(cx, qkv.dtype(), || Call::WindowAttention { image: [n, h, w], windows });
    let mut result = cx.allocate([n, h, w, heads * width], qkv.dtype())?;
    match cx.device() {
        Device::Cpu(_) => with_element!(result.dtype(), T => {
            cpu::window_attention::<T>([n, h, w], windows, qkv, bias, result.host_mut()?)
        })?,
        Device::Gpu(gpu) => {
            cuda::window_attention(gpu, [n, h, w], windows, [qkv, bias], &mut result)?;
        }
        Device::Plan(_) => {}
    }
    cx.constant("window_attention", &[qkv, bias], result.freeze())
}
