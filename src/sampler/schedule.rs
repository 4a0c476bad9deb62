//! The noise schedule and the spaced ancestral sampler (DDPM) on it.
//!
//! Training uses 1000 timesteps whose betas are the squares of a straight line between sqrt(0.00085) and
//! sqrt(0.012), the "scaled linear" schedule of Stable Diffusion. Sampling keeps a few of them (Nichol & Dhariwal
//! 2021, "Improved DDPM") and walks from the noisiest to the cleanest:
//!
//! ```text
//! x0     = x0_from_x * x - x0_from_noise * eps
//! mean   = mean_from_x0 * x0 + mean_from_x * x
//! x_prev = mean + sqrt(variance) * noise        (no noise at index 0)
//! ```
//!
//! Tables are computed in f64 in the order NumPy takes and stored as f32, as the official program does.

use crate::error::{Error, Result};
use crate::ops::diffusion::StepCoefficients;

/// Timesteps of the training chain.
pub const TRAINING_STEPS: usize = 1000;
const BETA_START: f64 = 0.00085;
const BETA_END: f64 = 0.0120;

/// The betas of the training chain: `[1000]`, ascending.
///
/// The line is `i * step + start` with its last point set to the end exactly, which is what NumPy's `linspace`
/// computes; `start + (end - start) * i / 999` would differ in the last bits.
pub fn betas() -> Vec<f64> {
    let (start, end) = (BETA_START.sqrt(), BETA_END.sqrt());
    let step = (end - start) / (TRAINING_STEPS - 1) as f64;
    let mut line: Vec<f64> = (0..TRAINING_STEPS).map(|i| i as f64 * step + start).collect();
    line[TRAINING_STEPS - 1] = end;
    line.iter().map(|root| root * root).collect()
}

/// Running product of `1 - beta`, the signal's share of the variance at each timestep: `[1000]`, descending.
pub fn alphas_cumprod() -> Vec<f64> {
    cumulative_product(betas().iter().map(|beta| 1.0 - beta))
}

fn cumulative_product(values: impl Iterator<Item = f64>) -> Vec<f64> {
    values
        .scan(1.0, |product, value| {
            *product *= value;
            Some(*product)
        })
        .collect()
}

/// `steps` timesteps from 0 to 999, ascending: a running sum of strides `999 / (steps - 1)`, each position rounded
/// half to even. One step keeps timestep 0 only.
///
/// # Errors
/// A usage error when `steps` is outside `1..=1000`.
pub fn spaced_timesteps(steps: usize) -> Result<Vec<usize>> {
    if !(1..=TRAINING_STEPS).contains(&steps) {
        return Err(Error::usage(format!(
            "{steps} sampling steps asked for, possible are 1 to {TRAINING_STEPS}"
        ))
        .at("--steps")
        .fix("20 is what the paper uses"));
    }
    let stride = if steps > 1 { (TRAINING_STEPS - 1) as f64 / (steps - 1) as f64 } else { 1.0 };
    let mut position = 0.0f64;
    let mut timesteps = Vec::with_capacity(steps);
    for _ in 0..steps {
        timesteps.push(position.round_ties_even() as usize);
        // The sum runs rather than being a product: rounding errors must fall as they do in the official sampler.
        position += stride;
    }
    Ok(timesteps)
}

/// Coefficients of the spaced chain, each `[steps]`; index 0 is the cleanest step, sampling runs downwards.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// What the network is told: positions in the 1000-step training chain.
    pub timesteps: Vec<usize>,
    /// sqrt(1 / A)
    pub x0_from_x: Vec<f32>,
    /// sqrt(1 / A - 1)
    pub x0_from_noise: Vec<f32>,
    /// beta' sqrt(A_before) / (1 - A)
    pub mean_from_x0: Vec<f32>,
    /// (1 - A_before) sqrt(1 - beta') / (1 - A)
    pub mean_from_x: Vec<f32>,
    /// beta' (1 - A_before) / (1 - A), the smaller of the two usual choices
    pub variance: Vec<f32>,
}

