//! The whole system: stage 1, autoencoder, guided sampling, autoencoder, colour fix; tiles, batches, memory.

mod coder;
mod denoise;
pub mod memory;
mod options;
pub mod progress;
mod run;
mod stage1;
pub mod synthetic_files;
mod system;
mod text;
mod trace;

pub use denoise::{Conditions, Denoiser, Networks, Steering, Watch};
pub use options::{ColorFix, Options, Tile};
pub use run::{Pipeline, Upscaled};
pub use system::{AdapterChoice, FILE_NAMES, System, Weights, check_device, find_in};
pub use text::TextFeatures;
pub use trace::{NoTrace, Rows, Trace, TraceFile};
