//! The launch of kernels/gemm/gemm.cu for a product: which tile, how many blocks, how much shared memory.

use super::LinearWeight;
use crate::device::gpu::Grid;
use crate::device::gpu::kernels::{self, Family};
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// k of one tile in shared memory.
const TILE_K: u32 = 32;
/// Tiles on their way at once.
const STAGES: u32 = 4;

/// A product [m, k] . [n, k]^T.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Product {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub gated: bool,
    pub dtype: DType,
}

/// Who computes a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Our kernels, with what follows the product fused.
    Own,
    /// cuBLASLt, for a product that nothing follows.
    Library,
}

/// Multiply-adds from which on a plain product of halves goes to the library. No GPU was measured yet: this only keeps
/// small products, which are all start-up, from it. `tasr bench kernels` prints the times of both for each shape.
const LIBRARY_LEAST: usize = 1 << 30;

/// What to launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// rows and columns of a block's tile
    pub tile: u32,
    pub grid: Grid,
}

impl Product {
    /// x [..., k] . weight [n, k]^T.
    pub fn of(x: &Tensor, weight: &LinearWeight, gated: bool) -> Self {
        Product { m: x.shape().rows(), n: weight.outputs, k: weight.inputs, gated, dtype: x.dtype() }
    }

    /// Who computes it, `plain` when nothing is fused. The kernels of sm_90a (`specialised`) were made to keep up with
    /// the library there, so they keep their products.
    pub fn engine(&self, plain: bool, specialised: bool) -> Engine {
        let large = self.m.saturating_mul(self.n).saturating_mul(self.k) >= LIBRARY_LEAST;
        match plain && large && !self.gated && !specialised && self.dtype != DType::F32 {
            true => Engine::Library,
            false => Engine::Own,
        }
    }

    /// Large tiles reuse what they load more often; small ones give every multiprocessor work.
    ///
    /// # Errors
    /// A size beyond 32 bits.
    pub fn plan(&self, multiprocessors: u32) -> Result<Plan> {
        let tiles = |tile: usize| self.m.div_ceil(tile) * self.n.div_ceil(tile);
        if [self.m, self.n, self.k, tiles(64)].iter().any(|&size| size > i32::MAX as usize) {
            return Err(Error::internal(format!("{self:?} is too large for one launch")));
        }
        let large = self.dtype != DType::F32 && tiles(128) >= multiprocessors as usize;
        let (tile, threads) = match (large, self.dtype) {
            (true, _) => (128, 256),
            (false, DType::F32) => (64, 256),
            (false, _) => (64, 128),
        };
        let shared = match self.dtype {
            DType::F32 => 17408,
            DType::F16 | DType::BF16 => STAGES * 2 * tile * TILE_K * 2,
        };
        Ok(Plan { tile, grid: Grid::linear(tiles(tile as usize) as u32, threads).shared(shared) })
    }
}

impl Plan {
    /// The kernels of the tile.
    pub fn family(&self, gated: bool) -> &'static Family {
        match (self.tile, gated) {
            (128, false) => &kernels::GEMM_128X128,
            (128, true) => &kernels::GEMM_GEGLU_128X128,
            (_, false) => &kernels::GEMM_64X64,
            (_, true) => &kernels::GEMM_GEGLU_64X64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product(m: usize, n: usize, dtype: DType) -> Product {
        Product { m, n, k: 320, gated: false, dtype }
    }

    #[test]
    fn tiles_are_large_when_every_multiprocessor_gets_one() {
        let plan = |m, n| product(m, n, DType::F16).plan(108).unwrap();
        assert_eq!((plan(8192, 320).tile, plan(8192, 320).grid.blocks[0]), (128, 64 * 3));
        assert_eq!((plan(512, 1280).tile, plan(512, 1280).grid.blocks[0]), (64, 8 * 20));
        assert_eq!(plan(1, 1).grid, Grid::linear(1, 128).shared(32768));
        assert_eq!(plan(8192, 320).grid.shared_bytes, 65536);
    }

    #[test]
    fn only_large_plain_products_of_halves_go_to_the_library() {
        let large = Product { k: 1280, ..product(8192, 1280, DType::F16) };
        assert_eq!(large.engine(true, false), Engine::Library);
        for (product, plain, specialised) in [
            (large, false, false),
            (large, true, true),
            (Product { gated: true, ..large }, true, false),
            (Product { dtype: DType::F32, ..large }, true, false),
            (product(2, 1280, DType::F16), true, false),
        ] {
            assert_eq!(product.engine(plain, specialised), Engine::Own, "{product:?}");
        }
    }

    #[test]
    fn every_plan_has_a_kernel() {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            for m in [1, 1000, 100_000] {
                for gated in [false, true] {
                    let plan = product(m, 640, dtype).plan(132).unwrap();
                    assert!(plan.family(gated).of(dtype).is_ok());
                }
            }
        }
        assert!(product(1 << 40, 8, DType::F16).plan(1).is_err());
    }
}
