//! How much fine structure a picture has.

use super::Channels;
use crate::error::{Error, Result};

/// The mean of the squared differences between neighbours, to the right and below, of a picture [H, W, 3] in [0, 1]:
/// 0 where it is flat, and the more the sharper its edges, textures and noise are. No reference is looked at, so it
/// says how much detail there is and not whether it is right.
///
/// # Errors
/// The values are not those of a picture of this size, or it has no two pixels in a row and a column.
pub fn gradient_energy(image: &[f32], (h, w): (usize, usize), channels: Channels) -> Result<f64> {
    if h < 2 || w < 2 || image.len() != h * w * 3 {
        return Err(Error::input("the energy of gradients needs a picture of at least 2 x 2 pixels"));
    }
    let values = channels.of(image);
    let c = values.len() / (h * w);
    let at = |y: usize, x: usize, k: usize| values[(y * w + x) * c + k];
    let square = |a: f64, b: f64| (a - b) * (a - b);
    let mut sum = 0.0;
    for y in 0..h {
        for x in 0..w {
            for k in 0..c {
                let own = at(y, x, k);
                if x + 1 < w {
                    sum += square(at(y, x + 1, k), own);
                }
                if y + 1 < h {
                    sum += square(at(y + 1, x, k), own);
                }
            }
        }
    }
    Ok(sum / (c * (h * (w - 1) + w * (h - 1))) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stripes_have_the_energy_of_their_steps() {
        // Columns 0, 0.5, 0, 0.5: every step to the right is 0.5, none goes down.
        let stripes: Vec<f32> = (0..3 * 4 * 3).map(|i| if i / 3 % 2 == 0 { 0.0 } else { 0.5 }).collect();
        let found = gradient_energy(&stripes, (3, 4), Channels::Rgb).unwrap();
        assert!((found - 0.25 * 9.0 / 17.0).abs() < 1e-12, "{found}");
        assert_eq!(gradient_energy(&[0.3; 36], (3, 4), Channels::Ycbcr).unwrap(), 0.0);
        assert!(gradient_energy(&stripes, (1, 12), Channels::Rgb).is_err());
        assert!(gradient_energy(&stripes, (4, 4), Channels::Rgb).is_err());
    }
}
