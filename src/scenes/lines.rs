//! What people build and draw: line art, grids in perspective, facades, rings and fans.

use std::f32::consts::{PI, TAU};

use super::canvas::Canvas;
use super::colour::{Palette, lit, mix};
use super::noise::{Noise, cell};
use super::paint::Paint;
use super::strokes::stroke;
use super::{Random, span};

/// Drawings with a pen on paper: curves, circles, zigzags and hatching.
pub fn art(canvas: &mut Canvas, palette: &Palette, random: &mut Random) {
    let side = canvas.side as f32;
    let [dark, light] = palette.pair(random, 0.5);
    let (paper, ink) = if random.chance(0.75) { (light, dark) } else { (dark, light) };
    *canvas = Canvas::painted(canvas.side, |_, _| paper);
    let width = span(random, 0.8, 4.0);
    for _ in 0..30 + random.index(60) {
        let start = [(); 2].map(|()| span(random, 0.0, side));
        let size = side * (0.12 * (0.8 * random.normal() as f32).exp()).min(0.7);
        let own = width * span(random, 0.5, 1.5);
        let colour = if random.chance(0.25) { palette.pick(random) } else { ink };
        let turn = span(random, 0.0, TAU);
        let kind = random.index(5);
        let points: Vec<[f32; 2]> = match kind {
            0 => {
                let [a, b] = [size * span(random, 0.3, 1.0), size];
                arc(start, [a, b], turn, [0.0, TAU])
            }
            1 => arc(start, [size, size], turn, [0.0, span(random, 0.5, 5.0)]),
            2 => {
                let steps = 3 + random.index(9);
                let mut place = start;
                (0..steps)
                    .map(|_| {
                        let (sin, cos) = span(random, 0.0, TAU).sin_cos();
                        place = [place[0] + 0.4 * size * cos, place[1] + 0.4 * size * sin];
                        place
                    })
                    .collect()
            }
            3 => {
                let (sin, cos) = turn.sin_cos();
                let (wave, rate) = (span(random, 0.02, 0.2), span(random, 6.0, 30.0));
                (0..40)
                    .map(|i| {
                        let t = i as f32 / 39.0;
                        let (u, v) = (size * 1.5 * t, size * wave * (rate * t).sin());
                        [start[0] + cos * u - sin * v, start[1] + sin * u + cos * v]
                    })
                    .collect()
            }
            _ => {
                hatch(canvas, start, size, turn, own, colour, random);
                continue;
            }
        };
        stroke(canvas, &points, |_| own, |_| colour, 1.0);
    }
}

fn arc([x, y]: [f32; 2], [a, b]: [f32; 2], turn: f32, [from, to]: [f32; 2]) -> Vec<[f32; 2]> {
    let (sin, cos) = turn.sin_cos();
    let steps = (a.max(b) * (to - from) / 5.0).clamp(12.0, 200.0) as usize;
    (0..=steps)
        .map(|i| {
            let (s, c) = (from + (to - from) * i as f32 / steps as f32).sin_cos();
            let (u, v) = (a * c, b * s);
            [x + cos * u - sin * v, y + sin * u + cos * v]
        })
        .collect()
}

fn hatch(
    canvas: &mut Canvas,
    [x, y]: [f32; 2],
    size: f32,
    turn: f32,
    width: f32,
    colour: [f32; 3],
    random: &mut Random,
) {
    let gap = width * span(random, 1.8, 4.0);
    let (sin, cos) = turn.sin_cos();
    let count = (size / gap).min(120.0) as usize;
    for i in 0..count {
        let v = (i as f32 - 0.5 * count as f32) * gap;
        // The chord of a disc.
        let half = (0.25 * size * size - v * v).max(0.0).sqrt();
        let ends = [-half, half].map(|u| [x + cos * u - sin * v, y + sin * u + cos * v]);
        stroke(canvas, &ends, |_| width, |_| colour, 1.0);
    }
}

