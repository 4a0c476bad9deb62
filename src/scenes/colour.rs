//! Colours as photos have them: moderate saturation, more of blue against orange than of green against magenta, a few
//! anchors a picture.

use super::canvas::Rgb;
use super::{Random, span};

/// The colours of one picture.
pub struct Palette {
    anchors: Vec<Rgb>,
    /// how far a drawn colour strays from its anchor
    spread: f32,
}

/// Luminance plus two opponent axes: warm against cool, green against magenta.
fn opponent(light: f32, warm: f32, green: f32) -> Rgb {
    [light + 0.55 * warm - 0.3 * green, light + 0.05 * warm + 0.3 * green, light - 0.75 * warm - 0.3 * green]
        .map(|v| v.clamp(0.0, 1.0))
}

/// The weighted mean of two colours.
pub fn mix(a: Rgb, b: Rgb, share: f32) -> Rgb {
    std::array::from_fn(|c| a[c] + (b[c] - a[c]) * share)
}

/// `colour` in another light.
pub fn lit(colour: Rgb, factor: f32) -> Rgb {
    colour.map(|v| v * factor)
}

/// 0.299 R + 0.587 G + 0.114 B
pub fn luma([r, g, b]: Rgb) -> f32 {
    0.299 * r + 0.587 * g + 0.114 * b
}

impl Palette {
    /// Colours of a photo: most pale, one picture in five colourful, one in twenty grey.
    pub fn natural(random: &mut Random) -> Self {
        let saturation = [0.07, 0.14, 0.32, 0.0][random.choose(&[0.35, 0.4, 0.2, 0.05])];
        // The light of a scene gives all of its colours a common cast.
        let cast = [0.06 * random.normal() as f32, 0.03 * random.normal() as f32];
        let light = span(random, 0.3, 0.6);
        let contrast = span(random, 0.15, 0.3);
        let count = 4 + random.index(5);
        let anchors = (0..count).map(|_| {
            let tone = light + contrast * random.normal() as f32;
            let warm = saturation * random.normal() as f32 + cast[0];
            let green = 0.35 * saturation * random.normal() as f32 + cast[1];
            opponent(tone.clamp(0.03, 0.97), warm, if saturation == 0.0 { 0.0 } else { green })
        });
        Palette { anchors: anchors.collect(), spread: span(random, 0.02, 0.08) }
    }

    /// Colours around `base`: of leaves, of fur, of stone.
    pub fn around(base: Rgb, spread: f32, random: &mut Random) -> Self {
        let anchors = (0..6).map(|_| {
            let light = (0.35 * random.normal() as f32).exp().clamp(0.4, 2.0);
            base.map(|v| (v * light + spread * random.normal() as f32).clamp(0.0, 1.0))
        });
        Palette { anchors: anchors.collect(), spread: 0.5 * spread }
    }

    /// Greens and the ochres between them.
    pub fn foliage(random: &mut Random) -> Self {
        let bases = [[0.25, 0.36, 0.12], [0.36, 0.4, 0.18], [0.45, 0.4, 0.2], [0.18, 0.3, 0.16]];
        Palette::around(bases[random.index(bases.len())], 0.05, random)
    }

    /// Browns, greys and sands of fur and earth.
    pub fn earth(random: &mut Random) -> Self {
        let bases =
            [[0.45, 0.34, 0.24], [0.3, 0.24, 0.2], [0.6, 0.52, 0.42], [0.4, 0.4, 0.4], [0.55, 0.36, 0.2]];
        Palette::around(bases[random.index(bases.len())], 0.04, random)
    }

    /// A colour of the picture.
    pub fn pick(&self, random: &mut Random) -> Rgb {
        let anchor = self.anchors[random.index(self.anchors.len())];
        let light = self.spread * 2.0 * random.normal() as f32;
        anchor.map(|v| (v + light + self.spread * random.normal() as f32).clamp(0.0, 1.0))
    }

    /// Two colours of the picture that can be told apart, dark first.
    pub fn pair(&self, random: &mut Random, contrast: f32) -> [Rgb; 2] {
        let (a, b) = (self.pick(random), self.pick(random));
        let [low, high] = if luma(a) < luma(b) { [a, b] } else { [b, a] };
        let lack = (contrast - (luma(high) - luma(low))).max(0.0);
        // Darken and brighten by halves; what a bound takes from one the other gives.
        let down = (0.5 * lack).min(luma(low)).max(lack - (1.0 - luma(high)));
        [low.map(|v| (v - down).clamp(0.0, 1.0)), high.map(|v| (v + lack - down).clamp(0.0, 1.0))]
    }
}
