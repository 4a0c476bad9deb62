//! Fine-tuning: data and its degradation, objectives, the optimizer, the loop.
//!
//! One update of a network:
//!
//! 1. Load it under `Scope::training(&gathered)`, wrap it in `nn::Trained::new(network, gathered)` and that in
//!    [`optimizer::Learner`]; the frozen ones ([`step::Frozen`]) are loaded as ever.
//! 2. Make a [`step::Batch`] (`Frozen::latent`, `hint`, `context`: no gradients, so they can be cached).
//! 3. [`step::step`] gives losses and gradients for a [`step::Plan`]: which networks learn, and the
//!    [`objective::Objective`], from `Recipe::objective(part)` or put together by hand.
//! 4. `Learner::accumulate` takes the gradients, once or for several batches; `Learner::update` clips their norm,
//!    runs AdamW on the masters and packs the network's weights again.
//!
//! `Learner::export` and `restore` carry masters and moments to and from a checkpoint, bit for bit. A [`step::Reward`]
//! judges the decoded images; it records on the tape what it computes.

mod batch;
mod cache;
mod checkpoint;
pub mod config;
pub mod data;
pub mod degrade;
mod ema;
pub mod estimate;
mod init;
mod lesson;
pub mod log;
pub mod loss;
pub mod objective;
pub mod optimizer;
pub mod probe;
pub mod run;
pub mod step;
mod system;
mod validate;
