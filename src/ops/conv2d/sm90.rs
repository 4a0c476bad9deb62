//! Convolutions by kernels/conv/conv_sm90.cu: which it suits, their tiles, their launch.

use bytemuck::NoUninit;

use super::plan::{BLOCK_CHANNELS, Problem, View, WEIGHT_ROWS};
use super::{Conv2d, Cx};
use crate::device::gpu::kernels::{self, Family};
use crate::device::gpu::tensor_map::{Boxes, TensorMap};
use crate::device::{Device, Gpu};
use crate::error::{Error, Result};
use crate::ops::Epilogue;
use crate::ops::elementwise::combine;
use crate::ops::gpu::{EpilogueParams, MAX_SEGMENTS};
use crate::ops::group_norm::normalise;
use crate::ops::specialised::{STEP, SplitParams, TILE_ROWS, Work};
use crate::tensor::{DType, Tensor, TensorMut};

/// Fewer outputs leave most of a tile empty.
const LEAST_OUTPUTS: usize = 96;
const WIDTHS: [usize; 3] = [128, 160, 256];

#[repr(C, align(64))]
#[derive(Clone, Copy, NoUninit)]
struct ConvSm90Params {
    parts: [TensorMap; MAX_SEGMENTS],
    weights: TensorMap,
    end: [u32; MAX_SEGMENTS],
    block: [u32; MAX_SEGMENTS],
    out: u64,
    pad: u32,
    box_rows: u32,
    images: u32,
    out_h: u32,
    out_w: u32,
    outputs: u32,
    log_w: u32,
    log_h: u32,
    across: u32,
    area: u32,
    rows: u32,
    second: u32,
    split: SplitParams,
    epilogue: EpilogueParams,
}
const _: () = assert!(size_of::<ConvSm90Params>() == 1344);

/// The pixels of a tile, and how many tiles cover the images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cover {
    log_w: u32,
    log_h: u32,
    /// pixels of a copied box: along x and y, images
    box_size: [u32; 3],
    across: usize,
    /// tiles of an image, or of the images of one tile
    area: usize,
    rows: usize,
}

impl Cover {
    /// A row of pixels for 1x1, else the two squares that waste less: one below the other, or of two images. Rows above
    /// and below are copied with them.
    fn of(problem: &Problem) -> Self {
        let cover = |log_w: u32, log_h: u32, images: u32| {
            let across = problem.out_w.div_ceil(1 << log_w);
            let area = across * problem.out_h.div_ceil(1 << log_h);
            let rows = area * problem.images.div_ceil(images as usize);
            let box_size = [1 << log_w, (1 << log_h) + problem.kernel as u32 - 1, images];
            Cover { log_w, log_h, box_size, across, area, rows }
        };
        if problem.kernel == 1 {
            return cover(TILE_ROWS.ilog2(), 0, 1);
        }
        let (below, beside) = (cover(3, 4, 1), cover(3, 3, 2));
        if beside.rows < below.rows { beside } else { below }
    }

    /// Of a box: groups of eight pixels, and the first one of the second half of the tile.
    fn groups(&self) -> [u32; 2] {
        let [w, h, images] = self.box_size;
        [w * h * images / 8, if images == 1 { 8 } else { w * h / 8 }]
    }
}

/// Blocks of 64 channels of the parts.
fn chunks(channels: &[usize]) -> usize {
    channels.iter().map(|c| c.div_ceil(STEP)).sum()
}

fn work(problem: &Problem, channels: &[usize]) -> Work {
    Work {
        row_tiles: Cover::of(problem).rows,
        columns: problem.outputs,
        per_column: 1,
        steps: chunks(channels) * problem.kernel,
        taps: problem.kernel,
    }
}

fn channels_of(parts: &[Tensor]) -> Vec<usize> {
    parts.iter().map(|part| part.shape().last()).collect()
}

fn family(width: usize, kernel: usize) -> &'static Family {
    match (width, kernel) {
        (128, 1) => &kernels::CONV_1X1_128_SM90,
        (160, 1) => &kernels::CONV_1X1_160_SM90,
        (_, 1) => &kernels::CONV_1X1_256_SM90,
        (128, _) => &kernels::CONV_3X3_128_SM90,
        (160, _) => &kernels::CONV_3X3_160_SM90,
        (_, _) => &kernels::CONV_3X3_256_SM90,
    }
}

