//! A step of a training on drawn pictures and synthetic weights, for measurements.

use super::config::{AdapterKind, Cleaner, Config, Recipe, Settings, Target};
use super::data::Sample;
use super::degrade::{Image, Random};
use super::lesson::{self, Lesson};
use super::run::optimizer;
use crate::error::{Error, Result};
use crate::ops::Cx;

/// The timestep of every image: low enough that both targets' losses decode the image.
const TIMESTEP: usize = 100;
/// Stream of the drawn pictures.
const PICTURES: u64 = u64::from_le_bytes(*b"pictures");

/// The settings of a training of the second stage whose every step can be timed: encoding, forward, the decoded image
/// under the pixel loss, backward, AdamW. Steps of `batch` images of `size` x `size` pixels train `target`, the
/// ControlNet or the adapters, in a system of the size `preset`.
///
/// # Errors
/// Sizes that cannot be.
pub fn config(
    preset: &str,
    target: Target,
    (batch, size): (usize, usize),
    checkpointing: bool,
) -> Result<Config> {
    let mut settings = Settings::default();
    settings.model.preset = Some(preset.to_owned());
    settings.model.adapter = Some(AdapterKind::Official);
    settings.train.recipe = Some(Recipe::Official);
    settings.train.output = Some("unused".into());
    settings.train.batch = Some(batch);
    settings.train.checkpointing = Some(checkpointing);
    settings.objective.target = Some(target);
    settings.objective.controlnet_steps = Some([TIMESTEP; 2]);
    settings.objective.adapter_steps = Some([TIMESTEP; 2]);
    // The reward's own network is no part of what is measured.
    settings.objective.reward_weight = Some(0.0);
    settings.data.size = Some(size);
    settings.data.cleaner = Some(Cleaner::None);
    settings.resolve()
}

/// A training of [`config`] on drawn pictures.
pub struct Probe<'a> {
    config: &'a Config,
    lesson: Box<dyn Lesson + 'a>,
    samples: Vec<Sample>,
    steps: u64,
}

impl<'a> Probe<'a> {
    /// Loads the networks and draws the pictures.
    ///
    /// # Errors
    /// Memory that runs out.
    pub fn load(cx: &Cx, config: &'a Config) -> Result<Self> {
        let (size, small) = (config.data.size, config.data.size / config.data.recipe.scale());
        let mut random = Random::new(config.seed, 0, PICTURES);
        let mut drawn = |side: usize| Image {
            height: side,
            width: side,
            values: (0..side * side * 3).map(|_| random.uniform() as f32).collect(),
        };
        let samples = (0..config.batch)
            .map(|_| Sample { high: drawn(size), low: drawn(small), prompt: String::new() })
            .collect();
        Ok(Probe { config, lesson: lesson::open(cx, config)?, samples, steps: 0 })
    }

    /// One step with its update; -> the weighted loss.
    ///
    /// # Errors
    /// Memory that runs out, a device that fails.
    pub fn step(&mut self, cx: &Cx) -> Result<f64> {
        let (told, mut gradients) = self.lesson.step(cx, &self.samples, self.steps, 0)?;
        let turn = self.lesson.turn(self.steps);
        let learners = self.lesson.learners_mut();
        let learner = learners
            .into_iter()
            .nth(turn)
            .ok_or_else(|| Error::internal("a step that nobody learns from"))?;
        learner.accumulate(cx, &mut gradients)?;
        let limit = self.config.clip_norm.map(|norm| norm as f32);
        learner.update(cx, &optimizer(self.config, self.steps, 0.0), limit)?;
        self.steps += 1;
        Ok(told.total)
    }
}
