//! Dead leaves: shapes whose sizes follow a power law, one over another, which have the edges, the occlusions and the
//! scale invariance of photos (Lee, Mumford and Huang, "Occlusion models for natural images", 2001).

use super::canvas::Canvas;
use super::colour::Palette;
use super::paint::Paint;
use super::shape::{Family, Shape, Style};
use super::{Random, span};

/// A pile of shapes.
pub struct Leaves {
    pub family: Family,
    pub style: Style,
    /// radii in pixels, smallest and largest; the density falls as radius^-3
    pub radii: [f32; 2],
    /// share of textures among the fills
    pub textured: f64,
    /// areas of the picture that the shapes have together
    pub cover: f32,
}

impl Leaves {
    /// A pile that hides what is below.
    pub fn dense(side: f32, random: &mut Random) -> Self {
        Leaves {
            family: Family::draw(random),
            style: Style::draw(random),
            radii: [span(random, 1.5, 6.0), side * span(random, 0.12, 0.8)],
            textured: f64::from(span(random, 0.1, 0.8)),
            cover: 2.5,
        }
    }

    /// A few shapes in front of something.
    pub fn sparse(side: f32, random: &mut Random) -> Self {
        let smallest = span(random, 3.0, 0.05 * side);
        Leaves {
            radii: [smallest, side * span(random, 0.12, 0.35)],
            cover: span(random, 0.15, 0.5),
            ..Leaves::dense(side, random)
        }
    }

    /// Piles them on `canvas`.
    pub fn pile(&self, canvas: &mut Canvas, palette: &Palette, random: &mut Random) {
        let side = canvas.side as f32;
        let [smallest, largest] = self.radii;
        let ratio = (smallest / largest.max(smallest + 1.0)).powi(2);
        let goal = self.cover * side * side;
        let mut area = 0.0;
        while area < goal {
            // The inverse of the distribution function; also draws shapes whose middle is outside.
            let radius = smallest / (1.0 - span(random, 0.0, 1.0) * (1.0 - ratio)).sqrt();
            let centre =
                [(); 2].map(|()| span(random, -0.5 * radius.min(side), side + 0.5 * radius.min(side)));
            let shape = Shape::draw(self.family, centre, radius, random);
            let textured = if radius < 4.0 { 0.0 } else { self.textured };
            let paint = Paint::draw(palette, radius, textured, random);
            shape.fill(canvas, &paint, self.style);
            area += 2.0 * radius * radius;
        }
    }
}
