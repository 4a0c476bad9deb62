//! `tasr upscale` as a user runs it, on tiny synthetic weights.

#[cfg(feature = "emulator")]
mod emulator;
mod errors;
mod folder;
mod golden;
mod interrupt;
mod options;
mod pictures;
#[path = "../support/program.rs"]
mod program;
mod prompts;
mod weights;
