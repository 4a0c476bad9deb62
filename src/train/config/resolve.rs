//! From settings to a whole configuration: a recipe's values where nothing is set, and everything checked.

use std::path::PathBuf;

use super::Stage;
use super::settings::{
    AdapterKind, Cleaner, ModelSettings, ObjectiveSettings, Recipe, RewardKind, Schedule, Settings, Target,
    ValidationSettings,
};
use crate::error::{Error, Result};
use crate::train::data::{DataOptions, PromptSource};
use crate::train::degrade::{self, CodeFormer, Crop, RealEsrgan};

/// The last timestep of training.
const LAST: usize = 999;

/// A whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    pub model: ModelSettings,
    pub adapter: AdapterKind,
    pub recipe: Recipe,
    pub stage: Stage,
    pub output: PathBuf,
    pub seed: u64,
    pub steps: u64,
    /// wall-clock limit of the whole run
    pub minutes: Option<f64>,
    pub batch: usize,
    pub accumulate: usize,
    pub learning_rate: f64,
    pub weight_decay: f64,
    pub betas: [f64; 2],
    pub epsilon: f64,
    pub warmup: u64,
    pub schedule: Schedule,
    pub clip_norm: Option<f64>,
    pub ema: Option<f64>,
    pub checkpointing: bool,
    pub losses: Losses,
    /// of stages stage1 and vae
    pub reconstruction: Reconstruction,
    pub pictures: Vec<PathBuf>,
    pub data: DataOptions,
    pub cleaner: Cleaner,
    pub workers: usize,
    pub latent_cache: Option<PathBuf>,
    pub validation: Option<Validation>,
    pub log_every: u64,
    pub checkpoint_every: u64,
    pub keep: usize,
}

/// Which losses drive what, and on which timesteps; ranges hold both ends.
#[derive(Clone, Debug, PartialEq)]
pub struct Losses {
    pub target: Target,
    pub adapter_every: u64,
    pub controlnet_steps: [usize; 2],
    pub adapter_steps: [usize; 2],
    pub pixel_weight: f64,
    pub pixel_steps: [usize; 2],
    pub reward_weight: f64,
    pub reward_steps: [usize; 2],
    pub reward: RewardKind,
    pub published_x0: bool,
}

/// Weights of what RRDBNet (L1, L2 and logarithm of its pictures' errors) and autoencoder (all) minimise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reconstruction {
    pub l1: f64,
    pub l2: f64,
    pub log: f64,
    pub gradient: f64,
    pub kl: f64,
}

impl Reconstruction {
    /// The weight of the divergence is that of latent diffusion models, whose losses are sums.
    fn of(objective: &ObjectiveSettings, stage: Stage) -> Result<Self> {
        let squares = if stage == Stage::Vae { 1.0 } else { 0.0 };
        let l1 = checked("objective.l1-weight", objective.l1_weight.unwrap_or(1.0), 0.0, 1e6)?;
        let l2 = checked("objective.l2-weight", objective.l2_weight.unwrap_or(squares), 0.0, 1e6)?;
        let log = checked("objective.log-weight", objective.log_weight.unwrap_or(0.0), 0.0, 1e6)?;
        if l1 + l2 + log == 0.0 {
            return Err(wrong(
                "objective.l1-weight",
                "it, objective.l2-weight and objective.log-weight are 0, so that nothing is learnt"
                    .to_string(),
                "give one of them a weight above 0",
            ));
        }
        Ok(Reconstruction {
            l1,
            l2,
            log,
            gradient: checked(
                "objective.gradient-weight",
                objective.gradient_weight.unwrap_or(0.5),
                0.0,
                1e6,
            )?,
            kl: checked("objective.kl-weight", objective.kl_weight.unwrap_or(1e-6), 0.0, 1e6)?,
        })
    }
}

/// Pictures sampled during a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Validation {
    pub pictures: Vec<PathBuf>,
    pub every: u64,
    pub steps: usize,
}

