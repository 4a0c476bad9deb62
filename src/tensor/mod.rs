//! Tensors: a shape, an element type and shared memory on a device. Always contiguous, NHWC.

mod dtype;
mod shape;

use std::sync::Arc;

pub use dtype::{DType, Element};
pub use shape::Shape;

use crate::device::{Device, Purpose, Storage};
use crate::error::{Error, Result};

/// Names a value on the tape of a computation that is differentiated.
pub type NodeId = usize;

/// A read-only array on a device. Cloning shares the memory.
#[derive(Clone, Debug)]
pub struct Tensor {
    storage: Arc<Storage>,
    /// first element, in elements
    offset: usize,
    shape: Shape,
    dtype: DType,
    node: Option<NodeId>,
}

impl Tensor {
    /// A tensor over existing memory.
    ///
    /// # Errors
    /// The memory is too small for `shape`.
    pub fn from_storage(storage: Storage, shape: impl Into<Shape>, dtype: DType) -> Result<Self> {
        let shape = shape.into();
        if storage.len() < shape.count() * dtype.size() {
            return Err(Error::internal(format!(
                "{} bytes cannot hold {shape} of {}",
                storage.len(),
                dtype.name()
            )));
        }
        Ok(Tensor { storage: Arc::new(storage), offset: 0, shape, dtype, node: None })
    }

    /// Copies `values` (row-major) to activation memory of `device` as f32. A planning device takes none.
    pub fn from_f32(device: &Device, values: &[f32], shape: impl Into<Shape>) -> Result<Self> {
        Self::upload(device, values, shape.into(), Purpose::Activation)
    }

    /// As [`Tensor::from_f32`], in memory that lives as long as a model.
    pub fn weight_from_f32(device: &Device, values: &[f32], shape: impl Into<Shape>) -> Result<Self> {
        Self::upload(device, values, shape.into(), Purpose::Weight)
    }

    fn upload(device: &Device, values: &[f32], shape: Shape, purpose: Purpose) -> Result<Self> {
        let mut made = TensorMut::allocate(device, shape, DType::F32, purpose)?;
        if !device.is_plan() {
            if values.len() != shape.count() {
                return Err(Error::internal(format!("{} values cannot fill {shape}", values.len())));
            }
            made.host_mut::<f32>()?.copy_from_slice(values);
        }
        Ok(made.freeze())
    }

    pub fn shape(&self) -> Shape {
        self.shape
    }

    pub fn dtype(&self) -> DType {
        self.dtype
    }

    pub fn device(&self) -> &Device {
        self.storage.device()
    }

    /// [N, H, W, C] of an image tensor.
    ///
    /// # Errors
    /// The tensor has not four axes.
    pub fn nhwc(&self) -> Result<[usize; 4]> {
        self.shape
            .to_vec()
            .try_into()
            .map_err(|_| Error::internal(format!("{} is not [N, H, W, C]", self.shape)))
    }

    /// The elements, when they lie in host memory as `T`.
    pub fn host<T: Element>(&self) -> Result<&[T]> {
        if T::DTYPE != self.dtype {
            return Err(Error::internal(format!(
                "tensor is {}, read as {}",
                self.dtype.name(),
                T::DTYPE.name()
            )));
        }
        let bytes = self.storage.host().ok_or_else(|| Error::internal("tensor is not in host memory"))?;
        let start = self.offset * T::DTYPE.size();
        bytemuck::try_cast_slice(&bytes[start..start + self.shape.count() * T::DTYPE.size()])
            .map_err(|_| Error::internal("tensor is not aligned"))
    }

    /// A copy of the elements as f32 on the host, row-major.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        if self.device().is_plan() {
            return Ok(vec![0.0; self.shape.count()]);
        }
        Ok(match self.dtype {
            DType::F32 => self.host::<f32>()?.to_vec(),
            DType::F16 => self.host::<half::f16>()?.iter().map(|v| v.to_f32()).collect(),
            DType::BF16 => self.host::<half::bf16>()?.iter().map(|v| v.to_f32()).collect(),
        })
    }

    /// The same elements under another shape.
    pub fn reshape(&self, shape: impl Into<Shape>) -> Result<Self> {
        let shape = shape.into();
        if shape.count() != self.shape.count() {
            return Err(Error::internal(format!("{} cannot be seen as {shape}", self.shape)));
        }
        Ok(Tensor { shape, ..self.clone() })
    }

    /// Rows `start..start + count` of the slowest axis, sharing the memory.
    pub fn narrow(&self, start: usize, count: usize) -> Result<Self> {
        let whole = self.shape.first().copied().unwrap_or(0);
        if start + count > whole {
            return Err(Error::internal(format!("rows {start}..{} of {}", start + count, self.shape)));
        }
        let row = self.shape.count() / whole.max(1);
        let mut sizes = [1; 4];
        sizes[..self.shape.len()].copy_from_slice(&self.shape);
        sizes[0] = count;
        let shape = match self.shape.len() {
            1 => Shape::from([sizes[0]]),
            2 => Shape::from([sizes[0], sizes[1]]),
            3 => Shape::from([sizes[0], sizes[1], sizes[2]]),
            _ => Shape::from(sizes),
        };
        Ok(Tensor { offset: self.offset + start * row, shape, ..self.clone() })
    }

    /// The value's place on the tape, when it is differentiated.
    pub fn node(&self) -> Option<NodeId> {
        self.node
    }

    /// The same memory as value `node` of a tape.
    pub fn with_node(&self, node: Option<NodeId>) -> Self {
        Tensor { node, ..self.clone() }
    }
}

/// A tensor being written: owned by one, then frozen.
#[derive(Debug)]
pub struct TensorMut {
    storage: Storage,
    shape: Shape,
    dtype: DType,
}

impl TensorMut {
    /// Memory for `shape`; its content is unspecified.
    pub fn allocate(
        device: &Device,
        shape: impl Into<Shape>,
        dtype: DType,
        purpose: Purpose,
    ) -> Result<Self> {
        let shape = shape.into();
        let storage = device.allocate(shape.count() * dtype.size(), purpose)?;
        Ok(TensorMut { storage, shape, dtype })
    }

    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The elements for writing.
    pub fn host_mut<T: Element>(&mut self) -> Result<&mut [T]> {
        if T::DTYPE != self.dtype {
            return Err(Error::internal(format!(
                "tensor is {}, written as {}",
                self.dtype.name(),
                T::DTYPE.name()
            )));
        }
        let count = self.shape.count() * T::DTYPE.size();
        let bytes = self.storage.host_mut().ok_or_else(|| Error::internal("tensor is not in host memory"))?;
        bytemuck::try_cast_slice_mut(&mut bytes[..count])
            .map_err(|_| Error::internal("tensor is not aligned"))
    }

    /// Ends the writing.
    pub fn freeze(self) -> Tensor {
        Tensor {
            storage: Arc::new(self.storage),
            offset: 0,
            shape: self.shape,
            dtype: self.dtype,
            node: None,
        }
    }
}
