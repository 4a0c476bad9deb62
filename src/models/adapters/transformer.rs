//! The ablation in which a transformer block takes the place of an adapter's convolutions.
//!
//! The article names it ("Transformer", a block as ELLA's timestep-aware connector has) and gives no design. Here:
//! pre-norm self attention over the pixels behind an adaptive norm, which is where t enters as in the official
//! adapter, then a gated feed-forward; both with a residual.

use crate::error::{Error, Result};
use crate::models::config::HEAD_WIDTH;
use crate::nn::{Conv, GroupNorm, LayerNorm, Linear, Scope, layers};
use crate::ops::attention::{Heads, attention};
use crate::ops::conv2d::Conv2d;
use crate::ops::linear::linear_geglu;
use crate::ops::{Activation, Cx, Segments};
use crate::tensor::Tensor;

/// One block of width M, a multiple of [`HEAD_WIDTH`].
#[derive(Clone)]
pub(super) struct Transformer {
    width: usize,
    norm1: GroupNorm,
    /// q | k | v
    qkv: Conv,
    proj: Linear,
    norm2: LayerNorm,
    /// value | gate
    gated: Linear,
    feed_out: Linear,
}

impl Transformer {
    pub fn load(scope: &Scope, width: usize) -> Result<Self> {
        Ok(Transformer {
            width,
            norm1: GroupNorm::load(&scope.sub("norm1"), width, 16, 1e-5)?,
            qkv: Conv::load(&scope.sub("qkv"), width, 3 * width, 1)?,
            proj: Linear::load(&scope.sub("proj"), width, width)?,
            norm2: LayerNorm::load(&scope.sub("norm2"), width)?,
            gated: Linear::load(&scope.sub("ff.0"), width, 4 * width)?,
            feed_out: Linear::load(&scope.sub("ff.2"), 2 * width, width)?,
        })
    }

    /// x [N, H, W, M], rows of scale and shift `time` [N, 2M] -> [N, H, W, M]
    pub fn forward(&self, cx: &Cx, x: &Tensor, time: &Tensor) -> Result<Tensor> {
        let c = self.width;
        let [n, h, w, _] = x.nhwc()?;
        let tokens = x.reshape([n, h * w, c])?;
        let mixed = {
            let input = Segments::one(x);
            let norm = self.norm1.affine(cx, &input, Some(time), Activation::None)?;
            let qkv =
                self.qkv.forward(cx, &Conv2d::new(input).prologue(&norm))?.reshape([n, h * w, 3 * c])?;
            let (q, k, v) = (Heads::new(&qkv, 0), Heads::new(&qkv, c), Heads::new(&qkv, 2 * c));
            attention(cx, (q, k, v), c / HEAD_WIDTH, HEAD_WIDTH, false)?
        };
        let tokens = self.proj.forward_onto(cx, &mixed, &tokens)?;
        let normed = self.norm2.forward(cx, &tokens)?;
        let bias = self.gated.bias.as_ref();
        let bias = bias.ok_or_else(|| Error::internal("a feed-forward without a bias"))?;
        let hidden = linear_geglu(cx, &normed, &self.gated.weight, bias)?;
        self.feed_out.forward_onto(cx, &hidden, &tokens)?.reshape([n, h, w, c])
    }
}

layers! {
    Transformer { norm1, qkv, proj, norm2, gated, feed_out }
}
