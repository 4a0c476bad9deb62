//! Lines with width: hair, fur, grass, brush strokes, branches, and whatever else is drawn with a pen.

use std::f32::consts::{PI, TAU};

use super::canvas::{Canvas, Rgb};
use super::colour::{Palette, lit, mix};
use super::noise::Noise;
use super::{Random, span};

/// A stroke along `points`, as wide as `width` says of the way in [0, 1], coloured by it too.
pub fn stroke(
    canvas: &mut Canvas,
    points: &[[f32; 2]],
    width: impl Fn(f32) -> f32,
    colour: impl Fn(f32) -> Rgb,
    opacity: f32,
) {
    let parts = points.len().saturating_sub(1).max(1) as f32;
    for (i, ends) in points.windows(2).enumerate() {
        let way = [i as f32 / parts, (i + 1) as f32 / parts];
        segment(canvas, [ends[0], ends[1]], way, &width, &colour, opacity);
    }
}

fn segment(
    canvas: &mut Canvas,
    [from, to]: [[f32; 2]; 2],
    way: [f32; 2],
    width: &impl Fn(f32) -> f32,
    colour: &impl Fn(f32) -> Rgb,
    opacity: f32,
) {
    let reach = 0.5 * width(way[0]).max(width(way[1])) + 1.0;
    let low = [0, 1].map(|c| from[c].min(to[c]) - reach);
    let high = [0, 1].map(|c| from[c].max(to[c]) + reach);
    let [columns, rows] = canvas.window(low, high);
    let (ex, ey) = (to[0] - from[0], to[1] - from[1]);
    let scale = 1.0 / (ex * ex + ey * ey).max(1e-9);
    for row in rows[0]..rows[1] {
        for column in columns[0]..columns[1] {
            let (px, py) = (column as f32 + 0.5 - from[0], row as f32 + 0.5 - from[1]);
            let t = ((px * ex + py * ey) * scale).clamp(0.0, 1.0);
            let distance = (px - t * ex).hypot(py - t * ey);
            if distance > reach {
                continue;
            }
            let along = way[0] + (way[1] - way[0]) * t;
            let width = width(along);
            // A line thinner than a pixel is a fainter one of a pixel.
            let coverage = (0.5 * width.max(1.0) + 0.5 - distance).clamp(0.0, 1.0) * width.min(1.0);
            if coverage > 0.0 {
                canvas.blend(column, row, colour(along), coverage * opacity);
            }
        }
    }
}

/// A curve that starts at a place and follows `direction`, which is asked at every step.
fn trail(
    start: [f32; 2],
    length: f32,
    steps: usize,
    mut direction: impl FnMut([f32; 2], f32) -> f32,
) -> Vec<[f32; 2]> {
    let mut points = vec![start];
    let mut place = start;
    for i in 0..steps {
        let (sin, cos) = direction(place, i as f32 / steps as f32).sin_cos();
        place = [place[0] + cos * length / steps as f32, place[1] + sin * length / steps as f32];
        points.push(place);
    }
    points
}

/// Hair or fur that covers the canvas, along a flow and coloured in patches.
pub fn fur(canvas: &mut Canvas, palette: &Palette, random: &mut Random) {
    let side = canvas.side as f32;
    let flow = Noise::plain(side * span(random, 0.4, 1.2), 2, 0.4, random);
    let patches = Noise::plain(side * span(random, 0.1, 0.5), 3, 0.5, random);
    let main = span(random, 0.0, TAU);
    let bend = span(random, 0.3, 2.0);
    let (length, width) = (side * span(random, 0.04, 0.2), span(random, 0.7, 3.0));
    let [dark, light] = palette.pair(random, 0.3);
    *canvas = Canvas::painted(canvas.side, |x, y| lit(mix(dark, light, 0.5 + 0.5 * patches.at(x, y)), 0.45));
    let count = (3.0 * side * side / (length * width)) as usize;
    let curl = span(random, 0.0, 0.8);
    for _ in 0..count {
        let start = [(); 2].map(|()| span(random, -0.1 * side, 1.1 * side));
        let own = 0.15 * random.normal() as f32;
        let turn = curl * random.normal() as f32;
        let points = trail(start, length * span(random, 0.6, 1.3), 7, |[x, y], way| {
            main + bend * flow.at(x, y) + own + turn * way
        });
        let tone = 0.5 + 0.7 * patches.at(start[0], start[1]) + 0.12 * random.normal() as f32;
        let base = mix(dark, light, tone.clamp(0.0, 1.0));
        let shine = span(random, 0.8, 1.35);
        let width = width * span(random, 0.5, 1.2);
        let colour = |way: f32| lit(base, (0.5 + 0.6 * way) * shine);
        stroke(canvas, &points, |way| width * (1.0 - 0.8 * way), colour, 0.9);
    }
}

/// Blades from far to near, the near ones longer, over the part of the canvas below `horizon` in [0, 1].
pub fn grass(canvas: &mut Canvas, palette: &Palette, horizon: f32, random: &mut Random) {
    let side = canvas.side as f32;
    let wind = span(random, -0.5, 0.5);
    let tall = side * span(random, 0.08, 0.3);
    let count = (1.6e6 / tall.max(10.0) * (1.0 - horizon) * (side / 512.0).powi(2)).min(60_000.0) as usize;
    for i in 0..count {
        // Blades stand as densely on the ground everywhere, and so more densely in the picture where it is far.
        let depth = i as f32 / count as f32;
        let near = 0.15 + 0.85 * depth;
        let ground = side * (horizon + (1.2 - horizon) * depth * depth.sqrt()) + 0.1 * tall;
        let start =
            [span(random, -0.05 * side, 1.05 * side), ground + 0.15 * tall * random.normal() as f32 * near];
        let (lean, bow) = (wind + 0.25 * random.normal() as f32, wind + 0.5 * random.normal() as f32);
        let length = tall * near * span(random, 0.5, 1.2);
        let points = trail(start, length, 5, |_, way| -0.5 * PI + lean + bow * way);
        let base = lit(palette.pick(random), span(random, 0.6, 1.3));
        let wide = (0.02 * tall * near + 0.5).max(0.7) * span(random, 0.6, 1.6);
        stroke(canvas, &points, |way| wide * (1.05 - way), |way| lit(base, 0.35 + 0.8 * way), 1.0);
    }
}

