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
