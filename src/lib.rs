//! Timestep-aware diffusion super-resolution (TASR): networks, sampler, weights and devices.
//!
//! The layers and the direction of their imports are described in `docs/architecture.md`.

pub mod error;

pub mod device;
pub mod tensor;

pub mod autograd;
pub mod ops;

pub mod nn;

pub mod image;
pub mod models;
pub mod sampler;
pub mod weights;

pub mod metrics;
pub mod pipeline;
pub mod scenes;

pub mod train;

pub mod cli;
