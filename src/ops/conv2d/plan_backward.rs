//! The launches of kernels/conv/wgrad.cu, and the convolution that is the gradient of another's input.

use super::Geometry;
use super::plan::{BLOCK_CHANNELS, MOST_SPLIT_BLOCKS, MOST_SPLITS, Plan, Problem, View, tile};
use crate::device::gpu::Grid;
use crate::error::{Error, Result};
use crate::tensor::DType;

/// Pixels that a block of the weights' gradient brings at a time, and outputs that it makes.
const PIXELS: usize = 64;
const OUTPUTS: usize = 64;
const F32_OUTPUTS: usize = 32;

impl Geometry {
    /// The convolution of the result's gradient, with turned weights, that gives that of the input. One that doubled
    /// its input gathers four pixels' gradients in a kernel one larger; one of stride 2 spreads the gradient.
    pub fn input_gradient(&self, dtype: DType) -> Problem {
        let problem = Problem {
            images: self.n,
            h: self.out_h,
            w: self.out_w,
            channels: self.o,
            outputs: self.c,
            kernel: self.kernel + self.zoom - 1,
            stride: self.zoom,
            pad: self.kernel - 1 - self.pad,
            view: if self.stride == 2 { View::Spread } else { View::Stored },
            out_h: self.h,
            out_w: self.w,
            dtype,
            fused: !self.o.is_multiple_of(8),
            normed: false,
        };
        problem.flattened()
    }
}

/// What to launch for the gradient of the weights of a forward problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightPlan {
    pub whole: Plan,
    /// tiles of pixels of a split
    pub split_tiles: usize,
    pub splits: usize,
    pub grid: Grid,
}

/// The plan without splits: tiles of outputs and channels.
fn whole(problem: &Problem) -> Result<(Plan, usize)> {
    let f32s = problem.dtype == DType::F32;
    let outputs = if f32s { F32_OUTPUTS } else { OUTPUTS };
    let shared = |patch_pixels: usize| match f32s {
        true => (PIXELS + patch_pixels) * (BLOCK_CHANNELS + 1) * 4,
        false => 2 * (PIXELS * OUTPUTS + patch_pixels * BLOCK_CHANNELS) * 2,
    };
    let plan = problem.fit(tile(PIXELS, outputs, 1, outputs), shared);
    let plan =
        plan.ok_or_else(|| Error::internal(format!("{problem:?} has too many pixels for a gradient")))?;
    Ok((plan, problem.outputs.div_ceil(outputs) * problem.blocks()))
}

/// Splits that bound the scratch, whatever the GPU.
fn most_splits(problem: &Problem, plan: &Plan, tiles: usize) -> usize {
    let most =
        if problem.dtype == DType::F32 { 1 } else { (MOST_SPLIT_BLOCKS / tiles.max(1)).min(MOST_SPLITS) };
    most.clamp(1, plan.tiles[2].max(1))
}

/// The launch: pixels are split until two blocks have gone to every multiprocessor.
///
/// # Errors
/// A size beyond what a kernel counts.
pub fn weight_gradient(problem: &Problem, multiprocessors: u32) -> Result<WeightPlan> {
    let (plan, tiles) = whole(problem)?;
    let counts =
        [problem.images * problem.h * problem.w, problem.images * problem.out_h * problem.out_w, tiles];
    if counts.iter().any(|&count| count > i32::MAX as usize) {
        return Err(Error::internal(format!("{problem:?} is too large for one launch")));
    }
    let wanted = (2 * multiprocessors as usize / tiles.max(1)).clamp(1, most_splits(problem, &plan, tiles));
    let split_tiles = plan.tiles[2].div_ceil(wanted).max(1);
    let splits = plan.tiles[2].div_ceil(split_tiles).max(1);
    let grid = Grid { blocks: [tiles as u32, splits as u32, 1], ..plan.grid };
    Ok(WeightPlan { whole: plan, split_tiles, splits, grid })
}

/// Bytes of scratch, enough for every such plan.
///
/// # Errors
/// As [`weight_gradient`].
pub fn weight_scratch(problem: &Problem) -> Result<usize> {
    let (plan, tiles) = whole(problem)?;
    let splits = most_splits(problem, &plan, tiles);
    let sums = OUTPUTS * BLOCK_CHANNELS * problem.kernel * problem.kernel;
    Ok(if splits > 1 { tiles * splits * sums * 4 } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry([n, size, c, o, kernel, stride, zoom]: [usize; 7]) -> Geometry {
        let out = size * zoom / stride;
        Geometry { n, h: size, w: size, c, zoom, kernel, stride, pad: kernel / 2, out_h: out, out_w: out, o }
    }

    fn forward(g: &Geometry, dtype: DType) -> Problem {
        Problem {
            channels: g.c,
            outputs: g.o,
            h: g.h,
            w: g.w,
            out_h: g.out_h,
            out_w: g.out_w,
            kernel: g.kernel,
            stride: g.stride,
            pad: g.pad,
            view: if g.zoom == 2 { View::Doubled } else { View::Stored },
            normed: true,
            ..g.input_gradient(dtype)
        }
    }

    #[test]
    fn gradients_of_the_networks_have_plans_whose_sums_fit_the_scratch() {
        for sizes in [
            [8, 64, 320, 320, 3, 1, 1],
            [8, 64, 320, 320, 3, 2, 1],
            [8, 32, 640, 640, 3, 1, 2],
            [8, 8, 1280, 1280, 3, 1, 1],
            [8, 8, 6400, 1600, 3, 1, 1],
            [8, 64, 280, 1, 3, 1, 1],
            [8, 64, 960, 320, 1, 1, 1],
            [1, 3, 4, 4, 3, 2, 1],
        ] {
            for dtype in [DType::F32, DType::F16] {
                let g = geometry(sizes);
                assert!(g.input_gradient(dtype).plan(132).is_ok());
                let problem = forward(&g, dtype);
                for multiprocessors in [1, 108, 132, 1000] {
                    let plan = weight_gradient(&problem, multiprocessors).unwrap();
                    let tiles = plan.whole.tiles[2];
                    assert!(
                        plan.splits * plan.split_tiles >= tiles
                            && (plan.splits - 1) * plan.split_tiles < tiles
                    );
                    let blocks = (plan.grid.blocks[0] * plan.grid.blocks[1]) as usize;
                    let sums = blocks * OUTPUTS * BLOCK_CHANNELS * g.kernel * g.kernel * 4;
                    assert!(plan.splits == 1 || sums <= weight_scratch(&problem).unwrap(), "{sizes:?}");
                }
            }
        }
        let plan = |sizes| weight_gradient(&forward(&geometry(sizes), DType::BF16), 132).unwrap();
        assert_eq!(plan([8, 64, 320, 320, 3, 1, 1]).splits, 5);
        assert_eq!(plan([8, 8, 6400, 1600, 3, 1, 1]).splits, 1);
    }

    #[test]
    fn a_doubled_input_gathers_and_a_halved_result_spreads() {
        let doubled = geometry([1, 4, 8, 16, 3, 1, 2]).input_gradient(DType::F16);
        assert_eq!((doubled.kernel, doubled.stride, doubled.pad, doubled.view), (4, 2, 1, View::Stored));
        let halved = geometry([1, 4, 8, 16, 3, 2, 1]).input_gradient(DType::F16);
        assert_eq!((halved.kernel, halved.stride, halved.pad, halved.view), (3, 1, 1, View::Spread));
    }
}
