//! Convolution on the CPU as matrix products without a column buffer.
//!
//! A chunk of output rows needs a band of input rows. The band is written once to scratch, normalised,
//! upsampled and zero-padded, as `stride * stride` planes (a plane holds the pixels of one row and column
//! parity). In the band, tap (dy, dx) of every output pixel of the chunk is a matrix [pixels, C] with the
//! constant row stride C: so a tap is one product, shifted, and the taps accumulate in place. Sums that
//! fall on padding are computed and dropped. There is little of it: the zeros right of a row are those left
//! of the next, and the zeros below an image those above the next, so it is 1 column of W + 1.
//!
//! Few inputs (an image's 3 channels) would make thin products: their taps are laid side by side first.
//! Few outputs (an image, a map) likewise: one product gives all taps' contributions, which are gathered.

use rayon::prelude::*;

use super::weight::{Algorithm, FEW_INPUTS, FEW_OUTPUTS};
use super::winograd;
use super::{Affine, Conv2d, ConvWeight, Geometry};
use crate::error::Result;
use crate::ops::Epilogue;
use crate::ops::host::element::HostElement;
use crate::ops::host::math::vectorised;
use crate::ops::host::matmul::{Matrix, Threads, multiply};
use crate::ops::host::rows::{HostAffine, HostEpilogue, Pixels};

/// Output pixels of a chunk: enough that packing the weights again for every chunk does not matter.
const CHUNK_PIXELS: usize = 4096;
/// Most scratch of one convolution, in elements; a single row may exceed it.
const MOST_SCRATCH: usize = 16 << 20;
/// Weights of a tap, C x O, up to which the product of a chunk is over in some tenths of a millisecond at most, when a
/// pool's threads have hardly met: the pixels, or the taps, are then shared out once, and each thread multiplies by
/// itself.
const NARROW: usize = 64 * 64;
/// Pixels that a thread takes at once in a narrow convolution. A constant, so that the sums are the same whatever the
/// number of threads.
pub(super) const SHARE: usize = 512;

/// True when the products of a tap are too small for several threads.
pub(super) fn is_narrow(g: &Geometry) -> bool {
    g.c * g.o <= NARROW
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Method {
    /// 1x1: one product per segment, straight from the input.
    Pointwise,
    Shifted,
    /// 3x3 over an even image: see `winograd.rs`
    Winograd,
    Columns,
    Gathered,
    /// by the microkernels of bf16: see `bf16.rs`
    Panels,
}

/// How a convolution is cut into bands: a pure function of its geometry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Band {
    pub(super) method: Method,
    /// output rows per chunk; a chunk may span images
    pub(super) rows: usize,
    /// width of a plane in pixels
    pub(super) plane_w: usize,
    /// rows and columns that the last tap lies beyond the first
    halo: usize,
    /// zeros that neighbouring rows, and neighbouring images, have in common
    shared: usize,
    /// images that may share a chunk
    pub(super) images: usize,
}

impl Band {
    fn of(g: &Geometry, direct: bool, algorithm: Algorithm) -> Self {
        let method = match () {
            () if algorithm == Algorithm::Winograd => Method::Winograd,
            () if g.kernel == 1 && g.zoom == 1 && (g.out_h, g.out_w) == (g.h, g.w) && direct => {
                Method::Pointwise
            }
            () if g.o <= FEW_OUTPUTS => Method::Gathered,
            () if g.c <= FEW_INPUTS => Method::Columns,
            () => Method::Shifted,
        };
        Self::fit(g, method)
    }

    /// As many rows, and then images, as scratch allows.
    pub(super) fn fit(g: &Geometry, method: Method) -> Self {
        let halo = (g.kernel - 1).div_ceil(g.stride);
        // What is padded left is padded right as well, in the same plane when there is but one.
        let shared = if g.stride == 1 { g.pad } else { 0 };
        let plane_w = g.out_w + halo - shared;
        // Winograd's tiles are two rows high.
        let unit = if method == Method::Winograd { 2 } else { 1 };
        let mut band = Band { method, rows: unit, plane_w, halo, shared, images: 1 };
        let fits = |band: &Band| {
            band.rows * plane_w <= CHUNK_PIXELS.max(plane_w) && band.elements(g) <= MOST_SCRATCH
        };
        let rows = (1..=g.out_h / unit).rev().map(|units| Band { rows: units * unit, ..band });
        band = rows.into_iter().find(fits).unwrap_or(band);
        if band.rows == g.out_h {
            let share = |images: usize| Band { images, ..band };
            let fits =
                |b: &Band| b.images * b.rows * plane_w <= CHUNK_PIXELS && b.elements(g) <= MOST_SCRATCH;
            band = (1..=g.n).rev().map(share).find(fits).unwrap_or(band);
        }
        band
    }

