//! The sampling loop: ControlNet, adapters and UNet over both prompts in one batch, and the DDPM step.

use super::run::Pipeline;
use super::trace::Rows;
use crate::error::{Error, Result};
use crate::models::adapters::AdapterTimes;
use crate::models::controlnet::{ControlText, ControlTimes};
use crate::models::unet::{Control, UNetText, UNetTimes};
use crate::ops::diffusion::{ddpm_step, guide};
use crate::ops::elementwise::stack;
use crate::ops::tiles::{Blend, Window, crop};
use crate::sampler::guidance::Guidance;
use crate::sampler::schedule::Schedule;
use crate::tensor::Tensor;

/// The text features of a batch: [N, L, D] of the prompts, and of the negative prompts when guided.
pub struct Conditions {
    pub positive: Tensor,
    pub negative: Option<Tensor>,
}

/// What is the same in every step: projections of all timesteps, keys and values of the text.
struct Constant {
    unet_times: UNetTimes,
    unet_text: UNetText,
    /// absent when no step uses the ControlNet
    control: Option<(ControlTimes, ControlText, Option<AdapterTimes>)>,
}

impl Pipeline<'_> {
    fn constant(&self, timesteps: &[f32], conditions: &Conditions, controlled: bool) -> Result<Constant> {
        let (cx, system) = (self.cx, self.system);
        let context = match &conditions.negative {
            Some(negative) => stack(cx, &[&conditions.positive, negative])?,
            None => conditions.positive.clone(),
        };
        let unet_times = system.unet.times(cx, timesteps)?;
        let control = match controlled {
            false => None,
            true => {
                let times = system.controlnet.times(cx, timesteps)?;
                let adapters =
                    system.adapters.as_ref().map(|a| a.times(cx, &unet_times.embedding)).transpose()?;
                Some((times, system.controlnet.text(cx, &context)?, adapters))
            }
        };
        Ok(Constant { unet_text: system.unet.text(cx, &context)?, unet_times, control })
    }

    /// From the noisiest latent `x` [N, h, w, 4] to the last, steered by `hint` shaped like it.
    pub(super) fn denoise(&mut self, x: Tensor, hint: &Tensor, conditions: &Conditions) -> Result<Tensor> {
        let steps = Schedule::spaced(self.options.steps)?.steps();
        let guidance = Guidance::new(self.options.cfg)?;
        let timesteps: Vec<f32> = steps.iter().map(|step| step.timestep as f32).collect();
        let until = self.options.control_until.unwrap_or(steps.len());
        let constant = self.constant(&timesteps, conditions, until > 0)?;
        let [n, h, w, c] = x.nhwc()?;
        let tiling = self.tiling([h, w].map(|side| side * self.system.vae.factor()))?;
        let tiles = tiling.as_ref().map_or(1, |tiling| tiling.count());
        self.progress.steps("denoising", steps.len() * tiles);
        let mut x = x;
        for (i, step) in steps.iter().enumerate() {
            let call = Call { name: format!("step{i}"), index: i, controlled: i < until, guidance };
            let eps = match &tiling {
                None => {
                    let eps = self.predict(&constant, &call, &x, hint, true)?;
                    self.progress.step();
                    eps
                }
                Some(tiling) => {
                    let profile = self.profile(tiling, 1)?;
                    let mut blend = Blend::new(self.cx, [n, h, w, c])?;
                    for (y, left) in tiling.corners() {
                        let window = Window { y, x: left, h: tiling.tile[0], w: tiling.tile[1] };
                        let (x, hint) = (crop(self.cx, &x, window)?, crop(self.cx, hint, window)?);
                        let eps = self.predict(&constant, &call, &x, &hint, false)?;
                        blend.add(self.cx, &eps, window, &profile)?;
                        self.progress.step();
                    }
                    blend.finish(self.cx)?
                }
            };
            let noise = self.draw(&call.name, [n, c, h, w])?;
            x = ddpm_step(self.cx, &x, &eps, &noise, &step.coefficients)?;
            self.keep(&format!("step{i}.eps"), &eps)?;
            self.keep(&format!("step{i}.x_prev"), &x)?;
            self.check_finite(&x, &call.name)?;
        }
        self.keep("z_final", &x)?;
        Ok(x)
    }

    /// The guided noise prediction for one window.
    fn predict(
        &mut self,
        constant: &Constant,
        call: &Call,
        x: &Tensor,
        hint: &Tensor,
        trace: bool,
    ) -> Result<Tensor> {
        self.progress.check_interrupt()?;
        let (cx, system) = (self.cx, self.system);
        let guided = call.guidance.is_on();
        let double = |t: &Tensor| if guided { stack(cx, &[t, t]) } else { Ok(t.clone()) };
        let (x, hint) = (double(x)?, double(hint)?);
        let rows = if guided { Rows::Guided } else { Rows::Images };
        let control = match &constant.control {
            Some((times, text, adapter_times)) if call.controlled => {
                let times = times.row(call.index)?;
                let residuals =
                    system.controlnet.forward(cx, &x, &hint, &times, text, self.options.control_scale)?;
                if trace {
                    for (i, residual) in residuals.iter().enumerate() {
                        self.keep_rows(&format!("{}.control.{i}", call.name), residual, rows)?;
                    }
                }
                let adapter_row = adapter_times.as_ref().map(|times| times.row(call.index)).transpose()?;
                Some((residuals, adapter_row))
            }
            _ => None,
        };
        let control = control.as_ref().map(|(residuals, row)| Control {
            residuals: residuals.clone(),
            adapters: system.adapters.as_ref().zip(row.as_ref()),
        });
        let times = constant.unet_times.row(call.index)?;
        let prediction = system.unet.forward(cx, &x, &times, &constant.unet_text, control)?;
        if trace {
            for (i, map) in prediction.maps.iter().enumerate() {
                self.keep_rows(&format!("{}.map.{i}", call.name), map, rows)?;
            }
        }
        if !guided {
            return Ok(prediction.eps);
        }
        if trace {
            let n = prediction.eps.shape()[0] / 2;
            self.keep(&format!("{}.eps_cond", call.name), &prediction.eps.narrow(0, n)?)?;
            self.keep(&format!("{}.eps_uncond", call.name), &prediction.eps.narrow(n, n)?)?;
        }
        guide(cx, &prediction.eps, call.guidance.scale())
    }

    /// A value that is not finite would end as a wrong image: say so instead.
    pub(super) fn check_finite(&self, value: &Tensor, place: &str) -> Result<()> {
        if self.cx.device().is_plan() || value.to_f32()?.iter().all(|v| v.is_finite()) {
            return Ok(());
        }
        Err(Error::input(format!("{place} gave values that are not finite"))
            .fix("check the weights with `tasr info`, or use --dtype f32"))
    }
}

/// One model call.
struct Call {
    name: String,
    /// position in the run, 0 the noisiest
    index: usize,
    controlled: bool,
    guidance: Guidance,
}
