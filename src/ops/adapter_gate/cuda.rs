//! Launches of kernels/adapter.

use bytemuck::NoUninit;

use super::{Gate, plan};
use crate::device::Gpu;
use crate::device::gpu::kernels::{self, Family};
use crate::error::{Error, Result};
use crate::ops::Activation;
use crate::ops::conv2d::plan::BLOCK_CHANNELS;
use crate::ops::conv2d::{Conv2d, ConvWeight};
use crate::ops::gpu::{SegmentsParams, activation_code, aligned};
use crate::tensor::{DType, Tensor, TensorMut};

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct GateParams {
    out: u64,
    map: u64,
    base: u64,
    residual: u64,
    weight: u64,
    bias: u64,
    coefficients: u64,
    images: i32,
    h: i32,
    w: i32,
    d: i32,
    slice: i32,
    blocks: i32,
    tiles_x: i32,
    tiles_y: i32,
    activation: u32,
    slope: f32,
    top: f32,
    aligned: u32,
    segments: SegmentsParams,
}
const _: () = assert!(size_of::<GateParams>() == 280);

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct InjectParams {
    out: u64,
    pixel: u64,
    value: u64,
    base: u64,
    residual: u64,
    pixels: u32,
    d: u32,
    top: f32,
    aligned: u32,
}
const _: () = assert!(size_of::<InjectParams>() == 56);

fn check_types(dtype: DType, own: &[&Tensor], f32s: &[&Tensor]) -> Result<()> {
    let wrong = own.iter().find(|tensor| tensor.dtype() != dtype);
    match wrong.or_else(|| f32s.iter().find(|tensor| tensor.dtype() != DType::F32)) {
        None => Ok(()),
        Some(other) => Err(Error::internal(format!(
            "an adapter's gate of {} meets {}",
            dtype.name(),
            other.dtype().name()
        ))),
    }
}

/// The whole gate: writes `map` [N, H, W, 1] and `result` [N, H, W, D].
pub fn adapter_gate(
    gpu: &Gpu,
    conv: &Conv2d,
    weight: &ConvWeight,
    bias: &Tensor,
    gate: Gate,
    (base, residual): (&Tensor, &Tensor),
    (map, result): (&mut TensorMut, &mut TensorMut),
) -> Result<()> {
    let dtype = result.dtype();
    check_types(dtype, &[base, residual, weight.packed()], &[bias])?;
    if conv.input.dtype()? != dtype {
        return Err(Error::internal("an adapter's features and result differ in type"));
    }
    let [n, h, w, d] = base.nhwc()?;
    let plan = plan::gate([n, h, w], d, gpu.info().multiprocessors)?;
    let (coefficients, activation) = match conv.prologue {
        Some(affine) => (affine.coefficients.address()?, affine.activation),
        None => (0, Activation::None),
    };
    let (activation, slope) = activation_code(activation);
    let (out, base, residual) = (result.address()?, base.address()?, residual.address()?);
    let params = GateParams {
        out,
        map: map.address()?,
        base,
        residual,
        weight: weight.packed().address()?,
        bias: bias.address()?,
        coefficients,
        images: n as i32,
        h: h as i32,
        w: w as i32,
        d: d as i32,
        slice: plan.slice as i32,
        blocks: weight.inputs().div_ceil(BLOCK_CHANNELS) as i32,
        tiles_x: plan.tiles_x as i32,
        tiles_y: plan.tiles_y as i32,
        activation,
        slope,
        top: gate.top(),
        aligned: aligned([out, base, residual, (d * dtype.size()) as u64]),
        segments: SegmentsParams::new(&conv.input)?.aligned_with(coefficients),
    };
    // SAFETY: the op checked features, weights, base and residual against each other; the map has a value a pixel.
    unsafe { gpu.launch(kernels::ADAPTER_GATE.of(dtype)?, plan.grid, &params) }
}

/// `family` over pixels: reads `value` of each, `base` and `residual`, writes `pixel` and `result`.
fn injection(
    gpu: &Gpu,
    family: &Family,
    gate: Gate,
    (value, base, residual): (&Tensor, &Tensor, &Tensor),
    (pixel, result): (&mut TensorMut, &mut TensorMut),
) -> Result<()> {
    let (dtype, d) = (result.dtype(), result.shape().last());
    check_types(dtype, &[base, residual], &[])?;
    let pixels = value.shape().count();
    let (out, base, residual) = (result.address()?, base.address()?, residual.address()?);
    let params = InjectParams {
        out,
        pixel: pixel.address()?,
        value: value.address()?,
        base,
        residual,
        pixels: pixels as u32,
        d: d as u32,
        top: gate.top(),
        aligned: aligned([out, base, residual, (d * dtype.size()) as u64]),
    };
    // SAFETY: the op checked that there are as many rows of `d` as values, and the kernel's types are these.
    unsafe { gpu.launch(family.of(dtype)?, plan::inject(pixels)?, &params) }
}

/// From logits [N, H, W, 1] the map and `base + map * residual`.
pub fn inject(
    gpu: &Gpu,
    gate: Gate,
    (logits, base, residual): (&Tensor, &Tensor, &Tensor),
    (map, result): (&mut TensorMut, &mut TensorMut),
) -> Result<()> {
    check_types(result.dtype(), &[logits], &[])?;
    injection(gpu, &kernels::GATE_INJECT, gate, (logits, base, residual), (map, result))
}

/// From the gradient of the result those of the logits (f32) and of the residual.
pub fn inject_gradient(
    gpu: &Gpu,
    gate: Gate,
    (map, gradient, residual): (&Tensor, &Tensor, &Tensor),
    (logits, result): (&mut TensorMut, &mut TensorMut),
) -> Result<()> {
    check_types(DType::F32, &[map], &[])?;
    injection(gpu, &kernels::GATE_INJECT_GRADIENT, gate, (map, gradient, residual), (logits, result))
}
