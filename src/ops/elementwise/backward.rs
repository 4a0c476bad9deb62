//! Gradients of the pointwise ops.

use rayon::prelude::*;

use super::cpu::BLOCK;
use super::cuda_backward;
use crate::autograd::Gradients;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::ops::host::element::with_element;
use crate::ops::host::math::vectorised;
use crate::ops::host::rows::multiply_by_slope;
use crate::ops::{Accumulate, Activation, Cx, Segments, widened};
use crate::tensor::Tensor;

/// The gradient of `activation(x)` in x: `gradient * activation'(x)`.
pub fn pointwise_gradient(cx: &Cx, x: &Tensor, gradient: &Tensor, activation: Activation) -> Result<Tensor> {
    if widened::applies(cx, x.dtype()) {
        let [x, gradient] = [widened::wide(cx, x)?, widened::wide(cx, gradient)?];
        return widened::narrow(cx, &pointwise_gradient(cx, &x, &gradient, activation)?);
    }
    let mut result = cx.allocate(x.shape(), x.dtype())?;
    match cx.device() {
        Device::Cpu(_) => {
            let pairs = x.host::<f32>()?.par_chunks(BLOCK).zip(gradient.host::<f32>()?.par_chunks(BLOCK));
            result.host_mut::<f32>()?.par_chunks_mut(BLOCK).zip(pairs).for_each(|(out, (x, gradient))| {
                vectorised!({
                    out.copy_from_slice(gradient);
                    multiply_by_slope(out, x, activation);
                });
            });
        }
        Device::Gpu(gpu) => cuda_backward::pointwise_gradient(gpu, x, gradient, activation, &mut result)?,
        Device::Plan(_) => {}
    }
    Ok(result.freeze())
}

/// Channels `first..first + count` of a tensor [..., C], written out: [..., count].
pub fn slice_channels(cx: &Cx, x: &Tensor, first: usize, count: usize) -> Result<Tensor> {
    let c = x.shape().last();
    if first + count > c {
        return Err(Error::internal(format!("channels {first}..+{count} of {}", x.shape())));
    }
    if count == c {
        return Ok(x.detached());
    }
    let mut result = cx.allocate(x.shape().with_last(count), x.dtype())?;
    match cx.device() {
        Device::Cpu(_) => with_element!(x.dtype(), T => {
            const ROWS: usize = 256;
            let rows = x.host::<T>()?.par_chunks(c * ROWS);
            result.host_mut::<T>()?.par_chunks_mut(count.max(1) * ROWS).zip(rows).for_each(|(out, rows)| {
                for (line, row) in out.chunks_exact_mut(count.max(1)).zip(rows.chunks_exact(c)) {
                    line.copy_from_slice(&row[first..][..count]);
                }
            });
            Ok(())
        })?,
        Device::Gpu(gpu) => cuda_backward::slice_channels(gpu, x, first, &mut result)?,
        Device::Plan(_) => {}
    }
    Ok(result.freeze())
}

/// Hands the gradient of a concatenation [N, H, W, C] to its parts; both terms of a sum get the same.
pub fn split_into(cx: &Cx, gradient: &Tensor, segments: &Segments, gradients: &mut Gradients) -> Result<()> {
    let mut first = 0;
    for part in segments.parts() {
        let count = part.tensor.shape().last();
        if std::iter::once(part.tensor).chain(part.plus).any(|tensor| gradients.wants(tensor)) {
            let own = slice_channels(cx, gradient, first, count)?;
            if let Some(plus) = part.plus {
                gradients.add(cx, plus, own.clone())?;
            }
            gradients.add(cx, part.tensor, own)?;
        }
        first += count;
    }
    Ok(())
}
