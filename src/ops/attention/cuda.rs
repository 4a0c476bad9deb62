//! Launches of kernels/attention, or of its like for sm_90a.

use bytemuck::NoUninit;

use super::backward::{Place, Saved};
use super::plan::{Backward, Forward, Pass, Setting, products_grid};
use super::{Geometry, Heads, sm90};
use crate::device::Gpu;
use crate::device::gpu::kernels;
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

    /// The rows of a gradient, or none where it is not wanted.
    fn target(tensors: &mut [TensorMut], place: Option<Place>) -> Result<Self> {
        let Some(Place { tensor, offset }) = place else { return Ok(Rows { data: 0, rows: 0, stride: 0 }) };
        let (shape, size) = (tensors[tensor].shape(), tensors[tensor].dtype().size());
        let data = tensors[tensor].address()? + (offset * size) as u64;
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

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct BackwardParams {
    q: Rows,
    k: Rows,
    v: Rows,
    gradient: Rows,
    first: Rows,
    second: Rows,
    sum_log: u64,
    products: u64,
    heads: u32,
    width: u32,
    scale: f32,
    causal: u32,
}
const _: () = assert!(size_of::<BackwardParams>() == 128);

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct ProductsParams {
    products: u64,
    out: u64,
    gradient: u64,
    count: u64,
    l: u32,
    heads: u32,
    width: u32,
    pad: u32,
}
const _: () = assert!(size_of::<ProductsParams>() == 48);

/// The factor of a score in the exponent of 2.
fn scale(g: &Geometry) -> f32 {
    std::f32::consts::LOG2_E / (g.width as f32).sqrt()
}

/// One element type for all, which the kernels need.
fn common_dtype(tensors: &[&Tensor]) -> Result<DType> {
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
    let dtype = common_dtype(&[q.tensor, k.tensor, v.tensor])?;
    let operands = [q, k, v];
    let [q, k, v] = [Rows::new(&q)?, Rows::new(&k)?, Rows::new(&v)?];
    let out = result.address()?;
    let sum_log = sum_log.map_or(Ok(0), |tensor| tensor.address())?;
    let setting = Setting {
        dtype,
        aligned: [q, k, v].iter().all(|rows| rows.aligned(g.width, dtype)) && aligned([out]) == 1,
        multiprocessors: gpu.info().multiprocessors,
    };
    let kernel = Forward::choose(g, &setting);
    if sm90::suits(gpu, g, kernel, &operands)? {
        return sm90::attention(gpu, g, operands, scale(g), dtype, result, sum_log);
    }
    let params = AttentionParams {
        out,
        sum_log,
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

/// Writes the gradients that have a place in `tensors`; `products` is scratch, f32 [n, heads, l].
pub fn backward(
    gpu: &Gpu,
    saved: &Saved,
    gradient: &Tensor,
    products: &mut TensorMut,
    (tensors, places): (&mut [TensorMut], [Option<Place>; 3]),
) -> Result<()> {
    let (g, heads) = (&saved.geometry, saved.heads());
    let [q, k, v] = heads.map(|heads| heads.tensor);
    let dtype = common_dtype(&[q, k, v, gradient])?;
    let products = products.address()?;
    let params = ProductsParams {
        products,
        out: saved.result.address()?,
        gradient: gradient.address()?,
        count: (g.n * g.l * g.heads) as u64,
        l: g.l as u32,
        heads: g.heads as u32,
        width: g.width as u32,
        pad: 0,
    };
    // SAFETY: the result and its gradient are [n, l, heads * width] of the kernel's element type.
    unsafe { gpu.launch(kernels::ATTENTION_PRODUCTS.of(dtype)?, products_grid(g)?, &params)? };
    let [q, k, v] = [Rows::new(&heads[0])?, Rows::new(&heads[1])?, Rows::new(&heads[2])?];
    let gradient = Rows::new(&Heads::new(gradient, 0))?;
    let [dq, dk, dv] = [0, 1, 2].map(|i| Rows::target(tensors, places[i]));
    let (dq, dk, dv) = (dq?, dk?, dv?);
    let setting = Setting {
        dtype,
        aligned: [q, k, v, gradient, dq, dk, dv].iter().all(|rows| rows.aligned(g.width, dtype)),
        multiprocessors: gpu.info().multiprocessors,
    };
    let none = Rows { data: 0, rows: 0, stride: 0 };
    for (pass, first, second) in [(Pass::Queries, dq, none), (Pass::Keys, dk, dv)] {
        if first.data == 0 && second.data == 0 {
            continue;
        }
        let params = BackwardParams {
            q,
            k,
            v,
            gradient,
            first,
            second,
            sum_log: saved.sum_log.address()?,
            products,
            heads: g.heads as u32,
            width: g.width as u32,
            scale: scale(g),
            causal: u32::from(g.causal),
        };
        let kernel = Backward::choose(g, pass, &setting);
        // SAFETY: the forward pass checked the operands, the gradients have their shapes, the result's gradient
        // and the statistics the result's, and all but these are of the kernel's element type.
        unsafe { gpu.launch(kernel.family(pass).of(dtype)?, kernel.grid(g, pass)?, &params)? };
    }
    Ok(())
}
