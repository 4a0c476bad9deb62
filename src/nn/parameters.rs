//! Trainable weights: f32 masters in the layout of checkpoints, and the walk that packs them again.
//!
//! A network loaded under [`Scope::training`](super::Scope::training) is the same network; its weights have names
//! on tapes, and their masters are gathered on the side. A tape that watches a parameter gives its gradient; an
//! optimiser changes the master; [`Trained::refresh`] brings the network's own copy up to date.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::autograd::{Cx, Tape, variable};
use crate::device::Purpose;
use crate::error::{Error, Result};
use crate::ops::conv2d::ConvWeight;
use crate::ops::linear::LinearWeight;
use crate::ops::overwrite;
use crate::tensor::{DType, NodeId, Shape, Tensor};

/// One trainable tensor: a tensor of the checkpoint, or several stacked along their first axis because the network
/// computes with them as one.
#[derive(Debug)]
pub struct Parameter {
    names: Vec<String>,
    node: NodeId,
    /// f32, laid out like the checkpoint's tensors
    pub master: Tensor,
}

impl Parameter {
    /// Checkpoint tensors in the order in which they are stacked; all have the same number of rows.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// What tapes call it.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The shape of each checkpoint tensor.
    pub fn part_shape(&self) -> Vec<usize> {
        let mut shape = self.master.shape().to_vec();
        if let Some(rows) = shape.first_mut() {
            *rows /= self.names.len();
        }
        shape
    }

    /// `whole`, a master, gradient or moment of this parameter, taken apart: a piece for each name.
    pub fn parts<'a>(&'a self, whole: &Tensor) -> Result<Vec<(&'a str, Tensor)>> {
        let whole = whole.detached();
        let rows = whole.shape()[0] / self.names.len();
        let part = |(i, name): (usize, &'a String)| Ok((name.as_str(), whole.narrow(i * rows, rows)?));
        self.names.iter().enumerate().map(part).collect()
    }
}

/// Parameters in the making: filled while a network is loaded.
#[derive(Debug, Default)]
pub struct Gathered(RefCell<Vec<Parameter>>);

impl Gathered {
    /// A parameter of the checkpoint tensors `names`, stacked to `shape`; -> its name on tapes.
    pub(super) fn add(&self, cx: &Cx, names: Vec<String>, shape: Shape, values: &[f32]) -> Result<NodeId> {
        let master = Tensor::from_f32_as(cx.device(), values, shape, DType::F32, Purpose::Weight)?;
        let node = variable();
        self.0.borrow_mut().push(Parameter { names, node, master });
        Ok(node)
    }
}

/// A weight of a layer, for writing.
pub enum Slot<'a> {
    Linear(&'a mut LinearWeight),
    Conv(&'a mut ConvWeight),
    Plain(&'a mut Tensor),
}

impl Slot<'_> {
    fn node(&self) -> Option<NodeId> {
        match self {
            Slot::Linear(weight) => weight.packed().node(),
            Slot::Conv(weight) => weight.packed().node(),
            Slot::Plain(tensor) => tensor.node(),
        }
    }

    fn refresh(self, cx: &Cx, master: &Tensor) -> Result<()> {
        match self {
            Slot::Linear(weight) => weight.repack(cx, master),
            Slot::Conv(weight) => weight.repack(cx, master),
            Slot::Plain(tensor) => overwrite(cx, tensor, master),
        }
    }
}

/// What is done with each weight.
pub type Visit<'a> = &'a mut dyn FnMut(Slot) -> Result<()>;

/// Something that holds weights.
pub trait Layer {
    /// Shows every weight to `visit`.
    fn visit(&mut self, visit: Visit) -> Result<()>;
}

impl<L: Layer> Layer for Option<L> {
    fn visit(&mut self, visit: Visit) -> Result<()> {
        self.iter_mut().try_for_each(|layer| layer.visit(visit))
    }
}

impl<L: Layer, const N: usize> Layer for [L; N] {
    fn visit(&mut self, visit: Visit) -> Result<()> {
        self.iter_mut().try_for_each(|layer| layer.visit(visit))
    }
}

impl<L: Layer> Layer for Vec<L> {
    fn visit(&mut self, visit: Visit) -> Result<()> {
        self.iter_mut().try_for_each(|layer| layer.visit(visit))
    }
}

impl<L: Layer + ?Sized> Layer for Box<L> {
    fn visit(&mut self, visit: Visit) -> Result<()> {
        (**self).visit(visit)
    }
}

/// Implements [`Layer`] for a struct by the fields that hold weights.
macro_rules! layers {
    ($($name:ty { $($field:ident),+ })+) => {
        $(impl $crate::nn::Layer for $name {
            fn visit(&mut self, visit: $crate::nn::Visit) -> $crate::error::Result<()> {
                $($crate::nn::Layer::visit(&mut self.$field, visit)?;)+
                Ok(())
            }
        })+
    };
}
pub(crate) use layers;

/// A network with its trainable weights.
#[derive(Debug)]
pub struct Trained<N> {
    pub network: N,
    pub parameters: Vec<Parameter>,
}

impl<N: Layer> Trained<N> {
    /// `network` and what was gathered while it was loaded.
    ///
    /// # Errors
    /// The network does not show a weight that was gathered, which would then never be refreshed.
    pub fn new(mut network: N, gathered: Gathered) -> Result<Self> {
        let parameters = gathered.0.into_inner();
        let mut shown = std::collections::BTreeSet::new();
        network.visit(&mut |slot| {
            shown.extend(slot.node());
            Ok(())
        })?;
        match parameters.iter().find(|parameter| !shown.contains(&parameter.node)) {
            None => Ok(Trained { network, parameters }),
            Some(hidden) => Err(Error::internal(format!("a network hides its weight {:?}", hidden.names))),
        }
    }

    /// Makes `tape` give the gradient of every parameter.
    pub fn watch(&self, tape: &Tape) {
        self.parameters.iter().for_each(|parameter| tape.watch(parameter.node));
    }

    /// Brings the network's weights up to date with the masters.
    ///
    /// # Errors
    /// A tape that was not run still holds a weight.
    pub fn refresh(&mut self, cx: &Cx) -> Result<()> {
        let masters: BTreeMap<NodeId, &Tensor> =
            self.parameters.iter().map(|parameter| (parameter.node, &parameter.master)).collect();
        self.network.visit(&mut |slot| match slot.node().and_then(|node| masters.get(&node)) {
            Some(master) => slot.refresh(cx, master),
            None => Ok(()),
        })
    }
}
