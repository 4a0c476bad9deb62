//! Tokens and text features of every prompt of a run.

use std::collections::HashMap;

use crate::error::Result;
use crate::image::Job;
use crate::models::text::{Tokenizer, Tokens};
use crate::ops::Cx;
use crate::pipeline::progress::Progress;
use crate::pipeline::{Rows, TextFeatures, Trace, Weights};
use crate::tensor::Tensor;
use crate::weights::Dtype;

use super::prompts::Prompts;

/// See the module text. The tower that made the features is gone again.
pub struct Words {
    positive: HashMap<String, Tokens>,
    negative: Tokens,
    features: TextFeatures,
}

impl Words {
    /// Encodes the prompts of `jobs` and the negative prompt.
    ///
    /// # Errors
    /// The text tower cannot be loaded or run.
    pub fn new<'j>(
        cx: &Cx,
        weights: &Weights,
        prompts: &Prompts,
        negative: &str,
        jobs: impl Iterator<Item = &'j Job>,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let tokenizer = Tokenizer::new();
        let mut positive = HashMap::new();
        for job in jobs {
            let prompt = prompts.of(&job.input);
            if !positive.contains_key(prompt) {
                positive.insert(prompt.to_owned(), tokenizer.encode(prompt));
            }
        }
        let negative = tokenizer.encode(negative);
        if positive.values().chain([&negative]).any(|tokens| tokens.truncated) {
            progress.note("a prompt is longer than 77 tokens; its end is cut off");
        }
        let rows = positive.values().chain([&negative]).map(|tokens| tokens.ids.as_slice());
        let features = TextFeatures::encode(cx, &weights.load_text(cx)?, rows)?;
        cx.device().trim();
        Ok(Words { positive, negative, features })
    }

    /// Width of the features.
    pub fn width(&self) -> usize {
        self.features.width()
    }

    /// Features of `prompts` and, for each, of the negative prompt: f32 [N, 77, D] both. Their tokens are traced.
    ///
    /// # Errors
    /// A prompt that the run does not know.
    pub fn rows(&self, cx: &Cx, prompts: &[&str], trace: &mut dyn Trace) -> Result<(Tensor, Tensor)> {
        let unknown = || crate::error::Error::internal("a prompt was not encoded");
        let positive = prompts
            .iter()
            .map(|&prompt| self.positive.get(prompt).map(|tokens| tokens.ids.as_slice()).ok_or_else(unknown))
            .collect::<Result<Vec<_>>>()?;
        let negative = vec![self.negative.ids.as_slice(); prompts.len()];
        for (name, rows) in [("tokens.cond", &positive), ("tokens.uncond", &negative)] {
            if trace.wants(name) {
                let ids: Vec<f32> = rows.iter().flat_map(|row| row.iter().map(|&id| id as f32)).collect();
                trace.integers(name, &[rows.len(), rows[0].len()], &ids, Dtype::I32)?;
            }
        }
        let (positive, negative) = (self.features.rows(cx, &positive)?, self.features.rows(cx, &negative)?);
        // Without guidance the pipeline is not given the negative features, but a trace may ask for them.
        if trace.wants("text.uncond") {
            trace.tensor("text.uncond", &negative, Rows::Images)?;
        }
        Ok((positive, negative))
    }
}
