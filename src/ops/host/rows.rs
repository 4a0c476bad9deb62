//! Pixel rows on the CPU: reading segments with a norm applied, finishing sums with an epilogue.

use std::borrow::Cow;

use half::bf16;
use rayon::prelude::*;

use super::element::{HostElement, widen_all};
use super::math::{gelu, gelu_slope, silu, silu_slope, vectorised};
use crate::error::{Error, Result};
use crate::ops::{Activation, Epilogue, Segments};
use crate::tensor::{DType, Tensor};

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

/// A small tensor as f32, whatever it is stored as.
pub fn wide(tensor: &Tensor) -> Result<Cow<'_, [f32]>> {
    Ok(match tensor.dtype() {
        DType::F32 => Cow::Borrowed(tensor.host()?),
        DType::BF16 => Cow::Owned(tensor.host::<bf16>()?.iter().map(|v| v.wide()).collect()),
        DType::F16 => return Err(Error::internal("the cpu device does not read f16")),
    })
}

/// The host view of [`Segments`].
pub struct Pixels<'a, T = f32> {
    parts: Vec<Part<'a, T>>,
    channels: usize,
}

/// One segment: its values, what is added to them, its channels.
pub type Part<'a, T> = (&'a [T], Option<&'a [T]>, usize);

impl<'a, T: HostElement> Pixels<'a, T> {
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

    pub fn parts(&self) -> &[Part<'a, T>] {
        &self.parts
    }

    /// (data, channels) of each part, when none is a sum.
    pub fn plain_parts(&self) -> Option<Vec<(&'a [T], usize)>> {
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
                None => widen_all(line, head),
                Some(plus) => {
                    let pairs = line.iter().zip(&plus[index * c..][..c]);
                    head.iter_mut().zip(pairs).for_each(|(o, (a, b))| *o = a.wide() + b.wide());
                }
            }
            rest = tail;
        }
    }

    /// Writes all channels of pixel `index` as they are stored; only where no part is a sum.
    #[inline(always)]
    pub fn copy(&self, index: usize, out: &mut [T]) {
        let mut rest = out;
        for &(data, _, c) in &self.parts {
            let (head, tail) = rest.split_at_mut(c);
            head.copy_from_slice(&data[index * c..][..c]);
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

/// The host view of an [`Epilogue`] whose residual is stored as `T`.
pub struct HostEpilogue<'a, T: Clone = f32> {
    bias: Option<&'a [f32]>,
    per_image: Option<Cow<'a, [f32]>>,
    activation: Activation,
    scale: f32,
    residual: Option<&'a [T]>,
}

impl<'a, T: HostElement> HostEpilogue<'a, T> {
    pub fn new(epilogue: &Epilogue<'a>) -> Result<Self> {
        Ok(HostEpilogue {
            bias: epilogue.bias.map(Tensor::host::<f32>).transpose()?,
            per_image: epilogue.per_image.map(wide).transpose()?,
            activation: epilogue.activation,
            scale: epilogue.scale,
            residual: epilogue.residual.map(Tensor::host::<T>).transpose()?,
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
        self.finish_part(n, index, (0, pixel.len()), pixel);
    }

    /// The same for a run of outputs from `first` on, of `o` in all.
    #[inline(always)]
    pub fn finish_part(&self, n: usize, index: usize, (first, o): (usize, usize), part: &mut [f32]) {
        if let Some(bias) = self.bias {
            part.iter_mut().zip(&bias[first..]).for_each(|(v, b)| *v += b);
        }
        if let Some(per_image) = &self.per_image {
            let row = if per_image.len() == o { 0 } else { n };
            part.iter_mut().zip(&per_image[row * o + first..]).for_each(|(v, b)| *v += b);
        }
        activate(part, self.activation);
        if self.scale != 1.0 {
            part.iter_mut().for_each(|v| *v *= self.scale);
        }
        if let Some(residual) = self.residual {
            part.iter_mut().zip(&residual[index * o + first..]).for_each(|(v, r)| *v += r.wide());
        }
    }
}

impl HostEpilogue<'_> {
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
