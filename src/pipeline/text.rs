//! Text features of every prompt of a run, computed once: the tower need not stay in memory.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::models::text::TextTower;
use crate::ops::Cx;
use crate::tensor::Tensor;

/// Features by token ids.
pub struct TextFeatures {
    by_tokens: HashMap<Vec<u32>, Vec<f32>>,
    length: usize,
    width: usize,
}

impl TextFeatures {
    /// Encodes every distinct row of `tokens`.
    pub fn encode<'t>(
        cx: &Cx,
        tower: &TextTower,
        tokens: impl IntoIterator<Item = &'t [u32]>,
    ) -> Result<Self> {
        let mut features = TextFeatures { by_tokens: HashMap::new(), length: 0, width: 0 };
        for row in tokens {
            if features.by_tokens.contains_key(row) {
                continue;
            }
            let encoded = tower.forward(cx, &[row])?;
            if let [_, length, width] = *encoded.shape() {
                (features.length, features.width) = (length, width);
            }
            features.by_tokens.insert(row.to_vec(), encoded.to_f32()?);
        }
        Ok(features)
    }

    /// Features of `rows`, f32 [N, L, D].
    ///
    /// # Errors
    /// A row was not encoded.
    pub fn rows(&self, cx: &Cx, rows: &[&[u32]]) -> Result<Tensor> {
        let mut values = Vec::with_capacity(rows.len() * self.length * self.width);
        for &row in rows {
            let found = self.by_tokens.get(row).ok_or_else(|| Error::internal("a prompt was not encoded"))?;
            values.extend_from_slice(found);
        }
        Tensor::from_f32(cx.device(), &values, [rows.len(), self.length, self.width])
    }
}
