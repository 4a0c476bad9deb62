//! The parts of the system, each loaded alone and made ready to be timed.

use clap::ValueEnum;

use crate::error::{Error, Result};
use crate::models::config::SystemConfig;
use crate::models::text::TextEncoder;
use crate::models::{Adapters, ControlNet, RrdbNet, UNet, Vae, Variant, flops};
use crate::nn::Scope;
use crate::ops::Cx;
use crate::pipeline::progress::Silent;
use crate::pipeline::{Conditions, Denoiser, Networks, NoTrace, Options, Pipeline, Steering, Weights};
use crate::sampler::guidance::Guidance;
use crate::sampler::noise::{NoiseSource, Seeded};
use crate::tensor::Tensor;
use crate::weights::SyntheticSource;
use crate::weights::names::{ADAPTER, CONDITIONING, CONTROLNET, UNET, VAE};

/// The timestep of the measured step; its value does not change the work.
const TIMESTEP: f32 = 500.0;
/// The guidance scale of the measured pipeline and step.
const CFG: f64 = 4.5;
/// Image pixels along a side of one latent pixel, and of one pixel of the small image.
const LATENT: usize = 8;
const SCALE: usize = 4;

/// Times the work that it is given: milliseconds.
pub type Timer<'t> = dyn FnMut(&mut Work) -> Result<f64> + 't;
/// One run of a part.
pub type Work<'w> = dyn FnMut() -> Result<()> + 'w;

/// A part that can be timed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Part {
    /// One guided denoising step: ControlNet, adapters and UNet over both prompts
    Step,
    /// The first network: a quarter-size image to full size
    Stage1,
    VaeEncode,
    VaeDecode,
    /// One prompt
    Text,
    /// The whole way of an image, with two prompts and all steps
    Pipeline,
}

impl Part {
    pub fn name(self) -> &'static str {
        match self {
            Part::Step => "step",
            Part::Stage1 => "stage1",
            Part::VaeEncode => "vae_encode",
            Part::VaeDecode => "vae_decode",
            Part::Text => "text",
            Part::Pipeline => "pipeline",
        }
    }
}

/// What is measured.
pub struct Setup {
    pub config: SystemConfig,
    pub variant: Option<Variant>,
    /// side of the output in pixels
    pub size: usize,
    pub batch: usize,
    pub steps: usize,
}

impl Setup {
    /// # Errors
    /// Sizes that the networks cannot take.
    pub fn check(&self, parts: &[Part]) -> Result<()> {
        let wrong = |what: String, fix: &str| Err(Error::usage(what).at("--size").fix(fix));
        if self.size == 0 || !self.size.is_multiple_of(64) {
            return wrong(format!("{} is not a multiple of 64", self.size), "give 512, for instance");
        }
        if parts.contains(&Part::Pipeline) && self.size < 512 {
            return wrong(
                "the pipeline works at 512 pixels at least".to_owned(),
                "give 512 or more, or other --parts",
            );
        }
        Ok(())
    }

    /// Arithmetic of a part.
    pub fn flops(&self, part: Part) -> f64 {
        let (image, latent) = (self.size * self.size, (self.size / LATENT).pow(2));
        let low = (self.size / SCALE).pow(2);
        let config = &self.config;
        let adapters = self.variant.map_or(0.0, |v| flops::adapters(&config.denoiser, latent, v));
        let step = || {
            2.0 * (flops::unet(&config.denoiser, latent)
                + flops::controlnet(&config.denoiser, latent)
                + adapters)
        };
        let each = match part {
            Part::Step => step(),
            Part::Stage1 => flops::stage1(&config.rrdb, low),
            Part::VaeEncode => flops::vae_encode(&config.vae, image),
            Part::VaeDecode => flops::vae_decode(&config.vae, image),
            Part::Text => return flops::text(&config.text),
            Part::Pipeline => {
                let coder = flops::vae_encode(&config.vae, image) + flops::vae_decode(&config.vae, image);
                let all = self.batch as f64
                    * (self.steps as f64 * step() + coder + flops::stage1(&config.rrdb, low));
                return all + 2.0 * flops::text(&config.text);
            }
        };
        self.batch as f64 * each
    }

