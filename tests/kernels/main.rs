//! Every kernel against the CPU side of its op, on the emulator, or with TASR_TEST_DEVICE=cuda on a GPU.

mod attention;
mod conv;
mod detectors;
mod detectors_sm90;
mod elementwise;
mod gemm_sm90;
mod image;
mod linear;
mod norm;
mod replay;
mod support;
