//! The spatial transformer: self attention over the pixels, cross attention to the text, feed-forward.

use crate::error::Result;
use crate::models::config::HEAD_WIDTH;
use crate::nn::{GroupNorm, LayerNorm, Linear, Scope, layers};
use crate::ops::attention::{Heads, attention};
use crate::ops::linear::{linear, linear_geglu};
use crate::ops::{Cx, checkpoint};
use crate::tensor::Tensor;

/// Keys and values of the text for one transformer: [N, L, 2C].
#[derive(Clone, Debug)]
pub struct Context(Tensor);

/// One transformer block between two linear projections, plus the input.
#[derive(Clone)]
pub struct SpatialTransformer {
    width: usize,
    norm: GroupNorm,
    proj_in: Linear,
    norm1: LayerNorm,
    /// q | k | v of the pixels
    self_qkv: Linear,
    self_out: Linear,
    norm2: LayerNorm,
    cross_q: Linear,
    /// k | v of the text
    cross_kv: Linear,
    cross_out: Linear,
    norm3: LayerNorm,
    /// value | gate
    gated: Linear,
    feed_out: Linear,
    proj_out: Linear,
}

impl SpatialTransformer {
    pub fn load(scope: &Scope, width: usize, context: usize) -> Result<Self> {
        let block = scope.sub("transformer_blocks.0");
        let (attn1, attn2) = (block.sub("attn1"), block.sub("attn2"));
        Ok(SpatialTransformer {
            width,
            norm: GroupNorm::load(&scope.sub("norm"), width, 32, 1e-6)?,
            proj_in: Linear::load(&scope.sub("proj_in"), width, width)?,
            norm1: LayerNorm::load(&block.sub("norm1"), width)?,
            self_qkv: Linear::load_joined(&attn1, &["to_q", "to_k", "to_v"], width, width, &[], false)?,
            self_out: Linear::load(&attn1.sub("to_out.0"), width, width)?,
            norm2: LayerNorm::load(&block.sub("norm2"), width)?,
            cross_q: Linear { weight: Linear::pack(&attn2, "to_q.weight", width, width)?, bias: None },
            cross_kv: Linear::load_joined(&attn2, &["to_k", "to_v"], context, width, &[], false)?,
            cross_out: Linear::load(&attn2.sub("to_out.0"), width, width)?,
            norm3: LayerNorm::load(&block.sub("norm3"), width)?,
            gated: Linear::load(&block.sub("ff.net.0.proj"), width, 8 * width)?,
            feed_out: Linear::load(&block.sub("ff.net.2"), 4 * width, width)?,
            proj_out: Linear::load(&scope.sub("proj_out"), width, width)?,
        })
    }

    /// Keys and values of `context` [N, L, D], the same in every step.
    pub fn context(&self, cx: &Cx, context: &Tensor) -> Result<Context> {
        Ok(Context(self.cross_kv.forward(cx, context)?))
    }

    /// x [N, H, W, C] -> same; recomputed in the backward pass where `cx` asks for it
    pub fn forward(&self, cx: &Cx, x: &Tensor, Context(text): &Context) -> Result<Tensor> {
        checkpoint(cx, self, &[x, text], |block, cx, inputs| block.transform(cx, inputs[0], inputs[1]))
    }

    fn transform(&self, cx: &Cx, x: &Tensor, text: &Tensor) -> Result<Tensor> {
        let c = self.width;
        let heads = c / HEAD_WIDTH;
        let [n, h, w, _] = x.nhwc()?;
        let image = x.reshape([n, h * w, c])?;
        let t = {
            let normed = self.norm.forward(cx, x)?.reshape([n, h * w, c])?;
            self.proj_in.forward(cx, &normed)?
        };
        let t = {
            let qkv = self.self_qkv.forward(cx, &self.norm1.forward(cx, &t)?)?;
            let (q, k, v) = (Heads::new(&qkv, 0), Heads::new(&qkv, c), Heads::new(&qkv, 2 * c));
            let mixed = attention(cx, (q, k, v), heads, HEAD_WIDTH, false)?;
            self.self_out.forward_onto(cx, &mixed, &t)?
        };
        let t = {
            let q = self.cross_q.forward(cx, &self.norm2.forward(cx, &t)?)?;
            let operands = (Heads::new(&q, 0), Heads::new(text, 0), Heads::new(text, c));
            let mixed = attention(cx, operands, heads, HEAD_WIDTH, false)?;
            self.cross_out.forward_onto(cx, &mixed, &t)?
        };
        let t = {
            let normed = self.norm3.forward(cx, &t)?;
            let bias = self.gated.bias.as_ref();
            let bias = bias.ok_or_else(|| crate::error::Error::internal("a feed-forward without a bias"))?;
            let hidden = linear_geglu(cx, &normed, &self.gated.weight, bias)?;
            self.feed_out.forward_onto(cx, &hidden, &t)?
        };
        linear(cx, &t, &self.proj_out.weight, &self.proj_out.epilogue().residual(&image))?
            .reshape([n, h, w, c])
    }
}

layers! {
    SpatialTransformer {
        norm, proj_in, norm1, self_qkv, self_out, norm2, cross_q, cross_kv, cross_out, norm3, gated, feed_out, proj_out
    }
}
