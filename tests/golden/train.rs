//! Kind `train`: one step of each target and rule set: losses, gradients, updated weights.

use std::collections::BTreeMap;

use tasr::autograd::Gradients;
use tasr::error::{Error, Result};
use tasr::models::config::SystemConfig;
use tasr::models::text::TextEncoder;
use tasr::models::{Adapters, ControlNet, UNet, Vae, Variant};
use tasr::nn::{Gathered, Layer, Scope, Trained};
use tasr::ops::adamw::AdamW;
use tasr::ops::diffusion::to_unit;
use tasr::ops::{Accumulate, Cx};
use tasr::tensor::{NodeId, Tensor};
use tasr::train::objective::{Part, Recipe};
use tasr::train::optimizer::{Learner, State};
use tasr::train::step::{self, Batch, Frozen, Learners, Plan, Reward, Step};
use tasr::weights::names::{ADAPTER, CONDITIONING, CONTROLNET, UNET, VAE};
use tasr::weights::{SyntheticSource, synthetic};

use crate::case::{Case, to_nchw};
use crate::compare::{Comparison, TOLERANCE};
use crate::place;

/// What bf16 leaves of the norm of a tensor's gradient, as a share of it.
const ROUNDED: f32 = 3e-2;
/// And of single elements, as a share of the largest of the first ones or of the root of the mean square, if that is
/// more. (PyTorch's on `train_tiny`: 95 % of the tensors within 0.11.)
const ROUNDED_ELEMENT: f32 = 0.12;

/// First elements of a tensor that a case keeps.
const HEAD: usize = 8;

pub fn run(case: &Case) -> Result<Comparison> {
    let cx = &place::context()?;
    let mut comparison = Comparison::default();
    let config = SystemConfig::preset(case.text("preset", "tiny"))?;
    let scope = |prefix: &'static str| Scope::new(cx, &SyntheticSource, prefix);
    let frozen = Frozen {
        text: TextEncoder::load(&scope(CONDITIONING), &config.text)?,
        vae: Vae::load(&scope(VAE), &config.vae)?,
        unet: UNet::load(&scope(UNET), &config.denoiser)?,
    };
    let target = case.image(cx, "target")?;
    let tokens = case.tokens("tokens")?;
    let rows: Vec<&[u32]> = tokens.iter().map(Vec::as_slice).collect();
    let latent = frozen.latent(cx, &target, &case.image(cx, "latent_noise")?)?;
    let hint = frozen.hint(cx, &case.image(cx, "clean")?)?;
    let context = frozen.context(cx, &rows)?;
    let noise = case.image(cx, "noise")?;

    for name in case.list("targets").unwrap_or(vec!["controlnet", "adapters"]) {
        let part = if name == "controlnet" { Part::ControlNet } else { Part::Adapters };
        let timesteps = case.option("t").and_then(|t| t.get(name)).and_then(|t| t.as_array());
        let timesteps = match timesteps {
            Some(list) => list.iter().filter_map(|t| Some(t.as_u64()? as usize)).collect(),
            None if part == Part::ControlNet => vec![120, 610],
            None => vec![37, 160],
        };
        for kind in case.list("objectives").unwrap_or(vec!["official", "paper"]) {
            let recipe = if kind == "official" { Recipe::Official } else { Recipe::Paper };
            let batch = Batch {
                target: target.clone(),
                latent: latent.clone(),
                hint: hint.clone(),
                context: context.clone(),
                timesteps: timesteps.clone(),
                noise: noise.clone(),
            };
            one(
                cx,
                case,
                &mut comparison,
                &frozen,
                &config,
                &batch,
                (part, recipe),
                &format!("{kind}.{name}"),
            )?;
        }
    }
    const INPUTS: [&str; 5] = ["target", "clean", "tokens", "noise", "latent_noise"];
    for name in case.names().filter(|name| !INPUTS.contains(name)) {
        if !comparison.has(name) {
            comparison.absent(name);
        }
    }
    Ok(comparison)
}

