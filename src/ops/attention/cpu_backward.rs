//! The gradients of attention on the CPU, tile by tile as the forward pass: one pass over tiles of queries gives
//! dq, one over tiles of keys dk and dv, and both make the weights again from the log-sum-exp.

use rayon::prelude::*;

use super::backward::Saved;
use super::cpu::{COLUMNS, Operand, ROWS};
use super::{Geometry, Heads};
use crate::error::Result;
use crate::ops::host::bf16::Shared;
use crate::ops::host::math::{exp, vectorised};
use crate::ops::host::matmul::{Matrix, Threads, multiply};
use crate::tensor::Tensor;

/// Where the gradient of an operand is written: row i of head h of image n starts at
/// `(n * rows + i) * stride + offset + h * width`.
#[derive(Clone, Copy)]
pub struct Target {
    memory: Shared<f32>,
    rows: usize,
    stride: usize,
    offset: usize,
}

impl Target {
    /// Columns from `offset` on of `memory`, [n, rows, stride].
    pub fn new(memory: &mut [f32], [rows, stride]: [usize; 2], offset: usize) -> Self {
        Target { memory: Shared::new(memory), rows, stride, offset }
    }

    /// # Safety
    /// The memory holds these rows of the head in `at`, and no other task writes them.
    unsafe fn write(self, at: &Place, width: usize, values: &[f32]) {
        for (row, line) in values.chunks_exact(width).take(at.count).enumerate() {
            let start = (at.n * self.rows + at.first + row) * self.stride + self.offset + at.head * width;
            // SAFETY: the caller's promise.
            unsafe { self.memory.slice(start, line.len()) }.copy_from_slice(line);
        }
    }
}

/// Rows `first..first + count` of a head of an image.
#[derive(Clone, Copy)]
struct Place {
    n: usize,
    head: usize,
    first: usize,
    count: usize,
}

/// Writes those of dq, dk and dv that have a target; targets share no elements.
pub fn backward(saved: &Saved, gradient: &Tensor, targets: [Option<Target>; 3]) -> Result<()> {
    let [q, k, v] = saved.heads().map(|heads| Operand::new(&heads));
    let whole = |tensor| Operand::new(&Heads::new(tensor, 0));
    let problem = Problem {
        g: saved.geometry,
        queries: [q?, whole(gradient)?],
        keys: [k?, v?],
        result: whole(&saved.result)?,
        sum_log: saved.sum_log.host()?,
    };
    let [dq, dk, dv] = targets;
    if dq.is_some() {
        problem.pass::<false>([dq, None]);
    }
    if dk.is_some() || dv.is_some() {
        problem.pass::<true>([dk, dv]);
    }
    Ok(())
}

struct Problem<'a> {
    g: Geometry,
    /// q and the gradient of the result
    queries: [Operand<'a>; 2],
    /// k and v
    keys: [Operand<'a>; 2],
    result: Operand<'a>,
    /// [n, heads, l]
    sum_log: &'a [f32],
}

impl Problem<'_> {
    /// A task is one tile of queries of one head, or with `KEYS` of keys; the other side streams by.
    fn pass<const KEYS: bool>(&self, targets: [Option<Target>; 2]) {
        let g = &self.g;
        let (own, other) = if KEYS { (g.m, g.l) } else { (g.l, g.m) };
        let tiles = own.div_ceil(ROWS);
        (0..g.n * g.heads * tiles).into_par_iter().for_each_init(
            || Tile::new(g.width),
            |tile, task| {
                let first = task % tiles * ROWS;
                let (n, head) = (task / tiles / g.heads, task / tiles % g.heads);
                let at = Place { n, head, first, count: ROWS.min(own - first) };
                let (begin, end) = match (g.causal, KEYS) {
                    (false, _) => (0, other),
                    (true, false) => (0, first + at.count),
                    (true, true) => (first, other),
                };
                tile.first.fill(0.0);
                tile.second.fill(0.0);
                if !KEYS {
                    tile.read_statistics(self, at);
                }
                for start in (begin..end).step_by(COLUMNS) {
                    let streamed = Place { first: start, count: COLUMNS.min(end - start), ..at };
                    if KEYS {
                        tile.read_statistics(self, streamed);
                    }
                    tile.step::<KEYS>(self, at, streamed);
                }
                for (target, sums) in targets.into_iter().zip([&tile.first, &tile.second]) {
                    if let Some(target) = target {
                        // SAFETY: the target's tensor has these rows of this head, and no other task has them.
                        unsafe { target.write(&at, g.width, sums) };
                    }
                }
            },
        );
    }
}

