//! One training step: losses and the gradients of what is trained.

use super::loss::{mean_squared_error, pixel_loss, reward_loss, scaled};
use super::objective::{CleanLatent, Objective};
use crate::autograd::Gradients;
use crate::error::{Error, Result};
use crate::models::text::TextEncoder;
use crate::models::unet::Control;
use crate::models::{Adapters, ControlNet, UNet, Vae};
use crate::nn::Trained;
use crate::ops::Cx;
use crate::ops::diffusion::{combine_images, to_unit};
use crate::ops::elementwise::combine;
use crate::sampler::schedule::alphas_cumprod;
use crate::tensor::Tensor;

/// Judges images; gradients flow through it.
pub trait Reward {
    /// Scores [N], f32, of `images` [N, H, W, 3] in [0, 1], recorded on the tape of `cx`.
    fn scores(&self, cx: &Cx, images: &Tensor) -> Result<Tensor>;
}

/// The networks that no step changes.
pub struct Frozen {
    pub text: TextEncoder,
    pub vae: Vae,
    pub unet: UNet,
}

/// The networks that are trained, each with its masters. Without adapters the ControlNet's residuals are added as they
/// are.
pub struct Learners<'a> {
    pub controlnet: &'a Trained<ControlNet>,
    pub adapters: Option<&'a Trained<Adapters>>,
}

/// What a batch is for the networks: everything that needs no gradient, in f32.
#[derive(Clone, Debug)]
pub struct Batch {
    /// the wanted image [N, H, W, 3] in [-1, 1]
    pub target: Tensor,
    /// its latent, a sample [N, h, w, 4]
    pub latent: Tensor,
    /// the mode of the cleaned image's latent [N, h, w, 4]
    pub hint: Tensor,
    /// text features [N, L, D]
    pub context: Tensor,
    /// timesteps in 0..1000, one for each image
    pub timesteps: Vec<usize>,
    /// unit normal [N, h, w, 4]
    pub noise: Tensor,
}

/// Which networks get gradients, and what for.
#[derive(Clone, Debug)]
pub struct Plan {
    pub controlnet: bool,
    pub adapters: bool,
    pub objective: Objective,
    /// recompute blocks in the backward pass
    pub checkpointing: bool,
}

/// Unweighted losses; `total` is weighted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Losses {
    pub denoise: f64,
    pub pixel: Option<f64>,
    pub reward: Option<f64>,
    pub total: f64,
}

/// What a step computed.
pub struct Step {
    pub losses: Losses,
    /// of every parameter of the networks that the plan names; see `Learner::accumulate`
    pub gradients: Gradients,
    /// the noisy latent, the predicted noise and the clean latent that it implies [N, h, w, 4]
    pub noisy: Tensor,
    pub eps: Tensor,
    pub clean: Tensor,
    /// the decoded clean latent [N, H, W, 3] in [0, 1], where the objective looks at it
    pub image: Option<Tensor>,
}

impl Frozen {
    /// The latent of a wanted image: a sample with `noise` [N, h, w, 4].
    pub fn latent(&self, cx: &Cx, target: &Tensor, noise: &Tensor) -> Result<Tensor> {
        self.vae.encode(cx, target, Some(noise))
    }

    /// The hint of a cleaned image [N, H, W, 3] in [0, 1].
    pub fn hint(&self, cx: &Cx, clean: &Tensor) -> Result<Tensor> {
        self.vae.encode(cx, &combine(cx, &[(2.0, clean)], -1.0)?, None)
    }

    /// The features of token rows.
    pub fn context(&self, cx: &Cx, tokens: &[&[u32]]) -> Result<Tensor> {
        self.text.forward(cx, tokens)
    }
}

/// Factors of the noisy latent, the predicted noise: signal, spread; then of x and eps in the clean latent.
pub(super) fn factors(timesteps: &[usize], clean: CleanLatent) -> Result<[Vec<f32>; 4]> {
    let total = alphas_cumprod();
    let mut all: [Vec<f32>; 4] = Default::default();
    for &t in timesteps {
        let a = *total.get(t).ok_or_else(|| Error::internal(format!("timestep {t} of {}", total.len())))?;
        let (signal, spread) = (a.sqrt() as f32, (1.0 - a).sqrt() as f32);
        let (from_x, from_eps) = match clean {
            CleanLatent::Published => (signal, -spread),
            CleanLatent::Inverse => (1.0 / signal, -spread / signal),
        };
        all.iter_mut().zip([signal, spread, from_x, from_eps]).for_each(|(list, factor)| list.push(factor));
    }
    Ok(all)
}

