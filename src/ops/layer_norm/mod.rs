//! Layer normalisation over the fastest axis: `(x - mean) / sqrt(var + eps) * gamma + beta`.

mod cpu;
mod cpu_backward;
mod cuda;
mod cuda_backward;
pub mod plan;

use super::calls::{Call, note};
use super::host::element::with_element;
use super::{Accumulate, Cx, widened};
use crate::device::{Device, Target};
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// x [..., C], gamma and beta [C] -> [..., C].
pub fn layer_norm(cx: &Cx, x: &Tensor, gamma: &Tensor, beta: &Tensor, eps: f32) -> Result<Tensor> {
    let c = x.shape().last();
    if *gamma.shape() != [c] || *beta.shape() != [c] {
        return Err(Error::internal(format!("layer norm of {} over {}", gamma.shape(), x.shape())));
    }
    note(cx, x.dtype(), || Call::LayerNorm { rows: x.shape().rows(), width: c });
    let mut result = cx.allocate(x.shape(), x.dtype())?;
    match cx.device() {
        Device::Cpu(_) => with_element!(x.dtype(), T => {
            cpu::layer_norm::<T>(x, gamma, beta, eps, result.host_mut()?)
        })?,
        Device::Gpu(gpu) => cuda::layer_norm(gpu, x, [gamma, beta], eps, &mut result)?,
        Device::Plan(_) => {}
    }
    let inputs = [x, gamma, beta];
    if !cx.tracks(&inputs) {
        return Ok(result.freeze());
    }
    let (x, gamma, beta) = (x.clone(), gamma.clone(), beta.clone());
    Ok(cx.record(&inputs, result.freeze(), move |cx, gradient, gradients| {
        let weights = gradients.wants(&gamma) || gradients.wants(&beta);
        let (input, found) = layer_norm_gradient(cx, (&x, &gamma, eps), gradient, weights)?;
        gradients.add(cx, &x, input)?;
        if let Some([to_gamma, to_beta]) = found {
            gradients.add(cx, &gamma, to_gamma)?;
            gradients.add(cx, &beta, to_beta)?;
        }
        Ok(())
    }))
}

/// The gradients of x and, if `weights`, of gamma and beta, f32 [C]; mean and variance are taken again.
fn layer_norm_gradient(
    cx: &Cx,
    norm @ (x, gamma, eps): (&Tensor, &Tensor, f32),
    gradient: &Tensor,
    weights: bool,
) -> Result<(Tensor, Option<[Tensor; 2]>)> {
    if widened::applies(cx, x.dtype()) {
        let [x, gradient] = [widened::wide(cx, x)?, widened::wide(cx, gradient)?];
        let (input, sums) = layer_norm_gradient(cx, (&x, gamma, eps), &gradient, weights)?;
        return Ok((widened::narrow(cx, &input)?, sums));
    }
    let c = x.shape().last();
    let mut result = cx.allocate(x.shape(), x.dtype())?;
    let mut sums = match weights {
        true => Some((cx.allocate([c], DType::F32)?, cx.allocate([c], DType::F32)?)),
        false => None,
    };
    let sizes = match (cx.device().target(), weights) {
        (Target::Gpu, true) => cuda_backward::scratch(x.shape().rows()),
        _ => [0, 0],
    };
    let mut scratch = [cx.allocate([sizes[0]], DType::F32)?, cx.allocate([sizes[1]], DType::F32)?];
    match cx.device() {
        Device::Cpu(_) => {
            let sums = match &mut sums {
                Some((gamma, beta)) => Some((gamma.host_mut()?, beta.host_mut()?)),
                None => None,
            };
            cpu_backward::layer_norm(norm, gradient, result.host_mut()?, sums)?;
        }
        Device::Gpu(gpu) => {
            let weights = sums.as_mut().map(|(gamma, beta)| cuda_backward::Weights {
                gamma,
                beta,
                scratch: &mut scratch,
            });
            cuda_backward::layer_norm(gpu, norm, gradient, &mut result, weights)?;
        }
        Device::Plan(_) => {}
    }
    Ok((result.freeze(), sums.map(|(gamma, beta)| [gamma.freeze(), beta.freeze()])))
}
