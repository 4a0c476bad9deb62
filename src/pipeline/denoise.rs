//! The sampling loop: ControlNet, adapters and UNet over both prompts in one batch, and the DDPM step.

use super::run::Pipeline;
use super::trace::Rows;
use crate::error::{Error, Result};
use crate::models::adapters::AdapterTimes;
use crate::models::controlnet::{ControlText, ControlTimes};
use crate::models::unet::{Control, UNetText, UNetTimes};
use crate::models::{Adapters, ControlNet, UNet};
use crate::ops::Cx;
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

/// The networks of a model call.
#[derive(Clone, Copy)]
pub struct Networks<'a> {
    pub unet: &'a UNet,
    pub controlnet: &'a ControlNet,
    pub adapters: Option<&'a Adapters>,
}

/// How the networks are steered, the same in every step of a run.
#[derive(Clone, Copy, Debug)]
pub struct Steering {
    pub guidance: Guidance,
    /// factor on all 13 ControlNet residuals; none when no step uses the ControlNet
    pub control_scale: Option<f32>,
}

/// Receives what a model call computes on its way: the name within the call, the tensor, what its rows are.
pub type Watch<'w> = dyn FnMut(&str, &Tensor, Rows) -> Result<()> + 'w;

/// Predicts noise. What is the same in every step is computed once, in [`Denoiser::new`]: projections of all
/// timesteps, keys and values of the text.
pub struct Denoiser<'a> {
    cx: &'a Cx,
    networks: Networks<'a>,
    guidance: Guidance,
    unet_times: UNetTimes,
    unet_text: UNetText,
    control: Option<ControlConstant>,
}

struct ControlConstant {
    scale: f32,
    times: ControlTimes,
    text: ControlText,
    adapter_times: Option<AdapterTimes>,
}

impl<'a> Denoiser<'a> {
    /// Prepares calls at `timesteps` under `conditions`, which have a negative part exactly if guidance is on.
    ///
    /// # Errors
    /// Memory that runs out.
    pub fn new(
        cx: &'a Cx,
        networks: Networks<'a>,
        timesteps: &[f32],
        conditions: &Conditions,
        steering: Steering,
    ) -> Result<Self> {
        let context = match &conditions.negative {
            Some(negative) => stack(cx, &[&conditions.positive, negative])?,
            None => conditions.positive.clone(),
        };
        let unet_times = networks.unet.times(cx, timesteps)?;
        let control = match steering.control_scale {
            None => None,
            Some(scale) => Some(ControlConstant {
                scale,
                times: networks.controlnet.times(cx, timesteps)?,
                text: networks.controlnet.text(cx, &context)?,
                adapter_times: networks.adapters.map(|a| a.times(cx, &unet_times.embedding)).transpose()?,
            }),
        };
        let unet_text = networks.unet.text(cx, &context)?;
        Ok(Denoiser { cx, networks, guidance: steering.guidance, unet_times, unet_text, control })
    }

