//! What is built from the ops' backwards: activation checkpointing, and networks that learn.

#[path = "../support/mod.rs"]
mod support;

mod checkpoint;
mod learning;
