//! Degradations that make low-resolution pictures for training: the second-order pipeline of Real-ESRGAN, and the
//! one of the published configuration. A degraded picture is a pure function of (seed, epoch, picture).
//!
//! One file a stage: [`kernels`], [`filter`](mod@filter), [`usm`], [`resize`](mod@resize), [`noise`], [`jpeg`]; the recipes put them together.

mod codeformer;
mod crop;
pub mod filter;
mod image;
pub mod jpeg;
pub mod kernels;
pub mod noise;
mod realesrgan;
mod recipe;
pub mod resize;
pub mod usm;

pub use crate::sampler::Random;
pub use codeformer::{CodeFormer, Plan as CodeFormerPlan};
pub use crop::Crop;
pub use image::Image;
pub use realesrgan::{NoiseDraw, Pass, PassDraw, Plan as RealEsrganPlan, RealEsrgan};
pub use recipe::{NAMES, Recipe};

/// A target and what the network is to restore it from.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    pub high: Image,
    pub low: Image,
}
