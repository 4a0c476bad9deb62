//! Convolution on the CPU in bf16: the band of `cpu.rs`, read by the microkernels where it lies.
//!
//! A pixel's channels are padded to whole steps, so tap (dy, dx) of a run of outputs is a span of rows that are one
//! pixel apart. All taps accumulate in registers, nothing is computed for the padding, and the sums are finished
//! while they are in cache.

use half::bf16;

use super::cpu::{Band, Chunk, Method, direct, for_chunks, host_affine};
use super::weight::ConvWeight;
use super::{Conv2d, Geometry};
use crate::device::Cpu;
use crate::error::Result;
use crate::ops::Epilogue;
use crate::ops::host::bf16::{
    Block, COLUMNS, Cut, Kernel, Layout, Panels, Product, STEP, Shared, rows_in_blocks,
};
use crate::ops::host::element::narrow_all;
use crate::ops::host::math::vectorised;
use crate::ops::host::rows::{HostEpilogue, Pixels};

/// How weights [O, C, k, k] are packed.
pub fn layout(o: usize, c: usize, taps: usize) -> Layout {
    Layout { outputs: o, channels: c, taps }
}

/// The geometry with channels as they lie in a band.
fn padded(g: &Geometry) -> Geometry {
    Geometry { c: g.c.next_multiple_of(STEP), ..*g }
}

/// The input of a 1x1 convolution that the microkernels can read as it is.
fn in_place<'a>(g: &Geometry, conv: &Conv2d<'a>) -> Option<&'a crate::tensor::Tensor> {
    let plain =
        g.kernel == 1 && g.zoom == 1 && g.stride == 1 && g.pad == 0 && (g.out_h, g.out_w) == (g.h, g.w);
    match conv.input.parts() {
        [part] if plain && direct(conv) && g.c.is_multiple_of(STEP) => Some(part.tensor),
        _ => None,
    }
}

/// Scratch that [`conv2d`] needs, in f32 elements.
pub fn scratch(g: &Geometry, conv: &Conv2d) -> usize {
    let padded = padded(g);
    match in_place(g, conv) {
        Some(_) => 0,
        None => Band::fit(&padded, Method::Panels).elements(&padded),
    }
}

/// What is the same for all chunks.
struct Finish<'a> {
    g: &'a Geometry,
    kernel: &'static Kernel,
    layout: Layout,
    weights: Panels<'a>,
    epilogue: HostEpilogue<'a, bf16>,
    result: Shared<bf16>,
}

/// Computes `result` [N, H', W', O]; `scratch` has at least [`scratch`] elements.
pub fn conv2d(
    cpu: &Cpu,
    g: &Geometry,
    conv: &Conv2d,
    weight: &ConvWeight,
    epilogue: &Epilogue,
    scratch: &mut [f32],
    result: &mut [bf16],
) -> Result<()> {
    let layout = layout(g.o, g.c, g.kernel * g.kernel);
    let all = Finish {
        g,
        kernel: Kernel::of(cpu.unit()),
        layout,
        weights: Panels::new(weight.packed().host()?, layout.depth()),
        epilogue: HostEpilogue::new(epilogue)?,
        result: Shared::new(result),
    };
    if let Some(input) = in_place(g, conv) {
        let rows = [(0, g.n * g.h * g.w, 0)];
        all.multiply(input.host()?, g.c, &rows_in_blocks(rows, g.c, all.kernel.rows()), |_| 0);
        return Ok(());
    }
    let pixels = Pixels::<bf16>::new(&conv.input)?;
    let affine = host_affine(conv)?;
    let padded = padded(g);
    let planes: &mut [bf16] = bytemuck::cast_slice_mut(scratch);
    for_chunks(&padded, Band::fit(&padded, Method::Panels), |chunk| {
        chunk.load(&pixels, affine, planes);
        let plane = chunk.band.plane(&padded);
        let tap = |tap: usize| {
            let (parity, offset) = chunk.tap(tap);
            parity * plane + offset * padded.c
        };
        all.multiply(planes, padded.c, &blocks(chunk, all.kernel), tap);
    });
    Ok(())
}

/// The rows of outputs of a chunk, each a run of the band.
fn blocks(chunk: &Chunk, kernel: &Kernel) -> Vec<Block> {
    let (g, band) = (chunk.g, &chunk.band);
    let runs = chunk.pieces.iter().flat_map(|piece| {
        (0..piece.rows).map(|row| {
            let first = (piece.base + row) * band.plane_w * g.c;
            (first, g.out_w, (piece.image * g.out_h + piece.first_row + row) * g.out_w)
        })
    });
    rows_in_blocks(runs, g.c, kernel.rows())
}

impl Finish<'_> {
    /// Multiplies and finishes `blocks`; tap t of a pixel is `tap(t)` elements from its first.
    fn multiply(&self, a: &[bf16], stride: usize, blocks: &[Block], tap: impl Fn(usize) -> usize) {
        let (o, area) = (self.g.o, self.g.out_h * self.g.out_w);
        let rows = blocks.iter().map(|block| block.rows).sum();
        let product = Product {
            kernel: self.kernel,
            a,
            stride,
            blocks,
            chunks: &self.layout.chunks(tap),
            weights: self.weights,
        };
        product.run(&Cut::of(rows, self.layout.panels()), |index, panels, sums| {
            let first = panels[0] * COLUMNS;
            let columns = sums.len().min(o - first);
            // SAFETY: no other task has these pixels and panels, and the result is borrowed throughout.
            let line = unsafe { self.result.slice(index * o + first, columns) };
            vectorised!({
                self.epilogue.finish_part(index / area, index, (first, o), &mut sums[..columns]);
                narrow_all(sums, line);
            });
        });
    }
}
