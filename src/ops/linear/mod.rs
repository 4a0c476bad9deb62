//! Linear layers with a fused epilogue, and the gated GELU of the transformers' feed-forward.

mod bf16;
mod cpu;
mod cuda;
pub mod plan;

use super::{Cx, Epilogue};
use crate::device::{Device, Purpose, Target};
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor, TensorMut};

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
}

fn check(x: &Tensor, weight: &LinearWeight) -> Result<()> {
    if x.shape().last() == weight.inputs {
        return Ok(());
    }
    Err(Error::internal(format!("{} does not enter a linear layer of {} inputs", x.shape(), weight.inputs)))
}

/// `epilogue(x . weight^T)`: x [..., K] -> [..., O].
pub fn linear(cx: &Cx, x: &Tensor, weight: &LinearWeight, epilogue: &Epilogue) -> Result<Tensor> {
    check(x, weight)?;
    let mut result = cx.allocate(x.shape().with_last(weight.outputs), x.dtype())?;
    epilogue.check(result.shape())?;
    match cx.device() {
        Device::Cpu(cpu) if x.dtype() == DType::BF16 => bf16::linear(cpu, x, weight, epilogue, &mut result)?,
        Device::Cpu(_) => cpu::linear(x, weight, epilogue, result.host_mut()?)?,
        Device::Gpu(gpu) => cuda::linear(gpu, x, weight, epilogue, false, &mut result)?,
        Device::Plan(_) => {}
    }
    let mut inputs = vec![x, &weight.packed];
    inputs.extend(epilogue.tensors());
    cx.constant("linear", &inputs, result.freeze())
}

/// `value * gelu(gate)` with [value | gate] = x . weight^T + bias: x [..., K], weight [2H, K] -> [..., H].
pub fn linear_geglu(cx: &Cx, x: &Tensor, weight: &LinearWeight, bias: &Tensor) -> Result<Tensor> {
    check(x, weight)?;
    if !weight.outputs.is_multiple_of(2) || *bias.shape() != [weight.outputs] {
        return Err(Error::internal(format!("a gated GELU of {} outputs", weight.outputs)));
    }
    let mut result = cx.allocate(x.shape().with_last(weight.outputs / 2), x.dtype())?;
    let scratch = match (cx.device().target(), x.dtype()) {
        (Target::Cpu, DType::F32) => cpu::geglu_scratch(x.shape().rows(), weight.outputs),
        _ => 0,
    };
    let mut scratch = cx.allocate([scratch], DType::F32)?;
    match cx.device() {
        Device::Cpu(cpu) if x.dtype() == DType::BF16 => bf16::geglu(cpu, x, weight, bias, &mut result)?,
        Device::Cpu(_) => cpu::geglu(x, weight, bias, scratch.host_mut()?, result.host_mut()?)?,
        Device::Gpu(gpu) => cuda::linear(gpu, x, weight, &Epilogue::bias(Some(bias)), true, &mut result)?,
        Device::Plan(_) => {}
    }
    cx.constant("linear_geglu", &[x, &weight.packed, bias], result.freeze())
}
