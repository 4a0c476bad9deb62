//! Launches of kernels/attention/forward_sm90.cu.

use bytemuck::NoUninit;

use super::plan::{Forward, hopper_grid};
use super::{Geometry, Heads};
use crate::device::Gpu;
use crate::device::gpu::kernels;
use crate::device::gpu::tensor_map::{Boxes, TensorMap};
use crate::error::Result;
use crate::tensor::{DType, TensorMut};

/// Columns of a head, and rows of a tile.
const WIDTH: usize = 64;
const TILE: u32 = 128;

#[repr(C, align(64))]
#[derive(Clone, Copy, NoUninit)]
struct AttentionSm90Params {
    q: TensorMap,
    k: TensorMap,
    v: TensorMap,
    out: u64,
    sum_log: u64,
    l: u32,
    m: u32,
    heads: u32,
    scale: f32,
    q_column: u32,
    k_column: u32,
    v_column: u32,
    pad: u32,
    unused: [u64; 2],
}
const _: () = assert!(size_of::<AttentionSm90Params>() == 448);

/// True when the GPU has the kernel, it takes the heads, and there is work for its large blocks.
pub fn suits(gpu: &Gpu, g: &Geometry, chosen: Forward, operands: &[Heads; 3]) -> Result<bool> {
    if chosen != Forward::Large64 || g.width != WIDTH || g.causal {
        return Ok(false);
    }
    for heads in operands {
        let (tensor, columns) = (heads.tensor, heads.tensor.shape().last());
        if !Boxes::<4>::can_read(tensor.address()?, columns, tensor.dtype()) {
            return Ok(false);
        }
    }
    Ok(gpu.has(kernels::ATTENTION_64_SM90.of(operands[0].tensor.dtype())?))
}

/// Attention of heads 64 wide without a mask; `scale` is the factor of a score in the exponent of 2.
pub fn attention(
    gpu: &Gpu,
    g: &Geometry,
    operands: [Heads; 3],
    scale: f32,
    dtype: DType,
    result: &mut TensorMut,
    sum_log: u64,
) -> Result<()> {
    let [q, k, v] = operands.map(|heads| {
        let shape = heads.tensor.shape();
        gpu.tensor_map(&Boxes {
            address: heads.tensor.address()?,
            dtype,
            dims: [shape[2], shape[1], shape[0], 1],
            size: [WIDTH as u32, TILE, 1, 1],
        })
    });
    let [q_column, k_column, v_column] = operands.map(|heads| heads.offset as u32);
    let params = AttentionSm90Params {
        q: q?,
        k: k?,
        v: v?,
        out: result.address()?,
        sum_log,
        l: g.l as u32,
        m: g.m as u32,
        heads: g.heads as u32,
        scale,
        q_column,
        k_column,
        v_column,
        pad: 0,
        unused: [0; 2],
    };
    // SAFETY: the op checked the operands' rows and columns against the geometry, the results have its shape,
    // and all are of the kernel's element type.
    unsafe { gpu.launch(kernels::ATTENTION_64_SM90.of(dtype)?, hopper_grid(g)?, &params) }
}
