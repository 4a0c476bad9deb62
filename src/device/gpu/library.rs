//! Plain matrix products of the vendor's library, cuBLASLt: what our own products are measured against, and what takes
//! large products that have nothing fused to them.

use crate::device::DType;

/// out [m, n] = a [m, k] . b [n, k]^T, all of one type, sums in f32; addresses on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LibraryProduct {
    pub dtype: DType,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: u64,
    pub b: u64,
    pub out: u64,
}
