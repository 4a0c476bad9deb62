//! Launches of kernels/elementwise/diffusion.cu.

use bytemuck::NoUninit;

use super::StepCoefficients;
use crate::device::Gpu;
use crate::device::gpu::kernels;
use crate::error::Result;
use crate::ops::elementwise::plan::grid;
use crate::ops::gpu::{address_or_null, must_be_f32};
use crate::tensor::{DType, Tensor, TensorMut};

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct DdpmStepParams {
    out: u64,
    x: u64,
    eps: u64,
    noise: u64,
    count: u64,
    x0_from_x: f32,
    x0_from_noise: f32,
    mean_from_x0: f32,
    mean_from_x: f32,
    deviation: f32,
    pad: u32,
}
const _: () = assert!(size_of::<DdpmStepParams>() == 64);

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct PosteriorParams {
    out: u64,
    moments: u64,
    noise: u64,
    count: u64,
    channels: u32,
    scale: f32,
}
const _: () = assert!(size_of::<PosteriorParams>() == 40);

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct PosteriorGradientParams {
    out: u64,
    moments: u64,
    gradient: u64,
    noise: u64,
    count: u64,
    channels: u32,
    scale: f32,
    divergence: f32,
    pad: u32,
}
const _: () = assert!(size_of::<PosteriorGradientParams>() == 56);

pub fn ddpm_step(
    gpu: &Gpu,
    [x, eps, noise]: [&Tensor; 3],
    step: &StepCoefficients,
    result: &mut TensorMut,
) -> Result<()> {
    must_be_f32("a latent", [x, noise])?;
    let count = x.shape().count();
    let params = DdpmStepParams {
        out: result.address()?,
        x: x.address()?,
        eps: eps.address()?,
        noise: noise.address()?,
        count: count as u64,
        x0_from_x: step.x0_from_x,
        x0_from_noise: step.x0_from_noise,
        mean_from_x0: step.mean_from_x0,
        mean_from_x: step.mean_from_x,
        deviation: step.deviation,
        pad: 0,
    };
    // SAFETY: all four are of one shape (checked by the op), f32 but for eps, whose kernel is taken.
    unsafe { gpu.launch(kernels::DDPM_STEP.of(eps.dtype())?, grid(count, 1)?, &params) }
}

pub fn posterior(
    gpu: &Gpu,
    moments: &Tensor,
    noise: Option<&Tensor>,
    scale: f32,
    result: &mut TensorMut,
) -> Result<()> {
    must_be_f32("a latent", noise)?;
    let shape = result.shape();
    let params = PosteriorParams {
        out: result.address()?,
        moments: moments.address()?,
        noise: address_or_null(noise)?,
        count: shape.count() as u64,
        channels: shape.last() as u32,
        scale,
    };
    // SAFETY: the op checked that the moments have twice the result's channels and the noise its shape.
    unsafe { gpu.launch(kernels::POSTERIOR.of(moments.dtype())?, grid(shape.count(), 1)?, &params) }
}

/// Fills `result`, shaped like `moments`; `gradient` and `noise` are of the latent.
pub fn posterior_gradient(
    gpu: &Gpu,
    moments: &Tensor,
    [gradient, noise]: [Option<&Tensor>; 2],
    [scale, divergence]: [f32; 2],
    result: &mut TensorMut,
) -> Result<()> {
    must_be_f32("moments and what belongs to them", [Some(moments), gradient, noise].into_iter().flatten())?;
    let channels = result.shape().last() / 2;
    let count = result.shape().count() / 2;
    let params = PosteriorGradientParams {
        out: result.address()?,
        moments: moments.address()?,
        gradient: address_or_null(gradient)?,
        noise: address_or_null(noise)?,
        count: count as u64,
        channels: channels as u32,
        scale,
        divergence,
        pad: 0,
    };
    // SAFETY: the op checked that gradient and noise have half of the moments' elements.
    unsafe { gpu.launch(kernels::POSTERIOR_GRADIENT.of(DType::F32)?, grid(count, 1)?, &params) }
}
