//! The OpenCLIP ViT-H/14 text transformer (`cond_stage_model.model.*`), penultimate layer.

use crate::error::Result;
use crate::models::config::{HEAD_WIDTH, TextConfig};
use crate::nn::{LayerNorm, Linear, Scope};
use crate::ops::attention::{Heads, attention};
use crate::ops::elementwise::cast;
use crate::ops::embedding::embed_tokens;
use crate::ops::linear::linear;
use crate::ops::{Activation, Cx};
use crate::tensor::{DType, Tensor};

/// The GELU of a block's perceptron.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gelu {
    Exact,
    /// OpenAI's x * sigmoid(1.702 x), that is silu(1.702 x) / 1.702: the factors go into the weights around it.
    Quick,
}

impl Gelu {
    fn activation(self) -> Activation {
        match self {
            Gelu::Exact => Activation::Gelu,
            Gelu::Quick => Activation::Silu,
        }
    }

    /// Factors on what enters the activation and on what leaves it.
    fn factors(self) -> (f32, f32) {
        match self {
            Gelu::Exact => (1.0, 1.0),
            Gelu::Quick => (1.702, 1.0 / 1.702),
        }
    }
}

/// A pre-norm transformer block with a causal mask.
pub(crate) struct Block {
    gelu: Gelu,
    ln_1: LayerNorm,
    /// q | k | v, stacked in the checkpoint too
    in_proj: Linear,
    out_proj: Linear,
    ln_2: LayerNorm,
    c_fc: Linear,
    c_proj: Linear,
}

impl Block {
    pub(crate) fn load(scope: &Scope, d: usize, gelu: Gelu) -> Result<Self> {
        let (before, after) = gelu.factors();
        let attn = scope.sub("attn");
        let in_proj = Linear {
            weight: Linear::pack(&attn, "in_proj_weight", d, 3 * d)?,
            bias: Some(attn.tensor("in_proj_bias", [3 * d])?),
        };
        Ok(Block {
            gelu,
            ln_1: LayerNorm::load(&scope.sub("ln_1"), d)?,
            in_proj,
            out_proj: Linear::load(&attn.sub("out_proj"), d, d)?,
            ln_2: LayerNorm::load(&scope.sub("ln_2"), d)?,
            c_fc: Linear::load_scaled(&scope.sub("mlp.c_fc"), d, 4 * d, [before, before])?,
            c_proj: Linear::load_scaled(&scope.sub("mlp.c_proj"), 4 * d, d, [after, 1.0])?,
        })
    }

    pub(crate) fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let d = x.shape().last();
        let qkv = self.in_proj.forward(cx, &self.ln_1.forward(cx, x)?)?;
        let operands = (Heads::new(&qkv, 0), Heads::new(&qkv, d), Heads::new(&qkv, 2 * d));
        let mixed = attention(cx, operands, d / HEAD_WIDTH, HEAD_WIDTH, true)?;
        let x = self.out_proj.forward_onto(cx, &mixed, x)?;
        let normed = self.ln_2.forward(cx, &x)?;
        let active = self.c_fc.epilogue().activation(self.gelu.activation());
        let hidden = linear(cx, &normed, &self.c_fc.weight, &active)?;
        self.c_proj.forward_onto(cx, &hidden, &x)
    }
}

/// The text tower.
pub struct TextTower {
    token_embedding: Tensor,
    positional_embedding: Tensor,
    blocks: Vec<Block>,
    ln_final: LayerNorm,
}

impl TextTower {
    /// Loads the network of these sizes under `scope`. The last block, the projection and the logit scale
    /// of an OpenCLIP file are known and not used.
    pub fn load(scope: &Scope, config: &TextConfig) -> Result<Self> {
        let d = config.width;
        let tower = TextTower {
            token_embedding: scope.tensor("token_embedding.weight", [config.vocabulary, d])?,
            positional_embedding: scope.tensor("positional_embedding", [config.length, d])?,
            blocks: (0..config.run())
                .map(|i| Block::load(&scope.sub(format!("transformer.resblocks.{i}")), d, Gelu::Exact))
                .collect::<Result<_>>()?,
            ln_final: LayerNorm::load(&scope.sub("ln_final"), d)?,
        };
        if let Some(projection) = config.projection {
            Self::declare_unused(scope, d, config.run(), projection);
        }
        Ok(tower)
    }

    fn declare_unused(scope: &Scope, d: usize, last: usize, projection: usize) {
        scope.unused("text_projection", &[d, projection]);
        scope.unused("logit_scale", &[]);
        let block = scope.sub(format!("transformer.resblocks.{last}"));
        for (name, shape) in [
            ("ln_1.weight", vec![d]),
            ("ln_1.bias", vec![d]),
            ("attn.in_proj_weight", vec![3 * d, d]),
            ("attn.in_proj_bias", vec![3 * d]),
            ("attn.out_proj.weight", vec![d, d]),
            ("attn.out_proj.bias", vec![d]),
            ("ln_2.weight", vec![d]),
            ("ln_2.bias", vec![d]),
            ("mlp.c_fc.weight", vec![4 * d, d]),
            ("mlp.c_fc.bias", vec![4 * d]),
            ("mlp.c_proj.weight", vec![d, 4 * d]),
            ("mlp.c_proj.bias", vec![d]),
        ] {
            block.unused(name, &shape);
        }
    }

    /// Token ids [N][77] -> features, f32 [N, 77, D]: the final norm of the penultimate layer.
    pub fn forward(&self, cx: &Cx, tokens: &[&[u32]]) -> Result<Tensor> {
        let mut x = embed_tokens(cx, tokens, &self.token_embedding, &self.positional_embedding)?;
        for block in &self.blocks {
            x = block.forward(cx, &x)?;
        }
        cast(cx, &self.ln_final.forward(cx, &x)?, DType::F32)
    }
}
