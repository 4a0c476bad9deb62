//! The gradients of a convolution on the CPU: the forward's bands and shifted products, run the other way.
//!
//! The gradient of the result is laid out like the forward's sums, zeros where those were dropped. For the
//! input, tap by tap, its product with the weights adds to the band at the tap's shift; what the band holds
//! in the end is gathered by the pixels that it was loaded from. For the weights, each tap is the product of
//! the sums with the band at the tap's shift. Where the forward runs Winograd's algorithm the input's gradient
//! does too: it is the convolution of the result's with the turned kernel.

use rayon::prelude::*;

use super::cpu::{Band, Chunk, Method, SHARE, direct, for_chunks, host_affine, is_narrow};
use super::weight::{Algorithm, FEW_INPUTS, FEW_OUTPUTS};
use super::{Conv2d, ConvWeight, Geometry, winograd};
use crate::error::Result;
use crate::ops::host::math::vectorised;
use crate::ops::host::matmul::{Matrix, Threads, multiply};
use crate::ops::host::rows::{HostEpilogue, Pixels};
use crate::ops::{Epilogue, Segments};
use crate::tensor::Tensor;

/// True when input and result are the same matrix rows.
fn is_pointwise(g: &Geometry) -> bool {
    g.kernel == 1 && g.stride == 1 && g.zoom == 1 && (g.out_h, g.out_w) == (g.h, g.w)
}

/// The convolution that gives the gradient of the (doubled) input of one that runs Winograd's algorithm.
fn turned(g: &Geometry) -> Geometry {
    Geometry { h: g.out_h, w: g.out_w, c: g.o, zoom: 1, o: g.c, ..*g }
}

/// Elements per output pixel that a tap's contributions need beside the band.
fn extra(g: &Geometry) -> usize {
    let taps = g.kernel * g.kernel;
    match () {
        () if g.o <= FEW_OUTPUTS && g.stride == 1 => taps * g.o,
        () if g.c <= FEW_INPUTS && g.o > FEW_OUTPUTS => taps * g.c,
        () => 0,
    }
}

/// Scratch of [`input_gradient`] in f32 elements.
pub fn input_scratch(g: &Geometry, weight: &ConvWeight) -> usize {
    match weight.algorithm() {
        Algorithm::Winograd => {
            let doubled = if g.zoom == 2 { g.n * g.out_h * g.out_w * g.c } else { 0 };
            let g = turned(g);
            doubled + Band::fit(&g, Method::Winograd).elements(&g)
        }
        Algorithm::Direct if is_pointwise(g) => 0,
        Algorithm::Direct => {
            let band = Band::fit(g, Method::Shifted);
            band.elements(g) + extra(g) * band.pixels()
        }
    }
}

/// Fills `result` [N, H, W, C] with `scale` times the gradient of what was convolved.
pub fn input_gradient(
    g: &Geometry,
    weight: &ConvWeight,
    gradient: &Tensor,
    scale: f32,
    (scratch, result): (&mut [f32], &mut [f32]),
) -> Result<()> {
    let values = weight.packed().host::<f32>()?;
    if weight.algorithm() == Algorithm::Winograd {
        return by_winograd(g, values, gradient, scale, (scratch, result));
    }
    let gradient = gradient.host::<f32>()?;
    if is_pointwise(g) {
        let product = (
            Matrix::new(gradient, g.n * g.h * g.w, g.o, g.o),
            Matrix::new(values, g.c, g.o, g.o).transposed(),
        );
        multiply(result, g.c, product, scale, false, Threads::All);
        return Ok(());
    }
    result.fill(0.0);
    let taps = g.kernel * g.kernel;
    for_chunks(g, Band::fit(g, Method::Shifted), |chunk| {
        let (band, sums) = (chunk.band, chunk.band.sums());
        let plane = band.plane(g);
        let (planes, rest) = scratch.split_at_mut(g.stride * g.stride * plane);
        let (rows, rest) = rest.split_at_mut(sums * g.o);
        chunk.lay_out(gradient, rows);
        if g.o <= FEW_OUTPUTS && g.stride == 1 {
            // [C, taps, O]: all taps in one product
            let columns = &mut rest[..band.pixels() * taps * g.o];
            chunk.taps_of_rows(rows, columns);
            let width = taps * g.o;
            let product = (
                Matrix::new(columns, band.pixels(), width, width),
                Matrix::new(values, g.c, width, width).transposed(),
            );
            multiply(planes, g.c, product, scale, false, Threads::All);
        } else {
            planes.fill(0.0);
            let source = Matrix::new(rows, sums, g.o, g.o);
            if extra(g) > 0 {
                // [taps, C, O]: all taps in one product, then each to its place
                let (parts, width) = (&mut rest[..sums * taps * g.c], taps * g.c);
                let product = (source, Matrix::new(values, width, g.o, g.o).transposed());
                multiply(parts, width, product, scale, false, Threads::All);
                for tap in 0..taps {
                    let (parity, offset) = chunk.tap(tap);
                    let place = &mut planes[parity * plane + offset * g.c..][..sums * g.c];
                    place.par_chunks_mut(g.c).zip(parts.par_chunks(width)).for_each(|(place, parts)| {
                        place.iter_mut().zip(&parts[tap * g.c..]).for_each(|(v, p)| *v += p);
                    });
                }
            } else {
                let turned = |tap: usize| {
                    let (start, stride) = match g.o <= FEW_OUTPUTS {
                        true => (tap * g.o, taps * g.o),
                        false => (tap * g.c * g.o, g.o),
                    };
                    Matrix::new(&values[start..], g.c, g.o, stride).transposed()
                };
                if is_narrow(g) {
                    chunk.spread(rows, &turned, scale, planes);
                } else {
                    for tap in 0..taps {
                        let (parity, offset) = chunk.tap(tap);
                        let place = &mut planes[parity * plane + offset * g.c..];
                        multiply(place, g.c, (source, turned(tap)), scale, true, Threads::All);
                    }
                }
            }
        }
        chunk.unload(planes, result);
    });
    Ok(())
}

