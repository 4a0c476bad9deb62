//! Every kernel against the CPU side of its op, on the emulator, or with TASR_TEST_DEVICE=cuda on a GPU.

mod attention;
mod backward;
mod conv;
mod conv_backward;
mod conv_sm90;
mod detectors;
mod detectors_sm90;
mod elementwise;
mod gate;
mod gemm_sm90;
mod image;
mod linear;
mod norm;
mod optim;
mod replay;
mod run;
mod support;
mod tokens;
mod window;
