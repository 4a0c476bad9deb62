//! What a shape is filled with.

use super::canvas::Rgb;
use super::colour::{Palette, lit, mix};
use super::noise::{Noise, cell};
use super::{Random, span};

/// A colour for every place.
pub enum Paint {
    Flat(Rgb),
    /// from one colour to another along a direction: share = place . direction + offset
    Gradient([Rgb; 2], [f32; 2], f32),
    /// two colours by a field, with this contrast
    Material([Rgb; 2], Noise, f32),
    /// bands bent by a field, softened to this share of a band: wood, cloth, water, zebra
    Bands([Rgb; 2], [f32; 2], Noise, f32),
    /// two colours by the cell of a turned lattice, with joints of the second: tiles and bricks
    Tiles {
        colours: [Rgb; 2],
        axes: [f32; 4],
        joint: f32,
        shift: f32,
        vary: f32,
        salt: u32,
    },
    /// spots in the cells of a turned lattice
    Spots {
        colours: [Rgb; 2],
        axes: [f32; 4],
        radius: f32,
        jitter: f32,
        salt: u32,
    },
}

impl Paint {
    /// A fill for a shape of about this radius in pixels; the share of textures is `textured`.
    pub fn draw(palette: &Palette, radius: f32, textured: f64, random: &mut Random) -> Self {
        if !random.chance(textured) {
            return match random.chance(0.5) {
                true => Paint::Flat(palette.pick(random)),
                false => Paint::gradient(palette, radius, random),
            };
        }
        match random.choose(&[0.5, 0.2, 0.15, 0.15]) {
            0 => Paint::material(palette, radius, random),
            1 => Paint::bands(palette, radius, random),
            2 => Paint::tiles(palette, radius, random),
            _ => Paint::spots(palette, radius, random),
        }
    }

    fn gradient(palette: &Palette, radius: f32, random: &mut Random) -> Self {
        let first = palette.pick(random);
        let second = match random.chance(0.6) {
            true => lit(first, span(random, 0.5, 1.5)),
            false => palette.pick(random),
        };
        let (sin, cos) = span(random, 0.0, std::f32::consts::TAU).sin_cos();
        let offset = span(random, 0.0, 1.0);
        Paint::Gradient([first, second], [cos, sin].map(|v| v / (2.0 * radius.max(1.0))), offset)
    }

    /// Two colours of fractal noise, often shades of one.
    pub fn material(palette: &Palette, radius: f32, random: &mut Random) -> Self {
        let size = (radius * span(random, 0.15, 1.2)).clamp(3.0, 200.0);
        let colours = shades(palette, random);
        let noise = Noise::material(size, random);
        Paint::Material(colours, noise, span(random, 0.6, 1.8))
    }

    fn bands(palette: &Palette, radius: f32, random: &mut Random) -> Self {
        let period = (radius * span(random, 0.05, 0.5)).clamp(2.5, 60.0);
        let (sin, cos) = span(random, 0.0, std::f32::consts::TAU).sin_cos();
        let bend = span(random, 0.5, 3.0);
        let noise = Noise::plain(period * span(random, 4.0, 16.0), 3, 0.4, random);
        let direction = [cos, sin].map(|v| v / period);
        match random.chance(0.3) {
            true => Paint::Bands(palette.pair(random, 0.25), direction, noise, -bend),
            false => Paint::Bands(shades(palette, random), direction, noise, bend),
        }
    }

    fn tiles(palette: &Palette, radius: f32, random: &mut Random) -> Self {
        let width = (radius * span(random, 0.1, 0.7)).clamp(4.0, 80.0);
        let height = width * span(random, 0.4, 1.0);
        Paint::Tiles {
            colours: palette.pair(random, 0.15),
            axes: lattice([width, height], random),
            joint: span(random, 0.02, 0.12),
            shift: [0.0, 0.5][random.index(2)],
            vary: span(random, 0.0, 0.5),
            salt: random.index(1 << 32) as u32,
        }
    }

