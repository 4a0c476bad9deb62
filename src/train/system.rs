//! The networks of a training, from files or synthetic: what learns, what stays as it is, what cleans, what rewards.

use std::path::PathBuf;

use super::config::{AdapterKind, Cleaner, Config, RewardKind, Stage};
use super::init::Initial;
use super::optimizer::Learner;
use super::step::{Frozen, Learners, Reward};
use crate::error::{Error, Result};
use crate::metrics::clipiqa::Prompts;
use crate::metrics::{ClipIqa, NoReference};
use crate::models::clip::ClipConfig;
use crate::models::config::SystemConfig;
use crate::models::text::TextEncoder;
use crate::models::{
    Adapters, Conditioning, ControlNet, DenoiserConfig, RrdbConfig, RrdbNet, SwinConfig, SwinIr, UNet, Vae,
    VaeConfig, Variant,
};
use crate::nn::{Gathered, Scope, Source, Trained};
use crate::ops::Cx;
use crate::ops::resize::resize_bicubic;
use crate::pipeline::find_in;
use crate::tensor::Tensor;
use crate::weights::names::{ADAPTER, CONDITIONING, CONTROLNET, TEXT, UNET, VAE};
use crate::weights::{Checkpoint, CheckpointSource, SyntheticSource};

/// Names under which the networks that only a training needs are looked for in the models folder.
const SWINIR: [&str; 3] = ["swinir.safetensors", "general_swinir_v1.ckpt", "codeformer_swinir.ckpt"];
const CLIP: [&str; 3] = ["clip.safetensors", "RN50.pt", "clip_rn50.safetensors"];

/// What cleans the degraded picture.
enum CleanerNetwork {
    None,
    SwinIr(Box<SwinIr>),
    Stage1(Box<RrdbNet>),
}

/// A metric that rewards.
struct Rewarded<M>(M);

impl<M: NoReference> Reward for Rewarded<M> {
    fn scores(&self, cx: &Cx, images: &Tensor) -> Result<Tensor> {
        self.0.score(cx, images)
    }
}

/// Everything that a training runs.
pub struct Trainee {
    pub frozen: Frozen,
    pub controlnet: Learner<ControlNet>,
    pub adapters: Option<Learner<Adapters>>,
    pub reward: Option<Box<dyn Reward>>,
    cleaner: CleanerNetwork,
}

/// Checkpoint or synthetic values.
struct Origin<'a>(Option<CheckpointSource<'a>>);

impl<'a> Origin<'a> {
    fn of(file: &'a Option<Checkpoint>) -> Self {
        Origin(file.as_ref().map(CheckpointSource::new))
    }

    fn source(&self) -> &dyn Source {
        match &self.0 {
            Some(file) => file,
            None => &SyntheticSource,
        }
    }

    fn finish(self, prefixes: &[&str]) -> Result<()> {
        self.0.map_or(Ok(()), |file| file.finish(prefixes))
    }
}

