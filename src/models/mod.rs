//! The networks, written once over `ops` and `nn` for every device. Tensor names are those of the
//! published checkpoints, sizes are read off tensor shapes.

pub mod adapters;
pub mod clip;
pub mod config;
pub mod controlnet;
pub mod flops;
pub mod rrdbnet;
pub mod swinir;
pub mod text;
pub mod unet;
pub mod vae;

pub use crate::nn::Variant;
pub use adapters::Adapters;
pub use config::{Conditioning, DenoiserConfig, RrdbConfig, SwinConfig, TextConfig, VaeConfig};
pub use controlnet::ControlNet;
pub use rrdbnet::RrdbNet;
pub use swinir::SwinIr;
pub use unet::UNet;
pub use vae::Vae;
