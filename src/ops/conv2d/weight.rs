//! A convolution's weights in the layout its device computes with.

use crate::device::{Device, Purpose};
use crate::error::{Error, Result};
use crate::ops::Cx;
use crate::ops::gpu::no_gpu_kernel;
use crate::tensor::{Tensor, TensorMut};

/// Outputs up to here are computed tap by tap and gathered; see `cpu.rs`.
pub(super) const FEW_OUTPUTS: usize = 8;

/// Packed weights of a k x k convolution, C -> O.
#[derive(Clone, Debug)]
pub struct ConvWeight {
    packed: Tensor,
    kernel: usize,
    inputs: usize,
    outputs: usize,
}

impl ConvWeight {
    /// Packs `values`, [O, C, k, k] as checkpoints have them, for `cx`'s device. On the CPU: [k, k, C, O],
    /// or [C, k, k, O] when the outputs are few.
    ///
    /// # Errors
    /// The kernel is neither 1x1 nor 3x3, or memory is short.
    pub fn pack(cx: &Cx, values: &[f32], [o, c, kh, kw]: [usize; 4]) -> Result<Self> {
        if kh != kw || !matches!(kh, 1 | 3) {
            return Err(Error::weights(format!("a {kh}x{kw} convolution, expected 1x1 or 3x3")));
        }
        let taps = kh * kw;
        let mut packed = TensorMut::allocate(cx.device(), [taps * c * o], cx.dtype(), Purpose::Weight)?;
        match cx.device() {
            Device::Cpu(_) => pack(values, [o, c, taps], packed.host_mut()?),
            Device::Gpu(_) => return Err(no_gpu_kernel("pack")),
            Device::Plan(_) => {}
        }
        Ok(ConvWeight { packed: packed.freeze(), kernel: kh, inputs: c, outputs: o })
    }

    pub fn kernel(&self) -> usize {
        self.kernel
    }

    pub fn inputs(&self) -> usize {
        self.inputs
    }

    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// The packed values; their layout is the device's own affair.
    pub fn packed(&self) -> &Tensor {
        &self.packed
    }
}

/// [O, C, taps] -> [taps, C, O] or, for few outputs, [C, taps, O].
fn pack(values: &[f32], [o, c, taps]: [usize; 3], out: &mut [f32]) {
    use rayon::prelude::*;
    if o * c * taps == 0 {
        return;
    }
    // First [C * taps, O]: a plain transposition, then the taps outside.
    if o <= FEW_OUTPUTS || taps == 1 {
        return crate::ops::host::matmul::transpose(values, o, c * taps, out);
    }
    out.par_chunks_mut(c * o).enumerate().for_each(|(tap, plane)| {
        const BLOCK: usize = 32;
        for start in (0..c).step_by(BLOCK) {
            for output in 0..o {
                for channel in start..(start + BLOCK).min(c) {
                    plane[channel * o + output] = values[(output * c + channel) * taps + tap];
                }
            }
        }
    });
}
