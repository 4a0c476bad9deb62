//! From a prompt to the features that steer the sampler.

pub mod cleanup;
pub mod tokenizer;
