//! AdamW (Loshchilov and Hutter, arXiv 1711.05101) as PyTorch defines it, over all parameters at once, and the
//! global norm of their gradients.
//!
//! With g the gradient: m += (1 - beta1) * (g - m), v = beta2 * v + (1 - beta2) * g^2, then
//! w = w * (1 - rate * decay) - rate / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + eps).
//! Everything but gradients and copies is f32.

mod cpu;
mod cuda;

use super::Cx;
use super::gpu::must_be_f32;
use crate::device::{Device, Target};
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// One parameter and its state, all with the same number of elements. What is written must be held by nobody else.
#[derive(Debug)]
pub struct Parameter<'a> {
    pub master: &'a mut Tensor,
    /// running mean of the gradients
    pub first: &'a mut Tensor,
    /// running mean of their squares
    pub second: &'a mut Tensor,
    /// of any element type
    pub gradient: &'a Tensor,
    /// what a network computes with, of its element type and in the order of `master`: written in passing
    pub copy: Option<&'a mut Tensor>,
}

/// The constants of a training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    pub rate: f32,
    pub beta1: f32,
    pub beta2: f32,
    pub eps: f32,
    pub decay: f32,
}

/// What is done to gradients before they are used.
#[derive(Clone, Copy, Debug)]
pub struct Scaling<'a> {
    /// a factor: one over the number of batches whose gradients were added up
    pub scale: f32,
    /// the largest global norm after scaling, and what [`gradient_norm`] found it to be
    pub limit: Option<(f32, &'a Tensor)>,
}

/// The factors of one step, computed in f64.
#[derive(Clone, Copy, Debug)]
struct Factors {
    /// 1 - rate * decay
    keep: f32,
    /// rate / (1 - beta1^t)
    step: f32,
    /// 1 / sqrt(1 - beta2^t)
    root: f32,
}

impl AdamW {
    fn factors(&self, step: u64) -> Factors {
        let bias = |beta: f32| 1.0 - f64::from(beta).powf(step as f64);
        Factors {
            keep: (1.0 - f64::from(self.rate) * f64::from(self.decay)) as f32,
            step: (f64::from(self.rate) / bias(self.beta1)) as f32,
            root: (1.0 / bias(self.beta2).sqrt()) as f32,
        }
    }
}

impl Parameter<'_> {
    fn check(&mut self) -> Result<()> {
        must_be_f32("a parameter's state", [&*self.master, &*self.first, &*self.second])?;
        let count = self.master.shape().count();
        let others = [&*self.first, &*self.second, self.gradient];
        if others.into_iter().chain(self.copy.as_deref()).any(|tensor| tensor.shape().count() != count) {
            return Err(Error::internal(format!(
                "a parameter {} has a state of other size",
                self.master.shape()
            )));
        }
        let written = [&mut *self.master, &mut *self.first, &mut *self.second];
        if !written.into_iter().chain(self.copy.as_deref_mut()).all(Tensor::is_unshared) {
            return Err(Error::internal("a parameter that others hold is written"));
        }
        Ok(())
    }
}

/// `scale` times the square root of the sum of squares of all gradients: f32 [1]. The same bits whatever the order
/// of work.
pub fn gradient_norm(cx: &Cx, gradients: &[&Tensor], scale: f32) -> Result<Tensor> {
    let mut result = cx.allocate([1], DType::F32)?;
    let mut scratch = match cx.device().target() {
        Target::Cpu => [cx.allocate([0], DType::F32)?, cx.allocate([0], DType::F32)?],
        Target::Gpu => {
            let chunks = cuda::chunks(gradients.iter().copied());
            [cx.allocate([cuda::table(gradients.len())], DType::F32)?, cx.allocate([chunks], DType::F32)?]
        }
    };
    match cx.device() {
        Device::Cpu(_) => cpu::gradient_norm(gradients, scale, result.host_mut()?)?,
        Device::Gpu(gpu) => cuda::gradient_norm(gpu, gradients, scale, &mut scratch, &mut result)?,
        Device::Plan(_) => {}
    }
    cx.constant("gradient_norm", gradients, result.freeze())
}

/// Step number `step`, from 1, of every parameter, in place.
///
/// # Errors
/// State of another size or type, or memory that somebody else holds.
pub fn adamw(
    cx: &Cx,
    parameters: &mut [Parameter],
    settings: &AdamW,
    scaling: &Scaling,
    step: u64,
) -> Result<()> {
    if step == 0 {
        return Err(Error::internal("steps count from 1"));
    }
    let table = match cx.device().target() {
        Target::Cpu => 0,
        Target::Gpu => cuda::table(parameters.len()),
    };
    let mut table = cx.allocate([table], DType::F32)?;
    if !cx.device().is_plan() {
        parameters.iter_mut().try_for_each(Parameter::check)?;
    }
    match cx.device() {
        Device::Cpu(_) => cpu::adamw(parameters, settings, scaling, settings.factors(step)),
        Device::Gpu(gpu) => {
            cuda::adamw(gpu, parameters, settings, scaling, settings.factors(step), &mut table)
        }
        Device::Plan(_) => Ok(()),
    }
}
