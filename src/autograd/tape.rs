//! The tape and the gradients that running it backwards gives.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Cx;
use crate::error::{Error, Result};
use crate::tensor::{NodeId, Shape, Tensor};

/// Turns the gradient of an op's result into gradients of its inputs.
pub type Backward = Box<dyn FnOnce(&Cx, &Tensor, &mut Gradients) -> Result<()>>;

/// Values have names that no other value of the process has: what one tape recorded means nothing to another.
static NEXT: AtomicUsize = AtomicUsize::new(0);

fn fresh() -> NodeId {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A name for a value that outlives tapes: a trainable weight. A tape differentiates it after
/// [`Tape::watch`].
pub fn variable() -> NodeId {
    fresh()
}

struct Step {
    node: NodeId,
    /// of the result; its gradient may come back under another view
    shape: Shape,
    backward: Backward,
}

/// Closures in the order in which their results were computed.
pub struct Tape {
    /// what is named from here on was computed on this tape
    first: NodeId,
    variables: RefCell<BTreeSet<NodeId>>,
    /// the tape of the computation that this one is a part of
    parent: Option<Rc<Tape>>,
    steps: RefCell<Vec<Step>>,
}

impl Default for Tape {
    fn default() -> Self {
        Tape { first: fresh(), variables: RefCell::default(), parent: None, steps: RefCell::default() }
    }
}

impl Tape {
    /// A tape for a part of the computation on `parent`: what that differentiates, this does.
    pub fn within(parent: Rc<Tape>) -> Self {
        Tape { parent: Some(parent), ..Self::default() }
    }

    /// `tensor` as a value whose gradient is wanted.
    pub fn variable(&self, tensor: &Tensor) -> Tensor {
        let node = fresh();
        self.watch(node);
        tensor.with_node(Some(node))
    }

    /// Wants the gradient of a value that was named before the tape was.
    pub fn watch(&self, variable: NodeId) {
        self.variables.borrow_mut().insert(variable);
    }

    /// True when the gradient of `node` is wanted: it is a variable of this tape, or computed from one.
    pub fn tracks(&self, node: NodeId) -> bool {
        node >= self.first
            || self.variables.borrow().contains(&node)
            || self.parent.as_ref().is_some_and(|parent| parent.tracks(node))
    }

    /// `result` as a value computed by an op with this `backward`.
    pub fn record(&self, result: Tensor, backward: Backward) -> Tensor {
        let node = fresh();
        self.steps.borrow_mut().push(Step { node, shape: result.shape(), backward });
        result.with_node(Some(node))
    }

    /// Runs the tape backwards from the values in `seeds`, each with its gradient. Empties the tape.
    ///
    /// # Errors
    /// None of the values was computed on a tape, or a backward failed.
    pub fn backward(self: &Rc<Self>, cx: &Cx, seeds: Vec<(&Tensor, Tensor)>) -> Result<Gradients> {
        let mut gradients = Gradients { by_node: BTreeMap::new(), tape: self.clone() };
        for (value, seed) in seeds {
            if gradients.of(value).is_some() {
                return Err(Error::internal("a value is given two gradients"));
            }
            gradients.put(value, seed);
        }
        if gradients.by_node.is_empty() {
            return Err(Error::internal("the loss depends on nothing that is differentiated"));
        }
        self.run(cx, &mut gradients)?;
        Ok(gradients)
    }

    /// Runs the tape of a part of a computation backwards within `gradients`, which hold that of `of`: sums are
    /// taken in the order in which one tape would take them.
    pub fn backward_within(
        &self,
        cx: &Cx,
        of: &Tensor,
        seed: Tensor,
        gradients: &mut Gradients,
    ) -> Result<()> {
        gradients.put(of, seed);
        self.run(cx, gradients)
    }

    fn run(&self, cx: &Cx, gradients: &mut Gradients) -> Result<()> {
        // Backwards compute on plain tensors: nothing they do is recorded again.
        let plain = cx.without_tape();
        let mut steps = self.steps.take();
        while let Some(Step { node, shape, backward }) = steps.pop() {
            if let Some(gradient) = gradients.by_node.remove(&node) {
                backward(&plain, &gradient.reshape(shape)?, gradients)?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Tape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tape({} steps)", self.steps.borrow().len())
    }
}

/// Gradients by value of the tape; what is left after the run are those of the variables.
#[derive(Debug)]
pub struct Gradients {
    by_node: BTreeMap<NodeId, Tensor>,
    tape: Rc<Tape>,
}

impl Gradients {
    /// True when an op has to compute the gradient of `value`.
    pub fn wants(&self, value: &Tensor) -> bool {
        value.node().is_some_and(|node| self.tape.tracks(node))
    }

    /// The tape that is being run backwards.
    pub(super) fn tape(&self) -> &Rc<Tape> {
        &self.tape
    }

    /// The gradient of `value`, if anything reached it.
    pub fn of(&self, value: &Tensor) -> Option<&Tensor> {
        self.by_node.get(&value.node()?)
    }

    /// Takes what reached `value` so far, so that an op can add to it.
    pub fn take(&mut self, value: &Tensor) -> Option<Tensor> {
        self.by_node.remove(&value.node()?)
    }

    /// Takes the gradient of the value that tapes call `node`.
    pub fn take_named(&mut self, node: NodeId) -> Option<Tensor> {
        self.by_node.remove(&node)
    }

    /// Writes the gradient of `value`; nothing happens when it is not differentiated.
    pub fn put(&mut self, value: &Tensor, gradient: Tensor) {
        if let Some(node) = value.node().filter(|node| self.tape.tracks(*node)) {
            self.by_node.insert(node, gradient);
        }
    }

    /// All gradients by the names of their values.
    pub fn named(&self) -> impl Iterator<Item = (NodeId, &Tensor)> {
        self.by_node.iter().map(|(node, gradient)| (*node, gradient))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::tensor::DType;

    /// `a * k`, with the gradient added to what is there.
    fn scaled(cx: &Cx, a: &Tensor, k: f32) -> Tensor {
        let values: Vec<f32> = a.to_f32().unwrap().iter().map(|v| v * k).collect();
        let result = Tensor::from_f32(cx.device(), &values, a.shape()).unwrap();
        let input = a.clone();
        cx.record(&[a], result, move |cx, gradient, gradients| {
            let mut sum: Vec<f32> = gradient.to_f32()?.iter().map(|v| v * k).collect();
            if let Some(before) = gradients.take(&input) {
                sum.iter_mut().zip(before.to_f32()?).for_each(|(s, b)| *s += b);
            }
            gradients.put(&input, Tensor::from_f32(cx.device(), &sum, input.shape())?);
            Ok(())
        })
    }

    fn taped() -> Cx {
        Cx::new(Device::cpu(), DType::F32).unwrap().with_tape()
    }

    fn pair(cx: &Cx, a: f32, b: f32) -> Tensor {
        Tensor::from_f32(cx.device(), &[a, b], [2]).unwrap()
    }

    #[test]
    fn gradients_of_a_value_used_twice_add_up() {
        let cx = taped();
        let tape = cx.tape().unwrap();
        let x = tape.variable(&pair(&cx, 1.0, 2.0));
        let y = scaled(&cx, &scaled(&cx, &x, 3.0), 5.0);
        let z = scaled(&cx, &x, 2.0).reshape([2, 1]).unwrap();
        let unused = scaled(&cx, &x, 100.0);
        let seeds = vec![(&y, pair(&cx, 1.0, -1.0)), (&z, pair(&cx, 0.5, 0.0).reshape([2, 1]).unwrap())];
        let gradients = tape.backward(&cx, seeds).unwrap();
        assert_eq!(gradients.of(&x).unwrap().to_f32().unwrap(), [16.0, -15.0]);
        assert!(gradients.of(&unused).is_none());
        let constant = pair(&cx, 1.0, 1.0);
        assert!(scaled(&cx, &constant, 2.0).node().is_none());
        assert!(tape.backward(&cx, vec![(&constant, constant.clone())]).is_err());
    }

    #[test]
    fn a_tape_differentiates_the_variables_it_watches_and_no_others() {
        let cx = taped();
        let (watched, other) = (super::variable(), super::variable());
        let (a, b) =
            (pair(&cx, 1.0, 2.0).with_node(Some(watched)), pair(&cx, 3.0, 4.0).with_node(Some(other)));
        let cx = cx.with_tape();
        let tape = cx.tape().unwrap();
        tape.watch(watched);
        assert!(scaled(&cx, &b, 2.0).node().is_none());
        let y = scaled(&cx, &a, 2.0);
        let inner = cx.with_inner_tape();
        let z = scaled(&inner, &y, 3.0);
        let inner_tape = inner.tape().unwrap();
        let found = inner_tape.backward(&inner, vec![(&z, pair(&cx, 1.0, 1.0))]).unwrap();
        assert_eq!(found.of(&y).unwrap().to_f32().unwrap(), [3.0, 3.0]);
        let before = scaled(&cx, &a, 1.0);
        let later = cx.with_tape();
        assert!(scaled(&later, &before, 2.0).node().is_none(), "a value of an earlier tape is a constant");
    }
}
