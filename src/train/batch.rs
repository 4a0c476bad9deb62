//! From samples to what a step takes: tensors, latents, text features, timesteps and noise.

use super::cache::LatentCache;
use super::config;
use super::config::Config;
use super::data::Sample;
use super::degrade::{Image, Random};
use super::objective::{CleanLatent, Objective, PixelTerm, RewardForm, RewardTerm};
use super::step::{Batch, Plan};
use super::system::Trainee;
use crate::error::{Error, Result};
use crate::models::text::Tokenizer;
use crate::models::vae::LATENT_SCALE;
use crate::ops::Cx;
use crate::ops::diffusion::posterior;
use crate::ops::elementwise::combine;
use crate::tensor::Tensor;

/// Streams of random numbers of a step; pictures have those of their content.
pub const TIMES: u64 = u64::from_le_bytes(*b"timestep");
pub const NOISE: u64 = u64::from_le_bytes(*b"x_noises");
pub const LATENT: u64 = u64::from_le_bytes(*b"z_noises");
/// The last timestep of training.
const LAST: usize = 999;

/// Makes the batches of a run.
pub struct Batches<'a> {
    pub config: &'a Config,
    pub tokenizer: Tokenizer,
    pub cache: Option<LatentCache>,
}

impl Batches<'_> {
    /// What a step of the adapters, or of the ControlNet, minimises.
    pub fn plan(&self, adapters: bool) -> Plan {
        let losses = &self.config.losses;
        // A network that is trained alone gets every loss; by turns each gets its own.
        let alone = losses.target != config::Target::Both;
        let [first, last] = losses.reward_steps;
        let hinge = self.config.recipe == config::Recipe::Official && [first, last] == [0, LAST];
        let pixel = PixelTerm {
            weight: losses.pixel_weight as f32,
            range: losses.pixel_steps[0]..=losses.pixel_steps[1],
        };
        let form = if hinge { RewardForm::Hinge } else { RewardForm::Ranged(first..=last) };
        let reward = RewardTerm { weight: losses.reward_weight as f32, form };
        let objective = Objective {
            clean: if losses.published_x0 { CleanLatent::Published } else { CleanLatent::Inverse },
            pixel: (losses.pixel_weight > 0.0 && (alone || !adapters)).then_some(pixel),
            reward: (losses.reward_weight > 0.0 && (alone || adapters)).then_some(reward),
        };
        Plan { controlnet: !adapters, adapters, objective, checkpointing: self.config.checkpointing }
    }

    /// The batch of `samples`, part `part` of `step`.
    ///
    /// # Errors
    /// The device fails.
    pub fn make(
        &self,
        cx: &Cx,
        trainee: &Trainee,
        samples: &[Sample],
        step: u64,
        part: u64,
    ) -> Result<Batch> {
        let (config, n) = (self.config, samples.len());
        let size = config.data.size;
        let highs: Vec<&Image> = samples.iter().map(|sample| &sample.high).collect();
        let lows: Vec<&Image> = samples.iter().map(|sample| &sample.low).collect();
        let target = combine(cx, &[(2.0, &images(cx, &highs)?)], -1.0)?;
        let low = images(cx, &lows)?;
        let cleaned = |low: &Tensor| combine(cx, &[(2.0, &trainee.clean(cx, low, size)?)], -1.0);

        let vae = &trainee.frozen.vae;
        let latent = [n, size / vae.factor(), size / vae.factor(), vae.latent()];
        let normal = |name: u64| normal(cx, config, (step, part), name, latent);
        let (moments, hint) = match &self.cache {
            Some(cache) => (
                cache.moments(cx, vae, &target, [size; 2], &|picture| Ok(picture.clone()))?,
                cache.moments(cx, vae, &low, [size; 2], &cleaned)?,
            ),
            None => (vae.moments(cx, &target)?, vae.moments(cx, &cleaned(&low)?)?),
        };
        let adapters = config.losses.is_adapter_step(step);
        let range = if adapters { config.losses.adapter_steps } else { config.losses.controlnet_steps };
        let tokens: Vec<_> = samples.iter().map(|sample| self.tokenizer.encode(&sample.prompt).ids).collect();
        let rows: Vec<&[u32]> = tokens.iter().map(|ids| &ids[..]).collect();
        Ok(Batch {
            latent: posterior(cx, &moments, Some(&normal(LATENT)?), LATENT_SCALE)?,
            hint: posterior(cx, &hint, None, LATENT_SCALE)?,
            context: trainee.frozen.context(cx, &rows)?,
            timesteps: timesteps(config, (step, part), TIMES, range, n),
            noise: normal(NOISE)?,
            target,
        })
    }
}

/// The random numbers called `name` of a part of an optimizer step.
fn stream(config: &Config, (step, part): (u64, u64), name: u64) -> Random {
    Random::new(config.seed, step * config.accumulate as u64 + part, name)
}

/// Unit normal values of `shape`, f32.
///
/// # Errors
/// Memory is short.
pub fn normal(cx: &Cx, config: &Config, place: (u64, u64), name: u64, shape: [usize; 4]) -> Result<Tensor> {
    let random = &mut stream(config, place, name);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| random.normal() as f32).collect();
    Tensor::from_f32(cx.device(), &values, shape)
}

/// `n` timesteps, the first and last possible of which are given.
pub fn timesteps(
    config: &Config,
    place: (u64, u64),
    name: u64,
    [first, last]: [usize; 2],
    n: usize,
) -> Vec<usize> {
    let random = &mut stream(config, place, name);
    (0..n).map(|_| first + random.index(last - first + 1)).collect()
}

/// Pictures of one size as [N, H, W, 3].
///
/// # Errors
/// They are not of one size.
pub fn images(cx: &Cx, pictures: &[&Image]) -> Result<Tensor> {
    let [first, ..] = pictures else { return Err(Error::internal("a batch of nothing")) };
    let (h, w) = (first.height, first.width);
    if pictures.iter().any(|picture| (picture.height, picture.width) != (h, w)) {
        return Err(Error::internal("a batch of pictures of several sizes"));
    }
    let values: Vec<f32> = pictures.iter().flat_map(|picture| picture.values.iter().copied()).collect();
    Tensor::from_f32(cx.device(), &values, [pictures.len(), h, w, 3])
}
