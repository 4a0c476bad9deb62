//! Blur kernels: bivariate Gaussians, their generalised and plateau forms, and the sinc low-pass filter.

use std::f64::consts::PI;

use super::Random;

/// A square correlation kernel of odd size, row-major, of sum 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel {
    pub size: usize,
    pub weights: Vec<f32>,
}

/// The profile over q = d^T Sigma^-1 d.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Profile {
    /// exp(-q / 2)
    Gaussian,
    /// exp(-q^beta / 2)
    Generalized(f64),
    /// 1 / (1 + q^beta)
    Plateau(f64),
}

/// Normalises `weight(dx, dy)` over the grid -(size - 1) / 2 ..= (size - 1) / 2.
fn over_grid(size: usize, weight: impl Fn(f64, f64) -> f64) -> Kernel {
    let half = (size / 2) as f64;
    let values: Vec<f64> =
        (0..size * size).map(|i| weight((i % size) as f64 - half, (i / size) as f64 - half)).collect();
    let sum: f64 = values.iter().sum();
    Kernel { size, weights: values.iter().map(|v| (v / sum) as f32).collect() }
}

impl Kernel {
    /// `profile` with Sigma = R diag(sx^2, sy^2) R^T, R the rotation by `angle`.
    pub fn bivariate(size: usize, [sx, sy]: [f64; 2], angle: f64, profile: Profile) -> Kernel {
        let (sin, cos) = angle.sin_cos();
        over_grid(size, |x, y| {
            let (along, across) = (cos * x + sin * y, -sin * x + cos * y);
            let q = (along / sx).powi(2) + (across / sy).powi(2);
            match profile {
                Profile::Gaussian => (-0.5 * q).exp(),
                Profile::Generalized(beta) => (-0.5 * q.powf(beta)).exp(),
                Profile::Plateau(beta) => 1.0 / (1.0 + q.powf(beta)),
            }
        })
    }

    /// The circular low-pass filter w J1(w r) / (2 pi r) of cutoff w, w^2 / (4 pi) at the centre.
    pub fn sinc(size: usize, cutoff: f64) -> Kernel {
        over_grid(size, |x, y| {
            let r = x.hypot(y);
            match r {
                0.0 => cutoff * cutoff / (4.0 * PI),
                _ => cutoff * bessel_j1(cutoff * r) / (2.0 * PI * r),
            }
        })
    }
}

/// J1(x) for |x| up to 60: Bessel's integral by the trapezoidal rule, whose error is J127(x) and below.
fn bessel_j1(x: f64) -> f64 {
    const POINTS: usize = 128;
    let at = |i: usize| {
        let angle = PI * (2 * i) as f64 / POINTS as f64;
        (angle - x * angle.sin()).cos()
    };
    (0..POINTS).map(at).sum::<f64>() / POINTS as f64
}

/// From what a blur kernel is drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelRule {
    /// odd sizes, each as likely
    pub sizes: Vec<usize>,
    /// probability of a sinc kernel
    pub sinc: f64,
    /// weights of iso, aniso, generalized iso, generalized aniso, plateau iso, plateau aniso
    pub kinds: [f64; 6],
    pub sigma: [f64; 2],
    /// exponents of the generalised Gaussians, on either side of 1
    pub generalized: [f64; 2],
    /// exponents of the plateaus, likewise
    pub plateau: [f64; 2],
}

/// What was drawn for a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Draw {
    Sinc { size: usize, cutoff: f64 },
    Bivariate { size: usize, sigma: [f64; 2], angle: f64, profile: Profile },
}

impl Draw {
    pub fn kernel(self) -> Kernel {
        match self {
            Draw::Sinc { size, cutoff } => Kernel::sinc(size, cutoff),
            Draw::Bivariate { size, sigma, angle, profile } => Kernel::bivariate(size, sigma, angle, profile),
        }
    }
}

impl KernelRule {
    pub fn draw(&self, random: &mut Random) -> Draw {
        let size = self.sizes[random.index(self.sizes.len())];
        if random.chance(self.sinc) {
            let low = if size < 13 { PI / 3.0 } else { PI / 5.0 };
            return Draw::Sinc { size, cutoff: random.between([low, PI]) };
        }
        let kind = random.choose(&self.kinds);
        let sx = random.between(self.sigma);
        let (sigma, angle) = match kind % 2 {
            0 => ([sx, sx], 0.0),
            _ => ([sx, random.between(self.sigma)], random.between([-PI, PI])),
        };
        let profile = match kind {
            0 | 1 => Profile::Gaussian,
            2 | 3 => Profile::Generalized(exponent(random, self.generalized)),
            _ => Profile::Plateau(exponent(random, self.plateau)),
        };
        Draw::Bivariate { size, sigma, angle, profile }
    }

    /// The sinc kernel that ends the second-order pipeline.
    pub fn draw_final_sinc(sizes: &[usize], random: &mut Random) -> Draw {
        Draw::Sinc { size: sizes[random.index(sizes.len())], cutoff: random.between([PI / 3.0, PI]) }
    }
}

/// Half of the time below 1, half of the time above.
fn exponent(random: &mut Random, [low, high]: [f64; 2]) -> f64 {
    if random.chance(0.5) { random.between([low, 1.0]) } else { random.between([1.0, high]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bessel_matches_its_series() {
        for i in 0..200 {
            // Beyond 20 the alternating series loses its digits.
            let x = f64::from(i) * 0.1;
            let (mut term, mut sum) = (x / 2.0, x / 2.0);
            for k in 1..80 {
                term *= -x * x / 4.0 / (f64::from(k) * f64::from(k + 1));
                sum += term;
            }
            assert!((bessel_j1(x) - sum).abs() < 1e-8, "J1({x}) = {}, series {sum}", bessel_j1(x));
        }
        // Abramowitz & Stegun, zeros of J1.
        for zero in [3.831_705_970_2, 7.015_586_669_8, 44.759_318_997_7] {
            assert!(bessel_j1(zero).abs() < 1e-9, "J1({zero}) = {}", bessel_j1(zero));
        }
    }
}
