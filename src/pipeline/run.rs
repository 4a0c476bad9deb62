//! One batch of images of the same size, from pixels to pixels.

use super::denoiser::Conditions;
use super::options::{ColorFix, Options, Tile};
use super::progress::Progress;
use super::system::System;
use super::trace::{Rows, Trace, to_nhwc};
use crate::error::{Error, Result};
use crate::image::to_byte;
use crate::ops::Cx;
use crate::ops::elementwise::combine;
use crate::ops::resize::resize_bicubic;
use crate::ops::tiles::{Window, crop, pad};
use crate::ops::wavelet::{LEVELS, adain_fix, low_frequencies, wavelet_fix};
use crate::sampler::noise::NoiseSource;
use crate::sampler::schedule::AddNoise;
use crate::sampler::sizes::Sizes;
use crate::sampler::tiles::Tiling;
use crate::tensor::Tensor;
use crate::weights::Dtype;

/// The noisiest timestep of training.
const LAST_TIMESTEP: usize = 999;

/// Everything a run needs; see [`Pipeline::upscale`].
pub struct Pipeline<'a> {
    pub cx: &'a Cx,
    pub system: &'a System<'a>,
    pub options: &'a Options,
    pub noise: &'a mut dyn NoiseSource,
    pub trace: &'a mut dyn Trace,
    pub progress: &'a dyn Progress,
}

/// The result of a batch.
pub struct Upscaled {
    /// f32 [N, H, W, 3], about [0, 1], not clamped
    pub image: Tensor,
}

