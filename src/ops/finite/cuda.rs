//! Launches of kernels/elementwise/finite.cu.

use bytemuck::NoUninit;

use crate::device::Gpu;
use crate::device::gpu::kernels;
use crate::error::Result;
use crate::ops::elementwise::plan::{VECTOR, grid};
use crate::ops::gpu::aligned;
use crate::tensor::{Tensor, TensorMut};

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct FiniteParams {
    found: u64,
    input: u64,
    count: u64,
    aligned: u32,
    pad: u32,
}
const _: () = assert!(size_of::<FiniteParams>() == 32);

pub fn note(gpu: &Gpu, x: &Tensor, flags: &mut TensorMut, place: usize) -> Result<()> {
    let (input, count) = (x.address()?, x.shape().count());
    let found = flags.address()? + (place * size_of::<f32>()) as u64;
    let params = FiniteParams { found, input, count: count as u64, aligned: aligned([input]), pad: 0 };
    // SAFETY: `x` holds `count` elements of the family's type; the op checked that the flag exists.
    unsafe { gpu.launch(kernels::FIND_NON_FINITE.of(x.dtype())?, grid(count, VECTOR)?, &params) }
}
