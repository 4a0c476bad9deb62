//! Group norm on the CPU: one pass over the pixels, statistics about a pivot so that f32 sums suffice.

use rayon::prelude::*;

use super::{Affine, GroupNorm};
use crate::error::Result;
use crate::ops::Segments;
use crate::ops::host::element::HostElement;
use crate::ops::host::math::vectorised;
use crate::ops::host::rows::{HostAffine, Pixels, wide};
use crate::tensor::Tensor;

/// Pixels whose f32 sums are folded into f64 at once.
const BLOCK: usize = 128;

/// Sums of x - pivot and of its square, by channel.
struct Sums<'a> {
    pivot: &'a [f32],
    total: &'a mut [f32],
    squares: &'a mut [f32],
}

impl Sums<'_> {
    /// Adds `P` pixels at once: the sums are loaded and stored once for all of them.
    #[inline(always)]
    fn add<T: HostElement, const P: usize>(&mut self, pixels: [&[T]; P]) {
        let pivots = self.pivot.iter().enumerate();
        for ((i, pivot), (total, square)) in pivots.zip(self.total.iter_mut().zip(self.squares.iter_mut())) {
            for pixel in pixels {
                let d = pixel[i].wide() - pivot;
                *total += d;
                *square += d * d;
            }
        }
    }
}

/// Sums of x - pivot, then of (x - pivot)^2, by channel, f64, over pixels `first..first + count`.
fn block_sums<T: HostElement>(pixels: &Pixels<T>, pivot: &[f32], first: usize, count: usize) -> Vec<f64> {
    let mut sums = vec![0.0f32; 2 * pivot.len()];
    let mut line = vec![0.0f32; pivot.len()];
    vectorised!({
        let (mut total, mut squares) = sums.split_at_mut(pivot.len());
        let mut pivot = pivot;
        for &(data, plus, c) in pixels.parts() {
            let mut part;
            (part, (pivot, total, squares)) = {
                let (own, pivot) = pivot.split_at(c);
                let (own_total, total) = total.split_at_mut(c);
                let (own_squares, squares) = squares.split_at_mut(c);
                (Sums { pivot: own, total: own_total, squares: own_squares }, (pivot, total, squares))
            };
            let data = &data[first * c..][..count * c];
            let Some(plus) = plus else {
                let fours = data.chunks_exact(4 * c);
                let rest = fours.remainder();
                for four in fours {
                    let (front, back) = four.split_at(2 * c);
                    part.add([&front[..c], &front[c..], &back[..c], &back[c..]]);
                }
                rest.chunks_exact(c).for_each(|pixel| part.add([pixel]));
                continue;
            };
            for (a, b) in data.chunks_exact(c).zip(plus[first * c..].chunks_exact(c)) {
                line.iter_mut().zip(a.iter().zip(b)).for_each(|(v, (a, b))| *v = a.wide() + b.wide());
                part.add([&line[..c]]);
            }
        }
    });
    sums.into_iter().map(f64::from).collect()
}

/// Fills `result` [N, 2, C] and, where it is there, `statistics` [N, groups, 2]: mean, 1 / sqrt(var + eps).
pub fn coefficients<T: HostElement>(
    segments: &Segments,
    norm: &GroupNorm,
    adaln: Option<&Tensor>,
    [n, area, c]: [usize; 3],
    mut statistics: Option<&mut [f32]>,
    result: &mut [f32],
) -> Result<()> {
    let pixels = Pixels::<T>::new(segments)?;
    let (gamma, beta) = (norm.gamma.host::<f32>()?, norm.beta.host::<f32>()?);
    let adaln = adaln.map(wide).transpose()?;
    let width = c / norm.groups;
    for image in 0..n {
        let mut pivot = vec![0.0f32; c];
        pixels.read(image * area, &mut pivot);
        let sums = (0..area.div_ceil(BLOCK))
            .into_par_iter()
            .map(|block| {
                let first = block * BLOCK;
                block_sums(&pixels, &pivot, image * area + first, BLOCK.min(area - first))
            })
            // Folding in a fixed order keeps the result independent of the thread count.
            .collect::<Vec<_>>()
            .into_iter()
            .reduce(|mut all, block| {
                all.iter_mut().zip(block).for_each(|(a, b)| *a += b);
                all
            })
            .unwrap_or_else(|| vec![0.0; 2 * c]);
        let (scale, shift) = result[image * 2 * c..][..2 * c].split_at_mut(c);
        for group in 0..norm.groups {
            let channels = group * width..(group + 1) * width;
            let count = area as f64;
            // mean and variance of the group from its channels' sums about their own pivots
            let mean =
                channels.clone().map(|i| sums[i] / count + f64::from(pivot[i])).sum::<f64>() / width as f64;
            let spread = |i: usize| {
                let (offset, d) = (sums[i] / count, f64::from(pivot[i]) - mean);
                sums[c + i] / count + 2.0 * offset * d + d * d
            };
            let variance = channels.clone().map(spread).sum::<f64>() / width as f64;
            let inverse = 1.0 / (variance.max(0.0) + f64::from(norm.eps)).sqrt();
            if let Some(statistics) = &mut statistics {
                statistics[(image * norm.groups + group) * 2..][..2]
                    .copy_from_slice(&[mean as f32, inverse as f32]);
            }
            for i in channels {
                let a = f64::from(gamma[i]) * inverse;
                let b = f64::from(beta[i]) - mean * a;
                let (a, b) = match &adaln {
                    None => (a, b),
                    Some(adaln) => {
                        // one row may serve all images
                        let row = &adaln[image * 2 * c % adaln.len()..][..2 * c];
                        let factor = 1.0 + f64::from(row[i]);
                        (a * factor, b * factor + f64::from(row[c + i]))
                    }
                };
                (scale[i], shift[i]) = (a as f32, b as f32);
            }
        }
    }
    Ok(())
}

/// Fills `result` [N, H, W, C].
pub fn normalise<T: HostElement>(
    segments: &Segments,
    affine: &Affine,
    area: usize,
    result: &mut [T],
) -> Result<()> {
    let pixels = Pixels::<T>::new(segments)?;
    let affine = HostAffine { coefficients: affine.coefficients.host()?, activation: affine.activation };
    let c = pixels.channels();
    let buffer = || vec![0.0; T::buffer(c)];
    result.par_chunks_mut(c * BLOCK).enumerate().for_each_init(buffer, |buffer, (block, chunk)| {
        vectorised!({
            for (i, pixel) in chunk.chunks_exact_mut(c).enumerate() {
                let index = block * BLOCK + i;
                T::fill(
                    pixel,
                    buffer,
                    #[inline(always)]
                    |values| {
                        pixels.read(index, values);
                        affine.apply(index / area, values);
                    },
                );
            }
        });
    });
    Ok(())
}
