//! Launches of kernels/attention.

use bytemuck::NoUninit;

use super::plan::{Forward, Setting};
use super::{Geometry, Heads};
use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::ops::gpu::aligned;
use crate::tensor::{DType, Tensor, TensorMut};

/// Mirrors Rows in kernels/attention/tiles.cuh.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct Rows {
    data: u64,
    rows: u32,
    stride: u32,
}

impl Rows {
    fn new(heads: &Heads) -> Result<Self> {
        let (tensor, shape) = (heads.tensor, heads.tensor.shape());
        let data = tensor.address()? + (heads.offset * tensor.dtype().size()) as u64;
        Ok(Rows { data, rows: shape[1] as u32, stride: shape[2] as u32 })
    }

    /// Whether every row of every head of `width` columns starts at a multiple of 16 bytes.
    fn aligned(&self, width: usize, dtype: DType) -> bool {
        let bytes = |columns: usize| (columns * dtype.size()) as u64;
        aligned([self.data, bytes(self.stride as usize), bytes(width)]) == 1
    }
}

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct AttentionParams {
    out: u64,
    sum_log: u64,
    q: Rows,
    k: Rows,
    v: Rows,
    heads: u32,
    width: u32,
    scale: f32,
    causal: u32,
}
const _: () = assert!(size_of::<AttentionParams>() == 80);

/// The factor of a score in the exponent of 2.
fn scale(g: &Geometry) -> f32 {
    std::f32::consts::LOG2_E / (g.width as f32).sqrt()
}

/// One element type for all, which the kernels need.
fn common_dtype(tensors: [&Tensor; 3]) -> Result<DType> {
    let dtype = tensors[0].dtype();
    match tensors.iter().find(|tensor| tensor.dtype() != dtype) {
        None => Ok(dtype),
        Some(other) => {
            Err(Error::internal(format!("attention of {} meets {}", dtype.name(), other.dtype().name())))
        }
    }
}

/// Attention, and the log-sum-exp of the scaled scores where it is wanted.
pub fn attention(
    gpu: &Gpu,
    g: &Geometry,
    (q, k, v): (Heads, Heads, Heads),
    result: &mut TensorMut,
    sum_log: Option<&mut TensorMut>,
) -> Result<()> {
    let dtype = common_dtype([q.tensor, k.tensor, v.tensor])?;
    let [q, k, v] = [Rows::new(&q)?, Rows::new(&k)?, Rows::new(&v)?];
    let out = result.address()?;
    let setting = Setting {
        dtype,
        aligned: [q, k, v].iter().all(|rows| rows.aligned(g.width, dtype)) && aligned([out]) == 1,
        multiprocessors: gpu.info().multiprocessors,
    };
    let kernel = Forward::choose(g, &setting);
    let params = AttentionParams {
        out,
        sum_log: sum_log.map_or(Ok(0), |tensor| tensor.address())?,
        q,
        k,
        v,
        heads: g.heads as u32,
        width: g.width as u32,
        scale: scale(g),
        causal: u32::from(g.causal),
    };
    // SAFETY: the op checked the operands' rows and columns against the geometry, the results have its shape,
    // and all are of the kernel's element type.
    unsafe { gpu.launch(kernel.family().of(dtype)?, kernel.grid(g)?, &params) }
}
