//! Correlation with a kernel, borders mirrored without repeating the edge, each channel alone.

use super::image::{Image, mirrored};
use super::kernels::Kernel;
use crate::ops::host::math::vectorised;

/// `image` with `pad` mirrored pixels on every side, as rows of `width + 2 pad` pixels.
fn padded(image: &Image, pad: usize) -> (Vec<f32>, usize) {
    let columns: Vec<usize> =
        (0..image.width + 2 * pad).map(|x| mirrored(x as isize - pad as isize, image.width) * 3).collect();
    let mut values = Vec::with_capacity((image.height + 2 * pad) * columns.len() * 3);
    for y in 0..image.height + 2 * pad {
        let row = &image.values[mirrored(y as isize - pad as isize, image.height) * image.width * 3..];
        columns.iter().for_each(|&x| values.extend_from_slice(&row[x..x + 3]));
    }
    (values, columns.len() * 3)
}

/// `image` correlated with `kernel`.
pub fn filter(image: &Image, kernel: &Kernel) -> Image {
    let (source, stride) = padded(image, kernel.size / 2);
    let mut values = vec![0.0; image.values.len()];
    for (y, row) in values.chunks_exact_mut(image.width * 3).enumerate() {
        vectorised!({
            for (i, &weight) in kernel.weights.iter().enumerate() {
                let start = (y + i / kernel.size) * stride + i % kernel.size * 3;
                row.iter_mut().zip(&source[start..]).for_each(|(v, s)| *v += weight * s);
            }
        });
    }
    Image { values, ..*image }
}

/// `image` correlated with the outer product of `weights` (an odd number) with itself.
pub fn filter_separable(image: &Image, weights: &[f32]) -> Image {
    let pad = weights.len() / 2;
    let (source, stride) = padded(image, pad);
    let line = image.width * 3;
    let mut across = vec![0.0; source.len() / stride * line];
    for (row, source) in across.chunks_exact_mut(line).zip(source.chunks_exact(stride)) {
        vectorised!({
            for (i, &weight) in weights.iter().enumerate() {
                row.iter_mut().zip(&source[3 * i..]).for_each(|(v, s)| *v += weight * s);
            }
        });
    }
    let mut values = vec![0.0; image.values.len()];
    for (y, row) in values.chunks_exact_mut(line).enumerate() {
        vectorised!({
            for (i, &weight) in weights.iter().enumerate() {
                row.iter_mut().zip(&across[(y + i) * line..]).for_each(|(v, s)| *v += weight * s);
            }
        });
    }
    Image { values, ..*image }
}
