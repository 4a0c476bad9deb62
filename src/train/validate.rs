//! Pictures sampled during a run, to see and to measure what it has learnt so far.

use super::batch::images;
use super::config::{Config, Validation};
use super::data::{DataOptions, Dataset, Sample, entries};
use super::degrade::{Crop, Random};
use super::system::Trainee;
use crate::error::Result;
use crate::image::{EncodeOptions, Format, Picture, encode_bytes};
use crate::metrics::{Channels, psnr};
use crate::models::text::Tokenizer;
use crate::ops::Cx;
use crate::ops::diffusion::ddpm_step;
use crate::ops::elementwise::combine;
use crate::pipeline::{Conditions, Denoiser, Networks, Steering};
use crate::sampler::guidance::Guidance;
use crate::sampler::schedule::Schedule;
use crate::tensor::Tensor;

/// The stream of the noise that sampling starts from and takes in.
const SAMPLING: u64 = u64::from_le_bytes(*b"sampling");

/// One picture's result.
pub struct Sampled {
    pub png: Vec<u8>,
    /// width, height
    pub size: [usize; 2],
    /// on all three channels, in dB
    pub psnr: f64,
}

/// The pictures of a validation: the middle of each, degraded the same way every time.
pub struct Validator {
    samples: Vec<Sample>,
    steps: usize,
    seed: u64,
    size: usize,
}

impl Validator {
    /// Reads and degrades the pictures.
    ///
    /// # Errors
    /// A picture cannot be read.
    pub fn new(config: &Config, validation: &Validation) -> Result<Self> {
        let entries = entries(&validation.pictures)?;
        let count = entries.len();
        let crop = if config.data.crop == Crop::Fit { Crop::Fit } else { Crop::Centre };
        let options = DataOptions { crop, flip: false, fixed: true, dropout: 0.0, ..config.data.clone() };
        let data = Dataset::new(entries, options)?;
        let samples = (0..count).map(|index| data.sample(0, index)).collect::<Result<_>>()?;
        Ok(Validator { samples, steps: validation.steps, seed: config.seed, size: config.data.size })
    }

    /// Samples every picture with the networks as they are, without guidance.
    ///
    /// # Errors
    /// The device fails.
    pub fn run(&self, cx: &Cx, trainee: &Trainee) -> Result<Vec<Sampled>> {
        let tokenizer = Tokenizer::new();
        self.samples.iter().map(|sample| self.sampled(cx, trainee, &tokenizer, sample)).collect()
    }

    fn sampled(&self, cx: &Cx, trainee: &Trainee, tokenizer: &Tokenizer, sample: &Sample) -> Result<Sampled> {
        let frozen = &trainee.frozen;
        let clean = trainee.clean(cx, &images(cx, &[&sample.low])?, self.size)?;
        let hint = frozen.hint(cx, &clean)?;
        let context = frozen.context(cx, &[&tokenizer.encode(&sample.prompt).ids[..]])?;
        let networks = Networks {
            unet: &frozen.unet,
            controlnet: &trainee.controlnet.trained.network,
            adapters: trainee.adapters.as_ref().map(|learner| &learner.trained.network),
        };
        let steps = Schedule::spaced(self.steps)?.steps();
        let timesteps: Vec<f32> = steps.iter().map(|step| step.timestep as f32).collect();
        let conditions = Conditions { positive: context, negative: None };
        let steering = Steering { guidance: Guidance::new(1.0)?, control_scale: Some(1.0) };
        let denoiser = Denoiser::new(cx, networks, &timesteps, &conditions, steering)?;
        let random = &mut Random::new(self.seed, 0, SAMPLING);
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
        let image = combine(cx, &[(0.5, &frozen.vae.decode(cx, &x)?)], 0.5)?;
        let colour: Vec<f32> = image.to_f32()?.iter().map(|v| v.clamp(0.0, 1.0)).collect();
        let psnr = psnr(&colour, &sample.high.values, Channels::Rgb)?;
        let picture = Picture {
            width: self.size,
            height: self.size,
            colour,
            alpha: None,
            grey: false,
            bits: 8,
            icc: None,
            format: Format::Png,
            notes: Vec::new(),
        };
        let png = encode_bytes(&picture, Format::Png, &EncodeOptions::default())?.bytes;
        Ok(Sampled { png, size: [self.size, self.size], psnr })
    }
}
