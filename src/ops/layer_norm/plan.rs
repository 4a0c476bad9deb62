//! The launches of kernels/norm/layer_norm.cu: how many lanes share a row, or a block a row.

use crate::device::gpu::Grid;
use crate::device::gpu::kernels::{self, Family};
use crate::error::{Error, Result};

const THREADS: u32 = 256;
/// Channels that a lane keeps in registers.
const LANE_CHANNELS: usize = 40;
/// Scratch of a block's sum.
const SHARED: u32 = 128;

/// What to launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// lanes of a warp that share a row; absent when a row takes a block
    pub lanes: Option<u32>,
    pub grid: Grid,
}

impl Plan {
    /// `aligned`: rows can be read sixteen bytes at a time.
    ///
    /// # Errors
    /// More rows than a launch has blocks.
    pub fn new(rows: usize, channels: usize, aligned: bool) -> Result<Self> {
        if rows > i32::MAX as usize || channels > i32::MAX as usize {
            return Err(Error::internal(format!("a layer norm of {rows} rows of {channels}")));
        }
        let lanes = [8, 16, 32].into_iter().find(|lanes| channels <= *lanes as usize * LANE_CHANNELS);
        let lanes = lanes.filter(|_| aligned && channels.is_multiple_of(8));
        let grid = match lanes {
            Some(lanes) => Grid::linear((rows as u32).div_ceil(THREADS / lanes), THREADS),
            None => Grid::linear(rows as u32, THREADS).shared(SHARED),
        };
        Ok(Plan { lanes, grid })
    }

    pub fn family(&self) -> &'static Family {
        if self.lanes.is_some() { &kernels::LAYER_NORM } else { &kernels::LAYER_NORM_ANY }
    }

    /// The kernels of the gradient, which divide the rows as the norm itself.
    pub fn backward_family(&self) -> &'static Family {
        if self.lanes.is_some() { &kernels::LAYER_NORM_BACKWARD } else { &kernels::LAYER_NORM_BACKWARD_ANY }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widths_of_the_networks_fill_their_lanes() {
        let plan = |rows, channels| Plan::new(rows, channels, true).unwrap();
        for (channels, lanes) in [(320, 8), (640, 16), (1280, 32), (1024, 32), (8, 8), (328, 16)] {
            assert_eq!(plan(77, channels).lanes, Some(lanes), "{channels}");
        }
        assert_eq!(plan(77, 320).grid, Grid::linear(3, 256));
        assert_eq!(plan(0, 320).grid.blocks[0], 0);
    }

    #[test]
    fn odd_wide_and_unaligned_rows_take_a_block_each() {
        for (channels, aligned) in [(321, true), (1288, true), (320, false)] {
            let plan = Plan::new(5, channels, aligned).unwrap();
            assert_eq!((plan.lanes, plan.grid), (None, Grid::linear(5, 256).shared(128)));
        }
        assert!(Plan::new(1 << 40, 8, true).is_err());
    }
}
