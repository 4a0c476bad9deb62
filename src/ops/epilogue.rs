//! What a convolution or a linear layer does to its sums before it writes them.

use super::elementwise::{combine, pointwise};
use super::sums::column_sums;
use super::{Accumulate, Activation, Cx};
use crate::autograd::Gradients;
use crate::error::{Error, Result};
use crate::tensor::{Shape, Tensor};

/// `residual + scale * activation(sum + bias + per_image)`; parts that are absent do nothing.
#[derive(Clone, Copy, Debug)]
pub struct Epilogue<'a> {
    /// [O], always f32
    pub bias: Option<&'a Tensor>,
    /// [N, O], or [1, O] for all images; the same for every pixel: a projected time embedding
    pub per_image: Option<&'a Tensor>,
    pub activation: Activation,
    pub scale: f32,
    /// shaped like the result
    pub residual: Option<&'a Tensor>,
}

impl Default for Epilogue<'_> {
    fn default() -> Self {
        Epilogue { bias: None, per_image: None, activation: Activation::None, scale: 1.0, residual: None }
    }
}

impl<'a> Epilogue<'a> {
    /// Adds `bias` [O] only.
    pub fn bias(bias: Option<&'a Tensor>) -> Self {
        Epilogue { bias, ..Self::default() }
    }

    pub fn activation(self, activation: Activation) -> Self {
        Epilogue { activation, ..self }
    }

    pub fn per_image(self, embedding: &'a Tensor) -> Self {
        Epilogue { per_image: Some(embedding), ..self }
    }

    pub fn residual(self, residual: &'a Tensor) -> Self {
        Epilogue { residual: Some(residual), ..self }
    }

    pub fn scale(self, scale: f32) -> Self {
        Epilogue { scale, ..self }
    }

    /// The tensors read.
    pub fn tensors(&self) -> Vec<&'a Tensor> {
        [self.bias, self.per_image, self.residual].into_iter().flatten().collect()
    }

    /// Checks every part against the result's shape, whose first axis counts the images.
    pub fn check(&self, result: Shape) -> Result<()> {
        let (n, o) = (result[0], result.last());
        let fits = self.bias.is_none_or(|bias| *bias.shape() == [o])
            && self.per_image.is_none_or(|e| *e.shape() == [n, o] || *e.shape() == [1, o])
            && self.residual.is_none_or(|residual| residual.shape() == result);
        if fits {
            Ok(())
        } else {
            Err(Error::internal(format!("an epilogue does not fit a result {result}: {self:?}")))
        }
    }
}

impl<'a> Epilogue<'a> {
    /// Without what comes after the bias: the sums that an activation's derivative is taken at.
    pub(super) fn linear_part(&self) -> Self {
        Epilogue { bias: self.bias, per_image: self.per_image, ..Self::default() }
    }

    /// The rest of the epilogue on `sums`, op by op: training keeps the sums, inference never has them.
    pub(super) fn finish_sums(&self, cx: &Cx, sums: &Tensor) -> Result<Tensor> {
        let active = pointwise(cx, sums, self.activation)?;
        match (self.residual, self.scale) {
            (None, 1.0) => Ok(active),
            (None, scale) => combine(cx, &[(scale, &active)], 0.0),
            (Some(residual), scale) => combine(cx, &[(scale, &active), (1.0, residual)], 0.0),
        }
    }

    /// The same with its own handles to the tensors.
    pub(super) fn owned(self) -> OwnedEpilogue {
        OwnedEpilogue {
            bias: self.bias.cloned(),
            per_image: self.per_image.cloned(),
            scale: self.scale,
            residual: self.residual.cloned(),
        }
    }
}

/// What a backward keeps of an [`Epilogue`] without an activation.
#[derive(Clone, Debug)]
pub struct OwnedEpilogue {
    bias: Option<Tensor>,
    per_image: Option<Tensor>,
    pub scale: f32,
    residual: Option<Tensor>,
}

impl OwnedEpilogue {
    /// Gradients of bias, per-image rows and residual from that of the result, [N, ..., O].
    pub fn backward(&self, cx: &Cx, gradient: &Tensor, gradients: &mut Gradients) -> Result<()> {
        if let Some(residual) = &self.residual {
            gradients.add(cx, residual, gradient.clone())?;
        }
        if let Some(rows) = &self.per_image
            && gradients.wants(rows)
        {
            let sums = column_sums(cx, gradient, rows.shape()[0], self.scale, rows.dtype())?;
            gradients.add(cx, rows, sums)?;
        }
        if let Some(bias) = &self.bias
            && gradients.wants(bias)
        {
            gradients.add(cx, bias, column_sums(cx, gradient, 1, self.scale, bias.dtype())?)?;
        }
        Ok(())
    }
}
