//! A network that learns: its masters, the gradients gathered so far, AdamW's moments.

use crate::autograd::Gradients;
use crate::device::Purpose;
use crate::error::{Error, Result};
use crate::nn::{self, Layer, Trained};
use crate::ops::adamw::{AdamW, Parameter, Scaling, adamw, gradient_norm};
use crate::ops::{Cx, sum};
use crate::tensor::{DType, Tensor, TensorMut};

/// AdamW's running means of one parameter, f32, shaped like its master.
#[derive(Debug)]
pub struct Moments {
    pub first: Tensor,
    pub second: Tensor,
}

/// What a checkpoint of a training holds for every parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Master,
    First,
    Second,
}

/// A tensor of a checkpoint, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Exported {
    pub name: String,
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

/// A network in training.
#[derive(Debug)]
pub struct Learner<N> {
    pub trained: Trained<N>,
    moments: Vec<Moments>,
    /// of the batches since the last update; `None` where nothing arrived
    gradients: Vec<Option<Tensor>>,
    batches: usize,
    steps: u64,
}

impl<N: Layer> Learner<N> {
    /// Starts with moments of zero.
    pub fn new(cx: &Cx, trained: Trained<N>) -> Result<Self> {
        let zeros = |like: &Tensor| -> Result<Tensor> {
            let mut made = TensorMut::allocate(cx.device(), like.shape(), DType::F32, Purpose::Weight)?;
            made.clear()?;
            Ok(made.freeze())
        };
        let moments = trained
            .parameters
            .iter()
            .map(|p| Ok(Moments { first: zeros(&p.master)?, second: zeros(&p.master)? }))
            .collect::<Result<_>>()?;
        let gradients = trained.parameters.iter().map(|_| None).collect();
        Ok(Learner { trained, moments, gradients, batches: 0, steps: 0 })
    }

    /// Updates made so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Takes this network's gradients out of `found` and adds them to those of earlier batches.
    ///
    /// # Errors
    /// A gradient does not fit its parameter.
    pub fn accumulate(&mut self, cx: &Cx, found: &mut Gradients) -> Result<()> {
        for (parameter, total) in self.trained.parameters.iter().zip(&mut self.gradients) {
            let Some(gradient) = found.take_named(parameter.node()) else { continue };
            if gradient.shape().count() != parameter.master.shape().count() {
                return Err(Error::internal(format!("{:?} got {}", parameter.names(), gradient.shape())));
            }
            let gradient = gradient.reshape(parameter.master.shape())?;
            *total = Some(match total.take() {
                None => gradient,
                Some(before) => sum(cx, before, gradient)?,
            });
        }
        self.batches += 1;
        Ok(())
    }

    /// The gradients gathered so far, parameter by parameter, added up over the batches.
    pub fn gradients(&self) -> &[Option<Tensor>] {
        &self.gradients
    }

    /// One update with the mean of the gradients over the batches gathered, whose global norm is limited to `limit`;
    /// -> the norm before that. Forgets the gradients.
    ///
    /// # Errors
    /// No gradients were gathered.
    pub fn update(&mut self, cx: &Cx, settings: &AdamW, limit: Option<f32>) -> Result<f32> {
        if self.batches == 0 {
            return Err(Error::internal("an update without gradients"));
        }
        let scale = 1.0 / self.batches as f32;
        let gradients = std::mem::take(&mut self.gradients);
        let given: Vec<&Tensor> = gradients.iter().flatten().collect();
        let norm = gradient_norm(cx, &given, scale)?;
        let states = self.trained.parameters.iter_mut().zip(&mut self.moments).zip(&gradients);
        // A parameter that nothing depended on stays as it is.
        let mut parameters: Vec<Parameter> = states
            .filter_map(|((parameter, moments), gradient)| {
                Some(Parameter {
                    master: &mut parameter.master,
                    first: &mut moments.first,
                    second: &mut moments.second,
                    gradient: gradient.as_ref()?,
                    copy: None,
                })
            })
            .collect();
        let scaling = Scaling { scale, limit: limit.map(|limit| (limit, &norm)) };
        adamw(cx, &mut parameters, settings, &scaling, self.steps + 1)?;
        self.steps += 1;
        self.forget();
        self.trained.refresh(cx)?;
        Ok(norm.to_f32()?.first().copied().unwrap_or_default())
    }

