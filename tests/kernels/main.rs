//! Every kernel against the CPU side of its op, on the emulator, or with TASR_TEST_DEVICE=cuda on a GPU.

mod attention;
mod detectors;
mod detectors_sm90;
mod elementwise;
<<<<<<< HEAD
mod gemm_sm90;
=======
mod image;
>>>>>>> main
mod linear;
mod norm;
mod replay;
mod support;
