//! Windows, resizing and colour fixing.

use crate::support::Array;

/// Rows `y..`, columns `x..` of each image.
pub fn crop(image: &Array, (y, x, h, w): (usize, usize, usize, usize)) -> Array {
    let [n, _, _, c] = image.nhwc();
    Array::build(&[n, h, w, c], |p| image.at(&[p[0], y + p[1], x + p[2], p[3]]))
}

/// Zeros right and below.
pub fn pad(image: &Array, h: usize, w: usize) -> Array {
    let [n, own_h, own_w, c] = image.nhwc();
    Array::build(&[n, h, w, c], |p| if p[1] < own_h && p[2] < own_w { image.at(p) } else { 0.0 })
}

/// The weighted mean of tiles, each at (y, x) with its profile [h, w].
pub fn blend(shape: [usize; 4], tiles: &[(&Array, (usize, usize), &Array)]) -> Array {
    Array::build(&shape, |p| {
        let (mut sum, mut total) = (0.0, 0.0);
        for (tile, (y, x), profile) in tiles {
            let [_, h, w, _] = tile.nhwc();
            if (*y..y + h).contains(&p[1]) && (*x..x + w).contains(&p[2]) {
                let weight = profile.at(&[p[1] - y, p[2] - x]);
                sum += weight * tile.at(&[p[0], p[1] - y, p[2] - x, p[3]]);
                total += weight;
            }
        }
        sum / total
    })
}

/// Keys' cubic with a = -1/2, by the text-book's two pieces.
fn cubic(x: f64) -> f64 {
    match x.abs() {
        x if x < 1.0 => 1.5 * x.powi(3) - 2.5 * x.powi(2) + 1.0,
        x if x < 2.0 => -0.5 * x.powi(3) + 2.5 * x.powi(2) - 4.0 * x + 2.0,
        _ => 0.0,
    }
}

/// How much input `j` counts in output `i` of an axis: the kernel, widened when shrinking, over all inputs.
fn weights(input: usize, output: usize) -> Vec<Vec<f64>> {
    let ratio = input as f64 / output as f64;
    (0..output)
        .map(|i| {
            let centre = (i as f64 + 0.5) * ratio;
            let raw: Vec<f64> =
                (0..input).map(|j| cubic((j as f64 + 0.5 - centre) / ratio.max(1.0))).collect();
            let total: f64 = raw.iter().sum();
            raw.into_iter().map(|v| v / total).collect()
        })
        .collect()
}

pub fn resize_bicubic(image: &Array, h: usize, w: usize) -> Array {
    let [n, own_h, own_w, c] = image.nhwc();
    let (down, across) = (weights(own_h, h), weights(own_w, w));
    Array::build(&[n, h, w, c], |p| {
        let mut sum = 0.0;
        for y in (0..own_h).filter(|&y| down[p[1]][y] != 0.0) {
            for x in (0..own_w).filter(|&x| across[p[2]][x] != 0.0) {
                sum += down[p[1]][y] * across[p[2]][x] * image.at(&[p[0], y, x, p[3]]);
            }
        }
        sum
    })
}

/// The 3x3 binomial dilated by 1, 2, 4, ... in turn, edges replicated.
pub fn low_frequencies(image: &Array, levels: u32) -> Array {
    let [_, h, w, _] = image.nhwc();
    let moved =
        |place: usize, step: i64, size: usize| (place as i64 + step).clamp(0, size as i64 - 1) as usize;
    (0..levels).fold(image.clone(), |low, level| {
        let radius = 1i64 << level;
        Array::build(&image.shape, |p| {
            let mut sum = 0.0;
            for (dy, a) in [(-1, 1.0), (0, 2.0), (1, 1.0)] {
                for (dx, b) in [(-1, 1.0), (0, 2.0), (1, 1.0)] {
                    let (y, x) = (moved(p[1], dy * radius, h), moved(p[2], dx * radius, w));
                    sum += a * b / 16.0 * low.at(&[p[0], y, x, p[3]]);
                }
            }
            sum
        })
    })
}

pub fn wavelet_fix(image: &Array, reference: &Array, levels: u32) -> Array {
    let (own, wanted) = (low_frequencies(image, levels), low_frequencies(reference, levels));
    Array::build(&image.shape, |p| image.at(p) - own.at(p) + wanted.at(p))
}

pub fn adain_fix(image: &Array, reference: &Array) -> Array {
    let [_, h, w, _] = image.nhwc();
    let statistics = |array: &Array, n: usize, c: usize| {
        let values: Vec<f64> =
            (0..h).flat_map(|y| (0..w).map(move |x| (y, x))).map(|(y, x)| array.at(&[n, y, x, c])).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        (mean, (squares / (values.len() as f64 - 1.0).max(1.0) + 1e-5).sqrt())
    };
    let [n, _, _, c] = image.nhwc();
    let all =
        |array: &Array| -> Vec<(f64, f64)> { (0..n * c).map(|i| statistics(array, i / c, i % c)).collect() };
    let (own, wanted) = (all(image), all(reference));
    Array::build(&image.shape, |p| {
        let (mean, deviation) = own[p[0] * c + p[3]];
        let (wanted_mean, wanted_deviation) = wanted[p[0] * c + p[3]];
        (image.at(p) - mean) / deviation * wanted_deviation + wanted_mean
    })
}
