//! Window attention on the CPU: a task is all heads of one window, gathered to scratch.

use rayon::prelude::*;

use super::Windows;
use crate::error::Result;
use crate::ops::host::math::{exp, vectorised};
use crate::ops::host::matmul::{Matrix, Threads, multiply};
use crate::tensor::Tensor;

/// What the mask adds between parts of the image that the roll has joined.
const APART: f32 = -100.0;

/// A pointer that tasks share; each writes other elements.
#[derive(Clone, Copy)]
struct Shared(*mut f32);
// SAFETY: the tasks of `window_attention` write disjoint elements, see there.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    fn at(self, index: usize) -> *mut f32 {
        // SAFETY: callers pass indices inside the result.
        unsafe { self.0.add(index) }
    }
}

pub fn window_attention(
    [n, h, w]: [usize; 3],
    windows: Windows,
    qkv: &Tensor,
    bias: &Tensor,
    result: &mut [f32],
) -> Result<()> {
    let (qkv, bias) = (qkv.host::<f32>()?, bias.host::<f32>()?);
    let Windows { side, heads, width, .. } = windows;
    let all = heads * width;
    assert_eq!(result.len(), n * h * w * all);
    let shared = Shared(result.as_mut_ptr());
    let (rows, columns) = (h / side, w / side);
    (0..n * rows * columns).into_par_iter().for_each_init(
        || Scratch::new(windows),
        |scratch, task| {
            let (image, row, column) = (task / (rows * columns), task / columns % rows, task % columns);
            scratch.place([image, row, column], [h, w], windows);
            for head in 0..heads {
                scratch.run(head, qkv, bias, windows);
                for (line, place) in scratch.out.chunks_exact(width).zip(&scratch.places) {
                    let start = place * all + head * width;
                    // SAFETY: `place` is a pixel of the image, so `start + width <= result.len()`; each pixel lies
                    // in one window, and the heads of a window are one task's.
                    unsafe { std::ptr::copy_nonoverlapping(line.as_ptr(), shared.at(start), width) };
                }
            }
        },
    );
    Ok(())
}

/// One window's pixels and one head's operands.
struct Scratch {
    /// index of each pixel of the window in [N, H, W]
    places: Vec<usize>,
    /// which part of the rolled image each pixel belongs to
    parts: Vec<u8>,
    /// q, k, v of one head: [3, side * side, D]
    operands: Vec<f32>,
    scores: Vec<f32>,
    out: Vec<f32>,
}

impl Scratch {
    fn new(Windows { side, width, .. }: Windows) -> Self {
        let count = side * side;
        Scratch {
            places: vec![0; count],
            parts: vec![0; count],
            operands: vec![0.0; 3 * count * width],
            scores: vec![0.0; count * count],
            out: vec![0.0; count * width],
        }
    }

    /// Finds the pixels of a window of the rolled image.
    fn place(
        &mut self,
        [image, row, column]: [usize; 3],
        [h, w]: [usize; 2],
        Windows { side, shift, .. }: Windows,
    ) {
        let part = |at: usize, size: usize| match at {
            _ if shift == 0 || at < size - side => 0,
            _ if at < size - shift => 1,
            _ => 2,
        };
        for i in 0..side * side {
            let (y, x) = (row * side + i / side, column * side + i % side);
            self.places[i] = (image * h + (y + shift) % h) * w + (x + shift) % w;
            self.parts[i] = 3 * part(y, h) + part(x, w);
        }
    }

    fn run(&mut self, head: usize, qkv: &[f32], bias: &[f32], windows: Windows) {
        let Windows { side, heads, width, .. } = windows;
        let (count, all) = (side * side, heads * width);
        for (which, operand) in self.operands.chunks_exact_mut(count * width).enumerate() {
            for (line, place) in operand.chunks_exact_mut(width).zip(&self.places) {
                line.copy_from_slice(&qkv[place * 3 * all + which * all + head * width..][..width]);
            }
        }
        let operand =
            |which: usize| Matrix::new(&self.operands[which * count * width..], count, width, width);
        let scale = 1.0 / (width as f32).sqrt();
        multiply(&mut self.scores, count, (operand(0), operand(1).transposed()), scale, false, Threads::One);
        for (query, line) in self.scores.chunks_exact_mut(count).enumerate() {
            for (key, score) in line.iter_mut().enumerate() {
                let dy = query / side + side - 1 - key / side;
                let dx = query % side + side - 1 - key % side;
                *score += bias[(dy * (2 * side - 1) + dx) * heads + head];
                if self.parts[query] != self.parts[key] {
                    *score += APART;
                }
            }
            soften(line);
        }
        let weights = Matrix::new(&self.scores, count, count, count);
        multiply(&mut self.out, width, (weights, operand(2)), 1.0, false, Threads::One);
    }
}

/// softmax in place
fn soften(line: &mut [f32]) {
    vectorised!({
        let largest = line.iter().fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
        line.iter_mut().for_each(|v| *v = exp(*v - largest));
        let total: f32 = line.iter().sum();
        line.iter_mut().for_each(|v| *v /= total);
    });
}
