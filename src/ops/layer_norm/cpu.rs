//! Layer norm on the CPU: a row at a time, two passes over a row that is in cache.

use rayon::prelude::*;

use crate::error::Result;
use crate::ops::host::element::{HostElement, widen_all};
use crate::ops::host::math::{sum, vectorised};
use crate::tensor::Tensor;

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
                    T::fill(
                        out,
                        buffer,
                        #[inline(always)]
                        |line| {
                            widen_all(row, line);
                            let mean = sum(line, |v| v) / c as f32;
                            let variance = sum(line, |v| (v - mean) * (v - mean)) / c as f32;
                            let inverse = 1.0 / (variance + eps).sqrt();
                            for i in 0..c {
                                line[i] = (line[i] - mean) * inverse * gamma[i] + beta[i];
                            }
                        },
                    );
                }
            });
        },
    );
    Ok(())
}
