//! Blur and statistics on the CPU.

use rayon::prelude::*;

use crate::ops::host::math::vectorised;

/// [1 2 1] / 4 dilated by `radius` along the rows, then along the columns, edges replicated.
pub fn blur(image: &[f32], [_, h, w, c]: [usize; 4], radius: usize, across: &mut [f32], out: &mut [f32]) {
    let row = w * c;
    across.par_chunks_exact_mut(row).zip(image.par_chunks_exact(row)).for_each(|(line, source)| {
        for (x, pixel) in line.chunks_exact_mut(c).enumerate() {
            let left = &source[x.saturating_sub(radius) * c..][..c];
            let right = &source[(x + radius).min(w - 1) * c..][..c];
            for i in 0..c {
                pixel[i] = 0.25 * (left[i] + right[i]) + 0.5 * source[x * c + i];
            }
        }
    });
    let across = &*across;
    out.par_chunks_exact_mut(row).enumerate().for_each(|(index, line)| {
        let (image, y) = (index / h, index % h);
        let at = |y: usize| &across[(image * h + y) * row..][..row];
        let (above, own, below) = (at(y.saturating_sub(radius)), at(y), at((y + radius).min(h - 1)));
        vectorised!({
            for i in 0..row {
                line[i] = 0.25 * (above[i] + below[i]) + 0.5 * own[i];
            }
        });
    });
}

/// Mean and deviation of channel `i` of one image.
fn statistics(image: &[f32], c: usize, i: usize) -> (f64, f64) {
    let values = || image.iter().skip(i).step_by(c).map(|&v| f64::from(v));
    let count = (image.len() / c) as f64;
    let mean = values().sum::<f64>() / count;
    let variance = values().map(|v| (v - mean) * (v - mean)).sum::<f64>() / (count - 1.0).max(1.0);
    (mean, (variance + 1e-5).sqrt())
}

pub fn adain(image: &[f32], reference: &[f32], [_, h, w, c]: [usize; 4], out: &mut [f32]) {
    let area = h * w * c;
    let images = image.par_chunks_exact(area).zip(reference.par_chunks_exact(area));
    out.par_chunks_exact_mut(area).zip(images).for_each(|(out, (image, reference))| {
        for i in 0..c {
            let ((mean, deviation), (wanted_mean, wanted)) =
                (statistics(image, c, i), statistics(reference, c, i));
            let pairs = out.iter_mut().zip(image).skip(i).step_by(c);
            pairs.for_each(|(v, &x)| *v = ((f64::from(x) - mean) / deviation * wanted + wanted_mean) as f32);
        }
    });
}
