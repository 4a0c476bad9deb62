//! The autoencoder's residual block, its attention and its middle.

use crate::error::Result;
use crate::nn::{Conv, GroupNorm, Linear, Scope, layers};
use crate::ops::attention::{Heads, attention};
use crate::ops::conv2d::Conv2d;
use crate::ops::{Activation, Cx, Segments, checkpoint};
use crate::tensor::Tensor;

/// GroupNorm, SiLU, convolution, twice; plus the input.
#[derive(Clone)]
pub struct ResBlock {
    norm1: GroupNorm,
    conv1: Conv,
    norm2: GroupNorm,
    conv2: Conv,
    shortcut: Option<Conv>,
}

impl ResBlock {
    /// `large`: the block runs at more than the latent's size, which makes its images even.
    pub fn load(scope: &Scope, inputs: usize, outputs: usize, large: bool) -> Result<Self> {
        Ok(ResBlock {
            norm1: super::norm(&scope.sub("norm1"), inputs)?,
            conv1: Conv::load3(&scope.sub("conv1"), inputs, outputs, large)?,
            norm2: super::norm(&scope.sub("norm2"), outputs)?,
            conv2: Conv::load3(&scope.sub("conv2"), outputs, outputs, large)?,
            shortcut: match inputs == outputs {
                true => None,
                false => Some(Conv::load(&scope.sub("nin_shortcut"), inputs, outputs, 1)?),
            },
        })
    }

    /// [N, H, W, inputs] -> [N, H, W, outputs]; recomputed in the backward pass where `cx` asks for it
    pub fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        checkpoint(cx, self, &[x], |block, cx, inputs| block.transform(cx, inputs[0]))
    }

    fn transform(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let h = super::finish(cx, x, &self.norm1, &self.conv1)?;
        let inner = Segments::one(&h);
        let norm = self.norm2.affine(cx, &inner, None, Activation::Silu)?;
        let straight = match &self.shortcut {
            Some(shortcut) => shortcut.forward(cx, &Conv2d::new(Segments::one(x)))?,
            None => x.clone(),
        };
        let conv = Conv2d::new(inner.clone()).prologue(&norm);
        self.conv2.forward_with(cx, &conv, &self.conv2.epilogue().residual(&straight))
    }
}

/// Single-head self attention over the pixels; its projections are 1x1 convolutions.
#[derive(Clone)]
struct Attention {
    norm: GroupNorm,
    /// q | k | v
    qkv: Linear,
    out: Linear,
}

impl Attention {
    fn load(scope: &Scope, c: usize) -> Result<Self> {
        Ok(Attention {
            norm: super::norm(&scope.sub("norm"), c)?,
            qkv: Linear::load_joined(scope, &["q", "k", "v"], c, c, &[1, 1], true)?,
            out: Linear::load_joined(scope, &["proj_out"], c, c, &[1, 1], true)?,
        })
    }

    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        checkpoint(cx, self, &[x], |block, cx, inputs| block.transform(cx, inputs[0]))
    }

    fn transform(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let [n, h, w, c] = x.nhwc()?;
        let normed = self.norm.forward(cx, x)?.reshape([n, h * w, c])?;
        let qkv = self.qkv.forward(cx, &normed)?;
        drop(normed);
        let operands = (Heads::new(&qkv, 0), Heads::new(&qkv, c), Heads::new(&qkv, 2 * c));
        let mixed = attention(cx, operands, 1, c, false)?;
        self.out.forward_onto(cx, &mixed, &x.reshape([n, h * w, c])?)?.reshape([n, h, w, c])
    }
}

/// Residual block, attention, residual block at the coarsest level.
pub struct Middle {
    block1: ResBlock,
    attention: Attention,
    block2: ResBlock,
}

impl Middle {
    pub fn load(scope: &Scope, c: usize) -> Result<Self> {
        Ok(Middle {
            block1: ResBlock::load(&scope.sub("block_1"), c, c, false)?,
            attention: Attention::load(&scope.sub("attn_1"), c)?,
            block2: ResBlock::load(&scope.sub("block_2"), c, c, false)?,
        })
    }

    pub fn forward(&self, cx: &Cx, x: Tensor) -> Result<Tensor> {
        let x = self.block1.forward(cx, &x)?;
        let x = self.attention.forward(cx, &x)?;
        self.block2.forward(cx, &x)
    }
}

layers! {
    ResBlock { norm1, conv1, norm2, conv2, shortcut }
    Attention { norm, qkv, out }
    Middle { block1, attention, block2 }
}
