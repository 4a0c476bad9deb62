//! The launches of kernels/gemm/gemm_backward.cu: which tile, and in how many parts the summed index is split.

use crate::device::gpu::Grid;
use crate::device::gpu::kernels::{self, Family};
use crate::error::{Error, Result};
use crate::tensor::DType;

/// k of one tile in shared memory.
const TILE_K: usize = 32;
/// Tiles on their way at once.
const STAGES: usize = 4;
/// A split is worth a block from so much of k on.
const LEAST_K: usize = 256;
/// Blocks of small tiles that a multiprocessor gets, and the most multiprocessors that get as many.
const RESIDENT: usize = 2;
const MOST_MULTIPROCESSORS: usize = 160;

/// A product [m, k] . [k, n] whose right side lies by k, and of the weights' gradient the left side as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Product {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    /// the gradient of the weights, not of the input
    pub weights: bool,
    pub dtype: DType,
}

/// What to launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// rows and columns of a block's tile
    pub tile: usize,
    pub tiles: usize,
    pub splits: usize,
    /// of k in a split
    pub split_k: usize,
    pub grid: Grid,
}

impl Product {
    fn tiles(&self, tile: usize) -> usize {
        self.m.div_ceil(tile) * self.n.div_ceil(tile)
    }

    /// How many splits k is worth.
    fn most_splits(&self) -> usize {
        if self.dtype == DType::F32 { 1 } else { (self.k / LEAST_K).max(1) }
    }

    /// Large tiles where every multiprocessor gets one, else small ones, with k split as far as there are too few.
    ///
    /// # Errors
    /// A size beyond 32 bits.
    pub fn plan(&self, multiprocessors: u32) -> Result<Plan> {
        if [self.m, self.n, self.k, self.tiles(64)].iter().any(|&size| size > i32::MAX as usize) {
            return Err(Error::internal(format!("{self:?} is too large for one launch")));
        }
        let large = self.dtype != DType::F32 && self.tiles(128) >= multiprocessors as usize;
        let (tile, threads) = match (large, self.dtype) {
            (true, _) => (128, 256),
            (false, DType::F32) => (64, 256),
            (false, _) => (64, 128),
        };
        let shared = match self.dtype {
            DType::F32 => 8704,
            DType::F16 | DType::BF16 => STAGES * 2 * tile * TILE_K * 2 + 16,
        };
        let tiles = self.tiles(tile);
        let blocks = (multiprocessors as usize).min(MOST_MULTIPROCESSORS) * RESIDENT;
        let wanted = if large { 1 } else { (blocks / tiles.max(1)).clamp(1, self.most_splits()) };
        let split_k = self.k.div_ceil(wanted).next_multiple_of(TILE_K).max(TILE_K);
        let splits = self.k.div_ceil(split_k).max(1);
        let blocks = [tiles as u32, splits as u32, 1];
        Ok(Plan { tile, tiles, splits, split_k, grid: Grid { blocks, threads, shared_bytes: shared as u32 } })
    }

    /// f32 of scratch for the splits' sums, on any GPU.
    pub fn scratch(&self) -> usize {
        let (tiles, most) = (self.tiles(64), MOST_MULTIPROCESSORS * RESIDENT);
        let splits = (most / tiles.max(1)).min(self.most_splits());
        if splits > 1 { tiles * splits * 64 * 64 } else { 0 }
    }
}

impl Plan {
    /// The kernels of the tile.
    pub fn family(&self, weights: bool) -> &'static Family {
        match (self.tile, weights) {
            (128, false) => &kernels::LINEAR_DGRAD_128X128,
            (128, true) => &kernels::LINEAR_WGRAD_128X128,
            (_, false) => &kernels::LINEAR_DGRAD_64X64,
            (_, true) => &kernels::LINEAR_WGRAD_64X64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_tiles_are_split_and_their_sums_fit_the_scratch() {
        for (m, n, k) in
            [(320, 320, 8192), (1280, 1280, 512), (1, 1, 1), (64, 64, 100_000), (8192, 320, 1280)]
        {
            for dtype in [DType::F32, DType::F16, DType::BF16] {
                for weights in [false, true] {
                    let product = Product { m, n, k, weights, dtype };
                    for multiprocessors in [1, 2, 108, 132, 400] {
                        let plan = product.plan(multiprocessors).unwrap();
                        assert!(plan.family(weights).of(dtype).is_ok());
                        assert!(plan.splits * plan.split_k >= k && (plan.splits - 1) * plan.split_k < k);
                        let used =
                            if plan.splits > 1 { plan.tiles * plan.splits * plan.tile.pow(2) } else { 0 };
                        assert!(used <= product.scratch(), "{product:?} {plan:?}");
                    }
                }
            }
        }
        let plan = Product { m: 320, n: 320, k: 8192, weights: true, dtype: DType::BF16 }.plan(132).unwrap();
        assert_eq!((plan.tile, plan.tiles, plan.splits, plan.split_k), (64, 25, 10, 832));
        let plan =
            Product { m: 8192, n: 320, k: 1280, weights: false, dtype: DType::BF16 }.plan(132).unwrap();
        assert_eq!((plan.tile, plan.tiles, plan.splits), (128, 192, 1));
    }
}
