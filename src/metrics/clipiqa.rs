//! CLIP-IQA (Wang, Chan, Loy 2023): how much closer a picture is to the praise of each pair of prompts.
//!
//! For the unit features f of the image and t of the texts: `softmax over a pair of scale * (f . t)`, its first entry,
//! averaged over the pairs.

use super::NoReference;
use crate::error::{Error, Result};
use crate::models::clip::{ClipConfig, ClipText, ClipVisual};
use crate::models::text::Tokenizer;
use crate::nn::Scope;
use crate::ops::{Accumulate, Cx};
use crate::tensor::{DType, Tensor};

/// Which prompts are compared: praise, then blame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prompts {
    /// The five pairs of pyiqa's `clipiqa`.
    #[default]
    Five,
    /// The one pair of the article.
    Single,
}

impl Prompts {
    pub fn pairs(self) -> &'static [[&'static str; 2]] {
        match self {
            Prompts::Five => &[
                ["Good image", "bad image"],
                ["Sharp image", "blurry image"],
                ["sharp edges", "blurry edges"],
                ["High resolution image", "low resolution image"],
                ["Noise-free image", "noisy image"],
            ],
            Prompts::Single => &[["Good photo.", "Bad photo."]],
        }
    }
}

/// The metric: the image tower, and what the text tower made of the prompts.
///
/// It computes in f32 whatever the context does. A rounded activation of its ReLUs that falls on the other side of zero
/// changes the gradient in a whole receptive field: in bf16 by a tenth of the largest, where f32 is within a thousandth.
/// Beside the networks that it judges, a ResNet-50 costs little.
pub struct ClipIqa {
    visual: ClipVisual,
    texts: Texts,
}

/// Unit features of the prompts, pair by pair, and the factor on cosines.
#[derive(Clone)]
struct Texts {
    rows: Vec<Vec<f32>>,
    scale: f64,
}

impl ClipIqa {
    /// Loads both towers under `scope`; the text tower goes when the prompts are encoded.
    ///
    /// # Errors
    /// The weights are of other sizes, or memory is short.
    pub fn load(scope: &Scope, config: &ClipConfig, prompts: Prompts) -> Result<Self> {
        let cx = &scope.cx().with_dtype(DType::F32);
        let scope = &scope.with_context(cx);
        let text = ClipText::load(scope, config)?;
        let tokenizer = Tokenizer::new();
        let tokens: Vec<_> =
            prompts.pairs().iter().flatten().map(|prompt| tokenizer.encode(prompt)).collect();
        let ids: Vec<&[u32]> = tokens.iter().map(|tokens| &tokens.ids[..]).collect();
        let rows = text.features(&cx.without_tape(), &ids)?;
        let texts = Texts { rows, scale: f64::from(text.scale()) };
        drop(text);
        Ok(ClipIqa { visual: ClipVisual::load(&scope.sub("visual"), config)?, texts })
    }

    /// Unit features of the prompts, praise and blame of each pair after each other.
    pub fn texts(&self) -> &[Vec<f32>] {
        &self.texts.rows
    }

    /// image [N, H, W, 3] in [0, 1] -> the probability of praise for each image and pair, [N][pairs].
    ///
    /// # Errors
    /// A side below 32 pixels, or not enough memory.
    pub fn pairs(&self, cx: &Cx, image: &Tensor) -> Result<Vec<Vec<f32>>> {
        let features = self.visual.forward(&cx.without_tape().with_dtype(DType::F32), image)?;
        let values = features.to_f32()?;
        let rows = values.chunks_exact(features.shape().last());
        Ok(rows.map(|row| self.texts.praise(row).iter().map(|&p| p as f32).collect()).collect())
    }
}

impl Texts {
    /// The norm of an image's features, and the cosine to each text.
    fn cosines(&self, feature: &[f32]) -> (f64, Vec<f64>) {
        let norm = feature.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        let dot =
            |row: &Vec<f32>| row.iter().zip(feature).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        (norm, self.rows.iter().map(|row| dot(row) / norm).collect())
    }

    /// The probability of praise of each pair.
    fn praise(&self, feature: &[f32]) -> Vec<f64> {
        let (_, cosines) = self.cosines(feature);
        cosines.chunks_exact(2).map(|pair| 1.0 / (1.0 + (self.scale * (pair[1] - pair[0])).exp())).collect()
    }