fn by_winograd(
    g: &Geometry,
    values: &[f32],
    gradient: &Tensor,
    scale: f32,
    (scratch, result): (&mut [f32], &mut [f32]),
) -> Result<()> {
    let other = turned(g);
    let segments = Segments::one(gradient);
    let pixels = Pixels::<f32>::new(&segments)?;
    let end = HostEpilogue::new(&Epilogue { scale, ..Epilogue::default() })?;
    let weight = winograd::Weight { values, c: g.c, o: g.o, turned: true };
    let doubled = if g.zoom == 2 { g.n * g.out_h * g.out_w * g.c } else { 0 };
    let (doubled, scratch) = scratch.split_at_mut(doubled);
    let out = if g.zoom == 2 { &mut *doubled } else { &mut *result };
    for_chunks(&other, Band::fit(&other, Method::Winograd), |chunk| {
        let (planes, rest) = scratch.split_at_mut(chunk.band.plane(&other));
        chunk.load(&pixels, None, planes);
        chunk.winograd(planes, weight, rest, &end, out);
    });
    if g.zoom == 2 {
        let row = 2 * g.w * g.c;
        result.par_chunks_exact_mut(g.w * g.c).zip(doubled.par_chunks_exact(2 * row)).for_each(
            |(line, pair)| {
                let (upper, lower) = pair.split_at(row);
                for (x, pixel) in line.chunks_exact_mut(g.c).enumerate() {
                    let four = [upper, lower].map(|line| line[2 * x * g.c..][..2 * g.c].split_at(g.c));
                    for (i, v) in pixel.iter_mut().enumerate() {
                        *v = (four[0].0[i] + four[0].1[i]) + (four[1].0[i] + four[1].1[i]);
                    }
                }
            },
        );
    }
    Ok(())
}

/// Scratch of [`weight_gradient`] in f32 elements.
pub fn weight_scratch(g: &Geometry, conv: &Conv2d) -> usize {
    match is_pointwise(g) && direct(conv) {
        true => 0,
        false => Band::fit(g, Method::Shifted).elements(g) + g.kernel * g.kernel * g.o * g.c,
    }
}

/// Fills `result` [O, C, k, k] with `scale` times the gradient of the weights.
pub fn weight_gradient(
    g: &Geometry,
    conv: &Conv2d,
    gradient: &Tensor,
    scale: f32,
    (scratch, result): (&mut [f32], &mut [f32]),
) -> Result<()> {
    let pixels = Pixels::<f32>::new(&conv.input)?;
    let gradient = gradient.host::<f32>()?;
    if is_pointwise(g) && direct(conv) {
        let count = g.n * g.h * g.w;
        let mut first = 0;
        for (data, c) in pixels.plain_parts().unwrap_or_default() {
            let rows = Matrix::new(gradient, count, g.o, g.o).transposed();
            let product = (rows, Matrix::new(data, count, c, c));
            multiply(&mut result[first..], g.c, product, scale, false, Threads::All);
            first += c;
        }
        return Ok(());
    }
    let affine = host_affine(conv)?;
    let taps = g.kernel * g.kernel;
    // [taps, O, C]
    let (totals, scratch) = scratch.split_at_mut(taps * g.o * g.c);
    let mut started = false;
    for_chunks(g, Band::fit(g, Method::Shifted), |chunk| {
        let sums = chunk.band.sums();
        let plane = chunk.band.plane(g);
        let (planes, rest) = scratch.split_at_mut(g.stride * g.stride * plane);
        let rows = &mut rest[..sums * g.o];
        chunk.load(&pixels, affine, planes);
        chunk.lay_out(gradient, rows);
        let rows = Matrix::new(rows, sums, g.o, g.o).transposed();
        let one_tap = |(tap, total): (usize, &mut [f32]), threads: Threads| {
            let (parity, offset) = chunk.tap(tap);
            let band = Matrix::new(&planes[parity * plane + offset * g.c..], sums, g.c, g.c);
            multiply(total, g.c, (rows, band), scale, started, threads);
        };
        match is_narrow(g) {
            true => {
                let totals = totals.par_chunks_exact_mut(g.o * g.c).enumerate();
                totals.for_each(|total| one_tap(total, Threads::One));
            }
            false => {
                let totals = totals.chunks_exact_mut(g.o * g.c).enumerate();
                totals.for_each(|total| one_tap(total, Threads::All));
            }
        }
        started = true;
    });
    result.par_chunks_exact_mut(g.c * taps).enumerate().for_each(|(o, weights)| {
        for (c, weights) in weights.chunks_exact_mut(taps).enumerate() {
            for (tap, weight) in weights.iter_mut().enumerate() {
                *weight = totals[(tap * g.o + o) * g.c + c];
            }
        }
    });
    Ok(())
}

