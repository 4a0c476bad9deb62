//! Launches of kernels/norm/layer_norm_backward.cu.

use bytemuck::NoUninit;

use super::plan::Plan;
use crate::device::Gpu;
use crate::device::gpu::kernels;
use crate::error::{Error, Result};
use crate::ops::columns::{self, ColumnParams};
use crate::ops::gpu::{aligned, must_be_f32};
use crate::tensor::{Tensor, TensorMut};

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct LayerNormBackwardParams {
    out: u64,
    x: u64,
    gradient: u64,
    gamma: u64,
    statistics: u64,
    rows: u32,
    channels: u32,
    lanes: u32,
    eps: f32,
}
const _: () = assert!(size_of::<LayerNormBackwardParams>() == 56);

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct LayerNormWeightsParams {
    to_gamma: u64,
    to_beta: u64,
    x: u64,
    gradient: u64,
    statistics: u64,
    aligned: u32,
    pad: u32,
    columns: ColumnParams,
}
const _: () = assert!(size_of::<LayerNormWeightsParams>() == 88);

/// f32 that the gradients of the weights need: statistics of rows, then sums of slices.
pub fn scratch(rows: usize) -> [usize; 2] {
    [2 * rows, columns::scratch(rows, 2)]
}

/// The gradients of the weights, f32 [C], and the memory that they need, as [`scratch`] says.
pub struct Weights<'a> {
    pub gamma: &'a mut TensorMut,
    pub beta: &'a mut TensorMut,
    pub scratch: &'a mut [TensorMut; 2],
}

/// Fills dx, and where they are there the gradients of gamma and beta.
pub fn layer_norm(
    gpu: &Gpu,
    (x, gamma, eps): (&Tensor, &Tensor, f32),
    gradient: &Tensor,
    result: &mut TensorMut,
    weights: Option<Weights>,
) -> Result<()> {
    must_be_f32("a norm's weight", [gamma])?;
    let dtype = x.dtype();
    if gradient.dtype() != dtype {
        return Err(Error::internal(format!(
            "a gradient of {} for {}",
            gradient.dtype().name(),
            dtype.name()
        )));
    }
    let (rows, channels) = (x.shape().rows(), x.shape().last());
    let addresses = [result.address()?, x.address()?, gradient.address()?, gamma.address()?];
    let plan = Plan::new(rows, channels, aligned(addresses) == 1)?;
    let [out, input, from, gamma] = addresses;
    let mut weights = weights;
    let statistics = weights.as_mut().map_or(Ok(0), |weights| weights.scratch[0].address())?;
    let params = LayerNormBackwardParams {
        out,
        x: input,
        gradient: from,
        gamma,
        statistics,
        rows: rows as u32,
        channels: channels as u32,
        lanes: plan.lanes.unwrap_or(0),
        eps,
    };
    // SAFETY: result and gradient have the shape and type of `x`, gamma its channels, the statistics its rows.
    unsafe { gpu.launch(plan.backward_family().of(dtype)?, plan.grid, &params)? };
    let Some(Weights { gamma: to_gamma, beta: to_beta, scratch: [_, partial] }) = weights else {
        return Ok(());
    };
    if rows == 0 {
        to_gamma.clear()?;
        return to_beta.clear();
    }
    let launch = columns::launch(gpu, [1, rows, channels], 2, partial)?;
    let params = LayerNormWeightsParams {
        to_gamma: to_gamma.address()?,
        to_beta: to_beta.address()?,
        x: input,
        gradient: from,
        statistics,
        aligned: u32::from(channels % 8 == 0) & aligned([input, from]),
        pad: 0,
        columns: launch.params,
    };
    // SAFETY: as above; the launch before this one wrote the statistics.
    unsafe { gpu.launch(kernels::LAYER_NORM_WEIGHTS.of(dtype)?, launch.grid, &params) }
}
