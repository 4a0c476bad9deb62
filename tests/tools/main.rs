//! The subcommands around weights, run as a user runs them: synth, info, convert, bench.

mod bench;
mod convert;
mod info;
mod program;
mod synth;
#[allow(dead_code, reason = "these tests write plain dictionaries only")]
#[path = "../weights/support/torch_file.rs"]
mod torch_file;
