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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scale_one_leaves_the_negative_prompt_out() {
        assert!(!Guidance::new(1.0).unwrap().is_on());
        assert!(Guidance::new(4.5).unwrap().is_on());
    }

    #[test]
    fn bad_scales_and_lengths_are_refused() {
        for scale in [f64::NAN, f64::INFINITY, 1e300] {
            assert!(Guidance::new(scale).unwrap_err().to_string().starts_with("--cfg: guidance scale"));
        }
    }
}
