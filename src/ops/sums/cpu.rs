//! Sums of rows on the CPU: f32 within a block of rows, f64 across the blocks, in a fixed order.

use rayon::prelude::*;

use crate::ops::host::math::vectorised;

/// Rows summed in f32.
const BLOCK: usize = 128;

/// `result` [groups, c] from x [groups * rows, c].
pub fn column_sums(x: &[f32], c: usize, rows: usize, scale: f32, result: &mut [f32]) {
    if rows * c == 0 {
        return result.fill(0.0);
    }
    for (out, group) in result.chunks_exact_mut(c).zip(x.chunks_exact(rows * c)) {
        let blocks: Vec<Vec<f32>> = group
            .par_chunks(BLOCK * c)
            .map(|block| {
                let mut sums = vec![0.0f32; c];
                vectorised!({
                    for row in block.chunks_exact(c) {
                        sums.iter_mut().zip(row).for_each(|(s, v)| *s += v);
                    }
                });
                sums
            })
            .collect();
        let total = fold(&blocks, c);
        out.iter_mut().zip(total).for_each(|(v, t)| *v = (f64::from(scale) * t) as f32);
    }
}

/// The sums of blocks of sums, in order.
pub fn fold(blocks: &[Vec<f32>], count: usize) -> Vec<f64> {
    let mut total = vec![0.0f64; count];
    for block in blocks {
        total.iter_mut().zip(block).for_each(|(t, &v)| *t += f64::from(v));
    }
    total
}