/// One step, with and without activation checkpointing, held against the tensors under `prefix`.
#[allow(clippy::too_many_arguments)]
fn one(
    cx: &Cx,
    case: &Case,
    comparison: &mut Comparison,
    frozen: &Frozen,
    config: &SystemConfig,
    batch: &Batch,
    (part, recipe): (Part, Recipe),
    prefix: &str,
) -> Result<()> {
    let variant =
        if case.text("adapter", "official") == "paper" { Variant::Paper } else { Variant::Official };
    let (gathered_control, gathered_adapters) = (Gathered::default(), Gathered::default());
    let controlnet = ControlNet::load(&scope(cx, CONTROLNET, &gathered_control), &config.denoiser)?;
    let mut controlnet = Learner::new(cx, Trained::new(controlnet, gathered_control)?)?;
    let adapters = Adapters::load(&scope(cx, ADAPTER, &gathered_adapters), &config.denoiser, variant)?;
    let mut adapters = Learner::new(cx, Trained::new(adapters, gathered_adapters)?)?;
    let plan = Plan {
        controlnet: part == Part::ControlNet,
        adapters: part == Part::Adapters,
        objective: recipe.objective(part),
        checkpointing: false,
    };
    let learners = Learners { controlnet: &controlnet.trained, adapters: Some(&adapters.trained) };
    let run = |plan: &Plan| step::step(cx, frozen, &learners, batch, plan, Some(&Stand));
    let mut found = run(&plan)?;
    let recomputed = run(&Plan { checkpointing: true, ..plan.clone() })?;
    let same =
        found.losses == recomputed.losses && bits(found_named(&found))? == bits(found_named(&recomputed))?;
    if !same {
        comparison.fail(&format!("{prefix}.checkpointing"), "gives other bits");
    }

    let mut check = |name: &str, tensor: &Tensor| {
        comparison.check(case, &format!("{prefix}.{name}"), to_nchw(tensor)?, TOLERANCE)
    };
    check("z0", &batch.latent)?;
    check("x_noisy", &found.noisy)?;
    check("eps", &found.eps)?;
    check("x0", &found.clean)?;
    let image = match &found.image {
        Some(image) => image.clone(),
        None => to_unit(cx, &frozen.vae.decode(cx, &found.clean)?)?,
    };
    check("image", &image)?;
    let losses = found.losses;
    let times: Vec<f32> = batch.timesteps.iter().map(|&t| t as f32).collect();
    comparison.check(case, &format!("{prefix}.t"), (vec![times.len()], times), 0.0)?;
    for (name, value) in [
        ("denoise", Some(losses.denoise)),
        ("pixel", losses.pixel),
        ("reward", losses.reward),
        ("total", Some(losses.total)),
    ] {
        if let Some(value) = value {
            comparison.check(case, &format!("{prefix}.{name}"), (vec![], vec![value as f32]), TOLERANCE)?;
        }
    }
    match part {
        Part::ControlNet => {
            updated(cx, case, comparison, &mut controlnet, &mut found.gradients, (CONTROLNET, prefix))
        }
        Part::Adapters => {
            updated(cx, case, comparison, &mut adapters, &mut found.gradients, (ADAPTER, prefix))
        }
    }
}

fn scope<'a>(cx: &'a Cx, prefix: &str, gathered: &'a Gathered) -> Scope<'a> {
    Scope::new(cx, &SyntheticSource, prefix).training(gathered)
}

fn found_named(step: &Step) -> Vec<(NodeId, Tensor)> {
    step.gradients.named().map(|(node, tensor)| (node, tensor.clone())).collect()
}

fn bits(gradients: Vec<(NodeId, Tensor)>) -> Result<Vec<(NodeId, Vec<u32>)>> {
    let read =
        |(node, tensor): (NodeId, Tensor)| Ok((node, tensor.to_f32()?.iter().map(|v| v.to_bits()).collect()));
    gradients.into_iter().map(read).collect()
}