/// The state of one tile of rows.
struct Tile {
    /// dq, or dk
    first: Vec<f32>,
    /// dv
    second: Vec<f32>,
    weights: Vec<f32>,
    slopes: Vec<f32>,
    /// of queries: log-sum-exp, and product of the result with its gradient
    sum_log: [f32; COLUMNS],
    product: [f32; COLUMNS],
}

impl Tile {
    fn new(width: usize) -> Self {
        Tile {
            first: vec![0.0; ROWS * width],
            second: vec![0.0; ROWS * width],
            weights: vec![0.0; ROWS * COLUMNS],
            slopes: vec![0.0; ROWS * COLUMNS],
            sum_log: [0.0; COLUMNS],
            product: [0.0; COLUMNS],
        }
    }

    fn read_statistics(&mut self, problem: &Problem, queries: Place) {
        let g = &problem.g;
        let start = (queries.n * g.heads + queries.head) * g.l + queries.first;
        self.sum_log[..queries.count].copy_from_slice(&problem.sum_log[start..][..queries.count]);
        vectorised!({
            for row in 0..queries.count {
                let (column, row_of_head) = (queries.head * g.width, queries.first + row);
                let [result, gradient] = [problem.result, problem.queries[1]]
                    .map(|operand| operand.row(queries.n, column, row_of_head, g.width));
                self.product[row] = dot(result, gradient);
            }
        });
    }

    /// Adds what the rows `streamed` give to the gradients of the rows `own`.
    fn step<const KEYS: bool>(&mut self, problem: &Problem, own: Place, streamed: Place) {
        let g = &problem.g;
        let (mine, others) =
            if KEYS { (problem.keys, problem.queries) } else { (problem.queries, problem.keys) };
        let [mine, others] = [(mine, own), (others, streamed)].map(|(side, at)| {
            side.map(|operand| operand.tile(at.n, at.head * g.width, at.first, at.count, g.width))
        });
        let (rows, columns) = (own.count, streamed.count);
        let scale = 1.0 / (g.width as f32).sqrt();
        let one = Threads::One;
        // A score is q . k and a slope g . v, whichever side the rows are.
        multiply(&mut self.weights, columns, (mine[0], others[0].transposed()), scale, false, one);
        multiply(&mut self.slopes, columns, (mine[1], others[1].transposed()), 1.0, false, one);
        vectorised!({
            for row in 0..rows {
                // The columns that a causal mask leaves: keys up to the query's own, or queries from the key's on.
                let (index, from) = (own.first + row, streamed.first);
                let seen = match (g.causal, KEYS) {
                    (false, _) => 0..columns,
                    (true, false) => 0..(index + 1).saturating_sub(from).min(columns),
                    (true, true) => index.saturating_sub(from).min(columns)..columns,
                };
                self.differentiate::<KEYS>(row, columns, seen);
            }
        });
        let slopes = Matrix::new(&self.slopes, rows, columns, columns);
        multiply(&mut self.first, g.width, (slopes, others[0]), scale, true, one);
        if KEYS {
            let weights = Matrix::new(&self.weights, rows, columns, columns);
            multiply(&mut self.second, g.width, (weights, others[1]), 1.0, true, one);
        }
    }

    /// Turns a row of scores into weights, and its slopes into those of the scores.
    #[inline(always)]
    fn differentiate<const KEYS: bool>(&mut self, row: usize, columns: usize, seen: std::ops::Range<usize>) {
        let weights = &mut self.weights[row * columns..][..columns];
        let slopes = &mut self.slopes[row * columns..][..columns];
        for hidden in [0..seen.start, seen.end..columns] {
            weights[hidden.clone()].fill(0.0);
            slopes[hidden].fill(0.0);
        }
        let pairs = weights[seen.clone()].iter_mut().zip(&mut slopes[seen.clone()]);
        if KEYS {
            let statistics = self.sum_log[seen.clone()].iter().zip(&self.product[seen]);
            for ((weight, slope), (sum_log, product)) in pairs.zip(statistics) {
                *weight = exp(*weight - sum_log);
                *slope = *weight * (*slope - product);
            }
        } else {
            let (sum_log, product) = (self.sum_log[row], self.product[row]);
            for (weight, slope) in pairs {
                *weight = exp(*weight - sum_log);
                *slope = *weight * (*slope - product);
            }
        }
    }
}

/// The sum of products, by lanes, which vectorises.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0.0; LANES];
    for (a, b) in a.chunks(LANES).zip(b.chunks(LANES)) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    sums.iter().sum()
}
