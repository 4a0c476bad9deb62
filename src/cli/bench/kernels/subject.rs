//! A call made again: with drawn values, on any device.

use crate::device::{Device, Purpose};
use crate::error::Result;
use crate::ops::adapter_gate::{Gate, adapter_gate};
use crate::ops::attention::{Heads, attention};
use crate::ops::average_pool::average_pool;
use crate::ops::calls::{Call, Extras, Noted, Parts};
use crate::ops::conv2d::{Conv2d, ConvWeight, Padding, conv2d};
use crate::ops::diffusion::{StepCoefficients, ddpm_step, posterior};
use crate::ops::elementwise::{cast, combine, concat, pointwise};
use crate::ops::group_norm::{Affine, GroupNorm, group_norm, normalise};
use crate::ops::layer_norm::layer_norm;
use crate::ops::linear::{LinearWeight, library_linear, linear, linear_geglu};
use crate::ops::pixel_unshuffle::pixel_unshuffle;
use crate::ops::resize::resize_bicubic;
use crate::ops::tokens::{join_tokens, mean_token};
use crate::ops::wavelet::low_frequencies;
use crate::ops::window_attention::window_attention;
use crate::ops::{Activation, Cx, Epilogue, Segment, Segments};
use crate::tensor::{DType, Shape, Tensor};

/// Makes the call once; its results.
pub type Run = Box<dyn Fn(&Cx) -> Result<Vec<Tensor>>>;

/// Draws values: the same sequence of tensors on every device.
struct Drawer<'a> {
    cx: &'a Cx,
    /// of the call: values are rounded to it also where they are stored as f32
    dtype: DType,
    next: u64,
}

impl Drawer<'_> {
    /// Uniform values in [-scale, scale), rounded to the call's type.
    fn values(&mut self, count: usize, scale: f32) -> Vec<f32> {
        self.next += 1;
        let mut state = self.next.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut values: Vec<f32> = (0..count)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * scale
            })
            .collect();
        match self.dtype {
            DType::F32 => {}
            DType::F16 => values.iter_mut().for_each(|v| *v = half::f16::from_f32(*v).to_f32()),
            DType::BF16 => values.iter_mut().for_each(|v| *v = half::bf16::from_f32(*v).to_f32()),
        }
        values
    }

    /// As the networks' activations are stored.
    fn tensor(&mut self, shape: impl Into<Shape>) -> Result<Tensor> {
        let dtype = if let Device::Cpu(_) = self.cx.device() { DType::F32 } else { self.dtype };
        self.stored(shape, dtype)
    }

    /// As biases and everything outside networks are stored.
    fn wide(&mut self, shape: impl Into<Shape>) -> Result<Tensor> {
        self.stored(shape, DType::F32)
    }

    fn stored(&mut self, shape: impl Into<Shape>, dtype: DType) -> Result<Tensor> {
        let shape = shape.into();
        let values = self.values(shape.count(), 1.0);
        Tensor::from_f32_as(self.cx.device(), &values, shape, dtype, Purpose::Weight)
    }

    fn linear(&mut self, outputs: usize, inputs: usize) -> Result<LinearWeight> {
        let values = self.values(outputs * inputs, (3.0 / inputs as f32).sqrt());
        LinearWeight::pack(self.cx, &values, [outputs, inputs])
    }

    fn conv(&mut self, [o, c, kernel]: [usize; 3], large: bool) -> Result<ConvWeight> {
        let values = self.values(o * c * kernel * kernel, (3.0 / (c * kernel * kernel) as f32).sqrt());
        match large {
            true => ConvWeight::pack_for_large(self.cx, &values, [o, c, kernel, kernel]),
            false => ConvWeight::pack(self.cx, &values, [o, c, kernel, kernel]),
        }
    }

    fn affine(&mut self, n: usize, c: usize, activation: Option<Activation>) -> Result<Option<Affine>> {
        let coefficients = match activation {
            None => return Ok(None),
            Some(_) => self.wide([n, 2, c])?,
        };
        Ok(activation.map(|activation| Affine { coefficients, activation }))
    }

    fn parts(&mut self, [n, h, w]: [usize; 3], parts: &Parts) -> Result<Owned> {
        let part = |(c, plus): &(usize, bool)| -> Result<_> {
            let tensor = self.tensor([n, h, w, *c])?;
            Ok((tensor, if *plus { Some(self.tensor([n, h, w, *c])?) } else { None }))
        };
        Ok(Owned(parts.iter().map(part).collect::<Result<_>>()?))
    }

    fn extras(&mut self, extras: &Extras, n: usize, o: usize, result: Shape) -> Result<Finish> {
        Ok(Finish {
            bias: if extras.bias { Some(self.wide([o])?) } else { None },
            per_image: if extras.per_image { Some(self.tensor([n, o])?) } else { None },
            activation: extras.activation,
            residual: if extras.residual { Some(self.tensor(result)?) } else { None },
        })
    }
}

