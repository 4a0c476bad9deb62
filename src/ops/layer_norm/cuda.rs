//! Launches of kernels/norm/layer_norm.cu.

use bytemuck::NoUninit;

use super::plan::Plan;
use crate::device::Gpu;
use crate::error::Result;
use crate::ops::gpu::{aligned, must_be_f32};
use crate::tensor::{Tensor, TensorMut};

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct LayerNormParams {
    out: u64,
    x: u64,
    gamma: u64,
    beta: u64,
    rows: u32,
    channels: u32,
    lanes: u32,
    eps: f32,
}
const _: () = assert!(size_of::<LayerNormParams>() == 48);

pub fn layer_norm(
    gpu: &Gpu,
    x: &Tensor,
    [gamma, beta]: [&Tensor; 2],
    eps: f32,
    result: &mut TensorMut,
) -> Result<()> {
    must_be_f32("a norm's weight", [gamma, beta])?;
    let (rows, channels) = (x.shape().rows(), x.shape().last());
    let addresses = [result.address()?, x.address()?, gamma.address()?, beta.address()?];
    let plan = Plan::new(rows, channels, aligned(addresses) == 1)?;
    let [out, input, gamma, beta] = addresses;
    let params = LayerNormParams {
        out,
        x: input,
        gamma,
        beta,
        rows: rows as u32,
        channels: channels as u32,
        lanes: plan.lanes.unwrap_or(0),
        eps,
    };
    // SAFETY: the result has the shape and type of `x`, the weights its channels.
    unsafe { gpu.launch(plan.family().of(x.dtype())?, plan.grid, &params) }
}
