//! Kind `pipeline`: photos end to end, with the case's noise.

use std::collections::HashMap;

use tasr::error::{Error, Result};
use tasr::image::{decode, network_colour};
use tasr::models::Variant;
use tasr::models::config::SystemConfig;
use tasr::pipeline::progress::Silent;
use tasr::pipeline::{Options, Pipeline, TextFeatures, Tile, TraceFile, Weights};
use tasr::sampler::{NoiseSource, Replay};
use tasr::tensor::Tensor;

use crate::case::Case;
use crate::compare::{Comparison, LOOSE, TOLERANCE};
use crate::place;
use crate::tokens;

/// What the official program uses when the case names none.
const NEGATIVE_PROMPT: &str = "low quality, blurry, low-resolution, noisy, unsharp, weird textures";

pub fn run(case: &Case) -> Result<Comparison> {
    let cx = &place::context()?;
    let mut comparison = Comparison::default();
    let variant = match case.text("adapter", "official") {
        "official" => Some(Variant::Official),
        "paper" => Some(Variant::Paper),
        _ => None,
    };
    let weights = Weights::synthetic(SystemConfig::preset(case.text("preset", "tiny"))?, variant);
    let guided = case.number("cfg", 4.0) != 1.0;

    let (prompt, negative) = (case.text("prompt", ""), case.text("negative_prompt", NEGATIVE_PROMPT));
    let positive = tokens::check(&mut comparison, case, "tokens.cond", "tokens", &[prompt])?;
    let negative = tokens::check(&mut comparison, case, "tokens.uncond", "negative_tokens", &[negative])?;
    let text = {
        let tower = weights.load_text(cx)?;
        TextFeatures::encode(cx, &tower, [positive[0].as_slice(), negative[0].as_slice()])?
    };

    let (low, images) = read_images(case)?;
    let low = Tensor::from_f32(cx.device(), &low, images)?;
    let options = Options {
        scale: case.number("upscale", 4.0),
        steps: case.number("steps", 50.0) as usize,
        cfg: case.number("cfg", 4.0),
        control_scale: case.number("strength", 1.0) as f32,
        better_start: case.flag("better_start"),
        tile: if case.flag("tiled") { Tile::Pixels(case.number("tile", 512.0) as usize) } else { Tile::Off },
        tile_stride: Some(case.number("stride", 256.0) as usize),
        ..Options::default()
    };
    let mut noise = Replay::new(case.name(), case.under("noise.")?.into_iter().collect::<HashMap<_, _>>())?;
    noise.select(0, &vec![0; images[0]]);
    let mut trace = TraceFile::new(case.names().map(str::to_owned).collect());
    let system = weights.load(cx)?;
    let rows = |tokens: &[Vec<u32>]| text.rows(cx, &vec![tokens[0].as_slice(); images[0]]);
    let (positive, negative) = (rows(&positive)?, rows(&negative)?);
    let mut pipeline = Pipeline {
        cx,
        system: &system,
        options: &options,
        noise: &mut noise,
        trace: &mut trace,
        progress: &Silent,
    };
    pipeline.upscale(&low, &positive, guided.then_some(&negative))?;

    for (name, shape, values) in trace.tensors() {
        match name {
            "bytes" => comparison.check_bytes(case, name, (shape, values))?,
            "z_final" | "decoded" | "fixed" | "final" => {
                comparison.check(case, name, (shape, values), LOOSE)?
            }
            _ => comparison.check(case, name, (shape, values), TOLERANCE)?,
        }
    }
    if !guided && case.has("text.uncond") {
        comparison.check(case, "text.uncond", (negative.shape().to_vec(), negative.to_f32()?), TOLERANCE)?;
    }
    for name in case.names() {
        if !comparison.has(name) {
            comparison.absent(name);
        }
    }
    Ok(comparison)
}

/// The case's images, NHWC, and their shape.
fn read_images(case: &Case) -> Result<(Vec<f32>, [usize; 4])> {
    let (mut values, mut shape) = (Vec::new(), [0, 0, 0, 3]);
    for name in case.list("images").unwrap_or_default() {
        let picture = decode(&case.folder().join(name))?;
        let size = [picture.height, picture.width];
        if shape[0] > 0 && shape[1..3] != size {
            return Err(Error::input("the images differ in size").at(case.name()));
        }
        shape = [shape[0] + 1, size[0], size[1], 3];
        values.extend_from_slice(&network_colour(&picture));
    }
    Ok((values, shape))
}
