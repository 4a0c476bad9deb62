//! Layers that hold weights, loaded by prefix under the names that checkpoints use.

mod layers;
mod parameters;
mod scope;
mod variant;

pub use layers::{Conv, GroupNorm, LayerNorm, Linear};
pub(crate) use parameters::layers;
pub use parameters::{Gathered, Layer, Parameter, Slot, Trained, Visit};
pub use scope::{Scope, Source};
pub use variant::Variant;
