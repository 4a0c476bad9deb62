//! Loss values and their gradients in what they are taken of.
//!
//! Losses are scalars of few values (a latent, an image, scores), so they are computed on the host in f64, whatever
//! the device; their gradients go back as the seeds of the tape.

use rayon::prelude::*;

use super::objective::{PixelTerm, RewardForm};
use crate::device::Purpose;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Values that one thread sums at a time.
const BLOCK: usize = 1 << 14;

/// A loss and its gradient.
pub struct Loss {
    pub value: f64,
    /// shaped like what the loss is of
    pub gradient: Tensor,
}

/// Sums `term` of pairs, in an order that does not depend on the threads.
fn sum(a: &[f32], b: &[f32], term: impl Fn(f64, f64) -> f64 + Sync) -> f64 {
    let blocks: Vec<f64> = a
        .par_chunks(BLOCK)
        .zip(b.par_chunks(BLOCK))
        .map(|(a, b)| a.iter().zip(b).map(|(&a, &b)| term(f64::from(a), f64::from(b))).sum())
        .collect();
    blocks.into_iter().sum()
}

fn like(tensor: &Tensor, values: &[f32]) -> Result<Tensor> {
    Tensor::from_f32_as(tensor.device(), values, tensor.shape(), tensor.dtype(), Purpose::Activation)
}

fn same_shape(a: &Tensor, b: &Tensor) -> Result<()> {
    if a.shape() == b.shape() {
        return Ok(());
    }
    Err(Error::internal(format!("a loss of {} and {}", a.shape(), b.shape())))
}

/// The mean of `(found - wanted)^2`.
pub fn mean_squared_error(found: &Tensor, wanted: &Tensor) -> Result<Loss> {
    same_shape(found, wanted)?;
    let (a, b) = (found.to_f32()?, wanted.to_f32()?);
    let count = a.len().max(1) as f64;
    let value = sum(&a, &b, |a, b| (a - b) * (a - b)) / count;
    let factor = 2.0 / count;
    let gradient: Vec<f32> =
        a.par_iter().zip(&b).map(|(&a, &b)| (factor * (f64::from(a) - f64::from(b))) as f32).collect();
    Ok(Loss { value, gradient: like(found, &gradient)? })
}

/// The mean absolute error of the images [N, H, W, 3] whose timestep is in range: the sum over them, divided by their
/// elements plus 1e-5, as published.
pub fn pixel_loss(found: &Tensor, wanted: &Tensor, timesteps: &[usize], term: &PixelTerm) -> Result<Loss> {
    same_shape(found, wanted)?;
    let (a, b) = (found.to_f32()?, wanted.to_f32()?);
    let size = a.len() / timesteps.len().max(1);
    let counts = |n: &usize| term.range.contains(&timesteps[*n]);
    let images: Vec<usize> = (0..timesteps.len()).filter(counts).collect();
    let divisor = (images.len() * size) as f64 + 1e-5;
    let mut total = 0.0;
    let mut gradient = vec![0.0f32; a.len()];
    for n in images {
        let own = n * size..(n + 1) * size;
        let (a, b) = (&a[own.clone()], &b[own.clone()]);
        total += sum(a, b, |a, b| (a - b).abs());
        let step = (1.0 / divisor) as f32;
        gradient[own].par_iter_mut().zip(a.par_iter().zip(b)).for_each(|(g, (a, b))| {
            *g = match a.partial_cmp(b) {
                Some(std::cmp::Ordering::Greater) => step,
                Some(std::cmp::Ordering::Less) => -step,
                Some(std::cmp::Ordering::Equal) => 0.0,
                None => f32::NAN,
            };
        });
    }
    Ok(Loss { value: total / divisor, gradient: like(found, &gradient)? })
}

/// What scores [N] lack to 1.
pub fn reward_loss(scores: &Tensor, timesteps: &[usize], form: &RewardForm) -> Result<Loss> {
    let values = scores.to_f32()?;
    if values.len() != timesteps.len() {
        return Err(Error::internal(format!("{} scores of {} images", values.len(), timesteps.len())));
    }
    let mean = |scores: &[f64]| scores.iter().sum::<f64>() / scores.len().max(1) as f64;
    let (value, gradient): (f64, Vec<f32>) = match form {
        RewardForm::Hinge => {
            let lack = 1.0 - mean(&values.iter().map(|&v| f64::from(v)).collect::<Vec<_>>());
            // Written so that a score that is no number is seen.
            let value = if lack <= 0.0 { 0.0 } else { lack };
            let slope = if lack <= 0.0 { 0.0 } else { -1.0 / values.len().max(1) as f64 };
            (value, vec![slope as f32; values.len()])
        }
        RewardForm::Ranged(range) => {
            let counts = |n: &usize| range.contains(&timesteps[*n]);
            let images: Vec<usize> = (0..values.len()).filter(counts).collect();
            let lacks: Vec<f64> = images.iter().map(|&n| 1.0 - f64::from(values[n])).collect();
            let mut gradient = vec![0.0; values.len()];
            images.iter().for_each(|&n| gradient[n] = -1.0 / images.len() as f32);
            (mean(&lacks), gradient)
        }
    };
    Ok(Loss { value, gradient: like(scores, &gradient)? })
}

/// `factor` times the loss.
pub fn scaled(loss: Loss, factor: f32) -> Result<Loss> {
    let values: Vec<f32> = loss.gradient.to_f32()?.par_iter().map(|v| v * factor).collect();
    Ok(Loss { value: loss.value * f64::from(factor), gradient: like(&loss.gradient, &values)? })
}