impl Losses {
    fn of(recipe: Recipe, stage: Stage) -> Self {
        let paper = Losses {
            target: Target::Both,
            adapter_every: 2,
            controlnet_steps: [0, LAST],
            adapter_steps: [0, LAST],
            pixel_weight: 0.01,
            pixel_steps: [0, 800],
            reward_weight: 0.01,
            reward_steps: [0, 200],
            reward: RewardKind::ClipiqaSingle,
            published_x0: false,
        };
        let rules = match recipe {
            Recipe::Paper => paper,
            Recipe::Official => Losses {
                adapter_every: 5,
                adapter_steps: [0, 200],
                pixel_weight: 0.1,
                // 0 < t < 800
                pixel_steps: [1, 799],
                reward_weight: 0.1,
                reward_steps: [0, LAST],
                reward: RewardKind::Clipiqa,
                published_x0: true,
                ..paper
            },
        };
        match stage {
            Stage::TimestepAware => rules,
            _ => Losses { target: Target::Controlnet, pixel_weight: 0.0, reward_weight: 0.0, ..rules },
        }
    }

    /// True when `step` (from 0) is an adapter step.
    pub fn is_adapter_step(&self, step: u64) -> bool {
        match self.target {
            Target::Both => step.is_multiple_of(self.adapter_every),
            Target::Controlnet => false,
            Target::Adapters => true,
        }
    }
}

fn wrong(key: &str, what: impl Into<String>, fix: &str) -> Error {
    Error::usage(what).at(key.to_owned()).fix(fix.to_owned())
}

/// `value`, if it lies in `range`.
fn checked<T: PartialOrd + std::fmt::Display>(key: &str, value: T, low: T, high: T) -> Result<T> {
    if value >= low && value <= high {
        return Ok(value);
    }
    Err(wrong(key, format!("{value} is out of range"), &format!("give {low} to {high}")))
}

fn range(key: &str, [first, last]: [usize; 2]) -> Result<[usize; 2]> {
    if first <= last && last <= LAST {
        return Ok([first, last]);
    }
    Err(wrong(key, format!("[{first}, {last}] are no timesteps"), "give first and last of 0 to 999"))
}

