//! The end of a timestep-aware adapter: its last 3x3 convolution to one channel, a sigmoid, and the
//! weighted injection of the ControlNet residual, in one op.

mod cuda;
pub mod plan;

use super::calls::{Call, note};
use super::conv2d::{Conv2d, ConvWeight, Padding, conv2d};
use super::elementwise::cast;
use super::{Accumulate, Cx, Epilogue, widened};
use crate::autograd::Gradients;
use crate::device::{Device, Target};
use crate::error::{Error, Result};
use crate::ops::host::element::{HostElement, with_element};
use crate::ops::host::math::{sigmoid, sum, vectorised};
use crate::tensor::{DType, Tensor};

/// How the convolution's value becomes a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// 2 * sigmoid, in (0, 2): the published code
    TwoSigmoid,
    /// sigmoid, in (0, 1): the article
    Sigmoid,
}

impl Gate {
    /// The largest weight.
    fn top(self) -> f32 {
        match self {
            Gate::TwoSigmoid => 2.0,
            Gate::Sigmoid => 1.0,
        }
    }
}

/// `base + map * residual` and the map, with `map = gate(conv(features))`.
///
/// features [N, H, W, C] under `conv`, `weight` C -> 1, base and residual [N, H, W, D] ->
/// ([N, H, W, D], [N, H, W, 1]). The map is for looking at: it is a constant to whoever computes on.
pub fn adapter_gate(
    cx: &Cx,
    conv: &Conv2d,
    weight: &ConvWeight,
    bias: &Tensor,
    gate: Gate,
    (base, residual): (&Tensor, &Tensor),
) -> Result<(Tensor, Tensor)> {
    let [n, h, w, d] = base.nhwc()?;
    if weight.outputs() != 1 || residual.shape() != base.shape() || conv.input.nhwc()?[..3] != [n, h, w] {
        return Err(Error::internal(format!("an adapter's map does not fit {}", base.shape())));
    }
    note(cx, base.dtype(), || {
        let prologue = conv.prologue.map(|affine| affine.activation);
        Call::AdapterGate { image: [n, h, w], inputs: weight.inputs(), width: d, prologue }
    });
    if one_kernel(cx, conv, weight, bias, (base, residual)) {
        let mut map = cx.allocate([n, h, w, 1], DType::F32)?;
        let mut result = cx.allocate(base.shape(), base.dtype())?;
        if let Device::Gpu(gpu) = cx.device() {
            cuda::adapter_gate(gpu, conv, weight, bias, gate, (base, residual), (&mut map, &mut result))?;
        }
        return Ok((result.freeze(), map.freeze()));
    }
    let logits = conv2d(cx, conv, weight, &Epilogue::bias(Some(bias)))?;
    let mut map = cx.allocate([n, h, w, 1], DType::F32)?;
    let mut result = cx.allocate(base.shape(), base.dtype())?;
    match cx.device() {
        Device::Cpu(_) => with_element!(base.dtype(), T => {
            let pair = (base.host::<T>()?, residual.host()?);
            inject(logits.host()?, gate, pair, d, map.host_mut()?, result.host_mut()?);
            Ok(())
        })?,
        Device::Gpu(gpu) => {
            cuda::inject(gpu, gate, (&logits, base, residual), (&mut map, &mut result))?;
        }
        Device::Plan(_) => {}
    }
    let (inputs, map, result) = ([&logits, base, residual], map.freeze(), result.freeze());
    if !cx.tracks(&inputs) {
        return Ok((result, map));
    }
    let (logits, base, residual, kept) = (logits.clone(), base.clone(), residual.clone(), map.clone());
    let backward = move |cx: &Cx, gradient: &Tensor, gradients: &mut Gradients| {
        gradients.add(cx, &base, gradient.clone())?;
        let (to_logits, to_residual) = inject_gradient(cx, gate, (&kept, &residual), gradient)?;
        gradients.add(cx, &residual, to_residual)?;
        gradients.add(cx, &logits, cast(cx, &to_logits, logits.dtype())?)
    };
    Ok((cx.record(&inputs, result, backward), map))
}

