//! `tasr upscale`: pictures in, pictures out.

mod args;
mod batch;
mod memory;
mod models;
mod parameters;
mod prompts;
mod report;
mod run;
mod session;
mod words;

pub use args::Args;
pub use run::run;
