//! The pointwise arithmetic of sampling and training: guidance, the DDPM step, the autoencoder's posterior, sums
//! with factors for each image, pixels from what the decoder gives.

mod cuda;

use super::calls::{Call, note};
use super::elementwise::{combine, pointwise, stack};
use super::{Accumulate, Activation, Cx};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::ops::host::math::exp;
use crate::tensor::{DType, Tensor};

/// Classifier-free guidance, `negative + cfg * (positive - negative)`, of a batch that holds the positive
/// rows first: [2N, h, w, c] -> [N, h, w, c].
pub fn guide(cx: &Cx, eps: &Tensor, cfg: f32) -> Result<Tensor> {
    let rows = eps.shape()[0];
    if !rows.is_multiple_of(2) {
        return Err(Error::internal(format!("guidance of {rows} rows")));
    }
    let (positive, negative) = (eps.narrow(0, rows / 2)?, eps.narrow(rows / 2, rows / 2)?);
    combine(cx, &[(1.0 - cfg, &negative), (cfg, &positive)], 0.0)
}

/// The coefficients of one step of the spaced chain.
///
/// `x0 = x0_from_x * x - x0_from_noise * eps`, `mean = mean_from_x0 * x0 + mean_from_x * x`,
/// `x_prev = mean + deviation * noise`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepCoefficients {
    pub x0_from_x: f32,
    pub x0_from_noise: f32,
    pub mean_from_x0: f32,
    pub mean_from_x: f32,
    /// square root of the posterior variance; 0 in the last step
    pub deviation: f32,
}

impl StepCoefficients {
    /// The clean latent that `x` and the predicted noise imply.
    #[inline]
    pub fn x0(&self, x: f32, eps: f32) -> f32 {
        self.x0_from_x * x - self.x0_from_noise * eps
    }

    /// One element, one step less noisy. Products and sums are rounded one by one, as in the official sampler.
    #[inline]
    pub fn previous(&self, x: f32, eps: f32, noise: f32) -> f32 {
        let mean = self.mean_from_x0 * self.x0(x, eps) + self.mean_from_x * x;
        // Branching rather than adding zero keeps a non-finite unused draw out of the last step.
        if self.deviation == 0.0 { mean } else { mean + self.deviation * noise }
    }
}

/// One step: x, eps, noise [N, h, w, c] -> x one step less noisy.
pub fn ddpm_step(
    cx: &Cx,
    x: &Tensor,
    eps: &Tensor,
    noise: &Tensor,
    step: &StepCoefficients,
) -> Result<Tensor> {
    if eps.shape() != x.shape() || noise.shape() != x.shape() {
        return Err(Error::internal(format!(
            "a step of {} with {} and {}",
            x.shape(),
            eps.shape(),
            noise.shape()
        )));
    }
    note(cx, eps.dtype(), || Call::DdpmStep { count: x.shape().count() });
    let mut result = cx.allocate(x.shape(), DType::F32)?;
    match cx.device() {
        Device::Cpu(_) => {
            let (x, eps, noise) = (x.host::<f32>()?, eps.host::<f32>()?, noise.host::<f32>()?);
            for (i, out) in result.host_mut::<f32>()?.iter_mut().enumerate() {
                *out = step.previous(x[i], eps[i], noise[i]);
            }
        }
        Device::Gpu(gpu) => cuda::ddpm_step(gpu, [x, eps, noise], step, &mut result)?,
        Device::Plan(_) => {}
    }
    cx.constant("ddpm_step", &[x, eps, noise], result.freeze())
}

/// The latent of moments [N, h, w, 2c] (mean | log variance), times `scale`: the mode, or with `noise`
/// [N, h, w, c] the sample `mean + exp(log_variance / 2) * noise`, the log variance clamped to [-30, 20]. Gradients flow
/// to the moments, not to the noise.
pub fn posterior(cx: &Cx, moments: &Tensor, noise: Option<&Tensor>, scale: f32) -> Result<Tensor> {
    let [n, h, w, both] = moments.nhwc()?;
    let c = both / 2;
    if noise.is_some_and(|noise| *noise.shape() != [n, h, w, c]) {
        return Err(Error::internal(format!("noise does not fit moments {}", moments.shape())));
    }
    note(cx, moments.dtype(), || Call::Posterior { image: [n, h, w, c] });
    let mut result = cx.allocate([n, h, w, c], DType::F32)?;
    match cx.device() {
        Device::Cpu(_) => {
            let noise = noise.map(Tensor::host::<f32>).transpose()?;
            let pixels = moments.host::<f32>()?.chunks_exact(both);
            for (index, (out, pixel)) in result.host_mut::<f32>()?.chunks_exact_mut(c).zip(pixels).enumerate()
            {
                for i in 0..c {
                    let drawn = noise.map_or(0.0, |noise| {
                        exp(0.5 * pixel[c + i].clamp(-30.0, 20.0)) * noise[index * c + i]
                    });
                    out[i] = scale * (pixel[i] + drawn);
                }
            }
        }
        Device::Gpu(gpu) => cuda::posterior(gpu, moments, noise, scale, &mut result)?,
        Device::Plan(_) => {}
    }
    let result = cx.constant("posterior", noise.as_slice(), result.freeze())?;
    if !cx.tracks(&[moments]) {
        return Ok(result);
    }
    let (input, noise) = (moments.clone(), noise.cloned());
    Ok(cx.record(&[moments], result, move |cx, gradient, gradients| {
        let own = posterior_gradient(cx, &input, [Some(gradient), noise.as_ref()], [scale, 0.0])?;
        gradients.add(cx, &input, own)
    }))
}

