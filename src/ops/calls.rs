//! What ops are called with: enough of each call to make it again with other values. A context that is observed is
//! told, which is how the benchmarks know the shapes that a system really uses.

use super::conv2d::{self, Algorithm, Conv2d, ConvWeight};
use super::window_attention::Windows;
use super::{Activation, Cx, Epilogue, Segments, attention};
use crate::tensor::DType;

/// A call and the element type of its first input.
#[derive(Clone, Debug)]
pub struct Noted {
    pub dtype: DType,
    pub call: Call,
}

/// Channels of the parts of a concatenation, and whether each is a sum of two tensors.
pub type Parts = Vec<(usize, bool)>;

/// What an epilogue has.
#[derive(Clone, Copy, Debug)]
pub struct Extras {
    pub bias: bool,
    pub per_image: bool,
    pub activation: Activation,
    pub residual: bool,
}

/// One call of an op.
#[derive(Clone, Debug)]
pub enum Call {
    /// [images, rows, inputs] -> [images, rows, outputs]
    Linear {
        images: usize,
        rows: usize,
        inputs: usize,
        outputs: usize,
        extras: Extras,
    },
    /// [rows, inputs] -> [rows, outputs / 2]
    Geglu {
        rows: usize,
        inputs: usize,
        outputs: usize,
    },
    Conv2d {
        geometry: conv2d::Geometry,
        parts: Parts,
        prologue: Option<Activation>,
        /// packed for large images
        large: bool,
        extras: Extras,
    },
    /// features [n, h, w, inputs], base and residual [n, h, w, width]
    AdapterGate {
        image: [usize; 3],
        inputs: usize,
        width: usize,
        prologue: Option<Activation>,
    },
    Attention(attention::Geometry),
    /// [n, h, w, heads * width] from three times as many channels
    WindowAttention {
        image: [usize; 3],
        windows: Windows,
    },
    /// statistics of a concatenation
    GroupNorm {
        image: [usize; 3],
        parts: Parts,
        groups: usize,
        adaln: bool,
    },
    Normalise {
        image: [usize; 3],
        channels: usize,
    },
    LayerNorm {
        rows: usize,
        width: usize,
    },
    Combine {
        count: usize,
        terms: usize,
    },
    Pointwise {
        count: usize,
    },
    Cast {
        count: usize,
        to: DType,
    },
    Concat {
        image: [usize; 3],
        parts: Parts,
    },
    AveragePool {
        image: [usize; 4],
        factor: usize,
    },
    PixelUnshuffle {
        image: [usize; 4],
        factor: usize,
    },
    /// [n, l, c] -> [n, 1, c]
    MeanToken {
        tokens: [usize; 3],
    },
    /// [n, before, c] and [n, after, c]
    JoinTokens {
        images: usize,
        before: usize,
        after: usize,
        channels: usize,
    },
    Resize {
        image: [usize; 4],
        to: [usize; 2],
    },
    Blur {
        image: [usize; 4],
        radius: usize,
    },
    DdpmStep {
        count: usize,
    },
    Posterior {
        image: [usize; 4],
    },
}

/// Tells an observer of `cx`, if there is one.
pub fn note(cx: &Cx, dtype: DType, call: impl FnOnce() -> Call) {
    cx.note(|| Noted { dtype, call: call() });
}

impl Extras {
    pub fn of(epilogue: &Epilogue) -> Self {
        Extras {
            bias: epilogue.bias.is_some(),
            per_image: epilogue.per_image.is_some(),
            activation: epilogue.activation,
            residual: epilogue.residual.is_some(),
        }
    }
}

/// The parts of `segments`.
pub fn parts(segments: &Segments) -> Parts {
    segments.parts().iter().map(|part| (part.tensor.shape().last(), part.plus.is_some())).collect()
}

impl Call {
    pub(super) fn conv2d(
        geometry: conv2d::Geometry,
        conv: &Conv2d,
        weight: &ConvWeight,
        epilogue: &Epilogue,
    ) -> Self {
        Call::Conv2d {
            geometry,
            parts: parts(&conv.input),
            prologue: conv.prologue.map(|affine| affine.activation),
            large: weight.algorithm() == Algorithm::Winograd,
            extras: Extras::of(epilogue),
        }
    }