    /// Loads what `part` needs, with synthetic weights and drawn inputs, and hands the work to be timed to `time`.
    ///
    /// # Errors
    /// Memory that runs out, and those of `time`.
    pub fn run(&self, cx: &Cx, part: Part, time: &mut Timer) -> Result<f64> {
        let scope = |prefix: &'static str| Scope::new(cx, &SyntheticSource, prefix);
        let (n, latent, low) = (self.batch, self.size / LATENT, self.size / SCALE);
        let channels = self.config.denoiser.latent;
        match part {
            Part::Step => {
                let config = &self.config.denoiser;
                let unet = UNet::load(&scope(UNET), config)?;
                let controlnet = ControlNet::load(&scope(CONTROLNET), config)?;
                let adapters =
                    self.variant.map(|v| Adapters::load(&scope(ADAPTER), config, v)).transpose()?;
                let networks = Networks { unet: &unet, controlnet: &controlnet, adapters: adapters.as_ref() };
                let conditions = Conditions {
                    positive: self.context(cx, "cond")?,
                    negative: Some(self.context(cx, "uncond")?),
                };
                let steering = Steering { guidance: Guidance::new(CFG)?, control_scale: Some(1.0) };
                let denoiser = Denoiser::new(cx, networks, &[TIMESTEP], &conditions, steering)?;
                let (x, hint) = (
                    draw(cx, "x", [n, latent, latent, channels])?,
                    draw(cx, "hint", [n, latent, latent, channels])?,
                );
                time(&mut || denoiser.predict(0, true, &x, &hint).map(drop))
            }
            Part::Stage1 => {
                let network = RrdbNet::load(&scope(""), &self.config.rrdb)?;
                let image = draw(cx, "low", [n, low, low, 3])?;
                time(&mut || network.forward(cx, &image).map(drop))
            }
            Part::VaeEncode | Part::VaeDecode => {
                let vae = Vae::load(&scope(VAE), &self.config.vae)?;
                let (image, z) = (
                    draw(cx, "image", [n, self.size, self.size, 3])?,
                    draw(cx, "z", [n, latent, latent, channels])?,
                );
                match part {
                    Part::VaeEncode => time(&mut || vae.encode(cx, &image, None).map(drop)),
                    _ => time(&mut || vae.decode(cx, &z).map(drop)),
                }
            }
            Part::Text => {
                let tower = TextEncoder::load(&scope(CONDITIONING), &self.config.text)?;
                let tokens = self.tokens();
                time(&mut || tower.forward(cx, &[&tokens]).map(drop))
            }
            Part::Pipeline => self.pipeline(cx, time),
        }
    }

    fn pipeline(&self, cx: &Cx, time: &mut Timer) -> Result<f64> {
        let weights = Weights::synthetic(self.config.clone(), self.variant);
        let tower = weights.load_text(cx)?;
        let system = weights.load(cx)?;
        let (n, low, tokens) = (self.batch, self.size / SCALE, self.tokens());
        let image = draw(cx, "low", [n, low, low, 3])?;
        let options = Options { steps: self.steps, cfg: CFG, ..Options::default() };
        time(&mut || {
            let mut noise = Seeded::new(0);
            noise.select(0, &vec![0; n]);
            let rows = |tokens: &[u32]| tower.forward(cx, &vec![tokens; n]);
            let (positive, negative) = (rows(&tokens)?, rows(&tokens)?);
            let (options, mut trace) = (&options, NoTrace);
            let mut pipeline = Pipeline {
                cx,
                system: &system,
                options,
                noise: &mut noise,
                trace: &mut trace,
                progress: &Silent,
            };
            pipeline.upscale(&image, &positive, Some(&negative)).map(drop)
        })
    }

    /// Drawn text features [N, L, D].
    fn context(&self, cx: &Cx, name: &str) -> Result<Tensor> {
        let (n, length, width) = (self.batch, self.config.text.length(), self.config.text.width());
        draw(cx, name, [n, length, 1, width])?.reshape([n, length, width])
    }

    fn tokens(&self) -> Vec<u32> {
        (1..).take(self.config.text.length()).collect()
    }
}

/// Unit normal values [N, H, W, C].
fn draw(cx: &Cx, name: &str, [n, h, w, c]: [usize; 4]) -> Result<Tensor> {
    let mut noise = Seeded::new(0);
    noise.select(0, &vec![0; n]);
    Tensor::from_f32(cx.device(), &noise.draw(name, [n, c, h, w])?, [n, h, w, c])
}
