//! The residual block and the resampling convolutions.

use crate::error::{Error, Result};
use crate::nn::{Conv, GroupNorm, Linear, Scope, layers};
use crate::ops::conv2d::Conv2d;
use crate::ops::{Activation, Cx, Segments, checkpoint};
use crate::tensor::Tensor;

/// GroupNorm, SiLU, convolution, time embedding, GroupNorm, SiLU, convolution; plus the input.
#[derive(Clone)]
pub struct ResBlock {
    norm1: GroupNorm,
    conv1: Conv,
    embedding: Linear,
    norm2: GroupNorm,
    conv2: Conv,
    skip: Option<Conv>,
}

impl ResBlock {
    /// `large`: the block runs at one of the finer levels, see [`DenoiserConfig::is_large`](crate::models::DenoiserConfig::is_large).
    pub fn load(scope: &Scope, inputs: usize, outputs: usize, embedding: usize, large: bool) -> Result<Self> {
        Ok(ResBlock {
            norm1: GroupNorm::load(&scope.sub("in_layers.0"), inputs, 32, 1e-5)?,
            conv1: Conv::load3(&scope.sub("in_layers.2"), inputs, outputs, large)?,
            embedding: Linear::load(&scope.sub("emb_layers.1"), embedding, outputs)?,
            norm2: GroupNorm::load(&scope.sub("out_layers.0"), outputs, 32, 1e-5)?,
            conv2: Conv::load3(&scope.sub("out_layers.3"), outputs, outputs, large)?,
            skip: match inputs == outputs {
                true => None,
                false => Some(Conv::load(&scope.sub("skip_connection"), inputs, outputs, 1)?),
            },
        })
    }

    /// The block's projection of the active time embedding: [T, E] -> [T, outputs].
    pub fn time(&self, cx: &Cx, active: &Tensor) -> Result<Tensor> {
        self.embedding.forward(cx, active)
    }

    /// As [`ResBlock::forward`] on tensors side by side, recomputed in the backward pass where `cx` asks for it.
    pub fn run(&self, cx: &Cx, inputs: &[&Tensor], time: &Tensor) -> Result<Tensor> {
        let all = [inputs, &[time]].concat();
        checkpoint(cx, self, &all, |block, cx, all| match all.split_last() {
            Some((time, inputs)) => block.forward(cx, &Segments::cat(inputs), time),
            None => Err(Error::internal("a block without inputs")),
        })
    }

    /// input [N, H, W, inputs], time [N or 1, outputs] -> [N, H, W, outputs]
    pub fn forward(&self, cx: &Cx, input: &Segments, time: &Tensor) -> Result<Tensor> {
        let norm = self.norm1.affine(cx, input, None, Activation::Silu)?;
        let conv = Conv2d::new(input.clone()).prologue(&norm);
        let h = self.conv1.forward_with(cx, &conv, &self.conv1.epilogue().per_image(time))?;
        let inner = Segments::one(&h);
        let norm = self.norm2.affine(cx, &inner, None, Activation::Silu)?;
        let conv = Conv2d::new(inner).prologue(&norm);
        let straight = match (&self.skip, input.parts()) {
            (Some(skip), _) => skip.forward(cx, &Conv2d::new(input.clone()))?,
            (None, [only]) if only.plus.is_none() => only.tensor.clone(),
            (None, _) => crate::ops::elementwise::concat(cx, input)?,
        };
        self.conv2.forward_with(cx, &conv, &self.conv2.epilogue().residual(&straight))
    }
}

layers! {
    ResBlock { norm1, conv1, embedding, norm2, conv2, skip }
}

/// The convolution of a downsampling layer.
pub fn load_downsample(scope: &Scope, channels: usize) -> Result<Conv> {
    Conv::load(&scope.sub("op"), channels, channels, 3)
}

/// The convolution of an upsampling layer.
pub fn load_upsample(scope: &Scope, channels: usize, large: bool) -> Result<Conv> {
    Conv::load3(&scope.sub("conv"), channels, channels, large)
}
