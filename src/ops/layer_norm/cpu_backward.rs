//! Gradients of layer norms on the CPU.

use rayon::prelude::*;

use crate::error::Result;
use crate::ops::host::math::{sum, vectorised};
use crate::ops::sums::fold;
use crate::tensor::Tensor;

/// Rows whose f32 sums are folded into f64 at once.
const ROWS: usize = 32;

/// Fills dx, and where they are there the gradients of gamma and beta [C].
///
/// With x^ = (x - mean) * r and g = dy * gamma: dx = r * (g - mean(g) - x^ * mean(g * x^)).
pub fn layer_norm(
    (x, gamma, eps): (&Tensor, &Tensor, f32),
    gradient: &Tensor,
    result: &mut [f32],
    weights: Option<(&mut [f32], &mut [f32])>,
) -> Result<()> {
    let c = x.shape().last();
    let (x, gamma, gradient) = (x.host::<f32>()?, gamma.host::<f32>()?, gradient.host::<f32>()?);
    let wanted = weights.is_some();
    let pairs = x.par_chunks(c * ROWS).zip(gradient.par_chunks(c * ROWS));
    let blocks: Vec<Vec<f32>> = result
        .par_chunks_mut(c * ROWS)
        .zip(pairs)
        .map(|(out, (rows, gradients))| {
            let mut sums = vec![0.0f32; if wanted { 2 * c } else { 0 }];
            let (mut normed, mut inner) = (vec![0.0f32; c], vec![0.0f32; c]);
            vectorised!({
                let pairs = rows.chunks_exact(c).zip(gradients.chunks_exact(c));
                for (out, (row, gradient)) in out.chunks_exact_mut(c).zip(pairs) {
                    let mean = sum(row, |v| v) / c as f32;
                    let variance = sum(row, |v| (v - mean) * (v - mean)) / c as f32;
                    let inverse = 1.0 / (variance + eps).sqrt();
                    for i in 0..c {
                        normed[i] = (row[i] - mean) * inverse;
                        inner[i] = gradient[i] * gamma[i];
                        out[i] = inner[i] * normed[i];
                    }
                    let (plain, along) = (sum(&inner, |v| v) / c as f32, sum(out, |v| v) / c as f32);
                    for i in 0..c {
                        out[i] = inverse * (inner[i] - plain - normed[i] * along);
                    }
                    if wanted {
                        let (to_gamma, to_beta) = sums.split_at_mut(c);
                        for i in 0..c {
                            to_gamma[i] += gradient[i] * normed[i];
                            to_beta[i] += gradient[i];
                        }
                    }
                }
            });
            sums
        })
        .collect();
    if let Some((gamma, beta)) = weights {
        let total = fold(&blocks, 2 * c);
        gamma.iter_mut().chain(beta.iter_mut()).zip(total).for_each(|(v, t)| *v = t as f32);
    }
    Ok(())
}
