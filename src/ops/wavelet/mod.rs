//! Colour fixing: splitting an image into low and high frequencies, and matching channel statistics.
//!
//! The blur of radius r is [1 2 1; 2 4 2; 1 2 1] / 16 dilated by r with replicated edges; five levels
//! r = 1, 2, 4, 8, 16 in sequence leave the low frequencies, the rest are the high ones.

mod cpu;
mod cuda;

use super::Cx;
use super::Segments;
use super::calls::{Call, note};
use super::elementwise::combine;
use super::group_norm;
use crate::device::{Device, Target};
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// Levels of the published decomposition.
pub const LEVELS: u32 = 5;

fn blur(cx: &Cx, image: &Tensor, radius: usize) -> Result<Tensor> {
    let [n, h, w, c] = image.nhwc()?;
    note(cx, DType::F32, || Call::Blur { image: [n, h, w, c], radius });
    let mut result = cx.allocate(image.shape(), DType::F32)?;
    let scratch = match cx.device().target() {
        Target::Cpu => image.shape().count(),
        Target::Gpu => 0,
    };
    let mut scratch = cx.allocate([scratch], DType::F32)?;
    match cx.device() {
        Device::Cpu(_) => {
            cpu::blur(image.host()?, [n, h, w, c], radius, scratch.host_mut()?, result.host_mut()?);
        }
        Device::Gpu(gpu) => cuda::blur(gpu, image, radius, &mut result)?,
        Device::Plan(_) => {}
    }
    cx.constant("blur", &[image], result.freeze())
}

/// The low frequencies of [N, H, W, C] after `levels` blurs; the high ones are the image minus these.
pub fn low_frequencies(cx: &Cx, image: &Tensor, levels: u32) -> Result<Tensor> {
    let mut low = image.clone();
    for level in 0..levels {
        low = blur(cx, &low, 1 << level)?;
    }
    Ok(low)
}

/// The detail of `image` on the low frequencies of `reference`, both [N, H, W, C], split after `levels` blurs.
pub fn wavelet_fix(cx: &Cx, image: &Tensor, reference: &Tensor, levels: u32) -> Result<Tensor> {
    let own = low_frequencies(cx, image, levels)?;
    let wanted = low_frequencies(cx, reference, levels)?;
    combine(cx, &[(1.0, image), (-1.0, &own), (1.0, &wanted)], 0.0)
}

/// `image` with the mean and standard deviation of `reference`, per image and channel (AdaIN). The
/// deviations are those of the unbiased variance plus 1e-5, as DiffBIR takes them.
pub fn adain_fix(cx: &Cx, image: &Tensor, reference: &Tensor) -> Result<Tensor> {
    let shape @ [n, h, w, c] = image.nhwc()?;
    if reference.shape() != image.shape() {
        return Err(Error::internal(format!("{} is matched to {}", image.shape(), reference.shape())));
    }
    let mut result = cx.allocate(image.shape(), DType::F32)?;
    let (scratch, channels) = match cx.device().target() {
        Target::Cpu => (0, 0),
        Target::Gpu => (group_norm::cuda::scratch(&Segments::one(image), [n, h * w, c]), c),
    };
    let mut scratch = cx.allocate([scratch], DType::F32)?;
    let statistics = || cx.allocate([n, channels, 2], DType::F32);
    let mut statistics = [statistics()?, statistics()?];
    match cx.device() {
        Device::Cpu(_) => cpu::adain(image.host()?, reference.host()?, shape, result.host_mut()?),
        Device::Gpu(gpu) => {
            cuda::adain(gpu, [image, reference], &mut statistics, &mut scratch, &mut result)?;
        }
        Device::Plan(_) => {}
    }
    cx.constant("adain_fix", &[image, reference], result.freeze())
}
