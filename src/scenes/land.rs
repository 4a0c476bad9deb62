//! Landscapes: sky with clouds, ridges behind each other in haze, water, trees and grass in front.

use super::canvas::{Canvas, Rgb};
use super::colour::{Palette, lit, mix};
use super::noise::Noise;
use super::paint::Paint;
use super::strokes;
use super::{Random, span};

/// Fills the canvas with a view into the open.
pub fn landscape(canvas: &mut Canvas, palette: &Palette, random: &mut Random) {
    let side = canvas.side as f32;
    let sky = sky(canvas, random);
    let ridges = 1 + random.index(4);
    let top = span(random, 0.2, 0.7);
    for ridge in 0..ridges {
        let near = (ridge + 1) as f32 / ridges as f32;
        let base = side * (top + (0.95 - top) * (near - 0.5 / ridges as f32));
        let rough = side * span(random, 0.05, 0.2);
        let outline = Noise::plain(side * span(random, 0.2, 0.7), 7, span(random, 0.4, 0.6), random);
        let soil = if random.chance(0.6) { Palette::foliage(random) } else { Palette::earth(random) };
        let soil = if random.chance(0.2) { palette } else { &soil };
        let paint = Paint::material(soil, side * 0.4 * near, random);
        let haze = 0.75 * (1.0 - near) + 0.05;
        let row = span(random, -1e4, 1e4);
        let heights: Vec<f32> = (0..canvas.side).map(|x| base - rough * outline.at(x as f32, row)).collect();
        for y in 0..canvas.side {
            for (x, height) in heights.iter().enumerate() {
                let coverage = (y as f32 + 1.0 - height).clamp(0.0, 1.0);
                if coverage > 0.0 {
                    let light = 1.0 - 0.25 * ((y as f32 - height) / side).clamp(0.0, 1.0);
                    let colour = lit(paint.at(x as f32, y as f32), light);
                    canvas.blend(x, y, mix(colour, sky, haze), coverage);
                }
            }
        }
    }
    if random.chance(0.25) {
        water(canvas, span(random, 0.6, 0.85), random);
    }
    for _ in 0..random.index(4) {
        let bark = if random.chance(0.7) { Palette::foliage(random) } else { Palette::earth(random) };
        strokes::branches(canvas, &bark, random);
    }
    if random.chance(0.4) {
        let foliage = Palette::foliage(random);
        strokes::grass(canvas, &foliage, span(random, 0.7, 0.95), random);
    }
}

/// Paints the sky and gives the colour of its haze.
fn sky(canvas: &mut Canvas, random: &mut Random) -> Rgb {
    let side = canvas.side as f32;
    let days = [
        ([0.3, 0.48, 0.75], [0.75, 0.83, 0.9]),
        ([0.62, 0.66, 0.7], [0.8, 0.81, 0.82]),
        ([0.35, 0.38, 0.55], [0.92, 0.68, 0.48]),
        ([0.16, 0.2, 0.32], [0.45, 0.42, 0.45]),
    ];
    let (zenith, horizon) = days[random.choose(&[0.45, 0.25, 0.2, 0.1])];
    let clouds = Noise::plain(side * span(random, 0.2, 0.6), 7, span(random, 0.45, 0.6), random);
    let cover = span(random, -0.5, 0.6);
    let stretch = span(random, 1.0, 2.5);
    let white = lit(horizon, span(random, 1.0, 1.25)).map(|v| v.min(1.0));
    *canvas = Canvas::painted(canvas.side, |x, y| {
        let blue = mix(zenith, horizon, (1.3 * y / side).min(1.0));
        let thick = clouds.at(x, stretch * y);
        let share = (1.6 * (thick + cover - 0.2)).clamp(0.0, 0.95);
        // Thick clouds are grey below.
        mix(blue, lit(white, 1.0 - 0.3 * (thick + cover - 0.6).clamp(0.0, 1.0)), share)
    });
    horizon
}

/// The part below `level` in [0, 1] mirrors what is above it, broken by waves.
fn water(canvas: &mut Canvas, level: f32, random: &mut Random) {
    let side = canvas.side;
    let line = (level * side as f32) as usize;
    let waves = Noise::plain(0.03 * side as f32, 3, 0.5, random);
    let tint = lit([0.5, 0.6, 0.65], span(random, 0.5, 1.0));
    let above = canvas.pixels.clone();
    for y in line..side {
        let depth = (y - line) as f32;
        for x in 0..side {
            // Waves look longer across than in depth, and larger when near.
            let near = 12.0 / (6.0 + depth);
            let wave = waves.at(x as f32 * (0.4 + near), depth * (1.5 + 3.0 * near));
            let shift = wave * (0.15 * depth + 2.0);
            let from = (line as f32 - 1.0 - depth + shift).clamp(0.0, side as f32 - 1.0) as usize;
            let [r, g, b, _] = above[from * side + x];
            let colour = mix(lit([r, g, b], 0.85 + 0.25 * wave), tint, 0.25);
            canvas.blend(x, y, colour, 1.0);
        }
    }
}
