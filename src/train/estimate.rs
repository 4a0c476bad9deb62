//! How much memory a training will need, found by running a step of each kind on the planning device.

use super::batch::Batches;
use super::config::Config;
use super::ema::Ema;
use super::run::optimizer;
use super::step::step;
use super::system::Trainee;
use crate::device::{Device, Target};
use crate::error::{Error, Result};
use crate::models::text::Tokenizer;
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
    let mut trainee = Trainee::load(&cx, config)?;
    // Averages are as large as the masters, and live as long.
    let average = |learners: &Trainee| -> Result<Vec<Ema>> {
        let Some(decay) = config.ema else { return Ok(Vec::new()) };
        let mut all = vec![Ema::new(&cx, &learners.controlnet.trained, decay)?];
        if let Some(adapters) = &learners.adapters {
            all.push(Ema::new(&cx, &adapters.trained, decay)?);
        }
        Ok(all)
    };
    let averages = average(&trainee)?;
    let batches = Batches { config, tokenizer: Tokenizer::new(), cache: None };
    for kind in [0, 1] {
        let adapters = config.losses.is_adapter_step(kind);
        let batch = batches.blank(&cx, &trainee, images, kind)?;
        let mut found = step(
            &cx,
            &trainee.frozen,
            &trainee.learners(),
            &batch,
            &batches.plan(adapters),
            trainee.reward.as_deref(),
        )?;
        let settings = optimizer(config, kind);
        match &mut trainee.adapters {
            Some(learner) if adapters => {
                learner.accumulate(&cx, &mut found.gradients)?;
                learner.update(&cx, &settings, None)?;
            }
            _ => {
                trainee.controlnet.accumulate(&cx, &mut found.gradients)?;
                trainee.controlnet.update(&cx, &settings, None)?;
            }
        }
    }
    drop(averages);
    match &device {
        Device::Plan(plan) => Ok((plan.weight_bytes(), plan.activation_bytes())),
        Device::Cpu(_) | Device::Gpu(_) => Err(Error::internal("a plan needs the planning device")),
    }
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