impl Settings {
    /// # Errors
    /// The first setting that cannot be.
    pub fn resolve(self) -> Result<Config> {
        let Settings { model, train, objective, data, degradation, validation, log } = self;
        let recipe = train.recipe.unwrap_or(Recipe::Paper);
        let official = recipe == Recipe::Official;
        let stage = train.stage.unwrap_or(Stage::TimestepAware);
        // Not from the article: what trains small networks from nothing.
        let base = stage.is_base();
        let steps = match (recipe, stage) {
            (_, Stage::Stage1 | Stage::Vae | Stage::UNet) => 20_000,
            (Recipe::Official, _) => 50_000,
            (Recipe::Paper, Stage::ControlNet) => 20_000,
            (Recipe::Paper, Stage::TimestepAware) => 100_000,
        };
        let rate = match (recipe, base) {
            (_, true) => 5e-4,
            (Recipe::Official, _) => 5e-6,
            (Recipe::Paper, _) => 1e-5,
        };
        let reconstruction = Reconstruction::of(&objective, stage)?;
        let own = Losses::of(recipe, stage);
        let losses = Losses {
            target: objective.target.unwrap_or(own.target),
            adapter_every: checked(
                "objective.adapter-every",
                objective.adapter_every.unwrap_or(own.adapter_every),
                1,
                u64::MAX,
            )?,
            controlnet_steps: range(
                "objective.controlnet-steps",
                objective.controlnet_steps.unwrap_or(own.controlnet_steps),
            )?,
            adapter_steps: range(
                "objective.adapter-steps",
                objective.adapter_steps.unwrap_or(own.adapter_steps),
            )?,
            pixel_weight: checked(
                "objective.pixel-weight",
                objective.pixel_weight.unwrap_or(own.pixel_weight),
                0.0,
                1e6,
            )?,
            pixel_steps: range("objective.pixel-steps", objective.pixel_steps.unwrap_or(own.pixel_steps))?,
            reward_weight: checked(
                "objective.reward-weight",
                objective.reward_weight.unwrap_or(own.reward_weight),
                0.0,
                1e6,
            )?,
            reward_steps: range(
                "objective.reward-steps",
                objective.reward_steps.unwrap_or(own.reward_steps),
            )?,
            reward: objective.reward.unwrap_or(own.reward),
            published_x0: objective.published_x0.unwrap_or(own.published_x0),
        };
        if base && objective.target.is_some() {
            return Err(wrong(
                "objective.target",
                format!("stage {} trains one network", stage.name()),
                "leave it out",
            ));
        }
        if stage == Stage::UNet && !validation.pictures.is_empty() {
            return Err(wrong(
                "validation.pictures",
                "stage unet draws latents of no picture, so there is nothing to compare with",
                "leave it out",
            ));
        }
        if stage == Stage::ControlNet && losses.target != Target::Controlnet {
            return Err(wrong(
                "objective.target",
                "stage 1 trains the ControlNet alone",
                "leave it out, or set train.stage to 2",
            ));
        }
        if model.adapter == Some(AdapterKind::None) && losses.target != Target::Controlnet {
            return Err(wrong(
                "model.adapter",
                "there are no adapters to train",
                "set objective.target to \"controlnet\"",
            ));
        }
        let seed = train.seed.unwrap_or(231);
        let batch = checked("train.batch", train.batch.unwrap_or(32), 1, 65_536)?;
        let accumulate = checked("train.accumulate", train.accumulate.unwrap_or(1), 1, batch)?;
        if !batch.is_multiple_of(accumulate) {
            return Err(wrong(
                "train.accumulate",
                format!("{batch} images are not {accumulate} equal parts"),
                "give a divisor of train.batch",
            ));
        }
        let ema = train.ema.filter(|decay| *decay > 0.0);
        let clip_norm = train.clip_norm.filter(|norm| *norm > 0.0);
        let [beta1, beta2] = train.betas.unwrap_or([0.9, 0.999]);
        let cleaner = data.cleaner.unwrap_or(if official { Cleaner::Swinir } else { Cleaner::None });
        let size = data.size.unwrap_or(if base { 128 } else { 512 });
        if size == 0 || !size.is_multiple_of(64) {
            return Err(wrong("data.size", format!("{size} is no multiple of 64"), "give 512"));
        }
        let default_recipe = if official { "codeformer" } else { "realesrgan" };
        let degradation_recipe = degraded(&degradation, default_recipe)?;
        if cleaner == Cleaner::Stage1 && degradation_recipe.scale() != 4 {
            return Err(wrong(
                "data.cleaner",
                "stage1 enlarges by 4, the degradation does not shrink by 4",
                "give swinir, or set degradation.recipe to realesrgan",
            ));
        }
        if stage == Stage::Stage1 && degradation_recipe.scale() != 4 {
            return Err(wrong(
                "degradation.scale",
                "the network of stage 1 enlarges by 4, the degradation does not shrink by 4",
                "set degradation.recipe to realesrgan, and leave degradation.scale out",
            ));
        }
        let default_crop = if official { Crop::Fit } else { Crop::Random };
        let data_options = DataOptions {
            seed,
            size,
            crop: data.crop.unwrap_or(default_crop),
            flip: data.flip.unwrap_or(!official),
            recipe: degradation_recipe,
            degrade: !matches!(stage, Stage::Vae | Stage::UNet),
            fixed: degradation.fixed.unwrap_or(false),
            prompts: data.prompts.unwrap_or(PromptSource::None),
            dropout: checked(
                "data.prompt-dropout",
                data.prompt_dropout.unwrap_or(if official { 0.5 } else { 0.0 }),
                0.0,
                1.0,
            )?,
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Config {
            adapter: model.adapter.unwrap_or(if official {
                AdapterKind::Official
            } else {
                AdapterKind::Paper
            }),
            model,
            recipe,
            stage,
            output: train.output.ok_or_else(|| {
                wrong("train.output", "no folder for checkpoints is given", "set it, or give -o")
            })?,
            seed,
            steps: checked("train.steps", train.steps.unwrap_or(steps), 1, u64::MAX)?,
            minutes: train.minutes.map(|minutes| checked("train.minutes", minutes, 1e-3, 1e6)).transpose()?,
            batch,
            accumulate,
            learning_rate: checked("train.learning-rate", train.learning_rate.unwrap_or(rate), 0.0, 1.0)?,
            weight_decay: checked(
                "train.weight-decay",
                train.weight_decay.unwrap_or(if base { 0.0 } else { 1e-2 }),
                0.0,
                1.0,
            )?,
            betas: [
                checked("train.betas", beta1, 0.0, 0.999_999_9)?,
                checked("train.betas", beta2, 0.0, 0.999_999_9)?,
            ],
            epsilon: checked("train.epsilon", train.epsilon.unwrap_or(1e-8), 1e-30, 1.0)?,
            warmup: train.warmup.unwrap_or(0),
            schedule: train.schedule.unwrap_or(Schedule::Constant),
            clip_norm: clip_norm.map(|norm| checked("train.clip-norm", norm, 0.0, 1e9)).transpose()?,
            ema: ema.map(|decay| checked("train.ema", decay, 0.0, 0.999_999_9)).transpose()?,
            checkpointing: train.checkpointing.unwrap_or(!base),
            losses,
            reconstruction,
            pictures: data.pictures,
            data: data_options,
            cleaner,
            workers: checked("data.workers", data.workers.unwrap_or(cores.clamp(1, 12)), 1, 512)?,
            latent_cache: data.latent_cache,
            validation: validated(validation)?,
            log_every: checked("log.every", log.every.unwrap_or(50), 1, u64::MAX)?,
            checkpoint_every: checked(
                "log.checkpoint-every",
                log.checkpoint_every.unwrap_or(5000),
                1,
                u64::MAX,
            )?,
            keep: checked("log.keep", log.keep.unwrap_or(3), 1, 1_000_000)?,
        })
    }
}

