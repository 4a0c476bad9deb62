//! Classifier-free guidance with a negative prompt (Ho & Salimans 2022).

use crate::error::{Error, Result};

/// How far to go from the negative prompt's prediction towards the positive's, and beyond it:
/// `eps = negative + scale * (positive - negative)`.
///
/// Scale 1 is the positive prediction itself: the negative prompt is then not evaluated at all. Scale 0 is the
/// negative prediction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guidance {
    scale: f32,
}

impl Guidance {
    /// # Errors
    /// A usage error when the scale is not finite.
    pub fn new(scale: f64) -> Result<Guidance> {
        let single = scale as f32;
        if !single.is_finite() {
            return Err(Error::usage(format!("guidance scale {scale} is not a finite number"))
                .at("--cfg")
                .fix("4.5 is the default, 1 turns guidance off"));
        }
        Ok(Guidance { scale: single })
    }

    pub fn scale(self) -> f32 {
        self.scale
    }

    /// Whether the negative prompt has to be evaluated: two predictions an image instead of one.
    pub fn is_on(self) -> bool {
        self.scale != 1.0
    }

    /// The guided prediction of one element; each operation rounds to f32, as in the official sampler.
    #[inline]
    pub fn combine(self, positive: f32, negative: f32) -> f32 {
        if self.is_on() { negative + self.scale * (positive - negative) } else { positive }
    }

    /// Replaces the positive predictions by the guided ones.
    ///
    /// # Errors
    /// An internal error when the lengths differ.
    pub fn apply(self, positive: &mut [f32], negative: &[f32]) -> Result<()> {
        if positive.len() != negative.len() {
            let (p, n) = (positive.len(), negative.len());
            return Err(Error::internal(format!(
                "guidance between {p} positive and {n} negative predictions"
            )));
        }
        for (positive, &negative) in positive.iter_mut().zip(negative) {
            *positive = self.combine(*positive, negative);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_from_the_negative_through_the_positive() {
        for (scale, expected) in [(0.0, 2.0), (1.0, 3.0), (4.5, 6.5), (-1.0, 1.0)] {
            let mut eps = [3.0];
            Guidance::new(scale).unwrap().apply(&mut eps, &[2.0]).unwrap();
            assert_eq!(eps, [expected]);
        }
    }

    #[test]
    fn scale_one_is_the_positive_prediction_to_the_bit() {
        let off = Guidance::new(1.0).unwrap();
        assert!(!off.is_on());
        // 1e8 + 1 * (1 - 1e8) would be 0 or 8 in f32.
        assert_eq!(off.combine(1.0, 1e8), 1.0);
        assert!(Guidance::new(4.5).unwrap().is_on());
    }

    #[test]
    fn bad_scales_and_lengths_are_refused() {
        for scale in [f64::NAN, f64::INFINITY, 1e300] {
            assert!(Guidance::new(scale).unwrap_err().to_string().starts_with("--cfg: guidance scale"));
        }
        assert!(Guidance::new(2.0).unwrap().apply(&mut [0.0; 2], &[0.0; 3]).is_err());
    }
}
