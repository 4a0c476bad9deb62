//! Stages 1 and 2: the ControlNet alone, then ControlNet and adapters by turns, on a frozen system.

use super::{Lesson, Told};
use crate::autograd::Gradients;
use crate::error::Result;
use crate::models::text::Tokenizer;
use crate::ops::Cx;
use crate::ops::diffusion::ddpm_step;
use crate::ops::elementwise::combine;
use crate::pipeline::{Conditions, Denoiser, Networks, Steering};
use crate::sampler::guidance::Guidance;
use crate::sampler::schedule::Schedule;
use crate::tensor::Tensor;
use crate::train::batch::{Batches, images};
use crate::train::cache::LatentCache;
use crate::train::config::Config;
use crate::train::data::Sample;
use crate::train::degrade::Random;
use crate::train::optimizer::Learning;
use crate::train::step::step;
use crate::train::system::Trainee;

/// The stream of the noise that sampling starts from and takes in.
const SAMPLING: u64 = u64::from_le_bytes(*b"sampling");

/// ControlNet and adapters in training.
pub struct SteeringLesson<'a> {
    trainee: Trainee,
    batches: Batches<'a>,
}

impl<'a> SteeringLesson<'a> {
    /// # Errors
    /// A file is missing or does not fit; a reward that does not exist yet.
    pub fn load(cx: &Cx, config: &'a Config) -> Result<Self> {
        let trainee = Trainee::load(cx, config)?;
        let cache = LatentCache::wanted(cx, config)?;
        Ok(SteeringLesson { trainee, batches: Batches { config, tokenizer: Tokenizer::new(), cache } })
    }

    fn trains_adapters(&self, step: u64) -> bool {
        self.batches.config.losses.is_adapter_step(step)
    }
}

impl Lesson for SteeringLesson<'_> {
    fn learners(&self) -> Vec<&dyn Learning> {
        let adapters = self.trainee.adapters.as_ref().map(|learner| learner as &dyn Learning);
        std::iter::once(&self.trainee.controlnet as &dyn Learning).chain(adapters).collect()
    }

    fn learners_mut(&mut self) -> Vec<&mut dyn Learning> {
        let adapters = self.trainee.adapters.as_mut().map(|learner| learner as &mut dyn Learning);
        std::iter::once(&mut self.trainee.controlnet as &mut dyn Learning).chain(adapters).collect()
    }

    fn turn(&self, step: u64) -> usize {
        usize::from(self.trains_adapters(step) && self.trainee.adapters.is_some())
    }

    fn step(&self, cx: &Cx, samples: &[Sample], place: u64, part: u64) -> Result<(Told, Gradients)> {
        let trainee = &self.trainee;
        let plan = self.batches.plan(self.trains_adapters(place));
        let batch = self.batches.make(cx, trainee, samples, place, part)?;
        let reward = trainee.reward.as_deref();
        let found = step(cx, &trainee.frozen, &trainee.learners(), &batch, &plan, reward)?;
        let losses = found.losses;
        let parts = [("denoise", Some(losses.denoise)), ("pixel", losses.pixel), ("reward", losses.reward)];
        let parts = parts.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        Ok((Told { total: losses.total, parts }, found.gradients))
    }

    /// Samples the picture without guidance.
    fn restored(&self, cx: &Cx, sample: &Sample) -> Result<Tensor> {
        let (trainee, config) = (&self.trainee, self.batches.config);
        let frozen = &trainee.frozen;
        let clean = trainee.clean(cx, &images(cx, &[&sample.low])?, config.data.size)?;
        let hint = frozen.hint(cx, &clean)?;
        let context = frozen.context(cx, &[&self.batches.tokenizer.encode(&sample.prompt).ids[..]])?;
        let networks = Networks {
            unet: &frozen.unet,
            controlnet: &trainee.controlnet.trained.network,
            adapters: trainee.adapters.as_ref().map(|learner| &learner.trained.network),
        };
        let count = config.validation.as_ref().map_or(1, |validation| validation.steps);
        let steps = Schedule::spaced(count)?.steps();
        let timesteps: Vec<f32> = steps.iter().map(|step| step.timestep as f32).collect();
        let conditions = Conditions { positive: context, negative: None };
        let steering = Steering { guidance: Guidance::new(1.0)?, control_scale: Some(1.0) };
        let denoiser = Denoiser::new(cx, networks, &timesteps, &conditions, steering)?;
        let random = &mut Random::new(config.seed, 0, SAMPLING);
        let shape = hint.shape();
        let mut normal = || {
            let values: Vec<f32> = (0..shape.count()).map(|_| random.normal() as f32).collect();
            Tensor::from_f32(cx.device(), &values, shape)
        };
        let mut x = normal()?;
        for (i, step) in steps.iter().enumerate() {
            let eps = denoiser.predict(i, true, &x, &hint)?;
            x = ddpm_step(cx, &x, &eps, &normal()?, &step.coefficients)?;
        }
        combine(cx, &[(0.5, &frozen.vae.decode(cx, &x)?)], 0.5)
    }
}
