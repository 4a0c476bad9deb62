//! Stage `vae`: the autoencoder learns pictures. The loss is the mean absolute error, plus weighted the mean squared
//! error, the absolute error of differences between neighbours, and the latents' divergence from the unit normal as
//! latent diffusion models have it: a sum over latents beside a sum over pixels.

use super::scratch::{Held, Scratch, sizes};
use super::terms::{Edges, absolute, errors, given, learn};
use super::{Lesson, Told, needs_size};
use crate::autograd::Gradients;
use crate::error::{Error, Result};
use crate::models::config::SystemConfig;
use crate::models::vae::LATENT_SCALE;
use crate::models::{Vae, VaeConfig};
use crate::nn::{Gathered, Scope, Source, Trained};
use crate::ops::Cx;
use crate::ops::diffusion::{divergence_gradient, posterior};
use crate::ops::elementwise::combine;
use crate::tensor::Tensor;
use crate::train::batch::{LATENT, images, normal};
use crate::train::config::Config;
use crate::train::data::{Dataset, Sample, entries};
use crate::train::degrade::Image;
use crate::train::optimizer::{Exported, Learner, Learning};
use crate::weights::names::VAE;
use crate::weights::{Checkpoint, CheckpointSource};

/// Pictures whose latents an export looks at, and how many of them at once.
const MEASURED: usize = 256;
const AT_ONCE: usize = 8;

/// The autoencoder in training.
pub struct Coding<'a> {
    config: &'a Config,
    sizes: VaeConfig,
    learner: Learner<Vae>,
    edges: Edges,
}

/// Mean and deviation of each channel of unscaled latents.
struct Moments {
    mean: Vec<f64>,
    deviation: Vec<f64>,
}

impl<'a> Coding<'a> {
    /// Starts from `model.start`, or from random weights of the size of `model.preset`.
    ///
    /// # Errors
    /// A file that does not fit; neither is given.
    pub fn load(cx: &Cx, config: &'a Config) -> Result<Self> {
        let file = config.model.start.as_deref().map(Checkpoint::open_sd).transpose()?;
        let start = file.as_ref().map(CheckpointSource::new);
        let scratch = Scratch { seed: config.seed };
        let (source, vae): (&dyn Source, VaeConfig) = match &start {
            Some(start) => (start, sizes(cx, (start, start.label()), VAE, VaeConfig::infer)?),
            None => {
                let preset = config.model.preset.as_deref().ok_or_else(needs_size)?;
                (&scratch, SystemConfig::preset(preset)?.vae)
            }
        };
        let gathered = Gathered::default();
        let network = Vae::load(&Scope::new(cx, source, VAE).training(&gathered), &vae)?;
        start.map_or(Ok(()), |start| start.finish(&[VAE]))?;
        let learner = Learner::new(cx, Trained::new(network, gathered)?)?;
        Ok(Coding { config, sizes: vae, learner, edges: Edges::new(cx)? })
    }

    /// Measures the latents of the autoencoder `vae` over pictures of the run, samples included.
    fn measured(&self, cx: &Cx, vae: &Vae) -> Result<Moments> {
        let dataset = Dataset::new(entries(&self.config.pictures)?, self.config.data.clone())?;
        let channels = vae.latent();
        let (mut sums, mut squares, mut count) = (vec![0.0f64; channels], vec![0.0f64; channels], 0.0);
        // Crops differ from epoch to epoch, so few pictures give enough samples, too.
        let places = (0..MEASURED).map(|i| ((i / dataset.len()) as u64, i % dataset.len()));
        let places: Vec<(u64, usize)> = places.collect();
        for places in places.chunks(AT_ONCE) {
            let samples: Vec<Sample> =
                places.iter().map(|&(epoch, index)| dataset.sample(epoch, index)).collect::<Result<_>>()?;
            let moments = vae.moments(cx, &wanted(cx, &samples)?)?.to_f32()?;
            for pixel in moments.chunks_exact(2 * channels) {
                let (means, log_variances) = pixel.split_at(channels);
                for i in 0..channels {
                    let (mean, log_variance) = (f64::from(means[i]), f64::from(log_variances[i]));
                    sums[i] += mean;
                    squares[i] += mean * mean + log_variance.clamp(-30.0, 20.0).exp();
                }
                count += 1.0;
            }
        }
        let mean: Vec<f64> = sums.iter().map(|sum| sum / count).collect();
        let variances = squares.iter().zip(&mean).map(|(square, mean)| square / count - mean * mean);
        // A channel that says nothing stays as it is.
        let deviation = variances.map(|v| if v > 1e-12 { v.sqrt() } else { 1.0 }).collect();
        Ok(Moments { mean, deviation })
    }
}

/// The targets of samples, [N, H, W, 3] in [-1, 1].
pub fn wanted(cx: &Cx, samples: &[Sample]) -> Result<Tensor> {
    let highs: Vec<&Image> = samples.iter().map(|sample| &sample.high).collect();
    combine(cx, &[(2.0, &images(cx, &highs)?)], -1.0)
}

