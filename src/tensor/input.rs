//! What recorded work reads at a fixed address, replaced between its replays.

use super::{DType, Shape, Tensor, TensorMut};
use crate::device::{Device, Purpose};
use crate::error::{Error, Result};

/// Memory whose content is replaced in the order of a GPU's work.
#[derive(Debug)]
pub struct Input(Tensor);

impl Input {
    /// Room for `shape`; unwritten.
    ///
    /// # Errors
    /// Memory that runs out.
    pub fn new(device: &Device, shape: impl Into<Shape>, dtype: DType) -> Result<Self> {
        TensorMut::allocate(device, shape, dtype, Purpose::Activation).map(|made| Input(made.freeze()))
    }

    /// The content, whatever it is when work that reads it is done.
    pub fn tensor(&self) -> &Tensor {
        &self.0
    }

    /// Replaces the content by that of `value`, which lies on the same GPU.
    ///
    /// # Errors
    /// `value` has another shape or type, or is this very memory.
    pub fn set(&self, value: &Tensor) -> Result<()> {
        let own = &self.0;
        if value.shape() != own.shape() || value.dtype() != own.dtype() {
            return Err(Error::internal(format!("{} cannot replace {}", value.shape(), own.shape())));
        }
        if std::sync::Arc::ptr_eq(&own.storage, &value.storage) {
            return Err(Error::internal("an input is replaced by itself"));
        }
        let (size, bytes) = (own.dtype.size(), own.shape.count() * own.dtype.size());
        // SAFETY: the allocations are different, as was just checked.
        unsafe { own.storage.overwrite(own.offset * size, &value.storage, value.offset * size, bytes) }
    }
}