    /// Drops the gradients gathered so far.
    pub fn forget(&mut self) {
        self.gradients = self.trained.parameters.iter().map(|_| None).collect();
        self.batches = 0;
    }

    /// The tensors of a checkpoint: every parameter's `state` under the parameter's names.
    pub fn export(&self, state: State) -> Result<Vec<Exported>> {
        let mut tensors = Vec::new();
        for (parameter, moments) in self.trained.parameters.iter().zip(&self.moments) {
            let whole = match state {
                State::Master => &parameter.master,
                State::First => &moments.first,
                State::Second => &moments.second,
            };
            let shape = parameter.part_shape();
            for (name, part) in parameter.parts(whole)? {
                let (name, shape) = (name.to_owned(), shape.clone());
                tensors.push(Exported { name, shape, values: part.to_f32()? });
            }
        }
        Ok(tensors)
    }

    /// Takes masters and moments as [`Learner::export`] gave them, by name, and the number of updates made.
    ///
    /// # Errors
    /// `read` has not got a tensor.
    pub fn restore(
        &mut self,
        cx: &Cx,
        steps: u64,
        mut read: impl FnMut(State, &str, &[usize]) -> Result<Vec<f32>>,
    ) -> Result<()> {
        for (parameter, moments) in self.trained.parameters.iter_mut().zip(&mut self.moments) {
            let shape = parameter.part_shape();
            for state in [State::Master, State::First, State::Second] {
                let mut values = Vec::new();
                for name in parameter.names() {
                    values.extend(read(state, name, &shape)?);
                }
                let whole = match state {
                    State::Master => &mut parameter.master,
                    State::First => &mut moments.first,
                    State::Second => &mut moments.second,
                };
                *whole =
                    Tensor::from_f32_as(cx.device(), &values, whole.shape(), DType::F32, Purpose::Weight)?;
            }
        }
        self.steps = steps;
        self.forget();
        self.trained.refresh(cx)
    }
}

/// Reads a tensor of a checkpoint.
pub type Read<'a> = dyn FnMut(State, &str, &[usize]) -> Result<Vec<f32>> + 'a;

/// A network in training, whichever it is; see [`Learner`].
pub trait Learning {
    fn parameters(&self) -> &[nn::Parameter];
    fn steps(&self) -> u64;
    fn accumulate(&mut self, cx: &Cx, found: &mut Gradients) -> Result<()>;
    fn update(&mut self, cx: &Cx, settings: &AdamW, limit: Option<f32>) -> Result<f32>;
    fn export(&self, state: State) -> Result<Vec<Exported>>;
    fn restore(&mut self, cx: &Cx, steps: u64, read: &mut Read) -> Result<()>;
}

impl<N: Layer> Learning for Learner<N> {
    fn parameters(&self) -> &[nn::Parameter] {
        &self.trained.parameters
    }

    fn steps(&self) -> u64 {
        self.steps
    }

    fn accumulate(&mut self, cx: &Cx, found: &mut Gradients) -> Result<()> {
        Learner::accumulate(self, cx, found)
    }

    fn update(&mut self, cx: &Cx, settings: &AdamW, limit: Option<f32>) -> Result<f32> {
        Learner::update(self, cx, settings, limit)
    }

    fn export(&self, state: State) -> Result<Vec<Exported>> {
        Learner::export(self, state)
    }

    fn restore(&mut self, cx: &Cx, steps: u64, read: &mut Read) -> Result<()> {
        Learner::restore(self, cx, steps, read)
    }
}
