//! AdamW on the CPU.

use rayon::prelude::*;

use super::{AdamW, Factors, Parameter, Scaling};
use crate::error::Result;
use crate::ops::host::math::{sum, vectorised};
use crate::tensor::Tensor;

const BLOCK: usize = 1 << 14;

pub fn gradient_norm(gradients: &[&Tensor], scale: f32, result: &mut [f32]) -> Result<()> {
    let mut total = 0.0f64;
    for gradient in gradients {
        let blocks: Vec<f32> = gradient
            .host::<f32>()?
            .par_chunks(BLOCK)
            .map(|block| vectorised!({ sum_of_squares(block) }))
            .collect();
        // Folding in a fixed order keeps the result independent of the thread count.
        total += blocks.into_iter().map(f64::from).sum::<f64>();
    }
    result.fill((total.sqrt() * f64::from(scale)) as f32);
    Ok(())
}

#[inline(always)]
fn sum_of_squares(values: &[f32]) -> f32 {
    sum(values, |v| v * v)
}

pub fn adamw(
    parameters: &mut [Parameter],
    settings: &AdamW,
    scaling: &Scaling,
    factors: Factors,
) -> Result<()> {
    let mut scale = scaling.scale;
    if let Some((limit, norm)) = scaling.limit {
        let factor = limit / (norm.host::<f32>()?[0] + 1e-6);
        // Written so that a norm that is not a number reaches the weights and is seen.
        scale *= if factor > 1.0 { 1.0 } else { factor };
    }
    let &AdamW { beta1, beta2, eps, .. } = settings;
    let Factors { keep, step, root } = factors;
    for parameter in parameters {
        let master = parameter.master.host_mut::<f32>()?.par_chunks_mut(BLOCK);
        let first = parameter.first.host_mut::<f32>()?.par_chunks_mut(BLOCK);
        let second = parameter.second.host_mut::<f32>()?.par_chunks_mut(BLOCK);
        let gradient = parameter.gradient.host::<f32>()?.par_chunks(BLOCK);
        master.zip(first).zip(second).zip(gradient).for_each(|(((master, first), second), gradient)| {
            vectorised!({
                for i in 0..master.len() {
                    let g = gradient[i] * scale;
                    first[i] += (1.0 - beta1) * (g - first[i]);
                    second[i] = beta2 * second[i] + (1.0 - beta2) * g * g;
                    master[i] = master[i] * keep - step * first[i] / (second[i].sqrt() * root + eps);
                }
            });
        });
        if let Some(copy) = &mut parameter.copy {
            copy.host_mut::<f32>()?.copy_from_slice(parameter.master.host()?);
        }
    }
    Ok(())
}
