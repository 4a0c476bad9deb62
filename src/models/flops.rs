//! How much arithmetic the networks take: two operations for each multiply-add of convolutions, matrix products and
//! attention. Norms, activations and sums are left out; they are memory traffic rather than arithmetic.
//!
//! What is computed once a run (time embeddings, keys and values of the text) is not part of a step.

use super::Variant;
use super::config::{Conditioning, DenoiserConfig, RrdbConfig, VaeConfig};

/// Convolution with a `kernel` x `kernel` window, or a matrix product when 1: `pixels` outputs.
fn conv(kernel: usize, pixels: usize, inputs: usize, outputs: usize) -> f64 {
    2.0 * (kernel * kernel) as f64 * pixels as f64 * inputs as f64 * outputs as f64
}

/// Scores and their sum over values: every query meets every key, `width` over all heads.
fn attention(queries: usize, keys: usize, width: usize) -> f64 {
    4.0 * queries as f64 * keys as f64 * width as f64
}

/// Two 3x3 convolutions and a 1x1 where the width changes.
fn residual(pixels: usize, inputs: usize, outputs: usize) -> f64 {
    let skip = if inputs == outputs { 0.0 } else { conv(1, pixels, inputs, outputs) };
    conv(3, pixels, inputs, outputs) + conv(3, pixels, outputs, outputs) + skip
}

/// A spatial transformer of depth 1 over text of 77 tokens.
fn transformer(pixels: usize, width: usize) -> f64 {
    // proj_in, proj_out; q, k, v, out; q, out.
    let square = 8.0 * conv(1, pixels, width, width);
    let feed_forward = conv(1, pixels, width, 8 * width) + conv(1, pixels, 4 * width, width);
    square + attention(pixels, pixels, width) + attention(pixels, 77, width) + feed_forward
}

/// Encoder and middle of UNet and ControlNet.
fn encoder(config: &DenoiserConfig, pixels: usize, inputs: usize) -> f64 {
    let (mut total, mut pixels, mut width) =
        (conv(3, pixels, inputs, config.channels), pixels, config.channels);
    for (level, &outputs) in config.widths.iter().enumerate() {
        for _ in 0..config.blocks {
            total += residual(pixels, width, outputs);
            width = outputs;
            if config.attention[level] {
                total += transformer(pixels, width);
            }
        }
        if level + 1 < config.widths.len() {
            pixels /= 4;
            total += conv(3, pixels, width, width);
        }
    }
    total + 2.0 * residual(pixels, width, width) + transformer(pixels, width)
}

/// Pixels at every output block of the decoder.
fn decoder_pixels(config: &DenoiserConfig, pixels: usize) -> Vec<usize> {
    let levels = (0..config.widths.len()).rev();
    levels.flat_map(|level| vec![pixels >> (2 * level); config.blocks + 1]).collect()
}

/// One UNet call on a latent of `pixels`.
pub fn unet(config: &DenoiserConfig, pixels: usize) -> f64 {
    let mut total = encoder(config, pixels, config.latent);
    let blocks = config.joins().into_iter().zip(decoder_pixels(config, pixels));
    for (i, ((width, skip), pixels)) in blocks.enumerate() {
        let level = config.widths.len() - 1 - i / (config.blocks + 1);
        let outputs = config.widths[level];
        total += residual(pixels, width + skip, outputs);
        if config.attention[level] {
            total += transformer(pixels, outputs);
        }
        if level > 0 && (i + 1).is_multiple_of(config.blocks + 1) {
            total += conv(3, 4 * pixels, outputs, outputs);
        }
    }
    total + conv(3, pixels, config.channels, config.latent)
}

/// One ControlNet call on a latent of `pixels`.
pub fn controlnet(config: &DenoiserConfig, pixels: usize) -> f64 {
    // The decoder meets the features in reverse order, at the sizes that they have.
    let places = decoder_pixels(config, pixels);
    let projections = config.joins().into_iter().zip(&places).map(|((_, skip), &p)| conv(1, p, skip, skip));
    let middle = conv(1, places.first().copied().unwrap_or(0), config.middle(), config.middle());
    encoder(config, pixels, 2 * config.latent) + projections.sum::<f64>() + middle
}

