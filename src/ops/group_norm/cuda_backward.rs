//! Launches of kernels/norm/group_norm_backward.cu.

use bytemuck::NoUninit;

use super::Affine;
use crate::device::Gpu;
use crate::device::gpu::{Grid, kernels};
use crate::error::{Error, Result};
use crate::ops::Segments;
use crate::ops::columns::{self, ColumnParams};
use crate::ops::gpu::{SegmentsParams, activation_code, address_or_null, must_be_f32};
use crate::tensor::{DType, Tensor, TensorMut};

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct AffineGradientParams {
    out: u64,
    sums: u64,
    gradient: u64,
    coefficients: u64,
    activation: u32,
    slope: f32,
    columns: ColumnParams,
    segments: SegmentsParams,
}
const _: () = assert!(size_of::<AffineGradientParams>() == 256);

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct GroupNormFoldParams {
    map: u64,
    to_gamma: u64,
    to_beta: u64,
    to_adaln: u64,
    gradient: u64,
    statistics: u64,
    gamma: u64,
    beta: u64,
    adaln: u64,
    images: u32,
    groups: u32,
    channels: u32,
    area: u32,
    adaln_rows: u32,
    adaln_f32: u32,
}
const _: () = assert!(size_of::<GroupNormFoldParams>() == 96);

/// f32 of scratch that [`affine_gradient`] needs.
pub fn scratch(area: usize) -> usize {
    columns::scratch(area, 2)
}

/// Fills `result`, dx [N, H, W, C], and `sums`, the gradient of the coefficients [N, 2, C].
pub fn affine_gradient(
    gpu: &Gpu,
    segments: &Segments,
    affine: &Affine,
    gradient: &Tensor,
    [result, sums]: [&mut TensorMut; 2],
    scratch: &mut TensorMut,
) -> Result<()> {
    let dtype = segments.dtype()?;
    if gradient.dtype() != dtype {
        return Err(Error::internal(format!(
            "a gradient of {} for {}",
            gradient.dtype().name(),
            dtype.name()
        )));
    }
    must_be_f32("a norm's coefficient", [&affine.coefficients])?;
    let [n, h, w, c] = segments.nhwc()?;
    if n * h * w * c == 0 {
        return sums.clear();
    }
    let launch = columns::launch(gpu, [n, h * w, c], 2, scratch)?;
    let (out, from) = (result.address()?, gradient.address()?);
    let (activation, slope) = activation_code(affine.activation);
    let segments = SegmentsParams::new(segments)?.aligned_with(out).aligned_with(from);
    let params = AffineGradientParams {
        out,
        sums: sums.address()?,
        gradient: from,
        coefficients: affine.coefficients.address()?,
        activation,
        slope,
        columns: launch.params,
        segments,
    };
    // SAFETY: result and gradient have the segments' shape and type, the coefficients their images and channels.
    unsafe { gpu.launch(kernels::AFFINE_GRADIENT.of(dtype)?, launch.grid, &params) }
}

/// A norm as its backward sees it; see `backward::Saved`.
pub struct Norm<'a> {
    pub gamma: &'a Tensor,
    pub beta: &'a Tensor,
    pub adaln: Option<&'a Tensor>,
    /// [N, groups, 2]
    pub statistics: &'a Tensor,
    pub groups: usize,
    pub area: usize,
}

/// See `backward::Folded`.
pub struct Outputs<'a> {
    pub gamma: &'a mut TensorMut,
    pub beta: &'a mut TensorMut,
    pub adaln: Option<&'a mut TensorMut>,
    pub input: &'a mut TensorMut,
}

/// Fills `out` from the gradient of the coefficients [N, 2, C].
pub fn fold(gpu: &Gpu, norm: &Norm, gradient: &Tensor, out: Outputs) -> Result<()> {
    must_be_f32("a norm's weight", [norm.gamma, norm.beta, norm.statistics, gradient])?;
    let (images, channels) = (gradient.shape()[0], norm.gamma.shape().last());
    // Only AdaLN's rows may be stored as networks store them.
    let dtype = norm.adaln.map_or(DType::F32, Tensor::dtype);
    let params = GroupNormFoldParams {
        map: out.input.address()?,
        to_gamma: out.gamma.address()?,
        to_beta: out.beta.address()?,
        to_adaln: out.adaln.map_or(Ok(0), TensorMut::address)?,
        gradient: gradient.address()?,
        statistics: norm.statistics.address()?,
        gamma: norm.gamma.address()?,
        beta: norm.beta.address()?,
        adaln: address_or_null(norm.adaln)?,
        images: images as u32,
        groups: norm.groups as u32,
        channels: channels as u32,
        area: norm.area as u32,
        adaln_rows: norm.adaln.map_or(0, |rows| rows.shape()[0]) as u32,
        adaln_f32: u32::from(dtype == DType::F32),
    };
    let grid = Grid { blocks: [norm.groups as u32, images as u32 + 1, 1], threads: 128, shared_bytes: 128 };
    // SAFETY: the op allocated every result for these images and channels.
    unsafe { gpu.launch(kernels::GROUP_NORM_FOLD.of(dtype)?, grid, &params) }
}
