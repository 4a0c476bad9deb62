//! A model call: ControlNet, adapters and UNet over both prompts in one batch, and guidance.

use std::cell::RefCell;
use std::collections::HashMap;

use super::recorded::{Recorded, Rows as TimeRows};
use super::trace::Rows;
use crate::error::{Error, Result};
use crate::models::adapters::AdapterTimes;
use crate::models::controlnet::{ControlText, ControlTimes};
use crate::models::unet::{Control, UNetText, UNetTimes};
use crate::models::{Adapters, ControlNet, UNet};
use crate::ops::Cx;
use crate::ops::diffusion::guide;
use crate::ops::elementwise::stack;
use crate::sampler::guidance::Guidance;
use crate::tensor::{Shape, Tensor};

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

/// What a call needs to know of its timestep: a row of each projection, or in [`Denoiser`] a row per timestep.
pub struct Times {
    unet: UNetTimes,
    control: Option<(ControlTimes, Option<AdapterTimes>)>,
}

impl Times {
    /// Every projection replaced by what `of` makes of it, in a fixed order.
    pub fn map(&self, of: &mut dyn FnMut(&Tensor) -> Result<Tensor>) -> Result<Self> {
        let unet = self.unet.map(of)?;
        let control = match &self.control {
            None => None,
            Some((times, adapters)) => {
                Some((times.map(of)?, adapters.as_ref().map(|adapters| adapters.map(of)).transpose()?))
            }
        };
        Ok(Times { unet, control })
    }

    fn row(&self, index: usize) -> Result<Self> {
        self.map(&mut |times| times.narrow(index, 1))
    }
}

/// A recorded call, or the note that its shape was met.
enum Call {
    Met,
    Recorded(Box<Recorded>),
}

/// Predicts noise. What is the same in every step is computed once, in [`Denoiser::new`]: projections of all
/// timesteps, keys and values of the text. On a GPU the second call of a shape is recorded, and the later ones are
/// replays.
pub struct Denoiser<'a> {
    cx: &'a Cx,
    networks: Networks<'a>,
    guidance: Guidance,
    times: Times,
    unet_text: UNetText,
    control: Option<(f32, ControlText)>,
    /// projections as recorded calls take them
    rows: RefCell<Option<TimeRows>>,
    calls: RefCell<HashMap<(Shape, bool), Call>>,
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
        let unet = networks.unet.times(cx, timesteps)?;
        let (mut control, mut control_times) = (None, None);
        if let Some(scale) = steering.control_scale {
            let times = networks.controlnet.times(cx, timesteps)?;
            control = Some((scale, networks.controlnet.text(cx, &context)?));
            let adapters = networks.adapters.map(|a| a.times(cx, &unet.embedding)).transpose()?;
            control_times = Some((times, adapters));
        }
        let unet_text = networks.unet.text(cx, &context)?;
        Ok(Denoiser {
            cx,
            networks,
            guidance: steering.guidance,
            times: Times { unet, control: control_times },
            unet_text,
            control,
            rows: RefCell::default(),
            calls: RefCell::default(),
        })
    }

    /// The noise in `x` [N, h, w, 4] at timestep number `index` of those prepared, f32 [N, h, w, 4], both prompts
    /// in one batch; `hint` is shaped like `x`. A call that is not `controlled` skips ControlNet and adapters.
    /// The result of a call is overwritten by the next one of its shape.
    ///
    /// # Errors
    /// Memory that runs out.
    pub fn predict(&self, index: usize, controlled: bool, x: &Tensor, hint: &Tensor) -> Result<Tensor> {
        let key = (x.shape(), controlled);
        let mut calls = self.calls.borrow_mut();
        let (gpu, call) = match (self.cx.device().gpu(), calls.get_mut(&key)) {
            (Some(gpu), Some(call)) => (gpu, call),
            // The first call is done at once: it brings all memory that its shape needs.
            _ => {
                calls.insert(key, Call::Met);
                drop(calls);
                return self.call(&self.times.row(index)?, controlled, x, hint, &mut |_, _, _| Ok(()));
            }
        };
        let mut rows = self.rows.borrow_mut();
        let rows = match &mut *rows {
            Some(rows) => rows,
            empty => empty.insert(TimeRows::new(self.cx, &self.times)?),
        };
        if let Call::Met = call {
            let work = |x: &Tensor, hint: &Tensor, times: &Times| {
                self.call(times, controlled, x, hint, &mut |_, _, _| Ok(()))
            };
            *call = Call::Recorded(Box::new(Recorded::new(
                self.cx,
                gpu,
                (x, hint),
                &rows.views(&self.times)?,
                work,
            )?));
        }
        rows.select(index)?;
        match call {
            // SAFETY: networks, text and rows are those of `self`, which the recording does not outlive.
            Call::Recorded(recorded) => unsafe { recorded.run(x, hint) },
            Call::Met => Err(Error::internal("a call was not recorded")),
        }
    }

    /// As [`Denoiser::predict`], always done at once, with what is computed on the way shown to `watch`.
    ///
    /// # Errors
    /// Memory that runs out, and those of `watch`.
    pub fn predict_watched(
        &self,
        index: usize,
        controlled: bool,
        x: &Tensor,
        hint: &Tensor,
        watch: &mut Watch,
    ) -> Result<Tensor> {
        self.call(&self.times.row(index)?, controlled, x, hint, watch)
    }

    fn call(
        &self,
        times: &Times,
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
        let control = match (&self.control, &times.control) {
            (Some((scale, text)), Some((times, adapters))) if controlled => {
                let residuals = self.networks.controlnet.forward(cx, &x, &hint, times, text, *scale)?;
                for (i, residual) in residuals.iter().enumerate() {
                    watch(&format!("control.{i}"), residual, rows)?;
                }
                Some(Control { residuals, adapters: self.networks.adapters.zip(adapters.as_ref()) })
            }
            _ => None,
        };
        let prediction = self.networks.unet.forward(cx, &x, &times.unet, &self.unet_text, control)?;
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
