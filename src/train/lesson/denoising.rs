//! Stage `unet`: the UNet learns to predict noise in latents of a frozen autoencoder, conditioned on nothing but the
//! timestep (Ho et al. 2020). What is exported is the whole Stable Diffusion file: UNet, autoencoder, and the row that
//! stands for the features of every text.

use super::scratch::{Scratch, collected, sizes};
use super::terms::{learn, square};
use super::{Lesson, Told, needs_size};
use crate::autograd::Gradients;
use crate::error::{Error, Result};
use crate::models::config::SystemConfig;
use crate::models::vae::LATENT_SCALE;
use crate::models::{DenoiserConfig, UNet, Vae, VaeConfig};
use crate::nn::{Gathered, Scope, Source, Trained};
use crate::ops::Cx;
use crate::ops::diffusion::{combine_images, posterior};
use crate::ops::elementwise::{combine, stack};
use crate::pipeline::find_in;
use crate::tensor::Tensor;
use crate::train::batch::{LATENT, NOISE, TIMES, normal, timesteps};
use crate::train::cache::LatentCache;
use crate::train::config::Config;
use crate::train::data::Sample;
use crate::train::objective::CleanLatent;
use crate::train::optimizer::{Exported, Learner, Learning};
use crate::train::step::factors;
use crate::weights::names::{EMPTY, UNET, VAE};
use crate::weights::{Checkpoint, CheckpointSource, SyntheticSource};

/// The UNet in training.
pub struct Denoising<'a> {
    config: &'a Config,
    vae: Vae,
    cache: Option<LatentCache>,
    learner: Learner<UNet>,
    /// f32 [1, 1, D]
    row: Tensor,
    /// what the export holds besides the UNet
    kept: Vec<Exported>,
}

impl<'a> Denoising<'a> {
    /// Starts from the UNet of `model.start`, or from random weights of the size of `model.preset`. The autoencoder is
    /// that of `model.sd`; with a preset and without a file it is synthetic.
    ///
    /// # Errors
    /// A file that does not fit; sizes that are not given or do not belong together.
    pub fn load(cx: &Cx, config: &'a Config) -> Result<Self> {
        let model = &config.model;
        let preset = model.preset.as_deref().map(SystemConfig::preset).transpose()?;
        let found = || model.models.as_ref().and_then(|folder| find_in(folder, 0));
        let sd_file = model.sd.clone().or_else(found).map(|path| Checkpoint::open_sd(&path)).transpose()?;
        let sd = sd_file.as_ref().map(CheckpointSource::new);
        let (coder, coder_sizes): (&dyn Source, VaeConfig) = match (&sd, &preset) {
            (Some(sd), _) => (sd, sizes(cx, (sd, sd.label()), VAE, VaeConfig::infer)?),
            (None, Some(preset)) => (&SyntheticSource, preset.vae.clone()),
            (None, None) => {
                return Err(Error::weights("no weights are given for the autoencoder")
                    .at("model.sd")
                    .fix("set it to what stage vae exported"));
            }
        };
        let vae = Vae::load(&Scope::new(cx, coder, VAE), &coder_sizes)?;

        let start_file = model.start.as_deref().map(Checkpoint::open_sd).transpose()?;
        let start = start_file.as_ref().map(CheckpointSource::new);
        let scratch = Scratch { seed: config.seed };
        let (source, unet): (&dyn Source, DenoiserConfig) = match (&start, preset) {
            (Some(start), _) => {
                (start, sizes(cx, (start, start.label()), UNET, |scope| DenoiserConfig::infer(scope, 1))?)
            }
            (None, Some(preset)) => (&scratch, preset.denoiser),
            (None, None) => return Err(needs_size()),
        };
        if unet.latent != vae.latent() {
            return Err(Error::weights(format!(
                "the UNet has {} channels of latent, the autoencoder {}",
                unet.latent,
                vae.latent()
            ))
            .at("model.sd")
            .fix("give an autoencoder and a model.preset that belong together"));
        }
        let gathered = Gathered::default();
        let network = UNet::load(&Scope::new(cx, source, UNET).training(&gathered), &unet)?;
        let learner = Learner::new(cx, Trained::new(network, gathered)?)?;

        let shape = [1, unet.context];
        let row = match &start {
            Some(start) if start.shape(EMPTY).is_some_and(|own| own == shape) => {
                start.values(EMPTY, &shape)?
            }
            Some(start) => {
                return Err(Error::weights("the UNet to start from was trained with text")
                    .at(start.label().to_owned())
                    .fix("stage unet is for systems without a text tower: start from one, or from a model.preset"));
            }
            None => scratch.values(EMPTY, &shape)?,
        };
        let values = if cx.device().is_plan() { &[] } else { &row[..] };
        let row_tensor = Tensor::weight_from_f32(cx.device(), values, [1, 1, unet.context])?;
        let mut kept =
            vec![Exported { name: EMPTY.to_owned(), shape: shape.to_vec(), values: row.into_owned() }];
        if !cx.device().is_plan() {
            kept.extend(collected(coder, |cx, source| {
                Vae::load(&Scope::new(cx, source, VAE), &coder_sizes).map(drop)
            })?);
        }
        start.map_or(Ok(()), |start| start.finish(&[UNET]))?;
        sd.map_or(Ok(()), |sd| sd.finish(&[VAE]))?;
        let cache = LatentCache::wanted(cx, config)?;
        Ok(Denoising { config, vae, cache, learner, row: row_tensor, kept })
    }
}

