//! Gradients of group norms, in the two steps in which they are applied.
//!
//! First the map, `y = activation(v)`, `v = x * a + b` ([`affine_gradient`]): with g = dL/dv,
//! dx = g * a, da = sum of g * x and db = sum of g over the image's pixels. Then its coefficients, in `fold`: they
//! depend on x through mean and variance alone, so what they add to dx is `x * p + q`, again a map per image
//! and channel.

use super::{Affine, GroupNorm, cpu_backward, cuda, cuda_backward, normalise};
use crate::autograd::Gradients;
use crate::device::{Device, Target};
use crate::error::{Error, Result};
use crate::ops::elementwise::{slice_channels, split_into};
use crate::ops::host::rows::wide;
use crate::ops::{Accumulate, Activation, Cx, OwnedSegments, Segment, Segments, sum, widened};
use crate::tensor::{DType, Tensor};

/// From the gradient [N, H, W, C] of `affine(segments)` to those of the segments and the coefficients.
pub fn affine_gradient(
    cx: &Cx,
    segments: &Segments,
    affine: &Affine,
    gradient: &Tensor,
    gradients: &mut Gradients,
) -> Result<()> {
    let (inner, coefficients) = map_gradient(cx, segments, affine, gradient)?;
    gradients.add(cx, &affine.coefficients, coefficients)?;
    if gradients.wants_any(segments) {
        split_into(cx, &inner, segments, gradients)?;
    }
    Ok(())
}

/// The gradients of what is mapped [N, H, W, C] and of the coefficients, f32 [N, 2, C].
fn map_gradient(
    cx: &Cx,
    segments: &Segments,
    affine: &Affine,
    gradient: &Tensor,
) -> Result<(Tensor, Tensor)> {
    if widened::applies(cx, gradient.dtype()) {
        let segments = widened::wide_segments(cx, segments)?;
        let gradient = widened::wide(cx, gradient)?;
        let (inner, coefficients) = map_gradient(cx, &segments.view(), affine, &gradient)?;
        return Ok((widened::narrow(cx, &inner)?, coefficients));
    }
    let [n, h, w, c] = segments.nhwc()?;
    let mut inner = cx.allocate([n, h, w, c], gradient.dtype())?;
    let mut coefficients = cx.allocate([n, 2, c], DType::F32)?;
    let scratch = match cx.device().target() {
        Target::Cpu => 0,
        Target::Gpu => cuda_backward::scratch(h * w),
    };
    let mut scratch = cx.allocate([scratch], DType::F32)?;
    match cx.device() {
        Device::Cpu(_) => {
            let out = (inner.host_mut()?, coefficients.host_mut()?);
            cpu_backward::affine_gradient(segments, affine, gradient.host()?, h * w, out)?;
        }
        Device::Gpu(gpu) => {
            let out = [&mut inner, &mut coefficients];
            cuda_backward::affine_gradient(gpu, segments, affine, gradient, out, &mut scratch)?;
        }
        Device::Plan(_) => {}
    }
    Ok((inner.freeze(), coefficients.freeze()))
}

/// What the backward of a group norm keeps.
pub struct Saved {
    segments: OwnedSegments,
    gamma: Tensor,
    beta: Tensor,
    adaln: Option<Tensor>,
    /// [N, groups, 2]: mean, 1 / sqrt(var + eps)
    statistics: Tensor,
    groups: usize,
    area: usize,
}

/// What [`fold`] makes of the gradient of the coefficients.
pub struct Folded {
    /// [C]
    pub gamma: Tensor,
    /// [C]
    pub beta: Tensor,
    /// [N or 1, 2C], f32
    pub adaln: Option<Tensor>,
    /// [N, 2, C]: p, then q of `x * p + q`
    pub input: Tensor,
}

