//! Attention on the CPU in bf16: tiles of queries against tiles of keys with an online softmax in f32.
//!
//! Keys and values of all heads are first packed as the weights of two products: scores are queries times keys, 32
//! keys a panel, and results are probabilities times values, 32 columns a panel. Probabilities are rounded to bf16,
//! their sum is not.

use half::bf16;
use rayon::prelude::*;

use super::cpu::greater;
use super::{Geometry, Heads};
use crate::device::Cpu;
use crate::error::Result;
use crate::ops::host::aligned::Aligned;
use crate::ops::host::bf16::{COLUMNS, Kernel, STEP, Shared, Span, rows_in_blocks};
use crate::ops::host::element::narrow_all;
use crate::ops::host::math::{exp2_coarse, vectorised};

/// Rows of a task.
const QUERIES: usize = 64;
/// Keys whose scores exist at once; a multiple of a panel.
const KEYS: usize = 256;

/// One operand: row i of head h of image n starts at `(n * rows + i) * stride + offset + h * width`.
#[derive(Clone, Copy)]
struct Operand<'a> {
    data: &'a [bf16],
    rows: usize,
    stride: usize,
    offset: usize,
}

impl<'a> Operand<'a> {
    fn new(heads: &Heads<'a>) -> Result<Self> {
        let shape = heads.tensor.shape();
        Ok(Operand { data: heads.tensor.host()?, rows: shape[1], stride: shape[2], offset: heads.offset })
    }

    fn row(&self, n: usize, row: usize, column: usize, width: usize) -> &'a [bf16] {
        &self.data[(n * self.rows + row) * self.stride + self.offset + column..][..width]
    }
}

/// Keys and head width with padding.
fn padded(g: &Geometry) -> (usize, usize) {
    (g.m.next_multiple_of(COLUMNS), g.width.next_multiple_of(STEP))
}

/// Scratch that [`attention`] needs, in f32 elements: the packed keys and values.
pub fn scratch(g: &Geometry) -> usize {
    let (m, width) = padded(g);
    g.n * g.heads * m * width
}

/// [heads of all images, panels of 32 keys, pairs of columns, keys, 2]
fn pack_keys(g: &Geometry, keys: Operand, out: &mut [bf16]) {
    let (m, width) = padded(g);
    out.par_chunks_exact_mut(COLUMNS * width).enumerate().for_each(|(index, out)| {
        let (head, first) = (index / (m / COLUMNS), index % (m / COLUMNS) * COLUMNS);
        out.fill(bf16::ZERO);
        for key in 0..COLUMNS.min(g.m - first) {
            let row = keys.row(head / g.heads, first + key, head % g.heads * g.width, g.width);
            for (pair, values) in row.chunks(2).enumerate() {
                out[pair * 2 * COLUMNS + 2 * key..][..values.len()].copy_from_slice(values);
            }
        }
    });
}

/// [heads of all images, panels of 32 columns, pairs of keys, columns, 2]
fn pack_values(g: &Geometry, values: Operand, out: &mut [bf16]) {
    let (m, width) = padded(g);
    out.par_chunks_exact_mut(m * COLUMNS).enumerate().for_each(|(index, out)| {
        let (head, first) = (index / (width / COLUMNS), index % (width / COLUMNS) * COLUMNS);
        let columns = COLUMNS.min(g.width - first);
        out.fill(bf16::ZERO);
        for (pair, out) in out.chunks_exact_mut(2 * COLUMNS).enumerate().take(g.m.div_ceil(2)) {
            for odd in 0..2.min(g.m - 2 * pair) {
                let column = head % g.heads * g.width + first;
                let row = values.row(head / g.heads, 2 * pair + odd, column, columns);
                row.iter().enumerate().for_each(|(column, value)| out[2 * column + odd] = *value);
            }
        }
    });
}

/// Attention, and the log-sum-exp of the scaled scores [n, heads, l] where it is wanted.
pub fn attention(
    cpu: &Cpu,
    g: &Geometry,
    (q, k, v): (Heads, Heads, Heads),
    scratch: &mut [f32],
    (result, sum_log): (&mut [bf16], Option<&mut [f32]>),
) -> Result<()> {
    let (q, k, v) = (Operand::new(&q)?, Operand::new(&k)?, Operand::new(&v)?);
    let (keys, values) = bytemuck::cast_slice_mut(scratch).split_at_mut(self::scratch(g));
    pack_keys(g, k, keys);
    pack_values(g, v, values);
    let (tiles, all) = (g.l.div_ceil(QUERIES), g.heads * g.width);
    assert!(sum_log.as_ref().is_none_or(|sums| sums.len() == g.n * g.heads * g.l));
    let (result, sum_log) = (Shared::new(result), sum_log.map(Shared::new));
    let (keys, values) = (&*keys, &*values);
    (0..g.n * g.heads * tiles).into_par_iter().for_each_init(
        || Tile::new(g, Kernel::of(cpu.unit())),
        |tile, task| {
            let (head, first) = (task / tiles, task % tiles * QUERIES);
            let (n, column) = (head / g.heads, head % g.heads * g.width);
            let rows = QUERIES.min(g.l - first);
            tile.load(|row| q.row(n, first + row, column, g.width), rows);
            let start = |packed: &'_ [bf16]| head * packed.len() / (g.n * g.heads);
            tile.run(&keys[start(keys)..], &values[start(values)..], first, rows);
            for row in 0..rows {
                if let Some(sums) = sum_log {
                    // SAFETY: as below, for a tensor [n, heads, l].
                    let place = unsafe { sums.slice(head * g.l + first + row, 1) };
                    place[0] = tile.sum_log(row);
                }
                // SAFETY: no other task has these rows of this head, and `result` is borrowed throughout.
                let line = unsafe { result.slice((n * g.l + first + row) * all + column, g.width) };
                tile.finish(row, line);
            }
        },
    );
    Ok(())
}

