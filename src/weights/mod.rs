//! Checkpoints: files and tensor names, without any device or network.
//!
//! A [`Checkpoint`] is a set of named tensors that lie in mapped files (safetensors or PyTorch zip) and
//! are converted only when a layer asks for them. [`names`] brings every published naming to one
//! canonical form, [`Report`] gathers what a network misses, [`write`] makes new files, [`synthetic`]
//! makes weights that are pure functions of their names and [`identify`] tells what a file is.

mod checkpoint;
mod convert;
mod detect;
mod dtype;
mod entry;
mod expected;
mod folder;
pub mod identify;
mod mapping;
pub mod mini;
pub mod names;
mod report;
mod safetensors_file;
mod sources;
pub mod space;
pub mod synthetic;
mod torch;
pub mod write;

pub use checkpoint::{Checkpoint, Skipped};
pub use convert::Float;
pub use dtype::Dtype;
pub use entry::TensorEntry;
pub use report::Report;
pub use sources::{CheckpointSource, Manifest, SyntheticSource};