impl Lesson for Coding<'_> {
    fn learners(&self) -> Vec<&dyn Learning> {
        vec![&self.learner]
    }

    fn learners_mut(&mut self) -> Vec<&mut dyn Learning> {
        vec![&mut self.learner]
    }

    fn step(&self, cx: &Cx, samples: &[Sample], step: u64, part: u64) -> Result<(Told, Gradients)> {
        let target = wanted(cx, samples)?;
        let vae = &self.learner.trained.network;
        let [n, h, w, _] = target.nhwc()?;
        let latent = [n, h / vae.factor(), w / vae.factor(), vae.latent()];
        let noise = normal(cx, self.config, (step, part), LATENT, latent)?;
        let cx = &cx.with_tape().with_checkpointing(self.config.checkpointing);
        let tape = cx.tape().ok_or_else(|| Error::internal("a step without a tape"))?;
        self.learner.trained.watch(tape);

        let moments = vae.moments(cx, &target)?;
        let found = vae.decode(cx, &posterior(cx, &moments, Some(&noise), LATENT_SCALE)?)?;
        let difference = combine(cx, &[(1.0, &found), (-1.0, &target)], 0.0)?;
        let weights = &self.config.reconstruction;
        let mut terms = errors(cx, &difference, weights)?;
        if weights.gradient > 0.0 {
            terms.push(absolute(cx, "gradient", &self.edges.of(cx, &difference)?, weights.gradient)?);
        }
        if weights.kl > 0.0 {
            let factor = weights.kl / target.shape().count() as f64;
            let gradient = divergence_gradient(&cx.without_tape(), &moments.detached(), factor as f32)?;
            let (read, channels) = (moments.detached(), vae.latent());
            terms.push(given("kl", factor, (&moments, gradient), move || {
                Ok(read.to_f32()?.chunks_exact(2 * channels).map(|pixel| divergence(pixel, channels)).sum())
            }));
        }
        learn(cx, terms)
    }

    fn restored(&self, cx: &Cx, sample: &Sample) -> Result<Tensor> {
        let vae = &self.learner.trained.network;
        let z = vae.encode(cx, &wanted(cx, std::slice::from_ref(sample))?, None)?;
        combine(cx, &[(0.5, &vae.decode(cx, &z)?)], 0.5)
    }

    /// Folds mean and deviation of the latents into `quant_conv` and `post_quant_conv`, so that scaled latents have
    /// mean 0 and variance 1 in every channel.
    fn export(&self, cx: &Cx, mut learnt: Vec<Exported>) -> Result<Vec<Exported>> {
        let moments = {
            let held = Held::new(&learnt);
            self.measured(cx, &Vae::load(&Scope::new(cx, &held, VAE), &self.sizes)?)?
        };
        fold(&mut learnt, &moments)?;
        Ok(learnt)
    }
}

/// The divergence of one pixel's latents from the unit normal.
fn divergence(pixel: &[f32], channels: usize) -> f64 {
    let (means, log_variances) = pixel.split_at(channels);
    let each = means.iter().zip(log_variances).map(|(&mean, &log_variance)| {
        let (mean, l) = (f64::from(mean), f64::from(log_variance).clamp(-30.0, 20.0));
        0.5 * (mean * mean + l.exp() - 1.0 - l)
    });
    each.sum()
}

/// With m, d of a channel and s the factor of latents: the encoder gives (mean - m) / (s d) and the log variance less
/// 2 ln(s d), the decoder takes s d z + m.
fn fold(learnt: &mut [Exported], moments: &Moments) -> Result<()> {
    let channels = moments.mean.len();
    let gains: Vec<f64> = moments.deviation.iter().map(|d| d * f64::from(LATENT_SCALE)).collect();
    let tensor = |name: &str| {
        let name = format!("{VAE}{name}");
        let found = learnt.iter().position(|tensor| tensor.name == name);
        found.ok_or_else(|| Error::internal(format!("an autoencoder without {name}")))
    };
    let [quant, offset, post, shift] = [
        tensor("quant_conv.weight")?,
        tensor("quant_conv.bias")?,
        tensor("post_quant_conv.weight")?,
        tensor("post_quant_conv.bias")?,
    ];
    // [2c, 2c, 1, 1], [2c]
    for (row, gain) in learnt[quant].values.chunks_exact_mut(2 * channels).zip(&gains) {
        row.iter_mut().for_each(|v| *v = (f64::from(*v) / gain) as f32);
    }
    for (i, value) in learnt[offset].values.iter_mut().enumerate() {
        let old = f64::from(*value);
        *value = match i < channels {
            true => (old - moments.mean[i]) / gains[i],
            false => old - 2.0 * gains[i - channels].ln(),
        } as f32;
    }
    // [c, c, 1, 1], [c]
    let rows: Vec<f64> = learnt[post].values.iter().map(|&v| f64::from(v)).collect();
    for (value, row) in learnt[shift].values.iter_mut().zip(rows.chunks_exact(channels)) {
        let moved: f64 = row.iter().zip(&moments.mean).map(|(w, mean)| w * mean).sum();
        *value = (f64::from(*value) + moved) as f32;
    }
    for row in learnt[post].values.chunks_exact_mut(channels) {
        row.iter_mut().zip(&gains).for_each(|(v, gain)| *v = (f64::from(*v) * gain) as f32);
    }
    Ok(())
}