    /// The noise in `x` [N, h, w, 4] at timestep number `index` of those prepared, f32 [N, h, w, 4], both prompts
    /// in one batch; `hint` is shaped like `x`. A call that is not `controlled` skips ControlNet and adapters.
    ///
    /// # Errors
    /// Memory that runs out, and those of `watch`.
    pub fn predict(
        &self,
        index: usize,
        controlled: bool,
        x: &Tensor,
        hint: &Tensor,
        watch: &mut Watch,
    ) -> Result<Tensor> {
        let cx = self.cx;
        let guided = self.guidance.is_on();
        let double = |t: &Tensor| if guided { stack(cx, &[t, t]) } else { Ok(t.clone()) };
        let (x, hint) = (double(x)?, double(hint)?);
        let rows = if guided { Rows::Guided } else { Rows::Images };
        let control = match &self.control {
            Some(control) if controlled => {
                let times = control.times.row(index)?;
                let residuals =
                    self.networks.controlnet.forward(cx, &x, &hint, &times, &control.text, control.scale)?;
                for (i, residual) in residuals.iter().enumerate() {
                    watch(&format!("control.{i}"), residual, rows)?;
                }
                let row = control.adapter_times.as_ref().map(|times| times.row(index)).transpose()?;
                Some((residuals, row))
            }
            _ => None,
        };
        let control = control.as_ref().map(|(residuals, row)| Control {
            residuals: residuals.clone(),
            adapters: self.networks.adapters.zip(row.as_ref()),
        });
        let times = self.unet_times.row(index)?;
        let prediction = self.networks.unet.forward(cx, &x, &times, &self.unet_text, control)?;
        for (i, map) in prediction.maps.iter().enumerate() {
            watch(&format!("map.{i}"), map, rows)?;
        }
        if !guided {
            return Ok(prediction.eps);
        }
        let n = prediction.eps.shape()[0] / 2;
        watch("eps_cond", &prediction.eps.narrow(0, n)?, Rows::Images)?;
        watch("eps_uncond", &prediction.eps.narrow(n, n)?, Rows::Images)?;
        guide(cx, &prediction.eps, self.guidance.scale())
    }
}

impl Pipeline<'_> {
    /// From the noisiest latent `x` [N, h, w, 4] to the last, steered by `hint` shaped like it.
    pub(super) fn denoise(&mut self, x: Tensor, hint: &Tensor, conditions: &Conditions) -> Result<Tensor> {
        let steps = Schedule::spaced(self.options.steps)?.steps();
        let guidance = Guidance::new(self.options.cfg)?;
        let timesteps: Vec<f32> = steps.iter().map(|step| step.timestep as f32).collect();
        let until = self.options.control_until.unwrap_or(steps.len());
        let steering =
            Steering { guidance, control_scale: (until > 0).then_some(self.options.control_scale) };
        let denoiser = Denoiser::new(self.cx, self.system.networks(), &timesteps, conditions, steering)?;
        let [n, h, w, c] = x.nhwc()?;
        let tiling = self.tiling([h, w].map(|side| side * self.system.vae.factor()))?;
        let tiles = tiling.as_ref().map_or(1, |tiling| tiling.count());
        self.progress.steps("denoising", steps.len() * tiles);
        let mut x = x;
        for (i, step) in steps.iter().enumerate() {
            let (name, controlled) = (format!("step{i}"), i < until);
            let eps = match &tiling {
                None => {
                    self.progress.check_interrupt()?;
                    let mut watch = |part: &str, value: &Tensor, rows| {
                        self.keep_rows(&format!("{name}.{part}"), value, rows)
                    };
                    let eps = denoiser.predict(i, controlled, &x, hint, &mut watch)?;
                    self.progress.step();
                    eps
                }
                Some(tiling) => {
                    let profile = self.profile(tiling, 1)?;
                    let mut blend = Blend::new(self.cx, [n, h, w, c])?;
                    for (y, left) in tiling.corners() {
                        let window = Window { y, x: left, h: tiling.tile[0], w: tiling.tile[1] };
                        let (x, hint) = (crop(self.cx, &x, window)?, crop(self.cx, hint, window)?);
                        self.progress.check_interrupt()?;
                        let eps = denoiser.predict(i, controlled, &x, &hint, &mut |_, _, _| Ok(()))?;
                        blend.add(self.cx, &eps, window, &profile)?;
                        self.progress.step();
                    }
                    blend.finish(self.cx)?
                }
            };
            let noise = self.draw(&name, [n, c, h, w])?;
            x = ddpm_step(self.cx, &x, &eps, &noise, &step.coefficients)?;
            self.keep(&format!("step{i}.eps"), &eps)?;
            self.keep(&format!("step{i}.x_prev"), &x)?;
            self.check_finite(&x, &name)?;
        }
        self.keep("z_final", &x)?;
        Ok(x)
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
