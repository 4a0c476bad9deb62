//! The published YAML configuration, read for what it says about data, losses and the loop. Sizes of networks are read
//! off the weights, so what it says about those is not used.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use super::Stage;
use super::settings::{Cleaner, Recipe, Settings};
use crate::error::{Error, Result};
use crate::train::data::PromptSource;
use crate::train::degrade::Crop;

#[derive(Deserialize)]
struct Published {
    dataset: Option<Sets>,
    train: Train,
}

#[derive(Deserialize)]
struct Sets {
    train: Set,
}

#[derive(Deserialize)]
struct Set {
    target: Option<String>,
    params: Params,
}

#[derive(Deserialize)]
struct Params {
    file_list: Option<PathBuf>,
    out_size: Option<usize>,
    crop_type: Option<String>,
    blur_kernel_size: Option<usize>,
    kernel_list: Option<Vec<String>>,
    kernel_prob: Option<Vec<f64>>,
    blur_sigma: Option<[f64; 2]>,
    downsample_range: Option<[f64; 2]>,
    noise_range: Option<[f64; 2]>,
    jpeg_range: Option<[f64; 2]>,
}

#[derive(Deserialize)]
struct Loss {
    weight: f64,
    range: Option<[usize; 2]>,
}

#[derive(Deserialize)]
struct Train {
    pixel_loss: Option<Loss>,
    clipiqa_loss: Option<Loss>,
    sd_path: Option<PathBuf>,
    controlnet_pretrain: Option<PathBuf>,
    checkpoint: Option<PathBuf>,
    swinir_path: Option<PathBuf>,
    exp_dir: Option<PathBuf>,
    learning_rate: Option<f64>,
    batch_size: Option<usize>,
    num_workers: Option<usize>,
    train_steps: Option<u64>,
    log_every: Option<u64>,
    ckpt_every: Option<u64>,
    image_every: Option<u64>,
    resume: Option<Value>,
}

/// The settings of a published configuration, and whether it resumes.
///
/// # Errors
/// It is no such configuration, or asks for what does not exist.
pub(super) fn read(text: &str) -> Result<(Settings, bool)> {
    let read: Published = serde_saphyr::from_str(text)
        .map_err(|e| Error::input(format!("not a training configuration: {e}")))?;
    let mut settings = Settings::default();
    let train = read.train;
    settings.train.recipe = Some(Recipe::Official);
    settings.train.stage = Some(Stage::TimestepAware);
    settings.train.output = train.exp_dir;
    settings.train.steps = train.train_steps;
    settings.train.batch = train.batch_size;
    settings.train.learning_rate = train.learning_rate;
    settings.model.sd = train.sd_path;
    settings.model.start = train.checkpoint.or(train.controlnet_pretrain);
    settings.model.swinir = train.swinir_path;
    settings.log.every = train.log_every;
    settings.log.checkpoint_every = train.ckpt_every;
    settings.validation.every = train.image_every;
    settings.data.workers = train.num_workers;
    // A loss that is not named drives nothing.
    settings.objective.pixel_weight = Some(train.pixel_loss.as_ref().map_or(0.0, |loss| loss.weight));
    // Both ends are excluded there: 0 < t < 800.
    settings.objective.pixel_steps =
        train.pixel_loss.and_then(|loss| loss.range).map(|[first, end]| [first + 1, end.saturating_sub(1)]);
    settings.objective.reward_weight = Some(train.clipiqa_loss.as_ref().map_or(0.0, |loss| loss.weight));
    // The end is excluded there: the timesteps of adapter steps are drawn below it.
    let adapter_steps = train
        .clipiqa_loss
        .and_then(|loss| loss.range)
        .map(|[first, end]| [first, end.saturating_sub(1).max(first)]);
    settings.objective.adapter_steps = adapter_steps;
    if let Some(set) = read.dataset {
        dataset(&mut settings, set.train)?;
    }
    let resume = match train.resume {
        Some(Value::Bool(resume)) => resume,
        Some(Value::String(path)) => {
            settings.model.start = Some(path.into());
            false
        }
        _ => false,
    };
    Ok((settings, resume))
}

fn dataset(settings: &mut Settings, set: Set) -> Result<()> {
    let refuse = |what: String| Err(Error::input(what).at("dataset.train"));
    let target = set.target.unwrap_or_default();
    if !target.is_empty() && !target.ends_with("CodeformerDataset") {
        return refuse(format!("the data set {target} is not known"));
    }
    let params = set.params;
    settings.data.pictures = params.file_list.into_iter().collect();
    settings.data.prompts = Some(PromptSource::Tags);
    settings.data.cleaner = Some(Cleaner::Swinir);
    settings.data.size = params.out_size;
    settings.data.crop = match params.crop_type.as_deref() {
        None | Some("center") => Some(Crop::Fit),
        Some("random") => Some(Crop::Random),
        Some(other) => return refuse(format!("crop_type {other} is not known")),
    };
    let degradation = &mut settings.degradation;
    degradation.recipe = Some("codeformer".into());
    degradation.kernel = params.blur_kernel_size;
    degradation.sigma = params.blur_sigma;
    degradation.downscale = params.downsample_range;
    degradation.noise = params.noise_range;
    degradation.quality = params.jpeg_range;
    let kinds = params.kernel_list.unwrap_or_else(|| vec!["iso".into(), "aniso".into()]);
    let weights = params.kernel_prob.unwrap_or_else(|| vec![1.0; kinds.len()]);
    if kinds.len() != weights.len() || kinds.iter().any(|kind| !["iso", "aniso"].contains(&kind.as_str())) {
        return refuse(format!("kernels {kinds:?} with probabilities {weights:?} are not known"));
    }
    let share = |wanted: &str| -> f64 {
        kinds.iter().zip(&weights).filter(|(kind, _)| *kind == wanted).map(|(_, weight)| weight).sum()
    };
    degradation.isotropic = Some(share("iso") / (share("iso") + share("aniso")));
    Ok(())
}
