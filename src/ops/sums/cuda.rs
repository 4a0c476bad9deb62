//! The launch of column_sums in kernels/elementwise/backward.cu.

use bytemuck::NoUninit;

use crate::device::Gpu;
use crate::device::gpu::kernels;
use crate::error::{Error, Result};
use crate::ops::columns::{self, ColumnParams};
use crate::ops::gpu::aligned;
use crate::tensor::{DType, Tensor, TensorMut};

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct ColumnSumsParams {
    out: u64,
    x: u64,
    scale: f32,
    out_f32: u32,
    aligned: u32,
    pad: u32,
    columns: ColumnParams,
}
const _: () = assert!(size_of::<ColumnSumsParams>() == 72);

/// f32 of scratch for groups of `rows` rows.
pub fn scratch(rows: usize) -> usize {
    columns::scratch(rows, 1)
}

/// Fills `result` [groups, C], of the type of `x` or f32.
pub fn column_sums(
    gpu: &Gpu,
    x: &Tensor,
    scale: f32,
    result: &mut TensorMut,
    scratch: &mut TensorMut,
) -> Result<()> {
    let (groups, c) = (result.shape()[0], x.shape().last());
    if ![x.dtype(), DType::F32].contains(&result.dtype()) {
        return Err(Error::internal(format!(
            "sums of {} stored as {}",
            x.dtype().name(),
            result.dtype().name()
        )));
    }
    let rows = x.shape().rows() / groups.max(1);
    if rows == 0 {
        return result.clear();
    }
    let launch = columns::launch(gpu, [groups, rows, c], 1, scratch)?;
    let from = x.address()?;
    let params = ColumnSumsParams {
        out: result.address()?,
        x: from,
        scale,
        out_f32: u32::from(result.dtype() == DType::F32),
        aligned: u32::from(c % 8 == 0) & aligned([from]),
        pad: 0,
        columns: launch.params,
    };
    // SAFETY: `x` has `groups` times `rows` rows, the result a row for each group.
    unsafe { gpu.launch(kernels::COLUMN_SUMS.of(x.dtype())?, launch.grid, &params) }
}
