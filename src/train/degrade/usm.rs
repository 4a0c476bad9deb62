//! Unsharp masking: the target, and the picture that is degraded, are sharpened high-resolution pictures.

use super::filter::filter_separable;
use super::image::Image;

const SIZE: usize = 51;
/// OpenCV's rule for a kernel of size 51 without a sigma: 0.3 (25 - 1) + 0.8
const SIGMA: f64 = 8.0;
const AMOUNT: f32 = 0.5;
const THRESHOLD: f32 = 10.0;

/// b = blur(x); soft = blur(|x - b| 255 > 10); soft clip(x + (x - b) / 2) + (1 - soft) x.
pub fn sharpened(image: &Image) -> Image {
    let half = (SIZE / 2) as f64;
    let raw: Vec<f64> =
        (0..SIZE).map(|i| (-(i as f64 - half).powi(2) / (2.0 * SIGMA * SIGMA)).exp()).collect();
    let sum: f64 = raw.iter().sum();
    let weights: Vec<f32> = raw.iter().map(|v| (v / sum) as f32).collect();
    let blurred = filter_separable(image, &weights);
    let pairs = || image.values.iter().zip(&blurred.values);
    let mask = pairs().map(|(x, b)| f32::from(u8::from((x - b).abs() * 255.0 > THRESHOLD))).collect();
    let soft = filter_separable(&Image { values: mask, ..*image }, &weights);
    let values = pairs()
        .zip(&soft.values)
        .map(|((x, b), soft)| soft * (x + AMOUNT * (x - b)).clamp(0.0, 1.0) + (1.0 - soft) * x)
        .collect();
    Image { values, ..*image }
}
