//! Peak signal-to-noise ratio.

use super::Channels;
use crate::error::{Error, Result};

/// 10 log10(1 / (mse + 1e-8)) in dB, at most 80, of two pictures [H, W, 3] in [0, 1].
///
/// # Errors
/// The pictures are empty or of different sizes.
pub fn psnr(image: &[f32], reference: &[f32], channels: Channels) -> Result<f64> {
    if image.is_empty() || image.len() != reference.len() {
        return Err(Error::input("PSNR needs two pictures of one size"));
    }
    let (a, b) = (channels.of(image), channels.of(reference));
    let mse = a.iter().zip(&b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>() / a.len() as f64;
    Ok(10.0 * (1.0 / (mse + 1e-8)).log10())
}
