//! Average pooling without overlap.

use rayon::prelude::*;

use super::calls::{Call, note};
use super::host::element::{HostElement, with_element};
use super::{Accumulate, Cx, pixel_blocks};
use crate::device::Device;
use crate::device::gpu::kernels;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// [N, H, W, C] -> [N, H / f, W / f, C], means of f x f pixels; rows and columns that fill no block are left out.
///
/// # Errors
/// The image is smaller than a block.
pub fn average_pool(cx: &Cx, x: &Tensor, factor: usize) -> Result<Tensor> {
    let [n, h, w, c] = x.nhwc()?;
    if factor == 0 || h < factor || w < factor {
        return Err(Error::internal(format!("{} is pooled by {factor}", x.shape())));
    }
    note(cx, x.dtype(), || Call::AveragePool { image: [n, h, w, c], factor });
    let (rows, columns) = (h / factor, w / factor);
    let mut result = cx.allocate([n, rows, columns, c], x.dtype())?;
    match cx.device() {
        Device::Cpu(_) => with_element!(result.dtype(), T => {
            let source = x.host::<T>()?;
            let share = 1.0 / (factor * factor) as f32;
            let lines = result.host_mut::<T>()?.par_chunks_mut((columns * c).max(1));
            lines.enumerate().for_each(|(row, line)| {
                let top = row / rows * h + row % rows * factor;
                for (place, value) in line.iter_mut().enumerate() {
                    let (column, channel) = (place / c, place % c);
                    let pixel = |at| (top + at / factor) * w + column * factor + at % factor;
                    let block = (0..factor * factor).map(|at| source[pixel(at) * c + channel].wide());
                    *value = T::narrow(block.sum::<f32>() * share);
                }
            });
            Ok(())
        })?,
        Device::Gpu(gpu) => {
            pixel_blocks::launch(gpu, &kernels::AVERAGE_POOL, factor, [h, w, c], x, &mut result)?
        }
        Device::Plan(_) => {}
    }
    let input = x.clone();
    Ok(cx.record(&[x], result.freeze(), move |cx, gradient, gradients| {
        let spread = average_pool_gradient(cx, gradient, input.nhwc()?, factor)?;
        gradients.add(cx, &input, spread)
    }))
}

/// The gradient in x [N, H, W, C] of [`average_pool`]: each pixel gets its share of its block's, the others zero.
fn average_pool_gradient(
    cx: &Cx,
    gradient: &Tensor,
    [n, h, w, c]: [usize; 4],
    factor: usize,
) -> Result<Tensor> {
    let [_, rows, columns, _] = gradient.nhwc()?;
    let mut result = cx.allocate([n, h, w, c], gradient.dtype())?;
    match cx.device() {
        Device::Cpu(_) => with_element!(result.dtype(), T => {
            let source = gradient.host::<T>()?;
            let share = 1.0 / (factor * factor) as f32;
            let lines = result.host_mut::<T>()?.par_chunks_mut((w * c).max(1));
            lines.enumerate().for_each(|(line, out)| {
                let (image, row) = (line / h, line % h / factor);
                for (x, pixel) in out.chunks_exact_mut(c).enumerate() {
                    if row >= rows || x / factor >= columns {
                        pixel.fill(T::narrow(0.0));
                        continue;
                    }
                    let start = ((image * rows + row) * columns + x / factor) * c;
                    let block = &source[start..];
                    pixel.iter_mut().zip(block).for_each(|(v, g)| *v = T::narrow(g.wide() * share));
                }
            });
            Ok(())
        })?,
        Device::Gpu(gpu) => {
            let family = &kernels::AVERAGE_POOL_GRADIENT;
            pixel_blocks::launch(gpu, family, factor, [h, w, c], gradient, &mut result)?;
        }
        Device::Plan(_) => {}
    }
    Ok(result.freeze())
}
