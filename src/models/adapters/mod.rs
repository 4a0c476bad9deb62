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
//! | no-timestep | as official | as official, the second norm plain | 2 sigmoid |
//! | transformer | as official | GN, SiLU, 1x1 conv C -> M; a transformer block with t in its first norm; conv -> 1 | 2 sigmoid |

#[cfg(test)]
mod tests;
mod transformer;
mod variant;

use super::config::{DenoiserConfig, HEAD_WIDTH};
use crate::error::{Error, Result};
use crate::nn::{Conv, GroupNorm, Layer, Linear, Scope, Variant, Visit, layers};
use crate::ops::adapter_gate::{Gate, adapter_gate};
use crate::ops::conv2d::Conv2d;
use crate::ops::elementwise::pointwise;
use crate::ops::{Activation, Cx, Segments, checkpoint_with};
use crate::tensor::Tensor;
use transformer::Transformer;

#[derive(Clone)]
struct Adapter {
    norm1: GroupNorm,
    conv1: Conv,
    /// rows of scale and shift
    embedding: Option<Linear>,
    body: Body,
    last: Conv,
}

/// What lies between the first and the last convolution.
#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "there are thirteen, made once")]
enum Body {
    Convolutions {
        norm2: GroupNorm,
        /// M -> M/2, not in the article's
        conv2: Option<Conv>,
    },
    Transformer(Transformer),
}

/// All adapters, in the order in which the decoder meets them.
pub struct Adapters {
    variant: Variant,
    adapters: Vec<Adapter>,
}

/// Scale and shift rows of every adapter that knows the timestep: [T, 2M] each.
#[derive(Clone, Debug)]
pub struct AdapterTimes(Vec<Option<Tensor>>);

impl AdapterTimes {
    /// Every adapter's rows replaced by what `of` makes of them, in a fixed order.
    pub fn map(&self, of: &mut dyn FnMut(&Tensor) -> Result<Tensor>) -> Result<Self> {
        let rows = self.0.iter().map(|rows| rows.as_ref().map(&mut *of).transpose());
        Ok(AdapterTimes(rows.collect::<Result<_>>()?))
    }
}

impl Adapters {
    /// Which variant the tensors under `scope` are, if any.
    pub fn detect(scope: &Scope) -> Option<Variant> {
        let variants = [Variant::Official, Variant::Paper, Variant::NoTimestep, Variant::Transformer];
        let layers = variants.into_iter().flat_map(Variant::layers).copied();
        let held = |layer: &&str| (0..64).any(|i| scope.shape(&format!("{i}.0.{layer}.weight")).is_some());
        Variant::of_names(layers.filter(held))
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
                Adapter::load(&scope, variant, variant.inputs(h, s), config.embedding(), large)
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
            self.adapters
                .iter()
                .map(|adapter| adapter.embedding.as_ref().map(|rows| rows.forward(cx, &active)).transpose())
                .collect::<Result<_>>()?,
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
        let (variant, timed) = (self.variant, time.is_some());
        let mut inputs = vec![base, residual];
        inputs.extend(time);
        inputs.extend(decoder);
        checkpoint_with(cx, adapter, &inputs, move |adapter, cx, inputs| {
            let (base, residual) = (inputs[0], inputs[1]);
            let (time, decoder) = inputs[2..].split_at(usize::from(timed));
            let (time, decoder) = (time.first().copied(), decoder.first().copied());
            adapter.forward(cx, variant, &variant.input(decoder, base, residual), time, (base, residual))
        })
    }
}

layers! {
    Adapter { norm1, conv1, embedding, body, last }
    Adapters { adapters }
}

impl Layer for Body {
    fn visit(&mut self, visit: Visit) -> Result<()> {
        match self {
            Body::Convolutions { norm2, conv2 } => {
                norm2.visit(visit)?;
                conv2.visit(visit)
            }
            Body::Transformer(block) => block.visit(visit),
        }
    }
}

impl Adapter {
    fn load(scope: &Scope, variant: Variant, inputs: usize, embedding: usize, large: bool) -> Result<Self> {
        let width = variant.width(inputs);
        let rows = |scope: &Scope| Linear::load(scope, embedding, 2 * width);
        if variant == Variant::Paper {
            let (first, second) = (scope.sub("stages.0"), scope.sub("stages.1"));
            return Ok(Adapter {
                norm1: GroupNorm::load(&first.sub("norm"), inputs, 32, 1e-5)?,
                conv1: Conv::load3(&first.sub("conv"), inputs, width, large)?,
                embedding: Some(rows(&second.sub("emb"))?),
                body: Body::Convolutions {
                    norm2: GroupNorm::load(&second.sub("norm"), width, 16, 1e-5)?,
                    conv2: None,
                },
                last: Conv::load(&second.sub("conv"), width, 1, 3)?,
            });
        }
        let (first, last) = (scope.sub("in_layers.2"), scope.sub("out_layers.4"));
        let norm1 = GroupNorm::load(&scope.sub("in_layers.0"), inputs, 32, 1e-5)?;
        let embedding = match variant {
            Variant::NoTimestep => None,
            _ => Some(rows(&scope.sub("emb_layers.1"))?),
        };
        if variant == Variant::Transformer {
            return Ok(Adapter {
                norm1,
                conv1: Conv::load(&first, inputs, width, 1)?,
                embedding,
                body: Body::Transformer(Transformer::load(&scope.sub("transformer"), width)?),
                last: Conv::load(&last, width, 1, 3)?,
            });
        }
        Ok(Adapter {
            norm1,
            conv1: Conv::load3(&first, inputs, width, large)?,
            embedding,
            body: Body::Convolutions {
                norm2: GroupNorm::load(&scope.sub("out_layers.0"), width, 16, 1e-5)?,
                conv2: Some(Conv::load3(&scope.sub("out_layers.2"), width, width / 2, large)?),
            },
            last: Conv::load(&last, width / 2, 1, 3)?,
        })
    }

    fn forward(
        &self,
        cx: &Cx,
        variant: Variant,
        input: &Segments,
        time: Option<&Tensor>,
        pair: (&Tensor, &Tensor),
    ) -> Result<(Tensor, Tensor)> {
        let (activation, gate) = match variant {
            Variant::Paper => (Activation::Relu, Gate::Sigmoid),
            _ => (Activation::Silu, Gate::TwoSigmoid),
        };
        let gated = |conv: &Conv2d| adapter_gate(cx, conv, &self.last.weight, &self.last.bias, gate, pair);
        let norm = self.norm1.affine(cx, input, None, activation)?;
        let h = self.conv1.forward(cx, &Conv2d::new(input.clone()).prologue(&norm))?;
        match &self.body {
            Body::Transformer(block) => {
                let time = time.ok_or_else(|| Error::internal("a transformer adapter without a timestep"))?;
                let h = block.forward(cx, &h, time)?;
                gated(&Conv2d::new(Segments::one(&h)))
            }
            Body::Convolutions { norm2, conv2 } => {
                let norm = norm2.affine(cx, &Segments::one(&h), time, activation)?;
                let conv = Conv2d::new(Segments::one(&h)).prologue(&norm);
                let Some(conv2) = conv2 else { return gated(&conv) };
                let h = conv2.forward_with(cx, &conv, &conv2.epilogue().activation(Activation::Silu))?;
                gated(&Conv2d::new(Segments::one(&h)))
            }
        }
    }
}
