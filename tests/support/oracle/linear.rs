//! Linear layers.

use super::conv::Epilogue;
use super::pointwise::gelu;
use crate::support::Array;

/// `epilogue(x . weight^T)`: x [..., K], weight [O, K].
pub fn linear(x: &Array, weight: &Array, epilogue: &Epilogue) -> Array {
    let (k, o) = (weight.shape[1], weight.shape[0]);
    let rows = x.values.len() / k;
    let rows_of_image = (rows / x.shape[0]).max(1);
    let mut values = Vec::with_capacity(rows * o);
    for row in 0..rows {
        for output in 0..o {
            let sum = (0..k).map(|i| x.values[row * k + i] * weight.values[output * k + i]).sum();
            values.push(epilogue.finish(sum, row / rows_of_image, output, row * o + output));
        }
    }
    let mut shape = x.shape.clone();
    *shape.last_mut().expect("a matrix") = o;
    Array::new(&shape, values)
}

/// `value * gelu(gate)` with [value | gate] = x . weight^T + bias.
pub fn linear_geglu(x: &Array, weight: &Array, bias: &Array) -> Array {
    let both = linear(x, weight, &Epilogue { bias: Some(bias), ..Epilogue::default() });
    let half = both.last() / 2;
    let mut shape = both.shape.clone();
    *shape.last_mut().expect("a matrix") = half;
    let lines = both.values.chunks(2 * half);
    Array::new(&shape, lines.flat_map(|line| (0..half).map(|i| line[i] * gelu(line[half + i]))).collect())
}
