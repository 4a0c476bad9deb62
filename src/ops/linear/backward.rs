//! Gradients of linear layers. A gradient in the weights is f32 [O, K], as checkpoints have them.

use super::plan_backward::Product;
use super::{LinearWeight, cpu, cuda_backward, linear};
use crate::autograd::Gradients;
use crate::device::{Device, Target};
use crate::error::Result;
use crate::ops::sums::column_sums;
use crate::ops::{Accumulate, Cx, Epilogue, widened};
use crate::tensor::{DType, Tensor, TensorMut};

/// The memory in which the GPU's split sums meet.
fn scratch(cx: &Cx, product: &Product) -> Result<TensorMut> {
    let count = match cx.device().target() {
        Target::Cpu => 0,
        Target::Gpu => product.scratch(),
    };
    cx.allocate([count], DType::F32)
}

/// `scale * gradient . weight`: gradient [..., O] -> [..., K].
pub fn input_gradient(cx: &Cx, weight: &LinearWeight, gradient: &Tensor, scale: f32) -> Result<Tensor> {
    if widened::applies(cx, gradient.dtype()) {
        let (weight, gradient) = (weight.wide(cx)?, widened::wide(cx, gradient)?);
        return widened::narrow(cx, &input_gradient(cx, &weight, &gradient, scale)?);
    }
    let mut result = cx.allocate(gradient.shape().with_last(weight.inputs), gradient.dtype())?;
    let (m, dtype) = (gradient.shape().rows(), gradient.dtype());
    let product = Product { m, n: weight.inputs, k: weight.outputs, weights: false, dtype };
    let mut partial = scratch(cx, &product)?;
    match cx.device() {
        Device::Cpu(_) => cpu::input_gradient(weight, gradient, scale, result.host_mut()?)?,
        Device::Gpu(gpu) => {
            let operands = [gradient, &weight.packed];
            cuda_backward::product(gpu, &product, operands, scale, &mut partial, &mut result)?;
        }
        Device::Plan(_) => {}
    }
    Ok(result.freeze())
}

/// `scale * gradient^T . x`: x [..., K], gradient [..., O] -> f32 [O, K].
pub fn weight_gradient(cx: &Cx, x: &Tensor, gradient: &Tensor, scale: f32) -> Result<Tensor> {
    if widened::applies(cx, gradient.dtype()) {
        return weight_gradient(cx, &widened::wide(cx, x)?, &widened::wide(cx, gradient)?, scale);
    }
    let (m, n) = (gradient.shape().last(), x.shape().last());
    let mut result = cx.allocate([m, n], DType::F32)?;
    let product = Product { m, n, k: x.shape().rows(), weights: true, dtype: x.dtype() };
    let mut partial = scratch(cx, &product)?;
    match cx.device() {
        Device::Cpu(_) => cpu::weight_gradient(x, gradient, scale, result.host_mut()?)?,
        Device::Gpu(gpu) => {
            cuda_backward::product(gpu, &product, [gradient, x], scale, &mut partial, &mut result)?;
        }
        Device::Plan(_) => {}
    }
    Ok(result.freeze())
}

/// From [value | gate] = `both` [..., 2H] and the gradient [..., H] of `value * gelu(gate)`: that of `both`,
/// [gradient * gelu(gate) | gradient * value * gelu'(gate)].
fn gate_gradient(cx: &Cx, both: &Tensor, gradient: &Tensor) -> Result<Tensor> {
    if widened::applies(cx, both.dtype()) {
        let [both, gradient] = [widened::wide(cx, both)?, widened::wide(cx, gradient)?];
        return widened::narrow(cx, &gate_gradient(cx, &both, &gradient)?);
    }
    let mut result = cx.allocate(both.shape(), both.dtype())?;
    match cx.device() {
        Device::Cpu(_) => {
            cpu::gate_gradient(both.host()?, gradient.host()?, both.shape().last(), result.host_mut()?);
        }
        Device::Gpu(gpu) => cuda_backward::gate_gradient(gpu, both, gradient, &mut result)?,
        Device::Plan(_) => {}
    }
    Ok(result.freeze())
}

/// The gated GELU: value and gate are computed again.
pub fn geglu(
    cx: &Cx,
    (x, weight, bias): (&Tensor, &LinearWeight, &Tensor),
    gradient: &Tensor,
    gradients: &mut Gradients,
) -> Result<()> {
    let both = linear(cx, x, weight, &Epilogue::bias(Some(bias)))?;
    let inner = gate_gradient(cx, &both, gradient)?;
    drop(both);
    if gradients.wants(bias) {
        gradients.add(cx, bias, column_sums(cx, &inner, 1, 1.0, bias.dtype())?)?;
    }
    if gradients.wants(&weight.packed) {
        gradients.add(cx, &weight.packed, weight_gradient(cx, x, &inner, 1.0)?)?;
    }
    if gradients.wants(x) {
        gradients.add(cx, x, input_gradient(cx, weight, &inner, 1.0)?)?;
    }
    Ok(())
}
