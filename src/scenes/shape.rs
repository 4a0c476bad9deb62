//! Outlines as signed distances, and how they are filled with smooth edges.

use std::f32::consts::TAU;

use super::canvas::{Canvas, Rgb};
use super::colour::lit;
use super::paint::Paint;
use super::{Random, span};

/// A closed outline around the origin, of radius about 1.
enum Outline {
    /// half the height for a half width of 1
    Ellipse(f32),
    /// half the height, and the radius of the corners
    Box(f32, f32),
    Polygon(Vec<[f32; 2]>),
    /// radius 1 + sum of a cos(k angle) + b sin(k angle), for k from 2 on
    Blob([[f32; 2]; 4]),
    /// a leaf: two arcs that meet in points, this wide
    Leaf(f32),
}

/// An outline in its place.
pub struct Shape {
    outline: Outline,
    centre: [f32; 2],
    turn: [f32; 2],
    radius: f32,
}

/// The outlines that a picture uses.
#[derive(Clone, Copy)]
pub enum Family {
    Discs,
    Ellipses,
    Boxes,
    Polygons,
    Blobs,
    Leaves,
    Any,
}

impl Family {
    pub fn draw(random: &mut Random) -> Self {
        let all = [
            Family::Discs,
            Family::Ellipses,
            Family::Boxes,
            Family::Polygons,
            Family::Blobs,
            Family::Leaves,
            Family::Any,
        ];
        all[random.choose(&[0.1, 0.1, 0.1, 0.15, 0.15, 0.15, 0.25])]
    }
}

/// How a shape lies on what is below.
#[derive(Clone, Copy)]
pub struct Style {
    /// share of light that the rim loses, as on a round body
    pub rounding: f32,
    /// darkness, offset and softness of the shadow, in radii
    pub shadow: [f32; 3],
    /// width of the edge in pixels
    pub edge: f32,
    pub opacity: f32,
}

impl Style {
    pub const PLAIN: Style = Style { rounding: 0.0, shadow: [0.0; 3], edge: 1.0, opacity: 1.0 };

    pub fn draw(random: &mut Random) -> Self {
        let rounding = if random.chance(0.4) { span(random, 0.1, 0.6) } else { 0.0 };
        let shadow = match random.chance(0.4) {
            true => [span(random, 0.2, 0.6), span(random, 0.05, 0.25), span(random, 0.05, 0.4)],
            false => [0.0; 3],
        };
        Style { rounding, shadow, ..Style::PLAIN }
    }
}

impl Shape {
    pub fn draw(family: Family, centre: [f32; 2], radius: f32, random: &mut Random) -> Self {
        let family = match family {
            Family::Any => [Family::Discs, Family::Ellipses, Family::Boxes, Family::Polygons, Family::Blobs]
                [random.index(5)],
            given => given,
        };
        let outline = match family {
            Family::Discs => Outline::Ellipse(1.0),
            Family::Ellipses | Family::Any => Outline::Ellipse(span(random, 0.25, 1.0)),
            Family::Boxes => {
                let height = span(random, 0.1, 1.0);
                Outline::Box(height, height * if random.chance(0.5) { span(random, 0.05, 0.6) } else { 0.0 })
            }
            Family::Polygons => polygon(random),
            Family::Blobs => {
                let mut waves = [[0.0; 2]; 4];
                for (k, wave) in waves.iter_mut().enumerate() {
                    *wave = [(); 2].map(|()| 0.15 * random.normal() as f32 / (k + 1) as f32);
                }
                Outline::Blob(waves)
            }
            Family::Leaves => Outline::Leaf(span(random, 0.2, 0.6)),
        };
        let (sin, cos) = span(random, 0.0, TAU).sin_cos();
        Shape { outline, centre, turn: [cos, sin], radius }
    }

    /// An upright rectangle.
    pub fn rectangle(centre: [f32; 2], half: [f32; 2], corner: f32) -> Self {
        let outline = Outline::Box(half[1] / half[0], corner / half[0]);
        Shape { outline, centre, turn: [1.0, 0.0], radius: half[0] }
    }

    /// Pixels to the outline, negative inside; exact near it, a bound far from it.
    pub fn distance(&self, x: f32, y: f32) -> f32 {
        let (dx, dy) = (x - self.centre[0], y - self.centre[1]);
        let [cos, sin] = self.turn;
        let p = [(cos * dx + sin * dy) / self.radius, (cos * dy - sin * dx) / self.radius];
        self.radius * self.outline.distance(p)
    }