impl Lesson for Denoising<'_> {
    fn learners(&self) -> Vec<&dyn Learning> {
        vec![&self.learner]
    }

    fn learners_mut(&mut self) -> Vec<&mut dyn Learning> {
        vec![&mut self.learner]
    }

    fn step(&self, cx: &Cx, samples: &[Sample], step: u64, part: u64) -> Result<(Told, Gradients)> {
        let (config, place) = (self.config, (step, part));
        let wanted = super::coding::wanted(cx, samples)?;
        let moments = match &self.cache {
            Some(cache) => {
                let size = [config.data.size; 2];
                cache.moments(cx, &self.vae, &wanted, size, &|picture| Ok(picture.clone()))?
            }
            None => self.vae.moments(cx, &wanted)?,
        };
        let [n, h, w, both] = moments.nhwc()?;
        let shape = [n, h, w, both / 2];
        let latent = posterior(cx, &moments, Some(&normal(cx, config, place, LATENT, shape)?), LATENT_SCALE)?;
        let noise = normal(cx, config, place, NOISE, shape)?;
        let timesteps = timesteps(config, place, TIMES, config.losses.controlnet_steps, n);
        let [signal, spread, ..] = factors(&timesteps, CleanLatent::Inverse)?;
        let noisy = combine_images(cx, &[(&signal, &latent), (&spread, &noise)])?;
        let context = stack(cx, &vec![&self.row; n])?;

        let cx = &cx.with_tape().with_checkpointing(config.checkpointing);
        let tape = cx.tape().ok_or_else(|| Error::internal("a step without a tape"))?;
        self.learner.trained.watch(tape);
        let unet = &self.learner.trained.network;
        let times: Vec<f32> = timesteps.iter().map(|&t| t as f32).collect();
        let (times, text) = (unet.times(cx, &times)?, unet.text(cx, &context)?);
        let eps = unet.forward(cx, &noisy, &times, &text, None)?.eps;
        let difference = combine(cx, &[(1.0, &eps), (-1.0, &noise)], 0.0)?;
        learn(cx, vec![square(cx, "denoise", &difference, 1.0)?])
    }

    fn restored(&self, _cx: &Cx, _sample: &Sample) -> Result<Tensor> {
        Err(Error::internal("stage unet restores no picture"))
    }

    fn export(&self, _cx: &Cx, mut learnt: Vec<Exported>) -> Result<Vec<Exported>> {
        learnt.extend(self.kept.iter().cloned());
        Ok(learnt)
    }
}
