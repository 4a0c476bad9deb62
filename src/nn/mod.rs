//! Layers that hold weights, loaded by prefix under the names that checkpoints use.

mod layers;
mod scope;

pub use layers::{Conv, GroupNorm, LayerNorm, Linear};
pub use scope::{Scope, Source};
