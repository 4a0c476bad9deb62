//! Sums over the rows of a matrix on the GPU: how kernels/common/columns.cuh divides them among blocks.

use bytemuck::{Pod, Zeroable};

use crate::device::Gpu;
use crate::device::gpu::Grid;
use crate::error::{Error, Result};
use crate::tensor::TensorMut;

/// Channels of a block, rows that it reads at once, its threads.
pub const CHANNELS: usize = 64;
const ROWS: usize = 32;
pub const THREADS: u32 = 256;
/// A slice is worth a block from this many rows on.
const LEAST_ROWS: usize = 64;
/// The most multiprocessors that all get blocks: what bounds the scratch.
const MOST_MULTIPROCESSORS: usize = 160;

/// Rows in groups that are summed apart, each group in slices, channels in tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Columns {
    pub groups: usize,
    /// rows of a group
    pub rows: usize,
    pub tiles: usize,
    pub slices: usize,
    /// rows of a slice; the last has what is left
    pub slice: usize,
}

impl Columns {
    /// One wave of blocks, as far as there are rows for them, `resident` on each multiprocessor.
    ///
    /// # Errors
    /// More rows or tiles than a launch counts.
    pub fn new(
        groups: usize,
        rows: usize,
        tiles: usize,
        resident: usize,
        multiprocessors: u32,
    ) -> Result<Self> {
        if rows > 1 << 24 || tiles > 1 << 16 {
            return Err(Error::internal(format!("sums over {rows} rows in {tiles} tiles")));
        }
        let blocks = (multiprocessors as usize).min(MOST_MULTIPROCESSORS) * resident;
        let wanted = (blocks / (groups * tiles).max(1)).clamp(1, rows.div_ceil(LEAST_ROWS).max(1));
        let slice = rows.div_ceil(wanted).next_multiple_of(ROWS).max(ROWS);
        Ok(Columns { groups, rows, tiles, slices: rows.div_ceil(slice), slice })
    }

    pub fn grid(&self, shared_bytes: u32) -> Grid {
        let blocks = [(self.tiles * self.slices) as u32, self.groups as u32, 1];
        Grid { blocks, threads: THREADS, shared_bytes }
    }

    /// f32 that the slices of this launch leave for the last block of a tile, with `sums` sums a channel.
    pub fn partial(&self, sums: usize) -> usize {
        if self.slices <= 1 { 0 } else { self.groups * self.slices * self.tiles * sums * CHANNELS }
    }

    /// The most that [`Columns::partial`] is on any GPU.
    pub fn scratch(rows: usize, sums: usize, resident: usize) -> usize {
        if rows > LEAST_ROWS { MOST_MULTIPROCESSORS * resident * sums * CHANNELS } else { 0 }
    }
}

/// Mirrors Columns in kernels/common/columns.cuh.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct ColumnParams {
    partial: u64,
    counters: u64,
    rows: u32,
    channels: u32,
    tiles: u32,
    slices: u32,
    slice: u32,
    pad: u32,
}
const _: () = assert!(size_of::<ColumnParams>() == 40);

/// The launch of a kernel that sums columns.
pub struct ColumnLaunch {
    pub params: ColumnParams,
    pub grid: Grid,
}

/// Blocks of a kernel of up to 128 registers that a multiprocessor runs at once.
const RESIDENT: usize = 2;

/// f32 of scratch for `sums` sums a channel over groups of `rows` rows.
pub fn scratch(rows: usize, sums: usize) -> usize {
    Columns::scratch(rows, sums, RESIDENT)
}

/// Divides `groups` groups of `rows` rows of `channels` among blocks; `partial` has [`scratch`] elements.
///
/// # Errors
/// More rows, groups or channels than a launch takes.
pub fn launch(
    gpu: &Gpu,
    [groups, rows, channels]: [usize; 3],
    sums: usize,
    partial: &mut TensorMut,
) -> Result<ColumnLaunch> {
    let tiles = channels.div_ceil(CHANNELS);
    let columns = Columns::new(groups, rows, tiles, RESIDENT, gpu.info().multiprocessors)?;
    let params = ColumnParams {
        partial: partial.address()?,
        counters: gpu.counters(groups * tiles)?,
        rows: rows as u32,
        channels: channels as u32,
        tiles: tiles as u32,
        slices: columns.slices as u32,
        slice: columns.slice as u32,
        pad: 0,
    };
    // The sums of eight warps, and what tells the last block; see ColumnShared.
    let shared = 8 * sums * CHANNELS * 4 + 16;
    Ok(ColumnLaunch { params, grid: columns.grid(shared as u32) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_cover_the_rows_and_what_they_leave_fits_the_scratch() {
        for groups in [1, 2, 9, 1000] {
            for rows in [0, 1, 63, 64, 65, 100, 4096, 262_144] {
                for tiles in [1, 5, 25] {
                    for (resident, multiprocessors) in [(2, 1), (4, 2), (4, 108), (2, 132), (4, 400)] {
                        let columns = Columns::new(groups, rows, tiles, resident, multiprocessors).unwrap();
                        assert!(columns.slices * columns.slice >= rows);
                        assert!(columns.slices == 0 || (columns.slices - 1) * columns.slice < rows);
                        assert!(columns.partial(6) <= Columns::scratch(rows, 6, resident), "{columns:?}");
                    }
                }
            }
        }
        assert!(Columns::new(1, 1 << 25, 1, 2, 132).is_err());
    }

    #[test]
    fn a_large_image_gets_one_wave_of_blocks() {
        // The autoencoder's finest level: 128 channels, 512 x 512.
        let columns = Columns::new(1, 512 * 512, 2, 4, 132).unwrap();
        assert_eq!((columns.slices, columns.slice, columns.grid(0).blocks), (256, 1024, [512, 1, 1]));
    }
}
