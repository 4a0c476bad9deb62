//! Bicubic resizing with antialias (a = -0.5, align_corners off), as PyTorch's `interpolate` does it.
//!
//! Along an axis in -> out, r = in / out: support 2 * max(r, 1), centre r * (i + 1/2), taps j from
//! int(centre - support + 1/2) to int(centre + support + 1/2), clipped to the image, weights
//! cubic((j - centre + 1/2) / max(r, 1)), normalised to sum 1. Values are not clamped.

mod cpu;
mod cuda;

use super::calls::{Call, note};
use super::{Accumulate, Cx};
use crate::device::{Device, Target};
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// [N, H, W, C] -> [N, h, w, C]; the identity when the size is the same.
pub fn resize_bicubic(cx: &Cx, image: &Tensor, h: usize, w: usize) -> Result<Tensor> {
    let [n, own_h, own_w, c] = image.nhwc()?;
    if (own_h, own_w) == (h, w) {
        return Ok(image.clone());
    }
    if h == 0 || w == 0 || own_h == 0 || own_w == 0 {
        return Err(Error::internal(format!("{} is resized to {h} x {w}", image.shape())));
    }
    note(cx, DType::F32, || Call::Resize { image: [n, own_h, own_w, c], to: [h, w] });
    let axes = [bicubic_taps(own_h, h), bicubic_taps(own_w, w)];
    let result = resample(cx, image, &axes)?;
    if !cx.tracks(&[image]) {
        return Ok(result);
    }
    let input = image.clone();
    Ok(cx.record(&[image], result, move |cx, gradient, gradients| {
        // The gradient of the image is that of the resized one under the transposed taps.
        let [down, across] = axes;
        let turned = [transposed(&down, own_h), transposed(&across, own_w)];
        gradients.add(cx, &input, resample(cx, gradient, &turned)?)
    }))
}

/// Applies the taps of rows and of columns: [N, H, W, C] -> [N, down, across, C].
fn resample(cx: &Cx, image: &Tensor, axes: &[Vec<Taps>; 2]) -> Result<Tensor> {
    let size @ [n, own_h, _, c] = image.nhwc()?;
    let [h, w] = [axes[0].len(), axes[1].len()];
    let mut result = cx.allocate([n, h, w, c], DType::F32)?;
    let mut between = cx.allocate([n, own_h, w, c], DType::F32)?;
    let tables = match cx.device().target() {
        Target::Cpu => [0, 0],
        Target::Gpu => [cuda::table(&axes[0]), cuda::table(&axes[1])],
    };
    let mut tables = [cx.allocate([tables[0]], DType::F32)?, cx.allocate([tables[1]], DType::F32)?];
    match cx.device() {
        Device::Cpu(_) => {
            cpu::resample(image.host()?, size, axes, between.host_mut()?, result.host_mut()?);
        }
        Device::Gpu(gpu) => cuda::resample(gpu, image, axes, &mut tables, &mut between, &mut result)?,
        Device::Plan(_) => {}
    }
    Ok(result.freeze())
}

/// The same on host values: `values` [N, H, W, C] -> [N, h, w, C], all sizes at least 1.
pub fn resize_bicubic_host(values: &[f32], [n, own_h, own_w, c]: [usize; 4], h: usize, w: usize) -> Vec<f32> {
    assert_eq!(values.len(), n * own_h * own_w * c, "the values do not fill their shape");
    assert!(n * own_h * own_w * c * h * w > 0, "a side is zero");
    if (own_h, own_w) == (h, w) {
        return values.to_vec();
    }
    let mut across = vec![0.0; n * own_h * w * c];
    let mut result = vec![0.0; n * h * w * c];
    let axes = [bicubic_taps(own_h, h), bicubic_taps(own_w, w)];
    cpu::resample(values, [n, own_h, own_w, c], &axes, &mut across, &mut result);
    result
}

/// The taps of one output position: the first input index and the weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Taps {
    pub first: usize,
    pub weights: Vec<f32>,
}

/// The taps of every output position of an axis, weights computed in f64.
pub fn bicubic_taps(input: usize, output: usize) -> Vec<Taps> {
    let ratio = input as f64 / output as f64;
    let widen = ratio.max(1.0);
    let support = 2.0 * widen;
    (0..output)
        .map(|i| {
            let centre = ratio * (i as f64 + 0.5);
            let first = ((centre - support + 0.5) as i64).max(0);
            let end = ((centre + support + 0.5) as i64).min(input as i64);
            let raw: Vec<f64> = (first..end).map(|j| cubic((j as f64 - centre + 0.5) / widen)).collect();
            let total: f64 = raw.iter().sum();
            Taps { first: first as usize, weights: raw.iter().map(|v| (v / total) as f32).collect() }
        })
        .collect()
}

/// The taps of the transposed map, from outputs to `input` positions: which outputs read each of them, and how
/// much. Windows move along with their outputs, so the readers of one input lie side by side.
fn transposed(taps: &[Taps], input: usize) -> Vec<Taps> {
    let weight = |i: usize, j: usize| {
        let Taps { first, weights } = &taps[i];
        j.checked_sub(*first).and_then(|place| weights.get(place)).copied()
    };
    (0..input)
        .map(|j| {
            let readers: Vec<usize> = (0..taps.len()).filter(|&i| weight(i, j).is_some()).collect();
            let (first, last) = (readers.first().copied().unwrap_or(0), readers.last());
            let all = last.map_or(0..0, |&last| first..last + 1);
            Taps { first, weights: all.map(|i| weight(i, j).unwrap_or(0.0)).collect() }
        })
        .collect()
}

/// Keys' cubic kernel with a = -0.5.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A
    } else {
        0.0
    }
}
