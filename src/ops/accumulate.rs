//! Adding gradients up on the device.

use rayon::prelude::*;

use super::elementwise::combine;
use super::host::math::vectorised;
use super::{Cx, Segments};
use crate::autograd::Gradients;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// What a backward does with the gradients it computes.
pub trait Accumulate {
    /// Adds `gradient` to what reached `value` so far; nothing happens when `value` is not differentiated.
    ///
    /// The gradient of a value has the value's element type and as many elements; that of packed weights is f32
    /// in the layout of checkpoints.
    fn add(&mut self, cx: &Cx, value: &Tensor, gradient: Tensor) -> Result<()>;

    /// True when the gradient of any tensor that `segments` reads is wanted.
    fn wants_any(&self, segments: &Segments) -> bool;
}

impl Accumulate for Gradients {
    fn add(&mut self, cx: &Cx, value: &Tensor, gradient: Tensor) -> Result<()> {
        if !self.wants(value) {
            return Ok(());
        }
        let sum = match self.take(value) {
            None => gradient,
            Some(before) => sum(cx, before, gradient)?,
        };
        self.put(value, sum);
        Ok(())
    }

    fn wants_any(&self, segments: &Segments) -> bool {
        segments.tensors().into_iter().any(|tensor| self.wants(tensor))
    }
}

/// `a + b`, in place of the one whose memory nobody else holds.
pub fn sum(cx: &Cx, mut a: Tensor, mut b: Tensor) -> Result<Tensor> {
    if a.shape().count() != b.shape().count() || a.dtype() != b.dtype() {
        return Err(Error::internal(format!(
            "gradients of {} {} and {} {} for one value",
            a.shape(),
            a.dtype().name(),
            b.shape(),
            b.dtype().name()
        )));
    }
    if !a.is_unshared() {
        std::mem::swap(&mut a, &mut b);
    }
    match cx.device() {
        Device::Cpu(_) if a.is_unshared() && a.dtype() == DType::F32 => {
            const BLOCK: usize = 1 << 14;
            let terms = b.host::<f32>()?.par_chunks(BLOCK);
            a.host_mut::<f32>()?.par_chunks_mut(BLOCK).zip(terms).for_each(|(sum, term)| {
                vectorised!({ sum.iter_mut().zip(term).for_each(|(s, t)| *s += t) });
            });
            Ok(a)
        }
        _ => combine(cx, &[(1.0, &a), (1.0, &b.reshape(a.shape())?)], 0.0),
    }
}
