//! Launches of kernels/elementwise/backward.cu.

use bytemuck::NoUninit;

use super::plan::{VECTOR, grid};
use crate::device::Gpu;
use crate::device::gpu::kernels;
use crate::error::{Error, Result};
use crate::ops::Activation;
use crate::ops::gpu::{activation_code, aligned};
use crate::tensor::{Tensor, TensorMut};

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct PointwiseGradientParams {
    out: u64,
    x: u64,
    gradient: u64,
    count: u64,
    activation: u32,
    slope: f32,
    aligned: u32,
    pad: u32,
}
const _: () = assert!(size_of::<PointwiseGradientParams>() == 48);

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct SliceChannelsParams {
    out: u64,
    x: u64,
    vectors: u64,
    channels: u32,
    first: u32,
    count: u32,
    aligned: u32,
}
const _: () = assert!(size_of::<SliceChannelsParams>() == 40);

/// Fills `result` with `gradient * activation'(x)`.
pub fn pointwise_gradient(
    gpu: &Gpu,
    x: &Tensor,
    gradient: &Tensor,
    activation: Activation,
    result: &mut TensorMut,
) -> Result<()> {
    if gradient.dtype() != x.dtype() || gradient.shape().count() != x.shape().count() {
        return Err(Error::internal(format!("a gradient {} for {}", gradient.shape(), x.shape())));
    }
    let (out, input, from, count) = (result.address()?, x.address()?, gradient.address()?, x.shape().count());
    let (activation, slope) = activation_code(activation);
    let params = PointwiseGradientParams {
        out,
        x: input,
        gradient: from,
        count: count as u64,
        activation,
        slope,
        aligned: aligned([out, input, from]),
        pad: 0,
    };
    // SAFETY: all three hold `count` elements of one type.
    unsafe { gpu.launch(kernels::POINTWISE_GRADIENT.of(x.dtype())?, grid(count, VECTOR)?, &params) }
}

/// Fills `result` [..., count] with the channels of `x` from `first` on.
pub fn slice_channels(gpu: &Gpu, x: &Tensor, first: usize, result: &mut TensorMut) -> Result<()> {
    let (rows, channels, count) = (x.shape().rows(), x.shape().last(), result.shape().last());
    let (out, from, vectors) = (result.address()?, x.address()?, rows * count.div_ceil(VECTOR));
    let whole = [channels, first, count].iter().all(|size| size.is_multiple_of(VECTOR));
    let params = SliceChannelsParams {
        out,
        x: from,
        vectors: vectors as u64,
        channels: channels as u32,
        first: first as u32,
        count: count as u32,
        aligned: u32::from(whole) & aligned([out, from]),
    };
    // SAFETY: the op checked that the channels are there; the result has the rows of `x`.
    unsafe { gpu.launch(kernels::SLICE_CHANNELS.of(x.dtype())?, grid(vectors, 1)?, &params) }
}
