//! Text features of every prompt of a run, computed once: the tower need not stay in memory.

use std::collections::HashMap;

use super::denoise::not_finite;
use super::progress::Progress;
use super::stage::{fallback_note, wider};
use super::system::Weights;
use crate::error::{Error, Result};
use crate::models::text::TextEncoder;
use crate::ops::Cx;
use crate::tensor::Tensor;

/// What messages call the tower.
const STAGE: &str = "the text tower";

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
        tower: &TextEncoder,
        tokens: impl IntoIterator<Item = &'t [u32]>,
    ) -> Result<Self> {
        let mut features = TextFeatures { by_tokens: HashMap::new(), length: 0, width: 0 };
        for row in tokens {
            features.add(cx, tower, row)?;
        }
        Ok(features)
    }

    /// Encodes every distinct row of `tokens` with the tower of `weights`, in a wider element type than that of `cx`
    /// if the features are not finite.
    ///
    /// # Errors
    /// The tower cannot be loaded; no type makes the features finite; memory that runs out, an interrupt.
    pub fn of(cx: &Cx, weights: &Weights, tokens: &[&[u32]], progress: &dyn Progress) -> Result<Self> {
        let mut cx = cx.clone();
        loop {
            let tower = weights.load_text(&cx)?;
            let mut features = TextFeatures { by_tokens: HashMap::new(), length: 0, width: 0 };
            for row in tokens {
                progress.check_interrupt()?;
                features.add(&cx, &tower, row)?;
            }
            drop(tower);
            if features.by_tokens.values().flatten().all(|value| value.is_finite()) {
                return Ok(features);
            }
            let Some(next) = wider(cx.dtype()) else { return Err(not_finite(STAGE)) };
            progress.note(&fallback_note(STAGE, cx.dtype(), next));
            cx = cx.with_dtype(next);
        }
    }

    fn add(&mut self, cx: &Cx, tower: &TextEncoder, row: &[u32]) -> Result<()> {
        if self.by_tokens.contains_key(row) {
            return Ok(());
        }
        let encoded = tower.forward(cx, &[row])?;
        if let [_, length, width] = *encoded.shape() {
            (self.length, self.width) = (length, width);
        }
        self.by_tokens.insert(row.to_vec(), encoded.to_f32()?);
        Ok(())
    }

    /// True where both rows of tokens have the same features: guidance by one against the other does nothing.
    pub fn are_equal(&self, one: &[u32], other: &[u32]) -> bool {
        matches!((self.by_tokens.get(one), self.by_tokens.get(other)), (Some(a), Some(b)) if a == b)
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
