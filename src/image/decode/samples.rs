//! What the decoders hand over, and its way to a [`Picture`].

use crate::error::{Error, Result};
use crate::image::{Format, Picture, alpha::unpremultiply};
use image::metadata::Orientation;
use rayon::prelude::*;

/// Samples as stored: `[height, width, channels]`.
pub(super) enum Samples {
    U8(Vec<u8>),
    U16(Vec<u16>),
    F32(Vec<f32>),
}

/// A decoded raster before scaling and orientation.
pub(super) struct Raw {
    pub width: usize,
    pub height: usize,
    /// 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.
    pub channels: usize,
    pub samples: Samples,
    /// Colour is stored multiplied by alpha.
    pub premultiplied: bool,
    pub orientation: Orientation,
    pub icc: Option<Vec<u8>>,
    pub notes: Vec<String>,
}

/// An empty vector with room for `length` values, or an error where `Vec` would abort.
pub(super) fn with_capacity<T>(length: u64) -> Result<Vec<T>> {
    let mut values = Vec::new();
    usize::try_from(length)
        .ok()
        .and_then(|n| values.try_reserve_exact(n).ok())
        .ok_or_else(|| Error::memory(format!("cannot allocate {length} values for the picture")))?;
    Ok(values)
}

/// `length` zeros, or an error where `vec!` would abort.
pub(super) fn zeros<T: Copy + Default>(length: u64) -> Result<Vec<T>> {
    let mut values = with_capacity(length)?;
    values.resize(length as usize, T::default());
    Ok(values)
}

/// The orientation in an EXIF block; none, an unknown or a damaged one leaves the picture as it is.
pub(super) fn exif_orientation(exif: Option<&[u8]>) -> Orientation {
    exif.and_then(Orientation::from_exif_chunk).unwrap_or(Orientation::NoTransforms)
}

impl Raw {
    pub fn into_picture(self, format: Format) -> Result<Picture> {
        let (bits, colour_and_alpha) = match &self.samples {
            Samples::U8(v) => {
                let table: Vec<f32> = (0..=255u32).map(|v| (f64::from(v) / 255.0) as f32).collect();
                (8, self.spread(v, |v| table[usize::from(v)])?)
            }
            Samples::U16(v) => (16, self.spread(v, |v| (f64::from(v) / 65535.0) as f32)?),
            // Not a number becomes 0.
            Samples::F32(v) => (16, self.spread(v, |v| if v > 0.0 { v.min(1.0) } else { 0.0 })?),
        };
        let (mut colour, alpha) = colour_and_alpha;
        if let Some(alpha) = alpha.as_ref().filter(|_| self.premultiplied) {
            unpremultiply(&mut colour, alpha);
            colour.iter_mut().for_each(|v| *v = v.min(1.0));
        }
        let (width, height) = self.oriented_size();
        let mut notes = self.notes;
        let icc = self.icc.filter(|icc| {
            let sound = icc.len() >= 128 && icc.get(36..40) == Some(b"acsp");
            if !sound {
                notes.push("the colour profile is damaged and was left out".into());
            }
            sound
        });
        Ok(Picture { width, height, colour, alpha, grey: self.channels < 3, bits, icc, format, notes })
    }

    fn oriented_size(&self) -> (usize, usize) {
        use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
        match self.orientation {
            Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH => (self.height, self.width),
            _ => (self.width, self.height),
        }
    }

    /// Where in the stored raster the pixel (x, y) of the upright picture lies.
    fn source(&self, x: usize, y: usize) -> usize {
        let (right, bottom) = (self.width - 1, self.height - 1);
        // EXIF 2.32, tag 274, numbers 1 to 8 in this order.
        let (sx, sy) = match self.orientation {
            Orientation::NoTransforms => (x, y),
            Orientation::FlipHorizontal => (right - x, y),
            Orientation::Rotate180 => (right - x, bottom - y),
            Orientation::FlipVertical => (x, bottom - y),
            Orientation::Rotate90FlipH => (y, x),
            Orientation::Rotate90 => (y, bottom - x),
            Orientation::Rotate270FlipH => (right - y, bottom - x),
            Orientation::Rotate270 => (right - y, x),
        };
        sy * self.width + sx
    }

    /// Upright colour `[h, w, 3]` and alpha `[h, w]`, each sample through `scale`.
    fn spread<T: Copy + Sync>(
        &self,
        samples: &[T],
        scale: impl Fn(T) -> f32 + Sync,
    ) -> Result<(Vec<f32>, Option<Vec<f32>>)> {
        let channels = self.channels;
        if !(1..=4).contains(&channels) || samples.len() != self.width * self.height * channels {
            return Err(Error::internal("a decoder returned another number of samples than it promised"));
        }
        let (width, _) = self.oriented_size();
        let pixels = (self.width * self.height) as u64;
        let mut colour = zeros::<f32>(pixels * 3)?;
        colour.par_chunks_exact_mut(width * 3).enumerate().for_each(|(y, row)| {
            for (x, rgb) in row.chunks_exact_mut(3).enumerate() {
                let at = self.source(x, y) * channels;
                for (c, v) in rgb.iter_mut().enumerate() {
                    *v = scale(samples[if channels < 3 { at } else { at + c }]);
                }
            }
        });
        if channels % 2 == 1 {
            return Ok((colour, None));
        }
        let mut alpha = zeros::<f32>(pixels)?;
        alpha.par_chunks_exact_mut(width).enumerate().for_each(|(y, row)| {
            for (x, a) in row.iter_mut().enumerate() {
                *a = scale(samples[self.source(x, y) * channels + channels - 1]);
            }
        });
        Ok((colour, Some(alpha)))
    }
}
