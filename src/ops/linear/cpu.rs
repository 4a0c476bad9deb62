//! Linear layers on the CPU: one product, then the epilogue while the rows are warm.

use rayon::prelude::*;

use super::LinearWeight;
use crate::error::Result;
use crate::ops::Epilogue;
use crate::ops::host::math::{gelu, gelu_slope, vectorised};
use crate::ops::host::matmul::{Matrix, Threads, multiply};
use crate::ops::host::rows::HostEpilogue;
use crate::tensor::Tensor;

/// Rows whose gate and value are held at once.
const GATED_ROWS: usize = 2048;

pub fn linear(x: &Tensor, weight: &LinearWeight, epilogue: &Epilogue, result: &mut [f32]) -> Result<()> {
    let (rows, k, o) = (x.shape().rows(), weight.inputs, weight.outputs);
    let product = (Matrix::new(x.host()?, rows, k, k), Matrix::new(weight.packed.host()?, k, o, o));
    multiply(result, o, product, 1.0, false, Threads::All);
    let images = x.shape()[0];
    HostEpilogue::new(epilogue)?.finish_all(result, o, (rows / images.max(1)).max(1));
    Ok(())
}

/// Scratch of [`geglu`] in f32 elements.
pub fn geglu_scratch(rows: usize, outputs: usize) -> usize {
    rows.min(GATED_ROWS) * outputs
}

pub fn geglu(
    x: &Tensor,
    weight: &LinearWeight,
    bias: &Tensor,
    scratch: &mut [f32],
    result: &mut [f32],
) -> Result<()> {
    let (k, o) = (weight.inputs, weight.outputs);
    let half = o / 2;
    let (x, w, bias) = (x.host::<f32>()?, weight.packed.host()?, bias.host::<f32>()?);
    let (value_bias, gate_bias) = bias.split_at(half);
    for (x, out) in x.chunks(GATED_ROWS * k).zip(result.chunks_mut(GATED_ROWS * half)) {
        let rows = x.len() / k;
        multiply(scratch, o, (Matrix::new(x, rows, k, k), Matrix::new(w, k, o, o)), 1.0, false, Threads::All);
        out.par_chunks_mut(half).zip(scratch.par_chunks(o)).for_each(|(line, both)| {
            let (value, gate) = both.split_at(half);
            vectorised!({
                for i in 0..half {
                    line[i] = (value[i] + value_bias[i]) * gelu(gate[i] + gate_bias[i]);
                }
            });
        });
    }
    Ok(())
}

/// `scale * gradient . weight` [rows, K]
pub fn input_gradient(
    weight: &LinearWeight,
    gradient: &Tensor,
    scale: f32,
    result: &mut [f32],
) -> Result<()> {
    let (rows, k, o) = (gradient.shape().rows(), weight.inputs, weight.outputs);
    let weight = Matrix::new(weight.packed.host()?, k, o, o).transposed();
    multiply(result, k, (Matrix::new(gradient.host()?, rows, o, o), weight), scale, false, Threads::All);
    Ok(())
}

/// `scale * gradient^T . x` [O, K]
pub fn weight_gradient(x: &Tensor, gradient: &Tensor, scale: f32, result: &mut [f32]) -> Result<()> {
    let (rows, k, o) = (x.shape().rows(), x.shape().last(), gradient.shape().last());
    let gradient = Matrix::new(gradient.host()?, rows, o, o).transposed();
    multiply(result, k, (gradient, Matrix::new(x.host()?, rows, k, k)), scale, false, Threads::All);
    Ok(())
}

/// [rows, 2H] from value | gate and the gradient [rows, H] of their product
pub fn gate_gradient(both: &[f32], gradient: &[f32], o: usize, result: &mut [f32]) {
    const ROWS: usize = 32;
    let half = o / 2;
    let pairs = both.par_chunks(o * ROWS).zip(gradient.par_chunks(half * ROWS));
    result.par_chunks_mut(o * ROWS).zip(pairs).for_each(|(out, (both, gradient))| {
        vectorised!({
            let rows = both.chunks_exact(o).zip(gradient.chunks_exact(half));
            for (out, (both, gradient)) in out.chunks_exact_mut(o).zip(rows) {
                let (value, gate) = both.split_at(half);
                let (to_value, to_gate) = out.split_at_mut(half);
                for i in 0..half {
                    to_value[i] = gradient[i] * gelu(gate[i]);
                    to_gate[i] = gradient[i] * value[i] * gelu_slope(gate[i]);
                }
            }
        });
    });
}
