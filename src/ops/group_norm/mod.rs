//! Group normalisation over a virtual concatenation, as a per-image, per-channel affine map.
//!
//! For group g of image n: `y = (x - mean) / sqrt(var + eps) * gamma + beta`, and with AdaLN
//! `y * (1 + scale) + shift`. Both are one multiply-add per element, `x * a[n, c] + b[n, c]`, which
//! convolutions apply while they load: the normalised tensor need not exist.

mod backward;
mod cpu;
mod cpu_backward;
pub(super) mod cuda;
mod cuda_backward;
pub mod plan;

use super::calls::{Call, note, parts};
use super::host::element::with_element;
use super::{Activation, Cx, Segments};
use crate::device::{Device, Target};
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};
pub use backward::affine_gradient;

/// The learned part of a group norm.
#[derive(Clone, Copy, Debug)]
pub struct GroupNorm<'a> {
    /// [C]
    pub gamma: &'a Tensor,
    /// [C]
    pub beta: &'a Tensor,
    pub groups: usize,
    pub eps: f32,
}

/// `activation(x * a + b)` with `a`, `b` per image and channel.
#[derive(Clone, Debug)]
pub struct Affine {
    /// [N, 2, C] in f32: a, then b
    pub coefficients: Tensor,
    pub activation: Activation,
}

/// Statistics of `segments` [N, H, W, C] folded with the norm's weights; `adaln` is [N, 2C], scales then
/// shifts (or [1, 2C] for all images).
///
/// # Errors
/// The channels are not a multiple of the groups, or a weight has another length.
pub fn group_norm(
    cx: &Cx,
    segments: &Segments,
    norm: &GroupNorm,
    adaln: Option<&Tensor>,
    activation: Activation,
) -> Result<Affine> {
    let [n, h, w, c] = segments.nhwc()?;
    if norm.groups == 0 || c % norm.groups != 0 || *norm.gamma.shape() != [c] || *norm.beta.shape() != [c] {
        return Err(Error::internal(format!("group norm of {} groups over {c} channels", norm.groups)));
    }
    if let Some(adaln) = adaln
        && ![[n, 2 * c], [1, 2 * c]].iter().any(|rows| *adaln.shape() == *rows)
    {
        return Err(Error::internal(format!("AdaLN {} is not [{n}, {}]", adaln.shape(), 2 * c)));
    }
    note(cx, segments.dtype()?, || Call::GroupNorm {
        image: [n, h, w],
        parts: parts(segments),
        groups: norm.groups,
        adaln: adaln.is_some(),
    });
    let mut inputs = segments.tensors();
    inputs.extend([norm.gamma, norm.beta]);
    inputs.extend(adaln);
    let tracked = cx.tracks(&inputs);
    let size = [n, h * w, c];
    let mut result = cx.allocate([n, 2, c], DType::F32)?;
    // mean and 1 / sqrt(var + eps) of every group, which only a backward asks for
    let mut statistics = match tracked {
        true => Some(cx.allocate([n, norm.groups, 2], DType::F32)?),
        false => None,
    };
    let scratch = match cx.device().target() {
        Target::Cpu => 0,
        Target::Gpu => cuda::scratch(segments, size),
    };
    let mut scratch = cx.allocate([scratch], DType::F32)?;
    match cx.device() {
        Device::Cpu(_) => with_element!(segments.dtype()?, T => {
            let statistics = statistics.as_mut().map(|statistics| statistics.host_mut()).transpose()?;
            cpu::coefficients::<T>(segments, norm, adaln, size, statistics, result.host_mut()?)
        })?,
        Device::Gpu(gpu) => {
            let wanted = cuda::Wanted {
                groups: norm.groups,
                eps: norm.eps,
                weights: Some((norm.gamma, norm.beta)),
                adaln,
                coefficients: Some(&mut result),
                statistics: statistics.as_mut(),
            };
            cuda::launch(gpu, segments, size, wanted, &mut scratch)?;
        }
        Device::Plan(_) => {}
    }
    drop(scratch);
    let mut coefficients = result.freeze();
    if let Some(statistics) = statistics {
        let saved = backward::Saved::new(segments, norm, adaln, statistics.freeze(), h * w);
        coefficients = cx.record(&inputs, coefficients, move |cx, gradient, gradients| {
            saved.backward(cx, gradient, gradients)
        });
    }
    Ok(Affine { coefficients, activation })
}

/// Writes `affine(segments)` out: [N, H, W, C]. For consumers that cannot apply it while loading.
pub fn normalise(cx: &Cx, segments: &Segments, affine: &Affine) -> Result<Tensor> {
    let [n, h, w, c] = segments.nhwc()?;
    note(cx, segments.dtype()?, || Call::Normalise { image: [n, h, w], channels: c });
    let mut result = cx.allocate([n, h, w, c], segments.dtype()?)?;
    match cx.device() {
        Device::Cpu(_) => with_element!(result.dtype(), T => {
            cpu::normalise::<T>(segments, affine, h * w, result.host_mut()?)
        })?,
        Device::Gpu(gpu) => cuda::normalise(gpu, segments, affine, None, [n, h * w, c], &mut result)?,
        Device::Plan(_) => {}
    }
    let mut inputs = segments.tensors();
    inputs.push(&affine.coefficients);
    if !cx.tracks(&inputs) {
        return Ok(result.freeze());
    }
    let (parts, affine) = (segments.owned(), affine.clone());
    Ok(cx.record(&inputs, result.freeze(), move |cx, gradient, gradients| {
        affine_gradient(cx, &parts.view(), &affine, gradient, gradients)
    }))
}
