//! The whole system: stage 1, autoencoder, guided sampling, autoencoder, colour fix; tiles, batches, memory.

mod coder;
mod denoise;
mod denoiser;
pub mod memory;
mod options;
pub mod progress;
mod recorded;
mod run;
mod stage;
mod stage1;
pub mod synthetic_files;
mod system;
mod text;
mod trace;

pub use denoiser::{Conditions, Denoiser, Networks, Steering, Watch};
pub use options::{ColorFix, Options, Tile};
pub use run::{Pipeline, Upscaled};
pub use stage::Stage;
pub use system::{AdapterChoice, FILE_NAMES, Sampler, System, Weights, find_in};
pub use text::TextFeatures;
pub use trace::{NoTrace, Rows, Trace, TraceFile};