/// True when the kernels compute `problem` from parts of these channels: TMA reads rows of whole 16 bytes, and a
/// part begins where a block of weights does.
fn computes(problem: &Problem, channels: &[usize]) -> bool {
    let fits = |size: usize| i32::try_from(size).is_ok_and(|size| size > 0);
    let sizes = [problem.images, problem.images * problem.h * problem.w, problem.channels, problem.outputs];
    let whole_blocks = channels.split_last().is_some_and(|(_, before)| {
        before.iter().all(|c| c.is_multiple_of(BLOCK_CHANNELS))
            && channels.iter().all(|c| c.is_multiple_of(8))
    });
    problem.dtype != DType::F32
        && problem.stride == 1
        && (problem.kernel == 3 || (problem.images, problem.h, problem.out_h) == (1, 1, 1))
        && problem.view == View::Stored
        && problem.outputs >= LEAST_OUTPUTS
        && channels.len() <= MAX_SEGMENTS
        && whole_blocks
        && sizes.into_iter().all(fits)
        && fits(problem.images * problem.out_h * problem.out_w)
}

/// What is convolved as the kernels read it.
pub struct Stored {
    problem: Problem,
    parts: Vec<Tensor>,
}

impl Stored {
    /// The input of `problem`, when that suits the kernels and the device has them: what is normed or a sum is
    /// written out first, since TMA copies only what is stored.
    ///
    /// On the planning device, what is stored is taken to be aligned.
    pub fn of(cx: &Cx, conv: &Conv2d, problem: &Problem) -> Result<Option<Self>> {
        let problem = Problem { fused: false, normed: false, ..*problem }.flattened();
        let parts = conv.input.parts();
        let channels: Vec<usize> = match conv.prologue {
            Some(_) => vec![problem.channels],
            None => parts.iter().map(|part| part.tensor.shape().last()).collect(),
        };
        if !cx.device().specialised() || !computes(&problem, &channels) {
            return Ok(None);
        }
        if let Device::Gpu(_) = cx.device() {
            let in_place = parts.iter().filter(|part| conv.prologue.is_none() && part.plus.is_none());
            let addresses = in_place.map(|part| part.tensor.address()).collect::<Result<Vec<_>>>()?;
            if addresses.iter().any(|address| address % 16 != 0) {
                return Ok(None);
            }
        }
        let cx = cx.without_tape();
        let parts = match conv.prologue {
            Some(affine) => vec![normalise(&cx, &conv.input, affine)?],
            None => parts
                .iter()
                .map(|part| match part.plus {
                    Some(plus) => combine(&cx, &[(1.0, part.tensor), (1.0, plus)], 0.0),
                    None => Ok(part.tensor.clone()),
                })
                .collect::<Result<_>>()?,
        };
        Ok(Some(Stored { problem, parts }))
    }

    /// f32 of scratch that a launch needs at most, on any GPU.
    pub fn scratch(&self) -> usize {
        work(&self.problem, &channels_of(&self.parts)).scratch()
    }

