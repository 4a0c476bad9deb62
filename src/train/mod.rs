//! Fine-tuning: data and its degradation, objectives, the optimizer, the loop.

pub mod config;
pub mod data;
pub mod degrade;
pub mod log;
