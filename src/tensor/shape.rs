//! Shapes of up to four axes, slowest first. Images are [N, H, W, C], token matrices [N, L, C].

use std::fmt;
use std::ops::Deref;

/// Sizes of up to four axes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    sizes: [usize; 4],
    rank: u8,
}

impl Shape {
    /// Number of elements.
    pub fn count(&self) -> usize {
        self.iter().product()
    }

    /// The fastest axis, 1 for a scalar.
    pub fn last(&self) -> usize {
        self.sizes[..self.rank as usize].last().copied().unwrap_or(1)
    }

    /// All axes but the fastest, multiplied: the rows of the matrix view.
    pub fn rows(&self) -> usize {
        self.sizes[..(self.rank as usize).saturating_sub(1)].iter().product()
    }

    /// The same shape with another fastest axis.
    pub fn with_last(mut self, size: usize) -> Self {
        if self.rank > 0 {
            self.sizes[self.rank as usize - 1] = size;
        }
        self
    }
}

impl Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.sizes[..self.rank as usize]
    }
}

impl<const R: usize> From<[usize; R]> for Shape {
    fn from(sizes: [usize; R]) -> Self {
        const { assert!(R <= 4, "tensors have at most four axes") };
        let mut all = [1; 4];
        all[..R].copy_from_slice(&sizes);
        Shape { sizes: all, rank: R as u8 }
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &**self)
    }
}