impl Schedule {
    /// The chain of `steps` kept timesteps.
    ///
    /// # Errors
    /// A usage error when `steps` is outside `1..=1000`.
    pub fn spaced(steps: usize) -> Result<Schedule> {
        let timesteps = spaced_timesteps(steps)?;
        let full = alphas_cumprod();
        let mut last = 1.0;
        let beta: Vec<f64> = timesteps
            .iter()
            .map(|&t| {
                let beta = 1.0 - full[t] / last;
                last = full[t];
                beta
            })
            .collect();
        // Multiplied up again from the new betas, instead of reading `full`: they differ in the last bits.
        let total = cumulative_product(beta.iter().map(|beta| 1.0 - beta));
        let table = |f: fn(beta: f64, total: f64, before: f64) -> f64| -> Vec<f32> {
            (0..steps).map(|i| f(beta[i], total[i], if i == 0 { 1.0 } else { total[i - 1] }) as f32).collect()
        };
        Ok(Schedule {
            x0_from_x: table(|_, total, _| (1.0 / total).sqrt()),
            x0_from_noise: table(|_, total, _| (1.0 / total - 1.0).sqrt()),
            mean_from_x0: table(|beta, total, before| beta * before.sqrt() / (1.0 - total)),
            mean_from_x: table(|beta, total, before| (1.0 - before) * (1.0 - beta).sqrt() / (1.0 - total)),
            variance: table(|beta, total, before| beta * (1.0 - before) / (1.0 - total)),
            timesteps,
        })
    }

    /// Number of sampling steps.
    pub fn len(&self) -> usize {
        self.timesteps.len()
    }

    /// Never true: a schedule has at least one step.
    pub fn is_empty(&self) -> bool {
        self.timesteps.is_empty()
    }

    /// The steps in sampling order, noisiest first. The i-th uses the noise draw named `step{i}`; the last draws
    /// one too, though it does not use it, because a replayed run may hold it.
    pub fn steps(&self) -> Vec<Step> {
        (0..self.len())
            .rev()
            .map(|index| Step {
                timestep: self.timesteps[index],
                coefficients: StepCoefficients {
                    x0_from_x: self.x0_from_x[index],
                    x0_from_noise: self.x0_from_noise[index],
                    mean_from_x0: self.mean_from_x0[index],
                    mean_from_x: self.mean_from_x[index],
                    deviation: if index == 0 { 0.0 } else { self.variance[index].sqrt() },
                },
            })
            .collect()
    }
}

/// One sampling step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// What the network is told.
    pub timestep: usize,
    pub coefficients: StepCoefficients,
}

/// Coefficients of the training chain's forward process, each `[1000]`: `x_t = signal[t] * x0 + spread[t] * noise`.
#[derive(Clone, Debug, PartialEq)]
pub struct AddNoise {
    /// sqrt(alphas_cumprod)
    pub signal: Vec<f32>,
    /// sqrt(1 - alphas_cumprod)
    pub spread: Vec<f32>,
}

impl AddNoise {
    pub fn new() -> AddNoise {
        let total = alphas_cumprod();
        AddNoise {
            signal: total.iter().map(|a| a.sqrt() as f32).collect(),
            spread: total.iter().map(|a| (1.0 - a).sqrt() as f32).collect(),
        }
    }
}

impl Default for AddNoise {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_the_training_chain() {
        let (beta, total, add) = (betas(), alphas_cumprod(), AddNoise::new());
        assert_eq!(beta.len(), 1000);
        assert!((beta[0] - 0.00085).abs() < 1e-18 && (beta[999] - 0.012).abs() < 1e-17);
        assert!((total[999] - 0.004_660_099).abs() < 1e-9);
        assert!((add.signal[999] - 0.068_264_9).abs() < 1e-7 && (add.spread[999] - 0.997_667_3).abs() < 1e-7);
    }

