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

/// The launch of the kernel for sm_90a: 128 queries a block.
///
/// # Errors
/// More blocks than a launch has.
pub fn hopper_grid(g: &Geometry) -> Result<Grid> {
    let blocks = blocks(g, g.l.div_ceil(128))?;
    Ok(Grid { blocks, threads: 384, shared_bytes: 147_608 })
}

/// A pass of the backward: over blocks of queries for dq, or over blocks of keys for dk and dv.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    Queries,
    Keys,
}

/// A kernel of the backward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backward {
    /// up to 64 columns, 128 own rows a block
    Large64,
    /// up to 64 columns, 64 own rows a block
    Small64,
    /// up to 512 columns
    Up512,
    /// any width, any alignment, and f32
    Plain,
}

impl Backward {
    /// The fastest kernel that takes `g`; see [`Forward::choose`].
    pub fn choose(g: &Geometry, pass: Pass, setting: &Setting) -> Self {
        let large = g.n * g.heads * pass.rows(g).div_ceil(128);
        if !setting.tensor_cores() {
            return Backward::Plain;
        }
        match g.width {
            0..=64 if large >= setting.multiprocessors as usize => Backward::Large64,
            0..=64 => Backward::Small64,
            65..=512 => Backward::Up512,
            _ => Backward::Plain,
        }
    }

    pub fn family(self, pass: Pass) -> &'static Family {
        match (self, pass) {
            (Backward::Large64, Pass::Queries) => &kernels::ATTENTION_DQ_64_LARGE,
            (Backward::Large64, Pass::Keys) => &kernels::ATTENTION_DKV_64_LARGE,
            (Backward::Small64, Pass::Queries) => &kernels::ATTENTION_DQ_64_SMALL,
            (Backward::Small64, Pass::Keys) => &kernels::ATTENTION_DKV_64_SMALL,
            (Backward::Up512, Pass::Queries) => &kernels::ATTENTION_DQ_512,
            (Backward::Up512, Pass::Keys) => &kernels::ATTENTION_DKV_512,
            (Backward::Plain, Pass::Queries) => &kernels::ATTENTION_DQ_PLAIN,
            (Backward::Plain, Pass::Keys) => &kernels::ATTENTION_DKV_PLAIN,
        }
    }

    /// # Errors
    /// More blocks than a launch has.
    pub fn grid(self, g: &Geometry, pass: Pass) -> Result<Grid> {
        let (rows, threads, shared) = match self {
            Backward::Large64 => (128, 128, 49_664),
            Backward::Small64 => (64, 128, 50_176),
            Backward::Up512 => (32, 256, 98_816),
            Backward::Plain => (PLAIN, 256, 26_112),
        };
        let columns = if self == Backward::Plain { g.width.div_ceil(PLAIN) } else { 1 };
        let blocks = blocks(g, pass.rows(g).div_ceil(rows) * columns)?;
        Ok(Grid { blocks, threads, shared_bytes: shared })
    }
}

impl Pass {
    /// Rows whose gradients are made.
    fn rows(self, g: &Geometry) -> usize {
        match self {
            Pass::Queries => g.l,
            Pass::Keys => g.m,
        }
    }
}

/// Rows of heads that a block of the kernel `attention_products` takes.
const PRODUCTS: usize = 8;

/// The launch that multiplies the rows of a result with those of its gradient.
///
/// # Errors
/// More blocks than a launch has.
pub fn products_grid(g: &Geometry) -> Result<Grid> {
    match u32::try_from((g.n * g.l * g.heads).div_ceil(PRODUCTS)) {
        Ok(blocks) => Ok(Grid::linear(blocks, 32 * PRODUCTS as u32)),
        Err(_) => Err(Error::internal(format!("{g:?} is too large for one launch"))),
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
        assert_eq!(hopper_grid(&square(2, 4096, 5, 64)).unwrap().blocks, grid.blocks);
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
    fn backward_passes_go_over_their_own_rows() {
        let g = Geometry { n: 8, l: 4096, m: 77, heads: 5, width: 64, causal: false };
        let plan = |pass| {
            let kernel = Backward::choose(&g, pass, &HALF);
            (kernel, kernel.grid(&g, pass).unwrap().blocks)
        };
        assert_eq!(plan(Pass::Queries), (Backward::Large64, [32, 5, 8]));
        assert_eq!(plan(Pass::Keys), (Backward::Small64, [2, 5, 8]));
        let wide = square(1, 100, 2, 72);
        for pass in [Pass::Queries, Pass::Keys] {
            assert_eq!(Backward::choose(&wide, pass, &HALF), Backward::Up512);
            assert_eq!(Backward::Up512.grid(&wide, pass).unwrap().blocks, [4, 2, 1]);
            assert_eq!(Backward::Plain.grid(&wide, pass).unwrap().blocks, [4, 2, 1]);
            for dtype in [DType::F32, DType::F16, DType::BF16] {
                for width in [1, 64, 72, 512, 520] {
                    let g = square(1, 100, 1, width);
                    let kernel = Backward::choose(&g, pass, &Setting { dtype, ..HALF });
                    assert!(kernel.family(pass).of(dtype).is_ok());
                }
            }
        }
        assert_eq!(products_grid(&square(3, 5, 1, 64)).unwrap(), Grid::linear(2, 256));
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
