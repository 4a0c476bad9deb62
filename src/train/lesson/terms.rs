//! Losses that stay on the device: their gradients are the seeds of the tape, and the host reads their values, a few
//! numbers, when the backward pass is on its way. Only [`log_square`] waits for its value, which its gradient needs.

use super::Told;
use crate::autograd::Gradients;
use crate::error::{Error, Result};
use crate::ops::adamw::gradient_norm;
use crate::ops::conv2d::{Conv2d, ConvWeight};
use crate::ops::diffusion::combine_images;
use crate::ops::elementwise::{cast, combine, pointwise};
use crate::ops::sums::column_sums;
use crate::ops::{Activation, Cx, Epilogue, Segments};
use crate::tensor::{DType, Tensor};
use crate::train::config::Reconstruction;

/// Columns in which a long row of values is added up.
const COLUMNS: usize = 64;

/// What [`log_square`] adds to a picture's mean square, that of 40 dB for pictures in [0, 1]: below it, a picture that is
/// all but restored would drown the others.
const FLOOR: f64 = 1e-4;

/// How the host gets the value of a term.
enum Value {
    /// the sum of these
    Sum(Tensor),
    /// this squared, times the factor
    Square(Tensor, f64),
    /// what the host computes by itself
    Host(Box<dyn Fn() -> Result<f64>>),
}

/// A term of the loss: its gradient in `of`, a value of the tape.
pub struct Term {
    name: &'static str,
    weight: f64,
    of: Tensor,
    gradient: Tensor,
    value: Value,
}

/// `weight` times the mean absolute value of `difference`, f32, recorded on the tape of `cx`.
pub fn absolute(cx: &Cx, name: &'static str, difference: &Tensor, weight: f64) -> Result<Term> {
    let plain = &cx.without_tape();
    // A leak of -1 is the absolute value, and its slope the sign.
    let of = pointwise(cx, difference, Activation::LeakyRelu(-1.0))?;
    let count = of.shape().count().max(1);
    let gradient = combine(plain, &[(0.0, &of.detached())], (weight / count as f64) as f32)?;
    let flat = match count.is_multiple_of(COLUMNS) {
        true => of.detached().reshape([count / COLUMNS, COLUMNS])?,
        false => of.detached(),
    };
    let sums = column_sums(plain, &flat, 1, 1.0 / count as f32, DType::F32)?;
    Ok(Term { name, weight, of, gradient, value: Value::Sum(sums) })
}

/// `weight` times the mean square of `difference`, f32, a value of the tape of `cx`.
pub fn square(cx: &Cx, name: &'static str, difference: &Tensor, weight: f64) -> Result<Term> {
    let plain = &cx.without_tape();
    let (inner, count) = (difference.detached(), difference.shape().count().max(1) as f64);
    let gradient = combine(plain, &[((2.0 * weight / count) as f32, &inner)], 0.0)?;
    let norm = gradient_norm(plain, &[&inner], 1.0)?;
    Ok(Term { name, weight, of: difference.clone(), gradient, value: Value::Square(norm, 1.0 / count) })
}

/// `weight` times the mean over pictures of ln(mean square of the picture + [`FLOOR`]): -0.23 times their mean PSNR in
/// dB, so that one that cannot be restored counts no more than another. `difference` [N, ...] is f32, a value of the
/// tape of `cx`.
pub fn log_square(cx: &Cx, name: &'static str, difference: &Tensor, weight: f64) -> Result<Term> {
    let plain = &cx.without_tape();
    let (inner, pictures) = (difference.detached(), difference.shape()[0]);
    let count = difference.shape().count().max(1) as f64;
    let norms = (0..pictures)
        .map(|n| gradient_norm(plain, &[&inner.narrow(n, 1)?], 1.0))
        .collect::<Result<Vec<_>>>()?;
    let (mut value, mut factors) = (0.0, Vec::with_capacity(pictures));
    for norm in norms {
        let sum: f64 = norm.to_f32()?.iter().map(|&norm| f64::from(norm).powi(2)).sum();
        let square = sum * pictures as f64 / count + FLOOR;
        value += square.ln() / pictures as f64;
        factors.push((2.0 * weight / (count * square)) as f32);
    }
    let gradient = combine_images(plain, &[(&factors, &inner)])?;
    Ok(given(name, weight, (difference, gradient), move || Ok(value)))
}

/// L1, L2 and the logarithm of `difference`'s pictures, those that have a weight.
pub fn errors(cx: &Cx, difference: &Tensor, weights: &Reconstruction) -> Result<Vec<Term>> {
    let mut terms = Vec::new();
    if weights.l1 > 0.0 {
        terms.push(absolute(cx, "l1", difference, weights.l1)?);
    }
    if weights.l2 > 0.0 {
        terms.push(square(cx, "l2", difference, weights.l2)?);
    }
    if weights.log > 0.0 {
        terms.push(log_square(cx, "log", difference, weights.log)?);
    }
    Ok(terms)
}

