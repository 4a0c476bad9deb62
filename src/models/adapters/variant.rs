//! What differs between the variants of adapters: what enters and how wide they are.

use super::HEAD_WIDTH;
use crate::nn::Variant;
use crate::ops::{Segment, Segments};
use crate::tensor::Tensor;

impl Variant {
    /// Channels that enter the adapter of a decoder feature of width `h` (none in the middle) and a skip feature of
    /// width `s`.
    pub fn inputs(self, h: Option<usize>, s: usize) -> usize {
        match self {
            Variant::Paper => h.unwrap_or(s) + s,
            _ => 2 * h.unwrap_or(0) + 3 * s,
        }
    }

    /// Channels between the first convolution and the last ones, M, where `inputs` enter.
    pub fn width(self, inputs: usize) -> usize {
        match self {
            Variant::Transformer => (inputs / 4).next_multiple_of(HEAD_WIDTH),
            _ => inputs / 4,
        }
    }

    pub(super) fn input<'a>(
        self,
        decoder: Option<&'a Tensor>,
        base: &'a Tensor,
        residual: &'a Tensor,
    ) -> Segments<'a> {
        let plain = |tensor| Segment { tensor, plus: None };
        let controlled = Segment { tensor: base, plus: Some(residual) };
        Segments::new(match (self, decoder) {
            (Variant::Paper, h) => vec![plain(h.unwrap_or(base)), plain(residual)],
            (_, None) => vec![controlled, plain(base), plain(residual)],
            (_, Some(h)) => vec![plain(h), controlled, plain(h), plain(base), plain(residual)],
        })
    }
}
