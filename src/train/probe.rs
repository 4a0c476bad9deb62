//! A step of a training on drawn pictures and synthetic weights, for measurements.

use super::batch::Batches;
use super::config::{AdapterKind, Cleaner, Config, Recipe, Settings, Target};
use super::data::Sample;
use super::degrade::{Image, Random};
use super::run::optimizer;
use super::step::step;
use super::system::Trainee;
use crate::error::Result;
use crate::models::text::Tokenizer;
use crate::ops::Cx;

/// The timestep of every image: low enough that both targets' losses decode the image.
const TIMESTEP: usize = 100;
/// Stream of the drawn pictures.
const PICTURES: u64 = u64::from_le_bytes(*b"pictures");

/// A training of the second stage whose every step can be timed: encoding, forward, the decoded image under the pixel
/// loss, backward, AdamW.
pub struct Probe {
    config: Config,
    trainee: Trainee,
    samples: Vec<Sample>,
    steps: u64,
}

impl Probe {
    /// Loads the networks of `preset` for steps of `batch` images of `size` x `size` pixels that train `target`, the
    /// ControlNet or the adapters.
    ///
    /// # Errors
    /// Sizes that cannot be, memory that runs out.
    pub fn load(
        cx: &Cx,
        preset: &str,
        target: Target,
        (batch, size): (usize, usize),
        checkpointing: bool,
    ) -> Result<Probe> {
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
        let config = settings.resolve()?;
        let small = size / config.data.recipe.scale();
        let mut random = Random::new(config.seed, 0, PICTURES);
        let mut drawn = |side: usize| Image {
            height: side,
            width: side,
            values: (0..side * side * 3).map(|_| random.uniform() as f32).collect(),
        };
        let samples = (0..batch)
            .map(|_| Sample { high: drawn(size), low: drawn(small), prompt: String::new() })
            .collect();
        let trainee = Trainee::load(cx, &config)?;
        Ok(Probe { config, trainee, samples, steps: 0 })
    }

    /// One step with its update; -> the weighted loss.
    ///
    /// # Errors
    /// Memory that runs out, a device that fails.
    pub fn step(&mut self, cx: &Cx) -> Result<f64> {
        let config = &self.config;
        let batches = Batches { config, tokenizer: Tokenizer::new(), cache: None };
        let adapters = config.losses.is_adapter_step(self.steps);
        let batch = batches.make(cx, &self.trainee, &self.samples, self.steps, 0)?;
        let (frozen, learners) = (&self.trainee.frozen, self.trainee.learners());
        let mut found = step(cx, frozen, &learners, &batch, &batches.plan(adapters), None)?;
        let settings = optimizer(config, self.steps, 0.0);
        let limit = config.clip_norm.map(|norm| norm as f32);
        match &mut self.trainee.adapters {
            Some(learner) if adapters => {
                learner.accumulate(cx, &mut found.gradients)?;
                learner.update(cx, &settings, limit)?;
            }
            _ => {
                self.trainee.controlnet.accumulate(cx, &mut found.gradients)?;
                self.trainee.controlnet.update(cx, &settings, limit)?;
            }
        }
        self.steps += 1;
        Ok(found.losses.total)
    }
}
