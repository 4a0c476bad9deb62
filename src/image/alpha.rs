//! Transparency around a network that knows only colour.
//!
//! A picture with alpha is upscaled in four steps: [`network_colour`] gives the network colours without garbage under
//! the transparent pixels; the network upscales them; [`recombine`] upscales alpha by bicubic resize, clamped to
//! [0, 1], and joins the two; encoding writes both straight. A resize on the host ([`resized`]) works on colour
//! multiplied by alpha, so that what is invisible does not bleed into what is seen.

use super::{Picture, resize::bicubic};
use crate::error::{Error, Result};
use std::borrow::Cow;

/// Multiplies `[h, w, 3]` colour by `[h, w]` alpha.
pub fn premultiply(colour: &mut [f32], alpha: &[f32]) {
    for (rgb, &a) in colour.chunks_exact_mut(3).zip(alpha) {
        rgb.iter_mut().for_each(|v| *v *= a);
    }
}

/// Divides `[h, w, 3]` colour by `[h, w]` alpha; fully transparent pixels become black.
pub fn unpremultiply(colour: &mut [f32], alpha: &[f32]) {
    for (rgb, &a) in colour.chunks_exact_mut(3).zip(alpha) {
        rgb.iter_mut().for_each(|v| *v = if a > 0.0 { *v / a } else { 0.0 });
    }
}

/// One level of the fill pyramid: colour times weight and weight, `[height, width, 4]`.
struct Level {
    width: usize,
    height: usize,
    values: Vec<[f32; 4]>,
}

impl Level {
    /// Sums of 2x2 blocks. Sums, not means: only the quotient colour / weight is ever read.
    fn halved(&self) -> Level {
        let (width, height) = (self.width.div_ceil(2), self.height.div_ceil(2));
        let mut values = vec![[0f32; 4]; width * height];
        for (y, row) in self.values.chunks_exact(self.width).enumerate() {
            for (x, v) in row.iter().enumerate() {
                let sum = &mut values[y / 2 * width + x / 2];
                // A quarter, so that a great picture cannot run out of range.
                sum.iter_mut().zip(v).for_each(|(s, v)| *s += 0.25 * v);
            }
        }
        Level { width, height, values }
    }
}

/// The colour to give the network, `[h, w, 3]`: visible pixels as they are; fully transparent ones, whose stored
/// colour is arbitrary, take the mean of the nearest visible surroundings (a push-pull pyramid weighted by alpha). A
/// picture with nothing visible gives black.
pub fn network_colour(picture: &Picture) -> Cow<'_, [f32]> {
    let Some(alpha) = picture.alpha.as_ref().filter(|a| a.iter().any(|&a| a <= 0.0)) else {
        return Cow::Borrowed(&picture.colour);
    };
    let weighted = |(rgb, &a): (&[f32], &f32)| [rgb[0] * a, rgb[1] * a, rgb[2] * a, a];
    let base = Level {
        width: picture.width,
        height: picture.height,
        values: picture.colour.chunks_exact(3).zip(alpha).map(weighted).collect(),
    };
    let mut levels = vec![base];
    while let Some(last) = levels.last()
        && last.values.len() > 1
        && last.values.iter().any(|v| v[3] <= 0.0)
    {
        let next = last.halved();
        levels.push(next);
    }
    for coarse in (1..levels.len()).rev() {
        let (fine, coarse) = levels.split_at_mut(coarse);
        let (Some(fine), Some(coarse)) = (fine.last_mut(), coarse.first()) else { continue };
        let width = fine.width;
        for (i, v) in fine.values.iter_mut().enumerate().filter(|(_, v)| v[3] <= 0.0) {
            *v = coarse.values[(i / width / 2) * coarse.width + i % width / 2];
        }
    }
    let mut colour = picture.colour.clone();
    for ((rgb, v), _) in
        colour.chunks_exact_mut(3).zip(&levels[0].values).zip(alpha).filter(|(_, a)| **a <= 0.0)
    {
        for (out, sum) in rgb.iter_mut().zip(v) {
            *out = if v[3] > 0.0 { sum / v[3] } else { 0.0 };
        }
    }
    Cow::Owned(colour)
}

/// The picture at another size by bicubic resize; colour overshoot is kept as the resize rule says, alpha is clamped
/// to [0, 1]. Both sides must be at least 1.
pub fn resized(picture: &Picture, width: usize, height: usize) -> Picture {
    let (from, to) = ((picture.width, picture.height), (width, height));
    let (colour, alpha) = match &picture.alpha {
        None => (bicubic(&picture.colour, from, 3, to), None),
        Some(_) if from == to => (picture.colour.clone(), picture.alpha.clone()),
        Some(alpha) => {
            let mut colour = picture.colour.clone();
            premultiply(&mut colour, alpha);
            let mut colour = bicubic(&colour, from, 3, to);
            let alpha = upscale(alpha, from, to);
            unpremultiply(&mut colour, &alpha);
            // Next to nothing visible the quotient can be far out of range.
            colour.iter_mut().for_each(|v| *v = v.clamp(0.0, 1.0));
            (colour, Some(alpha))
        }
    };
    Picture { width, height, colour, alpha, ..described(picture) }
}

/// `[h, w]` alpha at another size: bicubic, clamped to [0, 1].
pub fn upscale(alpha: &[f32], from: (usize, usize), to: (usize, usize)) -> Vec<f32> {
    let mut alpha = bicubic(alpha, from, 1, to);
    alpha.iter_mut().for_each(|a| *a = a.clamp(0.0, 1.0));
    alpha
}

/// The result of a run on `source`: the network's colour `[height, width, 3]` with the source's alpha upscaled to the
/// same size, and the source's profile and format.
///
/// # Errors
/// When `colour` does not fill `[height, width, 3]` or a side is zero.
pub fn recombine(source: &Picture, colour: Vec<f32>, width: usize, height: usize) -> Result<Picture> {
    if colour.is_empty() || colour.len() != width * height * 3 {
        let got = colour.len();
        return Err(Error::internal(format!("{got} colour values do not fill a {width} x {height} picture")));
    }
    let alpha = source.alpha.as_ref().map(|a| upscale(a, (source.width, source.height), (width, height)));
    Ok(Picture { width, height, colour, alpha, ..described(source) })
}

/// What the file said about the picture, without its pixels.
fn described(picture: &Picture) -> Picture {
    Picture {
        width: picture.width,
        height: picture.height,
        colour: Vec::new(),
        alpha: None,
        grey: picture.grey,
        bits: picture.bits,
        icc: picture.icc.clone(),
        format: picture.format,
        notes: picture.notes.clone(),
    }
}