    fn spots(palette: &Palette, radius: f32, random: &mut Random) -> Self {
        let width = (radius * span(random, 0.08, 0.5)).clamp(4.0, 50.0);
        Paint::Spots {
            colours: palette.pair(random, 0.2),
            axes: lattice([width, width], random),
            radius: span(random, 0.12, 0.4),
            jitter: [0.0, 0.3][random.index(2)],
            salt: random.index(1 << 32) as u32,
        }
    }

    /// The colour at a place in pixels.
    pub fn at(&self, x: f32, y: f32) -> Rgb {
        match self {
            Paint::Flat(colour) => *colour,
            Paint::Gradient([a, b], [dx, dy], offset) => mix(*a, *b, mirrored(x * dx + y * dy + offset)),
            Paint::Material([a, b], noise, contrast) => {
                mix(*a, *b, (0.5 + 0.5 * contrast * noise.at(x, y)).clamp(0.0, 1.0))
            }
            Paint::Bands([a, b], [dx, dy], noise, bend) => {
                let phase = x * dx + y * dy + bend.abs() * noise.at(x, y);
                let wave = (std::f32::consts::TAU * phase).sin();
                // Hard bands have an edge of about a pixel.
                let sharp = if *bend < 0.0 { 1.0 / (dx.hypot(*dy) * 6.0).max(0.05) } else { 1.0 };
                mix(*a, *b, (0.5 + 0.5 * sharp * wave).clamp(0.0, 1.0))
            }
            Paint::Tiles { colours: [a, b], axes, joint, shift, vary, salt } => {
                let (mut u, v) = turned(axes, x, y);
                u += shift * v.floor().rem_euclid(2.0);
                let light = 1.0 + vary * (cell(u.floor() as i32, v.floor() as i32, *salt) - 0.5);
                let edge = |t: f32, per_pixel: f32| {
                    let inside = 0.5 - (t.rem_euclid(1.0) - 0.5).abs();
                    ((inside - joint) / per_pixel + 0.5).clamp(0.0, 1.0)
                };
                let share = edge(u, axes[0].hypot(axes[1])).min(edge(v, axes[2].hypot(axes[3])));
                mix(*a, lit(*b, light), share)
            }
            Paint::Spots { colours: [a, b], axes, radius, jitter, salt } => {
                let (u, v) = turned(axes, x, y);
                let (cu, cv) = (u.floor(), v.floor());
                let stray = |salt: u32| (cell(cu as i32, cv as i32, salt) - 0.5) * jitter;
                let (du, dv) = (u - cu - 0.5 - stray(*salt), v - cv - 0.5 - stray(salt ^ 0x77));
                let share = (radius - du.hypot(dv)) / axes[0].hypot(axes[1]) + 0.5;
                mix(*a, *b, share.clamp(0.0, 1.0))
            }
        }
    }
}

/// A wave that rises to 1 and falls again.
fn mirrored(phase: f32) -> f32 {
    1.0 - (phase.rem_euclid(2.0) - 1.0).abs()
}

fn shades(palette: &Palette, random: &mut Random) -> [Rgb; 2] {
    match random.chance(0.65) {
        true => {
            let colour = palette.pick(random);
            [lit(colour, span(random, 0.3, 0.8)), lit(colour, span(random, 1.1, 1.6)).map(|v| v.min(1.0))]
        }
        false => palette.pair(random, 0.1),
    }
}

/// Pixels to cells of this size, turned at random or, as often, hardly.
fn lattice([width, height]: [f32; 2], random: &mut Random) -> [f32; 4] {
    let turn =
        if random.chance(0.5) { span(random, 0.0, std::f32::consts::TAU) } else { span(random, -0.05, 0.05) };
    let (sin, cos) = turn.sin_cos();
    [cos / width, sin / width, -sin / height, cos / height]
}

fn turned(axes: &[f32; 4], x: f32, y: f32) -> (f32, f32) {
    (axes[0] * x + axes[1] * y, axes[2] * x + axes[3] * y)
}