    /// The table of the specification, nine decimals: index, timestep, A, c1, c2, variance.
    #[test]
    fn twenty_steps_match_the_published_table() {
        let rows = [
            (0, 0, 0.999_150_000, 1.0, 0.0, 0.0),
            (1, 53, 0.948_407_374, 0.983_943_042, 0.016_051_418, 0.000_836_707),
            (2, 105, 0.887_972_498, 0.553_943_567, 0.445_620_618, 0.029_346_458),
            (9, 473, 0.313_570_806, 0.180_953_721, 0.793_893_540, 0.176_099_337),
            (13, 684, 0.092_642_281, 0.120_927_103, 0.799_060_994, 0.288_056_379),
            (18, 946, 0.008_624_591, 0.052_870_610, 0.751_947_517, 0.424_395_471),
            (19, 999, 0.004_660_099, 0.042_889_100, 0.732_141_494, 0.457_842_199),
        ];
        let schedule = Schedule::spaced(20).unwrap();
        let total = alphas_cumprod();
        for (i, t, a, c1, c2, variance) in rows {
            let near = |found: f32, expected: f64| (found as f64 - expected).abs() <= 1e-9 + 6e-8 * expected;
            assert_eq!(schedule.timesteps[i], t);
            assert!((total[t] - a).abs() < 6e-10, "A of {t}");
            assert!(near(schedule.mean_from_x0[i], c1), "c1 of {i}: {}", schedule.mean_from_x0[i]);
            assert!(near(schedule.mean_from_x[i], c2), "c2 of {i}: {}", schedule.mean_from_x[i]);
            assert!(near(schedule.variance[i], variance), "variance of {i}: {}", schedule.variance[i]);
        }
    }

    #[test]
    fn timesteps_round_half_to_even() {
        assert_eq!(spaced_timesteps(1).unwrap(), [0]);
        assert_eq!(spaced_timesteps(2).unwrap(), [0, 999]);
        assert_eq!(spaced_timesteps(7).unwrap(), [0, 166, 333, 500, 666, 832, 999]);
        assert_eq!(spaced_timesteps(50).unwrap()[..8], [0, 20, 41, 61, 82, 102, 122, 143]);
        assert!(spaced_timesteps(1000).unwrap().into_iter().eq(0..1000));
    }

    /// One number for the timesteps of every possible count, FNV-1a over little-endian u32, computed with Python's
    /// own `round` and float sums.
    #[test]
    fn timesteps_of_every_count() {
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        for steps in 1..=TRAINING_STEPS {
            let timesteps = spaced_timesteps(steps).unwrap();
            assert!(timesteps.windows(2).all(|pair| pair[0] < pair[1]), "{steps} steps repeat a timestep");
            for byte in timesteps.iter().flat_map(|&t| (t as u32).to_le_bytes()) {
                hash = (hash ^ byte as u64).wrapping_mul(0x100_0000_01b3);
            }
        }
        assert_eq!(hash, 0x46d3_7512_80ca_b8c1);
    }

    #[test]
    fn impossible_counts_are_usage_errors() {
        for steps in [0, 1001, usize::MAX] {
            let error = Schedule::spaced(steps).unwrap_err();
            assert_eq!(error.kind(), crate::error::Kind::Usage);
            assert!(error.to_string().starts_with(&format!("--steps: {steps} ")), "{error}");
        }
    }

    #[test]
    fn every_count_gives_finite_coefficients_and_a_noiseless_end() {
        for steps in 1..=TRAINING_STEPS {
            let schedule = Schedule::spaced(steps).unwrap();
            let order = schedule.steps();
            assert_eq!(order.len(), steps);
            assert_eq!(order[steps - 1].coefficients.deviation, 0.0);
            assert_eq!(order[steps - 1].timestep, 0);
            for (i, step) in order.iter().enumerate() {
                let values = [
                    step.coefficients.x0_from_x,
                    step.coefficients.x0_from_noise,
                    step.coefficients.mean_from_x0,
                    step.coefficients.mean_from_x,
                ];
                assert!(
                    values.iter().all(|v| v.is_finite() && *v >= 0.0),
                    "{steps} steps, step {i}: {step:?}"
                );
                assert!(
                    i + 1 == steps || step.coefficients.deviation > 0.0,
                    "{steps} steps, step {i}: {step:?}"
                );
            }
        }
    }

    /// With the true noise as prediction, x0 comes back from any timestep; the last step returns it.
    #[test]
    fn a_perfect_prediction_gives_the_clean_latent_back() {
        let schedule = Schedule::spaced(20).unwrap();
        let add = AddNoise::new();
        let (clean, noise) = (0.7f32, -1.3f32);
        for step in schedule.steps() {
            let x = add.signal[step.timestep] * clean + add.spread[step.timestep] * noise;
            assert!((step.coefficients.x0(x, noise) - clean).abs() < 2e-5, "timestep {}", step.timestep);
            if step.timestep == 0 {
                assert!((step.coefficients.previous(x, noise, f32::NAN) - clean).abs() < 1e-6);
            }
        }
    }
}
