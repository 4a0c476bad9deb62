//! Launches of kernels/gemm/gemm_sm90.cu.

use bytemuck::NoUninit;

use super::plan::Product;
use crate::device::gpu::kernels::{self, Family};
use crate::device::gpu::tensor_map::{Boxes, TensorMap};
use crate::device::{Device, Gpu};
use crate::error::Result;
use crate::ops::gpu::EpilogueParams;
use crate::ops::specialised::{Choice, STEP, SplitParams, TILE_ROWS, Work};
use crate::tensor::{DType, Tensor, TensorMut};

#[repr(C, align(64))]
#[derive(Clone, Copy, NoUninit)]
struct GemmSm90Params {
    a: TensorMap,
    b: TensorMap,
    out: u64,
    m: u32,
    n: u32,
    k: u32,
    pad: u32,
    split: SplitParams,
    epilogue: EpilogueParams,
    unused: [u64; 4],
}
const _: () = assert!(size_of::<GemmSm90Params>() == 384);

impl Product {
    /// The product in tiles.
    pub fn work(&self) -> Work {
        let per_column = if self.gated { 2 } else { 1 };
        Work {
            row_tiles: self.m.div_ceil(TILE_ROWS),
            columns: self.n / per_column,
            per_column,
            steps: self.k.div_ceil(STEP),
            taps: 1,
        }
    }

    /// The launch on a GPU that has the kernels of sm_90a.
    ///
    /// # Errors
    /// A size beyond what a kernel counts.
    pub fn specialise(&self, multiprocessors: u32) -> Result<Choice> {
        let widths: &[usize] = if self.gated { &[128, 256] } else { &[128, 160, 256] };
        self.work().choose(widths, multiprocessors)
    }
}

/// The kernels of a tile of `width` columns.
fn family(width: usize, gated: bool) -> &'static Family {
    match (width, gated) {
        (128, false) => &kernels::GEMM_128X128_SM90,
        (160, _) => &kernels::GEMM_128X160_SM90,
        (_, false) => &kernels::GEMM_128X256_SM90,
        (128, true) => &kernels::GEMM_GEGLU_128X128_SM90,
        (_, true) => &kernels::GEMM_GEGLU_128X256_SM90,
    }
}

/// True when the device has the kernels, and TMA can read the operands. What is planned is taken to be aligned.
pub fn suits(device: &Device, product: &Product, operands: [&Tensor; 2]) -> Result<bool> {
    let readable = |tensor: &Tensor| match device {
        Device::Gpu(_) => Ok(Boxes::<2>::can_read(tensor.address()?, product.k, product.dtype)),
        _ => Ok(Boxes::<2>::can_read(0, product.k, product.dtype)),
    };
    let halves = product.dtype != DType::F32 && product.m > 0 && product.n > 0 && product.k > 0;
    Ok(halves && device.specialised() && readable(operands[0])? && readable(operands[1])?)
}

/// `epilogue(x . weight^T)`, gated or not; `scratch` has the elements that the product asks for.
pub fn linear(
    gpu: &Gpu,
    product: &Product,
    [x, weight]: [&Tensor; 2],
    epilogue: EpilogueParams,
    scratch: &Tensor,
    result: &mut TensorMut,
) -> Result<()> {
    let &Product { m, n, k, gated, dtype } = product;
    let choice = product.specialise(gpu.info().multiprocessors)?;
    let rows_of_b = if gated { choice.width / 2 } else { choice.width };
    let boxes = |address, rows, size| Boxes { address, dtype, dims: [k, rows], size: [STEP as u32, size] };
    let partial = if choice.splits > 1 { scratch.address()? } else { 0 };
    let params = GemmSm90Params {
        a: gpu.tensor_map(&boxes(x.address()?, m, TILE_ROWS as u32))?,
        b: gpu.tensor_map(&boxes(weight.address()?, n, rows_of_b as u32))?,
        out: result.address()?,
        m: m as u32,
        n: n as u32,
        k: k as u32,
        pad: 0,
        split: choice.params(product.work().steps, partial),
        epilogue,
        unused: [0; 4],
    };
    // SAFETY: the op checked every shape against the result, all are of the kernel's element type, and the scratch
    // has room for the sums of every part.
    unsafe { gpu.launch(family(choice.width, gated).of(dtype)?, choice.grid, &params) }?;
    match choice.join {
        // SAFETY: as above; what the first launch left is read in the same tiles.
        Some(grid) => unsafe { gpu.launch(kernels::GEMM_JOIN_SM90.of(dtype)?, grid, &params) },
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_has_a_kernel() {
        for dtype in [DType::F16, DType::BF16] {
            for gated in [false, true] {
                for (m, n) in [(1, 8), (128, 1280), (8192, 320), (8192, 2560)] {
                    let product = Product { m, n, k: 320, gated, dtype };
                    let choice = product.specialise(132).unwrap();
                    let name = family(choice.width, gated).of(dtype).unwrap().name();
                    assert!(name.contains(&format!("128x{}_sm90", choice.width)), "{name}");
                    assert_eq!(name.contains("geglu"), gated);
                }
            }
        }
    }
}
