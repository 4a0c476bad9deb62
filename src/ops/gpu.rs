//! What the GPU sides of several ops share.

use super::Activation;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// The error of an op that has no kernel.
pub fn no_gpu_kernel(op: &str) -> Error {
    Error::device(format!("op {op} has no GPU kernel")).at("--device").fix("use --device cpu")
}

/// The number of an activation in kernels/common/math.cuh, and its slope.
pub fn activation_code(activation: Activation) -> (u32, f32) {
    match activation {
        Activation::None => (0, 0.0),
        Activation::Silu => (1, 0.0),
        Activation::Relu => (2, 0.0),
        Activation::LeakyRelu(slope) => (3, slope),
        Activation::Gelu => (4, 0.0),
    }
}

/// The address of a tensor that may be absent: 0 tells a kernel so.
pub fn address_or_null(tensor: Option<&Tensor>) -> Result<u64> {
    tensor.map_or(Ok(0), Tensor::address)
}

/// 1 when 128-bit accesses at all these addresses are aligned.
pub fn aligned(addresses: impl IntoIterator<Item = u64>) -> u32 {
    u32::from(addresses.into_iter().all(|address| address % 16 == 0))
}
