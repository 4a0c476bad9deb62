//! Linear layers on the CPU in bf16: rows are read in place, sums finished while they are in cache.

use std::borrow::Cow;

use half::bf16;

use super::LinearWeight;
use crate::device::Cpu;
use crate::error::Result;
use crate::ops::Epilogue;
use crate::ops::host::bf16::{COLUMNS, Cut, Kernel, Layout, Panels, Product, STEP, Shared, rows_in_blocks};
use crate::ops::host::element::{HostElement, narrow_all};
use crate::ops::host::math::{gelu, vectorised};
use crate::ops::host::rows::HostEpilogue;
use crate::tensor::{Tensor, TensorMut};

/// How weights [O, K] are packed.
pub fn layout(inputs: usize, outputs: usize) -> Layout {
    Layout { outputs, channels: inputs, taps: 1 }
}

/// `finish(row, panels, sums)` for every row of `x . weight^T`.
fn product(
    cpu: &Cpu,
    x: &[bf16],
    weight: &LinearWeight,
    cut: &Cut,
    finish: impl Fn(usize, &[usize], &mut [f32]) + Sync,
) -> Result<()> {
    let (k, layout) = (weight.inputs, layout(weight.inputs, weight.outputs));
    if k == 0 {
        return Ok(());
    }
    let rows = x.len() / k;
    let (x, stride) = padded(x, k);
    let kernel = Kernel::of(cpu.unit());
    let product = Product {
        kernel,
        a: &x,
        stride,
        blocks: &rows_in_blocks([(0, rows, 0)], stride, kernel.rows()),
        chunks: &layout.chunks(|_| 0),
        weights: Panels::new(weight.packed.host()?, layout.depth()),
    };
    product.run(cut, finish);
    Ok(())
}

/// Rows of `k` elements that can be read to the end of a step, and their distance. Only odd widths are copied.
fn padded(x: &[bf16], k: usize) -> (Cow<'_, [bf16]>, usize) {
    let stride = k.next_multiple_of(STEP);
    if stride == k {
        return (Cow::Borrowed(x), k);
    }
    let mut wide = vec![bf16::ZERO; x.len() / k * stride];
    wide.chunks_exact_mut(stride).zip(x.chunks_exact(k)).for_each(|(to, from)| to[..k].copy_from_slice(from));
    (Cow::Owned(wide), stride)
}

pub fn linear(
    cpu: &Cpu,
    x: &Tensor,
    weight: &LinearWeight,
    epilogue: &Epilogue,
    result: &mut TensorMut,
) -> Result<()> {
    let (rows, o) = (x.shape().rows(), weight.outputs);
    let image = (rows / x.shape()[0].max(1)).max(1);
    let epilogue = HostEpilogue::<bf16>::new(epilogue)?;
    let result = Shared::new(result.host_mut::<bf16>()?);
    let cut = Cut::of(rows, layout(weight.inputs, o).panels());
    product(cpu, x.host()?, weight, &cut, |row, panels, sums| {
        let first = panels[0] * COLUMNS;
        let columns = sums.len().min(o - first);
        // SAFETY: no other task has these rows and panels, and `result` is borrowed throughout.
        let line = unsafe { result.slice(row * o + first, columns) };
        vectorised!({
            epilogue.finish_part(row / image, row, (first, o), &mut sums[..columns]);
            narrow_all(sums, line);
        });
    })
}

pub fn geglu(
    cpu: &Cpu,
    x: &Tensor,
    weight: &LinearWeight,
    bias: &Tensor,
    result: &mut TensorMut,
) -> Result<()> {
    let half = weight.outputs / 2;
    let (value_bias, gate_bias) = bias.host::<f32>()?.split_at(half);
    let result = Shared::new(result.host_mut::<bf16>()?);
    let cut = Cut::gated(x.shape().rows(), half);
    product(cpu, x.host()?, weight, &cut, |row, panels, sums| {
        // Half of the panels are values, the others their gates; or all outputs are here.
        let first = panels[0] * COLUMNS;
        let columns = if half.is_multiple_of(COLUMNS) { panels.len() / 2 * COLUMNS } else { half };
        let (value, gate) = (&sums[..columns], &sums[columns..][..columns]);
        let (value_bias, gate_bias) = (&value_bias[first..][..columns], &gate_bias[first..][..columns]);
        // SAFETY: no other task has these rows and panels, and `result` is borrowed throughout.
        let line = unsafe { result.slice(row * half + first, columns) };
        vectorised!({
            for i in 0..columns {
                let gated = (value[i] + value_bias[i]) * gelu(gate[i] + gate_bias[i]);
                line[i] = HostElement::narrow(gated);
            }
        });
    })
}
