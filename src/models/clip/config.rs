//! Sizes of CLIP RN50, read off tensor shapes.

use crate::error::{Error, Result};
use crate::models::config::HEAD_WIDTH;
use crate::nn::Scope;

/// Sizes of both towers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClipConfig {
    /// width of the stem; stage i has 2^i times as many planes
    pub width: usize,
    /// blocks of each stage
    pub stages: [usize; 4],
    /// positions of the table that CLIP-IQA does not add
    pub positions: usize,
    /// width of the features of both towers
    pub features: usize,
    /// width of the text tower
    pub text: usize,
    pub layers: usize,
    pub vocabulary: usize,
    pub length: usize,
}

impl Default for ClipConfig {
    /// RN50.
    fn default() -> Self {
        ClipConfig {
            width: 64,
            stages: [3, 4, 6, 3],
            positions: 50,
            features: 1024,
            text: 512,
            layers: 12,
            vocabulary: 49408,
            length: 77,
        }
    }
}

impl ClipConfig {
    /// Reads the sizes of the network under `scope`.
    ///
    /// # Errors
    /// There is no such network.
    pub fn infer(scope: &Scope) -> Result<Self> {
        let missing =
            || Error::weights("no CLIP with a residual network was found").fix("give OpenAI's RN50.pt");
        let shape = |name: &str| scope.shape(name).ok_or_else(missing);
        let (stem, pool) = (shape("visual.conv3.weight")?, shape("visual.attnpool.positional_embedding")?);
        let (tokens, places) = (shape("token_embedding.weight")?, shape("positional_embedding")?);
        let (&[width, ..], &[positions, _], &[vocabulary, text], &[length, _], &[_, features]) =
            (&stem[..], &pool[..], &tokens[..], &places[..], &shape("text_projection")?[..])
        else {
            return Err(missing());
        };
        // The highest, so that a hole in between is reported as missing and not taken for the end.
        let count = |name: &dyn Fn(usize) -> String| {
            (0..64).rev().find(|&i| scope.shape(&name(i)).is_some()).map_or(0, |last| last + 1)
        };
        let stages = [1, 2, 3, 4].map(|stage| count(&|i| format!("visual.layer{stage}.{i}.conv1.weight")));
        let layers = count(&|i| format!("transformer.resblocks.{i}.ln_1.weight"));
        if stages.contains(&0) || layers == 0 || text % HEAD_WIDTH != 0 || width == 0 {
            return Err(missing());
        }
        Ok(ClipConfig { width, stages, positions, features, text, layers, vocabulary, length })
    }
}
