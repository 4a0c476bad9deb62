//! Launches of kernels/conv.

use bytemuck::NoUninit;

use super::plan::{BLOCK_CHANNELS, Plan, Problem, View, WEIGHT_ROWS};
use super::{Conv2d, ConvWeight, Geometry};
use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::ops::gpu::{EpilogueParams, SegmentsParams, activation_code};
use crate::ops::group_norm::Affine;
use crate::ops::{Activation, Epilogue, Segments};
use crate::tensor::{DType, Tensor, TensorMut};

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
pub struct ConvParams {
    pub out: u64,
    pub weight: u64,
    coefficients: u64,
    pub partial: u64,
    pub counters: u64,
    images: i32,
    h: i32,
    w: i32,
    out_h: i32,
    out_w: i32,
    outputs: i32,
    blocks: i32,
    split_blocks: i32,
    kernel: i32,
    stride: i32,
    pad: i32,
    shift: i32,
    spread: i32,
    tile_w: i32,
    tile_h: i32,
    tiles: [i32; 4],
    patch_w: i32,
    patch_h: i32,
    patch_pixels: i32,
    odd: i32,
    activation: u32,
    slope: f32,
    filler: u32,
    segments: SegmentsParams,
    pub epilogue: EpilogueParams,
}
const _: () = assert!(size_of::<ConvParams>() == 368);

/// What is convolved, of a problem whose sizes are known.
pub struct Input<'a> {
    pub segments: &'a Segments<'a>,
    pub prologue: Option<&'a Affine>,
}

impl Input<'_> {
    /// True when the input is not stored as the products want it.
    pub fn fused(&self) -> bool {
        let parts = self.segments.parts();
        let plain = |c: usize, plus: Option<&Tensor>| plus.is_none() && c.is_multiple_of(8);
        self.prologue.is_some() || !parts.iter().all(|part| plain(part.tensor.shape().last(), part.plus))
    }
}

impl ConvParams {
    /// All but where the result, the weights and split sums lie, and the epilogue.
    pub fn new(problem: &Problem, plan: &Plan, input: &Input) -> Result<Self> {
        let (coefficients, activation) = match input.prologue {
            Some(affine) => (affine.coefficients.address()?, affine.activation),
            None => (0, Activation::None),
        };
        let (activation, slope) = activation_code(activation);
        Ok(ConvParams {
            out: 0,
            weight: 0,
            coefficients,
            partial: 0,
            counters: 0,
            images: problem.images as i32,
            h: problem.h as i32,
            w: problem.w as i32,
            out_h: problem.out_h as i32,
            out_w: problem.out_w as i32,
            outputs: problem.outputs as i32,
            blocks: problem.blocks() as i32,
            split_blocks: plan.split_blocks as i32,
            kernel: problem.kernel as i32,
            stride: problem.stride as i32,
            pad: problem.pad as i32,
            shift: i32::from(problem.view != View::Stored),
            spread: i32::from(problem.view == View::Spread),
            tile_w: plan.rectangle.w.ilog2() as i32,
            tile_h: plan.rectangle.h.ilog2() as i32,
            tiles: plan.tiles.map(|count| count as i32),
            patch_w: plan.patch_w as i32,
            patch_h: plan.patch_h as i32,
            patch_pixels: plan.patch_pixels as i32,
            odd: plan.patch_w.div_ceil(2) as i32,
            activation,
            slope,
            filler: 0,
            segments: SegmentsParams::new(input.segments)?.aligned_with(coefficients),
            epilogue: EpilogueParams::new(&Epilogue::default(), 0, problem.outputs, 1, problem.dtype)?,
        })
    }
}

impl Geometry {
    /// The convolution as its kernels see it.
    pub fn problem(&self, input: &Input, dtype: DType) -> Problem {
        let problem = Problem {
            images: self.n,
            h: self.h,
            w: self.w,
            channels: self.c,
            outputs: self.o,
            kernel: self.kernel,
            stride: self.stride,
            pad: self.pad,
            view: if self.zoom == 2 { View::Doubled } else { View::Stored },
            out_h: self.out_h,
            out_w: self.out_w,
            dtype,
            fused: input.fused(),
            normed: input.prologue.is_some(),
        };
        problem.flattened()
    }
}

/// Packs [O, C, k, k] for the kernels: [O / 16, C / 32, k * k, 16, 32], zeros where outputs or channels end.
pub fn pack(values: &[f32], [o, c, taps]: [usize; 3]) -> Vec<f32> {
    use rayon::prelude::*;
    let unit = taps * WEIGHT_ROWS * BLOCK_CHANNELS;
    let blocks = c.div_ceil(BLOCK_CHANNELS);
    let mut packed = vec![0.0; o.div_ceil(WEIGHT_ROWS) * blocks * unit];
    packed.par_chunks_exact_mut(unit.max(1)).enumerate().for_each(|(index, unit)| {
        let (first_output, first_channel) = (index / blocks * WEIGHT_ROWS, index % blocks * BLOCK_CHANNELS);
        for row in 0..WEIGHT_ROWS.min(o - first_output) {
            let line = &values[((first_output + row) * c + first_channel) * taps..];
            for channel in 0..BLOCK_CHANNELS.min(c - first_channel) {
                for tap in 0..taps {
                    unit[(tap * WEIGHT_ROWS + row) * BLOCK_CHANNELS + channel] = line[channel * taps + tap];
                }
            }
        }
    });
    packed
}

/// Computes `result` [N, H', W', O]; `scratch` has the bytes that the problem asks for.
pub fn conv2d(
    gpu: &Gpu,
    geometry: &Geometry,
    conv: &Conv2d,
    weight: &ConvWeight,
    epilogue: &Epilogue,
    scratch: &mut TensorMut,
    result: &mut TensorMut,
) -> Result<()> {
    let input = Input { segments: &conv.input, prologue: conv.prologue };
    let problem = geometry.problem(&input, result.dtype());
    let rows = geometry.out_h * geometry.out_w;
    launch(gpu, &problem, &input, weight.packed(), (epilogue, rows), scratch, result)
}

/// Starts the convolution of `problem`, whose epilogue counts `rows_per_image` pixels an image.
pub fn launch(
    gpu: &Gpu,
    problem: &Problem,
    input: &Input,
    weight: &Tensor,
    (epilogue, rows_per_image): (&Epilogue, usize),
    scratch: &mut TensorMut,
    result: &mut TensorMut,
) -> Result<()> {
    let dtype = result.dtype();
    if weight.dtype() != dtype || input.segments.dtype()? != dtype {
        return Err(Error::internal(format!(
            "a convolution of {} with weights of {} to {}",
            input.segments.dtype()?.name(),
            weight.dtype().name(),
            dtype.name()
        )));
    }
    let plan = problem.plan(gpu.info().multiprocessors)?;
    let mut params = ConvParams::new(problem, &plan, input)?;
    if plan.splits > 1 {
        let tiles = plan.tiles[2] * plan.tiles[3];
        (params.partial, params.counters) = (scratch.address()?, gpu.counters(tiles)?);
    }
    (params.out, params.weight) = (result.address()?, weight.address()?);
    params.epilogue =
        EpilogueParams::new(epilogue, params.out, problem.outputs, rows_per_image.max(1), dtype)?;
    // SAFETY: the op checked input, weights, epilogue and result against the problem, the plan covers it, and the
    // scratch has room for the sums of every split.
    unsafe { gpu.launch(plan.family(problem).of(dtype)?, plan.grid, &params) }
}
