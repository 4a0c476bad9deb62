//! Linear layers, convolutions and norms.

use super::parameters::{Layer, Slot, Visit};
use super::{Scope, layers};
use crate::autograd::Cx;
use crate::error::Result;
use crate::ops::conv2d::{self, Conv2d, ConvWeight};
use crate::ops::group_norm::{self, Affine};
use crate::ops::linear::{LinearWeight, linear};
use crate::ops::{Activation, Epilogue, Segments, layer_norm::layer_norm};
use crate::tensor::{Shape, Tensor};

/// `weight` [O, K] and, where it has one, `bias` [O].
#[derive(Clone, Debug)]
pub struct Linear {
    pub weight: LinearWeight,
    pub bias: Option<Tensor>,
}

impl Linear {
    /// A layer with a bias.
    pub fn load(scope: &Scope, inputs: usize, outputs: usize) -> Result<Self> {
        let weight = Self::pack(scope, "weight", inputs, outputs)?;
        Ok(Linear { weight, bias: Some(scope.tensor("bias", [outputs])?) })
    }

    /// One matrix by its whole name, without a bias.
    pub fn pack(scope: &Scope, name: &str, inputs: usize, outputs: usize) -> Result<LinearWeight> {
        scope.with_values(name, &[outputs, inputs], |values| {
            let weight = LinearWeight::pack(scope.cx(), values, [outputs, inputs])?;
            Ok(weight.with_node(scope.gather(&[name], [outputs, inputs], values)?))
        })
    }

    /// Several layers of the same input as one, their outputs side by side: `trailing` is appended to each
    /// weight's shape (1x1 convolutions keep their matrices as [O, K, 1, 1]).
    pub fn load_joined(
        scope: &Scope,
        names: &[&str],
        inputs: usize,
        outputs: usize,
        trailing: &[usize],
        bias: bool,
    ) -> Result<Self> {
        let all = names.len() * outputs;
        let shape = [&[outputs, inputs], trailing].concat();
        let mut rows = Vec::new();
        let mut biases = Vec::new();
        for name in names {
            let layer = scope.sub(name);
            layer.with_values("weight", &shape, |values| {
                rows.extend_from_slice(values);
                Ok(())
            })?;
            if bias {
                layer.with_values("bias", &[outputs], |values| {
                    biases.extend_from_slice(values);
                    Ok(())
                })?;
            }
        }
        let full = |last: &str| names.iter().map(|name| format!("{name}.{last}")).collect::<Vec<_>>();
        let (weights, offsets) = (full("weight"), full("bias"));
        let gather = |names: &[String], shape: Shape, values: &[f32]| {
            scope.gather(&names.iter().map(String::as_str).collect::<Vec<_>>(), shape, values)
        };
        let stacked = match trailing {
            [] => Shape::from([all, inputs]),
            _ => Shape::from([all, inputs, 1, 1]),
        };
        let weight = LinearWeight::pack(scope.cx(), &rows, [all, inputs])?;
        let weight = weight.with_node(gather(&weights, stacked, &rows)?);
        let bias = match bias {
            true => {
                let bias = Tensor::weight_from_f32(scope.cx().device(), &biases, [all])?;
                Some(bias.with_node(gather(&offsets, [all].into(), &biases)?))
            }
            false => None,
        };
        Ok(Linear { weight, bias })
    }

    /// Adds the bias, and whatever the caller chains to it.
    pub fn epilogue(&self) -> Epilogue<'_> {
        Epilogue::bias(self.bias.as_ref())
    }

    /// x [..., K] -> [..., O]
    pub fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        linear(cx, x, &self.weight, &self.epilogue())
    }

    /// `residual + forward(x)`
    pub fn forward_onto(&self, cx: &Cx, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        linear(cx, x, &self.weight, &self.epilogue().residual(residual))
    }
}

/// A convolution with a bias.
#[derive(Clone, Debug)]
pub struct Conv {
    pub weight: ConvWeight,
    pub bias: Tensor,
}

impl Conv {
    pub fn load(scope: &Scope, inputs: usize, outputs: usize, kernel: usize) -> Result<Self> {
        let shape = [outputs, inputs, kernel, kernel];
        Self::packed(scope, shape, |values| ConvWeight::pack(scope.cx(), values, shape))
    }

