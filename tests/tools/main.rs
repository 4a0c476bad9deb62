//! The subcommands around weights and data, run as a user runs them: synth, info, convert, pull, maps, bench; data,
//! degrade and compare.

mod bench;
mod compare;
mod convert;
mod data;
mod degrade;
mod info;
mod maps;
mod mini;
mod program;
mod pull;
mod server;
mod synth;
#[allow(dead_code, reason = "these tests write plain dictionaries only")]
#[path = "../weights/support/torch_file.rs"]
mod torch_file;
