//! Every kernel against the CPU side of its op, on the emulator, or with TASR_TEST_DEVICE=cuda on a GPU.

mod attention;
mod detectors;
mod elementwise;
mod image;
mod linear;
mod norm;
mod replay;
mod support;
