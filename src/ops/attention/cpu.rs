//! Attention on the CPU: tiles of queries against tiles of keys with an online softmax, so the score
//! matrix never exists. A task is one tile of queries of one head.

use rayon::prelude::*;

use super::{Geometry, Heads};
use crate::error::Result;
use crate::ops::host::bf16::Shared;
use crate::ops::host::math::{exp, vectorised};
use crate::ops::host::matmul::{Matrix, Threads, multiply};

/// Rows of a task.
pub(super) const ROWS: usize = 128;
/// Rows of the other side that are computed with at once.
pub(super) const COLUMNS: usize = 512;

/// One operand: row i of head h of image n starts at `(n * rows + i) * stride + offset + h * width`.
#[derive(Clone, Copy)]
pub(super) struct Operand<'a> {
    data: &'a [f32],
    rows: usize,
    stride: usize,
    offset: usize,
}

impl<'a> Operand<'a> {
    pub(super) fn new(heads: &Heads<'a>) -> Result<Self> {
        let shape = heads.tensor.shape();
        Ok(Operand { data: heads.tensor.host()?, rows: shape[1], stride: shape[2], offset: heads.offset })
    }

    /// `width` elements of row `i`, from `column` of the heads' columns on.
    pub(super) fn row(&self, n: usize, column: usize, i: usize, width: usize) -> &'a [f32] {
        &self.data[(n * self.rows + i) * self.stride + self.offset + column..][..width]
    }

    pub(super) fn tile(
        &self,
        n: usize,
        column: usize,
        first: usize,
        rows: usize,
        width: usize,
    ) -> Matrix<'a> {
        let start = (n * self.rows + first) * self.stride + self.offset + column;
        Matrix::new(&self.data[start..], rows, width, self.stride)
    }
}

/// Attention, and the log-sum-exp of the scaled scores [n, heads, l] where it is wanted.
pub fn attention(
    g: &Geometry,
    (q, k, v): (Heads, Heads, Heads),
    result: &mut [f32],
    mut sum_log: Option<&mut [f32]>,
) -> Result<()> {
    let (q, k, v) = (Operand::new(&q)?, Operand::new(&k)?, Operand::new(&v)?);
    let tiles = g.l.div_ceil(ROWS);
    let all = g.heads * g.width;
    assert_eq!(result.len(), g.n * g.l * all);
    assert!(sum_log.as_ref().is_none_or(|sums| sums.len() == g.n * g.heads * g.l));
    let shared = Shared::new(result);
    let sums = sum_log.as_mut().map(|sums| Shared::new(sums));
    (0..g.n * g.heads * tiles).into_par_iter().for_each_init(
        || Tile::new(g.width),
        |tile, task| {
            let (n, head, first) = (task / tiles / g.heads, task / tiles % g.heads, task % tiles * ROWS);
            let rows = ROWS.min(g.l - first);
            tile.run(g, (q, k, v), n, head * g.width, first, rows);
            for (row, line) in tile.sums.chunks_exact(g.width).take(rows).enumerate() {
                let start = (n * g.l + first + row) * all + head * g.width;
                // SAFETY: no other task has this (n, row, head), and `result` is borrowed throughout.
                unsafe { shared.slice(start, g.width) }.copy_from_slice(line);
                if let Some(sums) = sums {
                    let sum = tile.largest[row] + tile.weight[row].ln();
                    // SAFETY: as above, for a tensor [n, heads, l].
                    let place = unsafe { sums.slice((n * g.heads + head) * g.l + first + row, 1) };
                    place[0] = sum;
                }
            }
        },
    );
    Ok(())
}

/// The state of one tile of queries.
struct Tile {
    scores: Vec<f32>,
    sums: Vec<f32>,
    largest: [f32; ROWS],
    weight: [f32; ROWS],
}

impl Tile {
    fn new(width: usize) -> Self {
        Tile {
            scores: vec![0.0; ROWS * COLUMNS],
            sums: vec![0.0; ROWS * width],
            largest: [0.0; ROWS],
            weight: [0.0; ROWS],
        }
    }

    fn run(
        &mut self,
        g: &Geometry,
        (q, k, v): (Operand, Operand, Operand),
        n: usize,
        column: usize,
        first: usize,
        rows: usize,
    ) {
        self.largest = [f32::NEG_INFINITY; ROWS];
        self.weight = [0.0; ROWS];
        self.sums.fill(0.0);
        let scale = 1.0 / (g.width as f32).sqrt();
        let seen = if g.causal { first + rows } else { g.m };
        let queries = q.tile(n, column, first, rows, g.width);
        for start in (0..seen).step_by(COLUMNS) {
            let keys = COLUMNS.min(seen - start);
            let columns = k.tile(n, column, start, keys, g.width).transposed();
            multiply(&mut self.scores, keys, (queries, columns), scale, false, Threads::One);
            vectorised!({
                for row in 0..rows {
                    let visible =
                        if g.causal { (first + row + 1).saturating_sub(start).min(keys) } else { keys };
                    self.soften(row, visible, keys, g.width);
                }
            });
            let weights = Matrix::new(&self.scores, rows, keys, keys);
            let values = v.tile(n, column, start, keys, g.width);
            multiply(&mut self.sums, g.width, (weights, values), 1.0, true, Threads::One);
        }
        vectorised!({
            for (line, weight) in self.sums.chunks_exact_mut(g.width).zip(&self.weight).take(rows) {
                line.iter_mut().for_each(|v| *v /= weight);
            }
        });
    }

    /// Turns a row of scores into weights and rescales what the row gathered before.
    #[inline(always)]
    fn soften(&mut self, row: usize, visible: usize, keys: usize, width: usize) {
        let (scores, hidden) = self.scores[row * keys..][..keys].split_at_mut(visible);
        hidden.fill(0.0);
        if scores.is_empty() {
            return;
        }
        let tops = by_lanes(scores, [self.largest[row]; LANES], greater);
        let largest = tops.into_iter().fold(f32::NEG_INFINITY, greater);
        let fade = exp(self.largest[row] - largest);
        for score in scores.iter_mut() {
            *score = exp(*score - largest);
        }
        let sums = by_lanes(scores, [0.0; LANES], |a, b| a + b);
        self.weight[row] = self.weight[row] * fade + sums.iter().sum::<f32>();
        self.largest[row] = largest;
        if fade != 1.0 {
            self.sums[row * width..][..width].iter_mut().for_each(|v| *v *= fade);
        }
    }
}

const LANES: usize = 64;

#[inline(always)]
pub(super) fn greater(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

/// Folds `values` into lanes, which vectorises as one running value would not.
#[inline(always)]
fn by_lanes(values: &[f32], mut lanes: [f32; LANES], fold: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    let chunks = values.chunks_exact(LANES);
    for (lane, &value) in lanes.iter_mut().zip(chunks.remainder()) {
        *lane = fold(*lane, value);
    }
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = fold(*lane, value);
        }
    }
    lanes
}
