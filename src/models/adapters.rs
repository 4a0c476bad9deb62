//! The 13 timestep-aware adapters (`checkpoint_adapter.{i}.0.*`): each weighs one ControlNet residual by a
//! map, per timestep and per pixel.
//!
//! h is the decoder feature, s the skip feature, r the residual; in the middle (i = 0) s is the middle
//! feature itself and h is absent.
//!
//! | variant | input | layers | map |
//! |---|---|---|---|
//! | official | cat[h, s + r, h, s, r], middle cat[s + r, s, r] | GN, SiLU, conv C -> M = C/4; GN with scale and shift of t, SiLU, conv M -> M/2, SiLU, conv -> 1 | 2 sigmoid |
//! | paper | cat[h, r], middle cat[s, r] | GN, ReLU, conv C -> C/4; GN with scale and shift of t, ReLU, conv -> 1 | sigmoid |

use super::config::DenoiserConfig;
use crate::error::{Error, Result};
use crate::nn::{Conv, GroupNorm, Linear, Scope, layers};
use crate::ops::adapter_gate::{Gate, adapter_gate};
use crate::ops::conv2d::Conv2d;
use crate::ops::elementwise::pointwise;
use crate::ops::{Activation, Cx, Segment, Segments, checkpoint_with};
use crate::tensor::Tensor;

/// Which adapters a checkpoint holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// The published code.
    Official,
    /// The text of the article.
    Paper,
}

impl Variant {
    pub fn name(self) -> &'static str {
        match self {
            Variant::Official => "official",
            Variant::Paper => "paper",
        }
    }
}

#[derive(Clone)]
struct Adapter {
    norm1: GroupNorm,
    conv1: Conv,
    norm2: GroupNorm,
    embedding: Linear,
    /// M -> M/2, official only
    conv2: Option<Conv>,
    last: Conv,
}

/// All adapters, in the order in which the decoder meets them.
pub struct Adapters {
    variant: Variant,
    adapters: Vec<Adapter>,
}

/// Scale and shift rows of every adapter: [T, 2M] each.
#[derive(Clone, Debug)]
pub struct AdapterTimes(Vec<Tensor>);

impl AdapterTimes {
    /// Every adapter's rows replaced by what `of` makes of them, in a fixed order.
    pub fn map(&self, of: &mut dyn FnMut(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok(AdapterTimes(self.0.iter().map(of).collect::<Result<_>>()?))
    }
}

impl Adapters {
    /// Which variant the tensors under `scope` are, if any.
    pub fn detect(scope: &Scope) -> Option<Variant> {
        let there = |name: &str| (0..64).any(|i| scope.shape(&format!("{i}.0.{name}")).is_some());
        match (there("in_layers.2.weight"), there("stages.0.conv.weight")) {
            (true, _) => Some(Variant::Official),
            (_, true) => Some(Variant::Paper),
            _ => None,
        }
    }

    /// Loads the adapters of a UNet of these sizes under `scope`.
    pub fn load(scope: &Scope, config: &DenoiserConfig, variant: Variant) -> Result<Self> {
        let joins = std::iter::once((None, config.middle()))
            .chain(config.joins().into_iter().map(|(h, s)| (Some(h), s)));
        let adapters = joins
            .enumerate()
            .map(|(i, (h, s))| {
                // The first works in the middle, the others at the levels of the output blocks.
                let large = i > 0
                    && DenoiserConfig::is_large(config.widths.len() - 1 - (i - 1) / (config.blocks + 1));
                let scope = scope.sub(format!("{i}.0"));
                match variant {
                    Variant::Official => {
                        Adapter::official(&scope, 2 * h.unwrap_or(0) + 3 * s, config.embedding(), large)
                    }
                    Variant::Paper => Adapter::paper(&scope, h.unwrap_or(s) + s, config.embedding(), large),
                }
            })
            .collect::<Result<_>>()?;
        Ok(Adapters { variant, adapters })
    }

    /// Which adapters these are.
    pub fn variant(&self) -> Variant {
        self.variant
    }

    /// What depends on the timesteps only; `embedding` [T, E] is the UNet's.
    pub fn times(&self, cx: &Cx, embedding: &Tensor) -> Result<AdapterTimes> {
        let active = pointwise(cx, embedding, Activation::Silu)?;
        Ok(AdapterTimes(
            self.adapters.iter().map(|a| a.embedding.forward(cx, &active)).collect::<Result<_>>()?,
        ))
    }

