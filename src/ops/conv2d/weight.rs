//! A convolution's weights in the layout its device computes with.

use super::{bf16, cuda, cuda_backward, plan, winograd};
use crate::device::{Device, Purpose, Target};
use crate::error::{Error, Result};
use crate::ops::Cx;
use crate::tensor::{DType, NodeId, Tensor, TensorMut};

/// Outputs up to here are computed tap by tap and gathered; see `cpu.rs`.
pub(super) const FEW_OUTPUTS: usize = 8;
/// Inputs up to here are laid out tap by tap; likewise.
pub(super) const FEW_INPUTS: usize = 16;

/// How a convolution is computed, which decides how its weights are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Tap by tap: any size.
    Direct,
    /// Winograd's F(2x2, 3x3): less than half the products and 16/9 of the weights; even images, stride 1.
    Winograd,
}

/// Packed weights of a k x k convolution, C -> O.
#[derive(Clone, Debug)]
pub struct ConvWeight {
    packed: Tensor,
    algorithm: Algorithm,
    kernel: usize,
    inputs: usize,
    outputs: usize,
}

impl ConvWeight {
    /// Packs `values`, [O, C, k, k] as checkpoints have them, for `cx`'s device. On the CPU: [k, k, C, O],
    /// or [C, k, k, O] when the outputs are few; panels in bf16. On a GPU: [O / 16, C / 32, k, k, 16, 32].
    ///
    /// # Errors
    /// The kernel is neither 1x1 nor 3x3, or memory is short.
    pub fn pack(cx: &Cx, values: &[f32], sizes: [usize; 4]) -> Result<Self> {
        Self::pack_for(cx, values, sizes, Algorithm::Direct)
    }

    /// Packs `values` for images that are large and of even height and width, convolved with stride 1: where the
    /// device gains from it, for Winograd's algorithm; else as [`ConvWeight::pack`]. On the CPU: [C, 16, O].
    ///
    /// # Errors
    /// As [`ConvWeight::pack`].
    pub fn pack_for_large(cx: &Cx, values: &[f32], sizes @ [o, c, kernel, _]: [usize; 4]) -> Result<Self> {
        let lanes = c.is_multiple_of(winograd::LANES) && o.is_multiple_of(winograd::LANES);
        let cpu = cx.device().target() == Target::Cpu && cx.dtype() != DType::BF16;
        let suits = cpu && kernel == 3 && lanes && o > FEW_OUTPUTS && c > FEW_INPUTS;
        Self::pack_for(cx, values, sizes, if suits { Algorithm::Winograd } else { Algorithm::Direct })
    }

    fn pack_for(cx: &Cx, values: &[f32], [o, c, kh, kw]: [usize; 4], algorithm: Algorithm) -> Result<Self> {
        if kh != kw || !matches!(kh, 1 | 3) {
            return Err(Error::weights(format!("a {kh}x{kw} convolution, expected 1x1 or 3x3")));
        }
        let taps = kh * kw;
        let panels = bf16::layout(o, c, taps);
        let in_panels = cx.dtype() == DType::BF16;
        let elements = match (cx.device().target(), algorithm) {
            (Target::Cpu, Algorithm::Direct) if in_panels => panels.elements(),
            (Target::Cpu, Algorithm::Direct) => taps * c * o,
            (Target::Cpu, Algorithm::Winograd) => winograd::PLACES * c * o,
            (Target::Gpu, _) => plan::packed_elements(o, c, kh),
        };
        let mut packed = TensorMut::allocate(cx.device(), [elements], cx.dtype(), Purpose::Weight)?;
        match cx.device() {
            Device::Cpu(_) if in_panels => panels.pack(values, packed.host_mut()?),
            Device::Cpu(_) => pack_on_host(values, [o, c, taps], algorithm, packed.host_mut()?),
            Device::Gpu(_) => packed.write_f32(&cuda::pack(values, [o, c, taps]))?,
            Device::Plan(_) => {}
        }
        Ok(ConvWeight { packed: packed.freeze(), algorithm, kernel: kh, inputs: c, outputs: o })
    }

    /// How the weights are packed to be used.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
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

    /// The packed values; their layout is the device's own affair, but their gradient is f32 [O, C, k, k].
    pub fn packed(&self) -> &Tensor {
        &self.packed
    }

    /// The same weights as value `node` of a tape: the gradient of the packed tensor is wanted.
    pub fn with_node(&self, node: Option<NodeId>) -> Self {
        ConvWeight { packed: self.packed.with_node(node), ..*self }
    }

    /// A copy of bf16 weights on the CPU in f32, packed for f32: what backward passes multiply by.
    pub(super) fn wide(&self, cx: &Cx) -> Result<Self> {
        let sizes @ [o, c, taps] = [self.outputs, self.inputs, self.kernel * self.kernel];
        let count = o * c * taps;
        let (mut values, mut packed) = (cx.allocate([count], DType::F32)?, cx.allocate([count], DType::F32)?);
        if let Device::Cpu(_) = cx.device() {
            let values = values.host_mut()?;
            bf16::layout(o, c, taps).unpack(self.packed.host()?, values);
            pack_on_host(values, sizes, self.algorithm, packed.host_mut()?);
        }
        Ok(ConvWeight { packed: packed.freeze(), ..*self })
    }

    /// Packs `master`, f32 [O, C, k, k], again in place, which an optimiser has changed.
    ///
    /// # Errors
    /// Somebody still holds the packed values: a tape that was not run.
    pub fn repack(&mut self, cx: &Cx, master: &Tensor) -> Result<()> {
        let sizes = [self.outputs, self.inputs, self.kernel * self.kernel];
        match cx.device() {
            Device::Cpu(_) if self.packed.dtype() == DType::BF16 => {
                let [o, c, taps] = sizes;
                bf16::layout(o, c, taps).pack(master.host()?, self.packed.host_mut()?);
                Ok(())
            }
            Device::Cpu(_) => {
                pack_on_host(master.host()?, sizes, self.algorithm, self.packed.host_mut()?);
                Ok(())
            }
            Device::Gpu(gpu) => {
                let sizes = [self.outputs, self.inputs, self.kernel];
                cuda_backward::repack(gpu, master, &mut self.packed, sizes)
            }
            Device::Plan(_) => Ok(()),
        }
    }
}

fn pack_on_host(values: &[f32], [o, c, taps]: [usize; 3], algorithm: Algorithm, out: &mut [f32]) {
    match algorithm {
        Algorithm::Direct => pack(values, [o, c, taps], out),
        Algorithm::Winograd => winograd::transform_weights(values, c, o, out),
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