    /// Starts the convolution, whose epilogue counts `rows_per_image` pixels an image; `scratch` has the elements
    /// that [`Stored::scratch`] tells.
    pub fn launch(
        &self,
        gpu: &Gpu,
        weight: &Tensor,
        (epilogue, rows_per_image): (&Epilogue, usize),
        scratch: &mut TensorMut,
        result: &mut TensorMut,
    ) -> Result<()> {
        let Stored { problem, parts } = self;
        let &Problem { images, h, w, outputs, dtype, kernel, .. } = problem;
        let channels = channels_of(parts);
        let (work, cover) = (work(problem, &channels), Cover::of(problem));
        let choice = work.choose(&WIDTHS, gpu.info().multiprocessors)?;
        let ([x, y, z], [box_rows, second]) = (cover.box_size, cover.groups());
        let size = [STEP as u32, x, y, z];
        let mut maps = Vec::with_capacity(MAX_SEGMENTS);
        let (mut end, mut block) = ([0; MAX_SEGMENTS], [0; MAX_SEGMENTS]);
        for (i, (part, &c)) in parts.iter().zip(&channels).enumerate() {
            maps.push(gpu.tensor_map(&Boxes {
                address: part.address()?,
                dtype,
                dims: [c, w, h, images],
                size,
            })?);
            end[i] = chunks(&channels[..=i]) as u32;
            block[i] = (channels[..i].iter().sum::<usize>() / BLOCK_CHANNELS) as u32;
        }
        let first = *maps.first().ok_or_else(|| Error::internal("a convolution of nothing"))?;
        maps.resize(MAX_SEGMENTS, first);
        let all =
            <[TensorMap; MAX_SEGMENTS]>::try_from(maps).map_err(|_| Error::internal("too many segments"))?;
        let (taps, blocks) = (kernel * kernel, problem.blocks());
        let weights = Boxes {
            address: weight.address()?,
            dtype,
            dims: [BLOCK_CHANNELS, WEIGHT_ROWS, taps, blocks, outputs.div_ceil(WEIGHT_ROWS)],
            size: [BLOCK_CHANNELS as u32, WEIGHT_ROWS as u32, 1, 1, (choice.width / WEIGHT_ROWS) as u32],
        };
        let partial = if choice.splits > 1 { scratch.address()? } else { 0 };
        let out = result.address()?;
        let params = ConvSm90Params {
            parts: all,
            weights: gpu.tensor_map(&weights)?,
            end,
            block,
            out,
            pad: problem.pad as u32,
            box_rows,
            images: images as u32,
            out_h: problem.out_h as u32,
            out_w: problem.out_w as u32,
            outputs: outputs as u32,
            log_w: cover.log_w,
            log_h: cover.log_h,
            across: cover.across as u32,
            area: cover.area as u32,
            rows: cover.rows as u32,
            second,
            split: choice.params(work.steps, partial),
            epilogue: EpilogueParams::new(epilogue, out, outputs, rows_per_image.max(1), dtype)?,
        };
        // SAFETY: the op checked input, weights, epilogue and result against the problem, the cover and the choice
        // cover it, and the scratch has room for the sums of every part.
        unsafe { gpu.launch(family(choice.width, kernel).of(dtype)?, choice.grid, &params) }?;
        match choice.join {
            // SAFETY: as above; what the first launch left is read in the same tiles.
            Some(grid) => unsafe { gpu.launch(kernels::CONV_JOIN_SM90.of(dtype)?, grid, &params) },
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(images: usize, side: usize, channels: usize, outputs: usize) -> Problem {
        Problem {
            images,
            h: side,
            w: side,
            channels,
            outputs,
            kernel: 3,
            stride: 1,
            pad: 1,
            view: View::Stored,
            out_h: side,
            out_w: side,
            dtype: DType::F16,
            fused: false,
            normed: false,
        }
    }

    #[test]
    fn tiles_cover_the_levels_of_the_network_without_waste() {
        for (images, side) in [(2, 64), (2, 32), (2, 16), (2, 8), (1, 512)] {
            let cover = Cover::of(&problem(images, side, 320, 320));
            assert_eq!(cover.rows * TILE_ROWS, images * side * side, "{cover:?}");
        }
        let of_two = Cover::of(&problem(3, 5, 320, 320));
        assert_eq!((of_two.rows, of_two.box_size, of_two.groups()), (2, [8, 10, 2], [20, 10]));
        let of_one = Cover::of(&problem(1, 16, 320, 320));
        assert_eq!((of_one.rows, of_one.box_size, of_one.groups()), (2, [8, 18, 1], [18, 8]));
        let row = Cover::of(&Problem { kernel: 1, out_h: 1, out_w: 300, ..problem(1, 1, 320, 320) });
        assert_eq!((row.rows, row.box_size, row.groups()), (3, [128, 1, 1], [16, 8]));
    }

    #[test]
    fn only_what_the_copy_engine_reads_is_computed() {
        let good = problem(1, 16, 352, 128);
        assert!(computes(&good, &[64, 32, 256]) && computes(&good, &[320, 24]) && computes(&good, &[352]));
        assert!(!computes(&good, &[24, 320]) && !computes(&good, &[320, 20]) && !computes(&good, &[]));
        assert!(!computes(&Problem { stride: 2, ..good }, &[352]));
        assert!(!computes(&Problem { view: View::Doubled, ..good }, &[352]));
        assert!(!computes(&Problem { outputs: 16, ..good }, &[352]));
        assert!(!computes(&Problem { dtype: DType::F32, ..good }, &[352]));
        assert!(!computes(&problem(0, 16, 352, 128), &[352]));
    }

    #[test]
    fn few_pixels_share_the_channels_among_all_multiprocessors() {
        let problem = problem(2, 8, 1280, 1280);
        let choice = work(&problem, &[1280]).choose(&WIDTHS, 132).unwrap();
        assert!(choice.tiles * choice.splits > 110, "{choice:?}");
        assert_eq!(work(&problem, &[640, 640]).steps, 60);
        assert!(
            work(&problem, &[640, 640]).scratch() >= choice.tiles * choice.splits * TILE_ROWS * choice.width
        );
    }
}
