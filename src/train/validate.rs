//! Pictures restored during a run, to see and to measure what it has learnt so far.

use super::config::{Config, Validation};
use super::data::{DataOptions, Dataset, Sample, entries};
use super::degrade::Crop;
use super::lesson::Lesson;
use crate::error::Result;
use crate::image::{EncodeOptions, Format, Picture, encode_bytes};
use crate::metrics::{Channels, psnr};
use crate::ops::Cx;

/// One picture's result.
pub struct Sampled {
    pub png: Vec<u8>,
    /// width, height
    pub size: [usize; 2],
    /// on all three channels, in dB
    pub psnr: f64,
}

/// The pictures of a validation: the middle of each, degraded the same way every time.
pub struct Validator {
    samples: Vec<Sample>,
}

impl Validator {
    /// Reads and degrades the pictures.
    ///
    /// # Errors
    /// A picture cannot be read.
    pub fn new(config: &Config, validation: &Validation) -> Result<Self> {
        let entries = entries(&validation.pictures)?;
        let count = entries.len();
        let crop = if config.data.crop == Crop::Fit { Crop::Fit } else { Crop::Centre };
        let options = DataOptions { crop, flip: false, fixed: true, dropout: 0.0, ..config.data.clone() };
        let data = Dataset::new(entries, options)?;
        let samples = (0..count).map(|index| data.sample(0, index)).collect::<Result<_>>()?;
        Ok(Validator { samples })
    }

    /// Restores every picture with the networks as they are.
    ///
    /// # Errors
    /// The device fails.
    pub fn run(&self, cx: &Cx, lesson: &dyn Lesson) -> Result<Vec<Sampled>> {
        self.samples.iter().map(|sample| restored(cx, lesson, sample)).collect()
    }
}

fn restored(cx: &Cx, lesson: &dyn Lesson, sample: &Sample) -> Result<Sampled> {
    let image = lesson.restored(cx, sample)?;
    let [_, height, width, _] = image.nhwc()?;
    let colour: Vec<f32> = image.to_f32()?.iter().map(|v| v.clamp(0.0, 1.0)).collect();
    let psnr = psnr(&colour, &sample.high.values, Channels::Rgb)?;
    let png =
        encode_bytes(&Picture::of_colour(width, height, colour), Format::Png, &EncodeOptions::default())?
            .bytes;
    Ok(Sampled { png, size: [width, height], psnr })
}