    /// Fills it; `paint` sees pixels.
    pub fn fill(&self, canvas: &mut Canvas, paint: &Paint, style: Style) {
        let [dark, offset, soft] = style.shadow;
        if dark > 0.0 && self.radius > 2.0 {
            let shift = offset * self.radius;
            let soft = (soft * self.radius).max(1.0);
            self.cover(canvas, [shift, shift], soft, dark * style.opacity, |_, _, _| [0.0; 3]);
        }
        let round = |colour: Rgb, distance: f32| match style.rounding {
            0.0 => colour,
            strength => {
                // Light of a cushion that falls off towards the rim.
                let depth = (-distance / (0.6 * self.radius)).clamp(0.0, 1.0);
                lit(colour, 1.0 - strength * (1.0 - depth) * (1.0 - depth))
            }
        };
        self.cover(canvas, [0.0; 2], style.edge, style.opacity, |x, y, distance| {
            round(paint.at(x, y), distance)
        });
    }

    fn cover(
        &self,
        canvas: &mut Canvas,
        [sx, sy]: [f32; 2],
        edge: f32,
        opacity: f32,
        colour: impl Fn(f32, f32, f32) -> Rgb,
    ) {
        let reach = 1.5 * self.radius * self.outline.reach() + edge;
        let [columns, rows] = canvas.around([self.centre[0] + sx, self.centre[1] + sy], reach.min(1e6));
        for row in rows[0]..rows[1] {
            for column in columns[0]..columns[1] {
                let (x, y) = (column as f32 + 0.5, row as f32 + 0.5);
                let distance = self.distance(x - sx, y - sy);
                let coverage = (0.5 - distance / edge).clamp(0.0, 1.0);
                if coverage > 0.0 {
                    canvas.blend(column, row, colour(x, y, distance), coverage * opacity);
                }
            }
        }
    }
}

impl Outline {
    /// The farthest point from the origin, over 1.5.
    fn reach(&self) -> f32 {
        match self {
            Outline::Box(height, _) => height.hypot(1.0) / 1.5,
            Outline::Blob(waves) => (1.0 + waves.iter().map(|[a, b]| a.hypot(*b)).sum::<f32>()) / 1.5,
            Outline::Ellipse(_) | Outline::Polygon(_) | Outline::Leaf(_) => 1.0 / 1.5,
        }
    }

    fn distance(&self, [x, y]: [f32; 2]) -> f32 {
        match self {
            Outline::Ellipse(height) => {
                let (u, v) = (x, y / height);
                let norm = u.hypot(v);
                // First order: value over slope.
                (norm - 1.0) * norm / u.hypot(v / height).max(1e-6)
            }
            Outline::Box(height, corner) => {
                let (u, v) = (x.abs() - 1.0 + corner, y.abs() - height + corner);
                u.max(0.0).hypot(v.max(0.0)) + u.max(v).min(0.0) - corner
            }
            Outline::Polygon(corners) => polygon_distance(corners, [x, y]),
            Outline::Blob(waves) => {
                let length = x.hypot(y).max(1e-6);
                let (c, s) = (x / length, y / length);
                // The next power of c + i s has the cosine and the sine of the next multiple of the angle.
                let (mut cos, mut sin, mut radius) = (c, s, 1.0);
                for [a, b] in waves {
                    (cos, sin) = (cos * c - sin * s, cos * s + sin * c);
                    radius += a * cos + b * sin;
                }
                length - radius
            }
            Outline::Leaf(width) => {
                // Two circles through (-1, 0) and (1, 0), whose arcs are `width` high.
                let radius = (1.0 + width * width) / (2.0 * width);
                x.hypot(y.abs() + radius - width) - radius
            }
        }
    }
}

/// Corners on a circle in turn, half of the time convex and regular, else a star or irregular.
fn polygon(random: &mut Random) -> Outline {
    let count = 3 + random.index(6);
    let kind = random.index(3);
    let corners = (0..count).map(|i| {
        let stray = if kind == 0 { 0.0 } else { span(random, -0.35, 0.35) };
        let radius = match kind {
            2 if i % 2 == 1 => span(random, 0.35, 0.6),
            0 => 1.0,
            _ => span(random, 0.6, 1.0),
        };
        let (sin, cos) = (TAU * (i as f32 + stray) / count as f32).sin_cos();
        [radius * cos, radius * sin]
    });
    Outline::Polygon(corners.collect())
}

fn polygon_distance(corners: &[[f32; 2]], [x, y]: [f32; 2]) -> f32 {
    let mut nearest = f32::MAX;
    let mut inside = false;
    let mut from = corners[corners.len() - 1];
    for &to in corners {
        let (ex, ey) = (to[0] - from[0], to[1] - from[1]);
        let (px, py) = (x - from[0], y - from[1]);
        let t = ((px * ex + py * ey) / (ex * ex + ey * ey).max(1e-12)).clamp(0.0, 1.0);
        let (dx, dy) = (px - t * ex, py - t * ey);
        nearest = nearest.min(dx * dx + dy * dy);
        if (from[1] > y) != (to[1] > y) && x < from[0] + (y - from[1]) * ex / ey {
            inside = !inside;
        }
        from = to;
    }
    if inside { -nearest.sqrt() } else { nearest.sqrt() }
}
