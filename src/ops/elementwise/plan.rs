//! The launches of kernels/elementwise: one thread makes eight elements, or one where the work is small.

use crate::device::gpu::Grid;
use crate::error::{Error, Result};

/// Threads of a block.
pub const THREADS: u32 = 256;
/// Elements of a thread in kernels that work on whole tensors.
pub const VECTOR: usize = 8;

/// Blocks for `count` elements, `each` a thread.
///
/// # Errors
/// More elements than a launch has threads.
pub fn grid(count: usize, each: usize) -> Result<Grid> {
    let blocks = count.div_ceil(THREADS as usize * each);
    let blocks =
        u32::try_from(blocks).map_err(|_| Error::internal(format!("{count} elements in one launch")))?;
    Ok(Grid::linear(blocks, THREADS))
}

/// The same with one thread an element, and the count as kernels take it that divide places out of it.
///
/// # Errors
/// More elements than 32 bits count.
pub fn grid_of_32_bits(count: usize) -> Result<(Grid, u32)> {
    let small =
        u32::try_from(count).map_err(|_| Error::internal(format!("{count} elements in one launch")))?;
    Ok((grid(count, 1)?, small))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_has_a_thread_and_no_block_is_idle() {
        for each in [1, VECTOR] {
            for count in [0, 1, 255, 256, 2047, 2048, 2049, 5_000_000_000] {
                let threads = grid(count, each).unwrap().blocks[0] as usize * THREADS as usize * each;
                assert!(threads >= count && threads < count + THREADS as usize * each, "{count}");
            }
        }
    }

    #[test]
    fn counts_beyond_32_bits_are_refused() {
        assert_eq!(grid_of_32_bits(257).unwrap(), (Grid::linear(2, THREADS), 257));
        assert!(grid_of_32_bits(1 << 32).is_err());
    }
}
