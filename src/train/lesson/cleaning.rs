//! Stage `stage1`: the RRDBNet learns to undo degradations, by the mean absolute error of its pictures, the squared
//! one, the logarithm of each picture's squared one, or a sum of these.

use super::scratch::{Scratch, sizes};
use super::terms::{errors, learn};
use super::{Lesson, Told, needs_size};
use crate::autograd::Gradients;
use crate::error::{Error, Result};
use crate::models::config::SystemConfig;
use crate::models::{RrdbConfig, RrdbNet};
use crate::nn::{Gathered, Scope, Source, Trained};
use crate::ops::Cx;
use crate::ops::elementwise::combine;
use crate::tensor::Tensor;
use crate::train::batch::images;
use crate::train::config::{Config, Reconstruction};
use crate::train::data::Sample;
use crate::train::degrade::Image;
use crate::train::optimizer::{Learner, Learning};
use crate::weights::{Checkpoint, CheckpointSource};

/// The RRDBNet in training.
pub struct Cleaning {
    learner: Learner<RrdbNet>,
    weights: Reconstruction,
}

impl Cleaning {
    /// Starts from `model.start`, or from random weights of the size of `model.preset`.
    ///
    /// # Errors
    /// A file that does not fit; neither is given.
    pub fn load(cx: &Cx, config: &Config) -> Result<Self> {
        let file = config.model.start.as_deref().map(Checkpoint::open_stage1).transpose()?;
        let start = file.as_ref().map(CheckpointSource::new);
        let scratch = Scratch { seed: config.seed };
        let (source, rrdb): (&dyn Source, RrdbConfig) = match &start {
            Some(start) => (start, sizes(cx, (start, start.label()), "", RrdbConfig::infer)?),
            None => {
                let preset = config.model.preset.as_deref().ok_or_else(needs_size)?;
                (&scratch, SystemConfig::preset(preset)?.rrdb)
            }
        };
        let gathered = Gathered::default();
        let network = RrdbNet::load(&Scope::new(cx, source, "").training(&gathered), &rrdb)?;
        start.map_or(Ok(()), |start| start.finish(&[""]))?;
        let learner = Learner::new(cx, Trained::new(network, gathered)?)?;
        Ok(Cleaning { learner, weights: config.reconstruction })
    }
}

impl Lesson for Cleaning {
    fn learners(&self) -> Vec<&dyn Learning> {
        vec![&self.learner]
    }

    fn learners_mut(&mut self) -> Vec<&mut dyn Learning> {
        vec![&mut self.learner]
    }

    fn step(&self, cx: &Cx, samples: &[Sample], _step: u64, _part: u64) -> Result<(Told, Gradients)> {
        let (highs, lows): (Vec<&Image>, Vec<&Image>) = samples.iter().map(|s| (&s.high, &s.low)).unzip();
        let (high, low) = (images(cx, &highs)?, images(cx, &lows)?);
        let cx = &cx.with_tape();
        let tape = cx.tape().ok_or_else(|| Error::internal("a step without a tape"))?;
        self.learner.trained.watch(tape);
        let found = self.learner.trained.network.forward(cx, &low)?;
        let difference = combine(cx, &[(1.0, &found), (-1.0, &high)], 0.0)?;
        learn(cx, errors(cx, &difference, &self.weights)?)
    }

    fn restored(&self, cx: &Cx, sample: &Sample) -> Result<Tensor> {
        self.learner.trained.network.forward(cx, &images(cx, &[&sample.low])?)
    }
}
