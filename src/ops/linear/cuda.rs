//! Launches of kernels/gemm/gemm.cu, or of its like for sm_90a.

use bytemuck::NoUninit;

use super::LinearWeight;
use super::plan::{Engine, Product};
use super::sm90;
use crate::device::Gpu;
use crate::device::gpu::LibraryProduct;
use crate::error::{Error, Result};
use crate::ops::gpu::{EpilogueParams, aligned};
use crate::ops::{Activation, Epilogue};
use crate::tensor::{Tensor, TensorMut};

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct GemmParams {
    out: u64,
    a: u64,
    b: u64,
    m: u32,
    n: u32,
    k: u32,
    aligned: u32,
    epilogue: EpilogueParams,
}
const _: () = assert!(size_of::<GemmParams>() == 88);

/// `epilogue(x . weight^T)`, gated or not, by the kernels of sm_90a where there is scratch for them.
pub fn linear(
    gpu: &Gpu,
    x: &Tensor,
    weight: &LinearWeight,
    (epilogue, gated): (&Epilogue, bool),
    specialised: Option<&Tensor>,
    result: &mut TensorMut,
) -> Result<()> {
    let dtype = x.dtype();
    if weight.packed.dtype() != dtype {
        let other = weight.packed.dtype().name();
        return Err(Error::internal(format!("a linear layer of {} meets weights of {other}", dtype.name())));
    }
    let product = Product::of(x, weight, gated);
    let Product { m, n, k, .. } = product;
    let images = x.shape()[0].max(1);
    let columns = result.shape().last();
    let plain =
        epilogue.tensors().is_empty() && epilogue.activation == Activation::None && epilogue.scale == 1.0;
    if gpu.has_library() && product.engine(plain, specialised.is_some()) == Engine::Library {
        return library(gpu, x, weight, result);
    }
    let epilogue = EpilogueParams::new(epilogue, result.address()?, columns, (m / images).max(1), dtype)?;
    if let Some(scratch) = specialised {
        return sm90::linear(gpu, &product, [x, &weight.packed], epilogue, scratch, result);
    }
    let plan = product.plan(gpu.info().multiprocessors)?;
    let (out, a, b) = (result.address()?, x.address()?, weight.packed.address()?);
    let params = GemmParams {
        out,
        a,
        b,
        m: m as u32,
        n: n as u32,
        k: k as u32,
        aligned: aligned([a, b, (k * dtype.size()) as u64]),
        epilogue,
    };
    // SAFETY: the op checked every shape against the result, and all are of the kernel's element type.
    unsafe { gpu.launch(plan.family(gated).of(dtype)?, plan.grid, &params) }
}

/// `x . weight^T` by the vendor's library.
pub fn library(gpu: &Gpu, x: &Tensor, weight: &LinearWeight, result: &mut TensorMut) -> Result<()> {
    let Product { m, n, k, dtype, .. } = Product::of(x, weight, false);
    let (a, b, out) = (x.address()?, weight.packed.address()?, result.address()?);
    let product = LibraryProduct { dtype, m, n, k, a, b, out };
    // SAFETY: x [m, k], weights [n, k] and the result [m, n] are of one type, and the result is fresh memory.
    unsafe { gpu.library_product(&product) }
}
