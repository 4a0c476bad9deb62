//! A picture in memory, and the rule from `f32` to bytes.

use super::Format;

/// A decoded picture: `f32` colour, optional transparency, and what its file said about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// Pixels a row, at least 1.
    pub width: usize,
    /// Rows, at least 1.
    pub height: usize,
    /// `[height, width, 3]`, red-green-blue interleaved, in [0, 1] after decoding, straight (not multiplied by
    /// alpha), in the file's own colour space. Grey pictures hold their value three times.
    pub colour: Vec<f32>,
    /// `[height, width]` in [0, 1]: 0 is fully transparent. `None` when the file has no transparency.
    pub alpha: Option<Vec<f32>>,
    /// The file holds no colour, only grey.
    pub grey: bool,
    /// Bits a sample in the file: 8 (also for fewer) or 16 (also for floating point).
    pub bits: u8,
    /// The file's ICC colour profile, byte for byte.
    pub icc: Option<Vec<u8>>,
    /// The format of the file, found by its content.
    pub format: Format,
    /// What a reader should be told, each a sentence: an animation of which the first frame was taken, and so on.
    pub notes: Vec<String>,
}

impl Picture {
    /// A picture of 8 bits a channel that came from no file: `colour` is `[height, width, 3]` in [0, 1].
    pub fn of_colour(width: usize, height: usize, colour: Vec<f32>) -> Self {
        Picture {
            width,
            height,
            colour,
            alpha: None,
            grey: false,
            bits: 8,
            icc: None,
            format: Format::Png,
            notes: Vec::new(),
        }
    }

    /// Pixels in the picture.
    pub fn pixels(&self) -> usize {
        self.width * self.height
    }

    /// `[height, width, 3]` bytes by [`to_byte`]; transparency is left aside.
    pub fn to_rgb8(&self) -> Vec<u8> {
        self.colour.iter().map(|&v| to_byte(v)).collect()
    }

    /// `[height, width, 4]` bytes: colour by [`to_byte`], alpha rounded, so that what is opaque up to the rounding of a
    /// resize stays opaque; without transparency the fourth is 255.
    pub fn to_rgba8(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.pixels() * 4);
        for (i, rgb) in self.colour.chunks_exact(3).enumerate() {
            bytes.extend(rgb.iter().map(|&v| to_byte(v)));
            bytes.push(self.alpha.as_ref().map_or(255, |a| (a[i] * 255.0).round() as u8));
        }
        bytes
    }
}

/// `value * 255` in `f32`, clamped to [0, 255] and truncated, as the published code does (it does not round). Not a
/// number gives 0.
pub fn to_byte(value: f32) -> u8 {
    (value * 255.0).clamp(0.0, 255.0) as u8
}
