//! Sums over the rows of a matrix: the gradients of what was added to every row.

mod cpu;
mod cuda;

pub(in crate::ops) use cpu::fold;

use super::elementwise::cast;
use super::{Cx, widened};
use crate::device::{Device, Target};
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// `scale` times the sums of the rows of each of `groups` equal runs of rows: x [..., C] -> [groups, C], stored as
/// `dtype`, summed in f32 or better.
pub fn column_sums(cx: &Cx, x: &Tensor, groups: usize, scale: f32, dtype: DType) -> Result<Tensor> {
    let (rows, c) = (x.shape().rows(), x.shape().last());
    if groups == 0 || rows % groups != 0 {
        return Err(Error::internal(format!("{rows} rows in {groups} groups")));
    }
    if widened::applies(cx, x.dtype()) || widened::applies(cx, dtype) {
        let found = column_sums(cx, &widened::wide(cx, x)?, groups, scale, DType::F32)?;
        return cast(cx, &found, dtype);
    }
    let mut result = cx.allocate([groups, c], dtype)?;
    let scratch = match cx.device().target() {
        Target::Cpu => 0,
        Target::Gpu => cuda::scratch(rows / groups),
    };
    let mut scratch = cx.allocate([scratch], DType::F32)?;
    match cx.device() {
        Device::Cpu(_) => cpu::column_sums(x.host()?, c, rows / groups, scale, result.host_mut()?),
        Device::Gpu(gpu) => cuda::column_sums(gpu, x, scale, &mut result, &mut scratch)?,
        Device::Plan(_) => {}
    }
    Ok(result.freeze())
}
