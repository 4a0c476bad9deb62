//! The launches of products by specialised warps on sm_90a (kernels/common/specialised.cuh): which tile, how many
//! parts of k, how many blocks.

use crate::device::gpu::Grid;
use crate::error::{Error, Result};

/// Rows of a tile.
pub const TILE_ROWS: usize = 128;
/// k of one step.
pub const STEP: usize = 64;
const THREADS: u32 = 384;
/// Threads of a block that adds parts.
const JOIN_THREADS: usize = 128;
/// Parts of tiles in a launch that splits k, at most: they bound the scratch, whatever the GPU. As many as the
/// largest GPU has multiprocessors, or a few more.
const MOST_PARTS: usize = 160;
/// Columns of the widest tile that is split.
const WIDEST_SPLIT: usize = 160;

/// Mirrors Split in kernels/common/specialised.cuh.
#[repr(C)]
#[derive(Clone, Copy, Debug, bytemuck::NoUninit)]
pub struct SplitParams {
    pub partial: u64,
    pub tiles: u32,
    pub splits: u32,
    pub steps: u32,
    pub width: u32,
}
const _: () = assert!(size_of::<SplitParams>() == 24);

/// What is to be multiplied, in tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// tiles of 128 rows
    pub row_tiles: usize,
    pub columns: usize,
    /// columns of the result that a tile of 1 column gives, inverted: 2 with a gate
    pub per_column: usize,
    /// slots of a along k, each of 64
    pub steps: usize,
    /// tiles of b that a slot of a is multiplied with: 1, or the 3 taps of a kernel's column
    pub taps: usize,
}

/// What to launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// columns of a tile: 128, 160 or 256
    pub width: usize,
    pub tiles: usize,
    pub splits: usize,
    pub grid: Grid,
    /// of the launch that adds the parts, when k is split
    pub join: Option<Grid>,
}

impl Work {
    /// f32 of scratch that a launch needs at most, on any GPU.
    pub fn scratch(&self) -> usize {
        let tiles = self.row_tiles * self.columns.div_ceil(WIDEST_SPLIT);
        let splits = self.per_column == 1 && self.steps > 1 && 2 * tiles <= MOST_PARTS;
        if splits { MOST_PARTS * TILE_ROWS * WIDEST_SPLIT } else { 0 }
    }

    /// The launch that is expected to take least on a GPU of so many multiprocessors, among tiles of `widths`.
    ///
    /// # Errors
    /// A size beyond what a kernel counts.
    pub fn choose(&self, widths: &[usize], multiprocessors: u32) -> Result<Choice> {
        let blocks = multiprocessors.max(1) as usize;
        let candidates = widths.iter().flat_map(|&width| {
            let tiles = self.row_tiles * (self.columns * self.per_column).div_ceil(width);
            let most = match self.per_column == 1 && width <= WIDEST_SPLIT {
                true => (MOST_PARTS.min(blocks) / tiles.max(1)).min(self.steps).max(1),
                false => 1,
            };
            (1..=most).map(move |splits| (width, tiles, splits))
        });
        let best = candidates.min_by_key(|&(width, tiles, splits)| {
            (self.cycles(width, tiles, splits, blocks), usize::MAX - width)
        });
        let (width, tiles, splits) = best
            .filter(|(_, tiles, splits)| tiles * splits <= i32::MAX as usize && self.steps > 0)
            .ok_or_else(|| {
                Error::internal(format!("{self:?} is too large for one launch, or nothing at all"))
            })?;
        let grid =
            Grid::linear((tiles * splits).min(blocks) as u32, THREADS).shared(shared_bytes(width, self.taps));
        let eights = tiles * TILE_ROWS * width / 8;
        let join =
            (splits > 1).then(|| Grid::linear(eights.div_ceil(JOIN_THREADS) as u32, JOIN_THREADS as u32));
        Ok(Choice { width, tiles, splits, grid, join })
    }

