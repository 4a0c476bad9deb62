//! Average pooling without overlap.

use rayon::prelude::*;

use super::gpu::no_gpu_kernel;
use super::{Accumulate, Cx};
use crate::device::Device;
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
    let (rows, columns) = (h / factor, w / factor);
    let mut result = cx.allocate([n, rows, columns, c], x.dtype())?;
    match cx.device() {
        Device::Cpu(_) => {
            let source = x.host::<f32>()?;
            let share = 1.0 / (factor * factor) as f32;
            let lines = result.host_mut::<f32>()?.par_chunks_mut((columns * c).max(1));
            lines.enumerate().for_each(|(row, line)| {
                line.fill(0.0);
                let top = row / rows * h + row % rows * factor;
                for (column, pixel) in line.chunks_exact_mut(c).enumerate() {
                    for at in 0..factor * factor {
                        let start = ((top + at / factor) * w + column * factor + at % factor) * c;
                        pixel.iter_mut().zip(&source[start..]).for_each(|(v, s)| *v += s);
                    }
                    pixel.iter_mut().for_each(|v| *v *= share);
                }
            });
        }
        Device::Gpu(_) => return Err(no_gpu_kernel("average_pool")),
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
        Device::Cpu(_) => {
            let source = gradient.host::<f32>()?;
            let share = 1.0 / (factor * factor) as f32;
            let lines = result.host_mut::<f32>()?.par_chunks_mut((w * c).max(1));
            lines.enumerate().for_each(|(line, out)| {
                let (image, row) = (line / h, line % h / factor);
                for (x, pixel) in out.chunks_exact_mut(c).enumerate() {
                    if row >= rows || x / factor >= columns {
                        pixel.fill(0.0);
                        continue;
                    }
                    let start = ((image * rows + row) * columns + x / factor) * c;
                    pixel.iter_mut().zip(&source[start..]).for_each(|(v, g)| *v = g * share);
                }
            });
        }
        Device::Gpu(_) => return Err(no_gpu_kernel("average_pool_gradient")),
        Device::Plan(_) => {}
    }
    Ok(result.freeze())
}