    /// A 3x3 layer that always meets large images of even height and width: see [`ConvWeight::pack_for_large`].
    pub fn load_for_large(scope: &Scope, inputs: usize, outputs: usize) -> Result<Self> {
        let shape = [outputs, inputs, 3, 3];
        Self::packed(scope, shape, |values| ConvWeight::pack_for_large(scope.cx(), values, shape))
    }

    fn packed(
        scope: &Scope,
        shape: [usize; 4],
        pack: impl FnOnce(&[f32]) -> Result<ConvWeight>,
    ) -> Result<Self> {
        let weight = scope.with_values("weight", &shape, |values| {
            Ok(pack(values)?.with_node(scope.gather(&["weight"], shape, values)?))
        })?;
        Ok(Conv { weight, bias: scope.tensor("bias", [shape[0]])? })
    }

    /// A 3x3 layer, for large images where `large` says so.
    pub fn load3(scope: &Scope, inputs: usize, outputs: usize, large: bool) -> Result<Self> {
        match large {
            true => Self::load_for_large(scope, inputs, outputs),
            false => Self::load(scope, inputs, outputs, 3),
        }
    }

    /// Adds the bias, and whatever the caller chains to it.
    pub fn epilogue(&self) -> Epilogue<'_> {
        Epilogue::bias(Some(&self.bias))
    }

    /// `conv` with the bias only.
    pub fn forward(&self, cx: &Cx, conv: &Conv2d) -> Result<Tensor> {
        self.forward_with(cx, conv, &self.epilogue())
    }

    pub fn forward_with(&self, cx: &Cx, conv: &Conv2d, epilogue: &Epilogue) -> Result<Tensor> {
        conv2d::conv2d(cx, conv, &self.weight, epilogue)
    }
}

/// Group norm weights.
#[derive(Clone, Debug)]
pub struct GroupNorm {
    gamma: Tensor,
    beta: Tensor,
    groups: usize,
    eps: f32,
}

impl GroupNorm {
    pub fn load(scope: &Scope, channels: usize, groups: usize, eps: f32) -> Result<Self> {
        let (gamma, beta) = (scope.tensor("weight", [channels])?, scope.tensor("bias", [channels])?);
        Ok(GroupNorm { gamma, beta, groups, eps })
    }

    /// The norm of `input` as an affine map, with AdaLN rows where given; see [`group_norm::group_norm`].
    pub fn affine(
        &self,
        cx: &Cx,
        input: &Segments,
        adaln: Option<&Tensor>,
        activation: Activation,
    ) -> Result<Affine> {
        let norm = group_norm::GroupNorm {
            gamma: &self.gamma,
            beta: &self.beta,
            groups: self.groups,
            eps: self.eps,
        };
        group_norm::group_norm(cx, input, &norm, adaln, activation)
    }

    /// The normalised tensor itself.
    pub fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let input = Segments::one(x);
        let affine = self.affine(cx, &input, None, Activation::None)?;
        group_norm::normalise(cx, &input, &affine)
    }
}

/// Layer norm weights, eps 1e-5.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    gamma: Tensor,
    beta: Tensor,
}

impl LayerNorm {
    pub fn load(scope: &Scope, width: usize) -> Result<Self> {
        Ok(LayerNorm { gamma: scope.tensor("weight", [width])?, beta: scope.tensor("bias", [width])? })
    }

    pub fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        layer_norm(cx, x, &self.gamma, &self.beta, 1e-5)
    }
}

impl Layer for LinearWeight {
    fn visit(&mut self, visit: Visit) -> Result<()> {
        visit(Slot::Linear(self))
    }
}

impl Layer for ConvWeight {
    fn visit(&mut self, visit: Visit) -> Result<()> {
        visit(Slot::Conv(self))
    }
}

impl Layer for Tensor {
    fn visit(&mut self, visit: Visit) -> Result<()> {
        visit(Slot::Plain(self))
    }
}

layers! {
    Linear { weight, bias }
    Conv { weight, bias }
    GroupNorm { gamma, beta }
    LayerNorm { gamma, beta }
}
