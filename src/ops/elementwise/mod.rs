//! Pointwise arithmetic that no other op fuses.

mod backward;
mod cpu;
mod cuda;
mod cuda_backward;
pub mod plan;

use super::calls::{Call, note, parts};
use super::host::element::with_element;
use super::{Accumulate, Activation, Cx, Segments};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};
pub use backward::{pointwise_gradient, slice_channels, split_into};
pub(super) use cuda::cast_onto;

/// `constant + sum of factor_i * tensor_i`, all of one shape.
pub fn combine(cx: &Cx, terms: &[(f32, &Tensor)], constant: f32) -> Result<Tensor> {
    let shape = terms.first().ok_or_else(|| Error::internal("a sum of nothing"))?.1.shape();
    if let Some((_, other)) = terms.iter().find(|(_, tensor)| tensor.shape() != shape) {
        return Err(Error::internal(format!("{} is added to {shape}", other.shape())));
    }
    note(cx, terms[0].1.dtype(), || Call::Combine { count: shape.count(), terms: terms.len() });
    let mut result = cx.allocate(shape, terms[0].1.dtype())?;
    match cx.device() {
        Device::Cpu(_) => {
            with_element!(result.dtype(), T => cpu::combine::<T>(terms, constant, result.host_mut()?))?
        }
        Device::Gpu(gpu) => cuda::combine(gpu, terms, constant, &mut result)?,
        Device::Plan(_) => {}
    }
    let (inputs, result) = (terms.iter().map(|(_, tensor)| *tensor).collect::<Vec<_>>(), result.freeze());
    if !cx.tracks(&inputs) {
        return Ok(result);
    }
    let terms: Vec<(f32, Tensor)> = terms.iter().map(|&(factor, tensor)| (factor, tensor.clone())).collect();
    Ok(cx.record(&inputs, result, move |cx, gradient, gradients| {
        for (factor, tensor) in &terms {
            if gradients.wants(tensor) {
                let scaled = match *factor {
                    1.0 => gradient.clone(),
                    factor => combine(cx, &[(factor, gradient)], 0.0)?,
                };
                gradients.add(cx, tensor, cast(cx, &scaled, tensor.dtype())?)?;
            }
        }
        Ok(())
    }))
}

/// `activation(x)`, any shape.
pub fn pointwise(cx: &Cx, x: &Tensor, activation: Activation) -> Result<Tensor> {
    note(cx, x.dtype(), || Call::Pointwise { count: x.shape().count() });
    let mut result = cx.allocate(x.shape(), x.dtype())?;
    match cx.device() {
        Device::Cpu(_) => {
            with_element!(result.dtype(), T => cpu::pointwise::<T>(x, activation, result.host_mut()?))?
        }
        Device::Gpu(gpu) => cuda::pointwise(gpu, x, activation, &mut result)?,
        Device::Plan(_) => {}
    }
    if !cx.tracks(&[x]) {
        return Ok(result.freeze());
    }
    let input = x.clone();
    Ok(cx.record(&[x], result.freeze(), move |cx, gradient, gradients| {
        gradients.add(cx, &input, pointwise_gradient(cx, &input, gradient, activation)?)
    }))
}

/// Writes a virtual concatenation out: [N, H, W, C].
pub fn concat(cx: &Cx, segments: &Segments) -> Result<Tensor> {
    let shape @ [n, h, w, c] = segments.nhwc()?;
    note(cx, segments.dtype()?, || Call::Concat { image: [n, h, w], parts: parts(segments) });
    let mut result = cx.allocate(shape, segments.dtype()?)?;
    match cx.device() {
        Device::Cpu(_) => {
            with_element!(result.dtype(), T => cpu::concat::<T>(segments, c, result.host_mut()?))?
        }
        Device::Gpu(gpu) => cuda::concat(gpu, segments, &mut result)?,
        Device::Plan(_) => {}
    }
    let inputs = segments.tensors();
    if !cx.tracks(&inputs) {
        return Ok(result.freeze());
    }
    let parts = segments.owned();
    Ok(cx.record(&inputs, result.freeze(), move |cx, gradient, gradients| {
        split_into(cx, gradient, &parts.view(), gradients)
    }))
}

/// `x` stored as `dtype`: what enters a network is cast to the context's element type, what leaves it to f32.
pub fn cast(cx: &Cx, x: &Tensor, dtype: DType) -> Result<Tensor> {
    if x.dtype() == dtype {
        return Ok(x.clone());
    }
    note(cx, x.dtype(), || Call::Cast { count: x.shape().count(), to: dtype });
    let mut result = cx.allocate(x.shape(), dtype)?;
    match cx.device() {
        Device::Cpu(_) => cpu::cast(x, &mut result)?,
        Device::Gpu(gpu) => cuda::cast(gpu, x, &mut result)?,
        Device::Plan(_) => {}
    }
    if !cx.tracks(&[x]) {
        return Ok(result.freeze());
    }
    let input = x.clone();
    Ok(cx.record(&[x], result.freeze(), move |cx, gradient, gradients| {
        gradients.add(cx, &input, cast(cx, gradient, input.dtype())?)
    }))
}

/// Tensors one after the other along the slowest axis: [A, ...], [B, ...] -> [A + B, ...].
pub fn stack(cx: &Cx, tensors: &[&Tensor]) -> Result<Tensor> {
    let first = tensors.first().ok_or_else(|| Error::internal("a stack of nothing"))?.shape();
    let rest = first.count() / first[0].max(1);
    let mut rows = 0;
    for tensor in tensors {
        if tensor.shape().get(1..) != first.get(1..) {
            return Err(Error::internal(format!("{} is stacked on {first}", tensor.shape())));
        }
        rows += tensor.shape()[0];
    }
    let mut result = cx.allocate([rows * rest], tensors[0].dtype())?;
    match cx.device() {
        Device::Cpu(_) => with_element!(result.dtype(), T => cpu::stack::<T>(tensors, result.host_mut()?))?,
        Device::Gpu(_) => cuda::stack(tensors, &mut result)?,
        Device::Plan(_) => {}
    }
    let mut stacked = result.freeze();
    if cx.tracks(tensors) {
        let parts: Vec<Tensor> = tensors.iter().map(|&tensor| tensor.clone()).collect();
        stacked = cx.record(tensors, stacked, move |cx, gradient, gradients| {
            let mut start = 0;
            for part in &parts {
                let count = part.shape().count();
                gradients.add(cx, part, gradient.narrow(start, count)?.reshape(part.shape())?)?;
                start += count;
            }
            Ok(())
        });
    }
    match *first {
        [_] => Ok(stacked),
        [_, a] => stacked.reshape([rows, a]),
        [_, a, b] => stacked.reshape([rows, a, b]),
        [_, a, b, c] => stacked.reshape([rows, a, b, c]),
        _ => Err(Error::internal("a stack of scalars")),
    }
}