/// A probability to nearest, ties to even. One that is no number need not stay one: its row's weight is none either.
#[inline(always)]
fn round(probability: f32) -> bf16 {
    let bits = probability.to_bits();
    bf16::from_bits((bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16)
}

/// The state of one tile of queries.
struct Tile<'a> {
    g: &'a Geometry,
    kernel: &'static Kernel,
    /// keys and head width with padding
    m: usize,
    width: usize,
    queries: Aligned<bf16>,
    scores: Aligned<f32>,
    probabilities: Aligned<bf16>,
    sums: Aligned<f32>,
    /// of the scores times log2(e)
    largest: [f32; QUERIES],
    weight: [f32; QUERIES],
}

impl<'a> Tile<'a> {
    fn new(g: &'a Geometry, kernel: &'static Kernel) -> Self {
        let (m, width) = padded(g);
        Tile {
            g,
            kernel,
            m,
            width,
            queries: Aligned::zeros(QUERIES * width),
            scores: Aligned::zeros(QUERIES * KEYS),
            probabilities: Aligned::zeros(QUERIES * KEYS),
            sums: Aligned::zeros(QUERIES * width),
            largest: [0.0; QUERIES],
            weight: [0.0; QUERIES],
        }
    }

    fn load(&mut self, row: impl Fn(usize) -> &'a [bf16], rows: usize) {
        for (i, line) in self.queries.chunks_exact_mut(self.width).enumerate().take(rows) {
            line[..self.g.width].copy_from_slice(row(i));
        }
        self.largest = [f32::NEG_INFINITY; QUERIES];
        self.weight = [0.0; QUERIES];
        self.sums.fill(0.0);
    }

    fn run(&mut self, keys: &[bf16], values: &[bf16], first: usize, rows: usize) {
        let seen = if self.g.causal { first + rows } else { self.g.m };
        let queries = rows_in_blocks([(0, rows, 0)], self.width, self.kernel.rows());
        let probabilities = rows_in_blocks([(0, rows, 0)], KEYS, self.kernel.rows());
        let scale = std::f32::consts::LOG2_E / (self.g.width as f32).sqrt();
        for start in (0..seen).step_by(KEYS) {
            let count = KEYS.min(seen - start);
            let wide = count.next_multiple_of(COLUMNS);
            for panel in 0..wide / COLUMNS {
                let part = &keys[(start + panel * COLUMNS) * self.width..][..COLUMNS * self.width];
                let span = [Span { offset: 0, length: self.g.width }];
                let sums = (&mut self.scores[panel * COLUMNS..], KEYS);
                self.kernel.multiply((&self.queries, self.width), &queries, &span, part, sums, false);
            }
            vectorised!({
                for row in 0..rows {
                    let visible = match self.g.causal {
                        true => (first + row + 1).saturating_sub(start).min(count),
                        false => count,
                    };
                    self.soften(row, visible, wide, scale);
                }
            });
            for panel in 0..self.width / COLUMNS {
                let part = &values[(panel * self.m + start) * COLUMNS..][..wide * COLUMNS];
                let span = [Span { offset: 0, length: wide }];
                let sums = (&mut self.sums[panel * COLUMNS..], self.width);
                self.kernel.multiply((&self.probabilities, KEYS), &probabilities, &span, part, sums, true);
            }
        }
    }

    /// Turns a row of scores into probabilities and rescales what the row gathered before. `wide` is `visible` up to
    /// whole panels: loops over arrays of a panel vectorise, loops to an odd end would not.
    #[inline(always)]
    fn soften(&mut self, row: usize, visible: usize, wide: usize, scale: f32) {
        let scores = &mut self.scores[row * KEYS..][..wide];
        let out = &mut self.probabilities[row * KEYS..][..wide];
        if visible == 0 {
            out.fill(bf16::ZERO);
            return;
        }
        scores[visible..].fill(f32::NEG_INFINITY);
        let (scores, out) = (scores.as_chunks::<COLUMNS>().0, out.as_chunks_mut::<COLUMNS>().0);
        let mut tops = [f32::NEG_INFINITY; COLUMNS];
        for scores in scores {
            for (top, &score) in tops.iter_mut().zip(scores) {
                *top = greater(*top, score);
            }
        }
        let largest = greater(self.largest[row], tops.into_iter().fold(f32::NEG_INFINITY, greater) * scale);
        let fade = exp2_coarse(self.largest[row] - largest);
        let mut sums = [0.0f32; COLUMNS];
        for (out, scores) in out.iter_mut().zip(scores) {
            for i in 0..COLUMNS {
                let probability = exp2_coarse(scores[i] * scale - largest);
                sums[i] += probability;
                out[i] = round(probability);
            }
        }
        self.weight[row] = self.weight[row] * fade + sums.iter().sum::<f32>();
        self.largest[row] = largest;
        if fade != 1.0 {
            self.sums[row * self.width..][..self.width].iter_mut().for_each(|v| *v *= fade);
        }
    }

    /// The natural logarithm of the sum of exponentials of a row's scores.
    fn sum_log(&self, row: usize) -> f32 {
        self.largest[row] * std::f32::consts::LN_2 + self.weight[row].ln()
    }

    fn finish(&mut self, row: usize, line: &mut [bf16]) {
        let sums = &mut self.sums[row * self.width..][..self.g.width];
        let weight = self.weight[row];
        vectorised!({
            sums.iter_mut().for_each(|v| *v /= weight);
            narrow_all(sums, line);
        });
    }
}
