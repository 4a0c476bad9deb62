//! Sums over the rows of a matrix: the gradients of what was added to every row.

mod cpu;

pub(in crate::ops) use cpu::fold;

use super::Cx;
use super::gpu::no_gpu_kernel;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// `scale` times the sums of the rows of each of `groups` equal runs of rows: x [..., C] -> [groups, C], stored as
/// `dtype`, summed in f32 or better.
pub fn column_sums(cx: &Cx, x: &Tensor, groups: usize, scale: f32, dtype: DType) -> Result<Tensor> {
    let (rows, c) = (x.shape().rows(), x.shape().last());
    if groups == 0 || rows % groups != 0 {
        return Err(Error::internal(format!("{rows} rows in {groups} groups")));
    }
    let mut result = cx.allocate([groups, c], dtype)?;
    match cx.device() {
        Device::Cpu(_) => cpu::column_sums(x.host()?, c, rows / groups, scale, result.host_mut()?),
        Device::Gpu(_) => return Err(no_gpu_kernel("column_sums")),
        Device::Plan(_) => {}
    }
    Ok(result.freeze())
}