/// Compares the gradients tensor by tensor, and the weights after one update.
fn updated<N: Layer>(
    cx: &Cx,
    case: &Case,
    comparison: &mut Comparison,
    learner: &mut Learner<N>,
    gradients: &mut Gradients,
    (root, prefix): (&str, &str),
) -> Result<()> {
    learner.accumulate(cx, gradients)?;
    let mut own = BTreeMap::new();
    for (parameter, gradient) in learner.trained.parameters.iter().zip(learner.gradients()) {
        let Some(gradient) = gradient else { continue };
        for (name, part) in parameter.parts(gradient)? {
            own.insert(name.to_owned(), part.to_f32()?);
        }
    }
    let rate = case.number("rate", 5e-6) as f32;
    learner.update(cx, &AdamW { rate, beta1: 0.9, beta2: 0.999, eps: 1e-8, decay: 0.01 }, None)?;
    let after: BTreeMap<String, Vec<f32>> =
        learner.export(State::Master)?.into_iter().map(|tensor| (tensor.name, tensor.values)).collect();

    let target = prefix.split('.').nth(1).unwrap_or_default();
    let names: Vec<String> = case
        .metadata(&format!("parameters.{target}"))
        .and_then(|text| serde_json::from_str(text).ok())
        .ok_or_else(|| Error::input("the case does not name its parameters").at(case.name()))?;
    if names.len() != own.len() {
        comparison.fail(prefix, &format!("{} tensors have gradients, expected {}", own.len(), names.len()));
    }
    let (mut norms, mut heads, mut later, mut means) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let missing = Vec::new();
    for name in &names {
        let full = format!("{root}{name}");
        let gradient = own.get(&full).unwrap_or(&missing);
        let norm = gradient.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        norms.push(norm as f32);
        means.push((norm / (gradient.len().max(1) as f64).sqrt()) as f32);
        let head =
            |values: &[f32]| (0..HEAD).map(|i| values.get(i).copied().unwrap_or(0.0)).collect::<Vec<_>>();
        heads.extend(head(gradient));
        later.extend(head(after.get(&full).unwrap_or(&missing)));
    }
    // Every tensor by its own scale: a norm by itself, first values by the tensor's largest of them.
    let tolerances = (TOLERANCE, ROUNDED);
    let norms = (vec![norms.len()], norms);
    comparison.check_gradients(case, &format!("{prefix}.grad_norm"), norms, 1, tolerances, &[])?;
    let (tolerances, heads) = ((TOLERANCE, ROUNDED_ELEMENT), (vec![names.len(), HEAD], heads));
    comparison.check_gradients(case, &format!("{prefix}.grad_head"), heads, HEAD, tolerances, &means)?;
    comparison.check_rows(
        case,
        &format!("{prefix}.updated_head"),
        (vec![names.len(), HEAD], later),
        HEAD,
        TOLERANCE,
    )
}

/// The cases' stand-in for CLIP-IQA: the mean of (1 + tanh(convolution of 2 * image - 1, 5x5, 3 -> 8, stride 2)) / 2.
struct Stand;

const OUT: usize = 8;
const SIDE: usize = 5;

impl Reward for Stand {
    fn scores(&self, cx: &Cx, images: &Tensor) -> Result<Tensor> {
        let [n, h, w, c] = images.nhwc()?;
        let mut weight = vec![0.0f32; OUT * c * SIDE * SIDE];
        synthetic::fill("reward.weight", &[OUT, c, SIDE, SIDE], &mut weight);
        let values = images.to_f32()?;
        let (rows, columns) = ((h - SIDE) / 2 + 1, (w - SIDE) / 2 + 1);
        let count = (rows * columns * OUT) as f64;
        let mut scores = vec![0.0f64; n];
        // the gradient of each image's score in its pixels
        let mut slopes = vec![0.0f64; values.len()];
        for (image, score) in scores.iter_mut().enumerate() {
            for place in 0..rows * columns {
                let (y, x) = (place / columns * 2, place % columns * 2);
                let taps = |i: usize| {
                    let (dy, dx, channel) = (i / SIDE % SIDE, i % SIDE, i / (SIDE * SIDE));
                    ((image * h + y + dy) * w + x + dx) * c + channel
                };
                for kernel in weight.chunks_exact(c * SIDE * SIDE) {
                    let term =
                        |(i, k): (usize, &f32)| f64::from(*k) * (2.0 * f64::from(values[taps(i)]) - 1.0);
                    let sum: f64 = kernel.iter().enumerate().map(term).sum();
                    *score += (0.5 + 0.5 * sum.tanh()) / count;
                    let slope = 0.5 * (1.0 - sum.tanh().powi(2)) * 2.0 / count;
                    kernel.iter().enumerate().for_each(|(i, k)| slopes[taps(i)] += slope * f64::from(*k));
                }
            }
        }
        let narrow: Vec<f32> = scores.iter().map(|v| *v as f32).collect();
        let result = Tensor::from_f32(cx.device(), &narrow, [n])?;
        let input = images.clone();
        Ok(cx.record(&[images], result, move |cx, gradient, gradients| {
            let seeds = gradient.to_f32()?;
            let size = h * w * c;
            let all: Vec<f32> =
                slopes.iter().enumerate().map(|(i, v)| (v * f64::from(seeds[i / size])) as f32).collect();
            gradients.add(cx, &input, Tensor::from_f32(cx.device(), &all, input.shape())?)
        }))
    }
}
