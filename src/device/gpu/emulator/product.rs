//! What stands in for the vendor's library of matrix products.

use rayon::prelude::*;

use super::super::library::LibraryProduct;
use crate::device::Element;

/// The product, sums in f32 one k after the other, rounded once.
///
/// # Safety
/// The addresses start matrices of these sizes of `T`, and `out` overlaps neither input.
pub unsafe fn multiply<T: Element>(product: &LibraryProduct, wide: fn(T) -> f32, narrow: fn(f32) -> T) {
    let &LibraryProduct { m, n, k, a, b, out, .. } = product;
    // SAFETY: the caller's promise; device memory is host memory here.
    let (a, b, out) = unsafe {
        (
            std::slice::from_raw_parts(a as *const T, m * k),
            std::slice::from_raw_parts(b as *const T, n * k),
            std::slice::from_raw_parts_mut(out as *mut T, m * n),
        )
    };
    out.par_chunks_mut(n.max(1)).enumerate().for_each(|(row, out)| {
        let left: Vec<f32> = a[row * k..][..k].iter().map(|v| wide(*v)).collect();
        for (column, out) in out.iter_mut().enumerate() {
            let sum = left.iter().zip(&b[column * k..][..k]).fold(0f32, |sum, (x, y)| sum + x * wide(*y));
            *out = narrow(sum);
        }
    });
}
