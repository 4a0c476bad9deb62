//! Tensors: a shape, an element type and shared memory on a device. Always contiguous, NHWC.

mod input;
mod shape;

use std::sync::Arc;

use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

pub use crate::device::{DType, Element};
pub use input::Input;
pub use shape::Shape;

use crate::device::{Device, Purpose, Storage};
use crate::error::{Error, Result};

/// Elements that one thread converts at a time.
const CHUNK: usize = 1 << 16;

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
        Self::from_f32_as(device, values, shape, DType::F32, Purpose::Activation)
    }

    /// As [`Tensor::from_f32`], in memory that lives as long as a model.
    pub fn weight_from_f32(device: &Device, values: &[f32], shape: impl Into<Shape>) -> Result<Self> {
        Self::from_f32_as(device, values, shape, DType::F32, Purpose::Weight)
    }

    /// Copies `values` (row-major) to `device`, rounded to `dtype`. A planning device takes none.
    pub fn from_f32_as(
        device: &Device,
        values: &[f32],
        shape: impl Into<Shape>,
        dtype: DType,
        purpose: Purpose,
    ) -> Result<Self> {
        let mut made = TensorMut::allocate(device, shape, dtype, purpose)?;
        made.write_f32(values)?;
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

    /// True when nobody else holds the memory, so that it may be written.
    pub fn is_unshared(&mut self) -> bool {
        self.offset == 0 && Arc::get_mut(&mut self.storage).is_some()
    }

    /// The elements for writing in place, when nobody else holds the memory: sums of gradients, and weights
    /// between two steps of a training.
    pub fn host_mut<T: Element>(&mut self) -> Result<&mut [T]> {
        let count = self.shape.count() * T::DTYPE.size();
        if T::DTYPE != self.dtype || self.offset != 0 {
            return Err(Error::internal(format!("a tensor of {} cannot be written", self.dtype.name())));
        }
        let storage = Arc::get_mut(&mut self.storage)
            .ok_or_else(|| Error::internal("a tensor that others hold is written"))?;
        let bytes = storage.host_mut().ok_or_else(|| Error::internal("tensor is not in host memory"))?;
        bytemuck::try_cast_slice_mut(&mut bytes[..count])
            .map_err(|_| Error::internal("tensor is not aligned"))
    }

    /// The same memory, known to be a constant.
    pub fn detached(&self) -> Self {
        self.with_node(None)
    }

    /// A copy of the elements as f32 on the host, row-major.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        if self.device().is_plan() {
            return Ok(vec![0.0; self.shape.count()]);
        }
        let count = self.shape.count();
        fn read<T: Element>(tensor: &Tensor, count: usize) -> Result<Vec<T>> {
            let mut values = vec![T::zeroed(); count];
            let start = tensor.offset * T::DTYPE.size();
            tensor.storage.read(start, bytemuck::cast_slice_mut(&mut values))?;
            Ok(values)
        }
        Ok(match self.dtype {
            DType::F32 => read(self, count)?,
            DType::F16 => read::<half::f16>(self, count)?.iter().map(|v| v.to_f32()).collect(),
            DType::BF16 => read::<half::bf16>(self, count)?.iter().map(|v| v.to_f32()).collect(),
        })
    }

    /// The device address of the first element, for a kernel's params.
    ///
    /// # Errors
    /// The tensor is not on a GPU.
    pub fn address(&self) -> Result<u64> {
        let start =
            self.storage.address().ok_or_else(|| Error::internal("tensor is not in device memory"))?;
        Ok(start + (self.offset * self.dtype.size()) as u64)
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
    ///
    /// # Errors
    /// There are fewer rows, or the tensor is a value of a tape: its gradient would be lost.
    pub fn narrow(&self, start: usize, count: usize) -> Result<Self> {
        if self.node.is_some() {
            return Err(Error::internal("rows of a value that is differentiated"));
        }
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

    /// `shape` elements from element `start` on, sharing the memory.
    ///
    /// # Errors
    /// They leave the tensor, or it is a value of a tape: its gradient would be lost.
    pub fn slice(&self, start: usize, shape: impl Into<Shape>) -> Result<Self> {
        let shape = shape.into();
        if self.node.is_some() {
            return Err(Error::internal("a piece of a value that is differentiated"));
        }
        if start + shape.count() > self.shape.count() {
            return Err(Error::internal(format!("{shape} from {start} on, of {}", self.shape)));
        }
        Ok(Tensor { offset: self.offset + start, shape, ..self.clone() })
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

    /// The device address of the first element, for a kernel's params.
    ///
    /// # Errors
    /// The tensor is not on a GPU.
    pub fn address(&mut self) -> Result<u64> {
        self.storage.address().ok_or_else(|| Error::internal("tensor is not in device memory"))
    }

    /// Writes all elements from f32 on the host, rounded to the tensor's type; nothing on a plan device.
    pub fn write_f32(&mut self, values: &[f32]) -> Result<()> {
        if self.storage.device().is_plan() {
            return Ok(());
        }
        if values.len() != self.shape.count() {
            return Err(Error::internal(format!("{} values cannot fill {}", values.len(), self.shape)));
        }
        fn narrow<T: Element>(values: &[f32], piece: &mut [u8], of: impl Fn(&[f32], &mut [T]) + Sync) {
            // Memory from an allocator or a driver is aligned for any element.
            let out: &mut [T] = bytemuck::cast_slice_mut(piece);
            out.par_chunks_mut(CHUNK).zip(values.par_chunks(CHUNK)).for_each(|(out, values)| of(values, out));
        }
        if values.is_empty() {
            // No memory, which then has no alignment either.
            return Ok(());
        }
        let (dtype, bytes) = (self.dtype, values.len() * self.dtype.size());
        self.storage.write_with(0, bytes, &mut |at, piece| {
            let values = &values[at / dtype.size()..][..piece.len() / dtype.size()];
            match dtype {
                DType::F32 => narrow::<f32>(values, piece, |values, out| out.copy_from_slice(values)),
                DType::F16 => narrow::<half::f16>(values, piece, |v, out| out.convert_from_f32_slice(v)),
                DType::BF16 => narrow::<half::bf16>(values, piece, |v, out| out.convert_from_f32_slice(v)),
            }
        })
    }

    /// Sets every element to zero.
    pub fn clear(&mut self) -> Result<()> {
        self.storage.clear()
    }

    /// Copies all of `source` to the elements from `start` on, both on one GPU and of one type.
    pub fn copy_on_device(&mut self, start: usize, source: &Tensor) -> Result<()> {
        if source.dtype != self.dtype {
            return Err(Error::internal(format!("{} copied to {}", source.dtype.name(), self.dtype.name())));
        }
        let size = self.dtype.size();
        let (to, from) = (start * size, source.offset * size);
        self.storage.copy_on_device(to, &source.storage, from, source.shape.count() * size)
    }

    pub fn dtype(&self) -> DType {
        self.dtype
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
