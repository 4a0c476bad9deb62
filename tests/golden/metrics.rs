//! Kind `metrics`: scores of pictures, and for those that serve as rewards their gradients in the picture.

use tasr::error::{Error, Result};
use tasr::metrics::clipiqa::Prompts;
use tasr::metrics::{Channels, ClipIqa, NoReference, psnr, ssim};
use tasr::models::clip::ClipConfig;
use tasr::nn::Scope;
use tasr::ops::Cx;
use tasr::tensor::Tensor;
use tasr::weights::SyntheticSource;

use crate::case::{Case, to_nchw};
use crate::compare::{Comparison, TOLERANCE};
use crate::place;

/// Parts of the system that come with a later version: they are named, and nothing is claimed of them.
const NOT_BUILT: [&str; 4] = ["musiq", "maniqa", "lpips_alex", "lpips_vgg"];

pub fn run(case: &Case) -> Result<Comparison> {
    let cx = &place::context()?;
    let mut comparison = Comparison::default();
    let image = case.image(cx, "image")?;
    if case.has("reference") {
        with_reference(case, &image, &case.image(cx, "reference")?, &mut comparison)?;
    }
    if case.has("clipiqa") {
        clip_iqa(case, cx, &image, &mut comparison)?;
    }
    for name in case.names().filter(|name| !["image", "reference"].contains(name)) {
        if NOT_BUILT.contains(&name.split('.').next().unwrap_or(name)) {
            comparison.not_built(name);
        } else if !comparison.has(name) {
            comparison.absent(name);
        }
    }
    Ok(comparison)
}

fn with_reference(
    case: &Case,
    image: &Tensor,
    reference: &Tensor,
    comparison: &mut Comparison,
) -> Result<()> {
    let [n, h, w, _] = image.nhwc()?;
    let (images, references) = (image.to_f32()?, reference.to_f32()?);
    let (mut ratios, mut similarities) = (Vec::new(), Vec::new());
    for (a, b) in images.chunks(h * w * 3).zip(references.chunks(h * w * 3)) {
        ratios.push(psnr(a, b, Channels::Ycbcr)? as f32);
        similarities.push(ssim(a, b, (h, w), Channels::Ycbcr)? as f32);
    }
    // A thousandth of a decibel, and of similarity, would hide a wrong colour space: these are exact formulas.
    comparison.check_f32(case, "psnr", (vec![n], ratios), 1e-5)?;
    comparison.check_f32(case, "ssim", (vec![n], similarities), 1e-5)
}

fn clip_iqa(case: &Case, cx: &Cx, image: &Tensor, comparison: &mut Comparison) -> Result<()> {
    let scope = Scope::new(cx, &SyntheticSource, "");
    let metric = ClipIqa::load(&scope, &ClipConfig::default(), Prompts::Five)?;
    let texts = metric.texts();
    let n = image.shape()[0];
    comparison.check_f32(
        case,
        "clipiqa.text",
        (vec![texts.len(), texts[0].len()], texts.concat()),
        TOLERANCE,
    )?;
    let pairs = metric.pairs(cx, image)?;
    comparison.check_f32(case, "clipiqa.pairs", (vec![n, pairs[0].len()], pairs.concat()), TOLERANCE)?;

    let taped = cx.with_tape();
    let tape = taped.tape().ok_or_else(|| Error::internal("a context with a tape"))?;
    let input = tape.variable(image);
    let scores = metric.score(&taped, &input)?;
    comparison.check_f32(case, "clipiqa", (vec![n, 1], scores.to_f32()?), TOLERANCE)?;
    let seed = Tensor::from_f32(cx.device(), &vec![1.0 / n as f32; n], [n])?;
    let gradients = tape.backward(&taped, vec![(&scores, seed)])?;
    let gradient = gradients.of(&input).ok_or_else(|| Error::internal("no gradient reached the image"))?;
    comparison.check_through_relus(case, "clipiqa.grad", to_nchw(gradient)?, TOLERANCE)
}
