//! The cleaner of the training data: SwinIR as CodeFormer and DiffBIR train it, 8 pixels to a side of its features and
//! back (`swinir_codeformer`).

use super::config::SwinConfig;
use crate::error::{Error, Result};
use crate::nn::{Conv, LayerNorm, Linear, Scope};
use crate::ops::conv2d::Conv2d;
use crate::ops::elementwise::{cast, combine};
use crate::ops::group_norm::Affine;
use crate::ops::linear::linear;
use crate::ops::pixel_unshuffle::pixel_unshuffle;
use crate::ops::window_attention::{Windows, window_attention};
use crate::ops::{Activation, Cx, Segments};
use crate::tensor::{DType, Tensor};

/// Pixels to one feature, along a side.
const FACTOR: usize = 8;
/// What is taken off the image and added to the result.
const MEAN: [f32; 3] = [0.4488, 0.4371, 0.4040];
const LEAKY: Activation = Activation::LeakyRelu(0.2);

/// One Swin block: attention within windows, then a perceptron, each on a norm and added.
struct Block {
    windows: Windows,
    norm1: LayerNorm,
    qkv: Linear,
    /// [(2 side - 1)^2, heads]
    bias: Tensor,
    proj: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl Block {
    fn load(scope: &Scope, config: &SwinConfig, shifted: bool) -> Result<Self> {
        let SwinConfig { width: c, heads, window: side, hidden, .. } = *config;
        let windows = Windows { side, shift: if shifted { side / 2 } else { 0 }, heads, width: c / heads };
        let attn = scope.sub("attn");
        Ok(Block {
            windows,
            norm1: LayerNorm::load(&scope.sub("norm1"), c)?,
            qkv: Linear::load(&attn.sub("qkv"), c, 3 * c)?,
            bias: attn.tensor("relative_position_bias_table", [(2 * side - 1).pow(2), heads])?,
            proj: Linear::load(&attn.sub("proj"), c, c)?,
            norm2: LayerNorm::load(&scope.sub("norm2"), c)?,
            fc1: Linear::load(&scope.sub("mlp.fc1"), c, hidden)?,
            fc2: Linear::load(&scope.sub("mlp.fc2"), hidden, c)?,
        })
    }

    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let qkv = self.qkv.forward(cx, &self.norm1.forward(cx, x)?)?;
        let mixed = window_attention(cx, &qkv, &self.bias, self.windows)?;
        drop(qkv);
        let x = self.proj.forward_onto(cx, &mixed, x)?;
        let normed = self.norm2.forward(cx, &x)?;
        let hidden =
            linear(cx, &normed, &self.fc1.weight, &self.fc1.epilogue().activation(Activation::Gelu))?;
        self.fc2.forward_onto(cx, &hidden, &x)
    }
}

/// Blocks, a convolution, and the group's input.
struct Group {
    blocks: Vec<Block>,
    conv: Conv,
}

impl Group {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let mut h = x.clone();
        for block in &self.blocks {
            h = block.forward(cx, &h)?;
        }
        self.conv.forward_with(cx, &Conv2d::new(Segments::one(&h)), &self.conv.epilogue().residual(x))
    }
}

/// The cleaner.
pub struct SwinIr {
    /// scale 1 and shift -mean of every unshuffled channel: [2, C]
    centring: Vec<f32>,
    mean: Tensor,
    conv_first: Conv,
    patch_norm: LayerNorm,
    groups: Vec<Group>,
    norm: LayerNorm,
    conv_after_body: Conv,
    conv_before_upsample: Conv,
    ups: [Conv; 3],
    conv_hr: Conv,
    conv_last: Conv,
    window: usize,
}

