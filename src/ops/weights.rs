//! Weights that an optimiser changes between two steps.

use super::Cx;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Writes the values of `master`, f32, over those of `weight`, rounded to its element type, in place.
///
/// # Errors
/// Another number of elements, or somebody still holds `weight`: a tape that was not run.
pub fn overwrite(cx: &Cx, weight: &mut Tensor, master: &Tensor) -> Result<()> {
    if weight.shape().count() != master.shape().count() {
        return Err(Error::internal(format!("{} is written over {}", master.shape(), weight.shape())));
    }
    match cx.device() {
        Device::Cpu(_) => weight.host_mut::<f32>()?.copy_from_slice(master.host()?),
        Device::Gpu(gpu) => {
            if !weight.is_unshared() {
                return Err(Error::internal("a tensor that others hold is written"));
            }
            super::elementwise::cast_onto(gpu, master, weight)?;
        }
        Device::Plan(_) => {}
    }
    Ok(())
}
