//! Gradients of group norms on the CPU.

use rayon::prelude::*;

use super::Affine;
use crate::error::Result;
use crate::ops::Segments;
use crate::ops::host::math::vectorised;
use crate::ops::host::rows::{Pixels, multiply_by_slope};
use crate::ops::sums::fold as fold_blocks;

/// Pixels whose f32 sums are folded into f64 at once.
const BLOCK: usize = 128;

/// Fills dx [N, H, W, C] and the gradient of the coefficients [N, 2, C].
pub fn affine_gradient(
    segments: &Segments,
    affine: &Affine,
    gradient: &[f32],
    area: usize,
    (result, sums): (&mut [f32], &mut [f32]),
) -> Result<()> {
    let pixels = Pixels::<f32>::new(segments)?;
    let c = pixels.channels();
    let coefficients = affine.coefficients.host::<f32>()?;
    if area * c == 0 {
        return Ok(());
    }
    let images = result.chunks_exact_mut(area * c).zip(gradient.chunks_exact(area * c));
    for (image, ((result, gradient), sums)) in images.zip(sums.chunks_exact_mut(2 * c)).enumerate() {
        let (scale, shift) = coefficients[image * 2 * c..][..2 * c].split_at(c);
        let blocks: Vec<Vec<f32>> = result
            .par_chunks_mut(BLOCK * c)
            .zip(gradient.par_chunks(BLOCK * c))
            .enumerate()
            .map(|(block, (result, gradient))| {
                let mut partial = vec![0.0f32; 2 * c];
                let (mut line, mut inner) = (vec![0.0f32; c], vec![0.0f32; c]);
                vectorised!({
                    let (by_scale, by_shift) = partial.split_at_mut(c);
                    let rows = result.chunks_exact_mut(c).zip(gradient.chunks_exact(c));
                    for (i, (out, gradient)) in rows.enumerate() {
                        pixels.read(image * area + block * BLOCK + i, &mut line);
                        for j in 0..c {
                            inner[j] = line[j] * scale[j] + shift[j];
                        }
                        out.copy_from_slice(gradient);
                        multiply_by_slope(out, &inner, affine.activation);
                        for j in 0..c {
                            by_scale[j] += out[j] * line[j];
                            by_shift[j] += out[j];
                            out[j] *= scale[j];
                        }
                    }
                });
                partial
            })
            .collect();
        sums.iter_mut().zip(fold_blocks(&blocks, 2 * c)).for_each(|(v, t)| *v = t as f32);
    }
    Ok(())
}

/// A norm as its backward sees it; see `backward::Saved`.
pub struct Norm<'a> {
    pub gamma: &'a [f32],
    pub beta: &'a [f32],
    pub adaln: Option<&'a [f32]>,
    pub statistics: &'a [f32],
    pub groups: usize,
    pub area: usize,
}

/// See `backward::Folded`.
pub struct Outputs<'a> {
    pub gamma: &'a mut [f32],
    pub beta: &'a mut [f32],
    pub adaln: Option<&'a mut [f32]>,
    pub input: &'a mut [f32],
}

/// Fills `out` from the gradient of the coefficients [N, 2, C]; the formulas are at `backward::fold`.
pub fn fold(norm: &Norm, gradient: &[f32], mut out: Outputs) {
    let c = norm.gamma.len();
    let width = c / norm.groups;
    let rows = out.adaln.as_ref().map_or(0, |adaln| adaln.len() / (2 * c));
    let (mut gamma, mut beta) = (vec![0.0f64; c], vec![0.0f64; c]);
    let mut adaln = vec![0.0f64; rows * 2 * c];
    let count = (norm.area * width) as f64;
    let images = gradient.chunks_exact(2 * c).zip(out.input.chunks_exact_mut(2 * c));
    for (image, (gradient, input)) in images.enumerate() {
        let (to_a, to_b) = gradient.split_at(c);
        let (slopes, shifts) = input.split_at_mut(c);
        for group in 0..norm.groups {
            let statistics = &norm.statistics[(image * norm.groups + group) * 2..][..2];
            let (mean, inverse) = (f64::from(statistics[0]), f64::from(statistics[1]));
            let (mut to_mean, mut to_inverse) = (0.0f64, 0.0f64);
            let channels = group * width..(group + 1) * width;
            for i in channels.clone() {
                let (weight, offset) = (f64::from(norm.gamma[i]), f64::from(norm.beta[i]));
                let (to_a, to_b) = (f64::from(to_a[i]), f64::from(to_b[i]));
                let own_scale = weight * inverse;
                let own_shift = offset - mean * own_scale;
                let mut factor = 1.0;
                if let Some(values) = norm.adaln {
                    // one row may serve all images
                    let start = image * 2 * c % values.len();
                    factor += f64::from(values[start + i]);
                    adaln[start + i] += to_a * own_scale + to_b * own_shift;
                    adaln[start + c + i] += to_b;
                }
                let (to_scale, to_shift) = (to_a * factor, to_b * factor);
                let to_scale = to_scale - mean * to_shift;
                beta[i] += to_shift;
                gamma[i] += to_scale * inverse;
                to_mean -= own_scale * to_shift;
                to_inverse += to_scale * weight;
            }
            // r = (var + eps)^(-1/2), var the mean of (x - mean)^2
            let to_variance = -0.5 * to_inverse * inverse * inverse * inverse;
            let slope = 2.0 * to_variance / count;
            for i in channels {
                slopes[i] = slope as f32;
                shifts[i] = (to_mean / count - slope * mean) as f32;
            }
        }
    }
    let store = |to: &mut [f32], from: &[f64]| to.iter_mut().zip(from).for_each(|(v, &t)| *v = t as f32);
    store(out.gamma, &gamma);
    store(out.beta, &beta);
    if let Some(rows) = &mut out.adaln {
        store(rows, &adaln);
    }
}
