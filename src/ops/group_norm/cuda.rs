//! Launches of kernels/norm/group_norm.cu.

use bytemuck::{NoUninit, Pod, Zeroable};

use super::Affine;
use super::plan::{self, MAX_SOURCES, Part, Plan, Sources};
use crate::device::Gpu;
use crate::device::gpu::kernels;
use crate::error::{Error, Result};
use crate::ops::Segments;
use crate::ops::gpu::{MAX_SEGMENTS, SegmentsParams, activation_code, address_or_null, aligned, must_be_f32};
use crate::tensor::{DType, Tensor, TensorMut};

/// Where there is no need for moments.
const NO_SLOT: u32 = u32::MAX;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct SourceParams {
    a: u64,
    b: u64,
    slots: [u32; 3],
    channels: u32,
    tiles_end: u32,
    aligned: u32,
}
const _: () = assert!(size_of::<SourceParams>() == 40);

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct GroupNormParams {
    coefficients: u64,
    statistics: u64,
    partial: u64,
    moments: u64,
    counters: u64,
    gamma: u64,
    beta: u64,
    adaln: u64,
    sources: [SourceParams; MAX_SOURCES],
    part_ends: [u32; MAX_SEGMENTS],
    part_slots: [u32; MAX_SEGMENTS],
    parts: u32,
    source_count: u32,
    channels: u32,
    groups: u32,
    area: u32,
    slices: u32,
    rows: u32,
    tiles: u32,
    slots: u32,
    adaln_stride: u32,
    adaln_f32: u32,
    eps: f32,
}
const _: () = assert!(size_of::<GroupNormParams>() == 496);

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct NormaliseParams {
    out: u64,
    coefficients: u64,
    onto: u64,
    area: u32,
    activation: u32,
    slope: f32,
    pad: u32,
    segments: SegmentsParams,
}
const _: () = assert!(size_of::<NormaliseParams>() == 216);

/// What a launch computes of the statistics of segments [N, H, W, C].
pub struct Wanted<'a> {
    pub groups: usize,
    pub eps: f32,
    /// [C] each
    pub weights: Option<(&'a Tensor, &'a Tensor)>,
    /// [N or 1, 2C]
    pub adaln: Option<&'a Tensor>,
    /// [N, 2, C]
    pub coefficients: Option<&'a mut TensorMut>,
    /// [N, groups, 2]: means, then 1 / deviation
    pub statistics: Option<&'a mut TensorMut>,
}

/// f32 of scratch that [`launch`] needs for segments of this size.
pub fn scratch(segments: &Segments, size: [usize; 3]) -> usize {
    Plan::scratch(size, segments.parts().iter().any(|part| part.plus.is_some()))
}

/// Takes the statistics and folds them; `scratch` has [`scratch`] elements.
pub fn launch(
    gpu: &Gpu,
    segments: &Segments,
    [images, area, channels]: [usize; 3],
    wanted: Wanted,
    scratch: &mut TensorMut,
) -> Result<()> {
    let dtype = segments.dtype()?;
    let parts = segments.parts();
    if parts.len() > MAX_SEGMENTS {
        return Err(Error::internal(format!("{} segments, a kernel takes {MAX_SEGMENTS}", parts.len())));
    }
    if images == 0 || area == 0 || channels == 0 {
        return Ok(());
    }
    let key = |tensor: &Tensor| Ok((tensor.address()?, tensor.shape().last()));
    let keys = parts
        .iter()
        .map(|part| Ok(Part { tensor: key(part.tensor)?, plus: part.plus.map(key).transpose()? }))
        .collect::<Result<Vec<_>>>()?;
    let list = Sources::of(&keys)?;
    let (ends, pairs) = (list.tile_ends(), list.pairs());
    let tiles = ends.last().copied().unwrap_or(0);
    let plan = Plan::new(images, area, tiles, pairs, gpu.info().multiprocessors)?;
    let mut all = [SourceParams::zeroed(); MAX_SOURCES];
    for ((to, source), end) in all.iter_mut().zip(&list.sources).zip(&ends) {
        let b = source.b.map_or(0, |b| b.0);
        *to = SourceParams {
            a: source.a.0,
            b,
            slots: source.slots.map(|slot| slot.map_or(NO_SLOT, |slot| slot as u32)),
            channels: source.a.1 as u32,
            tiles_end: *end as u32,
            aligned: u32::from(source.a.1 % 8 == 0) & aligned([source.a.0, b]),
        };
    }
    let (mut part_ends, mut own_slots) = ([0; MAX_SEGMENTS], [0; MAX_SEGMENTS]);
    let mut end = 0;
    for (i, (part, slot)) in keys.iter().zip(&list.part_slots).enumerate() {
        end += part.tensor.1 as u32;
        (part_ends[i], own_slots[i]) = (end, *slot as u32);
    }
    let (gamma, beta) = wanted.weights.unzip();
    must_be_f32("a norm's weight", gamma.into_iter().chain(beta))?;
    if let Some(adaln) = wanted.adaln
        && ![DType::F32, dtype].contains(&adaln.dtype())
    {
        return Err(Error::internal(format!("AdaLN of {} for {}", adaln.dtype().name(), dtype.name())));
    }
    let partial = scratch.address()?;
    let params = GroupNormParams {
        coefficients: wanted.coefficients.map_or(Ok(0), TensorMut::address)?,
        statistics: wanted.statistics.map_or(Ok(0), TensorMut::address)?,
        partial,
        moments: partial + 4 * plan.partial(pairs) as u64,
        counters: gpu.counters(plan.counters())?,
        gamma: address_or_null(gamma)?,
        beta: address_or_null(beta)?,
        adaln: address_or_null(wanted.adaln)?,
        sources: all,
        part_ends,
        part_slots: own_slots,
        parts: parts.len() as u32,
        source_count: list.sources.len() as u32,
        channels: channels as u32,
        groups: wanted.groups as u32,
        area: area as u32,
        slices: plan.columns.slices as u32,
        rows: plan.columns.slice as u32,
        tiles: tiles as u32,
        slots: list.slots as u32,
        adaln_stride: wanted
            .adaln
            .map_or(0, |rows| if rows.shape()[0] == 1 { 0 } else { 2 * channels as u32 }),
        adaln_f32: wanted.adaln.map_or(0, |rows| u32::from(rows.dtype() == DType::F32)),
        eps: wanted.eps,
    };
    let family = if pairs { &kernels::GROUP_NORM_PAIRS } else { &kernels::GROUP_NORM };
    // SAFETY: the op checked every shape; the plan's tests show that the scratch is large enough.
    unsafe { gpu.launch(family.of(dtype)?, plan.grid, &params) }
}

/// Fills `result` [N, H, W, C], `onto` being added to it.
pub fn normalise(
    gpu: &Gpu,
    segments: &Segments,
    affine: &Affine,
    onto: Option<&Tensor>,
    size: [usize; 3],
    result: &mut TensorMut,
) -> Result<()> {
    must_be_f32("a norm's coefficient", [&affine.coefficients])?;
    let (out, onto) = (result.address()?, address_or_null(onto)?);
    let (activation, slope) = activation_code(affine.activation);
    let params = NormaliseParams {
        out,
        coefficients: affine.coefficients.address()?,
        onto,
        area: size[1] as u32,
        activation,
        slope,
        pad: 0,
        segments: SegmentsParams::new(segments)?.aligned_with(out).aligned_with(onto),
    };
    // SAFETY: the result has the segments' pixels and channels, the coefficients their images and channels.
    unsafe { gpu.launch(kernels::NORMALISE.of(result.dtype())?, plan::normalise(size), &params) }
}