    /// Plane rows from one piece to the next.
    pub(super) fn piece_rows(&self) -> usize {
        self.rows + self.halo - self.shared
    }

    /// Plane rows of a chunk.
    pub(super) fn plane_rows(&self) -> usize {
        self.images * self.piece_rows() + self.shared
    }

    /// Pixels of a plane that a tap can read.
    pub(super) fn pixels(&self) -> usize {
        self.plane_rows() * self.plane_w + self.halo
    }

    /// Elements of one plane.
    pub(super) fn plane(&self, g: &Geometry) -> usize {
        self.pixels() * g.c
    }

    /// Rows of the products: every pixel of the planes that can be an output's first tap.
    pub(super) fn sums(&self) -> usize {
        (self.plane_rows() - self.halo) * self.plane_w
    }

    /// Scratch in f32 elements.
    pub(super) fn elements(&self, g: &Geometry) -> usize {
        let planes = g.stride * g.stride * self.plane(g);
        let taps = g.kernel * g.kernel;
        match self.method {
            Method::Pointwise => 0,
            // two to an f32
            Method::Panels => planes.div_ceil(2),
            Method::Shifted => planes + self.sums() * g.o,
            Method::Winograd => {
                planes + self.images * self.rows / 2 * (g.out_w / 2) * winograd::PLACES * (g.c + g.o)
            }
            Method::Columns => planes + self.sums() * (taps * g.c + g.o),
            Method::Gathered => planes + self.pixels() * taps * g.o * g.stride * g.stride,
        }
    }
}

pub(super) fn direct(conv: &Conv2d) -> bool {
    conv.prologue.is_none() && conv.input.parts().iter().all(|part| part.plus.is_none())
}

/// Scratch that [`conv2d`] needs, in f32 elements.
pub fn scratch(g: &Geometry, conv: &Conv2d, weight: &ConvWeight) -> usize {
    Band::of(g, direct(conv), weight.algorithm()).elements(g)
}

/// Rows of one image inside a chunk.
#[derive(Clone, Copy)]
pub(super) struct Piece {
    pub(super) image: usize,
    pub(super) first_row: usize,
    pub(super) rows: usize,
    /// first plane row
    pub(super) base: usize,
}

/// Computes `result` [N, H', W', O]; `scratch` has at least [`scratch`] elements.
pub fn conv2d(
    g: &Geometry,
    conv: &Conv2d,
    weight: &ConvWeight,
    epilogue: &Epilogue,
    scratch: &mut [f32],
    result: &mut [f32],
) -> Result<()> {
    let band = Band::of(g, direct(conv), weight.algorithm());
    let pixels = Pixels::new(&conv.input)?;
    let weight = weight.packed().host::<f32>()?;
    let epilogue = HostEpilogue::new(epilogue)?;
    if band.method == Method::Pointwise {
        pointwise(g, &pixels, weight, result);
        epilogue.finish_all(result, g.o, g.out_h * g.out_w);
        return Ok(());
    }
    let affine = host_affine(conv)?;
    for_chunks(g, band, |chunk| {
        let (planes, rest) = scratch.split_at_mut(g.stride * g.stride * chunk.band.plane(g));
        chunk.load(&pixels, affine, planes);
        match band.method {
            Method::Gathered => chunk.gathered(planes, weight, rest, &epilogue, result),
            Method::Winograd => {
                let weight = winograd::Weight { values: weight, c: g.c, o: g.o, turned: false };
                chunk.winograd(planes, weight, rest, &epilogue, result);
            }
            Method::Columns => chunk.columns(planes, weight, rest, &epilogue, result),
            _ => chunk.shifted(planes, weight, rest, &epilogue, result),
        }
    });
    Ok(())
}

/// The prologue in host memory.
pub(super) fn host_affine<'a>(conv: &Conv2d<'a>) -> Result<Option<HostAffine<'a>>> {
    let view = |affine: &'a Affine| -> Result<_> {
        Ok(HostAffine { coefficients: affine.coefficients.host()?, activation: affine.activation })
    };
    conv.prologue.map(view).transpose()
}

