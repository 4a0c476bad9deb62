//! Layer normalisation over the fastest axis: `(x - mean) / sqrt(var + eps) * gamma + beta`.

mod cpu;
mod cuda;
pub mod plan;

use super::Cx;
use super::host::element::with_element;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// x [..., C], gamma and beta [C] -> [..., C].
pub fn layer_norm(cx: &Cx, x: &Tensor, gamma: &Tensor, beta: &Tensor, eps: f32) -> Result<Tensor> {
    let c = x.shape().last();
    if *gamma.shape() != [c] || *beta.shape() != [c] {
        return Err(Error::internal(format!("layer norm of {} over {}", gamma.shape(), x.shape())));
    }
    let mut result = cx.allocate(x.shape(), x.dtype())?;
    match cx.device() {
        Device::Cpu(_) => with_element!(x.dtype(), T => {
            cpu::layer_norm::<T>(x, gamma, beta, eps, result.host_mut()?)
        })?,
        Device::Gpu(gpu) => cuda::layer_norm(gpu, x, [gamma, beta], eps, &mut result)?,
        Device::Plan(_) => {}
    }
    cx.constant("layer_norm", &[x, gamma, beta], result.freeze())
}
