//! The KL autoencoder (`first_stage_model.*`): factor 8, 4 latent channels.

mod blocks;

use super::config::VaeConfig;
use crate::error::{Error, Result};
use crate::nn::{Conv, GroupNorm, Scope, layers};
use crate::ops::conv2d::{Conv2d, Padding};
use crate::ops::diffusion::posterior;
use crate::ops::elementwise::{cast, combine};
use crate::ops::{Activation, Cx, Segments};
use crate::tensor::{DType, Tensor};
use blocks::{Middle, ResBlock};

/// Latents are scaled by this to have a deviation near one.
pub const LATENT_SCALE: f32 = 0.18215;

struct Level {
    blocks: Vec<ResBlock>,
    resample: Option<Conv>,
}

/// The autoencoder.
pub struct Vae {
    factor: usize,
    latent: usize,
    encoder_in: Conv,
    down: Vec<Level>,
    encoder_middle: Middle,
    encoder_norm: GroupNorm,
    encoder_out: Conv,
    quant: Conv,
    post_quant: Conv,
    decoder_in: Conv,
    decoder_middle: Middle,
    /// finest level first, run backwards
    up: Vec<Level>,
    decoder_norm: GroupNorm,
    decoder_out: Conv,
}

fn norm(scope: &Scope, channels: usize) -> Result<GroupNorm> {
    GroupNorm::load(scope, channels, 32, 1e-6)
}

/// A level of `blocks` residual blocks, with the convolution that changes the size after them. `large`: it runs at
/// more than the latent's size.
fn level(
    scope: &Scope,
    [inputs, outputs, blocks]: [usize; 3],
    large: bool,
    resample: Option<&str>,
) -> Result<Level> {
    let blocks = (0..blocks)
        .map(|i| {
            let inputs = if i == 0 { inputs } else { outputs };
            ResBlock::load(&scope.sub(format!("block.{i}")), inputs, outputs, large)
        })
        .collect::<Result<_>>()?;
    // What was doubled is even; halving has stride 2.
    let load = |name| Conv::load3(&scope.sub(format!("{name}.conv")), outputs, outputs, name == "upsample");
    Ok(Level { blocks, resample: resample.map(load).transpose()? })
}

/// Norm, SiLU and the last convolution.
fn finish(cx: &Cx, x: &Tensor, norm: &GroupNorm, conv: &Conv) -> Result<Tensor> {
    let input = Segments::one(x);
    let affine = norm.affine(cx, &input, None, Activation::Silu)?;
    conv.forward(cx, &Conv2d::new(input.clone()).prologue(&affine))
}

impl Vae {
    /// Loads the network of these sizes under `scope`.
    pub fn load(scope: &Scope, config: &VaeConfig) -> Result<Self> {
        let widths = &config.widths;
        let (first, last) = match (widths.first(), widths.last()) {
            (Some(&first), Some(&last)) => (first, last),
            _ => return Err(Error::internal("an autoencoder without levels")),
        };
        let top = widths.len() - 1;
        let (encoder, decoder, latent) = (scope.sub("encoder"), scope.sub("decoder"), config.latent);
        let down = (0..=top).map(|i| {
            let sizes = [widths[i.saturating_sub(1)], widths[i], config.blocks];
            level(&encoder.sub(format!("down.{i}")), sizes, i < top, (i < top).then_some("downsample"))
        });
        let up = (0..=top).map(|i| {
            let sizes = [widths[(i + 1).min(top)], widths[i], config.blocks + 1];
            level(&decoder.sub(format!("up.{i}")), sizes, i < top, (i > 0).then_some("upsample"))
        });
        Ok(Vae {
            factor: 1 << top,
            latent,
            encoder_in: Conv::load(&encoder.sub("conv_in"), 3, first, 3)?,
            down: down.collect::<Result<_>>()?,
            encoder_middle: Middle::load(&encoder.sub("mid"), last)?,
            encoder_norm: norm(&encoder.sub("norm_out"), last)?,
            encoder_out: Conv::load(&encoder.sub("conv_out"), last, 2 * latent, 3)?,
            quant: Conv::load(&scope.sub("quant_conv"), 2 * latent, 2 * latent, 1)?,
            post_quant: Conv::load(&scope.sub("post_quant_conv"), latent, latent, 1)?,
            decoder_in: Conv::load(&decoder.sub("conv_in"), latent, last, 3)?,
            decoder_middle: Middle::load(&decoder.sub("mid"), last)?,
            up: up.collect::<Result<_>>()?,
            decoder_norm: norm(&decoder.sub("norm_out"), first)?,
            decoder_out: Conv::load(&decoder.sub("conv_out"), first, 3, 3)?,
        })
    }

    /// Pixels per latent along an axis.
    pub fn factor(&self) -> usize {
        self.factor
    }

    /// Channels of the latent.
    pub fn latent(&self) -> usize {
        self.latent
    }

    /// image [N, 8h, 8w, 3] in [-1, 1] -> mean | log variance, f32 [N, h, w, 8]
    pub fn moments(&self, cx: &Cx, image: &Tensor) -> Result<Tensor> {
        let image = cast(cx, image, cx.dtype())?;
        let mut x = self.encoder_in.forward(cx, &Conv2d::new(Segments::one(&image)))?;
        for level in &self.down {
            for block in &level.blocks {
                x = block.forward(cx, &x)?;
            }
            if let Some(conv) = &level.resample {
                x = conv.forward(cx, &Conv2d::new(Segments::one(&x)).stride(2, Padding::RightBelow))?;
            }
        }
        let x = self.encoder_middle.forward(cx, x)?;
        let x = finish(cx, &x, &self.encoder_norm, &self.encoder_out)?;
        cast(cx, &self.quant.forward(cx, &Conv2d::new(Segments::one(&x)))?, DType::F32)
    }

    /// image [N, 8h, 8w, 3] -> scaled latent [N, h, w, 4]: the mode, or a sample with `noise` like it
    pub fn encode(&self, cx: &Cx, image: &Tensor, noise: Option<&Tensor>) -> Result<Tensor> {
        posterior(cx, &self.moments(cx, image)?, noise, LATENT_SCALE)
    }

    /// scaled latent [N, h, w, 4] -> image, f32 [N, 8h, 8w, 3], about [-1, 1], not clamped
    pub fn decode(&self, cx: &Cx, z: &Tensor) -> Result<Tensor> {
        let z = cast(cx, &combine(cx, &[(1.0 / LATENT_SCALE, z)], 0.0)?, cx.dtype())?;
        let z = self.post_quant.forward(cx, &Conv2d::new(Segments::one(&z)))?;
        let x = self.decoder_in.forward(cx, &Conv2d::new(Segments::one(&z)))?;
        let mut x = self.decoder_middle.forward(cx, x)?;
        for level in self.up.iter().rev() {
            for block in &level.blocks {
                x = block.forward(cx, &x)?;
            }
            if let Some(conv) = &level.resample {
                x = conv.forward(cx, &Conv2d::new(Segments::one(&x)).upsample())?;
            }
        }
        cast(cx, &finish(cx, &x, &self.decoder_norm, &self.decoder_out)?, DType::F32)
    }
}

layers! {
    Level { blocks, resample }
    Vae {
        encoder_in, down, encoder_middle, encoder_norm, encoder_out, quant, post_quant, decoder_in, decoder_middle, up,
        decoder_norm, decoder_out
    }
}
