//! What every op is given: the device and, while training, the tape.

use std::any::Any;
use std::fmt;
use std::rc::Rc;

use super::tape::{Gradients, Tape};
use crate::device::{Device, Purpose, Target};
use crate::error::{Error, Result};
use crate::tensor::{DType, Shape, Tensor, TensorMut};

/// Receives a call of an op, whose type the ops know.
type Receive = dyn Fn(&dyn Any);

/// Is told of every call of an op.
#[derive(Clone)]
struct Observer(Rc<Receive>);

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}

/// The context of a computation.
#[derive(Clone, Debug)]
pub struct Cx {
    device: Device,
    dtype: DType,
    tape: Option<Rc<Tape>>,
    checkpointing: bool,
    observer: Option<Observer>,
}

impl Cx {
    /// A context for inference whose networks store weights and activations as `dtype`.
    ///
    /// # Errors
    /// The device does not compute in `dtype`.
    pub fn new(device: Device, dtype: DType) -> Result<Self> {
        if device.target() == Target::Cpu && dtype == DType::F16 {
            return Err(Error::usage(format!("the cpu device does not compute in {}", dtype.name()))
                .at("--dtype")
                .fix("give f32, bf16 or auto"));
        }
        Ok(Cx { device, dtype, tape: None, checkpointing: false, observer: None })
    }

    /// The same without a tape: what is computed is not recorded.
    pub fn without_tape(&self) -> Self {
        Cx { tape: None, ..self.clone() }
    }

    /// The same, telling `observer` of every call of an op.
    pub fn observed(&self, observer: impl Fn(&dyn Any) + 'static) -> Self {
        Cx { observer: Some(Observer(Rc::new(observer))), ..self.clone() }
    }

    /// Tells the observer, if there is one, of a call.
    pub fn note<C: Any>(&self, call: impl FnOnce() -> C) {
        if let Some(Observer(observer)) = &self.observer {
            observer(&call());
        }
    }

    /// The same with networks that store `dtype`, which the device computes in.
    pub fn with_dtype(&self, dtype: DType) -> Self {
        Cx { dtype, ..self.clone() }
    }

    /// The same device with a fresh tape.
    pub fn with_tape(&self) -> Self {
        Cx { tape: Some(Rc::default()), ..self.clone() }
    }

    /// The same with a tape for a part of the computation, which differentiates what the present one does.
    pub fn with_inner_tape(&self) -> Self {
        Cx { tape: self.tape.clone().map(|tape| Rc::new(Tape::within(tape))), ..self.clone() }
    }

    /// The same with a tape for a part of the computation that `gradients` belong to, computed again.
    pub fn with_tape_within(&self, gradients: &Gradients) -> Self {
        Cx { tape: Some(Rc::new(Tape::within(gradients.tape().clone()))), ..self.clone() }
    }

    /// The same, recomputing in the backward pass what `ops::checkpoint` wraps instead of
    /// keeping it.
    pub fn with_checkpointing(&self, checkpointing: bool) -> Self {
        Cx { checkpointing, ..self.clone() }
    }

    /// True when blocks are recomputed in the backward pass.
    pub fn checkpointing(&self) -> bool {
        self.checkpointing && self.tape.is_some()
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// How networks store weights and activations. Outside networks everything is f32.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    pub fn tape(&self) -> Option<&Rc<Tape>> {
        self.tape.as_ref()
    }

    /// Activation memory for an op's result.
    pub fn allocate(&self, shape: impl Into<Shape>, dtype: DType) -> Result<TensorMut> {
        TensorMut::allocate(&self.device, shape, dtype, Purpose::Activation)
    }

    /// True when an op must record its backward for these inputs.
    pub fn tracks(&self, inputs: &[&Tensor]) -> bool {
        let Some(tape) = &self.tape else { return false };
        inputs.iter().any(|input| input.node().is_some_and(|node| tape.tracks(node)))
    }

    /// Records `backward` for `result` if any of `inputs` is differentiated, and returns the result as
    /// a value of the tape. `backward` gets the result's gradient and adds to its inputs' gradients.
    pub fn record(
        &self,
        inputs: &[&Tensor],
        result: Tensor,
        backward: impl FnOnce(&Cx, &Tensor, &mut Gradients) -> Result<()> + 'static,
    ) -> Tensor {
        match &self.tape {
            Some(tape) if self.tracks(inputs) => tape.record(result, Box::new(backward)),
            _ => result,
        }
    }

    /// Refuses to lose a gradient silently: for an op whose result is never differentiated.
    pub fn constant(&self, op: &str, inputs: &[&Tensor], result: Tensor) -> Result<Tensor> {
        if self.tracks(inputs) {
            return Err(Error::internal(format!("{op} cannot be differentiated")));
        }
        Ok(result)
    }
}
