//! Where layers get their weights from.

use std::borrow::Cow;

use super::Gathered;
use crate::autograd::Cx;
use crate::error::Result;
use crate::tensor::{NodeId, Shape, Tensor};

/// Weights by name: a checkpoint, synthetic values, or a list in the making.
///
/// Problems (a tensor that is missing or mis-shaped) are gathered by the source and reported together
/// when the network is complete, so a bad file is described by one message.
pub trait Source {
    /// The shape of `name`, if it is there. Networks infer their sizes from it.
    fn shape(&self, name: &str) -> Option<Vec<usize>>;

    /// Notes that a layer has `name` with this shape; false when its values cannot be had, which the
    /// source then has noted as a problem.
    fn expect(&self, name: &str, shape: &[usize]) -> bool;

    /// The values of `name`, row-major, after `expect` said that they are there.
    ///
    /// # Errors
    /// The file cannot be read.
    fn values(&self, name: &str, shape: &[usize]) -> Result<Cow<'_, [f32]>>;

    /// The values of `name` were converted: mapped pages may go.
    fn release(&self, _name: &str) {}
}

/// A source under a prefix.
#[derive(Clone)]
pub struct Scope<'a> {
    cx: &'a Cx,
    source: &'a dyn Source,
    prefix: String,
    /// where trainable weights are gathered; nowhere for a network that is frozen
    gathered: Option<&'a Gathered>,
}

impl<'a> Scope<'a> {
    /// `prefix` ends with a dot or is empty.
    pub fn new(cx: &'a Cx, source: &'a dyn Source, prefix: impl Into<String>) -> Self {
        Scope { cx, source, prefix: prefix.into(), gathered: None }
    }

    /// Everything below `name`.
    pub fn sub(&self, name: impl std::fmt::Display) -> Self {
        Scope { prefix: format!("{}{name}.", self.prefix), ..self.clone() }
    }

    /// The same in another context: for a network with an element type of its own.
    pub fn with_context<'b>(&self, cx: &'b Cx) -> Scope<'b>
    where
        'a: 'b,
    {
        Scope { cx, ..self.clone() }
    }

    /// The same, with every weight loaded as a trainable one that `gathered` gets the master of.
    pub fn training(self, gathered: &'a Gathered) -> Self {
        Scope { gathered: Some(gathered), ..self }
    }

    /// Gathers the tensors `names` with `values`, stacked to `shape`, if they are to be trained; -> their name on
    /// tapes.
    pub(super) fn gather(
        &self,
        names: &[&str],
        shape: impl Into<Shape>,
        values: &[f32],
    ) -> Result<Option<NodeId>> {
        let Some(gathered) = self.gathered else { return Ok(None) };
        let names = names.iter().map(|name| self.full(name)).collect();
        gathered.add(self.cx, names, shape.into(), values).map(Some)
    }

    pub fn cx(&self) -> &'a Cx {
        self.cx
    }

    /// The shape of `name` under this prefix.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.source.shape(&self.full(name))
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Hands the values of `name` to `use_values`. They are zeros when the tensor is missing, and an
    /// empty slice on the planning device, which wants no values.
    pub fn with_values<R>(
        &self,
        name: &str,
        shape: &[usize],
        use_values: impl FnOnce(&[f32]) -> Result<R>,
    ) -> Result<R> {
        let name = self.full(name);
        let there = self.source.expect(&name, shape);
        if self.cx.device().is_plan() {
            return use_values(&[]);
        }
        if !there {
            return use_values(&vec![0.0; shape.iter().product()]);
        }
        let result = use_values(&self.source.values(&name, shape)?);
        self.source.release(&name);
        result
    }

    /// Says that checkpoints hold `name`, which no computation needs.
    pub fn unused(&self, name: &str, shape: &[usize]) {
        self.source.expect(&self.full(name), shape);
    }

    /// A vector or table kept in f32: biases, norms, embeddings.
    pub fn tensor<const R: usize>(&self, name: &str, shape: [usize; R]) -> Result<Tensor> {
        self.with_values(name, &shape, |values| {
            let tensor = Tensor::weight_from_f32(self.cx.device(), values, shape)?;
            Ok(tensor.with_node(self.gather(&[name], shape, values)?))
        })
    }
}
