//! Kind `units`: schedule, resizing, colour fix, windows, embeddings, tokens.

use tasr::error::{Error, Result};
use tasr::image::to_byte;
use tasr::ops::elementwise::combine;
use tasr::ops::embedding::timestep_embedding;
use tasr::ops::resize::resize_bicubic;
use tasr::ops::tiles::pad;
use tasr::ops::wavelet::{LEVELS, low_frequencies, wavelet_fix};
use tasr::sampler::schedule::{Schedule, alphas_cumprod, betas};
use tasr::sampler::sizes::{self, short_edge_size};
use tasr::sampler::tiles::{gaussian_window, origins};

use crate::case::{Case, to_nchw};
use crate::compare::{Comparison, TOLERANCE};
use crate::place;
use crate::tokens;

pub fn run(case: &Case) -> Result<Comparison> {
    let cx = &place::context()?;
    let mut comparison = Comparison::default();
    let image = case.image(cx, "image")?;
    let low = low_frequencies(cx, &image, LEVELS)?;
    let [_, h, w, _] = image.nhwc()?;
    const INPUTS: [&str; 3] = ["image", "reference", "bytes_input"];
    let names: Vec<String> = case.names().map(str::to_owned).collect();
    for name in names.iter().map(String::as_str).filter(|name| !INPUTS.contains(name)) {
        let parts: Vec<&str> = name.split('.').collect();
        let found = match parts[..] {
            ["betas"] => row(betas().iter().map(|&v| v as f32)),
            ["alphas_cumulative"] => row(alphas_cumprod().iter().map(|&v| v as f32)),
            ["schedule", count, part] => schedule(count, part)?,
            ["resized", size] => {
                let (h, w) = size.split_once('x').ok_or_else(|| unknown(name))?;
                to_nchw(&resize_bicubic(cx, &image, number(h)?, number(w)?)?)?
            }
            ["low"] => to_nchw(&low)?,
            ["high"] => to_nchw(&combine(cx, &[(1.0, &image), (-1.0, &low)], 0.0)?)?,
            ["fixed"] => to_nchw(&wavelet_fix(cx, &image, &case.image(cx, "reference")?, LEVELS)?)?,
            ["padded"] => to_nchw(&pad(cx, &image, sizes::pad(h), sizes::pad(w))?)?,
            ["short_edge"] => {
                let [h, w] = short_edge_size([h, w], 48)?;
                to_nchw(&resize_bicubic(cx, &image, h, w)?)?
            }
            ["bytes"] => {
                let bytes = image.to_f32()?.into_iter().map(|v| f32::from(to_byte(v))).collect();
                comparison.check_bytes(case, name, (image.shape().to_vec(), bytes))?;
                continue;
            }
            ["window", size] => {
                let size = number(size)?;
                (vec![size, size], gaussian_window(size))
            }
            ["origins", length, tile, stride] => {
                row(origins(number(length)?, number(tile)?, number(stride)?)?.into_iter().map(|v| v as f32))
            }
            ["time", width] => {
                let times = case.option("times").and_then(|v| v.as_array().cloned());
                let times: Vec<f32> = match times {
                    Some(times) => times.iter().filter_map(|v| v.as_f64()).map(|v| v as f32).collect(),
                    None => vec![0.0, 1.0, 37.0, 500.0, 999.0],
                };
                let width = number(width)?;
                (vec![times.len(), width], times.iter().flat_map(|&t| timestep_embedding(t, width)).collect())
            }
            ["tokens"] => {
                let prompts = case.list("prompts").unwrap_or_default();
                tokens::check(&mut comparison, case, "tokens", "tokens", &prompts)?;
                continue;
            }
            _ => return Err(unknown(name)),
        };
        comparison.check(case, name, found, TOLERANCE)?;
    }
    Ok(comparison)
}

fn row(values: impl Iterator<Item = f32>) -> (Vec<usize>, Vec<f32>) {
    let values: Vec<f32> = values.collect();
    (vec![values.len()], values)
}

fn number(text: &str) -> Result<usize> {
    text.parse().map_err(|_| unknown(text))
}

fn unknown(name: &str) -> Error {
    Error::input("this golden tensor has no known meaning").at(name)
}

fn schedule(count: &str, part: &str) -> Result<(Vec<usize>, Vec<f32>)> {
    let schedule = Schedule::spaced(number(count)?)?;
    Ok(row(match part {
        "timesteps" => return Ok(row(schedule.timesteps.iter().map(|&t| t as f32))),
        "x0_from_x" => schedule.x0_from_x,
        "x0_from_noise" => schedule.x0_from_noise,
        "mean_from_x0" => schedule.mean_from_x0,
        "mean_from_x" => schedule.mean_from_x,
        "variance" => schedule.variance,
        _ => return Err(unknown(part)),
    }
    .into_iter()))
}
