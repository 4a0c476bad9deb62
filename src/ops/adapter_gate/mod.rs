//! The end of a timestep-aware adapter: its last 3x3 convolution to one channel, a sigmoid, and the
//! weighted injection of the ControlNet residual, in one op.

use super::conv2d::{Conv2d, ConvWeight, conv2d};
use super::gpu::no_gpu_kernel;
use super::{Cx, Epilogue};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::ops::host::element::{HostElement, with_element};
use crate::ops::host::math::{sigmoid, vectorised};
use crate::tensor::{DType, Tensor};

/// How the convolution's value becomes a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// 2 * sigmoid, in (0, 2): the published code
    TwoSigmoid,
    /// sigmoid, in (0, 1): the article
    Sigmoid,
}

/// `base + map * residual` and the map, with `map = gate(conv(features))`.
///
/// features [N, H, W, C] under `conv`, `weight` C -> 1, base and residual [N, H, W, D] ->
/// ([N, H, W, D], [N, H, W, 1]).
pub fn adapter_gate(
    cx: &Cx,
    conv: &Conv2d,
    weight: &ConvWeight,
    bias: &Tensor,
    gate: Gate,
    (base, residual): (&Tensor, &Tensor),
) -> Result<(Tensor, Tensor)> {
    let [n, h, w, d] = base.nhwc()?;
    if weight.outputs() != 1 || residual.shape() != base.shape() || conv.input.nhwc()?[..3] != [n, h, w] {
        return Err(Error::internal(format!("an adapter's map does not fit {}", base.shape())));
    }
    let logits = conv2d(cx, conv, weight, &Epilogue::bias(Some(bias)))?;
    let mut map = cx.allocate([n, h, w, 1], DType::F32)?;
    let mut result = cx.allocate(base.shape(), base.dtype())?;
    match cx.device() {
        Device::Cpu(_) => with_element!(base.dtype(), T => {
            let pair = (base.host::<T>()?, residual.host()?);
            inject(logits.host()?, gate, pair, d, map.host_mut()?, result.host_mut()?);
            Ok(())
        })?,
        Device::Gpu(_) => return Err(no_gpu_kernel("adapter_gate")),
        Device::Plan(_) => {}
    }
    let inputs = [&logits, base, residual];
    let map = cx.constant("adapter_gate", &inputs, map.freeze())?;
    Ok((cx.constant("adapter_gate", &inputs, result.freeze())?, map))
}

fn inject<T: HostElement>(
    logits: &[T],
    gate: Gate,
    (base, residual): (&[T], &[T]),
    d: usize,
    map: &mut [f32],
    result: &mut [T],
) {
    use rayon::prelude::*;
    let top = match gate {
        Gate::TwoSigmoid => 2.0,
        Gate::Sigmoid => 1.0,
    };
    const BLOCK: usize = 256;
    result.par_chunks_mut(d * BLOCK).zip(map.par_chunks_mut(BLOCK)).enumerate().for_each(
        |(block, (out, map))| {
            let first = block * BLOCK;
            vectorised!({
                map.iter_mut().zip(&logits[first..]).for_each(|(m, &x)| *m = top * sigmoid(x.wide()));
                for (i, (line, &m)) in out.chunks_exact_mut(d).zip(map.iter()).enumerate() {
                    let start = (first + i) * d;
                    let pair = base[start..][..d].iter().zip(&residual[start..][..d]);
                    line.iter_mut().zip(pair).for_each(|(v, (b, r))| *v = T::narrow(b.wide() + m * r.wide()));
                }
            });
        },
    );
}
