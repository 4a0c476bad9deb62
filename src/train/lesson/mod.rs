//! What a run teaches: the networks that learn, and what a step of them is. The loop, checkpoints, averages and the
//! estimate of memory are the same for all.

mod cleaning;
mod coding;
mod denoising;
mod scratch;
mod steering;
mod terms;

use super::config::{Config, Stage};
use super::data::Sample;
use super::optimizer::{Exported, Learning};
use crate::autograd::Gradients;
use crate::error::{Error, Result};
use crate::ops::Cx;
use crate::tensor::Tensor;

/// Losses of a step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    /// weighted, what is minimised
    pub total: f64,
    /// each by its name, not weighted
    pub parts: Vec<(&'static str, f64)>,
}

impl Told {
    /// Adds `share` of `other`, part by part.
    pub fn add(&mut self, other: &Told, share: f64) {
        self.total += share * other.total;
        for &(name, value) in &other.parts {
            match self.parts.iter_mut().find(|(own, _)| *own == name) {
                Some((_, sum)) => *sum += share * value,
                None => self.parts.push((name, share * value)),
            }
        }
    }
}

/// A stage of the training, ready to step.
pub trait Lesson {
    /// The networks that learn.
    fn learners(&self) -> Vec<&dyn Learning>;

    /// The same, for writing.
    fn learners_mut(&mut self) -> Vec<&mut dyn Learning>;

    /// Which of the learners optimizer step `step` (from 0) updates.
    fn turn(&self, _step: u64) -> usize {
        0
    }

    /// Losses of `samples`, which are part `part` of optimizer step `step`, and the gradients of the learner whose turn
    /// it is.
    ///
    /// # Errors
    /// The device fails.
    fn step(&self, cx: &Cx, samples: &[Sample], step: u64, part: u64) -> Result<(Told, Gradients)>;

    /// What the networks make of a sample: [1, H, W, 3] about [0, 1], to be compared with its target.
    ///
    /// # Errors
    /// The device fails, or the stage makes no pictures.
    fn restored(&self, cx: &Cx, sample: &Sample) -> Result<Tensor>;

    /// The tensors of the file that `tasr upscale` takes, from what was learnt.
    ///
    /// # Errors
    /// Weights or pictures that cannot be read; the device fails.
    fn export(&self, _cx: &Cx, learnt: Vec<Exported>) -> Result<Vec<Exported>> {
        Ok(learnt)
    }
}

/// Loads or initialises the networks of the stage that `config` names.
///
/// # Errors
/// A file is missing or does not fit; sizes that are not given.
pub fn open<'a>(cx: &Cx, config: &'a Config) -> Result<Box<dyn Lesson + 'a>> {
    Ok(match config.stage {
        Stage::Stage1 => Box::new(cleaning::Cleaning::load(cx, config)?),
        Stage::Vae => Box::new(coding::Coding::load(cx, config)?),
        Stage::UNet => Box::new(denoising::Denoising::load(cx, config)?),
        Stage::ControlNet | Stage::TimestepAware => Box::new(steering::SteeringLesson::load(cx, config)?),
    })
}

/// A network that is trained from nothing needs to know its size.
fn needs_size() -> Error {
    Error::usage("nothing says how large the network is that is trained")
        .at("model.preset")
        .fix("set model.preset to mini, or model.start to weights to go on from")
}
