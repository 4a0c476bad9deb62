//! Launches of kernels/gemm/gemm_backward.cu, and of gate_gradient in kernels/elementwise/backward.cu.

use bytemuck::NoUninit;

use super::plan_backward::Product;
use crate::device::Gpu;
use crate::device::gpu::kernels;
use crate::error::{Error, Result};
use crate::ops::elementwise::plan::{VECTOR, grid};
use crate::ops::gpu::aligned;
use crate::tensor::{DType, Tensor, TensorMut};

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

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct BackwardGemmParams {
    out: u64,
    a: u64,
    b: u64,
    partial: u64,
    counters: u64,
    m: u32,
    n: u32,
    k: u32,
    splits: u32,
    split_k: u32,
    scale: f32,
    out_f32: u32,
    aligned: u32,
    out_aligned: u32,
    pad: u32,
}
const _: () = assert!(size_of::<BackwardGemmParams>() == 80);

/// `scale * a . b`, or of the weights `scale * a^T . b`, to `result`, of the operands' type or f32; `partial` has as
/// many elements as the product's scratch.
pub fn product(
    gpu: &Gpu,
    product: &Product,
    [a, b]: [&Tensor; 2],
    scale: f32,
    partial: &mut TensorMut,
    result: &mut TensorMut,
) -> Result<()> {
    let &Product { m, n, k, weights, dtype } = product;
    if [a.dtype(), b.dtype()] != [dtype; 2] || ![dtype, DType::F32].contains(&result.dtype()) {
        let names = [a.dtype(), b.dtype(), result.dtype()].map(DType::name);
        return Err(Error::internal(format!("a gradient of a linear layer of {names:?}")));
    }
    if k == 0 {
        return result.clear();
    }
    let plan = product.plan(gpu.info().multiprocessors)?;
    let (out, left, right) = (result.address()?, a.address()?, b.address()?);
    let slow = if weights { m } else { k };
    let whole = |columns: usize, dtype: DType| (columns * dtype.size() % 16) as u64;
    let params = BackwardGemmParams {
        out,
        a: left,
        b: right,
        partial: partial.address()?,
        counters: gpu.counters(plan.tiles)?,
        m: m as u32,
        n: n as u32,
        k: k as u32,
        splits: plan.splits as u32,
        split_k: plan.split_k as u32,
        scale,
        out_f32: u32::from(result.dtype() == DType::F32),
        aligned: aligned([left, right, whole(slow, dtype), whole(n, dtype)]),
        // Eight columns of f32 are written sixteen bytes at a time, from a multiple of eight.
        out_aligned: u32::from(n % VECTOR == 0) & aligned([out]),
        pad: 0,
    };
    // SAFETY: the callers made the product from the shapes of operands and result.
    unsafe { gpu.launch(plan.family(weights).of(dtype)?, plan.grid, &params) }
}
