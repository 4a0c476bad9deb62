//! Space to channels: each f x f block of pixels becomes one pixel.

use rayon::prelude::*;

use super::calls::{Call, note};
use super::host::element::with_element;
use super::{Cx, pixel_blocks};
use crate::device::Device;
use crate::device::gpu::kernels;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// [N, H, W, C] -> [N, H / f, W / f, C f f]; channel c f f + dy f + dx is channel c of the pixel (dy, dx) of a block.
///
/// # Errors
/// Height or width is no multiple of `factor`.
pub fn pixel_unshuffle(cx: &Cx, x: &Tensor, factor: usize) -> Result<Tensor> {
    let [n, h, w, c] = x.nhwc()?;
    if factor == 0 || h % factor != 0 || w % factor != 0 {
        return Err(Error::internal(format!("{} has no blocks of {factor} x {factor}", x.shape())));
    }
    note(cx, x.dtype(), || Call::PixelUnshuffle { image: [n, h, w, c], factor });
    let (rows, columns, channels) = (h / factor, w / factor, c * factor * factor);
    let mut result = cx.allocate([n, rows, columns, channels], x.dtype())?;
    match cx.device() {
        Device::Cpu(_) => with_element!(result.dtype(), T => {
            let source = x.host::<T>()?;
            // A task is one row of blocks; rows of different images follow each other.
            let lines = result.host_mut::<T>()?.par_chunks_mut((columns * channels).max(1));
            lines.enumerate().for_each(|(row, line)| {
                for (place, value) in line.iter_mut().enumerate() {
                    let (column, channel) = (place / channels, place % channels);
                    let (c_in, at) = (channel / (factor * factor), channel % (factor * factor));
                    let (y, x) = (row * factor + at / factor, column * factor + at % factor);
                    *value = source[(y * w + x) * c + c_in];
                }
            });
            Ok(())
        })?,
        Device::Gpu(gpu) => {
            pixel_blocks::launch(gpu, &kernels::PIXEL_UNSHUFFLE, factor, [h, w, c], x, &mut result)?;
        }
        Device::Plan(_) => {}
    }
    cx.constant("pixel_unshuffle", &[x], result.freeze())
}
