//! The Stable Diffusion 2.1 UNet (`model.diffusion_model.*`), steered by a ControlNet whose residuals are
//! weighted by adapters.

mod blocks;
mod encoder;
mod transformer;

pub(crate) use encoder::{Encoder, EncoderText, EncoderTimes};

use super::adapters::{AdapterTimes, Adapters};
use super::config::DenoiserConfig;
use crate::error::{Error, Result};
use crate::nn::{Conv, GroupNorm, Scope, layers};
use crate::ops::conv2d::Conv2d;
use crate::ops::elementwise::{cast, combine};
use crate::ops::{Activation, Cx, Segments};
use crate::tensor::{DType, Tensor};
use blocks::{ResBlock, load_upsample};
use transformer::{Context, SpatialTransformer};

struct OutputBlock {
    res: ResBlock,
    attention: Option<SpatialTransformer>,
    upsample: Option<Conv>,
}

/// The denoiser.
pub struct UNet {
    encoder: Encoder,
    output_blocks: Vec<OutputBlock>,
    norm_out: GroupNorm,
    conv_out: Conv,
}

/// Projections of the time embedding for every residual block, a row per timestep.
#[derive(Clone, Debug)]
pub struct UNetTimes {
    encoder: EncoderTimes,
    decoder: Vec<Tensor>,
    /// [T, E] before its SiLU: what the adapters embed further
    pub embedding: Tensor,
}

impl UNetTimes {
    /// Every projection replaced by what `of` makes of it, in a fixed order.
    pub fn map(&self, of: &mut dyn FnMut(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok(UNetTimes {
            encoder: self.encoder.map(of)?,
            decoder: self.decoder.iter().map(&mut *of).collect::<Result<_>>()?,
            embedding: of(&self.embedding)?,
        })
    }
}

/// Keys and values of the text for every transformer.
#[derive(Clone, Debug)]
pub struct UNetText {
    encoder: EncoderText,
    decoder: Vec<Option<Context>>,
}

/// ControlNet residuals, finest first and the middle one last, and how they are weighted.
pub struct Control<'a> {
    pub residuals: Vec<Tensor>,
    pub adapters: Option<(&'a Adapters, &'a AdapterTimes)>,
}

/// What the UNet returns.
pub struct Prediction {
    /// the predicted noise, f32 [N, h, w, 4]
    pub eps: Tensor,
    /// weight maps [N, h_i, w_i, 1] in the order in which the decoder meets them, middle first
    pub maps: Vec<Tensor>,
}

impl UNet {
    /// Loads the network of these sizes under `scope`.
    pub fn load(scope: &Scope, config: &DenoiserConfig) -> Result<Self> {
        let encoder = Encoder::load(scope, config, config.latent)?;
        let mut output_blocks = Vec::new();
        let per_level = config.blocks + 1;
        for (i, (h, skip)) in config.joins().into_iter().enumerate() {
            let level = config.widths.len() - 1 - i / per_level;
            let block = scope.sub(format!("output_blocks.{i}"));
            let width = config.widths[level];
            let mut next = 1..;
            let mut index = || next.next().unwrap_or_default();
            let attention = match config.attention[level] {
                true => Some(SpatialTransformer::load(&block.sub(index()), width, config.context)?),
                false => None,
            };
            let upsample = match level > 0 && i % per_level == config.blocks {
                true => Some(load_upsample(&block.sub(index()), width, DenoiserConfig::is_large(level - 1))?),
                false => None,
            };
            let res = ResBlock::load(
                &block.sub(0),
                h + skip,
                width,
                config.embedding(),
                DenoiserConfig::is_large(level),
            )?;
            output_blocks.push(OutputBlock { res, attention, upsample });
        }
        Ok(UNet {
            encoder,
            output_blocks,
            norm_out: GroupNorm::load(&scope.sub("out.0"), config.channels, 32, 1e-5)?,
            conv_out: Conv::load(&scope.sub("out.2"), config.channels, config.latent, 3)?,
        })
    }

