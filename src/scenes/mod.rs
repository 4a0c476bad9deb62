//! Made-up pictures to train on: as varied as photos, with their edges, textures, spectrum and colours, and nobody's
//! property.
//!
//! A picture is a pure function of seed, number and side. [`picture`] draws a kind of scene, paints it with the
//! painters (one file each: [`leaves`], [`strokes`], [`text`], [`lines`], [`solids`], [`land`]) and ends as a camera
//! does ([`finish`](mod@finish)).

mod canvas;
mod colour;
mod finish;
pub mod glyphs;
mod land;
mod leaves;
mod lines;
mod noise;
mod paint;
mod shape;
mod solids;
mod strokes;
mod text;

use canvas::Canvas;
use colour::Palette;
use leaves::Leaves;
use paint::Paint;

pub use text::Fonts;

use crate::sampler::Random;

/// The smallest and the largest side that can be asked for, in pixels.
pub const SIDES: [usize; 2] = [16, 4096];

/// Uniform in [low, high).
fn span(random: &mut Random, low: f32, high: f32) -> f32 {
    low + (high - low) * random.uniform() as f32
}

/// Picture number `index` of `seed`: `[side, side, 3]` in [0, 1], at the middles of the 256 steps of bytes, so that
/// truncation to bytes is rounding. `side` lies within [`SIDES`].
pub fn picture(seed: u64, index: u64, side: usize, fonts: &Fonts) -> Vec<f32> {
    let side = side.clamp(SIDES[0], SIDES[1]);
    let random = &mut Random::new(seed, side as u64, index);
    let palette = Palette::natural(random);
    let mut canvas = scene(side, &palette, fonts, random, &KINDS);
    if random.chance(0.07) {
        text::labels(&mut canvas, &palette, fonts, 1 + random.index(3), random);
    }
    if random.chance(0.1) {
        let hairs = 1 + random.index(4);
        lines::wires(&mut canvas, &palette, hairs, random);
    }
    finish::finish(&canvas, random)
}

/// How often each kind of scene is drawn; the last is a collage of two of the others.
const KINDS: [f64; 15] =
    [0.2, 0.14, 0.08, 0.09, 0.05, 0.06, 0.04, 0.08, 0.05, 0.04, 0.07, 0.02, 0.1, 0.12, 0.05];

/// One scene that fills the canvas, its kind drawn with these weights.
fn scene(side: usize, palette: &Palette, fonts: &Fonts, random: &mut Random, kinds: &[f64]) -> Canvas {
    let extent = side as f32;
    let mut canvas = Canvas::clear(side);
    match random.choose(kinds) {
        0 => {
            canvas = ground(side, palette, random);
            Leaves::dense(extent, random).pile(&mut canvas, palette, random);
        }
        1 => canvas = deep(side, palette, fonts, random),
        2 => canvas = ground(side, palette, random),
        3 => {
            let earth = Palette::earth(random);
            strokes::fur(&mut canvas, if random.chance(0.7) { &earth } else { palette }, random);
        }
        4 => {
            canvas = ground(side, palette, random);
            let foliage = Palette::foliage(random);
            strokes::grass(&mut canvas, &foliage, span(random, -0.1, 0.5), random);
        }
        5 => {
            canvas = ground(side, palette, random);
            let natural = if random.chance(0.5) { Palette::foliage(random) } else { Palette::earth(random) };
            strokes::litter(&mut canvas, if random.chance(0.7) { &natural } else { palette }, random);
        }
        6 => {
            canvas = ground(side, palette, random);
            strokes::brush(&mut canvas, palette, random);
        }
        7 => text::page(&mut canvas, palette, fonts, random),
        8 => {
            canvas = ground(side, palette, random);
            let count = 3 + random.index(8);
            text::labels(&mut canvas, palette, fonts, count, random);
        }
        9 => lines::art(&mut canvas, palette, random),
        10 => lines::lattice(&mut canvas, palette, random),
        11 => lines::chart(&mut canvas, palette, random),
        12 => solids::still_life(&mut canvas, palette, random),
        13 => land::landscape(&mut canvas, palette, random),
        _ => canvas = collage(side, palette, fonts, random),
    }
    canvas
}

/// A surface: a material, often with a second one in patches.
fn ground(side: usize, palette: &Palette, random: &mut Random) -> Canvas {
    let radius = side as f32 * span(random, 0.1, 1.0);
    let first = match random.chance(0.75) {
        true => Paint::material(palette, radius, random),
        false => Paint::draw(palette, radius, 0.7, random),
    };
    let second = Paint::draw(palette, radius, 0.7, random);
    let patches = noise::Noise::material(0.5 * side as f32, random);
    let sharp = span(random, 2.0, 30.0);
    let level = if random.chance(0.5) { span(random, -0.3, 0.5) } else { 9.0 };
    Canvas::painted(side, |x, y| {
        let base = first.at(x, y);
        if level > 1.0 {
            return base;
        }
        let share = (0.5 + sharp * (patches.at(x, y) - level)).clamp(0.0, 1.0);
        if share > 0.0 { colour::mix(base, second.at(x, y), share) } else { base }
    })
}

/// Layers at several depths, of which one is in focus.
fn deep(side: usize, palette: &Palette, fonts: &Fonts, random: &mut Random) -> Canvas {
    let extent = side as f32;
    let layers = 2 + random.index(2);
    let focus = random.index(layers).max(random.index(layers));
    let blur = extent * span(random, 0.003, 0.016);
    let mut canvas = match random.chance(0.6) {
        true => {
            let mut canvas = ground(side, palette, random);
            Leaves::dense(extent, random).pile(&mut canvas, palette, random);
            canvas
        }
        false => {
            let mut canvas = Canvas::clear(side);
            land::landscape(&mut canvas, palette, random);
            canvas
        }
    };
    for layer in 0..layers {
        if layer > 0 {
            let mut front = Canvas::clear(side);
            match random.choose(&[0.6, 0.2, 0.1, 0.1]) {
                0 => Leaves::sparse(extent, random).pile(&mut front, palette, random),
                1 => strokes::branches(&mut front, palette, random),
                2 => text::labels(&mut front, palette, fonts, 2, random),
                _ => strokes::grass(&mut front, &Palette::foliage(random), 0.75, random),
            }
            if layer != focus {
                front.blur(blur * layer.abs_diff(focus) as f32);
            }
            canvas.lay(&front);
        } else if focus > 0 {
            canvas.blur(blur * focus as f32);
        }
    }
    canvas
}

/// Two scenes with different colours side by side, or one above the other.
fn collage(side: usize, palette: &Palette, fonts: &Fonts, random: &mut Random) -> Canvas {
    let split = (side as f32 * span(random, 0.25, 0.75)) as usize;
    let upright = random.chance(0.5);
    let mut canvas = scene(side, palette, fonts, random, &KINDS[..KINDS.len() - 1]);
    let other = Palette::natural(random);
    let part = scene(side, &other, fonts, random, &KINDS[..KINDS.len() - 1]);
    for (i, (own, pixel)) in canvas.pixels.iter_mut().zip(&part.pixels).enumerate() {
        if (if upright { i % side } else { i / side }) >= split {
            *own = *pixel;
        }
    }
    canvas
}

#[cfg(test)]
mod tests;
