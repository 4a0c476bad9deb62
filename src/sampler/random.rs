//! The random numbers that make or degrade a picture: one stream for each (seed, epoch, image), so that the result is
//! the same whatever the order of the pictures and the number of threads.

use super::philox::{normals, philox4x32};

/// A stream of random numbers, read in sequence.
#[derive(Clone, Debug)]
pub struct Random {
    key: [u32; 2],
    stream: [u32; 2],
    block: u64,
    words: [u32; 4],
    /// of `words`, not yet read
    left: usize,
    /// normals made and not yet read, last first
    spare: Vec<f64>,
}

fn halves(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

impl Random {
    /// The stream of `image` (the hash of its content, or its number) in `epoch`.
    ///
    /// Philox under the seed turns (image, epoch) into 128 bits, a bijection of the two: half of them key the
    /// stream, the others are half of its counter.
    pub fn new(seed: u64, epoch: u64, image: u64) -> Self {
        let ([a, b], [c, d]) = (halves(image), halves(epoch));
        let [k0, k1, s0, s1] = philox4x32([a, b, c, d], halves(seed));
        Random { key: [k0, k1], stream: [s0, s1], block: 0, words: [0; 4], left: 0, spare: Vec::new() }
    }

    fn next_block(&mut self) -> [u32; 4] {
        let [low, high] = halves(self.block);
        self.block += 1;
        philox4x32([low, high, self.stream[0], self.stream[1]], self.key)
    }

    fn word(&mut self) -> u32 {
        if self.left == 0 {
            self.words = self.next_block();
            self.left = 4;
        }
        self.left -= 1;
        self.words[self.left]
    }

    /// Uniform in [0, 1), 53 bits.
    pub fn uniform(&mut self) -> f64 {
        let bits = (u64::from(self.word()) << 21) ^ (u64::from(self.word()) >> 11);
        bits as f64 / (1u64 << 53) as f64
    }

    /// Uniform in [low, high).
    pub fn between(&mut self, [low, high]: [f64; 2]) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.uniform() < probability
    }

    /// Uniform in `0..count`.
    pub fn index(&mut self, count: usize) -> usize {
        ((self.uniform() * count as f64) as usize).min(count.saturating_sub(1))
    }

    /// An index drawn with these weights.
    pub fn choose(&mut self, weights: &[f64]) -> usize {
        let mut rest = self.uniform() * weights.iter().sum::<f64>();
        let last = weights.len().saturating_sub(1);
        weights[..last]
            .iter()
            .position(|weight| {
                rest -= weight;
                rest < 0.0
            })
            .unwrap_or(last)
    }

    /// Unit normal.
    pub fn normal(&mut self) -> f64 {
        if let Some(value) = self.spare.pop() {
            return value;
        }
        let [first, rest @ ..] = normals(self.next_block());
        self.spare.extend(rest);
        first
    }

    /// Poisson with this mean, which is finite and not negative.
    ///
    /// Small means multiply uniforms (Knuth); larger ones use Hörmann's transformed rejection, "The transformed
    /// rejection method for generating Poisson random variables", 1993, algorithm PTRS.
    pub fn poisson(&mut self, mean: f64) -> f64 {
        if mean < 10.0 {
            let floor = (-mean).exp();
            let (mut product, mut count) = (self.uniform(), 0.0);
            while product > floor {
                product *= self.uniform();
                count += 1.0;
            }
            return count;
        }
        let b = 0.931 + 2.53 * mean.sqrt();
        let a = -0.059 + 0.02483 * b;
        let inverse_alpha = 1.1239 + 1.1328 / (b - 3.4);
        let v_r = 0.9277 - 3.6224 / (b - 2.0);
        loop {
            let u = self.uniform() - 0.5;
            let v = self.uniform();
            let us = 0.5 - u.abs();
            let k = ((2.0 * a / us + b) * u + mean + 0.43).floor();
            if us >= 0.07 && v <= v_r {
                return k;
            }
            if k < 0.0 || (us < 0.013 && v > us) {
                continue;
            }
            let accepted = (v * inverse_alpha / (a / (us * us) + b)).ln();
            if accepted <= k * mean.ln() - mean - log_factorial(k) {
                return k;
            }
        }
    }
}

/// ln(k!) by Stirling's series, exact to 1e-10 from k = 10 on and by multiplication below.
fn log_factorial(k: f64) -> f64 {
    if k < 10.0 {
        return (2..=k as u32).map(f64::from).product::<f64>().ln();
    }
    let series = (1.0 / 12.0 - (1.0 / 360.0 - 1.0 / (1260.0 * k * k)) / (k * k)) / k;
    (k + 0.5) * k.ln() - k + 0.5 * std::f64::consts::TAU.ln() + series
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(mut draw: impl FnMut() -> f64) -> [f64; 2] {
        const COUNT: usize = 40_000;
        let values: Vec<f64> = (0..COUNT).map(|_| draw()).collect();
        let mean = values.iter().sum::<f64>() / COUNT as f64;
        [mean, values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / COUNT as f64]
    }

    #[test]
    fn streams_repeat_and_differ() {
        let first = |seed, epoch, image| Random::new(seed, epoch, image).uniform();
        assert_eq!(first(1, 2, 3), first(1, 2, 3));
        let all = [first(1, 2, 3), first(2, 2, 3), first(1, 3, 3), first(1, 2, 4)];
        assert!((0..4).all(|i| (0..i).all(|j| all[i] != all[j])), "{all:?}");
    }

    #[test]
    fn distributions_have_their_moments() {
        let mut random = Random::new(7, 0, 0);
        // Within five standard errors of 40,000 draws.
        let [mean, variance] = moments(|| random.uniform());
        assert!((mean - 0.5).abs() < 0.0073 && (variance - 1.0 / 12.0).abs() < 0.002, "{mean} {variance}");
        let [mean, variance] = moments(|| random.normal());
        assert!(mean.abs() < 0.025 && (variance - 1.0).abs() < 0.036, "{mean} {variance}");
        for rate in [0.0, 0.3, 4.0, 9.99, 10.0, 31.0, 250.0] {
            let [mean, variance] = moments(|| random.poisson(rate));
            let error = 5.0 * (rate / 40_000.0).sqrt();
            assert!((mean - rate).abs() <= error, "mean {mean} of {rate}");
            let error = 5.0 * ((rate + 2.0 * rate * rate) / 40_000.0).sqrt();
            assert!((variance - rate).abs() <= error, "variance {variance} of {rate}");
        }
        let mut counts = [0; 3];
        (0..10_000).for_each(|_| counts[random.choose(&[0.2, 0.7, 0.1])] += 1);
        for (count, expected) in counts.into_iter().zip([2000.0, 7000.0, 1000.0]) {
            assert!((f64::from(count) - expected).abs() < 250.0, "{counts:?}");
        }
        assert!((0..1000).all(|_| random.index(8) < 8));
    }

    #[test]
    fn log_factorials_are_exact() {
        let mut sum = 0.0;
        for k in 1..300 {
            sum += f64::from(k).ln();
            assert!((log_factorial(f64::from(k)) - sum).abs() < 1e-9 * sum.max(1.0), "{k}");
        }
    }
}