/// Hands the chunks of a convolution to `work`, one after the other.
pub(super) fn for_chunks(g: &Geometry, band: Band, mut work: impl FnMut(&Chunk)) {
    let mut images = 0;
    while images < g.n {
        let together = band.images.min(g.n - images);
        for first_row in (0..g.out_h).step_by(band.rows) {
            let rows = band.rows.min(g.out_h - first_row);
            let pieces: Vec<Piece> = (0..together)
                .map(|i| Piece {
                    image: images + i,
                    first_row,
                    rows,
                    base: i * Band { rows, ..band }.piece_rows(),
                })
                .collect();
            work(&Chunk { g, band: Band { rows, images: together, ..band }, pieces: &pieces });
        }
        images += together;
    }
}

/// A 1x1 convolution: one product for each segment, accumulated.
fn pointwise(g: &Geometry, pixels: &Pixels, weight: &[f32], result: &mut [f32]) {
    let count = g.n * g.h * g.w;
    let mut first = 0;
    for (data, c) in pixels.plain_parts().unwrap_or_default() {
        let part = Matrix::new(&weight[first * g.o..], c, g.o, g.o);
        multiply(result, g.o, (Matrix::new(data, count, c, c), part), 1.0, first > 0, Threads::All);
        first += c;
    }
}

pub(super) struct Chunk<'a> {
    pub(super) g: &'a Geometry,
    pub(super) band: Band,
    pub(super) pieces: &'a [Piece],
}

