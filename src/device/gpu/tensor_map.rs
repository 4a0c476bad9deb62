//! What TMA copies: boxes of a dense tensor, as the host describes them and as a kernel is given them.

use crate::device::DType;
use crate::error::{Error, Result};

/// Bytes of a row of a box in shared memory: those of a swizzle.
const ROW_BYTES: [usize; 2] = [128, 64];
/// Elements of a box along one axis, at most.
pub const MAX_BOX: u32 = 256;

/// A tensor map as the driver encodes it. Mirrors TensorMap in kernels/common/tma.cuh.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct TensorMap(pub(super) [u64; 16]);
const _: () = assert!(size_of::<TensorMap>() == 128);

/// A dense tensor of `R` axes, the innermost first, and the box that one copy brings. In shared memory the rows
/// of the box are swizzled by as many bytes as they have; what lies outside of the tensor becomes zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boxes<const R: usize> {
    pub address: u64,
    pub dtype: DType,
    pub dims: [usize; R],
    pub size: [u32; R],
}

/// [`Boxes`] of any number of axes, checked: what a driver encodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tiling {
    pub address: u64,
    pub dtype: DType,
    pub dims: Vec<u64>,
    /// bytes from one element to the next along each axis but the innermost
    pub strides: Vec<u64>,
    pub size: Vec<u32>,
}

impl Tiling {
    /// Bytes of a row of a box: the swizzle.
    pub fn row_bytes(&self) -> usize {
        self.size[0] as usize * self.dtype.size()
    }
}

impl<const R: usize> Boxes<R> {
    /// True when TMA can read a tensor whose rows have `columns` elements: they start at multiples of 16 bytes.
    pub fn can_read(address: u64, columns: usize, dtype: DType) -> bool {
        address.is_multiple_of(16) && (columns * dtype.size()).is_multiple_of(16)
    }

    /// # Errors
    /// TMA has no such tensor or box.
    pub fn tiling(&self) -> Result<Tiling> {
        let size = self.dtype.size();
        let row = self.size.first().map_or(0, |&columns| columns as usize * size);
        let fits = (1..=5).contains(&R)
            && Self::can_read(self.address, if R > 1 { self.dims[0] } else { 8 }, self.dtype)
            && ROW_BYTES.contains(&row)
            && self.size.iter().all(|&side| (1..=MAX_BOX).contains(&side))
            && self.dims.iter().all(|&dim| (1..=u32::MAX as usize).contains(&dim));
        if !fits {
            return Err(Error::internal(format!("TMA does not copy {self:?}")));
        }
        let mut strides = Vec::with_capacity(R - 1);
        let mut bytes = size as u64;
        for &dim in &self.dims[..R - 1] {
            bytes *= dim as u64;
            strides.push(bytes);
        }
        let dims = self.dims.iter().map(|&dim| dim as u64).collect();
        Ok(Tiling { address: self.address, dtype: self.dtype, dims, strides, size: self.size.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOXES: Boxes<4> =
        Boxes { address: 256, dtype: DType::F16, dims: [320, 24, 16, 2], size: [64, 16, 8, 1] };

    #[test]
    fn strides_are_those_of_a_dense_tensor() {
        let tiling = BOXES.tiling().unwrap();
        assert_eq!(tiling.strides, [640, 640 * 24, 640 * 24 * 16]);
        assert_eq!((tiling.dims, tiling.size), (vec![320, 24, 16, 2], vec![64, 16, 8, 1]));
    }

    #[test]
    fn what_the_copy_engine_cannot_read_is_refused() {
        let refused = |boxes: Boxes<4>| assert!(boxes.tiling().is_err(), "{boxes:?}");
        refused(Boxes { address: 8, ..BOXES });
        refused(Boxes { dims: [324, 24, 16, 2], ..BOXES });
        refused(Boxes { size: [16, 16, 8, 1], ..BOXES });
        refused(Boxes { size: [64, 257, 8, 1], ..BOXES });
        refused(Boxes { size: [64, 0, 8, 1], ..BOXES });
        refused(Boxes { dims: [320, 0, 16, 2], ..BOXES });
        assert!(Boxes::<2>::can_read(16, 8, DType::F16) && !Boxes::<2>::can_read(16, 4, DType::F16));
    }
}