impl Pipeline<'_> {
    /// Upscales images of one size: low [N, h, w, 3] in [0, 1], text features [N, 77, D] of the prompts and,
    /// when guided, of the negative prompts. The noise source must have been told which images these are.
    ///
    /// # Errors
    /// Sizes or options that cannot be, memory that runs out, an interrupt, values that are not finite.
    pub fn upscale(
        &mut self,
        low: &Tensor,
        positive: &Tensor,
        negative: Option<&Tensor>,
    ) -> Result<Upscaled> {
        self.options.check()?;
        let [n, h, w, _] = low.nhwc()?;
        let sizes = Sizes::new([h, w], self.options.scale)?;
        self.keep("low", low)?;
        self.keep("text.cond", positive)?;
        if let Some(negative) = negative {
            self.keep("text.uncond", negative)?;
        }
        let conditions = Conditions { positive: positive.clone(), negative: negative.cloned() };
        self.progress.steps("stage 1", 1);
        let alone = self.options.stage1_only;
        let clean = self.clean(low, if alone { sizes.finished } else { sizes.working })?;
        self.progress.step();
        self.keep("clean", &clean)?;
        let fixed = match alone {
            true => clean,
            false => self.restored(&clean, &sizes, &conditions)?,
        };
        let [height, width] = sizes.finished;
        let image = resize_bicubic(self.cx, &fixed, height, width)?;
        self.keep("final", &image)?;
        if self.trace.wants("bytes") {
            let bytes: Vec<f32> = image.to_f32()?.into_iter().map(|v| f32::from(to_byte(v))).collect();
            self.trace.integers("bytes", &[n, height, width, 3], &bytes, Dtype::U8)?;
        }
        Ok(Upscaled { image })
    }

    /// The diffusion model on the clean image [N, H, W, 3] -> image of the same size and colours, about [0, 1].
    fn restored(&mut self, clean: &Tensor, sizes: &Sizes, conditions: &Conditions) -> Result<Tensor> {
        let decoded = self.refine(clean, sizes, conditions)?;
        self.keep("decoded", &decoded)?;
        let unit = combine(self.cx, &[(0.5, &decoded)], 0.5)?;
        drop(decoded);
        let fixed = match self.options.color_fix {
            ColorFix::Wavelet => wavelet_fix(self.cx, &unit, clean, self.options.color_levels)?,
            ColorFix::Adain => adain_fix(self.cx, &unit, clean)?,
            ColorFix::None => unit,
        };
        self.keep("fixed", &fixed)?;
        Ok(fixed)
    }

    /// The diffusion model on the clean image [N, H, W, 3] -> decoded image of the same size, about [-1, 1].
    fn refine(&mut self, clean: &Tensor, sizes: &Sizes, conditions: &Conditions) -> Result<Tensor> {
        let [padded_h, padded_w] = sizes.padded;
        let padded = pad(self.cx, clean, padded_h, padded_w)?;
        self.progress.steps("encoding", 1);
        let hint = self.encode(&combine(self.cx, &[(2.0, &padded)], -1.0)?, None)?;
        self.progress.step();
        self.keep("z_lr", &hint)?;
        let x = self.start(&padded)?;
        drop(padded);
        self.keep("x_start", &x)?;
        let sampler = &self.system.sampler;
        let z = self.in_stage(sampler, |run, cx, sampler| {
            run.denoise(cx, sampler.networks(), x.clone(), &hint, conditions)
        })?;
        self.keep("z_final", &z)?;
        drop(x);
        self.progress.steps("decoding", 1);
        let decoded = self.decode(&z)?;
        self.progress.step();
        let [h, w] = sizes.working;
        crop(self.cx, &decoded, Window { y: 0, x: 0, h, w })
    }

    /// The noisiest latent: noise, or with the better start the noised low frequencies of the padded image,
    /// encoded in [0, 1] as published.
    fn start(&mut self, padded: &Tensor) -> Result<Tensor> {
        let [n, h, w, _] = padded.nhwc()?;
        let (factor, latent) = (self.system.factor(), self.system.latent());
        let shape = [n, latent, h / factor, w / factor];
        if !self.options.better_start {
            return self.draw("start", shape);
        }
        let low = low_frequencies(self.cx, padded, LEVELS)?;
        let z = self.encode(&low, Some("start_encode"))?;
        self.keep("z_start", &z)?;
        let chain = AddNoise::new();
        let noise = self.draw("start", shape)?;
        combine(self.cx, &[(chain.signal[LAST_TIMESTEP], &z), (chain.spread[LAST_TIMESTEP], &noise)], 0.0)
    }

    /// The draw `name` [N, C, H, W] on the device as [N, H, W, C].
    pub(super) fn draw(&mut self, name: &str, [n, c, h, w]: [usize; 4]) -> Result<Tensor> {
        if self.cx.device().is_plan() {
            return Tensor::from_f32(self.cx.device(), &[], [n, h, w, c]);
        }
        let values = self.noise.draw(name, [n, c, h, w])?;
        let tensor = Tensor::from_f32(self.cx.device(), &to_nhwc(&values, [n, c, h, w]), [n, h, w, c])?;
        self.keep(&format!("noise.{name}"), &tensor)?;
        Ok(tensor)
    }

    /// The tiles of a padded image of this size in pixels, when the run is tiled.
    pub(super) fn tiling(&self, size: [usize; 2]) -> Result<Option<Tiling>> {
        match self.options.tile {
            Tile::Off => Ok(None),
            Tile::Pixels(tile) => {
                let stride = self.options.tile_stride.unwrap_or(tile / 2);
                Tiling::from_pixels(size, tile, stride).map(Some)
            }
        }
    }

    pub(super) fn keep(&mut self, name: &str, value: &Tensor) -> Result<()> {
        self.keep_rows(name, value, Rows::Images)
    }

    pub(super) fn keep_rows(&mut self, name: &str, value: &Tensor, rows: Rows) -> Result<()> {
        if self.trace.wants(name) { self.trace.tensor(name, value, rows) } else { Ok(()) }
    }
}

/// The shapes of a batch, run on a planning device: what [`super::memory`] measures.
pub(super) fn require_plan(cx: &Cx) -> Result<()> {
    if cx.device().is_plan() { Ok(()) } else { Err(Error::internal("a plan needs the planning device")) }
}
