//! Layer norm on the CPU: a row at a time, two passes over a row that is in cache.

use rayon::prelude::*;

use crate::error::Result;
use crate::ops::host::element::{HostElement, widen_all};
use crate::ops::host::math::vectorised;
use crate::tensor::Tensor;

/// Sum of `term` over a row, in lanes that vectorise.
#[inline(always)]
fn sum(row: &[f32], term: impl Fn(f32) -> f32) -> f32 {
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

pub fn layer_norm<T: HostElement>(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    eps: f32,
    result: &mut [T],
) -> Result<()> {
    let c = x.shape().last();
    let (x, gamma, beta) = (x.host::<T>()?, gamma.host::<f32>()?, beta.host::<f32>()?);
    const ROWS: usize = 32;
    let buffer = || vec![0.0; T::buffer(c)];
    result.par_chunks_mut(c * ROWS).zip(x.par_chunks(c * ROWS)).for_each_init(
        buffer,
        |buffer, (out, rows)| {
            vectorised!({
                for (out, row) in out.chunks_exact_mut(c).zip(rows.chunks_exact(c)) {
                    T::fill(out, buffer, |line| {
                        widen_all(row, line);
                        let mean = sum(line, |v| v) / c as f32;
                        let variance = sum(line, |v| (v - mean) * (v - mean)) / c as f32;
                        let inverse = 1.0 / (variance + eps).sqrt();
                        for i in 0..c {
                            line[i] = (line[i] - mean) * inverse * gamma[i] + beta[i];
                        }
                    });
                }
            });
        },
    );
    Ok(())
}
