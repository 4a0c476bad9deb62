//! CLIP's text tower: the feature of a prompt is the final norm at its end token, projected.

use super::ClipConfig;
use crate::error::{Error, Result};
use crate::models::text::{Block, Gelu};
use crate::nn::{LayerNorm, Scope};
use crate::ops::Cx;
use crate::ops::elementwise::cast;
use crate::ops::embedding::embed_tokens;
use crate::tensor::{DType, Tensor};

/// The text tower.
pub struct ClipText {
    token_embedding: Tensor,
    positional_embedding: Tensor,
    blocks: Vec<Block>,
    ln_final: LayerNorm,
    /// [width, features], on the host: it meets one row a prompt, once a run
    projection: Vec<f32>,
    logit_scale: f32,
}

impl ClipText {
    /// Loads the tower of these sizes under `scope`.
    pub fn load(scope: &Scope, config: &ClipConfig) -> Result<Self> {
        let d = config.text;
        let block = |i: usize| Block::load(&scope.sub(format!("transformer.resblocks.{i}")), d, Gelu::Quick);
        let shape = [d, config.features];
        Ok(ClipText {
            token_embedding: scope.tensor("token_embedding.weight", [config.vocabulary, d])?,
            positional_embedding: scope.tensor("positional_embedding", [config.length, d])?,
            blocks: (0..config.layers).map(block).collect::<Result<_>>()?,
            ln_final: LayerNorm::load(&scope.sub("ln_final"), d)?,
            projection: scope.with_values("text_projection", &shape, |values| Ok(values.to_vec()))?,
            logit_scale: scope
                .with_values("logit_scale", &[], |values| Ok(values.first().copied().unwrap_or(0.0)))?,
        })
    }

    /// The factor on cosines, `exp(logit_scale)`.
    pub fn scale(&self) -> f32 {
        self.logit_scale.exp()
    }

    /// Token ids [N][L] -> unit features [N][features]. The end token is the one of largest id.
    ///
    /// # Errors
    /// Tokens that do not fit the tower.
    pub fn features(&self, cx: &Cx, tokens: &[&[u32]]) -> Result<Vec<Vec<f32>>> {
        let mut x = embed_tokens(cx, tokens, &self.token_embedding, &self.positional_embedding)?;
        for block in &self.blocks {
            x = block.forward(cx, &x)?;
        }
        let x = cast(cx, &self.ln_final.forward(cx, &x)?, DType::F32)?;
        let (l, d) = (x.shape()[1], x.shape().last());
        let values = x.to_f32()?;
        let width = self.projection.len() / d.max(1);
        let rows = tokens.iter().enumerate().map(|(image, row)| {
            let largest = row.iter().max().ok_or_else(|| Error::internal("a prompt without tokens"))?;
            let end = row.iter().position(|token| token == largest).unwrap_or(0);
            let feature = &values[(image * l + end) * d..][..d];
            let mut projected = vec![0.0f64; width];
            for (value, line) in feature.iter().zip(self.projection.chunks_exact(width.max(1))) {
                projected.iter_mut().zip(line).for_each(|(p, w)| *p += f64::from(*value) * f64::from(*w));
            }
            let norm = projected.iter().map(|v| v * v).sum::<f64>().sqrt();
            Ok(projected.iter().map(|v| (v / norm) as f32).collect())
        });
        rows.collect()
    }
}
