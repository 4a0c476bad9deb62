//! Winograd's F(2x2, 3x3) on the CPU: 16 products per 2x2 outputs instead of 36 (Lavin and Gray, 2016).
//!
//! A 4x4 patch d of the normalised, padded band becomes V = B^T d B, the weights g become U = G g G^T once, and
//! the 2x2 outputs are A^T (sum over channels of U * V) A: sixteen matrix products [tiles, C] x [C, O], one for
//! each place of the 4x4 grid. All factors are 0, 1/2 and 1, so f32 loses about one bit against the direct sum.

use rayon::prelude::*;

use super::cpu::{Chunk, Piece, SHARE, is_narrow};
use crate::ops::host::math::vectorised;
use crate::ops::host::matmul::{Matrix, Threads, multiply};
use crate::ops::host::rows::HostEpilogue;

/// Places of the 4x4 grid.
pub const PLACES: usize = 16;
/// Tiles, of four pixels each, that a thread takes at once in a narrow convolution.
const SHARE_TILES: usize = SHARE / 4;
/// Channels that are transformed at once.
pub const LANES: usize = 8;

type Lanes = [f32; LANES];

#[inline(always)]
fn load(values: &[f32], start: usize) -> Lanes {
    let mut lanes = [0.0; LANES];
    lanes.copy_from_slice(&values[start..start + LANES]);
    lanes
}

#[inline(always)]
fn zip(a: Lanes, b: Lanes, f: impl Fn(f32, f32) -> f32) -> Lanes {
    let mut result = [0.0; LANES];
    for i in 0..LANES {
        result[i] = f(a[i], b[i]);
    }
    result
}

#[inline(always)]
fn add(a: Lanes, b: Lanes) -> Lanes {
    zip(a, b, |a, b| a + b)
}

#[inline(always)]
fn sub(a: Lanes, b: Lanes) -> Lanes {
    zip(a, b, |a, b| a - b)
}

/// B^T along one axis.
#[inline(always)]
fn input_axis([a, b, c, d]: [Lanes; 4]) -> [Lanes; 4] {
    [sub(a, c), add(b, c), sub(c, b), sub(b, d)]
}

/// A^T along one axis.
#[inline(always)]
fn output_axis([a, b, c, d]: [Lanes; 4]) -> [Lanes; 2] {
    [add(add(a, b), c), sub(sub(b, c), d)]
}

/// G along one axis, as factors of the three taps.
const G: [[f32; 3]; 4] = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]];

/// Weights [O, C, 3, 3] -> [C, 16, O].
pub fn transform_weights(values: &[f32], c: usize, o: usize, result: &mut [f32]) {
    result.par_chunks_exact_mut(PLACES * o).enumerate().for_each(|(channel, row)| {
        for output in 0..o {
            let taps = &values[(output * c + channel) * 9..][..9];
            // along the rows of the kernel, then along its columns
            let across: [[f32; 4]; 3] =
                std::array::from_fn(|i| G.map(|g| dot(g, [0, 1, 2].map(|j| taps[3 * i + j]))));
            for (i, g) in G.into_iter().enumerate() {
                for j in 0..4 {
                    row[(i * 4 + j) * o + output] = dot(g, across.map(|line| line[j]));
                }
            }
        }
    });
}

fn dot(a: [f32; 3], b: [f32; 3]) -> f32 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

/// Transformed weights [C, 16, O] as the products take them.
#[derive(Clone, Copy)]
pub struct Weight<'a> {
    pub values: &'a [f32],
    pub c: usize,
    pub o: usize,
    /// the kernel turned by half a turn and from O to C: what the gradient of the input is convolved with
    pub turned: bool,
}

impl<'a> Weight<'a> {
    /// The matrix of one place of the grid, [C, O], or [O, C] when turned.
    ///
    /// Reversing a kernel swaps the first and the last row of G g and keeps the others.
    fn matrix(&self, place: usize) -> Matrix<'a> {
        let reversed = |i: usize| [3, 1, 2, 0][i];
        let stride = PLACES * self.o;
        let at = |place: usize| Matrix::new(&self.values[place * self.o..], self.c, self.o, stride);
        match self.turned {
            false => at(place),
            true => at(reversed(place / 4) * 4 + reversed(place % 4)).transposed(),
        }
    }
}

