//! The fused operations that networks are made of. One folder an op: `mod.rs` holds the contract (shapes,
//! formula, checks), `cpu.rs` the CPU side, `cuda.rs` the launches of its kernels, which `plan.rs` sizes.
//!
//! Images are [N, H, W, C], token matrices [N, L, C]. Concatenation along C is a list of [`Segments`] that
//! ops read in place.

mod accumulate;
mod activation;
mod checkpoint;
mod columns;
mod epilogue;
mod gpu;
pub(crate) mod host;
mod segments;
mod specialised;
mod weights;
mod widened;

pub mod adamw;
pub mod adapter_gate;
pub mod attention;
pub mod average_pool;
pub mod calls;
pub mod conv2d;
pub mod diffusion;
pub mod elementwise;
pub mod embedding;
pub mod finite;
pub mod group_norm;
pub mod layer_norm;
pub mod linear;
mod pixel_blocks;
pub mod pixel_unshuffle;
pub mod resize;
pub mod sums;
pub mod tiles;
pub mod tokens;
pub mod wavelet;
pub mod window_attention;

pub use crate::autograd::Cx;
pub use accumulate::{Accumulate, sum};
pub use activation::Activation;
pub use checkpoint::{checkpoint, checkpoint_with};
pub use epilogue::{Epilogue, OwnedEpilogue};
pub use segments::{OwnedSegments, Segment, Segments};
pub use weights::overwrite;