impl Chunk<'_> {
    /// Writes the gradient of the chunk's outputs to the places of their sums, zeros to the others.
    fn lay_out(&self, gradient: &[f32], rows: &mut [f32]) {
        let g = self.g;
        let (width, line) = (self.band.plane_w * g.o, g.out_w * g.o);
        rows.par_chunks_exact_mut(width).enumerate().for_each(|(row, place)| {
            let own = self.pieces.iter().find(|piece| (piece.base..piece.base + piece.rows).contains(&row));
            match own {
                None => place.fill(0.0),
                Some(piece) => {
                    let start = (piece.image * g.out_h + piece.first_row + row - piece.base) * line;
                    place[..line].copy_from_slice(&gradient[start..][..line]);
                    place[line..].fill(0.0);
                }
            }
        });
    }

    /// Adds to every pixel of the zeroed `planes` the products of the sums that read it, `rows`, with the matrices of
    /// their taps, [O, C].
    fn spread<'a>(
        &self,
        rows: &[f32],
        turned: &(impl Fn(usize) -> Matrix<'a> + Sync),
        scale: f32,
        planes: &mut [f32],
    ) {
        let g = self.g;
        let sums = self.band.sums();
        let all_taps = |own: usize, first: usize, place: &mut [f32]| {
            let end = first + place.len() / g.c;
            for tap in 0..g.kernel * g.kernel {
                let (parity, offset) = self.tap(tap);
                // the pixels of this share that the tap of some sum reads
                let (from, to) = (first.max(offset), end.min(offset + sums));
                if parity == own && from < to {
                    let source = Matrix::new(&rows[(from - offset) * g.o..], to - from, g.o, g.o);
                    let place = &mut place[(from - first) * g.c..];
                    multiply(place, g.c, (source, turned(tap)), scale, true, Threads::One);
                }
            }
        };
        for (own, plane) in planes.chunks_exact_mut(self.band.plane(g)).enumerate() {
            let shares = plane.par_chunks_mut(SHARE * g.c).enumerate();
            shares.for_each(|(share, place)| all_taps(own, share * SHARE, place));
        }
    }

    /// Lays side by side, for every pixel of a single plane, the rows of the sums that read it: tap after tap.
    fn taps_of_rows(&self, rows: &[f32], columns: &mut [f32]) {
        let (o, taps) = (self.g.o, self.g.kernel * self.g.kernel);
        let sums = self.band.sums();
        columns.par_chunks_exact_mut(taps * o).enumerate().for_each(|(pixel, line)| {
            for (tap, place) in line.chunks_exact_mut(o).enumerate() {
                let (_, offset) = self.tap(tap);
                match pixel.checked_sub(offset).filter(|row| *row < sums) {
                    Some(row) => place.copy_from_slice(&rows[row * o..][..o]),
                    None => place.fill(0.0),
                }
            }
        });
    }

    /// Adds what the band holds to the pixels that it was loaded from; what lies on padding is dropped.
    fn unload(&self, planes: &[f32], result: &mut [f32]) {
        let g = self.g;
        let (s, c, zoom) = (g.stride, g.c, g.zoom);
        let (plane, width) = (self.band.plane(g), self.band.plane_w * c);
        for piece in self.pieces {
            let band_rows = piece.rows + (self.band.plane_rows() - self.band.sums() / self.band.plane_w);
            let image = &mut result[piece.image * g.h * g.w * c..][..g.h * g.w * c];
            image.par_chunks_exact_mut(g.w * c).enumerate().for_each(|(y, line)| {
                for inner in 0..zoom {
                    // the row of the padded image, then of the band
                    let padded = y * zoom + inner + g.pad;
                    let Some(row) = padded.checked_sub(piece.first_row * s) else { continue };
                    if row / s >= band_rows {
                        continue;
                    }
                    let start = (piece.base + row / s) * width;
                    let own = |parity: usize| &planes[((row % s) * s + parity) * plane + start..][..width];
                    vectorised!({
                        for (x, pixel) in line.chunks_exact_mut(c).enumerate() {
                            for inner in 0..zoom {
                                let padded = x * zoom + inner + g.pad;
                                let place = padded / s;
                                if place < self.band.plane_w {
                                    let part = &own(padded % s)[place * c..][..c];
                                    pixel.iter_mut().zip(part).for_each(|(v, p)| *v += p);
                                }
                            }
                        }
                    });
                }
            });
        }
    }
}