    /// `base + map * residual` and the map of adapter `i`; `decoder` is h, absent in the middle.
    pub fn forward(
        &self,
        cx: &Cx,
        i: usize,
        AdapterTimes(times): &AdapterTimes,
        decoder: Option<&Tensor>,
        base: &Tensor,
        residual: &Tensor,
    ) -> Result<(Tensor, Tensor)> {
        let (adapter, time) = match (self.adapters.get(i), times.get(i)) {
            (Some(adapter), Some(time)) => (adapter, time),
            _ => return Err(Error::internal(format!("there is no adapter {i}"))),
        };
        let variant = self.variant;
        let mut inputs = vec![time, base, residual];
        inputs.extend(decoder);
        checkpoint_with(cx, adapter, &inputs, move |adapter, cx, inputs| {
            let (time, base, residual, decoder) = (inputs[0], inputs[1], inputs[2], inputs.get(3).copied());
            adapter.forward(
                cx,
                &Self::input(variant, decoder, base, residual),
                time,
                variant,
                (base, residual),
            )
        })
    }

    fn input<'a>(
        variant: Variant,
        decoder: Option<&'a Tensor>,
        base: &'a Tensor,
        residual: &'a Tensor,
    ) -> Segments<'a> {
        let plain = |tensor| Segment { tensor, plus: None };
        let controlled = Segment { tensor: base, plus: Some(residual) };
        Segments::new(match (variant, decoder) {
            (Variant::Official, None) => vec![controlled, plain(base), plain(residual)],
            (Variant::Official, Some(h)) => {
                vec![plain(h), controlled, plain(h), plain(base), plain(residual)]
            }
            (Variant::Paper, h) => vec![plain(h.unwrap_or(base)), plain(residual)],
        })
    }
}

layers! {
    Adapter { norm1, conv1, norm2, embedding, conv2, last }
    Adapters { adapters }
}

impl Adapter {
    fn official(scope: &Scope, inputs: usize, embedding: usize, large: bool) -> Result<Self> {
        let middle = inputs / 4;
        Ok(Adapter {
            norm1: GroupNorm::load(&scope.sub("in_layers.0"), inputs, 32, 1e-5)?,
            conv1: Conv::load3(&scope.sub("in_layers.2"), inputs, middle, large)?,
            norm2: GroupNorm::load(&scope.sub("out_layers.0"), middle, 16, 1e-5)?,
            conv2: Some(Conv::load3(&scope.sub("out_layers.2"), middle, middle / 2, large)?),
            last: Conv::load(&scope.sub("out_layers.4"), middle / 2, 1, 3)?,
            embedding: Linear::load(&scope.sub("emb_layers.1"), embedding, 2 * middle)?,
        })
    }

    fn paper(scope: &Scope, inputs: usize, embedding: usize, large: bool) -> Result<Self> {
        let middle = inputs / 4;
        let (first, second) = (scope.sub("stages.0"), scope.sub("stages.1"));
        Ok(Adapter {
            norm1: GroupNorm::load(&first.sub("norm"), inputs, 32, 1e-5)?,
            conv1: Conv::load3(&first.sub("conv"), inputs, middle, large)?,
            norm2: GroupNorm::load(&second.sub("norm"), middle, 16, 1e-5)?,
            embedding: Linear::load(&second.sub("emb"), embedding, 2 * middle)?,
            conv2: None,
            last: Conv::load(&second.sub("conv"), middle, 1, 3)?,
        })
    }

    fn forward(
        &self,
        cx: &Cx,
        input: &Segments,
        time: &Tensor,
        variant: Variant,
        pair: (&Tensor, &Tensor),
    ) -> Result<(Tensor, Tensor)> {
        let (activation, gate) = match variant {
            Variant::Official => (Activation::Silu, Gate::TwoSigmoid),
            Variant::Paper => (Activation::Relu, Gate::Sigmoid),
        };
        let norm = self.norm1.affine(cx, input, None, activation)?;
        let h = self.conv1.forward(cx, &Conv2d::new(input.clone()).prologue(&norm))?;
        let norm = self.norm2.affine(cx, &Segments::one(&h), Some(time), activation)?;
        let conv = Conv2d::new(Segments::one(&h)).prologue(&norm);
        match &self.conv2 {
            None => adapter_gate(cx, &conv, &self.last.weight, &self.last.bias, gate, pair),
            Some(conv2) => {
                let h = conv2.forward_with(cx, &conv, &conv2.epilogue().activation(Activation::Silu))?;
                let conv = Conv2d::new(Segments::one(&h));
                adapter_gate(cx, &conv, &self.last.weight, &self.last.bias, gate, pair)
            }
        }
    }
}