/// A lattice on a plane seen in perspective: a facade with windows, a tiled floor, a fence, a mesh.
pub fn lattice(canvas: &mut Canvas, palette: &Palette, random: &mut Random) {
    let side = canvas.side as f32;
    // Pixels to plane: turned, then divided by a depth that grows across the picture.
    let (sin, cos) =
        (if random.chance(0.6) { span(random, -0.08, 0.08) } else { span(random, 0.0, TAU) }).sin_cos();
    let tilt = [(); 2].map(|()| span(random, -0.7, 0.7) * if random.chance(0.6) { 1.0 } else { 0.0 });
    let cells = [span(random, 4.0, 26.0), span(random, 4.0, 26.0)];
    let [dark, light] = palette.pair(random, 0.25);
    let frame = [span(random, 0.04, 0.4), span(random, 0.04, 0.4)];
    let vary = span(random, 0.0, 0.8);
    let salt = random.index(1 << 32) as u32;
    let surface = Noise::material(0.1 * side, random);
    let rough = span(random, 0.0, 0.25);
    let sheen = span(random, -0.5, 0.5);
    let round = random.chance(0.2);
    let (wall, glass) = if random.chance(0.6) { (light, dark) } else { (dark, light) };
    let plane = |x: f32, y: f32| {
        let (u, v) = (x / side - 0.5, y / side - 0.5);
        let depth = 1.0 / (1.0 + tilt[0] * u + tilt[1] * v).max(0.2);
        [cells[0] * (cos * u - sin * v) * depth, cells[1] * (sin * u + cos * v) * depth]
    };
    *canvas = Canvas::painted(canvas.side, |x, y| {
        let [u, v] = plane(x, y);
        let step = [plane(x + 1.0, y), plane(x, y + 1.0)];
        let scale = [0, 1].map(|c| (step[0][c] - [u, v][c]).hypot(step[1][c] - [u, v][c]).max(1e-4));
        let place = [u.rem_euclid(1.0) - 0.5, v.rem_euclid(1.0) - 0.5];
        // Windows: how far inside, in pixels.
        let share = match round {
            true => (0.5 - frame[0] - place[0].hypot(place[1])) / scale[0].max(scale[1]),
            false => [0, 1]
                .map(|c| (0.5 - 0.5 * frame[c] - place[c].abs()) / scale[c])
                .into_iter()
                .fold(f32::MAX, f32::min),
        };
        // Cells finer than a pixel fade into their mean instead of flickering.
        let fine = (scale[0].max(scale[1]) * 2.0 - 0.6).clamp(0.0, 1.0);
        let share = mix([(share + 0.5).clamp(0.0, 1.0); 3], [0.5; 3], fine)[0];
        let own = cell(u.floor() as i32, v.floor() as i32, salt);
        let pane = lit(glass, 1.0 + vary * (own - 0.5) + sheen * place[1]);
        let wall = lit(wall, 1.0 + rough * surface.at(x, y));
        mix(wall, pane, share)
    });
}

/// Rings, fans and chirps: every frequency and direction, as a test chart has them.
pub fn chart(canvas: &mut Canvas, palette: &Palette, random: &mut Random) {
    let side = canvas.side as f32;
    let [dark, light] = palette.pair(random, 0.4);
    let centre = [(); 2].map(|()| span(random, 0.0, side));
    let kind = random.index(3);
    let period = span(random, 3.0, 14.0);
    let spokes = (8 + random.index(60)) as f32;
    let bend = Noise::plain(0.5 * side, 2, 0.4, random);
    let (warp, hard) = (span(random, 0.0, 1.5), if random.chance(0.5) { 3.0 } else { 1.0 });
    let turn = span(random, 0.0, TAU).sin_cos();
    let tone = Paint::draw(palette, side, 0.3, random);
    let blend = if random.chance(0.5) { 0.35 } else { 0.0 };
    *canvas = Canvas::painted(canvas.side, |x, y| {
        let (dx, dy) = (x - centre[0], y - centre[1]);
        let radius = dx.hypot(dy);
        let (phase, per_pixel) = match kind {
            0 => (radius / period + warp * bend.at(x, y), 1.0 / period),
            1 => (spokes * dy.atan2(dx) / TAU + warp * bend.at(x, y), spokes / (TAU * radius.max(1.0))),
            _ => {
                let along = (x * turn.1 + y * turn.0).abs() / side;
                // From wide stripes to the finest that pixels can hold apart.
                (side * along * (0.02 + 0.1 * along), 0.02 + 0.2 * along)
            }
        };
        // What a sensor cannot hold apart is grey.
        let contrast = (1.0 - (per_pixel * 2.2 - 0.3).max(0.0)).clamp(0.0, 1.0);
        let wave = (hard * contrast * (2.0 * PI * phase).sin()).clamp(-contrast, contrast);
        mix(mix(dark, light, 0.5 + 0.5 * wave), tone.at(x, y), blend)
    });
}

/// A few thin lines across whatever is there: cables, stalks, scratches.
pub fn wires(canvas: &mut Canvas, palette: &Palette, count: usize, random: &mut Random) {
    let side = canvas.side as f32;
    let colour = lit(palette.pick(random), span(random, 0.2, 1.2));
    let sag = span(random, 0.0, 0.2) * side;
    let width = span(random, 0.8, 3.0);
    for _ in 0..count {
        let (left, right) = (span(random, -0.2, 1.2) * side, span(random, -0.2, 1.2) * side);
        let points: Vec<[f32; 2]> = (0..=24)
            .map(|i| {
                let t = i as f32 / 24.0;
                [t * side, left + (right - left) * t + 4.0 * sag * t * (1.0 - t)]
            })
            .collect();
        stroke(canvas, &points, |_| width, |_| colour, 1.0);
    }
}