    /// The op's name.
    pub fn op(&self) -> &'static str {
        match self {
            Call::Linear { .. } => "linear",
            Call::Geglu { .. } => "linear_geglu",
            Call::Conv2d { .. } => "conv2d",
            Call::AdapterGate { .. } => "adapter_gate",
            Call::Attention(_) => "attention",
            Call::WindowAttention { .. } => "window_attention",
            Call::GroupNorm { .. } => "group_norm",
            Call::Normalise { .. } => "normalise",
            Call::LayerNorm { .. } => "layer_norm",
            Call::Combine { .. } => "combine",
            Call::Pointwise { .. } => "pointwise",
            Call::Cast { .. } => "cast",
            Call::Concat { .. } => "concat",
            Call::AveragePool { .. } => "average_pool",
            Call::PixelUnshuffle { .. } => "pixel_unshuffle",
            Call::MeanToken { .. } => "mean_token",
            Call::JoinTokens { .. } => "join_tokens",
            Call::Resize { .. } => "resize",
            Call::Blur { .. } => "blur",
            Call::DdpmStep { .. } => "ddpm_step",
            Call::Posterior { .. } => "posterior",
        }
    }

    /// Multiplications and additions of the products; 0 for ops that have none worth counting.
    pub fn flops(&self) -> f64 {
        let product = |m: usize, n: usize, k: usize| 2.0 * m as f64 * n as f64 * k as f64;
        match self {
            Call::Linear { images, rows, inputs, outputs, .. } => product(images * rows, *outputs, *inputs),
            Call::Geglu { rows, inputs, outputs } => product(*rows, *outputs, *inputs),
            Call::Conv2d { geometry: g, .. } => {
                product(g.n * g.out_h * g.out_w, g.o, g.c * g.kernel * g.kernel)
            }
            Call::AdapterGate { image: [n, h, w], inputs, .. } => product(n * h * w, 1, 9 * inputs),
            Call::Attention(g) => {
                let seen = if g.causal { 0.5 } else { 1.0 };
                seen * 2.0 * product(g.n * g.heads * g.l, g.m, g.width)
            }
            Call::WindowAttention { image: [n, h, w], windows: Windows { side, heads, width, .. } } => {
                2.0 * product(n * h * w * heads, side * side, *width)
            }
            _ => 0.0,
        }
    }

    /// Bytes that have to move between memory and the chip at least: every input and weight read once, every
    /// result written once.
    pub fn bytes(&self, dtype: DType) -> f64 {
        let size = dtype.size() as f64;
        let elements = |counts: &[usize]| size * counts.iter().sum::<usize>() as f64;
        let wide = |count: usize| 4.0 * count as f64;
        let channels =
            |parts: &Parts| parts.iter().map(|(c, plus)| c * (1 + usize::from(*plus))).sum::<usize>();
        match self {
            Call::Linear { images, rows, inputs, outputs, extras } => {
                let rows = images * rows;
                let result = rows * outputs * (1 + usize::from(extras.residual));
                elements(&[rows * inputs, inputs * outputs, result]) + wide(*outputs)
            }
            Call::Geglu { rows, inputs, outputs } => {
                elements(&[rows * inputs, inputs * outputs, rows * outputs / 2]) + wide(*outputs)
            }
            Call::Conv2d { geometry: g, parts, extras, .. } => {
                let result = g.n * g.out_h * g.out_w * g.o * (1 + usize::from(extras.residual));
                let weights = g.c * g.o * g.kernel * g.kernel;
                elements(&[g.n * g.h * g.w * channels(parts), weights, result]) + wide(g.o)
            }
            Call::AdapterGate { image: [n, h, w], inputs, width, .. } => {
                let pixels = n * h * w;
                elements(&[pixels * inputs, 3 * pixels * width, 9 * inputs]) + wide(pixels)
            }
            Call::Attention(g) => {
                elements(&[2 * g.n * g.l * g.heads * g.width, 2 * g.n * g.m * g.heads * g.width])
            }
            Call::WindowAttention { image: [n, h, w], windows: Windows { side, heads, width, .. } } => {
                elements(&[4 * n * h * w * heads * width]) + wide((2 * side - 1).pow(2) * heads)
            }
            // A tensor that the concatenation has twice is read once.
            Call::GroupNorm { image: [n, h, w], parts, .. } => elements(&[n * h * w * channels(parts)]),
            Call::Normalise { image: [n, h, w], channels } => elements(&[2 * n * h * w * channels]),
            Call::LayerNorm { rows, width } => elements(&[2 * rows * width]),
            Call::Combine { count, terms } => elements(&[count * (terms + 1)]),
            Call::Pointwise { count } => elements(&[2 * count]),
            Call::Cast { count, to } => elements(&[*count]) + (count * to.size()) as f64,
            Call::Concat { image: [n, h, w], parts } => {
                let out: usize = parts.iter().map(|(c, _)| c).sum();
                elements(&[n * h * w * (channels(parts) + out)])
            }
            Call::AveragePool { image: [n, h, w, c], factor } => {
                elements(&[n * h * w * c, n * (h / factor) * (w / factor) * c])
            }
            Call::PixelUnshuffle { image, .. } => elements(&[2 * image.iter().product::<usize>()]),
            Call::MeanToken { tokens: [n, l, c] } => elements(&[n * l * c, n * c]),
            Call::JoinTokens { images, before, after, channels } => {
                elements(&[2 * images * (before + after) * channels])
            }
            Call::Resize { image: [n, h, w, c], to } => wide(n * c * (h * w + to[0] * to[1])),
            Call::Blur { image, .. } => wide(2 * image.iter().product::<usize>()),
            Call::DdpmStep { count } => wide(4 * count),
            Call::Posterior { image } => elements(&[2 * image.iter().product::<usize>()]) * 1.5,
        }
    }
}
