//! The settings of a run as the file has them: what is absent is filled in from the recipe.

use std::path::PathBuf;

use serde::Deserialize;

use super::Stage;
use crate::models::Variant;
use crate::train::data::PromptSource;
use crate::train::degrade::Crop;

/// Everything that can be set. Each section is a table of train.toml.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    pub model: ModelSettings,
    pub train: LoopSettings,
    pub objective: ObjectiveSettings,
    pub data: DataSettings,
    pub degradation: DegradationSettings,
    pub validation: ValidationSettings,
    pub log: LogSettings,
}

impl Settings {
    /// # Errors
    /// A key that is not known, or a value of another type.
    pub(super) fn deserialize_table(table: toml::Table) -> Result<Self, toml::de::Error> {
        table.try_into()
    }
}

/// Gives each type a method that takes every field from `over` where `over` has it.
macro_rules! overlay {
    ($($type:ident { $($option:ident),* $(; lists $($list:ident),*)? })*) => {$(
        impl $type {
            fn overlaid(mut self, over: $type) -> $type {
                $(if over.$option.is_some() { self.$option = over.$option; })*
                $($(if !over.$list.is_empty() { self.$list = over.$list; })*)?
                self
            }
        }
    )*};
}

overlay! {
    ModelSettings { models, sd, start, swinir, stage1, clip, adapter, preset }
    LoopSettings {
        recipe, stage, output, seed, steps, minutes, batch, accumulate, learning_rate, weight_decay, betas, epsilon,
        warmup, schedule, clip_norm, ema, checkpointing
    }
    ObjectiveSettings {
        target, adapter_every, controlnet_steps, adapter_steps, pixel_weight, pixel_steps, reward_weight,
        reward_steps, reward, published_x0, l1_weight, l2_weight, log_weight, gradient_weight,
        kl_weight
    }
    DataSettings {
        prompts, prompt_dropout, size, crop, flip, cleaner, workers, latent_cache; lists pictures
    }
    DegradationSettings {
        recipe, fixed, scale, sharpen, kernel, isotropic, sigma, downscale, noise, quality
    }
    ValidationSettings { every, steps; lists pictures }
    LogSettings { every, checkpoint_every, keep }
}

impl Settings {
    /// These with `over` laid over them.
    pub(super) fn overlaid(self, over: Settings) -> Settings {
        Settings {
            model: self.model.overlaid(over.model),
            train: self.train.overlaid(over.train),
            objective: self.objective.overlaid(over.objective),
            data: self.data.overlaid(over.data),
            degradation: self.degradation.overlaid(over.degradation),
            validation: self.validation.overlaid(over.validation),
            log: self.log.overlaid(over.log),
        }
    }
}

/// `[model]`: weights, by file or synthetic.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ModelSettings {
    /// folder in which `sd`, `tasr` and `stage1` are looked for under their usual names
    pub models: Option<PathBuf>,
    /// Stable Diffusion 2.1, file or folder
    pub sd: Option<PathBuf>,
    /// What the trained networks start from, else they are initialised: ControlNet, and adapters if it holds them; or
    /// what stage stage1, vae or unet trains
    pub start: Option<PathBuf>,
    /// SwinIR cleaner
    pub swinir: Option<PathBuf>,
    /// RRDBNet cleaner
    pub stage1: Option<PathBuf>,
    /// CLIP RN50, for the reward
    pub clip: Option<PathBuf>,
    /// official, paper, no-timestep or transformer adapters, or none
    pub adapter: Option<AdapterKind>,
    /// synthetic weights of this size instead of files, for trying things out; the size of what is trained from nothing
    pub preset: Option<String>,
}

/// The adapters of a system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum AdapterKind {
    /// As in the published code
    Official,
    /// As the article describes them
    Paper,
    /// Official ones that do not know the timestep: an ablation of the article
    NoTimestep,
    /// A transformer block in the place of the convolutions: an ablation of the article
    Transformer,
    /// A plain ControlNet
    None,
}

impl AdapterKind {
    /// The networks of these adapters, if there are any.
    pub fn variant(self) -> Option<Variant> {
        match self {
            AdapterKind::Official => Some(Variant::Official),
            AdapterKind::Paper => Some(Variant::Paper),
            AdapterKind::NoTimestep => Some(Variant::NoTimestep),
            AdapterKind::Transformer => Some(Variant::Transformer),
            AdapterKind::None => None,
        }
    }
}

/// Which values the constants have that are not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Recipe {
    /// The article.
    Paper,
    /// The published configuration and loop.
    Official,
}

/// How the learning rate goes on behind the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    Constant,
    /// Half a wave, down to nothing at the end of the run.
    Cosine,
}

/// What is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    Both,
    Controlnet,
    Adapters,
}