impl Chunk<'_> {
    /// Plane and pixel offset of a tap.
    pub(super) fn tap(&self, tap: usize) -> (usize, usize) {
        let (dy, dx) = (tap / self.g.kernel, tap % self.g.kernel);
        let s = self.g.stride;
        ((dy % s) * s + dx % s, (dy / s) * self.band.plane_w + dx / s)
    }

    /// Writes the band: normalised, upsampled, padded, split by parity. Pixels lie `g.c` elements apart, which may
    /// be more than the channels: the rest is zero.
    pub(super) fn load<T: HostElement>(
        &self,
        pixels: &Pixels<T>,
        affine: Option<HostAffine>,
        planes: &mut [T],
    ) {
        let g = self.g;
        let (s, c, channels) = (g.stride, g.c, pixels.channels());
        let plane = self.band.plane(g);
        let width = self.band.plane_w * c;
        let piece_rows = self.band.piece_rows();
        let as_stored = affine.is_none() && pixels.plain_parts().is_some();
        for (parity, plane) in planes.chunks_exact_mut(plane).take(s * s).enumerate() {
            let (py, px) = (parity / s, parity % s);
            let (body, slack) = plane.split_at_mut(self.band.plane_rows() * width);
            slack.fill(T::zeroed());
            let buffer = || vec![0.0; T::buffer(channels)];
            body.par_chunks_exact_mut(width).enumerate().for_each_init(buffer, |buffer, (row, line)| {
                let piece = self.pieces[(row / piece_rows).min(self.pieces.len() - 1)];
                // the padded image's row this plane row stands for
                let y = (piece.first_row + row - piece.base) * s + py;
                let Some(y) = y.checked_sub(g.pad).filter(|y| *y < g.h * g.zoom) else {
                    return line.fill(T::zeroed());
                };
                let source = (piece.image * g.h + y / g.zoom) * g.w;
                vectorised!({
                    for (i, pixel) in line.chunks_exact_mut(c).enumerate() {
                        let Some(x) = (i * s + px).checked_sub(g.pad).filter(|x| *x < g.w * g.zoom) else {
                            pixel.fill(T::zeroed());
                            continue;
                        };
                        let (pixel, rest) = pixel.split_at_mut(channels);
                        rest.fill(T::zeroed());
                        let index = source + x / g.zoom;
                        if as_stored {
                            pixels.copy(index, pixel);
                            continue;
                        }
                        T::fill(
                            pixel,
                            buffer,
                            #[inline(always)]
                            |values| {
                                pixels.read(index, values);
                                if let Some(affine) = affine {
                                    affine.apply(piece.image, values);
                                }
                            },
                        );
                    }
                });
            });
        }
    }

    fn shifted(
        &self,
        planes: &[f32],
        weight: &[f32],
        sums: &mut [f32],
        end: &HostEpilogue,
        result: &mut [f32],
    ) {
        let (c, o) = (self.g.c, self.g.o);
        let plane = self.band.plane(self.g);
        let all_taps = |first: usize, sums: &mut [f32], threads: Threads| {
            for tap in 0..self.g.kernel * self.g.kernel {
                let (parity, offset) = self.tap(tap);
                let start = parity * plane + (first + offset) * c;
                let band = Matrix::new(&planes[start..], sums.len() / o, c, c);
                let part = Matrix::new(&weight[tap * c * o..], c, o, o);
                multiply(sums, o, (band, part), 1.0, tap > 0, threads);
            }
        };
        let sums = &mut sums[..self.band.sums() * o];
        match is_narrow(self.g) {
            true => sums
                .par_chunks_mut(SHARE * o)
                .enumerate()
                .for_each(|(share, sums)| all_taps(share * SHARE, sums, Threads::One)),
            false => all_taps(0, sums, Threads::All),
        }
        self.store(sums, end, result);
    }

    fn columns(
        &self,
        planes: &[f32],
        weight: &[f32],
        rest: &mut [f32],
        end: &HostEpilogue,
        result: &mut [f32],
    ) {
        let (c, o) = (self.g.c, self.g.o);
        let (plane, taps) = (self.band.plane(self.g), self.g.kernel * self.g.kernel);
        let width = taps * c;
        let (columns, sums) = rest.split_at_mut(self.band.sums() * width);
        columns.par_chunks_mut(width * 256).enumerate().for_each(|(block, lines)| {
            for (i, line) in lines.chunks_exact_mut(width).enumerate() {
                for (tap, place) in line.chunks_exact_mut(c).enumerate() {
                    let (parity, offset) = self.tap(tap);
                    place.copy_from_slice(&planes[parity * plane + (block * 256 + i + offset) * c..][..c]);
                }
            }
        });
        let band = Matrix::new(columns, self.band.sums(), width, width);
        multiply(sums, o, (band, Matrix::new(weight, width, o, o)), 1.0, false, Threads::All);
        self.store(sums, end, result);
    }

    /// Rows of `result` that belong to `piece`.
    pub(super) fn lines<'r>(&self, piece: &Piece, result: &'r mut [f32]) -> &'r mut [f32] {
        let g = self.g;
        let start = (piece.image * g.out_h + piece.first_row) * g.out_w * g.o;
        &mut result[start..][..piece.rows * g.out_w * g.o]
    }

    /// Finishes the sums and drops the padding columns.
    fn store(&self, sums: &[f32], end: &HostEpilogue, result: &mut [f32]) {
        let g = self.g;
        let width = g.out_w * g.o;
        for piece in self.pieces {
            self.lines(piece, result).par_chunks_exact_mut(width).enumerate().for_each(|(row, line)| {
                line.copy_from_slice(&sums[(piece.base + row) * self.band.plane_w * g.o..][..width]);
                self.finish(piece, row, end, line);
            });
        }
    }

    pub(super) fn finish(&self, piece: &Piece, row: usize, end: &HostEpilogue, line: &mut [f32]) {
        let g = self.g;
        let first = (piece.image * g.out_h + piece.first_row + row) * g.out_w;
        vectorised!({
            for (x, pixel) in line.chunks_exact_mut(g.o).enumerate() {
                end.finish(piece.image, first + x, pixel);
            }
        });
    }

    fn gathered(
        &self,
        planes: &[f32],
        weight: &[f32],
        parts: &mut [f32],
        end: &HostEpilogue,
        result: &mut [f32],
    ) {
        let g = self.g;
        let taps = g.kernel * g.kernel;
        let width = taps * g.o;
        let count = self.band.pixels();
        for (parity, plane) in planes.chunks_exact(self.band.plane(g)).enumerate() {
            let product = (Matrix::new(plane, count, g.c, g.c), Matrix::new(weight, g.c, width, width));
            multiply(&mut parts[parity * count * width..], width, product, 1.0, false, Threads::All);
        }
        for piece in self.pieces {
            self.lines(piece, result).par_chunks_exact_mut(g.out_w * g.o).enumerate().for_each(
                |(row, line)| {
                    for (x, pixel) in line.chunks_exact_mut(g.o).enumerate() {
                        pixel.fill(0.0);
                        let first = (piece.base + row) * self.band.plane_w + x;
                        for tap in 0..taps {
                            let (parity, offset) = self.tap(tap);
                            let part = &parts[(parity * count + first + offset) * width + tap * g.o..][..g.o];
                            pixel.iter_mut().zip(part).for_each(|(v, p)| *v += p);
                        }
                    }
                    self.finish(piece, row, end, line);
                },
            );
        }
    }
}
