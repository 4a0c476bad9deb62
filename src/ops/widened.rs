//! The CPU differentiates in f32: what a bf16 context stores is widened for its backward passes, and the gradients of
//! stored values are rounded again. A forward pass in bf16 gains from the processor's units for it, and keeps half as
//! much for the backward pass.

use super::elementwise::cast;
use super::{Cx, OwnedSegments, Segments};
use crate::device::Target;
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// True where a backward pass over values of type `dtype` is computed from f32 copies of them.
pub fn applies(cx: &Cx, dtype: DType) -> bool {
    cx.device().target() == Target::Cpu && dtype == DType::BF16
}

/// `x` in f32: the same value of a tape.
pub fn wide(cx: &Cx, x: &Tensor) -> Result<Tensor> {
    Ok(cast(&cx.without_tape(), &x.detached(), DType::F32)?.with_node(x.node()))
}

/// A gradient as bf16.
pub fn narrow(cx: &Cx, gradient: &Tensor) -> Result<Tensor> {
    cast(&cx.without_tape(), gradient, DType::BF16)
}

/// All parts in f32.
pub fn wide_segments(cx: &Cx, segments: &Segments) -> Result<OwnedSegments> {
    segments.owned().map(|tensor| wide(cx, tensor))
}