/// `[train]`: the loop.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct LoopSettings {
    pub recipe: Option<Recipe>,
    pub stage: Option<Stage>,
    /// folder of checkpoints and logs
    pub output: Option<PathBuf>,
    pub seed: Option<u64>,
    pub steps: Option<u64>,
    /// images of an optimizer step
    pub batch: Option<usize>,
    /// parts that a batch is computed in
    pub accumulate: Option<usize>,
    pub learning_rate: Option<f64>,
    pub weight_decay: Option<f64>,
    pub betas: Option<[f64; 2]>,
    pub epsilon: Option<f64>,
    /// minutes after which the run ends, if its steps are not done before
    pub minutes: Option<f64>,
    /// steps over which the learning rate rises
    pub warmup: Option<u64>,
    pub schedule: Option<Schedule>,
    /// largest norm of all gradients together
    pub clip_norm: Option<f64>,
    /// decay of the averaged weights
    pub ema: Option<f64>,
    /// recompute blocks in the backward pass
    pub checkpointing: Option<bool>,
}

/// `[objective]`: losses and what they drive.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ObjectiveSettings {
    pub target: Option<Target>,
    /// every n-th step is the adapters'
    pub adapter_every: Option<u64>,
    /// first and last timestep of ControlNet steps
    pub controlnet_steps: Option<[usize; 2]>,
    /// first and last timestep of adapter steps
    pub adapter_steps: Option<[usize; 2]>,
    /// weight of the L1 loss; 0 is off
    pub pixel_weight: Option<f64>,
    /// timesteps on which the L1 loss works
    pub pixel_steps: Option<[usize; 2]>,
    /// weight of the reward loss; 0 is off
    pub reward_weight: Option<f64>,
    /// timesteps on which the reward works
    pub reward_steps: Option<[usize; 2]>,
    pub reward: Option<RewardKind>,
    /// the published formula of the predicted image instead of Eq. 4
    pub published_x0: Option<bool>,
    /// of stages stage1 and vae: weight of the mean absolute error, default 1
    pub l1_weight: Option<f64>,
    /// of stages stage1 and vae: weight of the mean squared error, default 0 in stage1 and 1 in vae
    pub l2_weight: Option<f64>,
    /// of stages stage1 and vae: weight of the mean logarithm of each picture's mean squared error, default 0
    pub log_weight: Option<f64>,
    /// of stage vae: weight of the L1 of differences between neighbours
    pub gradient_weight: Option<f64>,
    /// of stage vae: weight of the latents' divergence from the unit normal
    pub kl_weight: Option<f64>,
}

/// What rewards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RewardKind {
    /// pyiqa's five pairs of prompts
    Clipiqa,
    /// the article's one pair
    ClipiqaSingle,
    Musiq,
    Maniqa,
}

/// What cleans the degraded picture before it is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cleaner {
    /// Nothing: it is resized to the target's size.
    None,
    Swinir,
    /// The RRDBNet x4 of inference; needs a degradation of scale 4.
    Stage1,
}

/// `[data]`: pictures and samples.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct DataSettings {
    /// folders, pictures, lists
    pub pictures: Vec<PathBuf>,
    pub prompts: Option<PromptSource>,
    pub prompt_dropout: Option<f64>,
    /// side of the target
    pub size: Option<usize>,
    pub crop: Option<Crop>,
    pub flip: Option<bool>,
    pub cleaner: Option<Cleaner>,
    pub workers: Option<usize>,
    /// folder that keeps encoded pictures
    pub latent_cache: Option<PathBuf>,
}

/// `[degradation]`: the recipe and its ranges.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct DegradationSettings {
    /// realesrgan, realesrgan-mild, codeformer
    pub recipe: Option<String>,
    /// the same in every epoch
    pub fixed: Option<bool>,
    pub scale: Option<usize>,
    pub sharpen: Option<bool>,
    pub kernel: Option<usize>,
    pub isotropic: Option<f64>,
    pub sigma: Option<[f64; 2]>,
    pub downscale: Option<[f64; 2]>,
    pub noise: Option<[f64; 2]>,
    pub quality: Option<[f64; 2]>,
}

/// `[validation]`: pictures sampled now and then.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ValidationSettings {
    /// targets; without them the run is not validated
    pub pictures: Vec<PathBuf>,
    /// steps between validations
    pub every: Option<u64>,
    /// sampling steps
    pub steps: Option<usize>,
}

/// `[log]`: what is left behind and how often.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct LogSettings {
    /// steps between lines of the log
    pub every: Option<u64>,
    /// steps between checkpoints
    pub checkpoint_every: Option<u64>,
    /// how many of the newest checkpoints stay
    pub keep: Option<usize>,
}
