//! Structural similarity (Wang et al. 2004) on luma of whole bytes, contrast clamped at zero as pyiqa does.

use super::Channels;
use crate::error::{Error, Result};

const SIZE: usize = 11;
const SIGMA: f64 = 1.5;

/// The mean over windows of 11x11 that lie inside the pictures, [H, W, 3] in [0, 1].
///
/// # Errors
/// Pictures of different sizes, smaller than a window, or a request for three channels.
pub fn ssim(image: &[f32], reference: &[f32], (h, w): (usize, usize), channels: Channels) -> Result<f64> {
    if channels == Channels::Rgb {
        return Err(Error::usage("SSIM is computed on a luma").fix("give Ycbcr or Yiq"));
    }
    if h < SIZE || w < SIZE || image.len() != h * w * 3 || reference.len() != image.len() {
        return Err(Error::input(format!(
            "SSIM needs two pictures of one size of at least {SIZE} x {SIZE} pixels"
        )));
    }
    let bytes = |pixels| -> Vec<f64> {
        channels.of(pixels).into_iter().map(|v| (v * 255.0).round_ties_even()).collect()
    };
    let (x, y) = (bytes(image), bytes(reference));
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).collect::<Vec<f64>>();
    let mean = |values: &[f64]| blurred(values, h, w);
    let (mx, my) = (mean(&x), mean(&y));
    let (xx, yy, xy) = (mean(&product(&x, &x)), mean(&product(&y, &y)), mean(&product(&x, &y)));
    let (c1, c2) = ((0.01 * 255.0f64).powi(2), (0.03 * 255.0f64).powi(2));
    let sum: f64 = (0..mx.len())
        .map(|i| {
            let (mx, my) = (mx[i], my[i]);
            let (vx, vy, cov) = (xx[i] - mx * mx, yy[i] - my * my, xy[i] - mx * my);
            let contrast = ((2.0 * cov + c2) / (vx + vy + c2)).max(0.0);
            (2.0 * mx * my + c1) / (mx * mx + my * my + c1) * contrast
        })
        .sum();
    Ok(sum / mx.len() as f64)
}

/// The Gaussian window at every place where it fits: [h - 10, w - 10].
fn blurred(values: &[f64], h: usize, w: usize) -> Vec<f64> {
    let half = (SIZE / 2) as f64;
    let raw: Vec<f64> =
        (0..SIZE).map(|i| (-(i as f64 - half).powi(2) / (2.0 * SIGMA * SIGMA)).exp()).collect();
    let total: f64 = raw.iter().sum();
    let window: Vec<f64> = raw.iter().map(|v| v / total).collect();
    let columns = w + 1 - SIZE;
    let across: Vec<f64> = values
        .chunks_exact(w)
        .flat_map(|row| {
            row.windows(SIZE).map(|part| part.iter().zip(&window).map(|(v, g)| v * g).sum::<f64>())
        })
        .collect();
    (0..(h + 1 - SIZE) * columns)
        .map(|i| (0..SIZE).map(|k| across[i + k * columns] * window[k]).sum())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_like_itself_and_less_like_others() {
        let picture: Vec<f32> = (0..16 * 20 * 3).map(|i| ((i * 37) % 101) as f32 / 100.0).collect();
        let inverse: Vec<f32> = picture.iter().map(|v| 1.0 - v).collect();
        let of = |other: &[f32]| ssim(&picture, other, (16, 20), Channels::Ycbcr).unwrap();
        assert!((of(&picture) - 1.0).abs() < 1e-12);
        // Negative covariance is clamped, so the opposite is like nothing.
        assert_eq!(of(&inverse), 0.0);
        assert!(ssim(&picture, &picture, (8, 40), Channels::Ycbcr).is_err());
        assert!(ssim(&picture, &picture, (16, 20), Channels::Rgb).is_err());
    }
}
