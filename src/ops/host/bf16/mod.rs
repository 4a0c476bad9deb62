//! Matrix products of bf16 with f32 sums, on the fastest unit of the processor.
//!
//! One layout serves all units. Weights lie in panels of 32 outputs: for each pair of inputs, 32 times two
//! neighbouring values, as `vdpbf16ps` and `tdpbf16ps` both want their second operand. Rows of the first operand
//! lie as tensors hold them, channels running fastest, so they are read in place.
//!
//! A microkernel multiplies blocks of rows by one panel over a list of spans: runs of inputs that lie together in a
//! row. The taps of a convolution are spans, and that is all that distinguishes it from a linear layer.

mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;
mod product;
mod weights;

use std::sync::OnceLock;

use half::bf16;

use crate::device::MatrixUnit;
pub use product::{Cut, Product, Shared, rows_in_blocks};
pub use weights::{Chunk, Layout, Panels};

/// Outputs of a panel.
pub const COLUMNS: usize = 32;
/// Spans are padded with zeros to a multiple of this, the depth of an AMX tile.
pub const STEP: usize = 32;

/// Inputs that lie together in a row of the first operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// elements from the row's first
    pub offset: usize,
    /// readable up to the next multiple of [`STEP`], where the weights are zero
    pub length: usize,
}

impl Span {
    fn padded(&self) -> usize {
        self.length.next_multiple_of(STEP)
    }
}

/// Rows of the first operand at equal distances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// first element of the first row
    pub first: usize,
    pub rows: usize,
    /// row of the sums that belongs to the first
    pub sums: usize,
    /// row of the result, likewise
    pub out: usize,
}

/// One call of a microkernel: `sums[rows, 32] (+)= a[rows, spans] . b[spans, 32]`.
struct Call<'a> {
    a: *const bf16,
    /// elements from row to row within a block
    stride: usize,
    blocks: &'a [Block],
    spans: &'a [Span],
    /// the spans' part of a panel
    b: *const bf16,
    sums: *mut f32,
    sums_stride: usize,
    /// add to the sums instead of writing them
    accumulate: bool,
}

/// A microkernel.
pub struct Kernel {
    /// most rows of a block
    rows: usize,
    /// Duties of the caller: the processor has the unit; every address that follows from the call is valid, and
    /// blocks have 1 to `rows` rows.
    multiply: unsafe fn(&Call),
}

impl Kernel {
    /// The microkernel of `unit`, or the portable one where the unit does not compute as it should.
    pub fn of(unit: MatrixUnit) -> &'static Kernel {
        static AMX_WORKS: OnceLock<bool> = OnceLock::new();
        match unit {
            MatrixUnit::Portable => &portable::KERNEL,
            #[cfg(target_arch = "x86_64")]
            MatrixUnit::Avx512 => &avx512::KERNEL,
            #[cfg(target_arch = "x86_64")]
            MatrixUnit::Amx if *AMX_WORKS.get_or_init(|| agrees(&amx::KERNEL)) => &amx::KERNEL,
            #[cfg(target_arch = "x86_64")]
            MatrixUnit::Amx if MatrixUnit::available().contains(&MatrixUnit::Avx512) => &avx512::KERNEL,
            MatrixUnit::AmxEmulated => &amx::EMULATED,
            #[cfg_attr(
                target_arch = "x86_64",
                expect(unreachable_patterns, reason = "x86 has kernels for all")
            )]
            MatrixUnit::Avx512 | MatrixUnit::Amx => &portable::KERNEL,
        }
    }

    /// Most rows of a block.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Multiplies `blocks` of rows of `a`, `stride` elements apart, by the part of a panel that belongs to `spans`.
    /// The sums of a row are 32 elements from `sums[row * sums_stride]` on.
    pub fn multiply(
        &self,
        (a, stride): (&[bf16], usize),
        blocks: &[Block],
        spans: &[Span],
        b: &[bf16],
        (sums, sums_stride): (&mut [f32], usize),
        accumulate: bool,
    ) {
        let last = |block: &Block| block.first + (block.rows - 1) * stride;
        let rows_end = blocks.iter().map(last).max().unwrap_or(0);
        let span_end = spans.iter().map(|span| span.offset + span.padded()).max().unwrap_or(0);
        let sums_end = blocks.iter().map(|block| block.sums + block.rows).max().unwrap_or(0);
        let depth: usize = spans.iter().map(Span::padded).sum();
        assert!(blocks.iter().all(|block| (1..=self.rows).contains(&block.rows)), "a block of too many rows");
        assert!(blocks.is_empty() || rows_end + span_end <= a.len(), "a block leaves its rows");
        assert!(depth * COLUMNS <= b.len(), "the spans leave their panel");
        assert!(
            blocks.is_empty() || (sums_end - 1) * sums_stride + COLUMNS <= sums.len(),
            "a block leaves its sums"
        );
        let call = Call {
            a: a.as_ptr(),
            stride,
            blocks,
            spans,
            b: b.as_ptr(),
            sums: sums.as_mut_ptr(),
            sums_stride,
            accumulate,
        };
        // SAFETY: `of` hands a kernel out for a unit that the device found on this machine; the assertions keep
        // every row, span and sum inside its slice.
        unsafe { (self.multiply)(&call) }
    }
}

/// True if `kernel` computes what the portable one does: asked once before a unit is used that few machines have.
fn agrees(kernel: &Kernel) -> bool {
    let value =
        |i: usize| <bf16 as super::element::HostElement>::narrow(((i * 37 + 11) % 61) as f32 / 8.0 - 3.75);
    let (stride, rows) = (96 + 16, kernel.rows + 3);
    let a: Vec<bf16> = (0..rows * stride + STEP).map(value).collect();
    let b: Vec<bf16> = (0..(32 + 64) * COLUMNS).map(|i| value(i * 5 + 1)).collect();
    let spans = [Span { offset: 48, length: 64 }, Span { offset: 0, length: 32 }];
    let sums = |kernel: &Kernel| {
        let mut sums = vec![1.5f32; rows * (COLUMNS + 8)];
        let blocks = rows_in_blocks([(0, rows, 0)], stride, kernel.rows);
        for accumulate in [false, true] {
            kernel.multiply((&a, stride), &blocks, &spans, &b, (&mut sums, COLUMNS + 8), accumulate);
        }
        sums
    };
    // Multiples of 1/64 below 2^17: every order of summation gives the same f32.
    sums(kernel).iter().zip(sums(&portable::KERNEL)).all(|(found, expected)| *found == expected)
}

#[cfg(test)]
mod tests;