impl Trainee {
    /// Loads or initialises all networks of `config`.
    ///
    /// # Errors
    /// A file is missing or does not fit; a reward that does not exist yet.
    pub fn load(cx: &Cx, config: &Config) -> Result<Trainee> {
        let model = &config.model;
        let preset = model.preset.as_deref().map(SystemConfig::preset).transpose()?;
        let file = |path: Result<PathBuf>, open: fn(&std::path::Path) -> Result<Checkpoint>| match &preset {
            Some(_) => Ok(None),
            None => open(&path?).map(Some),
        };
        let known = |which: usize| model.models.as_ref().and_then(|folder| find_in(folder, which));
        let sd_file =
            file(wanted(&model.sd, known(0), "model.sd", "Stable Diffusion 2.1"), Checkpoint::open_sd)?;
        let sd = Origin::of(&sd_file);
        let (denoiser, vae, text) = match &preset {
            Some(preset) => (preset.denoiser.clone(), preset.vae.clone(), preset.text.clone()),
            None => (
                DenoiserConfig::infer(&Scope::new(cx, sd.source(), UNET), 1)?,
                VaeConfig::infer(&Scope::new(cx, sd.source(), VAE))?,
                Conditioning::infer(&Scope::new(cx, sd.source(), CONDITIONING))?,
            ),
        };
        let frozen = Frozen {
            text: TextEncoder::load(&Scope::new(cx, sd.source(), CONDITIONING), &text)?,
            vae: Vae::load(&Scope::new(cx, sd.source(), VAE), &vae)?,
            unet: UNet::load(&Scope::new(cx, sd.source(), UNET), &denoiser)?,
        };
        let start_file = model.start.as_deref().map(Checkpoint::open_tasr).transpose()?;
        let start = start_file.as_ref().map(CheckpointSource::new);
        let initial = Initial::new(sd.source(), config.seed);
        let given: &dyn Source = match &start {
            Some(start) => start,
            None => &initial,
        };
        let gathered = Gathered::default();
        let network = ControlNet::load(&Scope::new(cx, given, CONTROLNET).training(&gathered), &denoiser)?;
        let controlnet = Learner::new(cx, Trained::new(network, gathered)?)?;
        let held = match &start {
            Some(start) => Adapters::detect(&Scope::new(cx, start, ADAPTER)),
            None => None,
        };
        let variant = match (config.stage, config.adapter) {
            (Stage::ControlNet, _) | (_, AdapterKind::None) => None,
            (_, AdapterKind::Official) => Some(Variant::Official),
            (_, AdapterKind::Paper) => Some(Variant::Paper),
        };
        let adapters = match (variant, held) {
            (None, _) => None,
            (Some(wanted), Some(held)) if wanted != held => {
                let text = format!(
                    "the start holds {} adapters, {} ones are to be trained",
                    held.name(),
                    wanted.name()
                );
                return Err(Error::weights(text)
                    .at("model.adapter")
                    .fix("leave it out or give another start"));
            }
            (Some(wanted), held) => {
                let given: &dyn Source = if held.is_some() { given } else { &initial };
                let gathered = Gathered::default();
                let scope = Scope::new(cx, given, ADAPTER).training(&gathered);
                let network = Adapters::load(&scope, &denoiser, wanted)?;
                drop(scope);
                Some(Learner::new(cx, Trained::new(network, gathered)?)?)
            }
        };
        if let Some(start) = start {
            start.finish(if held.is_some() && adapters.is_some() {
                &[CONTROLNET, ADAPTER]
            } else {
                &[CONTROLNET]
            })?;
        }
        let conditioning = if matches!(text, Conditioning::Text(_)) { TEXT } else { CONDITIONING };
        sd.finish(&[VAE, UNET, conditioning])?;
        let look = |names: &[&str]| {
            let folder = model.models.as_ref()?;
            names.iter().map(|name| folder.join(name)).find(|path| path.exists())
        };
        let cleaner = match config.cleaner {
            Cleaner::None => CleanerNetwork::None,
            Cleaner::Swinir => {
                let path = wanted(&model.swinir, look(&SWINIR), "model.swinir", "the SwinIR cleaner");
                let file = file(path, Checkpoint::open_swinir)?;
                let origin = Origin::of(&file);
                let scope = Scope::new(cx, origin.source(), "");
                let sizes = if file.is_some() { SwinConfig::infer(&scope)? } else { SwinConfig::default() };
                let network = SwinIr::load(&scope, &sizes)?;
                drop(scope);
                origin.finish(&[""])?;
                CleanerNetwork::SwinIr(Box::new(network))
            }
            Cleaner::Stage1 => {
                let path = wanted(&model.stage1, known(2), "model.stage1", "the stage-1 network");
                let file = file(path, Checkpoint::open_stage1)?;
                let origin = Origin::of(&file);
                let scope = Scope::new(cx, origin.source(), "");
                let sizes = match &preset {
                    Some(preset) => preset.rrdb.clone(),
                    None => RrdbConfig::infer(&scope)?,
                };
                let network = RrdbNet::load(&scope, &sizes)?;
                drop(scope);
                origin.finish(&[""])?;
                CleanerNetwork::Stage1(Box::new(network))
            }
        };
        let reward: Option<Box<dyn Reward>> = match config.losses.reward_weight > 0.0 {
            false => None,
            true => {
                let prompts = match config.losses.reward {
                    RewardKind::Clipiqa => Prompts::Five,
                    RewardKind::ClipiqaSingle => Prompts::Single,
                    RewardKind::Musiq | RewardKind::Maniqa => {
                        return Err(Error::usage("this reward is not built into this version")
                            .at("objective.reward")
                            .fix("give clipiqa or clipiqa-single"));
                    }
                };
                let path =
                    wanted(&model.clip, look(&CLIP), "model.clip", "CLIP RN50, which the reward needs");
                let file = file(path, Checkpoint::open_clip)?;
                let origin = Origin::of(&file);
                let scope = Scope::new(cx, origin.source(), "");
                let sizes = if file.is_some() { ClipConfig::infer(&scope)? } else { ClipConfig::default() };
                let metric = ClipIqa::load(&scope, &sizes, prompts)?;
                drop(scope);
                origin.finish(&[""])?;
                Some(Box::new(Rewarded(metric)))
            }
        };
        Ok(Trainee { frozen, controlnet, adapters, reward, cleaner })
    }

    /// The networks that learn, for a step.
    pub fn learners(&self) -> Learners<'_> {
        Learners {
            controlnet: &self.controlnet.trained,
            adapters: self.adapters.as_ref().map(|learner| &learner.trained),
        }
    }

    /// The degraded picture [N, h, w, 3] cleaned, of the target's size.
    ///
    /// # Errors
    /// Sizes that the cleaner cannot take.
    pub fn clean(&self, cx: &Cx, low: &Tensor, size: usize) -> Result<Tensor> {
        match &self.cleaner {
            CleanerNetwork::None => resize_bicubic(cx, low, size, size),
            CleanerNetwork::SwinIr(network) => network.forward(cx, &resize_bicubic(cx, low, size, size)?),
            CleanerNetwork::Stage1(network) => network.forward(cx, low),
        }
    }
}

/// The path that is set, or found in the models folder.
fn wanted(set: &Option<PathBuf>, found: Option<PathBuf>, key: &str, what: &str) -> Result<PathBuf> {
    set.clone().or(found).ok_or_else(|| {
        Error::weights(format!("no weights are given for {what}"))
            .at(key.to_owned())
            .fix("set it, or put the file into the folder of model.models")
    })
}
