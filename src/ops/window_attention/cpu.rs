//! Window attention on the CPU: a task is all heads of one window, gathered to scratch.

use rayon::prelude::*;

use super::Windows;
use crate::error::Result;
use crate::ops::host::bf16::Shared;
use crate::ops::host::element::{HostElement, narrow_all, widen_all};
use crate::ops::host::math::{exp, vectorised};
use crate::ops::host::matmul::{Matrix, Threads, multiply};
use crate::tensor::Tensor;

/// What the mask adds between parts of the image that the roll has joined.
const APART: f32 = -100.0;

pub fn window_attention<T: HostElement>(
    [n, h, w]: [usize; 3],
    windows: Windows,
    qkv: &Tensor,
    bias: &Tensor,
    result: &mut [T],
) -> Result<()> {
    let (qkv, bias) = (qkv.host::<T>()?, bias.host::<f32>()?);
    let Windows { side, heads, width, .. } = windows;
    let all = heads * width;
    assert_eq!(result.len(), n * h * w * all);
    let shared = Shared::new(result);
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
                    // SAFETY: each pixel lies in one window, the heads of a window are one task's, and `result` is
                    // borrowed throughout.
                    narrow_all(line, unsafe { shared.slice(start, width) });
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

    fn run<T: HostElement>(&mut self, head: usize, qkv: &[T], bias: &[f32], windows: Windows) {
        let Windows { side, heads, width, .. } = windows;
        let (count, all) = (side * side, heads * width);
        for (which, operand) in self.operands.chunks_exact_mut(count * width).enumerate() {
            for (line, place) in operand.chunks_exact_mut(width).zip(&self.places) {
                widen_all(&qkv[place * 3 * all + which * all + head * width..][..width], line);
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
