//! How much memory a training will need, found by running a step of each kind on the planning device.

use super::config::Config;
use super::data::Sample;
use super::degrade::Image;
use super::ema::Ema;
use super::lesson;
use super::run::optimizer;
use crate::device::{Device, Target};
use crate::error::{Error, Result};
use crate::ops::Cx;
use crate::tensor::DType;
use crate::weights::space::in_units;

/// Bytes for weights, masters, moments and averages, and the most that a step has alive besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    pub weights: usize,
    pub activations: usize,
}

impl Estimate {
    pub fn total(&self) -> usize {
        self.weights + self.activations
    }
}

/// Weights of a run, and what a step takes by the number of its images: measured for one and for two, and about
/// linear from there on.
struct Measured {
    weights: usize,
    one: usize,
    two: usize,
}

impl Measured {
    fn of(target: Target, dtype: DType, config: &Config) -> Result<Self> {
        let (weights, one) = planned(target, dtype, config, 1)?;
        let (_, two) = planned(target, dtype, config, 2)?;
        Ok(Measured { weights, one, two })
    }

    fn at(&self, images: usize) -> Estimate {
        let more = self.two.saturating_sub(self.one) * images.saturating_sub(1);
        Estimate { weights: self.weights, activations: self.one + more }
    }
}

/// Bytes of weights and of activations of steps of `images` images on the planning device.
fn planned(target: Target, dtype: DType, config: &Config, images: usize) -> Result<(usize, usize)> {
    let device = Device::plan(target);
    let cx = Cx::new(device.clone(), dtype)?;
    let mut lesson = lesson::open(&cx, config)?;
    // Averages are as large as the masters, and live as long.
    let averages = lesson
        .learners()
        .into_iter()
        .filter_map(|learner| config.ema.map(|decay| Ema::new(&cx, learner.parameters(), decay)));
    let averages = averages.collect::<Result<Vec<_>>>()?;
    let samples = vec![blank(config); images];
    for kind in [0, 1] {
        let (_, mut gradients) = lesson.step(&cx, &samples, kind, 0)?;
        let turn = lesson.turn(kind);
        if let Some(learner) = lesson.learners_mut().into_iter().nth(turn) {
            learner.accumulate(&cx, &mut gradients)?;
            learner.update(&cx, &optimizer(config, kind, 0.0), None)?;
        }
    }
    drop(averages);
    match &device {
        Device::Plan(plan) => Ok((plan.weight_bytes(), plan.activation_bytes())),
        Device::Cpu(_) | Device::Gpu(_) => Err(Error::internal("a plan needs the planning device")),
    }
}

/// A grey sample, for its sizes.
fn blank(config: &Config) -> Sample {
    let grey = |side: usize| Image { height: side, width: side, values: vec![0.5; side * side * 3] };
    let size = config.data.size;
    Sample { high: grey(size), low: grey(size / config.data.recipe.scale()), prompt: String::new() }
}

/// Says what a run needs, or refuses one that does not fit into `available` bytes with what would.
///
/// # Errors
/// Weights that are missing or do not fit; of kind memory: there is not enough, and what to set.
pub fn check(target: Target, dtype: DType, config: &Config, available: Option<u64>) -> Result<Estimate> {
    let measured = Measured::of(target, dtype, config)?;
    let own = measured.at(config.batch / config.accumulate);
    let Some(available) = available.filter(|available| own.total() as u64 > *available) else {
        return Ok(own);
    };
    let saving = match config.checkpointing {
        true => measured,
        false => Measured::of(target, dtype, &Config { checkpointing: true, ..config.clone() })?,
    };
    let mut parts = (config.accumulate..=config.batch).filter(|parts| config.batch.is_multiple_of(*parts));
    let fitting = parts.find(|parts| saving.at(config.batch / parts).total() as u64 <= available);
    let remedy = match fitting {
        Some(parts) => format!("set train.checkpointing = true and train.accumulate = {parts}"),
        None => "take smaller images with data.size, or another machine".to_owned(),
    };
    Err(Error::memory(format!(
        "the training needs {} ({} for weights and optimizer), {} are free",
        in_units(own.total() as u64),
        in_units(own.weights as u64),
        in_units(available)
    ))
    .fix(remedy))
}
