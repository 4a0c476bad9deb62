//! What a camera does to a scene: uneven light, tone, the softness of a lens, grain.

use super::canvas::Canvas;
use super::colour::luma;
use super::noise::Noise;
use super::{Random, span};

/// `[side, side, 3]` in [0, 1], at the middles of the 256 steps of bytes.
pub fn finish(canvas: &Canvas, random: &mut Random) -> Vec<f32> {
    let side = canvas.side as f32;
    let mut canvas = canvas.clone();
    if random.chance(0.3) {
        // A lens is never sharper than this; most targets are left as sharp as pixels are.
        canvas.blur(span(random, 0.05, 0.45));
    }
    let light = Noise::plain(side * span(random, 0.6, 2.0), 2, 0.4, random);
    let uneven = span(random, 0.0, 0.45);
    let corner = if random.chance(0.4) { span(random, 0.0, 0.5) } else { 0.0 };
    let exposure = (0.15 * random.normal() as f32).exp();
    let gamma = (0.15 * random.normal() as f32).exp();
    let black = if random.chance(0.3) { span(random, 0.0, 0.08) } else { 0.0 };
    let grain = [0.0, span(random, 0.002, 0.008), span(random, 0.008, 0.02)][random.choose(&[0.5, 0.4, 0.1])];
    // As many as photos in black and white need to be learnt, too.
    let grey = random.chance(0.1);
    let mut values = Vec::with_capacity(canvas.pixels.len() * 3);
    for (i, &[r, g, b, _]) in canvas.pixels.iter().enumerate() {
        let (x, y) = ((i % canvas.side) as f32, (i / canvas.side) as f32);
        let (u, v) = (x / side - 0.5, y / side - 0.5);
        let factor = exposure * (1.0 + uneven * light.at(x, y)) * (1.0 - corner * (u * u + v * v));
        let mut colour = [r, g, b];
        if grey {
            colour = [luma(colour); 3];
        }
        for value in colour {
            let toned = (value * factor).max(0.0).powf(gamma);
            // A soft shoulder instead of burnt whites.
            let toned = if toned > 0.8 { 1.0 - 0.2 * (-(toned - 0.8) / 0.2).exp() } else { toned };
            values.push(black + (1.0 - black) * toned);
        }
    }
    if grain > 0.0 {
        for pixel in values.chunks_exact_mut(3) {
            // Mostly of luminance, as after a camera's own denoising.
            let shared = 0.8 * random.normal() as f32;
            pixel.iter_mut().for_each(|v| *v += grain * (shared + 0.6 * random.normal() as f32));
        }
    }
    values.iter_mut().for_each(|v| *v = ((v.clamp(0.0, 1.0) * 255.0).round() + 0.5).min(255.0) / 255.0);
    values
}
