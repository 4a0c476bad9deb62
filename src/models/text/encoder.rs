//! What makes text features of prompts: the tower, or one row for a system that was trained without text.

use super::TextTower;
use crate::error::Result;
use crate::models::config::Conditioning;
use crate::nn::Scope;
use crate::ops::Cx;
use crate::ops::elementwise::stack;
use crate::tensor::Tensor;

/// Features of prompts.
pub enum TextEncoder {
    Tower(Box<TextTower>),
    /// f32 [1, 1, D], the features of every prompt
    Empty(Tensor),
}

impl TextEncoder {
    /// Loads what `config` says under `scope`, which is `cond_stage_model.`.
    pub fn load(scope: &Scope, config: &Conditioning) -> Result<Self> {
        match config {
            Conditioning::Text(config) => {
                Ok(TextEncoder::Tower(Box::new(TextTower::load(&scope.sub("model"), config)?)))
            }
            Conditioning::Empty(width) => {
                Ok(TextEncoder::Empty(scope.tensor("empty", [1, *width])?.reshape([1, 1, *width])?))
            }
        }
    }

    /// Token ids [N][77] -> features, f32 [N, L, D]; L is 77 for a tower, else 1.
    pub fn forward(&self, cx: &Cx, tokens: &[&[u32]]) -> Result<Tensor> {
        match self {
            TextEncoder::Tower(tower) => tower.forward(cx, tokens),
            TextEncoder::Empty(row) => stack(cx, &vec![row; tokens.len()]),
        }
    }
}
