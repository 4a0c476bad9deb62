//! The stages of a run that have networks, each with an element type of its own: half precision has a short range, so a
//! stage whose values overflow it is loaded again in a wider type.

use std::cell::RefCell;
use std::rc::Rc;

use super::denoise::not_finite;
use super::run::Pipeline;
use super::system::Weights;
use crate::device::Target;
use crate::error::{Error, Result};
use crate::ops::Cx;
use crate::ops::finite::is_finite;
use crate::tensor::{DType, Tensor};

/// The networks of a stage, and how they are loaded.
pub struct Stage<T> {
    /// what messages call it
    name: &'static str,
    load: fn(&Weights, &Cx) -> Result<T>,
    /// none while they are loaded again
    held: RefCell<(Option<Rc<T>>, DType)>,
}

impl<T> Stage<T> {
    pub(super) fn new(
        name: &'static str,
        load: fn(&Weights, &Cx) -> Result<T>,
        network: T,
        dtype: DType,
    ) -> Self {
        Stage { name, load, held: RefCell::new((Some(Rc::new(network)), dtype)) }
    }

    /// The networks.
    ///
    /// # Errors
    /// They could not be loaded again.
    pub fn get(&self) -> Result<Rc<T>> {
        self.held.borrow().0.clone().ok_or_else(|| Error::internal(format!("{} has no networks", self.name)))
    }

    /// The element type that they compute in.
    pub fn dtype(&self) -> DType {
        self.held.borrow().1
    }
}

/// What has the range that `dtype` lacks: bf16 for f16, in the same memory, and f32 for bf16, with more digits too.
pub fn wider(dtype: DType) -> Option<DType> {
    match dtype {
        DType::F16 => Some(DType::BF16),
        DType::BF16 => Some(DType::F32),
        DType::F32 => None,
    }
}

/// One line about a stage that computes in another type from here on.
pub fn fallback_note(stage: &str, from: DType, to: DType) -> String {
    format!("{stage}: values leave the range of {}, it computes in {} from here on", from.name(), to.name())
}

impl Pipeline<'_> {
    /// The result of `work` with the networks of `stage`, in a wider type if it is not finite.
    ///
    /// # Errors
    /// Those of `work`; no type makes the result finite; a trace, which is of one type, is being taken.
    pub(super) fn in_stage<T>(
        &mut self,
        stage: &Stage<T>,
        mut work: impl FnMut(&mut Self, &Cx, &T) -> Result<Tensor>,
    ) -> Result<Tensor> {
        loop {
            let cx = self.cx.with_dtype(stage.dtype());
            let result = work(self, &cx, &*stage.get()?)?;
            if cx.device().is_plan() || is_finite(self.cx, &result)? {
                return Ok(result);
            }
            let next =
                wider(cx.dtype()).filter(|_| cx.device().target() == Target::Gpu && !self.trace.is_on());
            let Some(next) = next else { return Err(not_finite(stage.name)) };
            drop(result);
            self.progress.note(&fallback_note(stage.name, cx.dtype(), next));
            // The old weights make room for the new.
            stage.held.borrow_mut().0 = None;
            cx.device().trim();
            let network = (stage.load)(self.system.weights(), &cx.with_dtype(next))?;
            *stage.held.borrow_mut() = (Some(Rc::new(network)), next);
        }
    }
}
