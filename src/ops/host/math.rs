//! Scalar functions without branches or library calls, so that loops over them vectorise.

/// Runs `work` compiled for the best instruction set of this machine; see [`vectorised!`].
#[inline(always)]
pub fn dispatched<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}

/// Runs a block compiled for the best instruction set of this machine.
///
/// A macro because the block has to be inlined into the function that has the instructions enabled: a plain
/// closure stays a function of its own, compiled for the baseline.
macro_rules! vectorised {
    ($block:block) => {
        $crate::ops::host::math::dispatched(
            #[inline(always)]
            || $block,
        )
    };
}
pub(crate) use vectorised;

/// e^x with a relative error below 2e-7; flushes to 0 below -87, saturates above 88.
///
/// Cody-Waite reduction to |r| <= ln(2)/2 and a degree-6 Taylor polynomial with minimax coefficients.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer
    let clamped = x.clamp(-87.3, 88.3);
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = clamped - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_6e-1;
    p = p * r + 0.5;
    let fraction = p * r * r + r + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    if x < -87.3 { 0.0 } else { fraction * f32::from_bits(exponent) }
}

/// 2^x for x <= 0 with a relative error below 6e-5, for results that are rounded to bf16; flushes to 0 below -126.
#[inline(always)]
pub fn exp2_coarse(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // as in `exp`
    let clamped = if x < -126.0 { -126.0 } else { x };
    let shifted = clamped + ROUND;
    let r = clamped - (shifted - ROUND);
    let mut p = 9.618_129e-3;
    p = p * r + 5.550_411e-2;
    p = p * r + 2.402_265e-1;
    p = p * r + std::f32::consts::LN_2;
    let fraction = p * r + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    if x < -126.0 { 0.0 } else { fraction * f32::from_bits(exponent) }
}

/// 1 / (1 + e^-x)
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// x * sigmoid(x)
#[inline(always)]
pub fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// The error function, absolute error below 5e-7: an odd rational function on [-4, 4], +-1 outside.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let s = x * x;
    let mut p = -2.726_142_3e-10;
    for c in [2.770_681_4e-8, -2.101_024e-6, -5.692_506_4e-5, -7.349_906e-4, -2.954_6e-3, -1.609_603_3e-2] {
        p = p * s + c;
    }
    let mut q = -1.456_607_2e-5;
    for c in [-2.133_740_6e-4, -1.682_827e-3, -7.373_329e-3, -1.426_473_9e-2] {
        q = q * s + c;
    }
    // Rounding leaves the rational a hair inside +-1 at its ends; the tails of GELU need exactly 1.
    if s > 15.2 { 1f32.copysign(x) } else { x * p / q }
}

/// x * Phi(x), the exact GELU
#[inline(always)]
pub fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// The derivative of [`silu`]: s * (1 + x * (1 - s)), s the sigmoid of x
#[inline(always)]
pub fn silu_slope(x: f32) -> f32 {
    let s = sigmoid(x);
    s * (1.0 + x * (1.0 - s))
}

/// The derivative of [`gelu`]: Phi(x) + x * phi(x)
#[inline(always)]
pub fn gelu_slope(x: f32) -> f32 {
    /// 1 / sqrt(2 pi)
    const DENSITY: f32 = 0.398_942_3;
    0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2)) + x * DENSITY * exp(-0.5 * x * x)
}

/// Sum of `term` over a row, in lanes that vectorise.
#[inline(always)]
pub fn sum(row: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    const LANES: usize = 16;
    let mut lanes = [0.0f32; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest: f32 = chunks.remainder().iter().map(|&v| term(v)).sum();
    for chunk in chunks {
        for (lane, &v) in lanes.iter_mut().zip(chunk) {
            *lane += term(v);
        }
    }
    lanes.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sweep() -> impl Iterator<Item = f32> {
        (-200_000..=200_000).map(|i| i as f32 * 5e-4)
    }

    #[test]
    fn exp_is_within_two_ulp() {
        for x in sweep().filter(|x| x.abs() < 87.0) {
            let (found, expected) = (f64::from(exp(x)), f64::from(x).exp());
            assert!(((found - expected) / expected).abs() < 2e-7, "exp({x}) = {found}, expected {expected}");
        }
        assert_eq!((exp(-1e30), exp(f32::NEG_INFINITY)), (0.0, 0.0));
        assert!(exp(1e30).is_finite());
    }

    #[test]
    fn coarse_powers_of_two_are_close_enough_for_bf16() {
        for x in sweep().filter(|x| (-126.0..=0.0).contains(x)) {
            let (found, expected) = (f64::from(exp2_coarse(x)), f64::from(x).exp2());
            assert!(((found - expected) / expected).abs() < 6e-5, "2^{x} = {found}, expected {expected}");
        }
        assert_eq!((exp2_coarse(0.0), exp2_coarse(f32::NEG_INFINITY)), (1.0, 0.0));
        assert!(exp2_coarse(f32::NAN).is_nan());
    }

    /// erf by its Maclaurin series in f64, exact enough for |x| < 4.
    fn erf64(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * std::f64::consts::FRAC_2_SQRT_PI
    }

    #[test]
    fn erf_and_gelu_are_close_to_their_series() {
        for x in sweep().filter(|x| x.abs() < 4.0) {
            assert!((f64::from(erf(x)) - erf64(f64::from(x))).abs() < 5e-7, "erf({x}) = {}", erf(x));
        }
        for x in sweep().filter(|x| x.abs() < 5.0) {
            let wide = f64::from(x);
            let expected = 0.5 * wide * (1.0 + erf64(wide * std::f64::consts::FRAC_1_SQRT_2));
            assert!(
                (f64::from(gelu(x)) - expected).abs() < 1e-6 * (1.0 + wide.abs()),
                "gelu({x}) = {}",
                gelu(x)
            );
        }
        assert_eq!((gelu(100.0), gelu(-100.0)), (100.0, 0.0));
    }

    #[test]
    fn silu_matches_its_definition() {
        for x in sweep() {
            let wide = f64::from(x);
            let expected = wide / (1.0 + (-wide).exp());
            assert!(
                (f64::from(silu(x)) - expected).abs() < 3e-7 * (1.0 + wide.abs()),
                "silu({x}) = {}",
                silu(x)
            );
        }
    }

    #[test]
    fn slopes_match_their_definitions() {
        for x in sweep().filter(|x| x.abs() < 20.0) {
            let wide = f64::from(x);
            let s = 1.0 / (1.0 + (-wide).exp());
            let expected = s * (1.0 + wide * (1.0 - s));
            assert!((f64::from(silu_slope(x)) - expected).abs() < 1e-6, "silu'({x}) = {}", silu_slope(x));
            let normal = if wide.abs() < 5.5 {
                0.5 * (1.0 + erf64(wide / 2f64.sqrt()))
            } else {
                f64::from(u8::from(x > 0.0))
            };
            let expected = normal + wide * (-0.5 * wide * wide).exp() / std::f64::consts::TAU.sqrt();
            assert!((f64::from(gelu_slope(x)) - expected).abs() < 1e-6, "gelu'({x}) = {}", gelu_slope(x));
        }
        assert_eq!((silu_slope(1e30), gelu_slope(1e10), gelu_slope(-1e30)), (1.0, 1.0, 0.0));
        assert!(silu_slope(-100.0).abs() < 1e-30);
    }
}