/// Losses and gradients of `batch`.
///
/// # Errors
/// The plan trains adapters that are not there, or its objective asks for a reward that is not given.
pub fn step(
    cx: &Cx,
    frozen: &Frozen,
    learners: &Learners,
    batch: &Batch,
    plan: &Plan,
    reward: Option<&dyn Reward>,
) -> Result<Step> {
    let objective = &plan.objective;
    let times: Vec<f32> = batch.timesteps.iter().map(|&t| t as f32).collect();
    let [signal, spread, from_x, from_eps] = factors(&batch.timesteps, objective.clean)?;
    let noisy = combine_images(cx, &[(&signal, &batch.latent), (&spread, &batch.noise)])?;
    let (unet_times, unet_text) = (frozen.unet.times(cx, &times)?, frozen.unet.text(cx, &batch.context)?);

    let cx = &cx.with_tape().with_checkpointing(plan.checkpointing);
    let tape = cx.tape().ok_or_else(|| Error::internal("a step without a tape"))?;
    if plan.controlnet {
        learners.controlnet.watch(tape);
    }
    if plan.adapters {
        let adapters = learners.adapters.ok_or_else(|| Error::internal("there are no adapters to train"))?;
        adapters.watch(tape);
    }
    let controlnet = &learners.controlnet.network;
    let (control_times, control_text) = (controlnet.times(cx, &times)?, controlnet.text(cx, &batch.context)?);
    let residuals = controlnet.forward(cx, &noisy, &batch.hint, &control_times, &control_text, 1.0)?;
    let adapters = learners.adapters.map(|trained| &trained.network);
    let adapter_times = adapters.map(|adapters| adapters.times(cx, &unet_times.embedding)).transpose()?;
    let control = Control { residuals, adapters: adapters.zip(adapter_times.as_ref()) };
    let eps = frozen.unet.forward(cx, &noisy, &unet_times, &unet_text, Some(control))?.eps;

    let denoise = mean_squared_error(&eps, &batch.noise)?;
    let mut losses = Losses { denoise: denoise.value, total: denoise.value, ..Losses::default() };
    let clean = combine_images(cx, &[(&from_x, &noisy), (&from_eps, &eps)])?;
    let mut seeds = vec![(eps.clone(), denoise.gradient)];
    let mut image = None;
    if objective.needs_image(&batch.timesteps) {
        let found = to_unit(cx, &frozen.vae.decode(cx, &clean)?)?;
        if let Some(term) = &objective.pixel {
            let wanted = combine(&cx.without_tape(), &[(0.5, &batch.target)], 0.5)?;
            let loss = pixel_loss(&found, &wanted, &batch.timesteps, term)?;
            losses.pixel = Some(loss.value);
            let loss = scaled(loss, term.weight)?;
            losses.total += loss.value;
            seeds.push((found.clone(), loss.gradient));
        }
        if let Some(term) = &objective.reward {
            let reward = reward.ok_or_else(|| Error::internal("the objective asks for a reward"))?;
            let scores = reward.scores(cx, &found)?;
            let loss = reward_loss(&scores, &batch.timesteps, &term.form)?;
            losses.reward = Some(loss.value);
            let loss = scaled(loss, term.weight)?;
            losses.total += loss.value;
            seeds.push((scores, loss.gradient));
        }
        image = Some(found);
    } else {
        // No image is in range: the terms are there and zero.
        losses.pixel = objective.pixel.as_ref().map(|_| 0.0);
        losses.reward = objective.reward.as_ref().map(|_| 0.0);
    }
    let seeds = seeds.iter().map(|(value, gradient)| (value, gradient.clone())).collect();
    let gradients = tape.backward(cx, seeds)?;
    let detached = |tensor: &Tensor| tensor.detached();
    Ok(Step {
        losses,
        gradients,
        eps: detached(&eps),
        clean: detached(&clean),
        image: image.as_ref().map(detached),
        noisy,
    })
}