/// The gradients of a norm's weights, of AdaLN and of the statistics from `gradient`, that of the coefficients
/// [N, 2, C].
///
/// With r = 1 / sqrt(var + eps), A = gamma * r, B = beta - mean * A, f = 1 + scale: a = A * f and
/// b = B * f + shift.
fn fold(cx: &Cx, saved: &Saved, gradient: &Tensor) -> Result<Folded> {
    let c = saved.gamma.shape().last();
    let n = gradient.shape()[0];
    let (mut gamma, mut beta) = (cx.allocate([c], DType::F32)?, cx.allocate([c], DType::F32)?);
    let mut adaln = match &saved.adaln {
        Some(adaln) => Some(cx.allocate([adaln.shape()[0], 2 * c], DType::F32)?),
        None => None,
    };
    let mut input = cx.allocate([n, 2, c], DType::F32)?;
    match cx.device() {
        Device::Cpu(_) => cpu_backward::fold(
            &cpu_backward::Norm {
                gamma: saved.gamma.host()?,
                beta: saved.beta.host()?,
                adaln: saved.adaln.as_ref().map(wide).transpose()?.as_deref(),
                statistics: saved.statistics.host()?,
                groups: saved.groups,
                area: saved.area,
            },
            gradient.host()?,
            cpu_backward::Outputs {
                gamma: gamma.host_mut()?,
                beta: beta.host_mut()?,
                adaln: adaln.as_mut().map(|rows| rows.host_mut()).transpose()?,
                input: input.host_mut()?,
            },
        ),
        Device::Gpu(gpu) => {
            let norm = cuda_backward::Norm {
                gamma: &saved.gamma,
                beta: &saved.beta,
                adaln: saved.adaln.as_ref(),
                statistics: &saved.statistics,
                groups: saved.groups,
                area: saved.area,
            };
            let out = cuda_backward::Outputs {
                gamma: &mut gamma,
                beta: &mut beta,
                adaln: adaln.as_mut(),
                input: &mut input,
            };
            cuda_backward::fold(gpu, &norm, gradient, out)?;
        }
        Device::Plan(_) => {}
    }
    Ok(Folded {
        gamma: gamma.freeze(),
        beta: beta.freeze(),
        adaln: adaln.map(|rows| rows.freeze()),
        input: input.freeze(),
    })
}

/// `before + map(part)`
fn map_onto(cx: &Cx, part: &Segments, map: &Affine, before: Option<Tensor>) -> Result<Tensor> {
    let Some(before) = before else { return normalise(cx, part, map) };
    let Device::Gpu(gpu) = cx.device() else {
        return sum(cx, before, normalise(cx, part, map)?);
    };
    let shape @ [n, h, w, c] = part.nhwc()?;
    let dtype = part.dtype()?;
    if before.dtype() != dtype || before.shape().count() != n * h * w * c {
        return Err(Error::internal(format!("a gradient {} for {shape:?}", before.shape())));
    }
    let mut result = cx.allocate(shape, dtype)?;
    cuda::normalise(gpu, part, map, Some(&before), [n, h * w, c], &mut result)?;
    Ok(result.freeze())
}

impl Saved {
    pub fn new(
        segments: &Segments,
        norm: &GroupNorm,
        adaln: Option<&Tensor>,
        statistics: Tensor,
        area: usize,
    ) -> Self {
        Saved {
            segments: segments.owned(),
            gamma: norm.gamma.clone(),
            beta: norm.beta.clone(),
            adaln: adaln.cloned(),
            statistics,
            groups: norm.groups,
            area,
        }
    }

    /// From the gradient of the coefficients [N, 2, C] to those of weights, AdaLN and segments.
    pub fn backward(&self, cx: &Cx, gradient: &Tensor, gradients: &mut Gradients) -> Result<()> {
        let found = fold(cx, self, gradient)?;
        gradients.add(cx, &self.gamma, found.gamma)?;
        gradients.add(cx, &self.beta, found.beta)?;
        if let (Some(adaln), Some(rows)) = (&self.adaln, found.adaln) {
            gradients.add(cx, adaln, crate::ops::elementwise::cast(cx, &rows, adaln.dtype())?)?;
        }
        let mut first = 0;
        for &Segment { tensor, plus } in self.segments.view().parts() {
            let count = tensor.shape().last();
            let wanted: Vec<&Tensor> =
                std::iter::once(tensor).chain(plus).filter(|tensor| gradients.wants(tensor)).collect();
            if !wanted.is_empty() {
                let coefficients = slice_channels(cx, &found.input, first, count)?;
                let map = Affine { coefficients, activation: Activation::None };
                let part = Segments::new(vec![Segment { tensor, plus }]);
                for value in wanted {
                    let before = gradients.take(value);
                    gradients.put(value, map_onto(cx, &part, &map, before)?);
                }
            }
            first += count;
        }
        Ok(())
    }
}
