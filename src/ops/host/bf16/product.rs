//! A whole product, cut into tasks of rows and panels: `finish(rows . weights)`.

use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

use super::{Block, COLUMNS, Chunk, Kernel, Panels};
use crate::ops::host::aligned::Aligned;

/// Rows of a task: its part of a chunk stays in the second cache.
const TASK_ROWS: usize = 256;
/// Panels of a task.
const TASK_PANELS: usize = 10;
/// Fewer tasks than this are cut further, so that every thread has work to the end.
const FEW_TASKS: usize = 32;

/// Splits runs of rows, (first element, rows, row of the result) each, into blocks of at most `most` rows. Rows lie
/// `stride` elements apart; sums are numbered through.
pub fn rows_in_blocks(
    runs: impl IntoIterator<Item = (usize, usize, usize)>,
    stride: usize,
    most: usize,
) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut sums = 0;
    for (first, rows, out) in runs {
        let pieces = rows.div_ceil(most);
        for piece in 0..pieces {
            // pieces as equal as can be
            let (start, end) = (rows * piece / pieces, rows * (piece + 1) / pieces);
            blocks.push(Block { first: first + start * stride, rows: end - start, sums, out: out + start });
            sums += end - start;
        }
    }
    blocks
}

/// How a product is cut: which panels a task multiplies together. Rows are cut the same way for every product.
#[derive(Clone, Debug)]
pub struct Cut {
    /// of each task
    pub(super) panels: Vec<Vec<usize>>,
}

impl Cut {
    /// For `rows` rows and `panels` panels.
    pub fn of(rows: usize, panels: usize) -> Self {
        let each = Self::panels_of_a_task(rows, panels, 1);
        let panels = (0..panels).step_by(each).map(|p| (p..(p + each).min(panels)).collect()).collect();
        Cut { panels }
    }

    /// For a product whose outputs `i` and `half + i` are wanted together: by whole panels where `half` allows it,
    /// else all at once.
    pub fn gated(rows: usize, half: usize) -> Self {
        if !half.is_multiple_of(COLUMNS) {
            return Cut { panels: vec![(0..(2 * half).div_ceil(COLUMNS)).collect()] };
        }
        let half = half / COLUMNS;
        let each = Self::panels_of_a_task(rows, half, 2);
        let group = |p: usize| {
            let own = p..(p + each).min(half);
            own.clone().chain(own.map(|p| half + p)).collect()
        };
        Cut { panels: (0..half).step_by(each).map(group).collect() }
    }

    /// As many panels as a task takes, `together` of them counting as one, and fewer when tasks are few.
    fn panels_of_a_task(rows: usize, panels: usize, together: usize) -> usize {
        let groups = rows.div_ceil(TASK_ROWS).max(1);
        let wanted = FEW_TASKS.div_ceil(groups);
        (TASK_PANELS / together).min(panels.div_ceil(wanted)).max(1)
    }
}

/// The first operand and what it is multiplied by.
pub struct Product<'a> {
    pub kernel: &'a Kernel,
    pub a: &'a [bf16],
    /// elements from row to row within a block
    pub stride: usize,
    pub blocks: &'a [Block],
    pub chunks: &'a [Chunk],
    pub weights: Panels<'a>,
}

impl Product<'_> {
    /// Computes all sums, a task at a time, and hands each row of a task to `finish`: the row of the result, the
    /// task's panels, and 32 sums for each of them.
    pub fn run(&self, cut: &Cut, finish: impl Fn(usize, &[usize], &mut [f32]) + Sync) {
        let groups = groups(self.blocks);
        let tasks = groups.len() * cut.panels.len();
        (0..tasks).into_par_iter().for_each_init(Aligned::default, |sums: &mut Aligned<f32>, task| {
            // Neighbouring tasks share their rows.
            let blocks = &self.blocks[groups[task / cut.panels.len()].clone()];
            let panels = &cut.panels[task % cut.panels.len()];
            self.accumulate(blocks, panels, sums);
            let width = panels.len() * COLUMNS;
            for block in blocks {
                let first = block.sums - blocks[0].sums;
                let lines = sums[first * width..].chunks_exact_mut(width).take(block.rows);
                lines.enumerate().for_each(|(row, line)| finish(block.out + row, panels, line));
            }
        });
    }

    /// The sums of `blocks` and `panels`: [rows, panels * 32].
    pub fn accumulate(&self, blocks: &[Block], panels: &[usize], sums: &mut Aligned<f32>) {
        let width = panels.len() * COLUMNS;
        let first = blocks.first().map_or(0, |block| block.sums);
        let rows: usize = blocks.iter().map(|block| block.rows).sum();
        sums.grow(rows * width);
        let own: Vec<Block> =
            blocks.iter().map(|block| Block { sums: block.sums - first, ..*block }).collect();
        for (index, chunk) in self.chunks.iter().enumerate() {
            for (place, &panel) in panels.iter().enumerate() {
                self.kernel.multiply(
                    (self.a, self.stride),
                    &own,
                    &chunk.spans,
                    self.weights.part(panel, chunk),
                    (&mut sums[place * COLUMNS..], width),
                    index > 0,
                );
            }
        }
    }
}

/// Runs of blocks with about [`TASK_ROWS`] rows each.
fn groups(blocks: &[Block]) -> Vec<Range<usize>> {
    let mut groups = Vec::new();
    let (mut start, mut rows) = (0, 0);
    for (i, block) in blocks.iter().enumerate() {
        rows += block.rows;
        if rows >= TASK_ROWS || i + 1 == blocks.len() {
            groups.push(start..i + 1);
            (start, rows) = (i + 1, 0);
        }
    }
    groups
}

/// A result whose elements tasks write, each other ones.
#[derive(Clone, Copy)]
pub struct Shared<T>(*mut T, usize);

// SAFETY: a plain address; whoever writes through it promises that no other task writes the same elements.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub fn new(result: &mut [T]) -> Self {
        Shared(result.as_mut_ptr(), result.len())
    }

    /// Elements `start..start + length`.
    ///
    /// # Safety
    /// The slice that this was made of is borrowed for as long, and no other task has any of these elements.
    #[expect(clippy::mut_from_ref, reason = "the caller promises that nobody else has these elements")]
    pub unsafe fn slice(&self, start: usize, length: usize) -> &mut [T] {
        assert!(start + length <= self.1, "a task leaves its result");
        // SAFETY: inside the slice, and nobody else's.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), length) }
    }
}