    /// What depends on the timesteps only: one row for each of `timesteps`.
    pub fn times(&self, cx: &Cx, timesteps: &[f32]) -> Result<UNetTimes> {
        let embedding = self.encoder.embed_times(cx, timesteps)?;
        let active = crate::ops::elementwise::pointwise(cx, &embedding, Activation::Silu)?;
        Ok(UNetTimes {
            encoder: self.encoder.times(cx, &active)?,
            decoder: self.output_blocks.iter().map(|b| b.res.time(cx, &active)).collect::<Result<_>>()?,
            embedding,
        })
    }

    /// What depends on the text only; `context` [N, L, D].
    pub fn text(&self, cx: &Cx, context: &Tensor) -> Result<UNetText> {
        let context = cast(cx, context, cx.dtype())?;
        let keys = |a: &Option<SpatialTransformer>| a.as_ref().map(|a| a.context(cx, &context)).transpose();
        Ok(UNetText {
            encoder: self.encoder.text(cx, &context)?,
            decoder: self.output_blocks.iter().map(|b| keys(&b.attention)).collect::<Result<_>>()?,
        })
    }

    /// The noise in `x` [N, h, w, 4]; `times` has one row or N, `text` N rows.
    pub fn forward(
        &self,
        cx: &Cx,
        x: &Tensor,
        times: &UNetTimes,
        text: &UNetText,
        control: Option<Control>,
    ) -> Result<Prediction> {
        let x = cast(cx, x, cx.dtype())?;
        let (mut h, mut skips) =
            self.encoder.forward(cx, &Segments::one(&x), &times.encoder, &text.encoder)?;
        let mut control = control;
        let mut maps = Vec::new();
        if let Some(control) = &mut control {
            let residual = pop(&mut control.residuals)?;
            h = inject(cx, control, None, &h, &residual, &mut maps)?;
        }
        for (i, block) in self.output_blocks.iter().enumerate() {
            let mut skip = pop(&mut skips)?;
            if let Some(control) = &mut control {
                let residual = pop(&mut control.residuals)?;
                skip = inject(cx, control, Some(&h), &skip, &residual, &mut maps)?;
            }
            h = block.res.run(cx, &[&h, &skip], &times.decoder[i])?;
            drop(skip);
            if let (Some(attention), Some(context)) = (&block.attention, &text.decoder[i]) {
                h = attention.forward(cx, &h, context)?;
            }
            if let Some(upsample) = &block.upsample {
                h = upsample.forward(cx, &Conv2d::new(Segments::one(&h)).upsample())?;
            }
        }
        let input = Segments::one(&h);
        let norm = self.norm_out.affine(cx, &input, None, Activation::Silu)?;
        let eps = self.conv_out.forward(cx, &Conv2d::new(input.clone()).prologue(&norm))?;
        Ok(Prediction { eps: cast(cx, &eps, DType::F32)?, maps })
    }
}

layers! {
    OutputBlock { res, attention, upsample }
    UNet { encoder, output_blocks, norm_out, conv_out }
}

fn pop(list: &mut Vec<Tensor>) -> Result<Tensor> {
    list.pop().ok_or_else(|| Error::internal("the decoder met fewer features than it has blocks"))
}

/// `base + map * residual`, or `base + residual` without adapters.
fn inject(
    cx: &Cx,
    control: &Control,
    decoder: Option<&Tensor>,
    base: &Tensor,
    residual: &Tensor,
    maps: &mut Vec<Tensor>,
) -> Result<Tensor> {
    match control.adapters {
        None => combine(cx, &[(1.0, base), (1.0, residual)], 0.0),
        Some((adapters, times)) => {
            let (weighted, map) = adapters.forward(cx, maps.len(), times, decoder, base, residual)?;
            maps.push(map);
            Ok(weighted)
        }
    }
}
