//! Group normalisation over a virtual concatenation, as a per-image, per-channel affine map.
//!
//! For group g of image n: `y = (x - mean) / sqrt(var + eps) * gamma + beta`, and with AdaLN
//! `y * (1 + scale) + shift`. Both are one multiply-add per element, `x * a[n, c] + b[n, c]`, which
//! convolutions apply while they load: the normalised tensor need not exist.

mod cpu;
pub(super) mod cuda;
pub mod plan;

use super::host::element::with_element;
use super::{Activation, Cx, Segments};
use crate::device::{Device, Target};
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

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
    let size = [n, h * w, c];
    let mut result = cx.allocate([n, 2, c], DType::F32)?;
    let scratch = match cx.device().target() {
        Target::Cpu => 0,
        Target::Gpu => cuda::scratch(segments, size),
    };
    let mut scratch = cx.allocate([scratch], DType::F32)?;
    match cx.device() {
        Device::Cpu(_) => with_element!(segments.dtype()?, T => {
            cpu::coefficients::<T>(segments, norm, adaln, size, result.host_mut()?)
        })?,
        Device::Gpu(gpu) => {
            cuda::coefficients(gpu, segments, norm, adaln, size, &mut result, &mut scratch)?;
        }
        Device::Plan(_) => {}
    }
    let mut inputs = segments.tensors();
    inputs.extend([norm.gamma, norm.beta]);
    inputs.extend(adaln);
    let coefficients = cx.constant("group_norm", &inputs, result.freeze())?;
    Ok(Affine { coefficients, activation })
}

/// Writes `affine(segments)` out: [N, H, W, C]. For consumers that cannot apply it while loading.
pub fn normalise(cx: &Cx, segments: &Segments, affine: &Affine) -> Result<Tensor> {
    let [n, h, w, c] = segments.nhwc()?;
    let mut result = cx.allocate([n, h, w, c], segments.dtype()?)?;
    match cx.device() {
        Device::Cpu(_) => with_element!(result.dtype(), T => {
            cpu::normalise::<T>(segments, affine, h * w, result.host_mut()?)
        })?,
        Device::Gpu(gpu) => cuda::normalise(gpu, segments, affine, [n, h * w, c], &mut result)?,
        Device::Plan(_) => {}
    }
    let mut inputs = segments.tensors();
    inputs.push(&affine.coefficients);
    cx.constant("normalise", &inputs, result.freeze())
}
