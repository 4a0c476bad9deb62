//! Layer norm on the CPU: a row at a time, two passes over a row that is in cache.

use rayon::prelude::*;

use crate::error::Result;
use crate::ops::host::math::{sum, vectorised};
use crate::tensor::Tensor;

pub fn layer_norm(x: &Tensor, gamma: &Tensor, beta: &Tensor, eps: f32, result: &mut [f32]) -> Result<()> {
    let c = x.shape().last();
    let (x, gamma, beta) = (x.host::<f32>()?, gamma.host::<f32>()?, beta.host::<f32>()?);
    const ROWS: usize = 32;
    result.par_chunks_mut(c * ROWS).zip(x.par_chunks(c * ROWS)).for_each(|(out, rows)| {
        vectorised!({
            for (out, row) in out.chunks_exact_mut(c).zip(rows.chunks_exact(c)) {
                let mean = sum(row, |v| v) / c as f32;
                let variance = sum(row, |v| (v - mean) * (v - mean)) / c as f32;
                let inverse = 1.0 / (variance + eps).sqrt();
                for i in 0..c {
                    out[i] = (row[i] - mean) * inverse * gamma[i] + beta[i];
                }
            }
        });
    });
    Ok(())
}
