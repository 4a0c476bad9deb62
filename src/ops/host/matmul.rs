//! Matrix products by the `gemm` crate, behind one checked function.

use gemm::Parallelism;

/// A row-major matrix view: element (i, j) at `data[i * stride + j]`, or transposed.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// `rows` x `columns` with `stride` elements from row to row.
    pub fn new(data: &'a [f32], rows: usize, columns: usize, stride: usize) -> Self {
        assert!(
            rows == 0 || columns == 0 || (rows - 1) * stride + columns <= data.len(),
            "matrix leaves its data"
        );
        Matrix { data, rows, columns, row_stride: stride, column_stride: 1 }
    }

    pub fn transposed(self) -> Self {
        Matrix {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// Who computes a product.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// All of rayon's threads.
    All,
    /// The calling thread, which is one of many at work.
    One,
}

/// `result = alpha * a * b`, or `result += alpha * a * b`; `result` is row-major with `stride`.
pub fn multiply(
    result: &mut [f32],
    stride: usize,
    (a, b): (Matrix, Matrix),
    alpha: f32,
    accumulate: bool,
    threads: Threads,
) {
    let (m, n, k) = (a.rows, b.columns, a.columns);
    assert_eq!(k, b.rows, "inner sizes differ");
    if m == 0 || n == 0 {
        return;
    }
    assert!((m - 1) * stride + n <= result.len() && n <= stride.max(n), "product leaves its result");
    let parallelism = match threads {
        Threads::All => Parallelism::Rayon(rayon::current_num_threads()),
        Threads::One => Parallelism::None,
    };
    // SAFETY: every element addressed lies in its slice, as asserted here and in `Matrix::new`; `result`
    // is borrowed mutably, so it overlaps neither input.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            result.as_mut_ptr(),
            1,
            stride as isize,
            accumulate,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            alpha,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// `[columns, rows]` row-major <- `[rows, columns]` row-major, in blocks that stay in cache.
pub fn transpose(source: &[f32], rows: usize, columns: usize, result: &mut [f32]) {
    use rayon::prelude::*;
    const BLOCK: usize = 32;
    assert!(source.len() == rows * columns && result.len() == source.len(), "transpose of another size");
    if rows == 0 || columns == 0 {
        return;
    }
    result.par_chunks_mut(rows * BLOCK).enumerate().for_each(|(block, out)| {
        let first = block * BLOCK;
        let width = out.len() / rows;
        for start in (0..rows).step_by(BLOCK) {
            for row in start..(start + BLOCK).min(rows) {
                let line = &source[row * columns + first..][..width];
                for (j, &value) in line.iter().enumerate() {
                    out[j * rows + row] = value;
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposed_views_and_transposed_copies_agree() {
        let (m, n, k) = (37, 45, 70);
        let a: Vec<f32> = (0..m * k).map(|i| ((i * 37) % 19) as f32 - 9.0).collect();
        let b: Vec<f32> = (0..k * n).map(|i| ((i * 53) % 23) as f32 - 11.0).collect();
        let mut flipped = vec![0.0; b.len()];
        transpose(&b, k, n, &mut flipped);
        let (mut plain, mut turned) = (vec![0.0; m * n], vec![1.0; m * n]);
        let left = Matrix::new(&a, m, k, k);
        multiply(&mut plain, n, (left, Matrix::new(&b, k, n, n)), 1.0, false, Threads::All);
        let right = Matrix::new(&flipped, n, k, k).transposed();
        multiply(&mut turned, n, (left, right), 2.0, true, Threads::One);
        for i in 0..m {
            for j in 0..n {
                let exact: f32 = (0..k).map(|l| a[i * k + l] * b[l * n + j]).sum();
                assert_eq!(plain[i * n + j], exact);
                assert_eq!(turned[i * n + j], 1.0 + 2.0 * exact);
            }
        }
    }
}
