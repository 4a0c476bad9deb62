//! The picture that the stages of a degradation pass on.

use crate::error::{Error, Result};

/// Colour, `[height, width, 3]`, red-green-blue interleaved, nominally in [0, 1].
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    pub height: usize,
    pub width: usize,
    pub values: Vec<f32>,
}

impl Image {
    /// # Errors
    /// A side is zero, or the values do not fill the picture.
    pub fn new(height: usize, width: usize, values: Vec<f32>) -> Result<Self> {
        if height * width == 0 || values.len() != height * width * 3 {
            let count = values.len();
            return Err(Error::internal(format!("{count} values for a picture of {width} x {height}")));
        }
        Ok(Image { height, width, values })
    }

    /// The window of `size` (height, width) whose corner is at (`top`, `left`); what lies beyond the picture is
    /// mirrored, the edge not repeated.
    pub fn window(&self, (top, left): (usize, usize), (height, width): (usize, usize)) -> Image {
        let columns: Vec<usize> = (0..width).map(|x| mirrored((left + x) as isize, self.width) * 3).collect();
        let mut values = Vec::with_capacity(height * width * 3);
        for y in 0..height {
            let row = &self.values[mirrored((top + y) as isize, self.height) * self.width * 3..];
            columns.iter().for_each(|&x| values.extend_from_slice(&row[x..x + 3]));
        }
        Image { height, width, values }
    }

    /// Left and right exchanged.
    pub fn flipped(&self) -> Image {
        let rows = self.values.chunks_exact(self.width * 3);
        let values = rows.flat_map(|row| row.rchunks_exact(3).flatten().copied()).collect();
        Image { values, ..*self }
    }

    /// Every value clamped to [0, 1].
    pub fn clamp(&mut self) {
        self.values.iter_mut().for_each(|v| *v = v.clamp(0.0, 1.0));
    }

    /// Every value clamped to [0, 1] and rounded to n/255, half to even.
    pub fn round_to_bytes(&mut self) {
        self.values.iter_mut().for_each(|v| *v = f32::from(byte(*v)) / 255.0);
    }

    /// `[height, width, 3]` bytes, clamped and rounded, half to even.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.values.iter().map(|&v| byte(v)).collect()
    }

    /// The inverse of [`Image::to_bytes`].
    ///
    /// # Errors
    /// As [`Image::new`].
    pub fn from_bytes(height: usize, width: usize, bytes: &[u8]) -> Result<Self> {
        Image::new(height, width, bytes.iter().map(|&b| f32::from(b) / 255.0).collect())
    }
}

/// value * 255, clamped and rounded, half to even. Not a number gives 0.
fn byte(value: f32) -> u8 {
    (value * 255.0).clamp(0.0, 255.0).round_ties_even() as u8
}

/// `index` mirrored into `0..size`, the edge not repeated, as often as it takes.
pub fn mirrored(index: isize, size: usize) -> usize {
    let period = (2 * size).saturating_sub(2).max(1) as isize;
    let place = index.rem_euclid(period) as usize;
    if place < size { place } else { period as usize - place }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_mirror_without_repeating_the_edge() {
        let places: Vec<usize> = (-4..8).map(|i| mirrored(i, 4)).collect();
        assert_eq!(places, [2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1]);
        assert_eq!((mirrored(-3, 1), mirrored(5, 1), mirrored(7, 2)), (0, 0, 1));
    }

    #[test]
    fn windows_pad_with_the_mirrored_picture() {
        let image = Image::new(2, 3, (0..18).map(|v| v as f32).collect()).unwrap();
        let window = image.window((1, 1), (2, 3));
        let firsts: Vec<f32> = window.values.chunks(3).map(|p| p[0]).collect();
        assert_eq!(firsts, [12.0, 15.0, 12.0, 3.0, 6.0, 3.0]);
        let flipped: Vec<f32> = image.flipped().values.chunks(3).map(|p| p[1]).collect();
        assert_eq!(flipped, [7.0, 4.0, 1.0, 16.0, 13.0, 10.0]);
        assert!(Image::new(0, 3, vec![]).is_err() && Image::new(1, 1, vec![0.0; 2]).is_err());
    }

    /// Pictures are written by truncation, so a rounded value must come back as its own byte.
    #[test]
    fn rounded_values_survive_truncation() {
        for n in 0..=255u8 {
            assert_eq!(crate::image::to_byte(f32::from(n) / 255.0), n);
        }
        let mut image = Image::new(1, 1, vec![-0.2, 0.5, f32::NAN]).unwrap();
        image.round_to_bytes();
        assert_eq!(image.to_bytes(), [0, 128, 0]);
    }
}
