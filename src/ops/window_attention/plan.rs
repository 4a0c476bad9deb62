//! The grid of kernels/attention/window.cu: a block for each window and head.

use super::Windows;
use crate::device::gpu::Grid;
use crate::error::{Error, Result};

/// Pixels of a window, and channels of a head, that the kernel has room for.
pub const MOST: usize = 64;
const THREADS: u32 = 128;
/// Of WindowShared.
const SHARED_BYTES: u32 = 35_840;
/// Blocks of a launch along its second axis.
const MOST_HEADS: usize = 65_535;

/// The windows of an image [N, H, W] that they cut.
///
/// # Errors
/// Windows or heads that the kernel has no room for, or more pixels than 32 bits count.
pub fn grid([n, h, w]: [usize; 3], windows: Windows) -> Result<Grid> {
    let Windows { side, heads, width, .. } = windows;
    if side * side > MOST || width > MOST || heads > MOST_HEADS {
        return Err(Error::device(format!(
            "{windows:?}: a GPU's kernel has room for windows of {MOST} pixels and heads of {MOST} channels"
        ))
        .at("--device")
        .fix("use --device cpu"));
    }
    let pixels = u32::try_from(n * h * w)
        .map_err(|_| Error::internal(format!("{n} images of {h} x {w} cut into windows in one launch")))?;
    let blocks = pixels / (side * side).max(1) as u32;
    Ok(Grid { blocks: [blocks, heads as u32, 1], threads: THREADS, shared_bytes: SHARED_BYTES })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SWINIR: Windows = Windows { side: 8, shift: 4, heads: 6, width: 30 };

    #[test]
    fn every_head_of_every_window_has_a_block() {
        assert_eq!(grid([2, 64, 32], SWINIR).unwrap().blocks, [2 * 8 * 4, 6, 1]);
        assert_eq!(grid([1, 2, 3], Windows { side: 1, ..SWINIR }).unwrap().blocks, [6, 6, 1]);
        assert_eq!(grid([0, 8, 8], SWINIR).unwrap().blocks, [0, 6, 1]);
    }

    #[test]
    fn what_the_kernel_has_no_room_for_is_refused() {
        for windows in [
            Windows { side: 9, ..SWINIR },
            Windows { width: MOST + 1, ..SWINIR },
            Windows { heads: MOST_HEADS + 1, ..SWINIR },
        ] {
            assert!(grid([1, 72, 72], windows).is_err(), "{windows:?}");
        }
        assert!(grid([1 << 20, 64, 64], SWINIR).is_err());
    }
}
