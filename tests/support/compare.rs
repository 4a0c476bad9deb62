//! The one comparator of computed and expected values.

use std::fmt::Write;

use super::Array;
use tasr::tensor::DType;

/// How far a result may be from the oracle, relative to the largest expected magnitude.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance(f64);

/// Half a unit in the last place, of one.
pub fn half_unit(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 2f64.powi(-24),
        DType::F16 => 2f64.powi(-11),
        DType::BF16 => 2f64.powi(-8),
    }
}

impl Tolerance {
    /// For results stored as `dtype` that are sums of `terms` products.
    ///
    /// A stored value is off by up to half a unit in the last place of `dtype`, taken twice for the values
    /// between fused steps; f32 sums of `terms` random products drift like the square root of their number;
    /// and the approximated functions (exp, erf) are good to a few units of f32.
    pub fn new(dtype: DType, terms: usize) -> Self {
        Tolerance(2.0 * half_unit(dtype) + 2f64.powi(-24) * (16.0 + 2.0 * (terms as f64).sqrt()))
    }

    /// The relative error itself.
    pub fn relative(self) -> f64 {
        self.0
    }

    /// For a computation that magnifies the rounding of its inputs `factor` times.
    pub fn magnified(self, factor: f64) -> Self {
        Tolerance(self.0 * factor.max(1.0))
    }
}

/// Compares shape, then finiteness, then the largest error and the normalised mean square error.
///
/// # Errors
/// A text that names the first failed check and the worst coordinate.
pub fn compare(shape: &[usize], found: &[f32], expected: &Array, tolerance: Tolerance) -> Result<(), String> {
    if shape != expected.shape {
        return Err(format!("shape {shape:?}, expected {:?}", expected.shape));
    }
    if let Some(i) = found.iter().position(|v| !v.is_finite()) {
        return Err(format!("{} at {:?}", found[i], place(i, shape)));
    }
    let largest = expected.values.iter().fold(0f64, |a, &b| a.max(b.abs()));
    let error = |i: usize| (f64::from(found[i]) - expected.values[i]).abs();
    let worst = (0..found.len()).max_by(|&a, &b| error(a).total_cmp(&error(b)));
    let Some(worst) = worst else { return Ok(()) };
    let energy: f64 = expected.values.iter().map(|v| v * v).sum();
    let noise: f64 = (0..found.len()).map(|i| error(i) * error(i)).sum();
    let nmse = noise / energy.max(f64::MIN_POSITIVE);
    let allowed = tolerance.0 * largest;
    // Written so that NaN fails.
    let close = error(worst) <= allowed && (noise == 0.0 || nmse <= tolerance.0 * tolerance.0);
    if close {
        return Ok(());
    }
    let mut text = String::new();
    let _ = write!(
        text,
        "max abs error {:.3e} (allowed {allowed:.3e}), rel {:.3e}, NMSE {nmse:.3e} (allowed {:.3e}); worst at {:?}: {} for {}",
        error(worst),
        error(worst) / expected.values[worst].abs(),
        tolerance.0 * tolerance.0,
        place(worst, shape),
        found[worst],
        expected.values[worst],
    );
    Err(text)
}

/// The coordinates of element `index`.
fn place(mut index: usize, shape: &[usize]) -> Vec<usize> {
    let mut place = vec![0; shape.len()];
    for (i, &size) in shape.iter().enumerate().rev() {
        place[i] = index % size;
        index /= size;
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(found: &[f32]) -> Result<(), String> {
        compare(
            &[2, 2],
            found,
            &Array::new(&[2, 2], vec![1.0, 2.0, -4.0, 0.5]),
            Tolerance::new(DType::F32, 1),
        )
    }

    #[test]
    fn wrong_values_fail_and_are_named() {
        assert_eq!(check(&[1.0, 2.0, -4.0, 0.5]), Ok(()));
        assert_eq!(check(&[1.0, 2.0, -4.000_001, 0.5]), Ok(()));
        let text = check(&[1.0, 2.0, -4.0, 0.501]).unwrap_err();
        assert!(text.contains("[1, 1]") && text.contains("0.501"), "{text}");
        assert!(check(&[1.0, f32::NAN, -4.0, 0.5]).unwrap_err().contains("NaN at [0, 1]"));
        assert!(check(&[1.0, f32::INFINITY, -4.0, 0.5]).unwrap_err().contains("inf"));
        let flat = Array::new(&[4], vec![0.0; 4]);
        let tolerance = Tolerance::new(DType::F32, 1);
        assert!(compare(&[2, 2], &[0.0; 4], &flat, tolerance).unwrap_err().contains("shape"));
        assert!(compare(&[4], &[0.0, 1e-30, 0.0, 0.0], &flat, tolerance).is_err());
        let broken = Array::new(&[1], vec![f64::NAN]);
        assert!(compare(&[1], &[1.0], &broken, tolerance).is_err());
    }

    #[test]
    fn tolerances_grow_with_coarser_storage_and_longer_sums() {
        let of = |dtype, terms| Tolerance::new(dtype, terms).0;
        assert!(of(DType::F32, 1) < of(DType::F32, 1000) && of(DType::F32, 1000) < 1e-5);
        assert!(of(DType::F32, 1000) < of(DType::F16, 1) && of(DType::F16, 1) < of(DType::BF16, 1));
        assert!(of(DType::BF16, 1) < 1e-2);
    }
}