impl Chunk<'_> {
    /// Tiles of the chunk, and in each row of tiles.
    fn tiles(&self) -> (usize, usize) {
        let across = self.g.out_w / 2;
        (self.pieces.len() * self.band.rows / 2 * across, across)
    }

    /// Computes the chunk from its band `planes`; `rest` holds the transformed inputs and the sums.
    pub fn winograd(
        &self,
        planes: &[f32],
        weight: Weight,
        rest: &mut [f32],
        end: &HostEpilogue,
        result: &mut [f32],
    ) {
        let (c, o) = (self.g.c, self.g.o);
        let (tiles, across) = self.tiles();
        let (inputs, sums) = rest.split_at_mut(tiles * PLACES * c);
        inputs.par_chunks_exact_mut(across * PLACES * c).enumerate().for_each(|(row, line)| {
            let rows = self.band.rows / 2;
            let first = self.pieces[row / rows].base + row % rows * 2;
            let width = self.band.plane_w * c;
            // The zeros right of a row are those left of the next: one pixel more.
            let band: [&[f32]; 4] = std::array::from_fn(|i| &planes[(first + i) * width..][..width + c]);
            vectorised!({ transform_inputs(band, c, line) });
        });
        let all_places = |inputs: &[f32], sums: &mut [f32], threads: Threads| {
            let tiles = sums.len() / (PLACES * o);
            for place in 0..PLACES {
                let product = (Matrix::new(&inputs[place * c..], tiles, c, PLACES * c), weight.matrix(place));
                multiply(&mut sums[place * o..], PLACES * o, product, 1.0, false, threads);
            }
        };
        let sums = &mut sums[..tiles * PLACES * o];
        match is_narrow(self.g) {
            true => sums
                .par_chunks_mut(SHARE_TILES * PLACES * o)
                .zip(inputs.par_chunks(SHARE_TILES * PLACES * c))
                .for_each(|(sums, inputs)| all_places(inputs, sums, Threads::One)),
            false => all_places(inputs, sums, Threads::All),
        }
        for (index, piece) in self.pieces.iter().enumerate() {
            let rows = self.band.rows / 2;
            let sums = &sums[index * rows * across * PLACES * o..];
            let width = 2 * self.g.out_w * o;
            self.lines(piece, result).par_chunks_exact_mut(width).enumerate().for_each(|(row, lines)| {
                let sums = &sums[row * across * PLACES * o..][..across * PLACES * o];
                vectorised!({ transform_outputs(sums, o, lines) });
                self.finish_pair(piece, row, end, lines);
            });
        }
    }

    fn finish_pair(&self, piece: &Piece, row: usize, end: &HostEpilogue, lines: &mut [f32]) {
        let width = lines.len() / 2;
        let (upper, lower) = lines.split_at_mut(width);
        self.finish(piece, 2 * row, end, upper);
        self.finish(piece, 2 * row + 1, end, lower);
    }
}

/// Four rows of the band, [plane_w + 1, C] each -> [tiles, 16, C].
#[inline(always)]
fn transform_inputs(band: [&[f32]; 4], c: usize, line: &mut [f32]) {
    for (tile, out) in line.chunks_exact_mut(PLACES * c).enumerate() {
        for lane in (0..c).step_by(LANES) {
            let patch: [[Lanes; 4]; 4] =
                std::array::from_fn(|i| std::array::from_fn(|j| load(band[i], (2 * tile + j) * c + lane)));
            // along the columns of the patch, then along its rows
            let down: [[Lanes; 4]; 4] =
                std::array::from_fn(|j| input_axis([patch[0][j], patch[1][j], patch[2][j], patch[3][j]]));
            for i in 0..4 {
                let row = input_axis([down[0][i], down[1][i], down[2][i], down[3][i]]);
                for (j, lanes) in row.iter().enumerate() {
                    out[(i * 4 + j) * c + lane..][..LANES].copy_from_slice(lanes);
                }
            }
        }
    }
}

/// [tiles, 16, O] -> two rows of the result, [out_w, O] each.
#[inline(always)]
fn transform_outputs(sums: &[f32], o: usize, lines: &mut [f32]) {
    let width = lines.len() / 2;
    for (tile, sums) in sums.chunks_exact(PLACES * o).enumerate() {
        for lane in (0..o).step_by(LANES) {
            let at = |i: usize, j: usize| load(sums, (i * 4 + j) * o + lane);
            let down: [[Lanes; 2]; 4] =
                std::array::from_fn(|j| output_axis([at(0, j), at(1, j), at(2, j), at(3, j)]));
            for i in 0..2 {
                let row = output_axis([down[0][i], down[1][i], down[2][i], down[3][i]]);
                for (j, lanes) in row.iter().enumerate() {
                    lines[i * width + (2 * tile + j) * o + lane..][..LANES].copy_from_slice(lanes);
                }
            }
        }
    }
}