/// The gradient in `moments`, f32 [N, h, w, 2c], of `factor` times their divergence from the unit normal,
/// `sum (mean^2 + variance - 1 - log_variance) / 2` (Kullback and Leibler).
pub fn divergence_gradient(cx: &Cx, moments: &Tensor, factor: f32) -> Result<Tensor> {
    posterior_gradient(cx, moments, [None, None], [0.0, factor])
}

/// The gradient in `moments` of a latent, scaled by `scale`, whose own gradient and noise are given, and of
/// `divergence` times the divergence.
fn posterior_gradient(
    cx: &Cx,
    moments: &Tensor,
    [gradient, noise]: [Option<&Tensor>; 2],
    [scale, divergence]: [f32; 2],
) -> Result<Tensor> {
    let [_, _, _, both] = moments.nhwc()?;
    let (c, half) = (both / 2, moments.shape().count() / 2);
    if [gradient, noise].into_iter().flatten().any(|tensor| tensor.shape().count() != half) {
        return Err(Error::internal(format!("a gradient that does not fit moments {}", moments.shape())));
    }
    let mut result = cx.allocate(moments.shape(), DType::F32)?;
    match cx.device() {
        Device::Cpu(_) => {
            let gradient = gradient.map(Tensor::host::<f32>).transpose()?;
            let noise = noise.map(Tensor::host::<f32>).transpose()?;
            let pixels = moments.host::<f32>()?.chunks_exact(both);
            for (index, (out, pixel)) in
                result.host_mut::<f32>()?.chunks_exact_mut(both).zip(pixels).enumerate()
            {
                for i in 0..c {
                    let at = |values: &Option<&[f32]>| values.as_ref().map_or(0.0, |v| v[index * c + i]);
                    let (mean, log_variance) = (pixel[i], pixel[c + i]);
                    let gradient = scale * at(&gradient);
                    let deviation = exp(0.5 * log_variance);
                    let slope = 0.5
                        * (gradient * at(&noise) * deviation + divergence * (deviation * deviation - 1.0));
                    out[i] = gradient + divergence * mean;
                    out[c + i] = if (-30.0..=20.0).contains(&log_variance) { slope } else { 0.0 };
                }
            }
        }
        Device::Gpu(gpu) => {
            cuda::posterior_gradient(gpu, moments, [gradient, noise], [scale, divergence], &mut result)?;
        }
        Device::Plan(_) => {}
    }
    Ok(result.freeze())
}

/// `sum of factor_i[n] * tensor_i[n]` for each image n, the tensors of one shape [N, ...]: noise added to latents of
/// several timesteps, and the clean latents that predicted noise implies.
pub fn combine_images(cx: &Cx, terms: &[(&[f32], &Tensor)]) -> Result<Tensor> {
    let images = terms.first().ok_or_else(|| Error::internal("a sum of nothing"))?.1.shape()[0];
    if terms.iter().any(|(factors, tensor)| factors.len() != images || tensor.shape()[0] != images) {
        return Err(Error::internal(format!("factors that do not fit {images} images")));
    }
    let row = |n: usize| -> Result<Tensor> {
        let pieces: Vec<(f32, Tensor)> = terms
            .iter()
            .map(|(factors, tensor)| Ok((factors[n], tensor.detached().narrow(n, 1)?)))
            .collect::<Result<_>>()?;
        combine(cx, &pieces.iter().map(|(factor, piece)| (*factor, piece)).collect::<Vec<_>>(), 0.0)
    };
    let rows = (0..images).map(row).collect::<Result<Vec<_>>>()?;
    let result = stack(cx, &rows.iter().collect::<Vec<_>>())?;
    let inputs: Vec<&Tensor> = terms.iter().map(|(_, tensor)| *tensor).collect();
    if !cx.tracks(&inputs) {
        return Ok(result);
    }
    let terms: Vec<(Vec<f32>, Tensor)> =
        terms.iter().map(|&(factors, tensor)| (factors.to_vec(), tensor.clone())).collect();
    Ok(cx.record(&inputs, result, move |cx, gradient, gradients| {
        for (factors, tensor) in &terms {
            if gradients.wants(tensor) {
                gradients.add(cx, tensor, combine_images(cx, &[(factors, gradient)])?)?;
            }
        }
        Ok(())
    }))
}

/// An image about [-1, 1] as one in [0, 1], what lies outside clamped: relu(v) - relu(v - 1) of v = x / 2 + 1/2.
pub fn to_unit(cx: &Cx, image: &Tensor) -> Result<Tensor> {
    let above = |offset: f32| -> Result<Tensor> {
        pointwise(cx, &combine(cx, &[(0.5, image)], offset)?, Activation::Relu)
    };
    combine(cx, &[(1.0, &above(0.5)?), (-1.0, &above(-0.5)?)], 0.0)
}
