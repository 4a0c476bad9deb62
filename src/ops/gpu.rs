//! What the GPU sides of several ops share.

use super::{Activation, Epilogue, Segments};
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

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

/// Refuses what a kernel reads as f32 and is not; `what` names one of `tensors`.
pub fn must_be_f32<'a>(what: &str, tensors: impl IntoIterator<Item = &'a Tensor>) -> Result<()> {
    match tensors.into_iter().find(|tensor| tensor.dtype() != DType::F32) {
        None => Ok(()),
        Some(other) => Err(Error::internal(format!("{what} of {}, expected f32", other.dtype().name()))),
    }
}

/// 1 when 128-bit accesses at all these addresses are aligned.
pub fn aligned(addresses: impl IntoIterator<Item = u64>) -> u32 {
    u32::from(addresses.into_iter().all(|address| address % 16 == 0))
}

/// Mirrors Epilogue in kernels/common/epilogue.cuh.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::NoUninit)]
pub struct EpilogueParams {
    bias: u64,
    per_image: u64,
    residual: u64,
    rows_per_image: u32,
    activation: u32,
    slope: f32,
    scale: f32,
    aligned: u32,
    pad: u32,
}
const _: () = assert!(size_of::<EpilogueParams>() == 48);

impl EpilogueParams {
    /// For a result at `out` with rows of `columns` elements, `rows_per_image` of them an image.
    ///
    /// # Errors
    /// The bias is not f32, or another part not of the result's `dtype`.
    pub fn new(
        epilogue: &Epilogue,
        out: u64,
        columns: usize,
        rows_per_image: usize,
        dtype: DType,
    ) -> Result<Self> {
        let others = [epilogue.per_image, epilogue.residual].into_iter().flatten();
        let expected =
            others.map(|tensor| (tensor, dtype)).chain(epilogue.bias.map(|bias| (bias, DType::F32)));
        if let Some((tensor, dtype)) = expected.into_iter().find(|(tensor, dtype)| tensor.dtype() != *dtype) {
            return Err(Error::internal(format!(
                "an epilogue is given {} where it takes {}",
                tensor.dtype().name(),
                dtype.name()
            )));
        }
        let [bias, per_image, residual] =
            [epilogue.bias, epilogue.per_image, epilogue.residual].map(address_or_null);
        let (bias, per_image, residual) = (bias?, per_image?, residual?);
        let (activation, slope) = activation_code(epilogue.activation);
        // One row for all images: every row of the result is of the first.
        let common = epilogue.per_image.is_some_and(|rows| rows.shape()[0] == 1);
        let rows_per_image = if common { u32::MAX } else { rows_per_image as u32 };
        Ok(EpilogueParams {
            bias,
            per_image,
            residual,
            rows_per_image,
            activation,
            slope,
            scale: epilogue.scale,
            aligned: aligned([out, bias, per_image, residual, (columns * dtype.size()) as u64]),
            pad: 0,
        })
    }
}

/// Parts of one [`SegmentsParams`].
pub const MAX_SEGMENTS: usize = 8;

/// Mirrors Segments in kernels/common/segments.cuh.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::NoUninit)]
pub struct SegmentsParams {
    tensor: [u64; MAX_SEGMENTS],
    plus: [u64; MAX_SEGMENTS],
    end: [u32; MAX_SEGMENTS],
    parts: u32,
    channels: u32,
    aligned: u32,
    pad: u32,
}
const _: () = assert!(size_of::<SegmentsParams>() == 176);

impl SegmentsParams {
    /// # Errors
    /// More parts than a kernel takes, or of different element types.
    pub fn new(segments: &Segments) -> Result<Self> {
        segments.dtype()?;
        let parts = segments.parts();
        if parts.len() > MAX_SEGMENTS {
            return Err(Error::internal(format!("{} segments, a kernel takes {MAX_SEGMENTS}", parts.len())));
        }
        let (mut tensor, mut plus, mut end) = ([0; MAX_SEGMENTS], [0; MAX_SEGMENTS], [0; MAX_SEGMENTS]);
        let (mut channels, mut whole) = (0, 1);
        for (i, part) in parts.iter().enumerate() {
            tensor[i] = part.tensor.address()?;
            plus[i] = address_or_null(part.plus)?;
            channels += part.tensor.shape().last() as u32;
            whole &= u32::from(part.tensor.shape().last() % 8 == 0);
            end[i] = channels;
        }
        let aligned = whole & aligned(tensor.into_iter().chain(plus));
        Ok(SegmentsParams { tensor, plus, end, parts: parts.len() as u32, channels, aligned, pad: 0 })
    }

    /// 1 when eight channels at a time can be read, and written at `out`.
    pub fn aligned_with(self, out: u64) -> Self {
        SegmentsParams { aligned: self.aligned & aligned([out]), ..self }
    }
}
