//! The tape and the gradients that running it backwards gives.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;

use super::Cx;
use crate::error::{Error, Result};
use crate::tensor::{NodeId, Tensor};

/// Turns the gradient of an op's result into gradients of its inputs.
pub type Backward = Box<dyn FnOnce(&Cx, &Tensor, &mut Gradients) -> Result<()>>;

/// Closures in the order in which their results were computed.
#[derive(Default)]
pub struct Tape {
    next: Cell<NodeId>,
    steps: RefCell<Vec<(NodeId, Backward)>>,
}

impl Tape {
    fn fresh(&self) -> NodeId {
        let node = self.next.get();
        self.next.set(node + 1);
        node
    }

    /// `tensor` as a value whose gradient is wanted.
    pub fn variable(&self, tensor: &Tensor) -> Tensor {
        tensor.with_node(Some(self.fresh()))
    }

    /// `result` as a value computed by an op with this `backward`.
    pub fn record(&self, result: Tensor, backward: Backward) -> Tensor {
        let node = self.fresh();
        self.steps.borrow_mut().push((node, backward));
        result.with_node(Some(node))
    }

    /// Runs the tape backwards from `of`, whose gradient is `seed`. Empties the tape.
    ///
    /// # Errors
    /// `of` was not computed on a tape, or a backward failed.
    pub fn backward(&self, cx: &Cx, of: &Tensor, seed: Tensor) -> Result<Gradients> {
        let node =
            of.node().ok_or_else(|| Error::internal("the loss depends on nothing that is differentiated"))?;
        let mut gradients = Gradients { by_node: HashMap::from([(node, seed)]) };
        // Backwards compute on plain tensors: nothing they do is recorded again.
        let plain = cx.without_tape();
        let mut steps = self.steps.take();
        while let Some((node, backward)) = steps.pop() {
            if let Some(gradient) = gradients.by_node.remove(&node) {
                backward(&plain, &gradient, &mut gradients)?;
            }
        }
        Ok(gradients)
    }
}

impl fmt::Debug for Tape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tape({} steps)", self.steps.borrow().len())
    }
}

/// Gradients by value of the tape; what is left after the run are those of the variables.
#[derive(Debug, Default)]
pub struct Gradients {
    by_node: HashMap<NodeId, Tensor>,
}

impl Gradients {
    /// The gradient of `value`, if anything reached it.
    pub fn of(&self, value: &Tensor) -> Option<&Tensor> {
        self.by_node.get(&value.node()?)
    }

    /// Takes what reached `value` so far, so that an op can add to it.
    pub fn take(&mut self, value: &Tensor) -> Option<Tensor> {
        self.by_node.remove(&value.node()?)
    }

    /// Writes the gradient of `value`; nothing happens when it is not differentiated.
    pub fn put(&mut self, value: &Tensor, gradient: Tensor) {
        if let Some(node) = value.node() {
            self.by_node.insert(node, gradient);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;

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

    #[test]
    fn gradients_of_a_value_used_twice_add_up() {
        let cx = Cx::new(Device::cpu(), crate::tensor::DType::F32).unwrap().with_tape();
        let tape = cx.tape().unwrap();
        let x = tape.variable(&Tensor::from_f32(cx.device(), &[1.0, 2.0], [2]).unwrap());
        let y = scaled(&cx, &scaled(&cx, &x, 3.0), 5.0);
        let unused = scaled(&cx, &x, 100.0);
        let seed = Tensor::from_f32(cx.device(), &[1.0, -1.0], [2]).unwrap();
        let gradients = tape.backward(&cx, &y, seed).unwrap();
        assert_eq!(gradients.of(&x).unwrap().to_f32().unwrap(), [15.0, -15.0]);
        assert!(gradients.of(&unused).is_none());
        let constant = Tensor::from_f32(cx.device(), &[1.0], [1]).unwrap();
        assert!(scaled(&cx, &constant, 2.0).node().is_none());
        assert!(tape.backward(&cx, &constant, constant.clone()).is_err());
    }
}