    fn score(&self, feature: &[f32]) -> f64 {
        let praise = self.praise(feature);
        praise.iter().sum::<f64>() / praise.len() as f64
    }

    /// The gradient of the score in the features: `(t - f cos) / |f|` for each text, weighted.
    fn score_gradient(&self, feature: &[f32]) -> Vec<f64> {
        let (norm, cosines) = self.cosines(feature);
        let praise = self.praise(feature);
        let mut gradient = vec![0.0; feature.len()];
        for (text, (row, cosine)) in self.rows.iter().zip(&cosines).enumerate() {
            let p = praise[text / 2];
            let sign = if text % 2 == 0 { 1.0 } else { -1.0 };
            let weight = sign * self.scale * p * (1.0 - p) / praise.len() as f64 / norm;
            for ((g, t), f) in gradient.iter_mut().zip(row).zip(feature) {
                *g += weight * (f64::from(*t) - cosine * f64::from(*f) / norm);
            }
        }
        gradient
    }
}

impl NoReference for ClipIqa {
    fn name(&self) -> &'static str {
        "clipiqa"
    }

    fn score(&self, cx: &Cx, image: &Tensor) -> Result<Tensor> {
        let cx = &cx.with_dtype(DType::F32);
        let features = self.visual.forward(cx, image)?;
        let (n, width) = (features.shape()[0], features.shape().last());
        if !cx.device().is_plan() && self.texts.rows.iter().any(|row| row.len() != width) {
            return Err(Error::weights("the towers of this CLIP have features of different widths"));
        }
        // A few thousand numbers: they are cheaper on the host than as kernels of their own.
        let values = features.to_f32()?;
        let scores: Vec<f32> = values.chunks_exact(width).map(|row| self.texts.score(row) as f32).collect();
        let result = Tensor::from_f32(cx.device(), &scores, [n])?;
        let (input, texts) = (features.clone(), self.texts.clone());
        Ok(cx.record(&[&features], result, move |cx, gradient, gradients| {
            let rows = values.chunks_exact(width).zip(gradient.to_f32()?);
            let spread: Vec<f32> = rows
                .flat_map(|(row, g)| {
                    texts.score_gradient(row).into_iter().map(move |d| (d * f64::from(g)) as f32)
                })
                .collect();
            gradients.add(cx, &input, Tensor::from_f32(cx.device(), &spread, input.shape())?)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ids that pyiqa's tokenizer gives.
    #[test]
    fn prompts_have_their_token_ids() {
        let ids = |prompts: Prompts| -> Vec<Vec<u32>> {
            let tokenizer = Tokenizer::new();
            let tokens = prompts.pairs().iter().flatten().map(|prompt| tokenizer.encode(prompt));
            tokens.map(|t| t.ids[1..t.used - 1].to_vec()).collect()
        };
        let five: [&[u32]; 10] = [
            &[886, 2867],
            &[2103, 2867],
            &[8157, 2867],
            &[21977, 2867],
            &[8157, 20938],
            &[21977, 20938],
            &[1400, 9977, 2867],
            &[1042, 9977, 2867],
            &[9307, 268, 1139, 2867],
            &[33495, 2867],
        ];
        assert_eq!(ids(Prompts::Five), five);
        assert_eq!(ids(Prompts::Single), [[886, 1125, 269], [2103, 1125, 269]]);
    }

    #[test]
    fn the_gradient_of_the_score_is_that_of_differences() {
        let row =
            |k: usize| -> Vec<f32> { (0..6).map(|i| ((i * 7 + k * 5) % 11) as f32 / 11.0 - 0.4).collect() };
        let unit = |row: Vec<f32>| {
            let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
            row.iter().map(|v| v / norm).collect()
        };
        let texts = Texts { rows: (0..4).map(|k| unit(row(k))).collect(), scale: 3.0 };
        let feature: Vec<f32> = vec![0.5, -1.0, 0.25, 2.0, -0.75, 1.5];
        let gradient = texts.score_gradient(&feature);
        for i in 0..6 {
            let at = |step: f32| {
                let mut moved = feature.clone();
                moved[i] += step;
                texts.score(&moved)
            };
            let difference = (at(1.0 / 1024.0) - at(-1.0 / 1024.0)) * 512.0;
            assert!((difference - gradient[i]).abs() < 1e-6, "{i}: {} for {difference}", gradient[i]);
        }
    }
}
