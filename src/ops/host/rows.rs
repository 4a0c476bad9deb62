//! Pixel rows on the CPU: reading segments with a norm applied, finishing sums with an epilogue.

use rayon::prelude::*;

use super::math::{gelu, gelu_slope, silu, silu_slope, vectorised};
use crate::error::Result;
use crate::ops::{Activation, Epilogue, Segments};
use crate::tensor::Tensor;

/// Applies `activation` in place.
#[inline(always)]
pub fn activate(values: &mut [f32], activation: Activation) {
    match activation {
        Activation::None => {}
        Activation::Silu => values.iter_mut().for_each(|v| *v = silu(*v)),
        Activation::Relu => values.iter_mut().for_each(|v| *v = v.max(0.0)),
        Activation::LeakyRelu(slope) => {
            values.iter_mut().for_each(|v| *v = if *v > 0.0 { *v } else { slope * *v })
        }
        Activation::Gelu => values.iter_mut().for_each(|v| *v = gelu(*v)),
    }
}

/// Multiplies `gradient` by the derivative of `activation` at `x`, in place.
#[inline(always)]
pub fn multiply_by_slope(gradient: &mut [f32], x: &[f32], activation: Activation) {
    let pairs = gradient.iter_mut().zip(x);
    match activation {
        Activation::None => {}
        Activation::Silu => pairs.for_each(|(g, &x)| *g *= silu_slope(x)),
        Activation::Relu => pairs.for_each(|(g, &x)| *g = if x > 0.0 { *g } else { 0.0 }),
        Activation::LeakyRelu(slope) => pairs.for_each(|(g, &x)| *g = if x > 0.0 { *g } else { slope * *g }),
        Activation::Gelu => pairs.for_each(|(g, &x)| *g *= gelu_slope(x)),
    }
}

/// The host view of [`Segments`].
pub struct Pixels<'a> {
    parts: Vec<Part<'a>>,
    channels: usize,
}

/// One segment: its values, what is added to them, its channels.
pub type Part<'a> = (&'a [f32], Option<&'a [f32]>, usize);

impl<'a> Pixels<'a> {
    pub fn new(segments: &Segments<'a>) -> Result<Self> {
        let parts = segments
            .parts()
            .iter()
            .map(|part| {
                Ok((
                    part.tensor.host()?,
                    part.plus.map(Tensor::host).transpose()?,
                    part.tensor.shape().last(),
                ))
            })
            .collect::<Result<Vec<_>>>()?;
        let channels = parts.iter().map(|part| part.2).sum();
        Ok(Pixels { parts, channels })
    }

    /// Channels of the concatenation.
    pub fn channels(&self) -> usize {
        self.channels
    }

    pub fn parts(&self) -> &[Part<'a>] {
        &self.parts
    }

    /// (data, channels) of each part, when none is a sum.
    pub fn plain_parts(&self) -> Option<Vec<(&'a [f32], usize)>> {
        self.parts.iter().map(|&(data, plus, c)| plus.is_none().then_some((data, c))).collect()
    }

    /// Writes all channels of pixel `index` (n * H * W + y * W + x) to `out`.
    #[inline(always)]
    pub fn read(&self, index: usize, out: &mut [f32]) {
        let mut rest = out;
        for &(data, plus, c) in &self.parts {
            let (head, tail) = rest.split_at_mut(c);
            let line = &data[index * c..][..c];
            match plus {
                None => head.copy_from_slice(line),
                Some(plus) => {
                    head.iter_mut().zip(line).zip(&plus[index * c..][..c]).for_each(|((o, a), b)| *o = a + b);
                }
            }
            rest = tail;
        }
    }
}

/// A per-image, per-channel `activation(x * scale + shift)` in host memory; see `group_norm`.
#[derive(Clone, Copy)]
pub struct HostAffine<'a> {
    /// [N, 2, C]: scales, then shifts
    pub coefficients: &'a [f32],
    pub activation: Activation,
}

impl HostAffine<'_> {
    /// Applies the affine of image `n` to one pixel's channels.
    #[inline(always)]
    pub fn apply(&self, n: usize, pixel: &mut [f32]) {
        let c = pixel.len();
        let (scale, shift) = self.coefficients[n * 2 * c..][..2 * c].split_at(c);
        pixel.iter_mut().zip(scale).zip(shift).for_each(|((v, a), b)| *v = *v * a + b);
        activate(pixel, self.activation);
    }
}

/// The host view of an [`Epilogue`].
pub struct HostEpilogue<'a> {
    bias: Option<&'a [f32]>,
    per_image: Option<&'a [f32]>,
    activation: Activation,
    scale: f32,
    residual: Option<&'a [f32]>,
}

impl<'a> HostEpilogue<'a> {
    pub fn new(epilogue: &Epilogue<'a>) -> Result<Self> {
        let host = |tensor: Option<&'a Tensor>| tensor.map(Tensor::host::<f32>).transpose();
        Ok(HostEpilogue {
            bias: host(epilogue.bias)?,
            per_image: host(epilogue.per_image)?,
            activation: epilogue.activation,
            scale: epilogue.scale,
            residual: host(epilogue.residual)?,
        })
    }

    /// True when there is nothing to do.
    pub fn is_identity(&self) -> bool {
        self.bias.is_none()
            && self.per_image.is_none()
            && self.activation == Activation::None
            && self.scale == 1.0
            && self.residual.is_none()
    }

    /// Finishes the sums of one pixel in place: image `n`, pixel `index` of the whole result.
    #[inline(always)]
    pub fn finish(&self, n: usize, index: usize, pixel: &mut [f32]) {
        let o = pixel.len();
        if let Some(bias) = self.bias {
            pixel.iter_mut().zip(bias).for_each(|(v, b)| *v += b);
        }
        if let Some(per_image) = self.per_image {
            let row = if per_image.len() == o { 0 } else { n };
            pixel.iter_mut().zip(&per_image[row * o..][..o]).for_each(|(v, b)| *v += b);
        }
        activate(pixel, self.activation);
        if self.scale != 1.0 {
            pixel.iter_mut().for_each(|v| *v *= self.scale);
        }
        if let Some(residual) = self.residual {
            pixel.iter_mut().zip(&residual[index * o..][..o]).for_each(|(v, r)| *v += r);
        }
    }

    /// Finishes a whole result [pixels, O] in place; `per_image_pixels` pixels belong to each image.
    pub fn finish_all(&self, result: &mut [f32], o: usize, per_image_pixels: usize) {
        if self.is_identity() || o == 0 {
            return;
        }
        const BLOCK: usize = 64;
        result.par_chunks_mut(o * BLOCK).enumerate().for_each(|(block, chunk)| {
            vectorised!({
                for (i, pixel) in chunk.chunks_exact_mut(o).enumerate() {
                    let index = block * BLOCK + i;
                    self.finish(index / per_image_pixels, index, pixel);
                }
            });
        });
    }
}
