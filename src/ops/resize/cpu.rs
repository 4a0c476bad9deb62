//! Resizing on the CPU: along the rows, then along the columns.

use rayon::prelude::*;

use super::Taps;
use crate::ops::host::math::vectorised;

/// [N, H, W, C] -> [N, down, across, C]; `between` holds [N, H, across, C].
pub fn resample(
    source: &[f32],
    [n, h, w, c]: [usize; 4],
    [down, across]: &[Vec<Taps>; 2],
    between: &mut [f32],
    out: &mut [f32],
) {
    columns(source, [n * h, w, c], across, between);
    rows(between, [n, h, across.len() * c], down, out);
}

/// [lines, from, C] -> [lines, taps, C]
fn columns(source: &[f32], [_, from, c]: [usize; 3], taps: &[Taps], out: &mut [f32]) {
    let to = taps.len();
    out.par_chunks_exact_mut(to * c).zip(source.par_chunks_exact(from * c)).for_each(|(line, source)| {
        for (pixel, taps) in line.chunks_exact_mut(c).zip(taps) {
            pixel.fill(0.0);
            for (tap, weight) in source[taps.first * c..].chunks_exact(c).zip(&taps.weights) {
                pixel.iter_mut().zip(tap).for_each(|(v, t)| *v += weight * t);
            }
        }
    });
}

/// [N, from, row] -> [N, taps, row]
fn rows(source: &[f32], [_, from, row]: [usize; 3], taps: &[Taps], out: &mut [f32]) {
    let to = taps.len();
    out.par_chunks_exact_mut(row).enumerate().for_each(|(index, line)| {
        let (image, taps) = (index / to, &taps[index % to]);
        vectorised!({
            line.fill(0.0);
            let start = (image * from + taps.first) * row;
            for (tap, weight) in source[start..].chunks_exact(row).zip(&taps.weights) {
                line.iter_mut().zip(tap).for_each(|(v, t)| *v += weight * t);
            }
        });
    });
}
