//! Linear layers on the CPU: one product, then the epilogue while the rows are warm.

use rayon::prelude::*;

use super::LinearWeight;
use crate::error::Result;
use crate::ops::Epilogue;
use crate::ops::host::math::{gelu, vectorised};
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
