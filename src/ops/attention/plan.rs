//! The launches of kernels/attention: which kernel, how many blocks, how much shared memory.

use super::Geometry;
use crate::device::gpu::Grid;
use crate::device::gpu::kernels::{self, Family};
use crate::error::{Error, Result};
use crate::tensor::DType;

/// Queries and columns of a block of the kernels without tensor cores.
const PLAIN: usize = 64;

/// A kernel of the forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// up to 64 columns, 128 queries a block
    Large64,
    /// up to 64 columns, 64 queries a block
    Small64,
    /// up to 128 columns
    Up128,
    /// up to 512 columns
    Up512,
    /// any width, any alignment, and f32
    Plain,
}

/// What plans depend on beside the sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    pub dtype: DType,
    /// rows can be read 16 bytes at a time
    pub aligned: bool,
    pub multiprocessors: u32,
}

impl Setting {
    /// True when the kernels that multiply on tensor cores take a head.
    fn tensor_cores(&self) -> bool {
        self.aligned && self.dtype != DType::F32
    }
}

impl Forward {
    /// The fastest kernel that takes `g`.
    ///
    /// Large blocks of queries read keys and values less often; small ones give every multiprocessor work.
    pub fn choose(g: &Geometry, setting: &Setting) -> Self {
        if !setting.tensor_cores() {
            return Forward::Plain;
        }
        let large = g.n * g.heads * g.l.div_ceil(128);
        match g.width {
            0..=64 if large >= setting.multiprocessors as usize => Forward::Large64,
            0..=64 => Forward::Small64,
            65..=128 => Forward::Up128,
            129..=512 => Forward::Up512,
            _ => Forward::Plain,
        }
    }

    pub fn family(self) -> &'static Family {
        match self {
            Forward::Large64 => &kernels::ATTENTION_64_LARGE,
            Forward::Small64 => &kernels::ATTENTION_64_SMALL,
            Forward::Up128 => &kernels::ATTENTION_128,
            Forward::Up512 => &kernels::ATTENTION_512,
            Forward::Plain => &kernels::ATTENTION_PLAIN,
        }
    }

    /// # Errors
    /// More blocks than a launch has.
    pub fn grid(self, g: &Geometry) -> Result<Grid> {
        let (queries, threads, shared) = match self {
            Forward::Large64 => (128, 128, 49_152),
            Forward::Small64 => (64, 128, 40_960),
            Forward::Up128 => (64, 128, 81_920),
            Forward::Up512 => (64, 256, 99_584),
            Forward::Plain => (PLAIN, 256, 26_112),
        };
        let columns = if self == Forward::Plain { g.width.div_ceil(PLAIN) } else { 1 };
        blocks(g, g.l.div_ceil(queries) * columns).map(|blocks| Grid {
            blocks,
            threads,
            shared_bytes: shared,
        })
    }
}

/// `tiles` blocks for each head of each image.
fn blocks(g: &Geometry, tiles: usize) -> Result<[u32; 3]> {
    let fits = tiles <= i32::MAX as usize && g.heads.max(g.n) <= 65_535;
    // The kernels count rows, and columns of a row of heads, in 32 bits.
    let counted = g.l.max(g.m) <= i32::MAX as usize - PLAIN && g.heads * g.width <= i32::MAX as usize;
    match fits && counted {
        true => Ok([tiles as u32, g.heads as u32, g.n as u32]),
        false => Err(Error::internal(format!("{g:?} is too large for one launch"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: Setting = Setting { dtype: DType::F16, aligned: true, multiprocessors: 108 };

    fn square(n: usize, l: usize, heads: usize, width: usize) -> Geometry {
        Geometry { n, l, m: l, heads, width, causal: false }
    }

    #[test]
    fn blocks_are_large_when_every_multiprocessor_gets_one() {
        let chosen = |g: Geometry| (Forward::choose(&g, &HALF), Forward::choose(&g, &HALF).grid(&g).unwrap());
        let (kernel, grid) = chosen(square(2, 4096, 5, 64));
        assert_eq!((kernel, grid.blocks, grid.shared_bytes), (Forward::Large64, [32, 5, 2], 49_152));
        let (kernel, grid) = chosen(square(2, 256, 20, 64));
        assert_eq!((kernel, grid.blocks, grid.threads), (Forward::Small64, [4, 20, 2], 128));
        let (kernel, grid) = chosen(square(1, 4096, 1, 512));
        assert_eq!((kernel, grid.blocks, grid.threads), (Forward::Up512, [64, 1, 1], 256));
    }

    #[test]
    fn what_tensor_cores_do_not_take_has_a_kernel() {
        let g = square(1, 100, 2, 72);
        assert_eq!(Forward::choose(&g, &HALF), Forward::Up128);
        for setting in [Setting { aligned: false, ..HALF }, Setting { dtype: DType::F32, ..HALF }] {
            assert_eq!(Forward::choose(&g, &setting), Forward::Plain);
            assert_eq!(Forward::Plain.grid(&g).unwrap().blocks, [4, 2, 1]);
        }
        assert_eq!(Forward::choose(&square(1, 1, 1, 520), &HALF), Forward::Plain);
        assert!(Forward::Plain.grid(&square(70_000, 1, 1, 8)).is_err());
        assert!(Forward::Large64.grid(&square(1, 1 << 40, 1, 8)).is_err());
    }

    #[test]
    fn every_choice_has_a_kernel_of_its_type() {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            for width in [1, 8, 64, 72, 128, 136, 512, 1000] {
                for l in [1, 100_000] {
                    let setting = Setting { dtype, ..HALF };
                    let g = square(1, l, 1, width);
                    assert!(Forward::choose(&g, &setting).family().of(dtype).is_ok());
                }
            }
        }
    }
}