/// Blades, stalks and leaves that lie every way over one another, the lower ones in the shade: a lawn, straw or needles
/// seen from above.
pub fn litter(canvas: &mut Canvas, palette: &Palette, random: &mut Random) {
    let side = canvas.side as f32;
    let long = side * span(random, 0.03, 0.2);
    let wide = (long * span(random, 0.02, 0.12)).max(0.6);
    let (order, bow) = (span(random, 0.0, PI), span(random, 0.0, 1.0));
    let lie = Noise::plain(side * span(random, 0.3, 1.0), 2, 0.4, random);
    let count = ((3.0 * side * side / (long * wide)) as usize).min(40_000);
    for i in 0..count {
        let shade = 0.35 + 0.75 * i as f32 / count as f32;
        let start = [(); 2].map(|()| span(random, -0.5 * long, side + 0.5 * long));
        let stray = span(random, -order, order);
        let bow = bow * random.normal() as f32;
        let points = trail(start, long * span(random, 0.4, 1.3), 5, |[x, y], way| {
            2.0 * lie.at(x, y) + stray + bow * way
        });
        let base = lit(palette.pick(random), shade * span(random, 0.6, 1.4));
        let wide = wide * span(random, 0.5, 1.5);
        stroke(canvas, &points, |way| wide * (1.05 - (2.0 * way - 0.7).abs()).max(0.1), |_| base, 1.0);
    }
}

/// Strokes of a bristly brush, wide ones first.
pub fn brush(canvas: &mut Canvas, palette: &Palette, random: &mut Random) {
    let side = canvas.side as f32;
    let flow = Noise::plain(side * span(random, 0.3, 1.0), 2, 0.4, random);
    let field = Noise::plain(side * 0.4, 3, 0.5, random);
    for pass in 0..3 {
        let width = side * [0.09, 0.045, 0.02][pass];
        let count = (1.6 * side / width * side / (4.0 * width)) as usize;
        for _ in 0..count {
            let start = [(); 2].map(|()| span(random, -0.1 * side, 1.1 * side));
            let points = trail(start, width * span(random, 2.0, 7.0), 5, |[x, y], _| 3.0 * flow.at(x, y));
            let tone = field.at(start[0], start[1]);
            let base = lit(palette.pick(random), 1.0 + 0.3 * tone);
            // Bristles: thin strokes side by side, each with its own load of paint.
            let bristles = (width / 1.6).ceil() as usize;
            for k in 0..bristles {
                let offset = width * ((k as f32 + 0.5) / bristles as f32 - 0.5);
                let (sin, cos) = (3.0 * flow.at(start[0], start[1])).sin_cos();
                let moved: Vec<[f32; 2]> =
                    points.iter().map(|p| [p[0] - sin * offset, p[1] + cos * offset]).collect();
                let colour = lit(base, 1.0 + 0.12 * random.normal() as f32);
                stroke(canvas, &moved, |way| 2.2 - 1.2 * way * way, |_| colour, 0.85);
            }
        }
    }
}

/// A bare tree or a plant, from the lower border up.
pub fn branches(canvas: &mut Canvas, palette: &Palette, random: &mut Random) {
    let side = canvas.side as f32;
    let bark = lit(palette.pick(random), span(random, 0.2, 0.7));
    let leaf = random.chance(0.5).then(|| palette.pick(random));
    let root = [span(random, 0.0, side), side * span(random, 0.9, 1.1)];
    let mut open = vec![(root, -0.5 * PI + 0.2 * random.normal() as f32, side * span(random, 0.02, 0.06))];
    let mut drawn = 0;
    while let Some((start, angle, width)) = open.pop() {
        drawn += 1;
        if width < 0.6 || drawn > 3000 {
            continue;
        }
        let length = width * span(random, 5.0, 12.0);
        let turn = 0.3 * random.normal() as f32;
        let points = trail(start, length, 5, |_, way| angle + turn * way);
        let thin = width * span(random, 0.65, 0.85);
        // The side away from the light is darker.
        stroke(canvas, &points, |way| width + (thin - width) * way, |_| lit(bark, 0.7), 1.0);
        let shifted: Vec<[f32; 2]> = points.iter().map(|p| [p[0] - 0.2 * width, p[1]]).collect();
        stroke(canvas, &shifted, |way| 0.5 * (width + (thin - width) * way), |_| lit(bark, 1.2), 0.8);
        let end = points[points.len() - 1];
        if let Some(leaf) = leaf.filter(|_| width < 4.0) {
            for _ in 0..3 {
                let tip = span(random, 0.0, TAU);
                let size = span(random, 3.0, 9.0) * side / 512.0 + 1.0;
                let points = trail(end, size, 3, |_, _| tip);
                let colour = lit(leaf, span(random, 0.6, 1.4));
                stroke(canvas, &points, |way| 0.6 * size * (PI * way).sin().max(0.1), |_| colour, 1.0);
            }
        }
        for _ in 0..2 + random.index(2) {
            let spread = span(random, 0.15, 0.7) * [-1.0, 1.0][random.index(2)];
            open.push((end, angle + turn + spread, thin * span(random, 0.6, 0.98)));
        }
    }
}