/// Whether the whole op is one kernel: on a GPU, when no gradient wants the convolution apart.
fn one_kernel(
    cx: &Cx,
    conv: &Conv2d,
    weight: &ConvWeight,
    bias: &Tensor,
    (base, residual): (&Tensor, &Tensor),
) -> bool {
    let mut inputs = vec![base, residual, bias, weight.packed()];
    inputs.extend(conv.input.tensors());
    inputs.extend(conv.prologue.map(|affine| &affine.coefficients));
    let channels = conv.input.nhwc().map(|shape| shape[3]);
    let fits = weight.kernel() == 3
        && channels.is_ok_and(|c| c == weight.inputs())
        && conv.prologue.is_none_or(|affine| affine.coefficients.shape().last() == weight.inputs())
        && (conv.stride, conv.upsample, conv.padding) == (1, false, Padding::Same)
        && *bias.shape() == [1];
    cx.device().target() == Target::Gpu && fits && !cx.tracks(&inputs)
}

/// From the gradient g of `base + map * residual` those of the logits, f32 [N, H, W, 1] (the sum of g * residual
/// times the gate's slope), and of the residual, [N, H, W, D] (g * map).
fn inject_gradient(
    cx: &Cx,
    gate: Gate,
    (map, residual): (&Tensor, &Tensor),
    gradient: &Tensor,
) -> Result<(Tensor, Tensor)> {
    if widened::applies(cx, residual.dtype()) {
        let [residual, gradient] = [widened::wide(cx, residual)?, widened::wide(cx, gradient)?];
        let (logits, result) = inject_gradient(cx, gate, (map, &residual), &gradient)?;
        return Ok((logits, widened::narrow(cx, &result)?));
    }
    let mut logits = cx.allocate(map.shape(), DType::F32)?;
    let mut result = cx.allocate(residual.shape(), residual.dtype())?;
    match cx.device() {
        Device::Cpu(_) => eject(
            gate,
            (map.host()?, residual.host()?),
            gradient.host()?,
            residual.shape().last(),
            (logits.host_mut()?, result.host_mut()?),
        ),
        Device::Gpu(gpu) => {
            cuda::inject_gradient(gpu, gate, (map, gradient, residual), (&mut logits, &mut result))?;
        }
        Device::Plan(_) => {}
    }
    Ok((logits.freeze(), result.freeze()))
}

fn eject(
    gate: Gate,
    (map, residual): (&[f32], &[f32]),
    gradient: &[f32],
    d: usize,
    (logits, result): (&mut [f32], &mut [f32]),
) {
    use rayon::prelude::*;
    let top = gate.top();
    const BLOCK: usize = 256;
    result.par_chunks_mut(d * BLOCK).zip(logits.par_chunks_mut(BLOCK)).enumerate().for_each(
        |(block, (out, logits))| {
            let first = block * BLOCK;
            vectorised!({
                for (i, (line, logit)) in out.chunks_exact_mut(d).zip(logits.iter_mut()).enumerate() {
                    let (start, m) = ((first + i) * d, map[first + i]);
                    let gradient = &gradient[start..][..d];
                    line.copy_from_slice(&residual[start..][..d]);
                    line.iter_mut().zip(gradient).for_each(|(v, g)| *v *= g);
                    // m = top * sigmoid: its slope is m * (1 - sigmoid)
                    *logit = sum(line, |v| v) * m * (1.0 - m / top);
                    line.iter_mut().zip(gradient).for_each(|(v, g)| *v = m * g);
                }
            });
        },
    );
}

fn inject<T: HostElement>(
    logits: &[T],
    gate: Gate,
    (base, residual): (&[T], &[T]),
    d: usize,
    map: &mut [f32],
    result: &mut [T],
) {
    use rayon::prelude::*;
    let top = gate.top();
    const BLOCK: usize = 256;
    result.par_chunks_mut(d * BLOCK).zip(map.par_chunks_mut(BLOCK)).enumerate().for_each(
        |(block, (out, map))| {
            let first = block * BLOCK;
            vectorised!({
                map.iter_mut().zip(&logits[first..]).for_each(|(m, &x)| *m = top * sigmoid(x.wide()));
                for (i, (line, &m)) in out.chunks_exact_mut(d).zip(map.iter()).enumerate() {
                    let start = (first + i) * d;
                    let pair = base[start..][..d].iter().zip(&residual[start..][..d]);
                    line.iter_mut().zip(pair).for_each(|(v, (b, r))| *v = T::narrow(b.wide() + m * r.wide()));
                }
            });
        },
    );
}
