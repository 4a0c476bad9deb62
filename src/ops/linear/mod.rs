//! Linear layers with a fused epilogue, and the gated GELU of the transformers' feed-forward.

mod backward;
mod bf16;
mod cpu;
mod cuda;
mod cuda_backward;
pub mod plan;
mod plan_backward;
mod sm90;

use super::calls::{Call, Extras, note};
use super::weights::overwrite;
use super::{Accumulate, Activation, Cx, Epilogue};
use crate::device::{Device, Purpose, Target};
use crate::error::{Error, Result};
use crate::tensor::{DType, NodeId, Tensor, TensorMut};

/// Weights of a linear layer in the layout its device computes with.
#[derive(Clone, Debug)]
pub struct LinearWeight {
    packed: Tensor,
    inputs: usize,
    outputs: usize,
}

impl LinearWeight {
    /// Packs `values`, [O, K] as checkpoints have them, for `cx`'s device. On the CPU: [K, O] in f32, panels in
    /// bf16; on a GPU as they are.
    pub fn pack(cx: &Cx, values: &[f32], [outputs, inputs]: [usize; 2]) -> Result<Self> {
        // The planning device is given no values.
        if !cx.device().is_plan() && values.len() != inputs * outputs {
            return Err(Error::internal(format!(
                "{} values for weights [{outputs}, {inputs}]",
                values.len()
            )));
        }
        let elements = match (cx.device().target(), cx.dtype()) {
            (Target::Cpu, DType::BF16) => bf16::layout(inputs, outputs).elements(),
            _ => inputs * outputs,
        };
        let mut packed = TensorMut::allocate(cx.device(), [elements], cx.dtype(), Purpose::Weight)?;
        match cx.device() {
            Device::Cpu(_) if cx.dtype() == DType::BF16 => {
                bf16::layout(inputs, outputs).pack(values, packed.host_mut()?);
            }
            Device::Cpu(_) => super::host::matmul::transpose(values, outputs, inputs, packed.host_mut()?),
            Device::Gpu(_) => packed.write_f32(values)?,
            Device::Plan(_) => {}
        }
        Ok(LinearWeight { packed: packed.freeze(), inputs, outputs })
    }

    pub fn inputs(&self) -> usize {
        self.inputs
    }

    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// The packed values; their layout is the device's own affair, but their gradient is f32 [O, K].
    pub fn packed(&self) -> &Tensor {
        &self.packed
    }

    /// The same weights as value `node` of a tape: the gradient of the packed tensor is wanted.
    pub fn with_node(&self, node: Option<NodeId>) -> Self {
        LinearWeight { packed: self.packed.with_node(node), ..*self }
    }

    /// A copy of bf16 weights on the CPU in f32, packed for f32: what backward passes multiply by.
    fn wide(&self, cx: &Cx) -> Result<Self> {
        let count = self.inputs * self.outputs;
        let (mut values, mut packed) = (cx.allocate([count], DType::F32)?, cx.allocate([count], DType::F32)?);
        if let Device::Cpu(_) = cx.device() {
            let values = values.host_mut()?;
            bf16::layout(self.inputs, self.outputs).unpack(self.packed.host()?, values);
            super::host::matmul::transpose(values, self.outputs, self.inputs, packed.host_mut()?);
        }
        Ok(LinearWeight { packed: packed.freeze(), ..*self })
    }

    /// Packs `master`, f32 [O, K], again in place, which an optimiser has changed.
    ///
    /// # Errors
    /// Somebody still holds the packed values: a tape that was not run.
    pub fn repack(&mut self, cx: &Cx, master: &Tensor) -> Result<()> {
        let (o, k) = (self.outputs, self.inputs);
        match cx.device() {
            Device::Cpu(_) if self.packed.dtype() == DType::BF16 => {
                bf16::layout(k, o).pack(master.host()?, self.packed.host_mut()?);
                Ok(())
            }
            Device::Cpu(_) => {
                super::host::matmul::transpose(master.host()?, o, k, self.packed.host_mut()?);
                Ok(())
            }
            Device::Gpu(_) => overwrite(cx, &mut self.packed, master),
            Device::Plan(_) => Ok(()),
        }
    }
}

fn check(x: &Tensor, weight: &LinearWeight) -> Result<()> {
    if x.shape().last() == weight.inputs {
        return Ok(());
    }
    Err(Error::internal(format!("{} does not enter a linear layer of {} inputs", x.shape(), weight.inputs)))
}

/// Scratch for the kernels of sm_90a, where they are to be used.
fn specialised_scratch(cx: &Cx, x: &Tensor, weight: &LinearWeight, gated: bool) -> Result<Option<Tensor>> {
    let product = plan::Product::of(x, weight, gated);
    if !sm90::suits(cx.device(), &product, [x, &weight.packed])? {
        return Ok(None);
    }
    Ok(Some(cx.allocate([product.work().scratch()], DType::F32)?.freeze()))
}

