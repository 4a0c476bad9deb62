//! How much memory a run will need, found by running its shapes on the planning device.

use super::options::Options;
use super::progress::Silent;
use super::run::{Pipeline, require_plan};
use super::system::System;
use super::trace::NoTrace;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::ops::Cx;
use crate::sampler::guidance::Guidance;
use crate::sampler::noise::Seeded;
use crate::tensor::Tensor;

/// Bytes that a run needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    pub weights: usize,
    /// the most that is alive at once besides the weights
    pub activations: usize,
}

impl Estimate {
    pub fn total(&self) -> usize {
        self.weights + self.activations
    }
}

/// The estimate for `images` images of `h` x `w` at once, whose prompts have features of `context` rows and columns. `system` and `cx` live on a planning device; the
/// peak of an earlier estimate on the same device is included, so give each its own.
///
/// # Errors
/// Options or sizes that cannot be.
pub fn estimate(
    cx: &Cx,
    system: &System,
    options: &Options,
    [images, h, w]: [usize; 3],
    context: [usize; 2],
) -> Result<Estimate> {
    require_plan(cx)?;
    let device = cx.device();
    let low = Tensor::from_f32(device, &[], [images, h, w, 3])?;
    let text = Tensor::from_f32(device, &[], [images, context[0], context[1]])?;
    // One step has the memory of them all, except where the ControlNet stops.
    let options = Options { steps: options.steps.min(2), ..options.clone() };
    let guided = Guidance::new(options.cfg)?.is_on();
    let (mut noise, mut trace) = (Seeded::new(0), NoTrace);
    let mut pipeline =
        Pipeline { cx, system, options: &options, noise: &mut noise, trace: &mut trace, progress: &Silent };
    pipeline.upscale(&low, &text, guided.then_some(&text))?;
    match device {
        Device::Plan(plan) => {
            Ok(Estimate { weights: plan.weight_bytes(), activations: plan.activation_bytes() })
        }
        Device::Cpu(_) | Device::Gpu(_) => Err(Error::internal("a plan needs the planning device")),
    }
}
