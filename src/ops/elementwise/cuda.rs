//! Launches of kernels/elementwise/elementwise.cu.

use bytemuck::NoUninit;

use super::plan::{VECTOR, grid};
use crate::device::Gpu;
use crate::device::gpu::kernels;
use crate::error::{Error, Result};
use crate::ops::gpu::{SegmentsParams, activation_code, aligned};
use crate::ops::{Activation, Segments};
use crate::tensor::{DType, Tensor, TensorMut};

/// Terms of one launch.
const MAX_TERMS: usize = 8;

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct CombineParams {
    out: u64,
    inputs: [u64; MAX_TERMS],
    factors: [f32; MAX_TERMS],
    count: u64,
    constant: f32,
    terms: u32,
    aligned: u32,
    pad: u32,
}
const _: () = assert!(size_of::<CombineParams>() == 128);

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct PointwiseParams {
    out: u64,
    input: u64,
    count: u64,
    activation: u32,
    slope: f32,
    aligned: u32,
    pad: u32,
}
const _: () = assert!(size_of::<PointwiseParams>() == 40);

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct ConcatParams {
    out: u64,
    count: u64,
    segments: SegmentsParams,
}
const _: () = assert!(size_of::<ConcatParams>() == 192);

pub fn concat(gpu: &Gpu, segments: &Segments, result: &mut TensorMut) -> Result<()> {
    let (out, count) = (result.address()?, result.shape().count());
    let segments = SegmentsParams::new(segments)?.aligned_with(out);
    let params = ConcatParams { out, count: count as u64, segments };
    // SAFETY: the parts share the result's pixels and element type, and their channels add up to its own.
    unsafe { gpu.launch(kernels::CONCAT.of(result.dtype())?, grid(count, VECTOR)?, &params) }
}

pub fn combine(gpu: &Gpu, terms: &[(f32, &Tensor)], constant: f32, result: &mut TensorMut) -> Result<()> {
    let (dtype, out, count) = (result.dtype(), result.address()?, result.shape().count());
    if terms.iter().any(|(_, tensor)| tensor.dtype() != dtype) {
        return Err(Error::internal("a sum of different element types"));
    }
    // More terms than a launch takes are added to the sum of those before.
    for (chunk, part) in terms.chunks(MAX_TERMS - 1).enumerate() {
        let mut inputs = [0; MAX_TERMS];
        let mut factors = [0.0; MAX_TERMS];
        let mut used = 0;
        if chunk > 0 {
            (inputs[0], factors[0], used) = (out, 1.0, 1);
        }
        for (factor, tensor) in part {
            (inputs[used], factors[used]) = (tensor.address()?, *factor);
            used += 1;
        }
        let params = CombineParams {
            out,
            inputs,
            factors,
            count: count as u64,
            constant: if chunk == 0 { constant } else { 0.0 },
            terms: used as u32,
            aligned: aligned(inputs.into_iter().chain([out])),
            pad: 0,
        };
        // SAFETY: every term and the result hold `count` elements of `dtype`; a thread reads before it writes.
        unsafe { gpu.launch(kernels::COMBINE.of(dtype)?, grid(count, VECTOR)?, &params)? };
    }
    Ok(())
}

/// `out` is the address of as many elements as `x` has, of the type that `family` writes.
fn map(gpu: &Gpu, family: &kernels::Family, x: &Tensor, activation: Activation, out: u64) -> Result<()> {
    let (input, count) = (x.address()?, x.shape().count());
    let (activation, slope) = activation_code(activation);
    let aligned = aligned([out, input]);
    let params = PointwiseParams { out, input, count: count as u64, activation, slope, aligned, pad: 0 };
    // SAFETY: `x` and the result hold `count` elements of the types that the family is for.
    unsafe { gpu.launch(family.of(x.dtype())?, grid(count, VECTOR)?, &params) }
}

pub fn pointwise(gpu: &Gpu, x: &Tensor, activation: Activation, result: &mut TensorMut) -> Result<()> {
    map(gpu, &kernels::POINTWISE, x, activation, result.address()?)
}

fn cast_family(dtype: DType) -> &'static kernels::Family {
    match dtype {
        DType::F32 => &kernels::CAST_TO_F32,
        DType::F16 => &kernels::CAST_TO_F16,
        DType::BF16 => &kernels::CAST_TO_BF16,
    }
}

pub fn cast(gpu: &Gpu, x: &Tensor, result: &mut TensorMut) -> Result<()> {
    map(gpu, cast_family(result.dtype()), x, Activation::None, result.address()?)
}

/// Writes `x` over `weight`, which has as many elements and is held by nobody else.
pub fn cast_onto(gpu: &Gpu, x: &Tensor, weight: &mut Tensor) -> Result<()> {
    // A cast to the same type is a copy, which the pointwise kernels do.
    let family = if x.dtype() == weight.dtype() { &kernels::POINTWISE } else { cast_family(weight.dtype()) };
    map(gpu, family, x, Activation::None, weight.address()?)
}

pub fn stack(tensors: &[&Tensor], result: &mut TensorMut) -> Result<()> {
    let mut start = 0;
    for tensor in tensors {
        result.copy_on_device(start, tensor)?;
        start += tensor.shape().count();
    }
    Ok(())
}
