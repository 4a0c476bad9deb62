//! What UNet and ControlNet share: time embedding, encoder blocks, middle.

use super::blocks::{ResBlock, load_downsample};
use super::transformer::{Context, SpatialTransformer};
use crate::error::{Error, Result};
use crate::models::config::DenoiserConfig;
use crate::nn::{Conv, Layer, Linear, Scope, Visit};
use crate::ops::conv2d::{Conv2d, Padding};
use crate::ops::elementwise::cast;
use crate::ops::embedding::timestep_embedding;
use crate::ops::linear::linear;
use crate::ops::{Activation, Cx, Segments};
use crate::tensor::Tensor;

enum InputBlock {
    Stem(Conv),
    Res(Box<ResBlock>, Option<Box<SpatialTransformer>>),
    Down(Conv),
}

/// Time embedding, input blocks and middle block.
pub struct Encoder {
    width: usize,
    time_embed: (Linear, Linear),
    input_blocks: Vec<InputBlock>,
    middle: (ResBlock, SpatialTransformer, ResBlock),
}

/// Projections of the time embedding for the encoder's residual blocks: [T, width] each.
#[derive(Clone, Debug)]
pub struct EncoderTimes(Vec<Tensor>);

impl EncoderTimes {
    /// Every projection replaced by what `of` makes of it, in a fixed order.
    pub fn map(&self, of: &mut dyn FnMut(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok(EncoderTimes(self.0.iter().map(of).collect::<Result<_>>()?))
    }
}

/// Keys and values of the text for the encoder's transformers.
#[derive(Clone, Debug)]
pub struct EncoderText(Vec<Context>);

impl Encoder {
    /// `inputs` channels enter the first convolution.
    pub fn load(scope: &Scope, config: &DenoiserConfig, inputs: usize) -> Result<Self> {
        let (channels, embedding) = (config.channels, config.embedding());
        let time_embed = (
            Linear::load(&scope.sub("time_embed.0"), channels, embedding)?,
            Linear::load(&scope.sub("time_embed.2"), embedding, embedding)?,
        );
        let block = |i: usize| scope.sub(format!("input_blocks.{i}"));
        let mut input_blocks = vec![InputBlock::Stem(Conv::load(&block(0).sub(0), inputs, channels, 3)?)];
        let mut width = channels;
        for (level, &target) in config.widths.iter().enumerate() {
            for _ in 0..config.blocks {
                let scope = block(input_blocks.len());
                let res =
                    ResBlock::load(&scope.sub(0), width, target, embedding, DenoiserConfig::is_large(level))?;
                let attention = match config.attention[level] {
                    true => Some(SpatialTransformer::load(&scope.sub(1), target, config.context)?),
                    false => None,
                };
                input_blocks.push(InputBlock::Res(Box::new(res), attention.map(Box::new)));
                width = target;
            }
            if level + 1 < config.widths.len() {
                let scope = block(input_blocks.len());
                input_blocks.push(InputBlock::Down(load_downsample(&scope.sub(0), width)?));
            }
        }
        let middle = scope.sub("middle_block");
        let middle = (
            ResBlock::load(&middle.sub(0), width, width, embedding, false)?,
            SpatialTransformer::load(&middle.sub(1), width, config.context)?,
            ResBlock::load(&middle.sub(2), width, width, embedding, false)?,
        );
        Ok(Encoder { width: channels, time_embed, input_blocks, middle })
    }

    fn transformers(&self) -> impl Iterator<Item = &SpatialTransformer> {
        let blocks = self.input_blocks.iter().filter_map(|block| match block {
            InputBlock::Res(_, attention) => attention.as_deref(),
            _ => None,
        });
        blocks.chain(std::iter::once(&self.middle.1))
    }

    fn res_blocks(&self) -> impl Iterator<Item = &ResBlock> {
        let blocks = self.input_blocks.iter().filter_map(|block| match block {
            InputBlock::Res(res, _) => Some(&**res),
            _ => None,
        });
        blocks.chain([&self.middle.0, &self.middle.2])
    }

    /// The time embedding [T, E] of `timesteps`, before any consumer's SiLU.
    pub fn embed_times(&self, cx: &Cx, timesteps: &[f32]) -> Result<Tensor> {
        let waves: Vec<f32> = timesteps.iter().flat_map(|&t| timestep_embedding(t, self.width)).collect();
        let waves = Tensor::from_f32(cx.device(), &waves, [timesteps.len(), self.width])?;
        let waves = cast(cx, &waves, cx.dtype())?;
        let (first, second) = &self.time_embed;
        let hidden = linear(cx, &waves, &first.weight, &first.epilogue().activation(Activation::Silu))?;
        second.forward(cx, &hidden)
    }

    /// Projections of the active (SiLU) embedding for every residual block.
    pub fn times(&self, cx: &Cx, active: &Tensor) -> Result<EncoderTimes> {
        Ok(EncoderTimes(self.res_blocks().map(|block| block.time(cx, active)).collect::<Result<_>>()?))
    }

    /// Keys and values of the text for every transformer.
    pub fn text(&self, cx: &Cx, context: &Tensor) -> Result<EncoderText> {
        Ok(EncoderText(self.transformers().map(|t| t.context(cx, context)).collect::<Result<_>>()?))
    }

    /// -> the middle feature, the features of the input blocks finest first
    pub fn forward(
        &self,
        cx: &Cx,
        input: &Segments,
        EncoderTimes(times): &EncoderTimes,
        EncoderText(text): &EncoderText,
    ) -> Result<(Tensor, Vec<Tensor>)> {
        let (mut times, mut text) = (times.iter(), text.iter());
        let short = || Error::internal("times or text of another network");
        let mut features: Vec<Tensor> = Vec::with_capacity(self.input_blocks.len());
        for block in &self.input_blocks {
            let last = || features.last().ok_or_else(short);
            let h = match block {
                InputBlock::Stem(conv) => conv.forward(cx, &Conv2d::new(input.clone()))?,
                InputBlock::Down(conv) => {
                    conv.forward(cx, &Conv2d::new(Segments::one(last()?)).stride(2, Padding::Same))?
                }
                InputBlock::Res(res, attention) => {
                    let h = res.run(cx, &[last()?], times.next().ok_or_else(short)?)?;
                    match attention {
                        Some(attention) => attention.forward(cx, &h, text.next().ok_or_else(short)?)?,
                        None => h,
                    }
                }
            };
            features.push(h);
        }
        let (first, attention, second) = &self.middle;
        let last = features.last().ok_or_else(short)?;
        let h = first.run(cx, &[last], times.next().ok_or_else(short)?)?;
        let h = attention.forward(cx, &h, text.next().ok_or_else(short)?)?;
        let h = second.run(cx, &[&h], times.next().ok_or_else(short)?)?;
        Ok((h, features))
    }
}

impl Layer for Encoder {
    fn visit(&mut self, visit: Visit) -> Result<()> {
        self.time_embed.0.visit(visit)?;
        self.time_embed.1.visit(visit)?;
        for block in &mut self.input_blocks {
            match block {
                InputBlock::Stem(conv) | InputBlock::Down(conv) => conv.visit(visit)?,
                InputBlock::Res(res, attention) => {
                    res.visit(visit)?;
                    attention.visit(visit)?;
                }
            }
        }
        self.middle.0.visit(visit)?;
        self.middle.1.visit(visit)?;
        self.middle.2.visit(visit)
    }
}
