//! Scaled dot-product attention, `softmax(q k^T / sqrt(D) [+ causal mask]) v`, head by head.

mod backward;
mod bf16;
mod cpu;
mod cpu_backward;
mod cuda;
pub mod plan;
mod sm90;

use super::Cx;
use super::calls::{Call, note};
use crate::device::{Device, Target};
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};
use backward::Saved;

/// All heads of a query, key or value: columns `offset..offset + heads * D` of a token matrix [N, L, W].
/// A joint projection [q | k | v] is three such views of one tensor.
#[derive(Clone, Copy, Debug)]
pub struct Heads<'a> {
    pub tensor: &'a Tensor,
    pub offset: usize,
}

impl<'a> Heads<'a> {
    pub fn new(tensor: &'a Tensor, offset: usize) -> Self {
        Heads { tensor, offset }
    }

    /// (N, L) after checking that the columns exist.
    fn rows(&self, width: usize) -> Result<(usize, usize)> {
        match *self.tensor.shape() {
            [n, l, w] if self.offset + width <= w => Ok((n, l)),
            _ => Err(Error::internal(format!(
                "{} has no columns {}..+{width}",
                self.tensor.shape(),
                self.offset
            ))),
        }
    }
}

/// The sizes of one attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    pub n: usize,
    /// query rows
    pub l: usize,
    /// key rows
    pub m: usize,
    pub heads: usize,
    /// head width D
    pub width: usize,
    /// query i sees keys 0..=i only
    pub causal: bool,
}

/// q [N, L, .], k and v [N, M, .] -> [N, L, heads * width]; the score scale is width^-1/2.
///
/// # Errors
/// Rows that do not match, or a causal mask over a rectangle.
pub fn attention(
    cx: &Cx,
    (q, k, v): (Heads, Heads, Heads),
    heads: usize,
    width: usize,
    causal: bool,
) -> Result<Tensor> {
    let all = heads * width;
    let ((n, l), keys, values) = (q.rows(all)?, k.rows(all)?, v.rows(all)?);
    let m = keys.1;
    if keys != values || keys.0 != n || m == 0 || (causal && l != m) {
        return Err(Error::internal(format!("attention of [{n}, {l}] over {keys:?} and {values:?}")));
    }
    let geometry = Geometry { n, l, m, heads, width, causal };
    note(cx, q.tensor.dtype(), || Call::Attention(geometry));
    let mut result = cx.allocate([n, l, all], q.tensor.dtype())?;
    let inputs = [q.tensor, k.tensor, v.tensor];
    let tracked = cx.tracks(&inputs);
    let mut sum_log = tracked.then(|| cx.allocate([n, heads, l], DType::F32)).transpose()?;
    let scratch = match (cx.device().target(), q.tensor.dtype()) {
        (Target::Cpu, DType::BF16) => bf16::scratch(&geometry),
        _ => 0,
    };
    let mut scratch = cx.allocate([scratch], DType::F32)?;
    match cx.device() {
        Device::Cpu(cpu) if q.tensor.dtype() == DType::BF16 => {
            let sum_log = sum_log.as_mut().map(|sums| sums.host_mut()).transpose()?;
            let out = (result.host_mut()?, sum_log);
            bf16::attention(cpu, &geometry, (q, k, v), scratch.host_mut()?, out)?;
        }
        Device::Cpu(_) => {
            let sum_log = sum_log.as_mut().map(|sums| sums.host_mut()).transpose()?;
            cpu::attention(&geometry, (q, k, v), result.host_mut()?, sum_log)?;
        }
        Device::Gpu(gpu) => cuda::attention(gpu, &geometry, (q, k, v), &mut result, sum_log.as_mut())?,
        Device::Plan(_) => {}
    }
    let result = result.freeze();
    let Some(sum_log) = sum_log else { return Ok(result) };
    let operands = [q, k, v].map(|heads| (heads.tensor.clone(), heads.offset));
    let saved = Saved { geometry, operands, result: result.clone(), sum_log: sum_log.freeze() };
    Ok(cx.record(&inputs, result, move |cx, gradient, gradients| {
        backward::backward(cx, &saved, gradient, gradients)
    }))
}
