//! Launches of kernels/image/colour.cu.

use bytemuck::NoUninit;

use crate::device::Gpu;
use crate::device::gpu::kernels;
use crate::error::Result;
use crate::ops::Segments;
use crate::ops::elementwise::plan::grid_of_32_bits;
use crate::ops::gpu::must_be_f32;
use crate::ops::group_norm::cuda::{Wanted, launch};
use crate::tensor::{Tensor, TensorMut};

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct BlurParams {
    out: u64,
    input: u64,
    count: u32,
    h: u32,
    w: u32,
    channels: u32,
    radius: u32,
    pad: u32,
}
const _: () = assert!(size_of::<BlurParams>() == 40);

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct MatchParams {
    out: u64,
    x: u64,
    own: u64,
    wanted: u64,
    count: u32,
    channels: u32,
    image: u32,
    pad: u32,
}
const _: () = assert!(size_of::<MatchParams>() == 48);

pub fn blur(gpu: &Gpu, image: &Tensor, radius: usize, result: &mut TensorMut) -> Result<()> {
    must_be_f32("an image", [image])?;
    let [_, h, w, c] = image.nhwc()?;
    let (grid, count) = grid_of_32_bits(image.shape().count())?;
    let params = BlurParams {
        out: result.address()?,
        input: image.address()?,
        count,
        h: h as u32,
        w: w as u32,
        channels: c as u32,
        radius: radius as u32,
        pad: 0,
    };
    // SAFETY: the result has the image's shape.
    unsafe { gpu.launch(kernels::BLUR, grid, &params) }
}

/// `statistics` [N, C, 2] of the image, then of the reference; `scratch` as group norm wants it.
pub fn adain(
    gpu: &Gpu,
    [image, reference]: [&Tensor; 2],
    statistics: &mut [TensorMut; 2],
    scratch: &mut TensorMut,
    result: &mut TensorMut,
) -> Result<()> {
    must_be_f32("an image", [image, reference])?;
    let [n, h, w, c] = image.nhwc()?;
    let area = h * w;
    // The unbiased variance plus eps is area / (area - 1) times the variance plus this, and the factor is the
    // same for both images.
    let eps = 1e-5 * area.saturating_sub(1).max(1) as f32 / area.max(1) as f32;
    for (tensor, to) in [image, reference].into_iter().zip(statistics.iter_mut()) {
        let wanted =
            Wanted { groups: c, eps, weights: None, adaln: None, coefficients: None, statistics: Some(to) };
        launch(gpu, &Segments::one(tensor), [n, area, c], wanted, scratch)?;
    }
    let [own, wanted] = statistics;
    let (grid, count) = grid_of_32_bits(image.shape().count())?;
    let params = MatchParams {
        out: result.address()?,
        x: image.address()?,
        own: own.address()?,
        wanted: wanted.address()?,
        count,
        channels: c as u32,
        image: (area * c) as u32,
        pad: 0,
    };
    // SAFETY: the result has the image's shape, the statistics its images and channels.
    unsafe { gpu.launch(kernels::MATCH_CHANNELS, grid, &params) }
}