    /// About how many cycles the launch takes: tensor cores or bytes from L2, and what is done with the sums.
    fn cycles(&self, width: usize, tiles: usize, splits: usize, blocks: usize) -> usize {
        const BYTES_A_CYCLE: usize = 38;
        let bytes = (slot_rows(self.taps) + self.taps * width) * STEP * 2;
        let step = (self.taps * 4 * width).max(bytes / BYTES_A_CYCLE);
        let sums = TILE_ROWS * width * 4 / BYTES_A_CYCLE;
        // A second launch, which reads all parts with all multiprocessors.
        let joining = if splits > 1 { 3000 + (splits * tiles * sums).div_ceil(blocks) } else { 0 };
        let rounds = (tiles * splits).div_ceil(blocks);
        rounds * (self.steps.div_ceil(splits) * step + 1000 + sums) + joining
    }
}

impl Choice {
    /// The params of the launches; `partial` is scratch, 0 without splits.
    pub fn params(&self, steps: usize, partial: u64) -> SplitParams {
        let [tiles, splits, steps, width] =
            [self.tiles, self.splits, steps, self.width].map(|count| count as u32);
        SplitParams { partial, tiles, splits, steps, width }
    }
}

/// Rows of a slot of a, with room for those above and below.
fn slot_rows(taps: usize) -> usize {
    if taps == 1 { TILE_ROWS } else { TILE_ROWS + 32 }
}

/// Of Specialised<T, width, _, taps>::Shared.
fn shared_bytes(width: usize, taps: usize) -> u32 {
    const STAGING: usize = 8 * 16 * 40 * 4;
    const BARRIERS: usize = 16;
    let [slots_a, slots_b] = match (width, taps) {
        (128, 1) => [6, 6],
        (160, 1) => [5, 5],
        (_, 1) => [4, 4],
        (128, _) => [3, 8],
        (160, _) => [3, 6],
        (_, _) => [2, 5],
    };
    let slot = |rows: usize| rows * STEP * 2 + BARRIERS;
    (slots_a * slot(slot_rows(taps)) + slots_b * slot(width) + STAGING) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const H100: u32 = 132;
    const ALL: [usize; 3] = [128, 160, 256];

    fn work(rows: usize, columns: usize, k: usize) -> Work {
        Work { row_tiles: rows.div_ceil(TILE_ROWS), columns, per_column: 1, steps: k.div_ceil(STEP), taps: 1 }
    }

    #[test]
    fn tiles_suit_the_widths_of_the_network() {
        // 320 channels are two tiles of 160; wide products take wide tiles; few rows share k among all.
        let level0 = work(8192, 320, 2880).choose(&ALL, H100).unwrap();
        assert_eq!((level0.width, level0.tiles, level0.splits), (160, 128, 1));
        assert_eq!(work(8192, 8192, 8192).choose(&ALL, H100).unwrap().width, 256);
        let level3 = work(128, 1280, 11520).choose(&ALL, H100).unwrap();
        assert!(level3.tiles * level3.splits > 110 && level3.splits > 8, "{level3:?}");
        let level2 = work(512, 1280, 11520).choose(&ALL, H100).unwrap();
        assert!(level2.tiles * level2.splits > 110, "{level2:?}");
    }

    #[test]
    fn every_launch_fits_its_scratch_and_its_block() {
        for rows in [1, 128, 300, 512, 2048, 8192] {
            for columns in [8, 320, 640, 1280, 10_240] {
                for k in [8, 320, 5120, 11_520] {
                    for multiprocessors in [1, 2, 78, 132, 144] {
                        let work = work(rows, columns, k);
                        let choice = work.choose(&ALL, multiprocessors).unwrap();
                        let partial = choice.tiles * choice.splits * TILE_ROWS * choice.width;
                        assert!(choice.splits == 1 || partial <= work.scratch(), "{work:?} {choice:?}");
                        assert!(choice.splits <= work.steps && choice.grid.shared_bytes <= 227 << 10);
                        assert!(choice.grid.blocks[0] <= multiprocessors);
                        assert_eq!(choice.join.is_some(), choice.splits > 1);
                    }
                }
            }
        }
        for taps in [1, 3] {
            assert!(ALL.into_iter().all(|width| shared_bytes(width, taps) <= 227 << 10));
        }
        assert!(Work { steps: 0, ..work(1, 8, 8) }.choose(&ALL, H100).is_err());
        assert_eq!(Work { per_column: 2, ..work(128, 1280, 5120) }.scratch(), 0);
    }
}
