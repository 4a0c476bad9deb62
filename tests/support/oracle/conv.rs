//! Convolution over segments with a prologue and an epilogue.

use rayon::prelude::*;

use super::pointwise::activate;
use crate::support::Array;
use tasr::ops::Activation;

/// `residual + scale * activation(sum + bias + per_image)`
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    pub bias: Option<&'a Array>,
    /// [N, O], or [1, O] for all images
    pub per_image: Option<&'a Array>,
    pub activation: Activation,
    pub scale: Option<f64>,
    pub residual: Option<&'a Array>,
}

impl Epilogue<'_> {
    /// The finished value at `index` of the result, output `o` of image `n`.
    pub fn finish(&self, sum: f64, n: usize, o: usize, index: usize) -> f64 {
        let sum = sum
            + self.bias.map_or(0.0, |bias| bias.at(&[o]))
            + self.per_image.map_or(0.0, |rows| rows.at(&[n % rows.shape[0], o]));
        self.scale.unwrap_or(1.0) * activate(sum, self.activation)
            + self.residual.map_or(0.0, |residual| residual.values[index])
    }
}

/// Parts side by side along the channels, sums added.
pub fn concatenate(parts: &[(&Array, Option<&Array>)]) -> Array {
    let [n, h, w, _] = parts[0].0.nhwc();
    let channels: usize = parts.iter().map(|part| part.0.last()).sum();
    let mut values = Vec::with_capacity(n * h * w * channels);
    for pixel in 0..n * h * w {
        for (array, plus) in parts {
            let c = array.last();
            for i in pixel * c..(pixel + 1) * c {
                values.push(array.values[i] + plus.map_or(0.0, |plus| plus.values[i]));
            }
        }
    }
    Array::new(&[n, h, w, channels], values)
}

/// `activation(x * a + b)` with `a`, `b` from coefficients [N, 2, C].
pub fn affine(x: &Array, coefficients: &Array, activation: Activation) -> Array {
    Array::build(&x.shape, |p| {
        let (a, b) = (coefficients.at(&[p[0], 0, p[3]]), coefficients.at(&[p[0], 1, p[3]]));
        activate(x.at(p) * a + b, activation)
    })
}

/// Every pixel doubled in height and width.
pub fn upsample(x: &Array) -> Array {
    let [n, h, w, c] = x.nhwc();
    Array::build(&[n, 2 * h, 2 * w, c], |p| x.at(&[p[0], p[1] / 2, p[2] / 2, p[3]]))
}

/// x [N, H, W, C], weight [O, C, k, k]; `before` zeros above and left, `after` below and right.
pub fn conv2d(
    x: &Array,
    weight: &Array,
    stride: usize,
    (before, after): (usize, usize),
    epilogue: &Epilogue,
) -> Array {
    let ([n, h, w, c], [o, _, k, _]) = (x.nhwc(), weight.nhwc());
    let size = |size: usize| (size + before + after - k) / stride + 1;
    let shape = [n, size(h), size(w), o];
    let sum = |image: usize, y: usize, x0: usize, output: usize| {
        let mut sum = 0.0;
        for dy in 0..k {
            for dx in 0..k {
                let (row, column) = (y * stride + dy, x0 * stride + dx);
                if row < before || column < before || row - before >= h || column - before >= w {
                    continue;
                }
                let pixel = ((image * h + row - before) * w + column - before) * c;
                for i in 0..c {
                    sum += x.values[pixel + i] * weight.values[((output * c + i) * k + dy) * k + dx];
                }
            }
        }
        sum
    };
    let values = (0..shape.iter().product())
        .into_par_iter()
        .map(|index| {
            let (pixel, output) = (index / o, index % o);
            let (row, x0) = (pixel / shape[2], pixel % shape[2]);
            let (image, y) = (row / shape[1], row % shape[1]);
            epilogue.finish(sum(image, y, x0, output), image, output, index)
        })
        .collect();
    Array::new(&shape, values)
}