/// `epilogue(x . weight^T)`: x [..., K] -> [..., O].
pub fn linear(cx: &Cx, x: &Tensor, weight: &LinearWeight, epilogue: &Epilogue) -> Result<Tensor> {
    check(x, weight)?;
    let mut inputs = vec![x, &weight.packed];
    inputs.extend(epilogue.tensors());
    note(cx, x.dtype(), || {
        let images = x.shape()[0].max(1);
        let (rows, inputs, outputs) = (x.shape().rows() / images, weight.inputs, weight.outputs);
        Call::Linear { images, rows, inputs, outputs, extras: Extras::of(epilogue) }
    });
    let tracked = cx.tracks(&inputs);
    if tracked && epilogue.activation != Activation::None {
        return epilogue.finish_sums(cx, &linear(cx, x, weight, &epilogue.linear_part())?);
    }
    let mut result = cx.allocate(x.shape().with_last(weight.outputs), x.dtype())?;
    epilogue.check(result.shape())?;
    let scratch = specialised_scratch(cx, x, weight, false)?;
    match cx.device() {
        Device::Cpu(cpu) if x.dtype() == DType::BF16 => bf16::linear(cpu, x, weight, epilogue, &mut result)?,
        Device::Cpu(_) => cpu::linear(x, weight, epilogue, result.host_mut()?)?,
        Device::Gpu(gpu) => cuda::linear(gpu, x, weight, (epilogue, false), scratch.as_ref(), &mut result)?,
        Device::Plan(_) => {}
    }
    if !tracked {
        return Ok(result.freeze());
    }
    let (x, weight, epilogue) = (x.clone(), weight.clone(), epilogue.owned());
    Ok(cx.record(&inputs, result.freeze(), move |cx, gradient, gradients| {
        epilogue.backward(cx, gradient, gradients)?;
        if gradients.wants(&x) {
            gradients.add(cx, &x, backward::input_gradient(cx, &weight, gradient, epilogue.scale)?)?;
        }
        if gradients.wants(&weight.packed) {
            let found = backward::weight_gradient(cx, &x, gradient, epilogue.scale)?;
            gradients.add(cx, &weight.packed, found)?;
        }
        Ok(())
    }))
}

/// `x . weight^T` by the vendor's library, whatever the plan says: what benches hold ours against.
///
/// # Errors
/// The device has no such library.
pub fn library_linear(cx: &Cx, x: &Tensor, weight: &LinearWeight) -> Result<Tensor> {
    check(x, weight)?;
    let mut result = cx.allocate(x.shape().with_last(weight.outputs), x.dtype())?;
    match cx.device() {
        Device::Gpu(gpu) if gpu.has_library() && weight.packed.dtype() == x.dtype() => {
            cuda::library(gpu, x, weight, &mut result)?;
        }
        other => return Err(Error::device(format!("{} has no cuBLASLt", other.describe()))),
    }
    cx.constant("library_linear", &[x, &weight.packed], result.freeze())
}

/// `value * gelu(gate)` with [value | gate] = x . weight^T + bias: x [..., K], weight [2H, K] -> [..., H].
pub fn linear_geglu(cx: &Cx, x: &Tensor, weight: &LinearWeight, bias: &Tensor) -> Result<Tensor> {
    check(x, weight)?;
    if !weight.outputs.is_multiple_of(2) || *bias.shape() != [weight.outputs] {
        return Err(Error::internal(format!("a gated GELU of {} outputs", weight.outputs)));
    }
    let (rows, inputs, outputs) = (x.shape().rows(), weight.inputs, weight.outputs);
    note(cx, x.dtype(), || Call::Geglu { rows, inputs, outputs });
    let mut result = cx.allocate(x.shape().with_last(weight.outputs / 2), x.dtype())?;
    let scratch = match (cx.device().target(), x.dtype()) {
        (Target::Cpu, DType::F32) => cpu::geglu_scratch(x.shape().rows(), weight.outputs),
        _ => 0,
    };
    let mut scratch = cx.allocate([scratch], DType::F32)?;
    match cx.device() {
        Device::Cpu(cpu) if x.dtype() == DType::BF16 => bf16::geglu(cpu, x, weight, bias, &mut result)?,
        Device::Cpu(_) => cpu::geglu(x, weight, bias, scratch.host_mut()?, result.host_mut()?)?,
        Device::Gpu(gpu) => {
            let scratch = specialised_scratch(cx, x, weight, true)?;
            let epilogue = Epilogue::bias(Some(bias));
            cuda::linear(gpu, x, weight, (&epilogue, true), scratch.as_ref(), &mut result)?;
        }
        Device::Plan(_) => {}
    }
    let inputs = [x, &weight.packed, bias];
    if !cx.tracks(&inputs) {
        return Ok(result.freeze());
    }
    let (x, weight, bias) = (x.clone(), weight.clone(), bias.clone());
    Ok(cx.record(&inputs, result.freeze(), move |cx, gradient, gradients| {
        backward::geglu(cx, (&x, &weight, &bias), gradient, gradients)
    }))
}