/// Segments that own their tensors.
struct Owned(Vec<(Tensor, Option<Tensor>)>);

impl Owned {
    fn view(&self) -> Segments<'_> {
        Segments::new(self.0.iter().map(|(tensor, plus)| Segment { tensor, plus: plus.as_ref() }).collect())
    }
}

/// An epilogue that owns its tensors.
struct Finish {
    bias: Option<Tensor>,
    per_image: Option<Tensor>,
    activation: Activation,
    residual: Option<Tensor>,
}

impl Finish {
    fn view(&self) -> Epilogue<'_> {
        Epilogue {
            bias: self.bias.as_ref(),
            per_image: self.per_image.as_ref(),
            activation: self.activation,
            scale: 1.0,
            residual: self.residual.as_ref(),
        }
    }
}

/// Prepares `noted` on the device of `cx`: what it reads is made now.
///
/// # Errors
/// Memory that runs out.
pub fn make(cx: &Cx, noted: &Noted) -> Result<Run> {
    let mut draw = Drawer { cx, dtype: noted.dtype, next: 0 };
    Ok(match noted.call.clone() {
        Call::Linear { images, rows, inputs, outputs, extras } => {
            let (x, weight) = (draw.tensor([images, rows, inputs])?, draw.linear(outputs, inputs)?);
            let finish = draw.extras(&extras, images, outputs, [images, rows, outputs].into())?;
            Box::new(move |cx| Ok(vec![linear(cx, &x, &weight, &finish.view())?]))
        }
        Call::Geglu { rows, inputs, outputs } => {
            let (x, weight) = (draw.tensor([1, rows, inputs])?, draw.linear(outputs, inputs)?);
            let bias = draw.wide([outputs])?;
            Box::new(move |cx| Ok(vec![linear_geglu(cx, &x, &weight, &bias)?]))
        }
        Call::Conv2d { geometry: g, parts, prologue, large, extras } => {
            let input = draw.parts([g.n, g.h, g.w], &parts)?;
            let affine = draw.affine(g.n, g.c, prologue)?;
            let weight = draw.conv([g.o, g.c, g.kernel], large)?;
            let finish = draw.extras(&extras, g.n, g.o, [g.n, g.out_h, g.out_w, g.o].into())?;
            Box::new(move |cx| {
                let padding = if g.pad == g.kernel / 2 { Padding::Same } else { Padding::RightBelow };
                let conv = Conv2d {
                    input: input.view(),
                    prologue: affine.as_ref(),
                    upsample: g.zoom == 2,
                    stride: g.stride,
                    padding,
                };
                Ok(vec![conv2d(cx, &conv, &weight, &finish.view())?])
            })
        }
        Call::AdapterGate { image: [n, h, w], inputs, width, prologue } => {
            let x = draw.tensor([n, h, w, inputs])?;
            let affine = draw.affine(n, inputs, prologue)?;
            let (weight, bias) = (draw.conv([1, inputs, 3], false)?, draw.wide([1])?);
            let (base, residual) = (draw.tensor([n, h, w, width])?, draw.tensor([n, h, w, width])?);
            Box::new(move |cx| {
                let conv = Conv2d { prologue: affine.as_ref(), ..Conv2d::new(Segments::one(&x)) };
                let pair = (&base, &residual);
                let (result, map) = adapter_gate(cx, &conv, &weight, &bias, Gate::TwoSigmoid, pair)?;
                Ok(vec![result, map])
            })
        }
        Call::Attention(g) => {
            let all = g.heads * g.width;
            // Queries, keys and values of self attention are columns of one tensor.
            let joint = g.l == g.m;
            let q = draw.tensor([g.n, g.l, if joint { 3 * all } else { all }])?;
            let kv = if joint { q.clone() } else { draw.tensor([g.n, g.m, 2 * all])? };
            Box::new(move |cx| {
                let first = if joint { all } else { 0 };
                let heads = (Heads::new(&q, 0), Heads::new(&kv, first), Heads::new(&kv, first + all));
                Ok(vec![attention(cx, heads, g.heads, g.width, g.causal)?])
            })
        }
        Call::WindowAttention { image: [n, h, w], windows } => {
            let qkv = draw.tensor([n, h, w, 3 * windows.heads * windows.width])?;
            let bias = draw.wide([(2 * windows.side - 1).pow(2), windows.heads])?;
            Box::new(move |cx| Ok(vec![window_attention(cx, &qkv, &bias, windows)?]))
        }
        Call::GroupNorm { image: image @ [n, ..], parts, groups, adaln } => {
            let c: usize = parts.iter().map(|(c, _)| c).sum();
            let input = draw.parts(image, &parts)?;
            let (gamma, beta) = (draw.wide([c])?, draw.wide([c])?);
            let adaln = if adaln { Some(draw.tensor([n, 2 * c])?) } else { None };
            Box::new(move |cx| {
                let norm = GroupNorm { gamma: &gamma, beta: &beta, groups, eps: 1e-5 };
                let affine = group_norm(cx, &input.view(), &norm, adaln.as_ref(), Activation::Silu)?;
                Ok(vec![affine.coefficients])
            })
        }
        Call::Normalise { image: [n, h, w], channels } => {
            let x = draw.tensor([n, h, w, channels])?;
            let affine = Affine { coefficients: draw.wide([n, 2, channels])?, activation: Activation::None };
            Box::new(move |cx| Ok(vec![normalise(cx, &Segments::one(&x), &affine)?]))
        }
        Call::LayerNorm { rows, width } => {
            let (x, gamma, beta) = (draw.tensor([rows, width])?, draw.wide([width])?, draw.wide([width])?);
            Box::new(move |cx| Ok(vec![layer_norm(cx, &x, &gamma, &beta, 1e-5)?]))
        }
        Call::Combine { count, terms } => {
            let all = (0..terms).map(|_| draw.tensor([count])).collect::<Result<Vec<_>>>()?;
            Box::new(move |cx| {
                let terms: Vec<_> = all.iter().map(|tensor| (0.5, tensor)).collect();
                Ok(vec![combine(cx, &terms, 0.25)?])
            })
        }
        Call::Pointwise { count } => {
            let x = draw.tensor([count])?;
            Box::new(move |cx| Ok(vec![pointwise(cx, &x, Activation::Silu)?]))
        }
        Call::Cast { count, to } => {
            let x = draw.tensor([count])?;
            Box::new(move |cx| match cx.device() {
                Device::Cpu(_) => Ok(vec![x.clone()]),
                _ => Ok(vec![cast(cx, &x, to)?]),
            })
        }
        Call::Concat { image, parts } => {
            let input = draw.parts(image, &parts)?;
            Box::new(move |cx| Ok(vec![concat(cx, &input.view())?]))
        }
        Call::AveragePool { image, factor } => {
            let x = draw.tensor(image)?;
            Box::new(move |cx| Ok(vec![average_pool(cx, &x, factor)?]))
        }
        Call::PixelUnshuffle { image, factor } => {
            let x = draw.tensor(image)?;
            Box::new(move |cx| Ok(vec![pixel_unshuffle(cx, &x, factor)?]))
        }
        Call::MeanToken { tokens } => {
            let x = draw.tensor(tokens)?;
            Box::new(move |cx| Ok(vec![mean_token(cx, &x)?]))
        }
        Call::JoinTokens { images, before, after, channels } => {
            let (a, b) = (draw.tensor([images, before, channels])?, draw.tensor([images, after, channels])?);
            Box::new(move |cx| Ok(vec![join_tokens(cx, &a, &b)?]))
        }
        Call::Resize { image, to: [h, w] } => {
            let x = draw.wide(image)?;
            Box::new(move |cx| Ok(vec![resize_bicubic(cx, &x, h, w)?]))
        }
        Call::Blur { image, .. } => {
            // The blur of radius 1; the others move as many bytes.
            let x = draw.wide(image)?;
            Box::new(move |cx| Ok(vec![low_frequencies(cx, &x, 1)?]))
        }
        Call::DdpmStep { count } => {
            let (x, eps, noise) = (draw.wide([count])?, draw.tensor([count])?, draw.wide([count])?);
            let step = StepCoefficients {
                x0_from_x: 1.5,
                x0_from_noise: 1.1,
                mean_from_x0: 0.4,
                mean_from_x: 0.6,
                deviation: 0.1,
            };
            Box::new(move |cx| Ok(vec![ddpm_step(cx, &x, &eps, &noise, &step)?]))
        }
        Call::Posterior { image: [n, h, w, c] } => {
            let moments = draw.tensor([n, h, w, 2 * c])?;
            Box::new(move |cx| Ok(vec![posterior(cx, &moments, None, 0.18215)?]))
        }
    })
}

/// The product alone of a linear layer by the vendor's library, where the device has it.
///
/// # Errors
/// Memory that runs out.
pub fn make_library(cx: &Cx, noted: &Noted) -> Result<Option<Run>> {
    let (rows, inputs, outputs) = match noted.call {
        Call::Linear { images, rows, inputs, outputs, .. } => (images * rows, inputs, outputs),
        Call::Geglu { rows, inputs, outputs } => (rows, inputs, outputs),
        _ => return Ok(None),
    };
    if !cx.device().gpu().is_some_and(|gpu| gpu.has_library()) {
        return Ok(None);
    }
    let mut draw = Drawer { cx, dtype: noted.dtype, next: 0 };
    let (x, weight) = (draw.tensor([1, rows, inputs])?, draw.linear(outputs, inputs)?);
    Ok(Some(Box::new(move |cx| Ok(vec![library_linear(cx, &x, &weight)?]))))
}
