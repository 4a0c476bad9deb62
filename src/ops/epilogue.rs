//! What a convolution or a linear layer does to its sums before it writes them.

use super::Activation;
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
