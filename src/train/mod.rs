//! Fine-tuning: data and its degradation, objectives, the optimizer, the loop.

pub mod degrade;
