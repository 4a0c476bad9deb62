//! Functions of single elements, lookups, and the arithmetic of sampling.

use crate::support::Array;
use tasr::ops::Activation;

/// The error function: its Maclaurin series, and the continued fraction of erfc further out.
pub fn erf(x: f64) -> f64 {
    if x.abs() < 3.0 {
        let (mut term, mut sum) = (x, x);
        for n in 1..120 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        return sum * std::f64::consts::FRAC_2_SQRT_PI;
    }
    let a = x.abs();
    let fraction = (1..=80).rev().fold(a, |below, n| a + f64::from(n) / 2.0 / below);
    let erfc = (-a * a).exp() / std::f64::consts::PI.sqrt() / fraction;
    (1.0 - erfc).copysign(x)
}

pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

pub fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2))
}

pub fn activate(x: f64, activation: Activation) -> f64 {
    match activation {
        Activation::None => x,
        Activation::Silu => x * sigmoid(x),
        Activation::Relu => x.max(0.0),
        Activation::LeakyRelu(slope) => {
            if x > 0.0 {
                x
            } else {
                f64::from(slope) * x
            }
        }
        Activation::Gelu => gelu(x),
    }
}

/// `constant + sum of factor * array`
pub fn combine(terms: &[(f64, &Array)], constant: f64) -> Array {
    let mut sum = terms[0].1.map(|_| constant);
    for (factor, array) in terms {
        sum.values.iter_mut().zip(&array.values).for_each(|(s, v)| *s += factor * v);
    }
    sum
}

/// Arrays one after the other along the slowest axis.
pub fn stack(arrays: &[&Array]) -> Array {
    let mut shape = arrays[0].shape.clone();
    shape[0] = arrays.iter().map(|array| array.shape[0]).sum();
    Array::new(&shape, arrays.iter().flat_map(|array| array.values.clone()).collect())
}

/// Rows `start..end` of the slowest axis.
pub fn rows(array: &Array, start: usize, end: usize) -> Array {
    let row = array.values.len() / array.shape[0];
    let mut shape = array.shape.clone();
    shape[0] = end - start;
    Array::new(&shape, array.values[start * row..end * row].to_vec())
}

/// `map = top * sigmoid(logits)` and `base + map * residual`.
pub fn inject(logits: &Array, top: f64, base: &Array, residual: &Array) -> (Array, Array) {
    let map = logits.map(|v| top * sigmoid(v));
    let result = Array::build(&base.shape, |p| base.at(p) + map.at(&[p[0], p[1], p[2], 0]) * residual.at(p));
    (result, map)
}

pub fn embed_tokens(tokens: &[Vec<u32>], table: &Array, positions: &Array) -> Array {
    let shape = [tokens.len(), positions.shape[0], table.last()];
    Array::build(&shape, |p| table.at(&[tokens[p[0]][p[1]] as usize, p[2]]) + positions.at(&p[1..]))
}

pub fn timestep_embedding(t: f64, width: usize) -> Array {
    let half = width / 2;
    Array::build(&[2 * half], |p| {
        let angle = t * 10_000f64.powf(-((p[0] % half) as f64) / half as f64);
        if p[0] < half { angle.cos() } else { angle.sin() }
    })
}

pub fn guide(eps: &Array, cfg: f64) -> Array {
    let half = eps.shape[0] / 2;
    let (positive, negative) = (rows(eps, 0, half), rows(eps, half, 2 * half));
    let values = positive.values.iter().zip(&negative.values).map(|(p, n)| n + cfg * (p - n)).collect();
    Array::new(&positive.shape, values)
}

/// The latent of moments (mean | log variance).
pub fn posterior(moments: &Array, noise: Option<&Array>, scale: f64) -> Array {
    let [n, h, w, both] = moments.nhwc();
    Array::build(&[n, h, w, both / 2], |p| {
        let mean = moments.at(p);
        let drawn = noise.map_or(0.0, |noise| {
            let log_variance = moments.at(&[p[0], p[1], p[2], both / 2 + p[3]]);
            (log_variance.clamp(-30.0, 20.0) / 2.0).exp() * noise.at(p)
        });
        scale * (mean + drawn)
    })
}