/// A term whose gradient in `of` is given, and whose value the host computes; `weight` is of the value only.
pub fn given(
    name: &'static str,
    weight: f64,
    (of, gradient): (&Tensor, Tensor),
    value: impl Fn() -> Result<f64> + 'static,
) -> Term {
    Term { name, weight, of: of.clone(), gradient, value: Value::Host(Box::new(value)) }
}

/// Takes differences of neighbouring pixels.
pub struct Edges(ConvWeight);

impl Edges {
    /// # Errors
    /// Memory is short.
    pub fn new(cx: &Cx) -> Result<Self> {
        // [6, 3, 3, 3]: each colour to the right, then each downwards.
        let mut values = vec![0.0f32; 6 * 3 * 9];
        for colour in 0..3 {
            for (output, neighbour) in [(colour, 5), (3 + colour, 7)] {
                let taps = &mut values[(output * 3 + colour) * 9..][..9];
                (taps[4], taps[neighbour]) = (-1.0, 1.0);
            }
        }
        Ok(Edges(ConvWeight::pack(cx, &values, [6, 3, 3, 3])?))
    }

    /// image [N, H, W, 3] -> f32 [N, H, W, 6]; beyond the image lies zero
    ///
    /// # Errors
    /// Memory is short.
    pub fn of(&self, cx: &Cx, image: &Tensor) -> Result<Tensor> {
        let image = cast(cx, image, cx.dtype())?;
        let conv = Conv2d::new(Segments::one(&image));
        cast(cx, &crate::ops::conv2d::conv2d(cx, &conv, &self.0, &Epilogue::bias(None))?, DType::F32)
    }
}

/// Runs the tape of `cx` backwards from all terms.
///
/// # Errors
/// The device fails.
pub fn learn(cx: &Cx, terms: Vec<Term>) -> Result<(Told, Gradients)> {
    let tape = cx.tape().ok_or_else(|| Error::internal("a step without a tape"))?;
    let (mut seeds, mut values) = (Vec::new(), Vec::new());
    for Term { name, weight, of, gradient, value } in terms {
        seeds.push((of, gradient));
        values.push((name, weight, value));
    }
    let gradients = {
        let seeds: Vec<_> = seeds.iter().map(|(of, gradient)| (of, gradient.clone())).collect();
        tape.backward(cx, seeds)?
    };
    let mut told = Told::default();
    for (name, weight, value) in values {
        let value = match value {
            Value::Sum(sums) => sums.to_f32()?.iter().map(|&v| f64::from(v)).sum(),
            Value::Square(norm, factor) => {
                factor * norm.to_f32()?.first().map_or(0.0, |&norm| f64::from(norm).powi(2))
            }
            Value::Host(value) => value()?,
        };
        told.total += weight * value;
        told.parts.push((name, value));
    }
    Ok((told, gradients))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;

    /// Values of three pictures whose errors are some 0.5, 0.02 and, below the floor, 0.002.
    fn differences() -> Vec<f32> {
        let wave = |i: usize| ((i * 37 % 101) as f32 / 50.0 - 1.0) + 0.1;
        (0..3 * 24).map(|i| wave(i) * [0.5, 0.02, 0.002][i / 24]).collect()
    }

    fn oracle(values: &[f64]) -> f64 {
        let square = |picture: &[f64]| picture.iter().map(|v| v * v).sum::<f64>() / picture.len() as f64;
        values.chunks(24).map(|picture| (square(picture) + 1e-4).ln()).sum::<f64>() / 3.0
    }

    #[test]
    fn the_logarithm_and_its_gradient_are_those_of_the_formula() {
        let cx = &Cx::new(Device::cpu(), DType::F32).expect("a context").with_tape();
        let values = differences();
        let difference = Tensor::from_f32(cx.device(), &values, [3, 2, 4, 3]).expect("a tensor");
        let difference = cx.tape().expect("a tape").variable(&difference);
        let term = log_square(cx, "log", &difference, 0.7).expect("a term");
        let exact: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
        let gradient = term.gradient.to_f32().expect("values");
        assert!(gradient.len() == values.len());
        for (i, &found) in gradient.iter().enumerate() {
            let at = |step: f64| {
                let mut moved = exact.clone();
                moved[i] += step;
                oracle(&moved)
            };
            let slope = 0.7 * (at(1e-6) - at(-1e-6)) / 2e-6;
            assert!(
                (f64::from(found) - slope).abs() < 1e-6 * slope.abs() + 1e-8,
                "{i}: {found}, not {slope}"
            );
        }
        let (told, _) = learn(cx, vec![term]).expect("a step");
        assert!((told.parts[0].1 - oracle(&exact)).abs() < 1e-6, "{:?}", told.parts);
        assert!((told.total - 0.7 * oracle(&exact)).abs() < 1e-6, "{}", told.total);
    }
}
