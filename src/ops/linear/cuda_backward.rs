//! The launch of gate_gradient in kernels/elementwise/backward.cu.

use bytemuck::NoUninit;

use crate::device::Gpu;
use crate::device::gpu::kernels;
use crate::error::{Error, Result};
use crate::ops::elementwise::plan::{VECTOR, grid};
use crate::ops::gpu::aligned;
use crate::tensor::{Tensor, TensorMut};

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct GateGradientParams {
    out: u64,
    both: u64,
    gradient: u64,
    vectors: u64,
    h: u32,
    aligned: u32,
}
const _: () = assert!(size_of::<GateGradientParams>() == 40);

/// Fills `result` [..., 2H] from value | gate [..., 2H] and the gradient [..., H] of `value * gelu(gate)`.
pub fn gate_gradient(gpu: &Gpu, both: &Tensor, gradient: &Tensor, result: &mut TensorMut) -> Result<()> {
    let (rows, h) = (both.shape().rows(), both.shape().last() / 2);
    if gradient.dtype() != both.dtype() || gradient.shape().count() != rows * h {
        return Err(Error::internal(format!("a gradient {} for a gate {}", gradient.shape(), both.shape())));
    }
    let (out, pair, from) = (result.address()?, both.address()?, gradient.address()?);
    let vectors = rows * h.div_ceil(VECTOR);
    let params = GateGradientParams {
        out,
        both: pair,
        gradient: from,
        vectors: vectors as u64,
        h: h as u32,
        aligned: u32::from(h % VECTOR == 0) & aligned([out, pair, from]),
    };
    // SAFETY: the result has the shape and type of value and gate, checked against the gradient.
    unsafe { gpu.launch(kernels::GATE_GRADIENT.of(both.dtype())?, grid(vectors, 1)?, &params) }
}
