//! Gradients of convolutions on the GPU: launches of kernels/conv.

use bytemuck::NoUninit;

use super::cuda::{ConvParams, Input, launch};
use super::plan::packed_elements;
use super::{Conv2d, ConvWeight, Geometry, plan_backward};
use crate::device::gpu::Grid;
use crate::device::gpu::kernels::{self, Family};
use crate::device::{Device, Gpu};
use crate::error::{Error, Result};
use crate::ops::gpu::aligned;
use crate::ops::{Cx, Epilogue, Segments};
use crate::tensor::{DType, Tensor};

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct WgradParams {
    conv: ConvParams,
    gradient: u64,
    scale: f32,
    split_tiles: i32,
    aligned: u32,
    filler: u32,
}
const _: () = assert!(size_of::<WgradParams>() == 392);

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct WeightsParams {
    to: u64,
    from: u64,
    outputs: i32,
    channels: i32,
    kernel: i32,
    zoom: i32,
    chunks: u64,
}
const _: () = assert!(size_of::<WeightsParams>() == 40);

/// Launches a kernel that makes `elements` packed weights, eight a thread.
fn pack(gpu: &Gpu, family: &Family, dtype: DType, elements: usize, params: WeightsParams) -> Result<()> {
    const THREADS: usize = 256;
    let chunks = elements / 8;
    let blocks = u32::try_from(chunks.div_ceil(THREADS))
        .map_err(|_| Error::internal(format!("{elements} weights in one launch")))?;
    let params = WeightsParams { chunks: chunks as u64, ..params };
    // SAFETY: the caller gives layouts of these sizes; a thread writes its own eight elements.
    unsafe { gpu.launch(family.of(dtype)?, Grid::linear(blocks, THREADS as u32), &params) }
}

/// Writes `master`, f32 [O, C, k, k], over packed weights of these sizes.
pub fn repack(gpu: &Gpu, master: &Tensor, packed: &mut Tensor, [o, c, kernel]: [usize; 3]) -> Result<()> {
    if master.dtype() != DType::F32 || master.shape().count() != o * c * kernel * kernel {
        return Err(Error::internal(format!(
            "{} are no weights [{o}, {c}, {kernel}, {kernel}]",
            master.shape()
        )));
    }
    if !packed.is_unshared() {
        return Err(Error::internal("weights that others hold are written"));
    }
    let (to, from) = (packed.address()?, master.address()?);
    let sizes = [o, c, kernel].map(|size| size as i32);
    let params = WeightsParams {
        to,
        from,
        outputs: sizes[0],
        channels: sizes[1],
        kernel: sizes[2],
        zoom: 1,
        chunks: 0,
    };
    pack(gpu, &kernels::CONV_PACK, packed.dtype(), packed.shape().count(), params)
}

/// `scale` times the gradient of what was convolved: gradient [N, H', W', O] -> [N, H, W, C].
pub fn input_gradient(
    cx: &Cx,
    g: &Geometry,
    weight: &ConvWeight,
    gradient: &Tensor,
    scale: f32,
) -> Result<Tensor> {
    let dtype = gradient.dtype();
    let problem = g.input_gradient(dtype);
    let elements = packed_elements(g.c, g.o, g.kernel + g.zoom - 1);
    let mut result = cx.allocate([g.n, g.h, g.w, g.c], dtype)?;
    let mut turned = cx.allocate([elements], dtype)?;
    let mut scratch = cx.allocate([problem.scratch() / DType::F32.size()], DType::F32)?;
    if let Device::Gpu(gpu) = cx.device() {
        if weight.packed().dtype() != dtype {
            let other = weight.packed().dtype().name();
            return Err(Error::internal(format!("a gradient of {} with weights of {other}", dtype.name())));
        }
        let params = WeightsParams {
            to: turned.address()?,
            from: weight.packed().address()?,
            outputs: g.o as i32,
            channels: g.c as i32,
            kernel: g.kernel as i32,
            zoom: g.zoom as i32,
            chunks: 0,
        };
        pack(gpu, &kernels::CONV_TURN, dtype, elements, params)?;
        let (turned, epilogue) = (turned.freeze(), Epilogue::default().scale(scale));
        let input = Input { segments: &Segments::one(gradient), prologue: None };
        launch(gpu, &problem, &input, &turned, (&epilogue, 1), &mut scratch, &mut result)?;
    }
    Ok(result.freeze())
}

/// `scale` times the gradient of the weights, f32 [O, C, k, k].
pub fn weight_gradient(
    cx: &Cx,
    g: &Geometry,
    conv: &Conv2d,
    gradient: &Tensor,
    scale: f32,
) -> Result<Tensor> {
    let dtype = gradient.dtype();
    let input = Input { segments: &conv.input, prologue: conv.prologue };
    let problem = g.problem(&input, dtype);
    let mut result = cx.allocate([g.o, g.c, g.kernel, g.kernel], DType::F32)?;
    let scratch = plan_backward::weight_scratch(&problem)? / DType::F32.size();
    let mut scratch = cx.allocate([scratch], DType::F32)?;
    if let Device::Gpu(gpu) = cx.device() {
        if conv.input.dtype()? != dtype {
            return Err(Error::internal("a convolution's input and gradient differ in type"));
        }
        let plan = plan_backward::weight_gradient(&problem, gpu.info().multiprocessors)?;
        let mut params = ConvParams::new(&problem, &plan.whole, &input)?;
        params.out = result.address()?;
        if plan.splits > 1 {
            let tiles = plan.grid.blocks[0] as usize;
            (params.partial, params.counters) = (scratch.address()?, gpu.counters(tiles)?);
        }
        let gradient = gradient.address()?;
        let params = WgradParams {
            conv: params,
            gradient,
            scale,
            split_tiles: plan.split_tiles as i32,
            aligned: aligned([gradient, (g.o * dtype.size()) as u64]),
            filler: 0,
        };
        let family = if g.kernel == 3 { &kernels::CONV_WGRAD_3X3 } else { &kernels::CONV_WGRAD_1X1 };
        // SAFETY: the forward checked input and result against the geometry, the gradient is like the result, and
        // the scratch has room for the sums of every split.
        unsafe { gpu.launch(family.of(dtype)?, plan.grid, &params)? };
    }
    Ok(result.freeze())
}
