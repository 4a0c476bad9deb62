//! What is built from the ops' backwards: activation checkpointing.

#[path = "../support/mod.rs"]
mod support;

mod checkpoint;
