//! Kind `networks`: each network on drawn inputs. One part at a time, so that full size fits in memory.

use tasr::error::Result;
use tasr::models::config::SystemConfig;
use tasr::models::text::TextEncoder;
use tasr::models::unet::Control;
use tasr::models::{Adapters, ControlNet, RrdbNet, UNet, Vae, Variant};
use tasr::nn::Scope;
use tasr::ops::Cx;
use tasr::tensor::Tensor;
use tasr::weights::SyntheticSource;
use tasr::weights::names::{ADAPTER, CONDITIONING, CONTROLNET, UNET, VAE};

use crate::case::{Case, to_nchw};
use crate::compare::{Comparison, TOLERANCE};
use crate::place;

pub fn run(case: &Case) -> Result<Comparison> {
    let cx = &place::context()?;
    let config = SystemConfig::preset(case.text("preset", "tiny"))?;
    let mut comparison = Comparison::default();
    let scope = |prefix: &'static str| Scope::new(cx, &SyntheticSource, prefix);
    let mut check = |name: &str, tensor: &Tensor| comparison.check(case, name, to_nchw(tensor)?, TOLERANCE);

    let context = {
        let tower = TextEncoder::load(&scope(CONDITIONING), &config.text)?;
        let tokens = case.tokens("tokens")?;
        let text = tower.forward(cx, &tokens.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
        check("text", &text)?;
        text
    };
    {
        let vae = Vae::load(&scope(VAE), &config.vae)?;
        check("moments", &vae.moments(cx, &case.image(cx, "image")?)?)?;
        check("decoded", &vae.decode(cx, &case.image(cx, "z")?)?)?;
    }
    {
        let stage1 = RrdbNet::load(&scope(""), &config.rrdb)?;
        check("stage1", &stage1.forward(cx, &case.image(cx, "low")?)?)?;
    }

    let (x, hint) = (case.image(cx, "x")?, case.image(cx, "hint")?);
    let times = case.values("t")?.1;
    let context = context_rows(cx, case, &context, times.len())?;
    let residuals = {
        let controlnet = ControlNet::load(&scope(CONTROLNET), &config.denoiser)?;
        let (times, text) = (controlnet.times(cx, &times)?, controlnet.text(cx, &context)?);
        controlnet.forward(cx, &x, &hint, &times, &text, 1.0)?
    };
    for (i, residual) in residuals.iter().enumerate() {
        check(&format!("control.{i}"), residual)?;
    }

    let unet = UNet::load(&scope(UNET), &config.denoiser)?;
    let (unet_times, text) = (unet.times(cx, &times)?, unet.text(cx, &context)?);
    for name in case.list("adapters").unwrap_or(vec!["official", "paper", "none"]) {
        let variant = match name {
            "official" => Some(Variant::Official),
            "paper" => Some(Variant::Paper),
            _ => None,
        };
        let adapters = variant.map(|v| Adapters::load(&scope(ADAPTER), &config.denoiser, v)).transpose()?;
        let rows = adapters.as_ref().map(|a| a.times(cx, &unet_times.embedding)).transpose()?;
        let control =
            Control { residuals: residuals.clone(), adapters: adapters.as_ref().zip(rows.as_ref()) };
        let prediction = unet.forward(cx, &x, &unet_times, &text, Some(control))?;
        check(&format!("{name}.eps"), &prediction.eps)?;
        for (i, map) in prediction.maps.iter().enumerate() {
            check(&format!("{name}.map.{i}"), map)?;
        }
    }
    check("uncontrolled.eps", &unet.forward(cx, &x, &unet_times, &text, None)?.eps)?;

    const INPUTS: [&str; 8] = ["x", "hint", "t", "context", "tokens", "image", "z", "low"];
    for name in case.names().filter(|name| !INPUTS.contains(name)) {
        if !comparison.has(name) {
            comparison.absent(name);
        }
    }
    Ok(comparison)
}

/// The text features that the case conditions on: its own, or drawn ones.
fn context_rows(cx: &Cx, case: &Case, text: &Tensor, rows: usize) -> Result<Tensor> {
    if case.text("context", "random") == "text" {
        let first = text.narrow(0, 1)?;
        return tasr::ops::elementwise::stack(cx, &vec![&first; rows]);
    }
    let (shape, values) = case.values("context")?;
    Tensor::from_f32(cx.device(), &values, [shape[0], shape[1], shape[2]])
}
