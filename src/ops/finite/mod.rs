//! Whether values are finite, gathered without waiting for the device.

mod cuda;

use rayon::prelude::*;

use super::Cx;
use super::host::element::{HostElement, with_element};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor, TensorMut};

/// A note for each of several tensors, asked for once.
#[derive(Debug)]
pub struct FiniteChecks {
    /// [places] in f32: 1 where a value was not finite
    flags: TensorMut,
}

impl FiniteChecks {
    /// Room for `places` notes.
    pub fn new(cx: &Cx, places: usize) -> Result<Self> {
        let mut flags = cx.allocate([places], DType::F32)?;
        flags.clear()?;
        Ok(FiniteChecks { flags })
    }

    /// Notes at `place` if `x` has a value that is not finite.
    ///
    /// # Errors
    /// There is no such place.
    pub fn note(&mut self, cx: &Cx, place: usize, x: &Tensor) -> Result<()> {
        if place >= self.flags.shape().count() {
            return Err(Error::internal(format!("there is no place {place} for a check")));
        }
        match cx.device() {
            Device::Cpu(_) => with_element!(x.dtype(), T => {
                if !x.host::<T>()?.par_iter().all(|value| value.wide().is_finite()) {
                    self.flags.host_mut::<f32>()?[place] = 1.0;
                }
                Ok(())
            }),
            Device::Gpu(gpu) => cuda::note(gpu, x, &mut self.flags, place),
            Device::Plan(_) => Ok(()),
        }
    }

    /// The first place with a value that is not finite. Waits for the device.
    pub fn first(self) -> Result<Option<usize>> {
        // Written so that a flag that is itself no number counts.
        Ok(self.flags.freeze().to_f32()?.iter().position(|&flag| flag != 0.0))
    }
}

/// True when all values of `x` are finite. Waits for the device.
pub fn is_finite(cx: &Cx, x: &Tensor) -> Result<bool> {
    let mut checks = FiniteChecks::new(cx, 1)?;
    checks.note(cx, 0, x)?;
    Ok(checks.first()?.is_none())
}
