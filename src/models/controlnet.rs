//! The ControlNet (`checkpoint_controlnet.*`): the UNet's encoder and middle over the noisy latent and the
//! encoded clean image, with a 1x1 convolution on every feature.

use super::config::DenoiserConfig;
use super::unet::{Encoder, EncoderText, EncoderTimes};
use crate::error::Result;
use crate::nn::{Conv, Scope, layers};
use crate::ops::conv2d::Conv2d;
use crate::ops::elementwise::{cast, pointwise};
use crate::ops::{Activation, Cx, Segments};
use crate::tensor::Tensor;

/// The ControlNet.
pub struct ControlNet {
    encoder: Encoder,
    zero_convs: Vec<Conv>,
    middle_out: Conv,
}

/// Projections of the ControlNet's own time embedding.
#[derive(Clone, Debug)]
pub struct ControlTimes(EncoderTimes);

impl ControlTimes {
    /// Every projection replaced by what `of` makes of it, in a fixed order.
    pub fn map(&self, of: &mut dyn FnMut(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok(ControlTimes(self.0.map(of)?))
    }
}

/// Keys and values of the text for the ControlNet's transformers.
#[derive(Clone, Debug)]
pub struct ControlText(EncoderText);

impl ControlNet {
    /// Loads the network of these sizes under `scope`.
    pub fn load(scope: &Scope, config: &DenoiserConfig) -> Result<Self> {
        let encoder = Encoder::load(scope, config, 2 * config.latent)?;
        let projections = config.skips().into_iter().enumerate();
        Ok(ControlNet {
            encoder,
            zero_convs: projections
                .map(|(i, c)| Conv::load(&scope.sub(format!("zero_convs.{i}.0")), c, c, 1))
                .collect::<Result<_>>()?,
            middle_out: Conv::load(&scope.sub("middle_block_out.0"), config.middle(), config.middle(), 1)?,
        })
    }

    /// What depends on the timesteps only.
    pub fn times(&self, cx: &Cx, timesteps: &[f32]) -> Result<ControlTimes> {
        let embedding = self.encoder.embed_times(cx, timesteps)?;
        let active = pointwise(cx, &embedding, Activation::Silu)?;
        Ok(ControlTimes(self.encoder.times(cx, &active)?))
    }

    /// What depends on the text only; `context` [N, L, D].
    pub fn text(&self, cx: &Cx, context: &Tensor) -> Result<ControlText> {
        Ok(ControlText(self.encoder.text(cx, &cast(cx, context, cx.dtype())?)?))
    }

    /// x, hint [N, h, w, 4] -> residuals times `scale`, finest first, the middle one last
    pub fn forward(
        &self,
        cx: &Cx,
        x: &Tensor,
        hint: &Tensor,
        times: &ControlTimes,
        text: &ControlText,
        scale: f32,
    ) -> Result<Vec<Tensor>> {
        let (x, hint) = (cast(cx, x, cx.dtype())?, cast(cx, hint, cx.dtype())?);
        let (middle, features) = self.encoder.forward(cx, &Segments::cat(&[&x, &hint]), &times.0, &text.0)?;
        let project = |conv: &Conv, feature: &Tensor| {
            conv.forward_with(cx, &Conv2d::new(Segments::one(feature)), &conv.epilogue().scale(scale))
        };
        let pairs = self.zero_convs.iter().chain([&self.middle_out]).zip(features.iter().chain([&middle]));
        pairs.map(|(conv, feature)| project(conv, feature)).collect()
    }
}

layers! {
    ControlNet { encoder, zero_convs, middle_out }
}
