//! The microkernel of any processor: bf16 are widened to f32, whose products are exact.

use super::{COLUMNS, Call, Kernel, STEP};
use crate::ops::host::element::HostElement;
use crate::ops::host::math::vectorised;

/// Rows whose sums are held at once.
const ROWS: usize = 4;

pub const KERNEL: Kernel = Kernel { rows: ROWS, multiply };

unsafe fn multiply(call: &Call) {
    vectorised!({
        for block in call.blocks {
            let (first, sums) = (block.first, block.sums);
            // SAFETY: the caller's promise; the block has as many rows as the function is for.
            unsafe {
                match block.rows {
                    1 => rows::<1>(call, first, sums),
                    2 => rows::<2>(call, first, sums),
                    3 => rows::<3>(call, first, sums),
                    _ => rows::<4>(call, first, sums),
                }
            }
        }
    });
}

/// # Safety
/// As [`Kernel::multiply`]'s field asks, for `R` rows from element `first` on.
#[inline(always)]
unsafe fn rows<const R: usize>(call: &Call, first: usize, sums: usize) {
    let mut totals = [[0.0f32; COLUMNS]; R];
    let line = |row: usize| {
        // SAFETY: a row of the sums, as the caller promised.
        unsafe { &mut *call.sums.add((sums + row) * call.sums_stride).cast::<[f32; COLUMNS]>() }
    };
    if call.accumulate {
        for (row, total) in totals.iter_mut().enumerate() {
            *total = *line(row);
        }
    }
    let mut b = call.b;
    for span in call.spans {
        for pair in 0..span.length.div_ceil(2) {
            // SAFETY: a pair of the span's part of the panel.
            let pairs = unsafe { &*b.add(pair * 2 * COLUMNS).cast::<[[half::bf16; 2]; COLUMNS]>() };
            let (low, high) = (pairs.map(|pair| pair[0].wide()), pairs.map(|pair| pair[1].wide()));
            for (row, total) in totals.iter_mut().enumerate() {
                let place = first + row * call.stride + span.offset + 2 * pair;
                // SAFETY: two elements of the row; the row is readable to the end of a step.
                let (x, y) = unsafe { ((*call.a.add(place)).wide(), (*call.a.add(place + 1)).wide()) };
                for i in 0..COLUMNS {
                    total[i] += x * low[i];
                    total[i] += y * high[i];
                }
            }
        }
        // SAFETY: at most the end of the panel's part.
        b = unsafe { b.add(span.length.next_multiple_of(STEP) * COLUMNS) };
    }
    for (row, total) in totals.iter().enumerate() {
        *line(row) = *total;
    }
}