/// All adapters of one call on a latent of `pixels`.
pub fn adapters(config: &DenoiserConfig, pixels: usize, variant: Variant) -> f64 {
    let places = decoder_pixels(config, pixels);
    let middle = (None, config.middle(), places.first().copied().unwrap_or(0));
    let joins = config.joins().into_iter().zip(&places).map(|((h, s), &p)| (Some(h), s, p));
    let one = |(h, s, p): (Option<usize>, usize, usize)| match variant {
        Variant::Official => {
            let inputs = 2 * h.unwrap_or(0) + 3 * s;
            let m = inputs / 4;
            conv(3, p, inputs, m) + conv(3, p, m, m / 2) + conv(3, p, m / 2, 1)
        }
        Variant::Paper => {
            let inputs = h.unwrap_or(s) + s;
            conv(3, p, inputs, inputs / 4) + conv(3, p, inputs / 4, 1)
        }
    };
    std::iter::once(middle).chain(joins).map(one).sum()
}

/// The middle of both halves of the autoencoder: two residual blocks and attention of one head.
fn vae_middle(pixels: usize, width: usize) -> f64 {
    2.0 * residual(pixels, width, width)
        + 4.0 * conv(1, pixels, width, width)
        + attention(pixels, pixels, width)
}

/// Encoding an image of `pixels`.
pub fn vae_encode(config: &VaeConfig, pixels: usize) -> f64 {
    let first = config.widths.first().copied().unwrap_or(0);
    let (mut total, mut pixels, mut width) = (conv(3, pixels, 3, first), pixels, first);
    for (level, &outputs) in config.widths.iter().enumerate() {
        for _ in 0..config.blocks {
            total += residual(pixels, width, outputs);
            width = outputs;
        }
        if level + 1 < config.widths.len() {
            pixels /= 4;
            total += conv(3, pixels, width, width);
        }
    }
    let moments = 2 * config.latent;
    total + vae_middle(pixels, width) + conv(3, pixels, width, moments) + conv(1, pixels, moments, moments)
}

/// Decoding a latent to an image of `pixels`.
pub fn vae_decode(config: &VaeConfig, pixels: usize) -> f64 {
    let levels = config.widths.len();
    let mut width = config.widths.last().copied().unwrap_or(0);
    let mut at = pixels >> (2 * levels.saturating_sub(1));
    let latent = config.latent;
    let mut total = conv(1, at, latent, latent) + conv(3, at, latent, width) + vae_middle(at, width);
    for (level, &outputs) in config.widths.iter().enumerate().rev() {
        for _ in 0..=config.blocks {
            total += residual(at, width, outputs);
            width = outputs;
        }
        if level > 0 {
            at *= 4;
            total += conv(3, at, width, width);
        }
    }
    total + conv(3, pixels, width, 3)
}

/// One prompt.
pub fn text(conditioning: &Conditioning) -> f64 {
    let Conditioning::Text(config) = conditioning else { return 0.0 };
    let (length, d) = (config.length, config.width);
    config.run() as f64 * (12.0 * conv(1, length, d, d) + attention(length, length, d))
}

/// Stage 1 over an image of `pixels`, before its enlargement.
pub fn stage1(config: &RrdbConfig, pixels: usize) -> f64 {
    let (f, g) = (config.features, config.growth);
    let dense: f64 =
        (0..4).map(|i| conv(3, pixels, f + i * g, g)).sum::<f64>() + conv(3, pixels, f + 4 * g, f);
    let trunk = conv(3, pixels, 3, f) + (3 * config.blocks) as f64 * dense + conv(3, pixels, f, f);
    let up = conv(3, 4 * pixels, f, f) + 2.0 * conv(3, 16 * pixels, f, f);
    trunk + up + conv(3, 16 * pixels, f, 3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::config::SystemConfig;

    /// Known figures of the published networks, 128x128 to 512x512.
    #[test]
    fn the_published_networks_take_what_is_known() {
        let config = SystemConfig::preset("sd21").expect("preset");
        let (latent, image) = (64 * 64, 512 * 512);
        let found = [
            (unet(&config.denoiser, latent), 0.804),
            (controlnet(&config.denoiser, latent), 0.269),
            (adapters(&config.denoiser, latent, Variant::Official), 0.570),
            (vae_encode(&config.vae, image), 1.12),
            (vae_decode(&config.vae, image), 2.51),
            (stage1(&config.rrdb, 128 * 128), 0.59),
            (text(&config.text), 0.045),
        ];
        for (flops, known) in found {
            let teras = flops / 1e12;
            assert!((teras / known - 1.0).abs() < 0.02, "{teras} TFLOP, known {known}");
        }
    }
}