impl SwinIr {
    /// Loads the network of these sizes under `scope`.
    pub fn load(scope: &Scope, config: &SwinConfig) -> Result<Self> {
        let (c, f) = (config.width, config.features);
        let unshuffled = 3 * FACTOR * FACTOR;
        let conv = |name: &str, inputs, outputs| Conv::load(&scope.sub(name), inputs, outputs, 3);
        let group = |i: usize| -> Result<Group> {
            let layer = scope.sub(format!("layers.{i}"));
            let block =
                |j: usize| Block::load(&layer.sub(format!("residual_group.blocks.{j}")), config, j % 2 == 1);
            Ok(Group {
                blocks: (0..config.blocks).map(block).collect::<Result<_>>()?,
                conv: Conv::load(&layer.sub("conv"), c, c, 3)?,
            })
        };
        let shifts = MEAN.iter().flat_map(|&mean| [-mean; FACTOR * FACTOR]);
        Ok(SwinIr {
            centring: std::iter::repeat_n(1.0, unshuffled).chain(shifts).collect(),
            mean: Tensor::weight_from_f32(scope.cx().device(), &MEAN, [1, 3])?,
            conv_first: conv("conv_first.1", unshuffled, c)?,
            patch_norm: LayerNorm::load(&scope.sub("patch_embed.norm"), c)?,
            groups: (0..config.groups).map(group).collect::<Result<_>>()?,
            norm: LayerNorm::load(&scope.sub("norm"), c)?,
            conv_after_body: conv("conv_after_body", c, c)?,
            conv_before_upsample: conv("conv_before_upsample.0", c, f)?,
            ups: [conv("conv_up1", f, f)?, conv("conv_up2", f, f)?, conv("conv_up3", f, f)?],
            conv_hr: conv("conv_hr", f, f)?,
            conv_last: conv("conv_last", f, 3)?,
            window: config.window,
        })
    }

    /// Sides of images must be multiples of this.
    pub fn multiple(&self) -> usize {
        FACTOR * self.window
    }

    /// image [N, H, W, 3] in [0, 1] -> f32 of the same shape, not clamped.
    ///
    /// # Errors
    /// A side is no multiple of [`SwinIr::multiple`].
    pub fn forward(&self, cx: &Cx, image: &Tensor) -> Result<Tensor> {
        let [n, h, w, _] = image.nhwc()?;
        if h % self.multiple() != 0 || w % self.multiple() != 0 {
            let multiple = self.multiple();
            return Err(Error::input(format!(
                "the cleaner takes sides of multiples of {multiple}, not {w} x {h}"
            )));
        }
        let image = cast(cx, image, cx.dtype())?;
        let blocks = pixel_unshuffle(cx, &image, FACTOR)?;
        // The mean is taken off behind the zero padding, as the published network pads what is centred.
        let coefficients =
            Tensor::from_f32(cx.device(), &self.centring.repeat(n), [n, 2, self.centring.len() / 2])?;
        let centred = Affine { coefficients, activation: Activation::None };
        let first = self.conv_first.forward(cx, &Conv2d::new(Segments::one(&blocks)).prologue(&centred))?;
        let mut x = self.patch_norm.forward(cx, &first)?;
        for group in &self.groups {
            x = group.forward(cx, &x)?;
        }
        let x = self.norm.forward(cx, &x)?;
        let body = self.conv_after_body.forward(cx, &Conv2d::new(Segments::one(&x)))?;
        let x = combine(cx, &[(1.0, &first), (1.0, &body)], 0.0)?;
        let before = self.conv_before_upsample.epilogue().activation(Activation::LeakyRelu(0.01));
        let mut x = self.conv_before_upsample.forward_with(cx, &Conv2d::new(Segments::one(&x)), &before)?;
        for conv in &self.ups {
            let input = Conv2d::new(Segments::one(&x)).upsample();
            x = conv.forward_with(cx, &input, &conv.epilogue().activation(LEAKY))?;
        }
        let end = self.conv_hr.epilogue().activation(LEAKY);
        let x = self.conv_hr.forward_with(cx, &Conv2d::new(Segments::one(&x)), &end)?;
        let mean = cast(cx, &self.mean, cx.dtype())?;
        let last = self.conv_last.epilogue().per_image(&mean);
        cast(cx, &self.conv_last.forward_with(cx, &Conv2d::new(Segments::one(&x)), &last)?, DType::F32)
    }
}
