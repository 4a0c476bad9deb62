//! The microkernel of AVX-512-BF16: `vdpbf16ps` adds the products of 16 pairs to 16 f32 sums.
//!
//! Eight rows by 32 outputs are sixteen registers of sums, enough to hide the latency of two instructions a cycle.
//! For each pair of inputs two registers of weights are loaded, and a row's pair is broadcast from memory.

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_set1_epi32,
    _mm512_setzero_ps, _mm512_storeu_ps,
};
use std::mem::transmute;

use super::{COLUMNS, Call, Kernel, STEP};

const ROWS: usize = 8;
/// f32 of a register.
const LANES: usize = 16;

pub const KERNEL: Kernel = Kernel { rows: ROWS, multiply };

#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn multiply(call: &Call) {
    for block in call.blocks {
        let (first, sums) = (block.first, block.sums);
        // SAFETY: the caller's promise; the block has as many rows as the function is for.
        unsafe {
            match block.rows {
                1 => rows::<1>(call, first, sums),
                2 => rows::<2>(call, first, sums),
                3 => rows::<3>(call, first, sums),
                4 => rows::<4>(call, first, sums),
                5 => rows::<5>(call, first, sums),
                6 => rows::<6>(call, first, sums),
                7 => rows::<7>(call, first, sums),
                _ => rows::<8>(call, first, sums),
            }
        }
    }
}

/// # Safety
/// As [`Kernel::multiply`]'s field asks, for `R` rows from element `first` on.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn rows<const R: usize>(call: &Call, first: usize, sums: usize) {
    let mut totals = [[_mm512_setzero_ps(); 2]; R];
    // SAFETY: the rows of the sums, as the caller promised.
    let line = unsafe { call.sums.add(sums * call.sums_stride) };
    if call.accumulate {
        for (row, total) in totals.iter_mut().enumerate() {
            // SAFETY: 32 sums of the row.
            *total = unsafe {
                let place = line.add(row * call.sums_stride);
                [_mm512_loadu_ps(place), _mm512_loadu_ps(place.add(LANES))]
            };
        }
    }
    let mut b = call.b;
    for span in call.spans {
        // SAFETY: the span of the first row, and pairs up to the end of a step.
        unsafe {
            let a = call.a.add(first + span.offset);
            for pair in 0..span.length.div_ceil(2) {
                let [low, high] = weights(b.add(pair * 2 * COLUMNS));
                for (row, total) in totals.iter_mut().enumerate() {
                    let pair = a.add(row * call.stride + 2 * pair).cast::<i32>().read_unaligned();
                    let pair = transmute::<__m512i, __m512bh>(_mm512_set1_epi32(pair));
                    *total = [_mm512_dpbf16_ps(total[0], pair, low), _mm512_dpbf16_ps(total[1], pair, high)];
                }
            }
            b = b.add(span.length.next_multiple_of(STEP) * COLUMNS);
        }
    }
    for (row, total) in totals.iter().enumerate() {
        // SAFETY: 32 sums of the row.
        unsafe { store(line.add(row * call.sums_stride), *total) };
    }
}

/// One pair of inputs for 32 outputs.
///
/// # Safety
/// 64 elements can be read at `b`.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn weights(b: *const half::bf16) -> [__m512bh; 2] {
    // SAFETY: the caller's promise; both types are 64 plain bytes.
    unsafe {
        [
            transmute::<__m512i, __m512bh>(_mm512_loadu_si512(b.cast())),
            transmute::<__m512i, __m512bh>(_mm512_loadu_si512(b.add(COLUMNS).cast())),
        ]
    }
}

/// # Safety
/// 32 elements can be written at `place`.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn store(place: *mut f32, total: [__m512; 2]) {
    // SAFETY: the caller's promise.
    unsafe {
        _mm512_storeu_ps(place, total[0]);
        _mm512_storeu_ps(place.add(LANES), total[1]);
    }
}
