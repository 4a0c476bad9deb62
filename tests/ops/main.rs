//! Every op against its oracle, odd shapes first.

#[path = "../support/mod.rs"]
mod support;

mod adapter_gate;
mod attention;
mod conv2d;
mod diffusion;
mod elementwise;
mod embedding;
mod group_norm;
mod layer_norm;
mod linear;
mod pixel_unshuffle;
mod resize;
mod tiles;
mod wavelet;
mod window_attention;
