//! The sampling loop: model calls, whole or in blended tiles, and the DDPM step.

use super::denoiser::{Conditions, Denoiser, Networks, Steering};
use super::run::Pipeline;
use crate::device::Target;
use crate::error::{Error, Result};
use crate::ops::Cx;
use crate::ops::diffusion::ddpm_step;
use crate::ops::finite::{FiniteChecks, is_finite};
use crate::ops::tiles::{Blend, Window, crop};
use crate::sampler::guidance::Guidance;
use crate::sampler::schedule::Schedule;
use crate::tensor::Tensor;

impl Pipeline<'_> {
    /// From the noisiest latent `x` [N, h, w, 4] to the last, steered by `hint` shaped like it; `cx` has the element
    /// type of `networks`.
    pub(super) fn denoise(
        &mut self,
        cx: &Cx,
        networks: Networks,
        x: Tensor,
        hint: &Tensor,
        conditions: &Conditions,
    ) -> Result<Tensor> {
        let steps = Schedule::spaced(self.options.steps)?.steps();
        let guidance = Guidance::new(self.options.cfg)?;
        let timesteps: Vec<f32> = steps.iter().map(|step| step.timestep as f32).collect();
        let until = self.options.control_until.unwrap_or(steps.len());
        let steering =
            Steering { guidance, control_scale: (until > 0).then_some(self.options.control_scale) };
        let denoiser = Denoiser::new(cx, networks, &timesteps, conditions, steering)?;
        let [n, h, w, c] = x.nhwc()?;
        let tiling = self.tiling([h, w].map(|side| side * self.system.factor()))?;
        let tiles = tiling.as_ref().map_or(1, |tiling| tiling.count());
        let profile = tiling.as_ref().map(|tiling| self.profile(tiling, 1)).transpose()?;
        self.progress.steps("denoising", steps.len() * tiles);
        let mut checks = FiniteChecks::new(cx, steps.len())?;
        let mut x = x;
        for (i, step) in steps.iter().enumerate() {
            let (name, controlled) = (format!("step{i}"), i < until);
            let eps = match tiling.as_ref().zip(profile.as_ref()) {
                None => {
                    self.progress.check_interrupt()?;
                    let eps = match self.trace.is_on() {
                        false => denoiser.predict(i, controlled, &x, hint)?,
                        true => {
                            denoiser.predict_watched(i, controlled, &x, hint, &mut |part, value, rows| {
                                self.keep_rows(&format!("{name}.{part}"), value, rows)
                            })?
                        }
                    };
                    self.progress.step();
                    eps
                }
                Some((tiling, profile)) => {
                    let mut blend = Blend::new(cx, [n, h, w, c])?;
                    for (y, left) in tiling.corners() {
                        let window = Window { y, x: left, h: tiling.tile[0], w: tiling.tile[1] };
                        let (x, hint) = (crop(cx, &x, window)?, crop(cx, hint, window)?);
                        self.progress.check_interrupt()?;
                        let eps = denoiser.predict(i, controlled, &x, &hint)?;
                        blend.add(cx, &eps, window, profile)?;
                        self.progress.step();
                    }
                    blend.finish(cx)?
                }
            };
            // Drawn while a GPU is at work on the call.
            let noise = self.draw(&name, [n, c, h, w])?;
            x = ddpm_step(cx, &x, &eps, &noise, &step.coefficients)?;
            self.keep(&format!("step{i}.eps"), &eps)?;
            self.keep(&format!("step{i}.x_prev"), &x)?;
            match cx.device().target() {
                Target::Cpu if !is_finite(cx, &x)? => return Err(not_finite(&name)),
                Target::Cpu => {}
                // Asking would wait for the device: it is asked at the end.
                Target::Gpu => checks.note(cx, i, &x)?,
            }
        }
        match checks.first()? {
            Some(i) if self.trace.is_on() => Err(not_finite(&format!("step{i}"))),
            // The stage finds that its result is not finite, as every later step keeps what is not.
            _ => Ok(x),
        }
    }
}

/// A value that is not finite would end as a wrong image: say so instead.
pub(super) fn not_finite(place: &str) -> Error {
    Error::input(format!("{place} gave values that are not finite"))
        .fix("check the weights with `tasr info`, or use --dtype f32")
}
