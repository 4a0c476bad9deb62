//! Averaged weights: `ema += (1 - decay) (weights - ema)` after every update.

use super::optimizer::Exported;
use crate::error::Result;
use crate::nn::Parameter;
use crate::ops::Cx;
use crate::ops::elementwise::combine;
use crate::tensor::Tensor;

/// The averages of one network's masters.
pub struct Ema {
    decay: f64,
    averages: Vec<Tensor>,
}

impl Ema {
    /// Starts as the masters are.
    ///
    /// # Errors
    /// Memory is short.
    pub fn new(cx: &Cx, parameters: &[Parameter], decay: f64) -> Result<Self> {
        let copy = |parameter: &Parameter| combine(cx, &[(1.0, &parameter.master.detached())], 0.0);
        Ok(Ema { decay, averages: parameters.iter().map(copy).collect::<Result<_>>()? })
    }

    pub fn decay(&self) -> f64 {
        self.decay
    }

    /// Follows the masters by one update.
    ///
    /// # Errors
    /// Memory is short.
    pub fn follow(&mut self, cx: &Cx, parameters: &[Parameter]) -> Result<()> {
        let (keep, take) = (self.decay as f32, (1.0 - self.decay) as f32);
        for (average, parameter) in self.averages.iter_mut().zip(parameters) {
            *average = combine(cx, &[(keep, average), (take, &parameter.master.detached())], 0.0)?;
        }
        Ok(())
    }

    /// The averages under the names of checkpoints.
    ///
    /// # Errors
    /// The device fails.
    pub fn export(&self, parameters: &[Parameter]) -> Result<Vec<Exported>> {
        let mut tensors = Vec::new();
        for (average, parameter) in self.averages.iter().zip(parameters) {
            let shape = parameter.part_shape();
            for (name, part) in parameter.parts(average)? {
                tensors.push(Exported {
                    name: name.to_owned(),
                    shape: shape.clone(),
                    values: part.to_f32()?,
                });
            }
        }
        Ok(tensors)
    }

    /// Takes averages as [`Ema::export`] gave them.
    ///
    /// # Errors
    /// One of them is missing.
    pub fn restore(
        &mut self,
        cx: &Cx,
        parameters: &[Parameter],
        mut read: impl FnMut(&str, &[usize]) -> Result<Vec<f32>>,
    ) -> Result<()> {
        for (average, parameter) in self.averages.iter_mut().zip(parameters) {
            let shape = parameter.part_shape();
            let mut values = Vec::new();
            for name in parameter.names() {
                values.extend(read(name, &shape)?);
            }
            *average = Tensor::from_f32(cx.device(), &values, parameter.master.shape())?;
        }
        Ok(())
    }
}
