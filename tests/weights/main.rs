//! Checkpoint files: containers, names, identities, synthetic values, writing.

mod containers;
mod names;
mod support;
mod synthetic;
mod torch;
mod write;