fn validated(settings: ValidationSettings) -> Result<Option<Validation>> {
    if settings.pictures.is_empty() {
        return Ok(None);
    }
    Ok(Some(Validation {
        pictures: settings.pictures,
        every: checked("validation.every", settings.every.unwrap_or(1000), 1, u64::MAX)?,
        steps: checked("validation.steps", settings.steps.unwrap_or(50), 1, 1000)?,
    }))
}

fn degraded(set: &super::settings::DegradationSettings, default: &str) -> Result<degrade::Recipe> {
    let name = set.recipe.as_deref().unwrap_or(default);
    let foreign = |key: &str, given: bool| match given {
        false => Ok(()),
        true => {
            Err(wrong(&format!("degradation.{key}"), format!("{name} has no such range"), "leave it out"))
        }
    };
    let span = |key: &str, set: Option<[f64; 2]>, own: [f64; 2], least: f64| -> Result<[f64; 2]> {
        let [low, high] = set.unwrap_or(own);
        if low >= least && low <= high && high.is_finite() {
            return Ok([low, high]);
        }
        Err(wrong(
            &format!("degradation.{key}"),
            format!("[{low}, {high}] is no range"),
            "give smallest and largest",
        ))
    };
    match degrade::Recipe::named(name).map_err(|e| e.at("degradation.recipe"))? {
        degrade::Recipe::RealEsrgan(own) => {
            foreign("kernel", set.kernel.is_some())?;
            foreign("isotropic", set.isotropic.is_some())?;
            for (key, value) in [
                ("sigma", set.sigma),
                ("downscale", set.downscale),
                ("noise", set.noise),
                ("quality", set.quality),
            ] {
                foreign(key, value.is_some())?;
            }
            let scale = checked("degradation.scale", set.scale.unwrap_or(own.scale), 1, 64)?;
            let sharpen = set.sharpen.unwrap_or(own.sharpen);
            Ok(degrade::Recipe::RealEsrgan(Box::new(RealEsrgan { scale, sharpen, ..*own })))
        }
        degrade::Recipe::CodeFormer(own) => {
            foreign("scale", set.scale.is_some())?;
            foreign("sharpen", set.sharpen.is_some())?;
            let kernel = set.kernel.unwrap_or(own.kernel);
            if kernel.is_multiple_of(2) {
                return Err(wrong("degradation.kernel", format!("{kernel} is even"), "give 41"));
            }
            Ok(degrade::Recipe::CodeFormer(CodeFormer {
                kernel,
                isotropic: checked(
                    "degradation.isotropic",
                    set.isotropic.unwrap_or(own.isotropic),
                    0.0,
                    1.0,
                )?,
                sigma: span("sigma", set.sigma, own.sigma, 1e-3)?,
                downscale: span("downscale", set.downscale, own.downscale, 1.0)?,
                noise: span("noise", set.noise, own.noise, 0.0)?,
                quality: span("quality", set.quality, own.quality, 1.0)?,
            }))
        }
    }
}
