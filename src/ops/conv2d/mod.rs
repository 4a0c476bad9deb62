//! Convolution over a virtual concatenation, with a norm applied to what it loads and an epilogue to what
//! it writes.
//!
//! `result = epilogue(sum over taps of prologue(x)[y * stride + dy - pad, ...] . weight[dy, dx])`, zeros
//! outside the image after the prologue. Kernels 1x1 and 3x3, stride 1 and 2.

mod backward;
mod bf16;
pub mod cpu;
mod cpu_backward;
mod cuda;
mod cuda_backward;
pub mod plan;
mod plan_backward;
mod sm90;
mod weight;
mod winograd;

use super::calls::{Call, note};
use super::group_norm::Affine;
use super::{Activation, Cx, Epilogue, Segments};
use crate::device::{Device, Target};
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};
pub use weight::{Algorithm, ConvWeight};

/// Where the zeros around the image are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Padding {
    /// Half a kernel on every side.
    #[default]
    Same,
    /// One row below and one column right: the autoencoder's downsampling.
    RightBelow,
}

/// What is convolved and how.
#[derive(Clone, Debug)]
pub struct Conv2d<'a> {
    pub input: Segments<'a>,
    /// Applied to the input while it is loaded.
    pub prologue: Option<&'a Affine>,
    /// The input is first doubled in height and width, nearest neighbour.
    pub upsample: bool,
    pub stride: usize,
    pub padding: Padding,
}

impl<'a> Conv2d<'a> {
    /// Stride 1, padding `Same`, no prologue.
    pub fn new(input: Segments<'a>) -> Self {
        Conv2d { input, prologue: None, upsample: false, stride: 1, padding: Padding::Same }
    }

    pub fn prologue(self, affine: &'a Affine) -> Self {
        Conv2d { prologue: Some(affine), ..self }
    }

    pub fn upsample(self) -> Self {
        Conv2d { upsample: true, ..self }
    }

    pub fn stride(self, stride: usize, padding: Padding) -> Self {
        Conv2d { stride, padding, ..self }
    }
}

/// All sizes of one convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    pub n: usize,
    /// the input as stored
    pub h: usize,
    pub w: usize,
    pub c: usize,
    /// 2 when the input is doubled on the way
    pub zoom: usize,
    pub kernel: usize,
    pub stride: usize,
    /// zeros above and left
    pub pad: usize,
    pub out_h: usize,
    pub out_w: usize,
    pub o: usize,
}

impl Geometry {
    fn of(conv: &Conv2d, weight: &ConvWeight) -> Result<Self> {
        let [n, h, w, c] = conv.input.nhwc()?;
        let kernel = weight.kernel();
        let zoom = if conv.upsample { 2 } else { 1 };
        let (pad, around) = match conv.padding {
            Padding::Same => (kernel / 2, 2 * (kernel / 2)),
            Padding::RightBelow => (0, 1),
        };
        let out = |size: usize| (size * zoom + around).checked_sub(kernel).map(|room| room / conv.stride + 1);
        match (out(h), out(w)) {
            (Some(out_h), Some(out_w))
                if c == weight.inputs()
                    && matches!(conv.stride, 1 | 2)
                    && (weight.algorithm() == Algorithm::Direct
                        || conv.stride == 1 && pad == 1 && out_h % 2 == 0 && out_w % 2 == 0) =>
            {
                Ok(Geometry {
                    n,
                    h,
                    w,
                    c,
                    zoom,
                    kernel,
                    stride: conv.stride,
                    pad,
                    out_h,
                    out_w,
                    o: weight.outputs(),
                })
            }
            _ => Err(Error::internal(format!("{weight:?} cannot convolve [{n}, {h}, {w}, {c}]"))),
        }
    }
}

/// `conv` with `weight` and `epilogue`: [N, H', W', O].
///
/// # Errors
/// Sizes that do not fit, or not enough memory.
pub fn conv2d(cx: &Cx, conv: &Conv2d, weight: &ConvWeight, epilogue: &Epilogue) -> Result<Tensor> {
    let geometry = Geometry::of(conv, weight)?;
    note(cx, conv.input.dtype()?, || Call::conv2d(geometry, conv, weight, epilogue));
    let mut inputs = conv.input.tensors();
    inputs.extend(conv.prologue.map(|affine| &affine.coefficients));
    inputs.extend(epilogue.tensors());
    inputs.push(weight.packed());
    let tracked = cx.tracks(&inputs);
    if tracked && epilogue.activation != Activation::None {
        return epilogue.finish_sums(cx, &conv2d(cx, conv, weight, &epilogue.linear_part())?);
    }
    let Geometry { n, c, out_h, out_w, o, .. } = geometry;
    if conv.prologue.is_some_and(|affine| *affine.coefficients.shape() != [n, 2, c]) {
        return Err(Error::internal(format!("a prologue does not fit {geometry:?}")));
    }
    let mut result = cx.allocate([n, out_h, out_w, o], conv.input.dtype()?)?;
    epilogue.check(result.shape())?;
    let input = cuda::Input { segments: &conv.input, prologue: conv.prologue };
    let problem = geometry.problem(&input, result.dtype());
    let stored = sm90::Stored::of(cx, conv, &problem)?;
    let scratch = match (cx.device().target(), &stored) {
        (Target::Cpu, _) if result.dtype() == DType::BF16 => bf16::scratch(&geometry, conv),
        (Target::Cpu, _) => cpu::scratch(&geometry, conv, weight),
        (Target::Gpu, Some(stored)) => stored.scratch(),
        (Target::Gpu, None) => problem.scratch() / DType::F32.size(),
    };
    let mut scratch = cx.allocate([scratch], DType::F32)?;
    match cx.device() {
        Device::Cpu(cpu) if result.dtype() == DType::BF16 => {
            let (scratch, result) = (scratch.host_mut()?, result.host_mut()?);
            bf16::conv2d(cpu, &geometry, conv, weight, epilogue, scratch, result)?;
        }
        Device::Cpu(_) => {
            cpu::conv2d(&geometry, conv, weight, epilogue, scratch.host_mut()?, result.host_mut()?)?;
        }
        Device::Gpu(gpu) => match &stored {
            Some(stored) => {
                let epilogue = (epilogue, out_h * out_w);
                stored.launch(gpu, weight.packed(), epilogue, &mut scratch, &mut result)?;
            }
            None => cuda::conv2d(gpu, &geometry, conv, weight, epilogue, &mut scratch, &mut result)?,
        },
        Device::Plan(_) => {}
    }
    drop((scratch, stored));
    if !tracked {
        return Ok(result.freeze());
    }
    let saved = backward::Saved::new(geometry, conv, weight, epilogue);
    Ok(cx.record(&inputs, result.freeze(), move |cx, gradient, gradients| {
        saved.backward(cx, gradient, gradients)
    }))
}
