//! The launches of kernels/adapter.

use crate::device::gpu::Grid;
use crate::error::{Error, Result};

/// Side of a block's square of pixels.
const SIDE: usize = 8;
/// Pixels of a block of kernels/adapter/inject.cu.
const INJECTED: usize = 8;

/// What to launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    pub tiles_x: usize,
    pub tiles_y: usize,
    /// channels of the result that a block makes, a multiple of 8
    pub slice: usize,
    pub grid: Grid,
}

/// The gate of [n, h, w] pixels with `d` channels each. Where pixels are few, blocks share a tile's channels, as long
/// as that gives a multiprocessor work and a block 64 channels.
///
/// # Errors
/// More pixels than a launch has room for.
pub fn gate([n, h, w]: [usize; 3], d: usize, multiprocessors: u32) -> Result<Plan> {
    let (tiles_x, tiles_y) = (w.div_ceil(SIDE), h.div_ceil(SIDE));
    let tiles = tiles_x * tiles_y * n;
    let count = u32::try_from(tiles).ok().filter(|_| n * h * w <= i32::MAX as usize);
    let count = count.ok_or_else(|| Error::internal(format!("a gate of [{n}, {h}, {w}] pixels")))?;
    let slices = (2 * multiprocessors as usize / tiles.max(1)).clamp(1, d.div_ceil(64).max(1));
    let slice = d.div_ceil(slices).next_multiple_of(8);
    let grid = Grid { blocks: [count, d.div_ceil(slice).max(1) as u32, 1], threads: 512, shared_bytes: 9472 };
    Ok(Plan { tiles_x, tiles_y, slice, grid })
}

/// Its injection alone, of so many pixels.
///
/// # Errors
/// More pixels than a launch has room for.
pub fn inject(pixels: usize) -> Result<Grid> {
    let blocks = u32::try_from(pixels.div_ceil(INJECTED)).ok().filter(|_| pixels <= i32::MAX as usize);
    let blocks = blocks.ok_or_else(|| Error::internal(format!("a gate of {pixels} pixels")))?;
    Ok(Grid::linear(blocks, 32 * INJECTED as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_adapters_of_the_full_size_model_fill_a_gpu_and_every_channel_is_made_once() {
        for ([n, h, w], d) in
            [([2, 64, 64], 320), ([2, 32, 32], 640), ([2, 16, 16], 1280), ([2, 8, 8], 1280), ([1, 3, 5], 1)]
        {
            for multiprocessors in [1, 108, 132] {
                let plan = gate([n, h, w], d, multiprocessors).unwrap();
                let slices = plan.grid.blocks[1] as usize;
                assert!(
                    slices * plan.slice >= d && (slices - 1) * plan.slice < d && plan.slice.is_multiple_of(8)
                );
                assert_eq!(plan.grid.blocks[0] as usize, n * h.div_ceil(8) * w.div_ceil(8));
                assert!(slices == 1 || plan.slice >= 64);
            }
        }
        assert_eq!(gate([2, 16, 16], 1280, 132).unwrap().grid.blocks, [8, 20, 1]);
        assert_eq!(gate([2, 64, 64], 320, 132).unwrap().grid.blocks, [128, 2, 1]);
        assert_eq!(inject(9).unwrap(), Grid::linear(2, 256));
        assert!(gate([1 << 20, 1 << 20, 1], 8, 132).is_err());
    }
}
